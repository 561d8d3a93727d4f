"""Right-sizing by competitive analysis, as a peer (rules of these files: `peer`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int, Snapshot
from autoscaler.simulator.peers.peer import Sized, ordered, over_lanes


class LazyCapacity(Sized):
    """Lazy capacity provisioning (Lin, Wierman, Andrew, Thereska 2011): moves only to stay between two prefix optima.

    With a price of shortage the problem separates into levels of the fleet. For each level, take the cheapest plans in
    hindsight for all demand known so far, one that ends with the level on and one that ends with it off. The difference in
    their costs lies between zero and the cost of a start. The level turns on when it is zero, off when it is the cost of a
    start, and stays as it is in between. The cost is at most 3 times that of knowing the future, if starts serve at once.
    The rule does not know of lead times, and a tick is its step.

    Args:
        params: The lanes.
        shortage_price: Cost of leaving the work of one VM unserved for a tick, in prices of a VM in service for a tick.
        start_ticks: Cost of a start, in the same prices.
    """

    def __init__(self, params: LaneParams, *, shortage_price: float | Float, start_ticks: float) -> None:
        super().__init__(params)
        lanes = len(params.vm_capacity)
        self._price = over_lanes(shortage_price, params)
        self._start = start_ticks
        self._most = int(params.maximum.max())
        # Levels are added when demand first reaches them, because a level that was never needed is off.
        self._behind: Float = np.empty((0, lanes))
        self._on: Bool = np.empty((0, lanes), np.bool_)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        known = ~np.isnan(snapshot.demand)
        wanted = np.where(known, snapshot.demand, 0.0) / self._params.vm_capacity
        self._grow(min(math.ceil(float(wanted.max(initial=0.0))), self._most))
        if not len(self._on):
            return np.where(known, 0, ordered(snapshot))
        below = np.arange(len(self._on), dtype=np.float64)[:, np.newaxis]
        moved = self._behind + (1.0 - self._price * np.minimum(np.maximum(wanted - below, 0.0), 1.0))
        moved = np.minimum(np.maximum(moved, 0.0), self._start)
        self._behind = np.where(known, moved, self._behind)
        self._on = (self._behind <= 0.0) | (self._on & (self._behind < self._start))
        total: Int = np.add.reduce(self._on, axis=0, dtype=np.int64)
        return np.where(known, total, ordered(snapshot))

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`).

        A level that is off and behind by the whole cost of a start is like a level that was never added.
        """
        del now_s
        return [self._behind.copy(), self._on.copy()]

    def _grow(self, levels: int) -> None:
        more = levels - len(self._on)
        if more > 0:
            lanes = self._on.shape[1]
            self._behind = np.concatenate((self._behind, np.full((more, lanes), self._start)))
            self._on = np.concatenate((self._on, np.zeros((more, lanes), np.bool_)))
