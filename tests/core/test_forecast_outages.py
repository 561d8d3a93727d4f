"""Demand that fell exceptionally and came back: forecasts continue as before the outage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, learn, step
from autoscaler.core.forecast.state import MEANS
from autoscaler.core.types import Freshness, Samples
from tests.core.builders import series_params

TICK_S = 60.0
DAY = 1440
PARAMS = series_params(laws=True, tick_s=TICK_S, lead=2, keep=3, hold=5, refill=60, half_life=7200.0)


def days(ticks, seed=3):
    """A day's swing with noise: 1,000 to 3,000 a second, ten to thirty VMs."""
    rng = np.random.default_rng(seed)
    return (2000.0 - 1000.0 * np.cos(np.arange(ticks) * 2.0 * np.pi / DAY)) * np.exp(
        rng.normal(0.0, 0.01, ticks)
    )


def broken(demand, *outages):
    """The same with outages, each (first tick, ticks, share that still arrives)."""
    found = demand.copy()
    for first, ticks, share in outages:
        found[first : first + ticks] *= share
    return found


def sample(at, demand, tick_s=TICK_S, *, freshness=Freshness.FRESH, censored=False):
    value = np.atleast_1d(demand).astype(float)
    return Samples(
        1e6 // 3600 * 3600 + at * tick_s + 0.5,
        value,
        value,
        np.full(value.shape, int(freshness)),
        np.ones(value.shape),
        np.full(value.shape, censored),
    )


class Live:
    """One series, tick by tick."""

    def __init__(self, params=PARAMS):
        self.params, self.state, self.at, self.outlook = params, SeriesState.empty(params), 0, None

    def __call__(self, demand, **given):
        """The median and the 99 % quantile at the lead time after some ticks."""
        all_of_them = [
            sample(at, each, self.params.tick_s, **given)
            for at, each in enumerate(np.atleast_1d(demand), self.at)
        ]
        self.at += len(all_of_them)
        learn(self.params, self.state, *all_of_them[:-1])
        self.outlook = step(self.params, self.state, all_of_them[-1])
        return self.outlook.at_lead[0, 0], self.outlook.at_lead[-1, 0]


def lived(demand, params=PARAMS):
    live = Live(params)
    live(demand)
    return live


NOON = 2 * DAY + DAY // 2


@pytest.mark.parametrize(("ticks", "share"), [(1, 0.0), (15, 0.0), (15, 0.05), (90, 0.0), (300, 0.01)])
def test_demand_that_is_back_is_forecast_as_if_it_had_never_been_away(ticks, share):
    demand = days(NOON + ticks + 40)
    calm, shaken = lived(demand[: NOON + ticks]), lived(broken(demand, (NOON, ticks, share))[: NOON + ticks])
    for each in demand[NOON + ticks :]:
        (median, high), (wanted, most) = shaken(each), calm(each)
        assert median == pytest.approx(wanted, rel=0.06)
        assert 0.95 * most < high < 1.08 * most
        assert shaken.state.age_s[0] == 0.0


@pytest.mark.parametrize("between", [5, 20, 50])
def test_after_the_second_of_two_outages_it_is_forecast_so_too(between):
    ticks = 10 + between + 10
    demand = days(NOON + ticks + 20)
    broke = broken(demand, (NOON, 10, 0.0), (NOON + 10 + between, 10, 0.0))
    calm, shaken = lived(demand[: NOON + ticks]), lived(broke[: NOON + ticks])
    for each in demand[NOON + ticks :]:
        (median, high), (wanted, most) = shaken(each), calm(each)
        assert median == pytest.approx(wanted, rel=0.06)
        assert 0.95 * most < high < 1.1 * most
        assert shaken.state.age_s[0] == 0.0


def test_the_next_day_nobody_expects_it_to_break_again():
    demand = days(NOON + DAY + 20)
    calm, shaken = lived(demand[: NOON + DAY - 5]), lived(broken(demand, (NOON, 15, 0.0))[: NOON + DAY - 5])
    for each in demand[NOON + DAY - 5 :]:
        assert shaken(each)[0] == pytest.approx(calm(each)[0], rel=0.02)


def test_retries_after_it_are_a_burst():
    demand = broken(days(NOON + 25), (NOON, 15, 0.0), (NOON + 15, 5, 2.5))
    live = lived(demand[: NOON + 16])
    calm = lived(days(NOON + 16))
    assert live.state.age_s[0] > 0.0
    assert live.outlook.at_lead[-1, 0] > 1.4 * calm.outlook.at_lead[-1, 0]
    for _ in range(5):
        live(2000.0)
    assert live.state.age_s[0] == 0.0


def test_what_comes_back_by_steps_is_no_burst_either():
    live = lived(broken(days(NOON + 15), (NOON, 15, 0.0)))
    for share in (0.1, 0.4, 0.7, 1.0, 1.0):
        live(3000.0 * share)
        assert live.state.age_s[0] == 0.0


def test_demand_that_saturation_hides_is_back_where_what_is_seen_is_enough():
    shaken = lived(broken(days(NOON + 15), (NOON, 15, 0.0)))
    shaken(2500.0, censored=True)
    assert shaken.state.falls.before[0] == 0.0
    assert shaken.state.track[0, MEANS].min() > 1500.0
    little = lived(broken(days(NOON + 15), (NOON, 15, 0.0)))
    little(100.0, censored=True)
    little(2500.0, freshness=Freshness.STALE)
    assert little.state.falls.before[0] > 0.0


