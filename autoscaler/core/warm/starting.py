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
from autoscaler.core.state_base import Remembered, columns_before, take_columns
from autoscaler.core.types import Float, Int

AT_FIRST, AT_FIRST_WEIGHT = 0.25, 20.0
"""The share of its work that a VM is assumed to have while it starts before any was measured, and the weight of that
assumption in VM-ticks."""
HALF_LIFE_S = 14 * 86400.0
"""Age at which an observation has half its weight."""


@dataclass(slots=True)
class Starting(Remembered):
    """What is remembered of VMs while they start, in the n lanes with an objective whose VMs may hibernate.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        recent: float64 (n,), VMs ordered within about the last start time; each tick's orders fade by the same factor per tick.
        ordered: int64 (n,), VMs in service or starting at the last tick.
        worked: float64 (n,), fading sum of VM-ticks of work that existed for recent VMs.
        passed: float64 (n,), fading sum of VM-ticks of recent VMs.
        last_tick: The last tick that was counted; -1 before the first.
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
        """A state that has seen no tick."""
        lanes = np.flatnonzero(params.economic & params.hibernate)
        count = len(lanes)
        return cls(lanes, np.zeros(count), np.zeros(count, np.int64), np.zeros(count), np.zeros(count), -1)

    def carried_over(self, after: LaneParams, lanes: Int) -> Starting:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            after: The parameters of the N other lanes.
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        new = Starting.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        for name in ("recent", "ordered", "worked", "passed"):
            getattr(new, name)[known] = getattr(self, name)[was[known]]
        new.last_tick = self.last_tick
        return new

    def take_in(self, lanes: Int, other: Starting) -> None:
        """Copy what another state has measured for some lanes, int64 (N,); VMs that are starting now are kept."""
        at, theirs = (np.flatnonzero(np.isin(state.lanes, lanes)) for state in (self, other))
        take_columns(self, at, other, theirs, ("worked", "passed"))

    def at_first(self) -> Float:
        """The share of its work that a VM has while it starts, as measured: float64 (n,)."""
        share: Float = (self.worked + AT_FIRST * AT_FIRST_WEIGHT) / (self.passed + AT_FIRST_WEIGHT)
        return share
