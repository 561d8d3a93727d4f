"""Judges warm pools: what holding stopped VMs costs, what it saves, and whether it pays.

Four yardsticks. For the numbers of VMs that a policy wanted, the cheapest pool that always has the VM that is started,
with hindsight (`judging.clairvoyant.warm_pool`). The pool of who knows the next hour, and nothing after it: what
forecasting alone can bring, since a rule that only learns from the past does worse (`known_law` has a nearer one). Two rules that people use: hold the
highest number ever wanted, which is the usual default of vendors, and hold a VM until holding it has cost what making it costs. And, for
demand itself, the cheapest schedule in which each level of the fleet is cold, stopped or running, with and without the
stopped state, for who sees as far as a start from stopped takes and no further: a VM that is made when it is needed is
late. The difference is what any pool can earn.

A policy's own pool is kept by the books: the number it wants is ordered at once and there a provisioning time later;
what it no longer wants is retired at once. A start that finds no stopped VM is missed. The fleet itself had all VMs
in that run, so a missed start is counted and does not change what came after.

Rules of this file: THIS MODULE LOOKS AHEAD where it says so. Money is VM-hours of a VM in service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float, Int
from autoscaler.simulator.judging.clairvoyant import warm_pool

STOPPED_SHARE = 0.046
"""Price of a stopped VM (its disk), over that of one in service: 0.0044 against 0.096 an hour, as in the example policy."""

FORESEEN_S = 3600.0
"""How far the pool of who knows the future sees."""

_ROUNDING = 1e-9
_SECONDS_PER_H = 3600.0
_WORTH_IT = 0.01
"""Least share of the cost that a pool must be able to save to be called worth it."""


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """What a pool costs, on one fleet.

    Attributes:
        tick_s: Length of a tick.
        provision_s: From the order to make a VM until it serves; a VM is billed for all of it.
        start_s: From the order to start a stopped VM until it serves, likewise.
        stopped_share: Price of a stopped VM over that of one in service.
    """

    tick_s: float
    provision_s: float
    start_s: float
    stopped_share: float = STOPPED_SHARE

    @property
    def cold_ticks(self) -> int:
        """Ticks until a VM that is made is there."""
        return max(math.ceil(self.provision_s / self.tick_s - _ROUNDING), 1)

    @property
    def late_ticks(self) -> float:
        """Ticks by which a VM that is made serves later than one that is started."""
        return max(self.provision_s - self.start_s, 0.0) / self.tick_s

    @property
    def per_provision(self) -> float:
        """What making a VM costs beyond starting a stopped one, in ticks of a VM in service."""
        return self.provision_s / self.tick_s

    @property
    def break_even_ticks(self) -> int:
        """Ticks for which holding a stopped VM costs what making one costs."""
        return max(math.floor(self.per_provision / self.stopped_share + _ROUNDING), 1)


@dataclass(frozen=True, slots=True)
class Books:
    """What a pool came to.

    Attributes:
        cost: VM-hours for stopped VMs and for making VMs.
        provisions: VMs made.
        missed: Starts that found no stopped VM.
        missed_known: Of these, starts below the highest number that had been wanted before: those that a pool that
            holds the peak would not have missed.
        mean_stopped: Stopped VMs, on average.
    """

    cost: float
    provisions: int
    missed: int
    missed_known: int
    mean_stopped: float


def kept_books(wanted: Int, warm_target: Int, terms: PoolTerms, scored_from: int) -> Books:
    """The books of a pool.

    Args:
        wanted: int64 (T,), VMs wanted in service.
        warm_target: int64 (T,), stopped VMs wanted beside them.
        terms: Prices.
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
        # Who is missed is made at once; who is neither wanted nor spare goes.
        provisioned = max(min(max(provisioned, want), want + spare), want)
        if tick >= scored_from:
            stopped_ticks += provisioned - want
        highest = max(highest, want)
    ticks = max(len(wanted) - scored_from, 1)
    cost = terms.stopped_share * stopped_ticks + terms.per_provision * provisions
    return Books(cost * terms.tick_s / _SECONDS_PER_H, provisions, missed, known, stopped_ticks / ticks)


