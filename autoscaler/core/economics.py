"""What the economic stage tells of its numbers, so that a decision can say what VMs earn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.core.types import Float, Int


@dataclass(slots=True)
class Economics:
    """The numbers behind what the economic stage wants; n of L lanes have an objective.

    Attributes:
        lanes: int64 (n,), which.
        model: int64 (n,), the model that drives, as a place in `models.MODELS`.
        price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        low, high: int64 (n,), up to and down to how many VMs it goes.
        worth: Of a number of VMs, int64 (n,): what the last of them and one more earn a tick, in VM-ticks; float64
            (2, n), NaN where there is no forecast.
        doubted: int64 (n,), VMs that did the work which fell away at once, and so stay for a while; 0 where none did. None for
            nowhere.
    """

    lanes: Int
    model: Int
    price: Float
    low: Int
    high: Int
    worth: Callable[[Int], Float]
    doubted: Int | None = None
