"""Bursts by the clock: the lattice is found if there is one, and demand is forecast before it comes."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, learn, step
from autoscaler.core.forecast.lattice import Marks, choose, hazard
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.types import Horizon
from tests.core.builders import arrays_of, samples, series_params
from tests.core.law_reader import LawReader

TICK_S = 20.0
DAY = 4320


def params(**changed):
    return series_params(
        **{
            "laws": True,
            "lead": 3,
            "keep": 6,
            "hold": 15,
            "refill": 180,
            "tick_s": TICK_S,
            "half_life": 21_600.0,
        }
        | changed
    )


def with_onsets(times_s, given=None):
    given = given or params()
    state = SeriesState.empty(given)
    state.onsets[0, : len(times_s)] = times_s
    state.onset_count[0] = len(times_s)
    choose(Settings.of(given), state, np.array([0]), float(max(times_s)) + 100.0)
    return given, state


@pytest.mark.parametrize("period_s", [300.0, 600.0, 900.0, 1800.0, 3600.0])
def test_onsets_on_a_lattice_are_seen(period_s):
    rng = np.random.default_rng(1)
    points = np.sort(rng.choice(200, 60, replace=False))
    times = points * period_s + 40.0 + rng.uniform(-15.0, 15.0, 60)
    # One in six comes from elsewhere.
    times[::6] = rng.uniform(0.0, 200 * period_s, 10)
    _, state = with_onsets(times)
    assert state.period_s[0] == period_s
    # All of them, from 25 to 55 s, are in the minute that begins there.
    assert 0.0 <= state.phase_s[0] <= 20.0


def test_many_series_find_what_each_would_find_alone():
    rng = np.random.default_rng(7)
    given = series_params(40, laws=True, tick_s=TICK_S)
    settings, together = Settings.of(given), SeriesState.empty(given)
    now_s = 20.0 * 86_400.0
    together.ticks[:] = rng.integers(1, 90_000, 40)
    for at, count in enumerate(rng.integers(0, together.onsets.shape[1], 40).tolist()):
        period_s = float(rng.choice([300.0, 900.0, 3600.0]))
        points = rng.choice(int(now_s / period_s), count, replace=False)
        together.onsets[at, :count] = np.sort(
            points * period_s + rng.normal(0.0, rng.choice([5.0, 900.0]), count)
        )
    apart = SeriesState.restore(together.dump())
    choose(settings, together, np.arange(40), now_s)
    for at in range(40):
        choose(settings, apart, np.array([at]), now_s)
    assert 5 < np.count_nonzero(together.period_s) < 35
    for name, mine in arrays_of(apart).items():
        np.testing.assert_array_equal(mine, arrays_of(together)[name], err_msg=name)
    assert apart.lattices == together.lattices


def test_onsets_at_any_time_are_no_lattice():
    for seed in range(20):
        times = np.random.default_rng(seed).uniform(0.0, 10 * 86_400.0, 80)
        _, state = with_onsets(np.sort(times))
        assert state.period_s[0] == 0.0
        assert state.lattices == 0


def test_few_onsets_are_no_lattice():
    _, state = with_onsets(np.arange(7) * 3600.0)
    assert state.period_s[0] == 0.0


def test_the_odds_of_a_point_are_those_of_its_time_of_day():
    days = np.arange(8)[:, np.newaxis] * 86_400.0
    times = (days + np.array([9.0, 10.0, 17.0]) * 3600.0).reshape(-1) + 30.0
    given, state = with_onsets(times)
    settings = Settings.of(given)
    assert state.period_s[0] == 3600.0

    def at(hour):
        # A start ordered now serves at the hour.
        marks = Marks.of(settings, state, [8 * 86_400.0 + hour * 3600.0 - 60.0])
        found = hazard(settings, state, marks, 0)
        return 0 if found is None else int(found[0])

    assert at(9) == 2
    assert at(10) == 2
    assert at(3) < 2
    assert at(9.5) == 0


def test_demand_is_expected_before_a_burst_on_the_half_hour_and_not_between():
    rng = np.random.default_rng(2)
    ticks = np.arange(3 * DAY)
    half_hour = 90
    burst = (ticks % half_hour < 12) & (rng.random(3 * DAY // half_hour) < 0.75)[ticks // half_hour]
    values = 200.0 * np.exp(rng.normal(0.0, 0.05, len(ticks))) + 1500.0 * burst
    given = params()
    state = SeriesState.empty(given)
    odds = {True: [], False: []}
    told, points = [], []
    # What is only history is learned, not forecast.
    learn(given, state, *(samples(tick * TICK_S, values[tick]) for tick in range(2 * DAY)))
    for tick in range(2 * DAY, 3 * DAY):
        outlook = step(given, state, samples(tick * TICK_S, values[tick]))
        into = (tick + 3) % half_hour
        if into == 0:
            told.append(outlook.bursts.odds[0])
            points.append(outlook.bursts.at_s[0] - (tick + 3) * TICK_S)
        if into == 45:
            assert outlook.bursts.odds[0] < 0.05
            assert np.isnan(outlook.bursts.at_s[0])
        if into in (2, 45):
            reader = LawReader(outlook.laws, Horizon.LEAD, np.array([0]))
            low, high = reader.beyond(np.array([[990.0], [1010.0]]))[:, 0]
            odds[into == 2].append((low - high) / 20.0)
    assert state.period_s[0] == 1800.0
    came = np.mean(burst[2 * DAY :][2::half_hour])
    assert np.mean(odds[True]) == pytest.approx(came, abs=0.15)
    assert np.mean(odds[False]) < 0.05
    # The same in words: how likely, and at which time.
    assert np.mean(told) == pytest.approx(came, abs=0.1)
    assert np.abs(points).max() <= TICK_S
    assert outlook.bursts.period_s[0] == 1800.0


def test_a_burst_that_runs_is_certain_and_one_at_any_time_has_its_rate():
    rng = np.random.default_rng(4)
    begins = np.sort(rng.choice(4 * DAY // 60, 60, replace=False)) * 60 + rng.integers(0, 40, 60)
    burst = np.zeros(4 * DAY, np.bool_)
    for first in begins:
        burst[first : first + 10] = True
    values = 100.0 * np.exp(rng.normal(0.0, 0.05, len(burst))) + 2000.0 * burst
    given = params()
    state = SeriesState.empty(given)
    quiet = []
    learn(given, state, *(samples(tick * TICK_S, values[tick]) for tick in range(3 * DAY)))
    for tick in range(3 * DAY, 4 * DAY):
        found = step(given, state, samples(tick * TICK_S, values[tick])).bursts
        if burst[tick]:
            assert found.odds[0] == 1.0
        elif state.age_s[0] == 0.0:
            quiet.append(found.odds[0])
    assert np.isnan(found.at_s[0])
    # Three ticks ahead, 15 a day; the rate leans on a day without any.
    assert np.mean(quiet) == pytest.approx(3 * 60 / len(values), rel=0.35)