def clairvoyant_books(wanted: Int, terms: PoolTerms, scored_from: int) -> float:
    """VM-hours of the cheapest pool that misses nothing, for numbers of VMs that are known beforehand."""
    scored = wanted[scored_from:]
    first = int(scored[0])
    held = warm_pool(
        scored, per_vm_tick=terms.stopped_share, per_provision=terms.per_provision, provisioned=first
    )
    made = np.maximum(np.diff(held, prepend=first), 0).sum()
    cost = terms.stopped_share * float((held - scored).sum()) + terms.per_provision * float(made)
    return cost * terms.tick_s / _SECONDS_PER_H


def peak_target(wanted: Int) -> Int:
    """The pool that holds all VMs ever wanted: int64 (T,)."""
    highest: Int = np.maximum.accumulate(wanted)
    return highest - wanted


def break_even_target(wanted: Int, terms: PoolTerms) -> Int:
    """The pool that holds a VM until that has cost as much as making it: int64 (T,)."""
    length = min(terms.break_even_ticks + 1, len(wanted))
    padded = np.concatenate((np.zeros(length - 1, np.int64), wanted))
    highest: Int = np.lib.stride_tricks.sliding_window_view(padded, length).max(axis=1)
    return highest - wanted


def foreseen_target(wanted: Int, terms: PoolTerms, ahead_s: float = FORESEEN_S) -> Int:
    """The pool that has whatever is wanted before a time ahead is over, and nothing else: int64 (T,). It looks ahead.

    It sees at least as far as a VM takes to be made, so it misses nothing.
    """
    length = max(math.floor(ahead_s / terms.tick_s + _ROUNDING), terms.cold_ticks) + 1
    padded = np.concatenate((wanted, np.zeros(length - 1, np.int64)))
    highest: Int = np.lib.stride_tricks.sliding_window_view(padded, length).max(axis=1)
    return highest - wanted


def rises(wanted: Int, scored_from: int) -> int:
    """VMs that a policy asked for beyond what it had wanted the tick before, in the scored ticks: its starts.

    Args:
        wanted: int64 (T,), VMs wanted in service.
        scored_from: First tick that counts.
    """
    return int(np.maximum(np.diff(wanted[max(scored_from - 1, 0) :]), 0).sum())


@dataclass(frozen=True, slots=True)
class Worth:
    """What a pool could earn on a demand.

    Attributes:
        with_pool: VM-hours of the cheapest schedule with a stopped state, unserved work at its price included.
        without: The same if VMs were only cold or running.
    """

    with_pool: float
    without: float

    @property
    def saving(self) -> float:
        """Share of the cost that a pool saves."""
        return 1.0 - self.with_pool / self.without if self.without > 0 else 0.0

    @property
    def pays(self) -> bool:
        """Whether a pool is worth the trouble."""
        return self.saving >= _WORTH_IT


def worth_of(needed: Float, terms: PoolTerms, shortage_price: float) -> Worth:
    """What a pool could earn, with hindsight.

    Args:
        needed: float64 (T,), demand in VMs; NaN where unknown.
        terms: Prices.
        shortage_price: Of the unserved work of a VM for a tick, over the price of that VM.
    """
    hours = terms.tick_s / _SECONDS_PER_H
    return Worth(
        least_cost(needed, terms, shortage_price) * hours,
        least_cost(needed, terms, shortage_price, with_stopped=False) * hours,
    )


def least_cost(needed: Float, terms: PoolTerms, shortage_price: float, *, with_stopped: bool = True) -> float:
    """The least cost of the three-state schedule, in ticks of a VM in service.

    Level k of the fleet is cold, stopped or running in each tick; these cost nothing, `stopped_share` and 1, and not running
    costs what it leaves of demand. Going from cold to stopped costs a provisioning, from stopped to running a start, and from
    cold to running a provisioning and what is left of demand while the VM is late. Each level begins in the state that is best for it.

    Args:
        needed: As in `worth_of`.
        terms: Prices.
        shortage_price: As in `worth_of`.
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
