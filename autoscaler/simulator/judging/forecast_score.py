"""Forecast accuracy of a run at the lead time: figures from a timeline of either engine.

Each row holds the forecast that was issued at its start for the first interval that a start ordered then can serve. Rules of
this file: a forecast or an outcome that is unknown is not judged, and if nothing can be judged there are no figures.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Float
from autoscaler.simulator.report.figures import Figure
from autoscaler.simulator.report.wording import Unit

_GROUP = "Forecast"

FORECAST_FIGURES: tuple[Figure, ...] = (
    Figure(
        "forecast_wape", "Forecast, error", Unit.SHARE, "lower",
        "Absolute difference between the median forecast and the demand that came, over all demand (weighted absolute percentage error; Kolassa and "
        "Schütz 2007).",
        _GROUP,
    ),
    Figure(
        "forecast_bias", "Forecast, bias", Unit.SHARE, "neither",
        "Median forecast minus the demand that came, over all demand. Below 0, it was too low overall.",
        _GROUP,
    ),
    Figure(
        "forecast_coverage_95", "Demand within the 95% forecast", Unit.SHARE, "neither",
        "Share of intervals whose demand was not above the 95 % forecast: 95 % if it is calibrated, more if demand often is exactly the "
        "same, such as zero.",
        _GROUP,
    ),
    Figure(
        "forecast_above_high", "Demand above the 95% forecast", Unit.SHARE, "lower",
        "Demand above the 95 % forecast, over all demand: what a fleet sized by that forecast would lack.",
        _GROUP,
    ),
)  # fmt: skip
"""The figures about forecasts, in the order of a score card."""


def forecast_values(demand: Float, forecast: Float, forecast_hi: Float, ahead: int) -> dict[str, float]:
    """Return the forecast figures of one fleet by the keys of `FORECAST_FIGURES`; empty if nothing was forecast.

    Args:
        demand: float64 (T,), work per second in each interval; NaN if unknown.
        forecast: float64 (T,), median forecasts, issued at the start of each interval.
        forecast_hi: float64 (T,), the 95 % quantiles.
        ahead: Intervals from the one at whose start a forecast is issued to the one that it is for.
    """
    count = len(demand) - ahead
    if count <= 0 or np.isnan(forecast).all():
        return {}
    outcome, middle, high = demand[ahead:], forecast[:count], forecast_hi[:count]
    known = ~(np.isnan(outcome) | np.isnan(middle) | np.isnan(high))
    outcome, middle, high = outcome[known], middle[known], high[known]
    total = float(np.sum(outcome))
    if not total > 0.0:
        return {}
    # Tolerates rounding, because forecasts and demand add the same terms in different orders.
    above = outcome - high * (1.0 + 1e-9)
    return {
        "forecast_wape": float(np.sum(np.abs(middle - outcome))) / total,
        "forecast_bias": float(np.sum(middle - outcome)) / total,
        "forecast_coverage_95": float(np.mean(above <= 0.0)),
        "forecast_above_high": float(np.sum(np.maximum(above, 0.0))) / total,
    }
