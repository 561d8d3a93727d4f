"""Forecast calibration: half of the outcomes should lie below the median, and 95 % below the 95 % quantile.

Outcomes are judged by the randomised probability integral transform (Czado, Gneiting and Held 2009), averaged over its
random draw. Demand has atoms: values that are likely by themselves, such as no demand at all. If an outcome is an atom that
holds a quantile, the share of the atom's probability at or below the quantile counts as covered.

Rules of this file: outcomes and laws that are unknown are not judged.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoscaler.core.forecast.readout import Issued
from autoscaler.core.types import QUANTILE_LEVELS, Float, Outlook

LEVELS: Float = np.array(QUANTILE_LEVELS)
"""Quantiles at which coverage is measured: 50, 90, 95 and 99 %."""
WITHIN: Float = np.array([0.02, 0.02, 0.02, 0.007])
"""How far the share of outcomes below each quantile may be off for forecasts to count as calibrated."""


def calibrated(shares: Float) -> bool:
    """Whether the covered shares, float64 (4,), lie within `WITHIN` of `LEVELS`."""
    return bool(np.all(np.abs(shares - LEVELS) <= WITHIN + 1e-12))


def covers(outlook: Outlook, outcome: Float) -> Float:
    """Return float64 (S, 4): for each outcome, the share of its bin that lies at or below each quantile at the lead time.

    Args:
        outlook: An Outlook as the forecaster issued it; a stored one has no law to judge by.
        outcome: float64 (S,); NaN if unknown, as is then the result.
    """
    assert isinstance(outlook, Issued)
    return outlook.stated.covers(outcome)


def forecast_coverage(outlooks: Iterable[Outlook], demand: Float, lead: int, first: int) -> Float:
    """Return the share of outcomes at or below each quantile that was forecast for one series at the lead time.

    Args:
        outlooks: Outlooks as the forecaster issues them, each of one or several ticks, T in all.
        demand: float64 (T,), work per second as known at each tick; NaN if unknown.
        lead: Ticks from a forecast to its outcome.
        first: The first tick whose forecast is judged.

    Returns:
        float64 (4,); NaN if no outcome is known.
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
