"""Builds predictive laws from outcomes, for tests of code that reads laws."""

from __future__ import annotations

import numpy as np

from autoscaler.core.law_grid import EDGES, MOST_LOG
from autoscaler.core.types import LAW_BINS, QUANTILE_LEVELS, Horizon, Laws, Outlook


def laws_of(outcomes, *, spread=0.1, scale=0.3, level=None) -> Laws:
    """Build the laws of given outcomes.

    Args:
        outcomes: Outcomes of one series: an array (n,) for every horizon, or a dict of arrays by `Horizon`.
        spread, scale: Spread and scale of the grid.
        level: The level that the laws are relative to; the mean if None.
    """
    by_horizon = outcomes if isinstance(outcomes, dict) else dict.fromkeys(Horizon, outcomes)
    levels, excess = np.empty((1, len(Horizon))), np.empty((1, len(Horizon), LAW_BINS + 1))
    for horizon in Horizon:
        seen = np.asarray(by_horizon[horizon], np.float64)
        levels[0, horizon] = seen.mean() if level is None else level
        logs = np.clip(spread * EDGES, -MOST_LOG, MOST_LOG)
        edges = np.maximum((levels[0, horizon] + scale) * np.exp(logs) - scale, 0.0)
        excess[0, horizon] = np.maximum(seen[:, np.newaxis] - edges, 0.0).mean(axis=0)
        excess[0, horizon, -1] = 0.0
    return Laws(levels, np.full((1, len(Horizon)), spread), np.full(1, scale), excess.astype(np.float32))


def joined(laws) -> Laws:
    """Join laws of several series."""
    parts = zip(*((law.level, law.spread, law.scale, law.excess) for law in laws), strict=True)
    return Laws(*(np.concatenate(part) for part in parts))


def whole(laws: Laws) -> Outlook:
    """An Outlook with these laws and no quantiles."""
    series = len(laws.scale)
    unknown = np.full((len(QUANTILE_LEVELS), series), np.nan)
    return Outlook(unknown, unknown, np.zeros(series), laws)
