"""The share of its work that a VM finds while it starts, as measured: how `tiers` values a faster start.

VMs ordered ahead of demand have almost no work at first; VMs ordered after a surprise have all of theirs at once. So the work that
exists for VMs ordered within the last start time is compared with all that these could do, whether they serve already (because their
starts are fast) or not yet. That makes the result independent of how VMs wait.

Rules of this file: state only; nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered, columns_before, take_columns
from autoscaler.core.types import Float, Int

AT_FIRST, AT_FIRST_WEIGHT = 0.25, 20.0
"""The share of its work that a VM has while it starts, before any was seen; and after so many VM-ticks as much of
what is believed has been seen."""
HALF_LIFE_S = 14 * 86400.0
"""What was seen counts half after this time."""


@dataclass(slots=True)
class Starting(Remembered):
    """What is remembered of VMs while they start, in n lanes that have an objective and whose VMs may hibernate.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        recent: float64 (n,), VMs that were ordered lately: of those of one tick, an even share less each tick of a start.
        ordered: int64 (n,), VMs in service or on their way at the last tick.
        worked: float64 (n,), VM-ticks of work that there was for recent VMs, forgotten slowly.
        passed: float64 (n,), VM-ticks of recent VMs, likewise.
        last_tick: The last tick that was taken in; -1 before the first.
    """

    version: ClassVar[int] = 1
    lanes: Int
    recent: Float
    ordered: Int
    worked: Float
    passed: Float
    last_tick: int

    @classmethod
    def empty(cls, params: LaneParams) -> Starting:
        """Nothing seen yet."""
        lanes = np.flatnonzero(params.economic & params.hibernate)
        count = len(lanes)
        return cls(lanes, np.zeros(count), np.zeros(count, np.int64), np.zeros(count), np.zeros(count), -1)

    def carried_over(self, after: LaneParams, lanes: Int) -> Starting:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        new = Starting.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        for name in ("recent", "ordered", "worked", "passed"):
            getattr(new, name)[known] = getattr(self, name)[was[known]]
        new.last_tick = self.last_tick
        return new

    def take_in(self, lanes: Int, other: Starting) -> None:
        """Know some lanes, int64 (N,), as another state does; the VMs that start now are those of this one."""
        at, theirs = (np.flatnonzero(np.isin(state.lanes, lanes)) for state in (self, other))
        take_columns(self, at, other, theirs, ("worked", "passed"))

    def at_first(self) -> Float:
        """The share of its work that a VM has while it starts: float64 (n,)."""
        share: Float = (self.worked + AT_FIRST * AT_FIRST_WEIGHT) / (self.passed + AT_FIRST_WEIGHT)
        return share
