"""Forecasting, vectorised over series: `step` turns new samples into an Outlook with whole predictive laws."""

from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.forecast.stepping import backfill, step

__all__ = ["SeriesState", "backfill", "step"]
