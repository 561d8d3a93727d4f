"""What the data guard (`trust`) remembers of the last good data.

Rules of this file: a state as described in `state_base`; `trust` defines what the fields mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.state_base import Dumped, Remembered, length_of
from autoscaler.core.types import Float, Int

NEVER = -1
"""`TrustState.good` before the first good data."""


@dataclass(slots=True)
class TrustState(Remembered):
    """What the data guard remembers of L lanes.

    Attributes:
        good: int (L,), the last wish that rested on data of its tick; `NEVER` before the first such wish.
        lost_s: float64 (L,), when the lane went blind; NaN if it is not blind.
        work: float64 (L,), the last demand above zero, work per second; 0 before the first such demand.
        gone_s: float64 (L,), when demand vanished at once; NaN if it did not, -inf if its absence is believed.
        returned_s: float64 (L,), until when data counts as having only just come back; -inf if it does not.
        lost: 1 if any lane is blind, which saves looking through the lanes.
        returned: 1 if data of any lane has only just come back.
    """

    version: ClassVar[int] = 2
    good: Int
    lost_s: Float
    work: Float
    gone_s: Float
    returned_s: Float
    lost: int = 0
    returned: int = 0

    @classmethod
    def empty(cls, lanes: int) -> TrustState:
        """A state that has seen no data yet."""
        return cls(
            good=np.full(lanes, NEVER),
            lost_s=np.full(lanes, np.nan),
            work=np.zeros(lanes),
            gone_s=np.full(lanes, np.nan),
            returned_s=np.full(lanes, -np.inf),
        )

    @classmethod
    def added(cls, before: Dumped) -> Dumped | None:
        """See `Remembered.added`: version 1 did not note when data came back."""
        return {"returned_s": np.full(length_of(before["good"]), -np.inf), "returned": 0}

    def carried_over(self, lanes: Int) -> TrustState:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        new = TrustState.empty(len(lanes))
        known = lanes >= 0
        for name in ("good", "lost_s", "work", "gone_s", "returned_s"):
            getattr(new, name)[known] = getattr(self, name)[lanes[known]]
        new.lost, new.returned = self.lost, self.returned
        return new
