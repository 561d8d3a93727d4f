"""Forecasting, vectorised over series: `step` turns new samples into an Outlook.

One forecaster so far: the last value with the measured distribution of its error.
"""

from autoscaler.core.forecast.last_value import SeriesState, step

__all__ = ["SeriesState", "step"]
