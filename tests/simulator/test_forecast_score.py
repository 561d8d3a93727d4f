"""Figures of forecasts from a timeline: which outcome a forecast is for, and what cannot be known."""

import math

import numpy as np
import pytest

from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES, forecast_values


def figures(demand, forecast, high, ahead=0):
    return forecast_values(
        np.array(demand, float), np.array(forecast, float), np.array(high, float), ahead=ahead
    )


def test_every_figure_by_hand():
    found = figures([10.0, 20.0, 30.0, 40.0], [12.0, 20.0, 25.0, 40.0], [20.0, 20.0, 28.0, 39.0])
    assert found == pytest.approx(
        {
            "forecast_wape": (2.0 + 5.0) / 100.0,
            "forecast_bias": (2.0 - 5.0) / 100.0,
            "forecast_coverage_95": 0.5,
            "forecast_above_high": (2.0 + 1.0) / 100.0,
        }
    )
    assert list(found) == [figure.key for figure in FORECAST_FIGURES]


@pytest.mark.parametrize("intervals", [0, 1, 4])
def test_a_forecast_is_held_against_the_interval_that_it_is_for(intervals):
    demand = 100.0 + np.arange(20.0) ** 2
    told = np.append(demand[intervals:], np.full(intervals, 5.0))
    found = figures(demand, told, told, intervals)
    assert found["forecast_wape"] == 0.0
    assert found["forecast_coverage_95"] == 1.0
    assert figures(demand, told, told, intervals + 1)["forecast_wape"] > 0.0


def test_no_demand_lies_within_a_forecast_of_none_and_little_demand_is_judged_as_much():
    found = figures([0.0, 0.0, 0.4], [0.0, 0.1, 0.4], [0.0, 0.1, 0.3])
    assert found["forecast_coverage_95"] == pytest.approx(2 / 3)
    assert found["forecast_wape"] == pytest.approx(0.1 / 0.4)
    assert found["forecast_above_high"] == pytest.approx(0.1 / 0.4)


def test_what_is_unknown_is_not_judged():
    nan = math.nan
    known = figures([10.0, nan, 30.0, 40.0], [nan, 20.0, 33.0, 40.0], [nan, 20.0, nan, 44.0])
    assert known == pytest.approx(figures([40.0], [40.0], [44.0]))
    assert figures([10.0, 20.0], [nan, nan], [nan, nan]) == {}
    assert figures([nan, nan], [1.0, 1.0], [1.0, 1.0]) == {}
    assert figures([0.0, 0.0], [1.0, 1.0], [1.0, 1.0]) == {}
    assert figures([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], ahead=2) == {}
