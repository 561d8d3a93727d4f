"""Reports the numbers behind the economic stage, so that a decision can say what VMs earn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.core.objective.worth import Worth
from autoscaler.core.types import Float, Horizon, Int, Laws

SHOWN = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
"""The law of each of four questions: of the last VM and one more, those that are started and those that are kept."""


@dataclass(slots=True)
class Economics:
    """The numbers behind what the economic stage wants; n of L lanes have an objective.

    Attributes:
        lanes: int64 (n,), which.
        model: int64 (n,), the model that drives, as a place in `models.MODELS`.
        price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        low, high: int64 (n,), up to and down to how many VMs it goes.
        laws: By which.
        shown: Asks them, of these lanes, for each of `SHOWN`.
        doubted: int64 (n,), VMs that did the work which fell away at once, and so stay for a while; 0 where none did. None for
            nowhere.
    """

    lanes: Int
    model: Int
    price: Float
    low: Int
    high: Int
    laws: Laws
    shown: Worth
    doubted: Int | None = None

    def worth(self, vms: Int) -> Float:
        """What the last of so many VMs, int64 (n,), and one more earn a tick: float64 (2, n), in VM-ticks; NaN without a forecast.

        By demand at the lead time up to as many as are worth starting, else by the highest of the hold window.
        """
        asked = np.empty((4, len(vms)), np.int64)
        np.maximum(vms, 1, out=asked[0])
        np.maximum(vms, 0, out=asked[1])
        asked[1] += 1
        asked[2:] = asked[:2]
        share = self.shown.share(self.laws, asked) * self.price
        found: Float = np.where(vms <= self.low, share[:2], share[2:])
        return found
