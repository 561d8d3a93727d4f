"""Coverage: shares of outcomes below quantiles, and forecasts that keep or break what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import policy_from
from autoscaler.simulator.judging.calibration import LEVELS, calibrated, covered, forecast_coverage
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import issued

TICK_S = 60.0


def test_outcomes_that_are_spread_evenly_are_covered_as_often_as_is_said():
    edges = np.linspace(0.0, 1.0, 10_001)
    shares = covered(np.stack([edges[:-1], edges[1:]], axis=1))
    np.testing.assert_allclose(shares, LEVELS, atol=2e-4)
    assert calibrated(shares)


@given(st.floats(0.0, 0.99))
def test_an_outcome_as_likely_as_a_part_of_the_law_lies_anywhere_in_it_by_lot(idle):
    """So many ticks have no demand, as is said: no plain quantile could hold 50 % of them, but lots do."""
    rng = np.random.default_rng(3)
    busy = idle + (1.0 - idle) * rng.random(20_000)
    is_idle = rng.random(20_000) < idle
    places = np.where(is_idle[:, np.newaxis], [0.0, idle], np.stack([busy, busy], axis=1))
    np.testing.assert_allclose(covered(places), LEVELS, atol=0.015)


def test_unknown_outcomes_are_not_judged():
    assert np.isnan(covered(np.full((5, 2), np.nan))).all()
    assert covered(np.array([[np.nan, np.nan], [0.2, 0.2]])).tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("at", range(4))
def test_a_share_that_is_further_off_than_is_asked_is_told(at):
    off = LEVELS.copy()
    off[at] -= (0.019, 0.019, 0.019, 0.006)[at]
    assert calibrated(off)
    off[at] -= 0.002
    assert not calibrated(off)


def _coverage(demand, policy=None):
    given_policy = policy_from(
        {
            "fleet": "f", "signal": {"kind": "total", "source": "trace", "trace": {}},
            "vm": {"capacity": "10/s", "start_time": "60s"}, "bounds": {"minimum": 0, "maximum": 500},
            **(policy or {"objective": {"shortage_price": "2/h"}, "prices": {"in_service": "1/h"}}),
        }
    )  # fmt: skip
    params = compile_params([given_policy], TICK_S, 0.0).series
    outlooks = issued(params, demand, Ticks(0, len(demand), TICK_S))
    return forecast_coverage(outlooks, demand, int(params.lead_ticks[0]), len(demand) // 3)


def _noise(spread, count=6000):
    return 100.0 * np.exp(spread * np.random.default_rng(5).standard_normal(count))


def test_forecasts_of_noise_that_stays_as_it_is_are_calibrated():
    assert calibrated(_coverage(_noise(0.2)))


def test_forecasts_are_off_where_outcomes_come_out_wider_than_they_knew():
    demand = _noise(0.05)
    # Seldom enough that nothing is learned of it in time: one tick of a hundred is ten times the rest.
    demand[np.random.default_rng(6).random(len(demand)) < np.linspace(-0.02, 0.12, len(demand))] *= 10.0
    assert not calibrated(_coverage(demand))


def test_a_gap_in_what_is_known_takes_its_outcomes_out():
    demand = _noise(0.2)
    demand[3000:3500] = np.nan
    assert calibrated(_coverage(demand))


def test_a_policy_without_laws_has_no_coverage():
    assert np.isnan(_coverage(_noise(0.2), {"reactive": {"headroom": "10%"}})).all()
