"""Reports the numbers behind the economic stage, so that a decision can say what VMs earn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.core.objective.worth import Worth
from autoscaler.core.types import Float, Horizon, Int, Laws

SHOWN = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
"""The laws of the four questions that `Economics.worth` asks. Each pair asks about the last VM and about one more: at
the lead time for VMs that are started, and over the hold window for VMs that are kept."""


@dataclass(slots=True)
class Economics:
    """The numbers behind what the economic stage wants; n of L lanes have an objective.

    Attributes:
        lanes: int64 (n,), the lanes with an objective.
        model: int64 (n,), the model that drives, as a place in `models.MODELS`.
        price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        low, high: int64 (n,), the stage orders up to `low` VMs, and goes down to `high`.
        laws: The laws in force at the decision.
        shown: Evaluates these laws for these lanes, one question per entry of `SHOWN`.
        doubted: int64 (n,), VMs kept for demand that fell suddenly and may return; 0 where there are none. None if
            there are none in any lane.
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
        """Return what the last of these VMs earns per tick, and what one more would earn: float64 (2, n), in VM-ticks.

        Up to `low` VMs, this is read from demand at the lead time; beyond, from the highest demand of the hold window.
        NaN without a forecast.

        Args:
            vms: int64 (n,), numbers of VMs.
        """
        asked = np.empty((4, len(vms)), np.int64)
        np.maximum(vms, 1, out=asked[0])
        np.maximum(vms, 0, out=asked[1])
        asked[1] += 1
        asked[2:] = asked[:2]
        share = self.shown.share(self.laws, asked) * self.price
        found: Float = np.where(vms <= self.low, share[:2], share[2:])
        return found
