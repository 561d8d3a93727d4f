"""Whether forecasts keep what they say: of outcomes, half should lie below the median, 95 in a hundred below the 95 % quantile.

Outcomes are judged by the randomised probability integral transform (Czado, Gneiting and Held 2009): demand has atoms, such as no
demand at all, and an outcome that is as likely as half of the law lies somewhere in that half by lot, with equal odds.

Rules of this file: outcomes and laws that are unknown are not judged; lots are drawn from a seed, in the order of ticks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoscaler.core.laws import EDGES, MOST_LOG
from autoscaler.core.types import LAW_BINS, QUANTILE_LEVELS, Float, Horizon, Laws, Outlook

LEVELS: Float = np.array(QUANTILE_LEVELS)
"""Quantiles at which coverage is told: 50, 90, 95 and 99 %."""
WITHIN: Float = np.array([0.02, 0.02, 0.02, 0.007])
"""How far the share of outcomes below them may be off where forecasts count as calibrated."""


def placed(laws: Laws, horizon: Horizon, outcome: Float) -> Float:
    """Probability, by the law, of less than the bin of each outcome, and of no more than that bin.

    Args:
        laws: Of S series.
        horizon: Which of them.
        outcome: float64 (S,), demand.

    Returns:
        float64 (S, 2); NaN where the outcome or the law is unknown.
    """
    level, spread = laws.level[:, horizon] + laws.scale, laws.spread[:, horizon]
    log_edges = np.minimum(spread[:, np.newaxis] * EDGES, MOST_LOG)
    edges = np.maximum(level[:, np.newaxis] * np.exp(log_edges) - laws.scale[:, np.newaxis], 0.0)
    excess = laws.excess[:, horizon].astype(np.float64)
    width = np.diff(edges, axis=1)
    mean = np.divide(
        -np.diff(excess, axis=1), width, out=np.ones_like(width), where=width > 1e-9 * level[:, np.newaxis]
    )
    mean = np.clip(mean, 0.0, 1.0)
    beyond = np.ones((len(level), LAW_BINS + 1))
    beyond[:, 1:-1] = 0.5 * (mean[:, 1:] + mean[:, :-1])
    beyond[:, -1] = 0.0
    # No demand and the least demand are one bin: nothing is below it.
    place = np.sum(edges <= outcome[:, np.newaxis], axis=1) - 1
    place = np.clip(place, 0, LAW_BINS - 1)
    rows = np.arange(len(level))
    below = np.where(edges[rows, place] <= 0.0, 0.0, 1.0 - beyond[rows, place])
    found = np.stack([below, 1.0 - beyond[rows, place + 1]], axis=1)
    found[np.isnan(outcome) | np.isnan(level)] = np.nan
    return found


def covered(places: Float, seed: int = 1) -> Float:
    """Share of outcomes at or below each of `LEVELS`.

    Args:
        places: float64 (T, 2), as `placed` says.
        seed: Of the lots.

    Returns:
        float64 (4,); NaN where nothing is known.
    """
    low, high = places[~np.isnan(places[:, 0])].T
    if not len(low):
        return np.full(len(LEVELS), np.nan)
    value = low + np.random.default_rng(seed).random(len(low)) * (high - low)
    return np.array([np.mean(value <= level) for level in LEVELS])


def calibrated(shares: Float) -> bool:
    """Whether shares, float64 (4,), are as near to `LEVELS` as `WITHIN` asks."""
    return bool(np.all(np.abs(shares - LEVELS) <= WITHIN + 1e-12))


def forecast_coverage(outlooks: Iterable[Outlook], demand: Float, lead: int, first: int) -> Float:
    """Coverage of the forecasts of one series at the lead time.

    Args:
        outlooks: Of some ticks each, one after the other, T in all.
        demand: float64 (T,), work per second as known at each tick; NaN where nothing is.
        lead: Ticks from a forecast to its outcome.
        first: The first tick whose forecast is judged.

    Returns:
        float64 (4,), as `covered` says; NaN where no laws are issued.
    """
    places, at = [], 0
    for outlook in outlooks:
        ticks = len(outlook.evidence)
        outcome = np.full(ticks, np.nan)
        come = demand[at + lead : at + lead + ticks]
        outcome[: len(come)] = come
        outcome[: max(0, first - at)] = np.nan
        if outlook.laws is not None:
            places.append(placed(outlook.laws, Horizon.LEAD, outcome))
        at += ticks
    return covered(np.concatenate(places)) if places else np.full(len(LEVELS), np.nan)
