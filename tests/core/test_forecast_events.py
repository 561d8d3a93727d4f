"""Known events: the odds of multiples of usual demand, from a lead time before to a few minutes after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, learn, step
from autoscaler.core.types import Horizon
from tests.core.builders import samples, series_params
from tests.core.law_reader import LawReader

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
    last = int(moment_s / TICK_S)
    said = [
        samples(tick * TICK_S, 500.0 * np.exp(rng.normal(0.0, 0.03, 2)))
        for tick in range(last - 600, last + 1)
    ]
    learn(given, state, *said[:-60])
    return [step(given, state, each) for each in said[-60:]][-1]


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


def one(laws=True, factor=4.0, odds=1.0, lasts_s=3600.0, begins_s=START_S):
    """One series whose starts take 40 s, so that a VM that is ordered now serves from the fourth tick on."""
    plain = series_params(1, laws=laws, lead=5 if laws else 4, keep=7 if laws else 8, hold=30, refill=360)
    return replace(
        plain,
        event_start_s=np.array([[begins_s]]),
        event_end_s=np.array([[begins_s + lasts_s]]),
        event_factor=np.array([[factor]]),
        event_odds=np.array([[odds]]),
    )


def outlooks(given, until_s, demand, since_s=START_S - 6000.0, seen_s=START_S - 1000.0):
    """Of each tick from `seen_s` on by its time, where demand at a time is a function of that. Earlier ones are learned from."""
    state = SeriesState.empty(given)
    said = {
        now_s: samples(now_s, np.array([demand(now_s)]))
        for now_s in np.arange(since_s, until_s + TICK_S, TICK_S).tolist()
    }
    learn(given, state, *(each for now_s, each in said.items() if now_s < seen_s))
    return {now_s: step(given, state, each) for now_s, each in said.items() if now_s >= seen_s}


def steady(now_s):
    return 500.0


@pytest.mark.parametrize("laws", [True, False])
def test_a_certain_event_is_expected_whole_however_little_demand_varied(laws):
    # Nothing ever varied, so that the law is as narrow as may be: 548 spreads of 0.002 are no more than 3 times.
    outlook = outlooks(one(laws), START_S - 40.0, steady)[START_S - 40.0]
    assert outlook.at_lead[:, 0] == pytest.approx([2000.0] * len(outlook.at_lead), rel=0.01)
    assert outlook.peak[0, 0] == pytest.approx(2000.0, rel=0.01)
    if laws:
        reader = LawReader(outlook.laws, Horizon.LEAD, np.arange(1))
        beyond = reader.beyond(np.array([[600.0], [1600.0], [1900.0], [2100.0]]))[:, 0]
        assert beyond == pytest.approx([1400.0, 400.0, 100.0, 0.0], abs=10.0)


@pytest.mark.parametrize("laws", [True, False])
@pytest.mark.parametrize(("begins_s", "first_s"), [(0.0, -40.0), (3.0, -40.0), (-3.0, -50.0)])
def test_an_event_is_met_from_the_first_order_that_serves_in_it(laws, begins_s, first_s):
    found = outlooks(one(laws, begins_s=START_S + begins_s), START_S, steady)
    expects = [now_s - START_S for now_s, outlook in found.items() if outlook.at_lead[0, 0] > 1000.0]
    assert expects == np.arange(first_s, TICK_S, TICK_S).tolist()


@pytest.mark.parametrize("laws", [True, False])
def test_an_event_is_not_met_by_what_serves_after_it(laws):
    found = outlooks(one(laws, lasts_s=60.0), START_S + 80.0, steady)
    expects = [now_s - START_S for now_s, outlook in found.items() if outlook.at_lead[0, 0] > 1000.0]
    assert expects == np.arange(-40.0, 20.0, TICK_S).tolist()
    # What may be seen of it before a stopped VM could be had back is kept until then.
    keeps = [now_s - START_S for now_s, outlook in found.items() if outlook.peak[0, 0] > 1000.0]
    assert keeps == np.arange(-70.0, 60.0, TICK_S).tolist()


def test_it_is_so_many_times_of_what_demand_has_grown_to():
    # 60 % in an hour: what demand was some minutes ago is 12 % less than what it is.
    def rising(now_s):
        return 500.0 * np.exp((now_s - START_S) / 6000.0) * (4.0 if now_s > START_S else 1.0)

    found = outlooks(one(), START_S + 60.0, rising)
    for ahead_s in np.arange(-40.0, 70.0, TICK_S):
        least = 2000.0 * np.exp(ahead_s / 6000.0)
        assert 0.99 * least < found[START_S + ahead_s].at_lead[0, 0] < 1.1 * least


def test_where_more_has_come_than_was_said_it_is_not_made_less_of():
    found = outlooks(one(), START_S + 300.0, lambda now_s: 3000.0 if now_s > START_S else 500.0)
    without = outlooks(one(odds=0.0), START_S + 300.0, lambda now_s: 3000.0 if now_s > START_S else 500.0)
    for now_s in np.arange(START_S + 10.0, START_S + 300.0, TICK_S).tolist():
        # But for the last of them, which so few hours say little of.
        assert (found[now_s].at_lead[:-1] >= 0.99 * without[now_s].at_lead[:-1]).all()


@pytest.mark.parametrize(("factor", "demand"), [(1.3, 650.0), (0.7, 350.0)])
def test_demand_that_is_measured_at_the_moment_of_the_beginning_is_not_expected_twice(factor, demand):
    found = outlooks(one(factor=factor), START_S, lambda now_s: demand if now_s >= START_S else 500.0)
    assert found[START_S].at_lead[0, 0] == pytest.approx(demand, rel=0.05)


def test_an_event_may_be_more_than_ever_was():
    outlook = outlooks(one(factor=40.0), START_S - 40.0, steady)[START_S - 40.0]
    assert outlook.at_lead[[0, 2], 0] == pytest.approx([20_000.0] * 2, rel=0.01)


@pytest.mark.parametrize(
    ("factor", "odds", "usual", "least"),
    [(4.0, 0.3, 500.0, 500.0), (0.25, 0.3, 500.0, 125.0), (4.0, 0.6, 2000.0, 500.0)],
)
def test_what_is_likelier_is_told_finely(factor, odds, usual, least):
    outlook = outlooks(one(factor=factor, odds=odds), START_S - 40.0, steady)[START_S - 40.0]
    assert outlook.at_lead[0, 0] == pytest.approx(usual, rel=0.02)
    # Between what is expected with the event and what without, with some room, so much is beyond as the higher has of the odds.
    most = max(500.0, 500.0 * factor)
    demand = np.array([[1.4 * least], [0.7 * most]])
    low, high = LawReader(outlook.laws, Horizon.LEAD, np.arange(1)).beyond(demand)[:, 0]
    assert (low - high) / (demand[1, 0] - demand[0, 0]) == pytest.approx(
        odds if factor > 1.0 else 1.0 - odds, abs=0.02
    )


def test_events_at_once_multiply():
    given = one(factor=2.0)
    both = replace(
        given,
        event_start_s=np.repeat(given.event_start_s, 2, axis=0),
        event_end_s=np.repeat(given.event_end_s, 2, axis=0),
        event_factor=np.array([[2.0], [3.0]]),
        event_odds=np.array([[1.0], [1.0]]),
    )
    outlook = outlooks(both, START_S - 40.0, steady)[START_S - 40.0]
    assert outlook.at_lead[[0, 2], 0] == pytest.approx([3000.0] * 2, rel=0.02)
