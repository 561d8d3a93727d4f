"""What the data guard (`trust`) remembers of the last good data.

Rules of this file: a state as described in `remembered`; `trust` gives it its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.remembered import Remembered
from autoscaler.core.types import Float, Int

NEVER = -1
"""`TrustState.good` before the first good data."""


@dataclass(slots=True)
class TrustState(Remembered):
    """What is remembered of good data, over L lanes.

    Attributes:
        good: int (L,), the last wish that rested on data of its tick; `NEVER` before the first.
        lost_s: float64 (L,), when the lane went blind; NaN where it is not.
        work: float64 (L,), the last demand above zero, work per second; 0 before the first.
        gone_s: float64 (L,), when demand vanished at once; NaN where it did not.
        lost: 1 where any lane is blind, so that nobody has to look.
    """

    version: ClassVar[int] = 1
    good: Int
    lost_s: Float
    work: Float
    gone_s: Float
    lost: int = 0

    @classmethod
    def empty(cls, lanes: int) -> TrustState:
        """Nothing has been seen yet."""
        return cls(
            good=np.full(lanes, NEVER),
            lost_s=np.full(lanes, np.nan),
            work=np.zeros(lanes),
            gone_s=np.full(lanes, np.nan),
        )

    def carried_over(self, lanes: Int) -> TrustState:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            lanes: int64 (N,), the lane that each was; -1 for a new one.
        """
        new = TrustState.empty(len(lanes))
        known = lanes >= 0
        for name in ("good", "lost_s", "work", "gone_s"):
            getattr(new, name)[known] = getattr(self, name)[lanes[known]]
        new.lost = self.lost
        return new
