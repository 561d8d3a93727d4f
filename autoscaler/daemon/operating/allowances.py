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
    """What operators allow: fields of `core.types.Snapshot`, and the same per lane for the journal.

    Attributes:
        may_start: bool (L,), False where starts are paused.
        may_provision: bool (L,), False where provisioning is paused.
        may_stop: bool (L,), False where stops are paused.
        floor: int64 (L,), VMs in place of the policy's minimum; 0 where the policy applies.
        ceiling: int64 (L,), VMs in place of the policy's maximum; `NO_CEILING` where the policy applies.
        limited: Lanes in which anything is paused or overridden.
        may_refill: bool (L,), False where refills of the warm pool, or all provisioning, are paused.
    """

    may_start: Bool
    may_provision: Bool
    may_stop: Bool
    floor: Int
    ceiling: Int
    limited: frozenset[int]
    may_refill: Bool

    def only(self, lanes: Sequence[bool]) -> Allowances:
        """Return the same for an early turn, in which nothing is done in lanes that are False."""
        asks = np.array(lanes, np.bool_)
        return replace(
            self,
            may_start=self.may_start & asks,
            may_provision=self.may_provision & asks,
            may_stop=self.may_stop & asks,
        )

    def noted(self, row: FleetTick, lane: int) -> FleetTick:
        """Return the row of a lane with what is in force; unchanged if nothing is."""
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
    """Return what these pauses and overrides allow; changes for other fleets have no effect.

    Args:
        changes: All changes in force.
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
        # Core examines read-only arrays only once, and not every tick.
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
