"""What VMs of a few lanes with an objective earn, tick by tick, computed for many ticks at once.

What VMs earn is for people: nothing is decided by it. A law of one lane takes numpy as long as those of a hundred, so what
is asked is kept, and answered when a page is full; the answers are those of each tick alone, to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.objective.economics import SHOWN, Economics
from autoscaler.core.objective.worth import Worth
from autoscaler.core.types import Decision, Int, Laws, Stage
from autoscaler.daemon.fleet_rows import earnings
from autoscaler.ports import Earnings


class _Tick(NamedTuple):
    """What is asked at a tick, of k lanes.

    Attributes:
        model, price, low, high, doubted: As in `Economics`, (k,).
        vms: int64 (k,), what the stage wants.
        level, spread, scale, excess: The laws of each, (k, ...).
    """

    model: NDArray[Any]
    price: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    doubted: NDArray[Any]
    vms: NDArray[Any]
    level: NDArray[Any]
    spread: NDArray[Any]
    scale: NDArray[Any]
    excess: NDArray[Any]


class Earned:
    """Keeps what is asked.

    Args:
        lanes: int64 (W,), which lanes of the run.
    """

    def __init__(self, lanes: Int) -> None:
        self._lanes = lanes
        self._ticks: list[_Tick] = []
        self._of: Int | None = None
        self._shown: dict[int, Worth] = {}

    def see(self, decision: Decision) -> None:
        """Keep a tick; nothing where none of the lanes has an objective."""
        told = decision.economics
        if told is None:
            return
        if told.lanes is not self._of:
            self._begin(told)
        if not self._places:
            return
        at, own, laws = self._at, self._own, told.laws
        doubted = self._none if told.doubted is None else told.doubted[at]
        self._ticks.append(
            _Tick(
                told.model[at],
                told.price[at],
                told.low[at],
                told.high[at],
                doubted,
                decision.value[Stage.ECONOMIC][told.lanes[at]],
                laws.level[own],
                laws.spread[own],
                laws.scale[own],
                laws.excess[own],
            )
        )

    def taken(self) -> tuple[tuple[Earnings | None, ...], ...]:
        """A row of W for each tick since this was asked last; None for lanes without an objective."""
        ticks, lanes = len(self._ticks), len(self._lanes)
        if not ticks:
            return ()
        kept = _Tick(*map(np.concatenate, zip(*self._ticks, strict=True)))
        self._ticks.clear()
        each = len(self._at)
        if ticks not in self._shown:
            self._shown[ticks] = Worth(np.arange(ticks * each), np.tile(self._capacity, ticks), SHOWN)
        laws = Laws(kept.level, kept.spread, kept.scale, kept.excess)
        shown = self._shown[ticks]
        of = Economics(
            shown.series, kept.model, kept.price, kept.low, kept.high, laws, shown, doubted=kept.doubted
        )
        told = iter(earnings(of, kept.vms))
        rows: list[tuple[Earnings | None, ...]] = []
        for _ in range(ticks):
            row: list[Earnings | None] = [None] * lanes
            for place in self._places:
                row[place] = next(told)
            rows.append(tuple(row))
        return tuple(rows)

    def _begin(self, told: Economics) -> None:
        """Where the lanes are among those that have an objective."""
        self._of = told.lanes
        has = np.isin(self._lanes, told.lanes)
        self._places: list[int] = np.flatnonzero(has).tolist()
        self._at = np.searchsorted(told.lanes, self._lanes[has])
        self._own = told.shown.series[self._at]
        self._capacity = told.shown.capacity[self._at]
        self._none = np.zeros(len(self._at), np.int64)
