"""Forecasting, vectorised over series: `step` turns new samples into an Outlook with whole predictive laws, `learn` only learns."""

from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.forecast.stepping import learn, step

__all__ = ["SeriesState", "learn", "step"]