def test_what_does_not_come_back_within_a_day_is_the_new_usual():
    """After a day nothing is put back, though all of it comes: it is a burst."""
    demand = np.concatenate([days(NOON), np.full(DAY + 5, 100.0), np.full(4, 3000.0)])
    live = lived(demand)
    assert live.state.falls.before[0] == 0.0
    assert live.state.age_s[0] > 0.0
    codes = live.state.codes[0]
    assert codes[(live.state.slot - 20) % len(codes)] > 0


@pytest.mark.parametrize("first", [0, 800])
def test_what_ends_or_begins_by_the_clock_is_none(first):
    """By day 30 VMs, by night 3, as the day before shows: nights stay in the history."""
    of_day = np.arange(4 * DAY) % DAY
    demand = np.where((of_day >= first) & (of_day < first + 600), 300.0, 3000.0)
    state = lived(demand).state
    assert state.falls.returns[0] > 1.5
    assert np.count_nonzero(state.codes[0]) == len(demand)


def test_falls_that_are_usual_change_nothing():
    """Work of an hour, every three: after three times its end is believed, and what follows is learned as ever."""
    demand = np.where(np.arange(3 * DAY) % 180 < 60, 3000.0, 100.0)
    state = lived(demand).state
    assert state.falls.before[0] == 0.0
    assert np.count_nonzero(state.codes[0]) == len(demand)


def test_within_a_slot_of_the_history():
    """Of ticks of 10 s: slots of the outage are unknown, and the one in which demand is back is of what came then."""
    params = series_params(laws=True, tick_s=10.0, lead=3, keep=6, hold=30, refill=60, half_life=4e4)
    rng = np.random.default_rng(5)
    demand = 1000.0 * np.exp(rng.normal(0.0, 0.02, 9000))
    shaken = lived(broken(demand, (8703, 200, 0.0)), params)
    codes = shaken.state.codes[0]
    slots = np.arange(shaken.state.slot - 60, shaken.state.slot) % len(codes)
    unknown = slots[codes[slots] == 0]
    assert len(unknown) == 33
    known = codes[slots[codes[slots] > 0]]
    assert np.ptp(known.astype(float)) < 2048.0 * 0.1


def test_series_go_their_own_way():
    """One breaks, one breaks at another time, and one never: each is to the bit what it is alone."""
    base = days(NOON + 60)
    each = [broken(base, (NOON, 15, 0.0)), broken(base, (NOON + 7, 20, 0.02)), base]
    params = series_params(3, laws=True, tick_s=TICK_S, lead=2, keep=3, hold=5, refill=60, half_life=7200.0)
    state = SeriesState.empty(params)
    for at, row in enumerate(np.stack(each, axis=1)):
        outlook = step(params, state, sample(at, row))
    for series, demand in enumerate(each):
        alone = lived(demand)
        np.testing.assert_array_equal(alone.outlook.laws.level[0], outlook.laws.level[series])
        np.testing.assert_array_equal(alone.outlook.laws.excess[0], outlook.laws.excess[series])


def test_series_whose_blocks_are_of_other_lengths_go_their_own_way():
    demand = broken(days(NOON + 60), (NOON, 40, 0.0))
    lead = np.array([2, 90])
    together = replace(
        series_params(2, laws=True, tick_s=TICK_S, half_life=7200.0),
        lead_ticks=lead,
        keep_ticks=lead + 3,
        hold_ticks=3 * lead,
    )
    state = SeriesState.empty(together)
    learn(together, state, *(sample(at, np.repeat(each, 2)) for at, each in enumerate(demand[:-1])))
    outlook = step(together, state, sample(len(demand) - 1, np.repeat(demand[-1], 2)))
    for series in range(2):
        one = slice(series, series + 1)
        alone = replace(
            series_params(laws=True, tick_s=TICK_S, half_life=7200.0),
            lead_ticks=lead[one],
            keep_ticks=lead[one] + 3,
            hold_ticks=3 * lead[one],
        )
        np.testing.assert_array_equal(
            lived(demand, alone).outlook.laws.excess[0], outlook.laws.excess[series]
        )


@pytest.mark.parametrize("of", ["dumped", "carried over", "taken in"])
def test_a_state_within_an_outage_goes_on_wherever_it_is(of):
    demand = broken(days(NOON + 30), (NOON, 15, 0.0))
    live, straight = lived(demand[: NOON + 5]), lived(demand[: NOON + 5])
    if of == "dumped":
        live.state = SeriesState.restore(live.state.dump())
    elif of == "carried over":
        live.state = live.state.carried_over(replace(PARAMS), np.array([0]))
    else:
        other = lived(np.full(NOON + 5, 700.0))
        other.state.take_in(np.array([0]), live.state)
        live.state = other.state
    live(demand[NOON + 5 :])
    straight(demand[NOON + 5 :])
    np.testing.assert_array_equal(live.outlook.laws.excess, straight.outlook.laws.excess)


def test_a_clock_that_goes_back_begins_anew():
    live = lived(broken(days(NOON + 5), (NOON, 5, 0.0)))
    assert live.state.falls.before[0] > 0.0
    live.at -= 60
    live(np.full(3, 3000.0))
    assert live.state.falls.before[0] == 0.0
