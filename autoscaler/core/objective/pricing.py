"""The price of shortage: given, or found so that no more work stays unserved than the objective allows.

An objective such as 99.9 % says nothing about money, but everything else here is decided by prices. So every hour this module
finds the price at which the cheapest of the shadow models (`competition`) would have left just as much work unserved as is
allowed. What the fleet itself missed in the last weeks corrects that aim. If it missed more than is allowed, the aim is lower,
down to a fifth if it missed twice as much. The aim is never raised, because a quiet week says little about the next crowd.

Beyond the price found in this way, the price rises only in hours in which more is missed than is allowed. One crowd is remembered
for weeks, and would otherwise raise the price all that time. In a first week, the evidence for a move counts in proportion to how much
of the week has been seen. Prices move slowly and within bounds.

Rules of this file: element-wise over the n lanes with an objective. Missing and censored demand teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.objective.competition import HIGHEST_PRICE, LOWEST_PRICE
from autoscaler.core.params import LaneParams
from autoscaler.core.state_base import Dumped, Remembered, columns_before, length_of, take_columns
from autoscaler.core.types import Bool, Float, Int

HALF_LIFE_S = 14 * 86400.0
"""Age at which missed work has half its weight."""
PROMISED_S = 7 * 86400.0
"""A served share is promised for the work of this much time. On a first day, a single missed minute exceeds what the
day allows, and hardly any model would have missed less. So evidence counts in proportion to how much of this time
has been seen."""
STEP_S = 3600.0
"""How often the price moves."""
STEP = 0.3
"""How far the price moves towards the price that was found, as a share of the difference in logarithms."""
DRIFT, MOST_OFF = 0.05, 3.0
"""Least rise per hour of the price's logarithm while more is missed than is allowed. `DRIFT` applies if earlier misses
exceed the allowance by as much as the allowance itself. The rise is proportional to that excess, which counts up to
`MOST_OFF` allowances."""
_ENOUGH = 1e9
"""Ticks seen that a state from before ticks were counted is taken to have."""
_CARRIED = ("price", "missed", "wanted", "excess", "in_service", "seen")
LEAST_AIM = 0.2
"""Lowest aim, as a share of the unserved work that is allowed."""


@dataclass(slots=True)
class Budget(Remembered):
    """What is remembered of the n lanes that have an objective.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        given: float64 (n,), the policy's price of shortage, or the first guess of a price that is found.
        price: float64 (n,), the price in force.
        missed: float64 (n,), VM-ticks of work that found no VM, forgotten exponentially.
        wanted: float64 (n,), VM-ticks of work, forgotten exponentially.
        excess: float64 (n,), VM-ticks of work that found no VM in this hour, minus what is allowed of that hour's work.
        in_service: float64 (n,), VMs in service at the last step.
        seen: float64 (n,), ticks in which demand was known.
        last_tick: The tick of the last step; -1 before the first.
    """

    version: ClassVar[int] = 3
    reads: ClassVar[int] = 2
    lanes: Int
    given: Float
    price: Float
    missed: Float
    wanted: Float
    excess: Float
    in_service: Float
    seen: Float
    last_tick: int

    @classmethod
    def added(cls, before: Dumped) -> Dumped:
        """Supply what older versions lack: version 1 did not count ticks, and is taken to have seen enough; version 2
        had no `excess`.
        """
        count = length_of(before["price"])
        return {"seen": np.full(count, _ENOUGH)} if before["version"] == 1 else {"excess": np.zeros(count)}

    @classmethod
    def empty(cls, params: LaneParams) -> Budget:
        """Return a state without history."""
        lanes = np.flatnonzero(params.economic)
        given = params.shortage_price[lanes]
        missed, wanted, excess, in_service, seen = (np.zeros(len(lanes)) for _ in range(5))
        return cls(lanes, given, given.copy(), missed, wanted, excess, in_service, seen, -1)

    def carried_over(self, after: LaneParams, lanes: Int) -> Budget:
        """Return the state for other lanes, each of which may continue one of these; this state is not changed.

        A price that was found is carried over only if the new policy would start at the same price.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the earlier lane that each one continues; -1 for a new lane.
        """
        new = Budget.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        known[known] = new.given[known] == self.given[was[known]]
        for name in _CARRIED:
            getattr(new, name)[known] = getattr(self, name)[was[known]]
        new.last_tick = self.last_tick
        return new

    def take_in(self, lanes: Int, other: Budget) -> None:
        """Copy some lanes, int64 (N,), from another state with the same parameters and at the same tick."""
        if other.last_tick < 0:
            return  # the other state was never stepped, so it has no prices that were found
        at, theirs = (np.flatnonzero(np.isin(state.lanes, lanes)) for state in (self, other))
        take_columns(self, at, other, theirs, _CARRIED, when=("last_tick",))


class ShortagePriceController:
    """Compiled feedback on the price of shortage, for the lanes with an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), the lanes with an objective.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._capacity = params.vm_capacity[lanes]
        self._target = params.unserved_target[lanes]
        self._is_found = self._target > 0.0
        self._any_found = bool(self._is_found.any())
        self._promised_ticks = PROMISED_S / params.tick_s
        self._decay = 0.5 ** (params.tick_s / HALF_LIFE_S)

    def step(
        self,
        state: Budget,
        tick: int,
        demand: Float,
        counts: Bool,
        in_service: Float | Int,
        price_for: Callable[[Float], Float],
    ) -> Float:
        """Take in a tick and return the prices in force: float64 (n,), which callers must not change.

        Args:
            state: Updated in place; within a tick only the first call counts.
            tick: The current tick.
            demand: float64 (n,), work per second of the tick that just ended.
            counts: bool (n,), whether that demand is known.
            in_service: float64 or int (n,), VMs in service now.
            price_for: Returns the lowest prices at which the cheapest models leave no more than a share of work
                unserved; takes and returns float64 (n,).
        """
        if not self._any_found or tick <= state.last_tick:
            return state.price
        last, state.last_tick = state.last_tick, tick
        if last >= 0 and tick == last + 1:
            work = np.where(counts, demand, 0.0) / self._capacity
            decay = np.where(counts, self._decay, 1.0)
            state.seen += counts
            missed = np.maximum(work - state.in_service, 0.0)
            state.missed *= decay
            state.missed += missed
            state.excess += missed - self._target * work
            state.wanted *= decay
            state.wanted += work
        state.in_service = in_service.astype(np.float64)
        if int(tick * self._tick_s // STEP_S) != int(last * self._tick_s // STEP_S):
            known = np.minimum(state.seen / self._promised_ticks, 1.0)
            over_allowance = known * np.maximum(
                state.missed / np.maximum(self._target * state.wanted, 1e-9) - 1.0, 0.0
            )
            found_log = np.log(price_for(np.maximum(1.0 - over_allowance, LEAST_AIM) * self._target))
            moved = STEP * known * (found_log - np.log(state.price))
            moved = np.where(
                state.excess > 0.0, np.maximum(moved, DRIFT * np.minimum(over_allowance, MOST_OFF)), moved
            )
            state.excess[:] = 0.0
            moved = np.minimum(np.maximum(state.price * np.exp(moved), LOWEST_PRICE), HIGHEST_PRICE)
            state.price = np.where(self._is_found & (state.wanted > 0.0), moved, state.price)
        return state.price
