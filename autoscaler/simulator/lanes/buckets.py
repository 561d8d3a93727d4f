"""The provider's API budget in the lane engine: token buckets per lane.

Rules of this file: element-wise over lanes; a call that does not fit is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.simulator.lanes.delays import Vms
from autoscaler.simulator.lanes.plant_settings import Budget


class Bucket:
    """A token bucket per lane; a tick's calls that do not fit are refused as a whole.

    Args:
        budgets: One per lane; None for no limit.
        tick_s: Length of a tick.
    """

    def __init__(self, budgets: Sequence[Budget | None], tick_s: float) -> None:
        self._size = np.array([np.inf if each is None else each.vms for each in budgets])
        self._flow = np.array([0.0 if each is None else each.vms_per_s * tick_s for each in budgets])
        self.tokens = self._size.copy()

    def accepted(self, counts: Vms) -> Vms:
        """Return the counts accepted at this tick; must be called once a tick."""
        # The tolerance lets a thousand additions of a fraction make the whole number of tokens that one would expect.
        fits = counts <= self.tokens + 1e-9
        taken: Vms = counts * fits
        self.tokens = np.minimum(np.maximum(self.tokens - taken, 0.0) + self._flow, self._size)
        return taken
