"""Judges warm pools: what holding stopped VMs costs, what it saves, and whether it pays.

A pool is compared with these yardsticks, for the numbers of VMs that the policy wanted:

- The cheapest pool, in hindsight, that never misses a start (`judging.clairvoyant.warm_pool`).
- The pool that knows the next hour and nothing after it. This is what forecasting alone can bring, and a rule that only
  learns from the past does worse (`known_law` has a closer bound).
- Three rules that people use: hold the highest number ever wanted, which is the usual default of vendors; hold a VM for a
  day; and hold it until that has cost what making it costs.

For demand itself, there is the cheapest schedule in which each level of the fleet is cold, stopped or running, computed with
and without the stopped state. It sees as far ahead as a start from stopped takes and no further, so a VM that is made when
it is needed is late. The difference of the two costs is the most that any pool can earn.

The books of a policy's own pool are kept as follows. VMs that are missing to the wanted number are ordered at once and exist
a provisioning time later. VMs in excess of it are retired at once. A start that finds no stopped VM is missed. In that run
the fleet itself had all VMs, so a missed start is counted but does not change what came after.

Rules of this file: THIS MODULE LOOKS AHEAD where it says so. Costs are in VM-hours of a VM in service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float, Int
from autoscaler.simulator.judging.clairvoyant import warm_pool

STOPPED_SHARE = 0.046
"""Price of a stopped VM (its disk), relative to a VM in service: 0.0044 to 0.096 an hour, as in the example policy."""

DAY_S = 86_400.0
FORESEEN_S = 3600.0
"""How far ahead the pool that knows the next hour sees, in seconds."""

_ROUNDING = 1e-9
_SECONDS_PER_H = 3600.0
_WORTH_IT = 0.01
"""Least share of the total cost that a pool must be able to save to be worth having."""


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """The prices and times of a pool on one fleet.

    Attributes:
        tick_s: Length of a tick in seconds.
        provision_s: Seconds from the order to make a VM until it serves. All of them are billed.
        start_s: Seconds from the order to start a stopped VM until it serves. All of them are billed.
        stopped_share: Price of a stopped VM, relative to a VM in service.
    """

    tick_s: float
    provision_s: float
    start_s: float
    stopped_share: float = STOPPED_SHARE

    @property
    def cold_ticks(self) -> int:
        """Number of ticks until a VM that is being made exists."""
        return max(math.ceil(self.provision_s / self.tick_s - _ROUNDING), 1)

    @property
    def late_ticks(self) -> float:
        """Number of ticks by which making a VM takes longer than starting one."""
        return max(self.provision_s - self.start_s, 0.0) / self.tick_s

    @property
    def per_provision(self) -> float:
        """Cost of making a VM beyond starting a stopped one, in ticks of a VM in service."""
        return self.provision_s / self.tick_s

    @property
    def break_even_ticks(self) -> int:
        """Number of ticks after which holding a stopped VM has cost as much as making one."""
        return max(math.floor(self.per_provision / self.stopped_share + _ROUNDING), 1)


@dataclass(frozen=True, slots=True)
class Books:
    """The results of one pool.

    Attributes:
        cost: VM-hours for stopped VMs and for making VMs.
        provisions: Number of VMs made.
        missed: Starts that found no stopped VM.
        missed_known: Missed starts below the highest number wanted before. A pool that holds the peak would not have missed
            these.
        mean_stopped: Mean number of stopped VMs.
    """

    cost: float
    provisions: int
    missed: int
    missed_known: int
    mean_stopped: float


def kept_books(wanted: Int, warm_target: Int, terms: PoolTerms, scored_from: int) -> Books:
    """Keep the books of a pool over a run.

    Args:
        wanted: int64 (T,), VMs wanted in service.
        warm_target: int64 (T,), stopped VMs wanted in addition.
        terms: Prices and times.
        scored_from: First tick that counts.
    """
    provisioned = int(wanted[0] + warm_target[0])
    due = [0] * terms.cold_ticks
    highest = int(wanted[0])
    stopped_ticks = provisions = missed = known = 0
    for tick, (want, spare) in enumerate(zip(wanted.tolist(), warm_target.tolist(), strict=True)):
        at = tick % terms.cold_ticks
        provisioned += due[at]
        due[at] = 0
        lacking = max(want - provisioned, 0)
        made = lacking + max(want + spare - max(provisioned, want) - sum(due), 0)
        due[at] += made - lacking
        if tick >= scored_from:
            missed += lacking
            known += max(min(want, highest) - provisioned, 0)
            provisions += made
        # A missed VM is made at once. A VM that is neither wanted nor spare is retired at once.
        provisioned = max(min(max(provisioned, want), want + spare), want)
        if tick >= scored_from:
            stopped_ticks += provisioned - want
        highest = max(highest, want)
    ticks = max(len(wanted) - scored_from, 1)
    cost = terms.stopped_share * stopped_ticks + terms.per_provision * provisions
    return Books(cost * terms.tick_s / _SECONDS_PER_H, provisions, missed, known, stopped_ticks / ticks)


def clairvoyant_books(wanted: Int, terms: PoolTerms, scored_from: int) -> float:
    """Return the VM-hours of the cheapest pool that misses no start, if all wanted numbers are known in advance."""
    scored = wanted[scored_from:]
    first = int(scored[0])
    held = warm_pool(
        scored, per_vm_tick=terms.stopped_share, per_provision=terms.per_provision, provisioned=first
    )
    made = np.maximum(np.diff(held, prepend=first), 0).sum()
    cost = terms.stopped_share * float((held - scored).sum()) + terms.per_provision * float(made)
    return cost * terms.tick_s / _SECONDS_PER_H


def peak_target(wanted: Int) -> Int:
    """Return the warm target of the pool that holds all VMs ever wanted: int64 (T,)."""
    highest: Int = np.maximum.accumulate(wanted)
    return highest - wanted


def break_even_target(wanted: Int, terms: PoolTerms) -> Int:
    """Return the warm target of the pool that holds a VM until that has cost as much as making it: int64 (T,)."""
    return held_target(wanted, terms.break_even_ticks)


def day_target(wanted: Int, terms: PoolTerms) -> Int:
    """Return the warm target of the pool that holds a VM for a day after it was wanted last: int64 (T,)."""
    return held_target(wanted, max(math.floor(DAY_S / terms.tick_s + _ROUNDING), 1))


def held_target(wanted: Int, ticks: int) -> Int:
    """Return the warm target of the pool that holds a VM for some ticks after it was wanted last: int64 (T,)."""
    length = min(ticks + 1, len(wanted))
    padded = np.concatenate((np.zeros(length - 1, np.int64), wanted))
    highest: Int = np.lib.stride_tricks.sliding_window_view(padded, length).max(axis=1)
    return highest - wanted


def foreseen_target(wanted: Int, terms: PoolTerms, ahead_s: float = FORESEEN_S) -> Int:
    """Return the warm target of the pool that holds exactly what will be wanted within `ahead_s` seconds: int64 (T,).

    It looks ahead, at least as far as making a VM takes, so it misses no start.
    """
    length = max(math.floor(ahead_s / terms.tick_s + _ROUNDING), terms.cold_ticks) + 1
    padded = np.concatenate((wanted, np.zeros(length - 1, np.int64)))
    highest: Int = np.lib.stride_tricks.sliding_window_view(padded, length).max(axis=1)
    return highest - wanted


def rises(wanted: Int, scored_from: int) -> int:
    """Return the number of starts that a policy asked for in the scored ticks: every rise of the wanted number.

    Args:
        wanted: int64 (T,), VMs wanted in service.
        scored_from: First tick that counts.
    """
    return int(np.maximum(np.diff(wanted[max(scored_from - 1, 0) :]), 0).sum())


@dataclass(frozen=True, slots=True)
class Worth:
    """What a pool could earn on a demand.

    Attributes:
        with_pool: VM-hours of the cheapest schedule with a stopped state, including unserved work at its price.
        without: The same for a schedule in which VMs are only cold or running.
    """

    with_pool: float
    without: float

    @property
    def saving(self) -> float:
        """Share of the cost that a pool saves."""
        return 1.0 - self.with_pool / self.without if self.without > 0 else 0.0

    @property
    def pays(self) -> bool:
        """Whether that saving makes a pool worth having."""
        return self.saving >= _WORTH_IT


def worth_of(needed: Float, terms: PoolTerms, shortage_price: float) -> Worth:
    """Return what a pool could earn, in hindsight.

    Args:
        needed: float64 (T,), demand in VMs. NaN where unknown.
        terms: Prices and times.
        shortage_price: Price of one VM's unserved work for a tick, relative to the price of that VM.
    """
    hours = terms.tick_s / _SECONDS_PER_H
    return Worth(
        least_cost(needed, terms, shortage_price) * hours,
        least_cost(needed, terms, shortage_price, with_stopped=False) * hours,
    )


def least_cost(needed: Float, terms: PoolTerms, shortage_price: float, *, with_stopped: bool = True) -> float:
    """Return the cost of the cheapest schedule over the states cold, stopped and running, in ticks of a VM in service.

    In each tick, each level k of the fleet is in one of the three states. A tick cold costs nothing, a tick stopped costs
    `stopped_share`, and a tick running costs 1. A level that does not run also pays for the demand that it leaves unserved.
    Going from cold to stopped costs a provision, and from stopped to running a start. Going from cold to running costs a
    provision and the demand left unserved while the VM is late. Each level begins in the state that is cheapest for it.

    Args:
        needed: float64 (T,), demand in VMs. NaN where unknown.
        terms: Prices and times.
        shortage_price: Price of one VM's unserved work for a tick, relative to the price of that VM.
        with_stopped: Whether the stopped state may be used.
    """
    known = np.where(np.isnan(needed), 0.0, needed)
    levels = max(math.ceil(float(known.max(initial=0.0)) - _ROUNDING), 0)
    below = np.arange(levels, dtype=np.float64)
    made, started = terms.per_provision, max(terms.start_s / terms.tick_s, 1.0)
    cold = np.zeros(levels)
    stopped, running = np.full(levels, 0.0 if with_stopped else math.inf), np.zeros(levels)
    held = terms.stopped_share if with_stopped else math.inf
    for want in known.tolist():
        lost = shortage_price * np.clip(want - below, 0.0, 1.0)
        asleep = np.minimum(np.minimum(stopped, running), cold + made)
        late = cold + max(made, started) + terms.late_ticks * lost
        awake = np.minimum(np.minimum(running, stopped + started), late)
        cold = np.minimum(np.minimum(cold, stopped), running) + lost
        stopped, running = asleep + held + lost, awake + 1.0
    best: NDArray[np.float64] = np.minimum(np.minimum(cold, stopped), running)
    return math.fsum(best.tolist())
