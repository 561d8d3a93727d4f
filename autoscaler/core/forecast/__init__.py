"""Forecasts, vectorised over series: `step` returns an Outlook of predictive distributions, `steps` many; `learn` only learns."""

from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.forecast.stepping import learn, step, steps
from autoscaler.core.forecast.tracks import SampleRows

__all__ = ["SampleRows", "SeriesState", "learn", "step", "steps"]
