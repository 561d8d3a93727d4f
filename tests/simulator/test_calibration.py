"""Coverage: shares of outcomes below quantiles, for calibrated and uncalibrated forecasts."""

import numpy as np
import pytest

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import policy_from
from autoscaler.simulator.judging.calibration import LEVELS, calibrated, forecast_coverage
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import issued

TICK_S = 60.0


@pytest.mark.parametrize("at", range(4))
def test_a_share_that_is_further_off_than_is_asked_is_told(at):
    off = LEVELS.copy()
    off[at] -= (0.019, 0.019, 0.019, 0.006)[at]
    assert calibrated(off)
    off[at] -= 0.002
    assert not calibrated(off)


def _coverage(demand, policy=None, come=None):
    given_policy = policy_from(
        {
            "fleet": "f", "signal": {"kind": "total", "source": "trace", "trace": {}},
            "vm": {"capacity": "10/s", "start_time": "60s"}, "bounds": {"minimum": 0, "maximum": 500},
            **(policy or {"objective": {"shortage_price": "2/h"}, "prices": {"in_service": "1/h"}}),
        }
    )  # fmt: skip
    params = compile_params([given_policy], TICK_S, 0.0).series
    outlooks = issued(params, demand, Ticks(0, len(demand), TICK_S))
    return forecast_coverage(
        outlooks, demand if come is None else come, int(params.lead_ticks[0]), len(demand) // 3
    )


def _noise(spread, count=6000):
    return 100.0 * np.exp(spread * np.random.default_rng(5).standard_normal(count))


def test_forecasts_of_noise_that_stays_as_it_is_are_calibrated():
    assert calibrated(_coverage(_noise(0.2)))


def test_forecasts_are_off_where_more_comes_than_they_heard_of():
    demand = _noise(0.2)
    assert not calibrated(_coverage(demand, come=1.05 * demand))


def test_demand_that_is_mostly_none_is_judged_by_its_parts():
    """No plain quantile can hold 50 % of what is nothing in seven of ten ticks."""
    demand = _noise(0.2)
    demand[np.random.default_rng(6).random(len(demand)) < 0.7] = 0.0
    assert calibrated(_coverage(demand))


def test_where_nothing_comes_that_is_known_nothing_is_told():
    assert np.isnan(_coverage(_noise(0.2), come=np.full(6000, np.nan))).all()


def test_a_gap_in_what_is_known_takes_its_outcomes_out():
    demand = _noise(0.2)
    demand[3000:3500] = np.nan
    assert calibrated(_coverage(demand))


def test_quantiles_that_a_policy_asks_for_are_calibrated_too():
    policy = {"forecast": {"cover": "95%"}, "reactive": {"headroom": "10%"}}
    assert calibrated(_coverage(_noise(0.2), policy))
