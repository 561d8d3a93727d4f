"""What operators allow the daemon to do, as the arrays over lanes that core reads.

Rules of this file: values and one pure function. `operators` knows what is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.core.types import NO_CEILING, Bool, Int
from autoscaler.ports import ALL_FLEETS, PAUSABLE, FleetTick, OperatorChange, Verb


@dataclass(frozen=True, slots=True)
class Allowances:
    """Fields of `core.types.Snapshot`, and the same per lane for the journal.

    Attributes:
        may_start, may_provision, may_stop: bool (L,), False where that is paused.
        floor: int64 (L,), VMs in place of the policy's minimum; 0 where it holds.
        ceiling: int64 (L,), VMs in place of the policy's maximum; `NO_CEILING` where it holds.
        limited: Lanes in which anything is paused or overridden.
        may_refill: bool (L,), False where making VMs for the warm pool is paused, or making any.
    """

    may_start: Bool
    may_provision: Bool
    may_stop: Bool
    floor: Int
    ceiling: Int
    limited: frozenset[int]
    may_refill: Bool

    def only(self, lanes: Sequence[bool]) -> Allowances:
        """The same for an early turn, in which nothing is done in the other lanes."""
        asks = np.array(lanes, np.bool_)
        return replace(
            self,
            may_start=self.may_start & asks,
            may_provision=self.may_provision & asks,
            may_stop=self.may_stop & asks,
        )

    def noted(self, row: FleetTick, lane: int) -> FleetTick:
        """The row of a lane with what was in force; as it is where nothing was."""
        if lane not in self.limited:
            return row
        return replace(
            row,
            may_start=bool(self.may_start[lane]),
            may_provision=bool(self.may_provision[lane]),
            may_stop=bool(self.may_stop[lane]),
            floor=int(self.floor[lane]),
            ceiling=int(self.ceiling[lane]),
        )


def allowances(changes: Iterable[OperatorChange], names: Sequence[str]) -> Allowances:
    """What these pauses and overrides leave to fleets; those of other fleets have no effect.

    Args:
        changes: All that is in force.
        names: The fleets in lane order.
    """
    lanes = len(names)
    may = {verb: np.ones(lanes, np.bool_) for verb in PAUSABLE}
    floor, ceiling = np.zeros(lanes, np.int64), np.full(lanes, NO_CEILING, np.int64)
    lane_of = {name: lane for lane, name in enumerate(names)}
    limited: set[int] = set()
    for change in changes:
        held = range(lanes) if change.fleet == ALL_FLEETS else [lane_of.get(change.fleet, -1)]
        for lane in held:
            if lane < 0:
                continue
            limited.add(lane)
            if change.verb is not None:
                may[change.verb][lane] = False
            if change.floor is not None:
                floor[lane] = change.floor
            if change.ceiling is not None:
                ceiling[lane] = change.ceiling
    may[Verb.REFILL] &= may[Verb.PROVISION]
    for array in (*may.values(), floor, ceiling):
        # Core looks at read-only arrays once, and not every tick.
        array.flags.writeable = False
    return Allowances(
        may[Verb.START],
        may[Verb.PROVISION],
        may[Verb.STOP],
        floor,
        ceiling,
        frozenset(limited),
        may[Verb.REFILL],
    )
