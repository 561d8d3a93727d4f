"""Forecast calibration: half of the outcomes should lie below the median, and 95 % below the 95 % quantile.

Outcomes are judged by the randomised probability integral transform (Czado, Gneiting and Held 2009), on the average over its lots:
demand has atoms, such as no demand at all, and of an outcome that is as likely as half of the law that share lies below a quantile
which the quantile leaves below itself.

Rules of this file: outcomes and laws that are unknown are not judged.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoscaler.core.forecast.saying import Issued
from autoscaler.core.types import QUANTILE_LEVELS, Float, Outlook

LEVELS: Float = np.array(QUANTILE_LEVELS)
"""Quantiles at which coverage is told: 50, 90, 95 and 99 %."""
WITHIN: Float = np.array([0.02, 0.02, 0.02, 0.007])
"""How far the share of outcomes below them may be off where forecasts count as calibrated."""


def calibrated(shares: Float) -> bool:
    """Whether shares, float64 (4,), are as near to `LEVELS` as `WITHIN` asks."""
    return bool(np.all(np.abs(shares - LEVELS) <= WITHIN + 1e-12))


def covers(outlook: Outlook, outcome: Float) -> Float:
    """Which share of its bin each outcome, float64 (S,), has at or below the quantiles at the lead time: float64 (S, 4).

    Args:
        outlook: As the forecaster said it; one that was kept has no law to judge it by.
        outcome: NaN where unknown, as the answer there.
    """
    assert isinstance(outlook, Issued)
    return outlook.said.covers(outcome)


def forecast_coverage(outlooks: Iterable[Outlook], demand: Float, lead: int, first: int) -> Float:
    """Which share of outcomes lies at or below each quantile that one series is said to have at the lead time.

    Args:
        outlooks: As the forecaster says them, of some ticks each, one after the other, T in all.
        demand: float64 (T,), work per second as known at each tick; NaN where nothing is.
        lead: Ticks from a forecast to its outcome.
        first: The first tick whose forecast is judged.

    Returns:
        float64 (4,); NaN where nothing is known.
    """
    sums, known, at = np.zeros(len(LEVELS)), 0, 0
    for outlook in outlooks:
        ticks = len(outlook.evidence)
        outcome = np.full(ticks, np.nan)
        come = demand[at + lead : at + lead + ticks]
        outcome[: len(come)] = come
        outcome[: max(0, first - at)] = np.nan
        below = covers(outlook, outcome)
        below = below[~np.isnan(below[:, 0])]
        sums += below.sum(axis=0)
        known += len(below)
        at += ticks
    return sums / known if known else np.full(len(LEVELS), np.nan)
