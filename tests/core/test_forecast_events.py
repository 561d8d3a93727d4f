"""Known events: odds that demand will be some times what it is, from a lead time before to a few minutes after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.laws import LawReader
from autoscaler.core.types import Horizon
from tests.core.builders import samples, series_params

TICK_S = 10.0
START_S = 20_000.0


def params(factor=4.0, odds=0.7, lasts_s=3600.0):
    plain = series_params(2, laws=True, lead=4, keep=8, hold=30, refill=360)
    # The second series has none: its padding never matches.
    return replace(
        plain,
        event_start_s=np.array([[START_S, 0.0]]),
        event_end_s=np.array([[START_S + lasts_s, 0.0]]),
        event_factor=np.array([[factor, 1.0]]),
        event_odds=np.array([[odds, 0.0]]),
    )


def outlook_at(given, moment_s, state=None):
    """After some steady time, and then at this moment."""
    state = SeriesState.empty(given)
    rng = np.random.default_rng(1)
    outlook = None
    for tick in range(int(moment_s / TICK_S) - 600, int(moment_s / TICK_S) + 1):
        outlook = step(given, state, samples(tick * TICK_S, 500.0 * np.exp(rng.normal(0.0, 0.03, 2))))
    return outlook


def chance_of_more(outlook, horizon, demand):
    series = np.arange(2)
    reader = LawReader(outlook.laws, horizon, series)
    low, high = reader.beyond(np.array([[demand - 10.0], [demand + 10.0]]).repeat(2, axis=1))
    return (low - high) / 20.0


def test_within_the_lead_time_of_its_beginning_an_event_has_its_odds():
    outlook = outlook_at(params(), START_S - 30.0)
    assert chance_of_more(outlook, Horizon.LEAD, 1000.0) == pytest.approx([0.7, 0.0], abs=0.02)
    # 4 times the demand without bursts, with the spread of any forecast: half of all is 0.2 / 0.7 of the upper part.
    assert outlook.at_lead[0] == pytest.approx([1900.0, 500.0], rel=0.05)
    assert chance_of_more(outlook, Horizon.LEAD, 2400.0)[0] < 0.03


def test_horizons_see_an_event_as_far_as_they_look():
    outlook = outlook_at(params(), START_S - 200.0)
    found = [chance_of_more(outlook, horizon, 1000.0)[0] for horizon in Horizon]
    assert found == pytest.approx([0.0, 0.0, 0.7, 0.7], abs=0.03)


@pytest.mark.parametrize("moment_s", [START_S - 4000.0, START_S + 700.0])
def test_long_before_and_after_it_nothing_is_changed(moment_s):
    with_event = outlook_at(params(), moment_s)
    without = outlook_at(params(odds=0.0), moment_s)
    np.testing.assert_array_equal(with_event.laws.excess, without.laws.excess)
    np.testing.assert_array_equal(with_event.at_lead, without.at_lead)


def test_demand_that_has_come_is_not_expected_twice():
    given = params()
    state = SeriesState.empty(given)
    for tick in range(1400, 2030):
        demand = 500.0 if tick * TICK_S < START_S else 2000.0
        outlook = step(given, state, samples(tick * TICK_S, np.full(2, demand)))
    assert outlook.at_lead[0, 0] == pytest.approx(2000.0, rel=0.1)
    assert outlook.at_lead[2, 0] < 2600.0


def test_an_event_of_less_demand_lowers_what_is_expected():
    outlook = outlook_at(params(factor=0.2, odds=0.9), START_S - 10.0)
    assert outlook.at_lead[0, 0] == pytest.approx(100.0, rel=0.15)
    # With the rest of the odds nothing changes, and 95 % must be covered.
    assert outlook.at_lead[2, 0] == pytest.approx(500.0, rel=0.1)
