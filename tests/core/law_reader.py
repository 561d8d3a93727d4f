"""Reads a law in plain code; forecasts are compared with it."""

from __future__ import annotations

import numpy as np

from autoscaler.core.law_grid import EDGES, MOST_LOG
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Float, Horizon, Int, Laws


class LawReader:
    """Reads one horizon of the laws for lanes.

    Args:
        laws: The issued laws.
        horizon: The horizon to read.
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
