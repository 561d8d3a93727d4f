"""How many VMs should exist, stopped ones included: by what a start that finds none would cost.

A VM that waits stopped costs `stopped_cost` a tick. It saves, whenever a start finds it, the time that a VM made from
nothing takes longer, and the price of making it. So of N VMs the k-th is held iff over the horizon of H ticks

    q * starts(k) * price * unserved(k)  +  provision_cost * P(k needed)  >  stopped_cost * H

where starts(k) is how often wanted VMs rise to k within H, unserved(k) the VM-ticks of work that the start leaves until
a VM made from nothing would serve, and P(k needed) = 1 - exp(-starts(k)). H is the time after which a VM has cost as
much as making it anew (the break-even of ski rental), within bounds. How often wanted VMs rise is counted for every
level and forgotten slowly, and what has not been seen yet is allowed for: once in all the time that was seen, half as
many again as ever. If nothing is held by this rule, a pool is not worth its price.

Rules of this file: element-wise, sums along bins in their order. What is wanted is worked out once an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.habits import BINS, EDGES, HOUR_S, HOURS, Habits, bin_of
from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered, columns_before
from autoscaler.core.types import MOST_VMS, Float, Int

HALF_LIFE_S = 14 * 86400.0
"""A rise of wanted VMs counts half after this time."""
UNSEEN = 1.5
"""What has not been seen yet may need so many times as many VMs as ever."""
_LOWER: Float = EDGES[:-1, np.newaxis]
_NEVER = 1e-12


@dataclass(slots=True)
class WarmPool(Remembered):
    """What is remembered of n lanes that have an objective.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        rises: float64 (BINS, n), how often wanted VMs rose into a bin less how often they rose out of it, forgotten
            slowly: summed from the top, how often they rose to a bin.
        ticks: float64 (n,), ticks that were seen, likewise.
        wanted: int64 (n,), VMs that should exist; -1 before the first hour is over.
        last: int64 (n,), VMs wanted at the last tick; -1 before the first.
        last_tick: That tick; -1 before the first.
    """

    version: ClassVar[int] = 1
    lanes: Int
    rises: Float
    ticks: Float
    wanted: Int
    last: Int
    last_tick: int

    @classmethod
    def empty(cls, params: LaneParams) -> WarmPool:
        """Nothing seen yet."""
        lanes = np.flatnonzero(params.economic)
        count = len(lanes)
        unknown = np.full(count, -1)
        return cls(lanes, np.zeros((BINS, count)), np.zeros(count), unknown, unknown.copy(), -1)

    def carried_over(self, after: LaneParams, lanes: Int) -> WarmPool:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        new = WarmPool.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        for name in ("rises", "ticks", "wanted", "last"):
            getattr(new, name)[..., known] = getattr(self, name)[..., was[known]]
        new.last_tick = self.last_tick
        return new


class Holding:
    """The rule, compiled for the lanes that have an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._columns = np.arange(len(lanes))
        self._stopped, self._made = params.stopped_cost[lanes], params.provision_cost[lanes]
        self._cold, self._horizon = params.cold_ticks[lanes], params.refill_ticks[lanes]
        self._success = params.start_success[lanes]
        self._decay = 0.5 ** (HOUR_S / HALF_LIFE_S)

    def step(self, warm_pool: WarmPool, tick: int, desired: Int, habits: Habits, price: Float) -> Int:
        """Take in what is wanted at a tick, and give how many VMs should exist: int64 (n,), not to be changed.

        Args:
            warm_pool: Updated in place; within a tick only the first call counts.
            tick: Now.
            desired: int (n,), VMs wanted in service.
            habits: How demand is distributed.
            price: float64 (n,), of a VM-tick of unserved work.

        Returns:
            -1 where nothing is known yet.
        """
        if tick <= warm_pool.last_tick:
            return warm_pool.wanted
        last, warm_pool.last_tick = warm_pool.last_tick, tick
        now = desired.astype(np.int64)
        rose = (now > warm_pool.last) & (warm_pool.last >= 0)
        if np.count_nonzero(rose):
            for vms, sign in ((now, 1.0), (warm_pool.last, -1.0)):
                cell = bin_of(np.maximum(vms, 0).astype(np.float64)) * len(now) + self._columns
                warm_pool.rises.reshape(-1)[cell] += sign * rose
        warm_pool.last = now
        warm_pool.ticks += 1.0
        hour, before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
        if last >= 0 and hour != before:
            warm_pool.wanted = self._worth(warm_pool, habits, price)
            forgotten = self._decay ** min(hour - before, 10_000)
            warm_pool.rises *= forgotten
            warm_pool.ticks *= forgotten
        return warm_pool.wanted

    def _worth(self, warm_pool: WarmPool, habits: Habits, price: Float) -> Int:
        """How many VMs are worth holding."""
        rate = np.add.accumulate(warm_pool.rises[::-1], axis=0)[::-1] / warm_pool.ticks
        np.maximum(rate, 0.0, out=rate)
        seen = habits.seen[HOURS].astype(np.float64)
        needed = np.add.accumulate(seen[::-1], axis=0)[::-1]
        needed = needed / np.maximum(needed[0], 1e-9)
        # What a start leaves unserved: as long as it is needed at all, at most until a VM made from nothing serves.
        unserved = np.minimum(needed / np.maximum(rate, 1e-12), self._cold)
        ever = rate > _NEVER
        highest = np.where(np.logical_or.reduce(ever, axis=0), EDGES[BINS - ever[::-1].argmax(axis=0)], 0.0)
        surprise = (highest * UNSEEN > _LOWER) / warm_pool.ticks
        unserved = np.where(rate >= surprise, unserved, self._cold)
        starts = np.maximum(rate, surprise) * self._horizon
        worth = self._success * starts * price * unserved + self._made * (1.0 - np.exp(-starts))
        held = worth > self._stopped * self._horizon
        # Levels that are always wanted never rise and need no pool: what counts is the highest that is worth it.
        top = np.where(np.logical_or.reduce(held, axis=0), BINS - held[::-1].argmax(axis=0), 0)
        vms = np.maximum(np.ceil(EDGES[top] - 1e-9) - 1.0, 0.0)
        return np.minimum(np.ceil(vms / self._success - 1e-9), MOST_VMS).astype(np.int64)
