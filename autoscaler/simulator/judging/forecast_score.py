"""How good the forecasts of a run were, at the horizon that matters: the lead time of a start.

A forecast issued at a tick is held until its outcome is known, which is the demand seen lead-time ticks later, and
then scored once. Rules of this file: streaming, so memory does not depend on the length of a run; element-wise over
series; ticks in order, so the bits do not depend on how a run is cut into calls; an outcome or a forecast that is
unknown is not scored, and how many were is told.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import QUANTILE_LEVELS, Float, Int
from autoscaler.simulator.report.card import Figure
from autoscaler.simulator.report.wording import Unit

_LEVELS: Float = np.array(QUANTILE_LEVELS)[:, np.newaxis]
_MEDIAN, _HIGH = QUANTILE_LEVELS.index(0.5), QUANTILE_LEVELS.index(0.95)


class ForecastSums:
    """Running sums of S series.

    Args:
        lead_ticks: int64 (S,), as in `SeriesParams`: a forecast issued at a tick is for so many ticks later.
    """

    def __init__(self, lead_ticks: Int) -> None:
        series = len(lead_ticks)
        self._lead = np.array(lead_ticks, np.int64)
        self._columns = np.arange(series)
        length = int(self._lead.max(initial=1)) + 1
        self._issued: Float = np.full((length, len(QUANTILE_LEVELS), series), np.nan)
        self._seen = 0
        self.scored: Int = np.zeros(series, np.int64)
        """Forecasts that met a known outcome: int64 (S,)."""
        self._outcomes: Float = np.zeros(series)
        self._errors: Float = np.zeros(series)
        self._sizes: Float = np.zeros(series)
        self._above_high: Float = np.zeros(series)
        self._pinball: Float = np.zeros((len(QUANTILE_LEVELS), series))
        self._covered: Int = np.zeros((len(QUANTILE_LEVELS), series), np.int64)

    def add(self, at_lead: Float, demand: Float) -> None:
        """Add consecutive ticks.

        Args:
            at_lead: float64 (B, Q, S), `Outlook.at_lead` issued at each tick.
            demand: float64 (B, S), work per second seen at each tick; NaN where unknown.
        """
        for issued, outcome in zip(at_lead, demand, strict=True):
            place = self._seen - self._lead
            forecast = self._issued[place % len(self._issued), :, self._columns].T
            self._score(np.where(place >= 0, forecast, np.nan), outcome)
            self._issued[self._seen % len(self._issued)] = issued
            self._seen += 1

    def _score(self, forecast: Float, outcome: Float) -> None:
        known = ~np.isnan(outcome) & ~np.isnan(forecast[_MEDIAN])
        if not known.any():
            return
        outcome = np.where(known, outcome, 0.0)
        forecast = np.where(known, forecast, 0.0)
        missed = outcome - forecast
        self.scored += known
        self._outcomes += outcome
        self._errors -= missed[_MEDIAN]
        self._sizes += np.abs(missed[_MEDIAN])
        self._above_high += np.maximum(missed[_HIGH], 0.0)
        self._pinball += np.maximum(_LEVELS * missed, (_LEVELS - 1.0) * missed)
        self._covered += known & (missed <= 0.0)

    def figures(self) -> dict[str, Float]:
        """The figures of `FORECAST_FIGURES` by key: float64 (S,), NaN where nothing was scored."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "forecast_bias": _ratio(self._errors, self._outcomes),
                "forecast_wape": _ratio(self._sizes, self._outcomes),
                "forecast_above_high": _ratio(self._above_high, self._outcomes),
                "forecast_pinball": _ratio(self._pinball.mean(axis=0), self._outcomes),
                "forecast_pinball_high": _ratio(self._pinball[_HIGH], self._outcomes),
                **{
                    f"forecast_coverage_{round(100 * level)}": _ratio(covered, self.scored)
                    for level, covered in zip(QUANTILE_LEVELS, self._covered, strict=True)
                },
            }


def _ratio(above: Float | Int, below: Float | Int) -> Float:
    return np.where(below > 0, above / below, np.nan)


def _share(key: str, label: str, better: str, what: str) -> Figure:
    return Figure(key, label, Unit.SHARE, "lower" if better == "lower" else "neither", what, "Forecast")


FORECAST_FIGURES: tuple[Figure, ...] = (
    _share(
        "forecast_bias", "Bias", "neither",
        "Median forecast at the lead time less outcome, over all demand: below 0 it is too low on the whole.",
    ),
    _share(
        "forecast_wape", "Error", "lower",
        "Size of that difference over all demand (weighted absolute percentage error; Kolassa and Schütz 2007).",
    ),
    _share(
        "forecast_above_high", "Demand above the 95% forecast", "lower",
        "Demand by which outcomes exceeded the 95 % forecast, over all demand: what a fleet sized by it would lack.",
    ),
    _share(
        "forecast_pinball", "Pinball loss", "lower",
        "Mean pinball loss over all quantiles (Koenker and Bassett 1978), over all demand: sharpness and honesty at once.",
    ),
    _share(
        "forecast_pinball_high", "Pinball loss of the 95% forecast", "lower",
        "The same at 95 %, where demand above the forecast weighs 19 times demand below it.",
    ),
    *(
        _share(
            f"forecast_coverage_{round(100 * level)}", f"Coverage of {level:.0%}", "neither",
            f"Share of outcomes that were not above the {level:.0%} forecast: {level:.0%} if it is honest, more where "
            "demand often is exactly the same, such as zero.",
        )
        for level in QUANTILE_LEVELS
    ),
)  # fmt: skip
"""The figures of a forecast, in the order of a card."""
