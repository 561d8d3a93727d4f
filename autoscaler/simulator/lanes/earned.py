"""What VMs of a few lanes with an objective earn, tick by tick, computed for many ticks at once.

These figures are for people: nothing is decided by them. numpy takes as long for the law of one lane as for those of a
hundred. So the questions of all ticks are stored and answered together when a page is full. The answers equal those of each
tick alone, to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.objective.bands import Drivers
from autoscaler.core.objective.economics import Economics
from autoscaler.core.types import Decision, Int, Laws, Stage
from autoscaler.daemon.fleet_rows import earnings
from autoscaler.ports import Earnings


class _Tick(NamedTuple):
    """The inputs of one tick for k lanes.

    Attributes:
        whole, bands, ends: As in `Drivers`, (k,) and (k, B).
        price, start_cost, capacity, ordered, low, high, by_event, doubted: As in `Economics`, (k,).
        vms: int64 (k,), VMs that the economic stage wants.
        level, spread, scale, excess: The law of each lane, (k, ...).
    """

    whole: NDArray[Any]
    bands: NDArray[Any]
    ends: NDArray[Any]
    price: NDArray[Any]
    start_cost: NDArray[Any]
    capacity: NDArray[Any]
    ordered: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    by_event: NDArray[Any]
    doubted: NDArray[Any]
    vms: NDArray[Any]
    level: NDArray[Any]
    spread: NDArray[Any]
    scale: NDArray[Any]
    excess: NDArray[Any]


class Earned:
    """Collects the inputs of each tick and computes from them what VMs earn.

    Args:
        lanes: int64 (W,), the lanes of the run to watch.
    """

    def __init__(self, lanes: Int) -> None:
        self._lanes = lanes
        self._ticks: list[_Tick] = []
        self._of: Int | None = None

    def see(self, decision: Decision) -> None:
        """Store the inputs of a tick; does nothing if none of the lanes has an objective."""
        told = decision.economics
        if told is None:
            return
        if told.lanes is not self._of:
            self._begin(told)
        if not self._places:
            return
        at, own, laws, drivers = self._at, self._own, told.laws, told.drivers
        column = told.column[at]
        self._ticks.append(
            _Tick(
                drivers.whole[column],
                drivers.bands[:, column].T,
                drivers.ends[:, column].T,
                told.price[at],
                told.start_cost[at],
                told.capacity[at],
                told.ordered[at],
                told.low[at],
                told.high[at],
                self._none if told.by_event is None else told.by_event[at],
                self._none if told.doubted is None else told.doubted[at],
                decision.value[Stage.ECONOMIC][told.lanes[at]],
                laws.level[own],
                laws.spread[own],
                laws.scale[own],
                laws.excess[own],
            )
        )

    def taken(self) -> tuple[tuple[Earnings | None, ...], ...]:
        """Return a row of W for each tick since the last call, and forget these ticks; None for lanes without an objective."""
        ticks, lanes = len(self._ticks), len(self._lanes)
        if not ticks:
            return ()
        kept = _Tick(*map(np.concatenate, zip(*self._ticks, strict=True)))
        self._ticks.clear()
        each, laws = np.arange(len(kept.whole)), Laws(kept.level, kept.spread, kept.scale, kept.excess)
        of = Economics(
            each, each, each, Drivers(kept.whole, kept.bands.T, kept.ends.T), kept.price, kept.start_cost, kept.capacity,
            kept.ordered, kept.low, kept.high, laws, kept.by_event, kept.doubted,
        )  # fmt: skip
        told = iter(earnings(of, kept.vms))
        rows: list[tuple[Earnings | None, ...]] = []
        for _ in range(ticks):
            row: list[Earnings | None] = [None] * lanes
            for place in self._places:
                row[place] = next(told)
            rows.append(tuple(row))
        return tuple(rows)

    def _begin(self, told: Economics) -> None:
        """Find the places of the watched lanes among those that have an objective."""
        self._of = told.lanes
        has = np.isin(self._lanes, told.lanes)
        self._places: list[int] = np.flatnonzero(has).tolist()
        self._at = np.searchsorted(told.lanes, self._lanes[has])
        self._own = told.series[self._at]
        self._none = np.zeros(len(self._at), np.int64)
