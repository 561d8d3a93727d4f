"""Forecasting, vectorised over series: `step` turns new samples into an Outlook with whole predictive laws, `steps` for many ticks at once, `learn` only learns."""

from autoscaler.core.forecast.seeing import Recorded
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.forecast.stepping import learn, step, steps

__all__ = ["Recorded", "SeriesState", "learn", "step", "steps"]
