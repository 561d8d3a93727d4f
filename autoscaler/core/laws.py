"""The grid of a predictive law, for those who make laws, and how a law is read.

A law is a histogram over places `u = arsinh(log((demand + scale) / (level + scale)) / spread)`. Places are even where
outcomes are likely and grow exponentially in the tails, so 64 bins tell a tenth of a spread apart near the
level and still hold a jump of a thousand times; and the bin of any demand is closed-form, without a search.

Rules of this file: element-wise only, no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Float, Horizon, Int, Laws

PLACES: Float = (LAW_LOW + LAW_STEP * np.arange(LAW_BINS + 1)).astype(np.float64)
"""Places of the edges, (LAW_BINS + 1,)."""
EDGES: Float = np.sinh(PLACES)
"""The same in spreads of the log ratio."""
MOST_LOG = 60.0
"""Log ratios beyond this are never reached; exp of it fits 32 bits."""


class Page(NamedTuple):
    """The laws of some ticks that follow each other, T of S series.

    Attributes:
        laws: Of T * S series: those of the first tick, then those of the next.
        ticks: How many.
        first_tick: The first of them.
        demand: float64 (T, S), of which lanes will probably see at these ticks; NaN where unknown. None where nobody knows.
    """

    laws: Laws
    ticks: int
    first_tick: int = -1
    demand: Float | None = None


@dataclass(frozen=True, slots=True)
class PagedLaws(Laws):
    """Laws of a tick in a replay that made those of the ticks around it beforehand.

    What is asked of laws in the same way tick by tick takes far less asked of a whole page, where laws are few. That is all
    that a page is for: no answer may depend on it.

    Attributes:
        page: In which they are.
        row: At which of its ticks.
    """

    page: Page
    row: int


class LawReader:
    """What lanes ask of one horizon of the laws of their series.

    Args:
        laws: As issued.
        horizon: Which of them.
        series: int64 (L,), the series of each lane.
    """

    def __init__(self, laws: Laws, horizon: Horizon, series: Int) -> None:
        self._excess = laws.excess.reshape(-1)
        horizons = laws.level.shape[1]
        row = series * horizons + int(horizon)
        self._base = row * (LAW_BINS + 1)
        self._scale = laws.scale.take(series)
        self._level = laws.level.reshape(-1).take(row) + self._scale
        self._spread = laws.spread.reshape(-1).take(row)

    def beyond(self, demand: Float) -> Float:
        """Expected work per second beyond these demands.

        Args:
            demand: float64 (..., L), work per second, at least 0.

        Returns:
            float64 (..., L): linear in demand between two edges, so convex; NaN where the level is unknown.
        """
        known = ~np.isnan(self._level)
        level = np.where(known, self._level, 1.0)
        ratio = (demand + self._scale) / level
        place = (np.arcsinh(np.log(ratio) / self._spread) - LAW_LOW) / LAW_STEP
        index = np.minimum(np.maximum(place, 0.0), LAW_BINS - 1.0).astype(np.int64)
        lower = _edge(level, self._scale, self._spread, index)
        upper = _edge(level, self._scale, self._spread, index + 1)
        index += self._base
        low, high = self._excess.take(index).astype(np.float64), self._excess.take(index + 1)
        into = (demand - lower) / np.maximum(upper - lower, 1e-300)
        found = low + np.minimum(into, 1.0) * (high - low)
        # Below the first edge an outcome is certain.
        found = np.where(demand < lower, low + (lower - demand), found)
        return np.where(known, found, np.nan)


def _edge(level: Float, scale: Float, spread: Float, index: Int) -> Float:
    log = np.minimum(np.maximum(spread * EDGES.take(index), -MOST_LOG), MOST_LOG)
    return np.maximum(level * np.exp(log) - scale, 0.0)
