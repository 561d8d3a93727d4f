"""Many ticks at once give the same forecasts and the same state as one by one, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.forecast import SampleRows, SeriesState, learn, step, steps
from autoscaler.core.types import Samples
from tests.core.builders import UNSAID, arrays_of, series_params


def recorded(seed, ticks, series, tick_s, *, clean=False):
    """Noisy days with bursts on the half hour; unless clean, with gaps, saturation, nonsense and a clock that jumps."""
    rng = np.random.default_rng(seed)
    now_s = 1e6 + np.arange(ticks) * tick_s
    demand = 500.0 * (1.0 + 0.6 * np.sin(now_s / 13_750.0))[:, np.newaxis]
    demand = demand * np.exp(rng.normal(0.0, 0.1, (ticks, series)))
    demand[now_s % 1800.0 < 240.0] += 1500.0
    freshness = np.zeros(demand.shape, np.int64)
    censored = np.zeros(demand.shape, np.bool_)
    if not clean:
        for odds, value in ((0.05, np.nan), (0.04, 0.0), (0.01, -1.0), (0.01, np.inf)):
            demand[rng.random(demand.shape) < odds] = value
        freshness[rng.random(demand.shape) < 0.03] = 1
        censored = rng.random(demand.shape) < 0.03
        now_s += np.cumsum((rng.random(ticks) < 0.01) * rng.integers(0, 200, ticks)) * tick_s
        now_s -= np.cumsum((rng.random(ticks) < 0.005) * rng.integers(0, 60, ticks)) * tick_s
    return [
        Samples(float(now_s[at]), demand[at], demand[at], freshness[at], np.ones(series), censored[at])
        for at in range(ticks)
    ]


def by_tick(outlook, ticks):
    """All that is said, tick by tick: arrays (ticks, ...)."""
    series = len(outlook.evidence) // ticks
    found = [
        outlook.at_lead.reshape(-1, ticks, series).swapaxes(0, 1),
        outlook.peak.reshape(-1, ticks, series).swapaxes(0, 1),
        outlook.evidence.reshape(ticks, series),
    ]
    if outlook.laws is not None:
        laws = outlook.laws
        found += [each.reshape(ticks, -1) for each in (laws.level, laws.spread, laws.scale, laws.excess)]
    return found


def same(params, samples, *, learned=0):
    """Check that states and forecasts are the same, and return the state. The first ticks are only learned, by both."""
    one = SeriesState.empty(params)
    learn(params, one, *samples[:learned])
    many, samples = one.copy(), samples[learned:]
    wanted = [by_tick(step(params, one, each), 1) for each in samples]
    found = [
        by_tick(outlook, len(outlook.evidence) // len(params.scale))
        for outlook in steps(params, many, samples)
    ]
    for name, parts in enumerate(zip(*found, strict=True)):
        np.testing.assert_array_equal(
            np.concatenate(parts), np.concatenate([each[name] for each in wanted]), err_msg=str(name)
        )
    for name, array in arrays_of(one).items():
        np.testing.assert_array_equal(array, arrays_of(many)[name], err_msg=name)
    for name in ("last_tick", "unborn", "lattices", "slot", "grown"):
        assert getattr(one, name) == getattr(many, name)
    return many


@pytest.mark.parametrize("laws", [False, True])
@pytest.mark.parametrize(("tick_s", "series"), [(60.0, 1), (10.0, 1), (60.0, 5), (3600.0, 1), (3600.0, 2)])
def test_many_ticks_are_as_one_by_one(tick_s, series, laws):
    params = series_params(series, laws=laws, tick_s=tick_s, lead=2, keep=4, hold=9, refill=90, half_life=7e3)
    for clean in (True, False):
        # Ticks of an hour are five weeks; nothing that lasts a week is new with shorter ones.
        same(params, recorded(1, 900 if tick_s == 3600.0 else 500, series, tick_s, clean=clean))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    ticks=st.integers(1, 700),
    lead=st.integers(1, 90),
    tick_s=st.sampled_from([1.0, 10.0, 60.0]),
    clean=st.booleans(),
)
def test_whatever_comes_and_however_long(seed, ticks, lead, tick_s, clean):
    params = series_params(
        laws=True, lead=lead, keep=2 * lead, hold=300, refill=900, tick_s=tick_s, half_life=3e3
    )
    same(params, recorded(seed, ticks, 1, tick_s, clean=clean))


@pytest.mark.parametrize("tick_s", [20.0, 60.0, 300.0])
def test_bursts_on_the_clock_are_expected_at_the_same_ticks(tick_s):
    params = series_params(laws=True, tick_s=tick_s, lead=1, keep=2, half_life=7e3)
    past = recorded(7, 1500, 1, tick_s, clean=True)
    calm = [replace(each, demand=np.where(each.demand > 1400.0, each.demand, 500.0)) for each in past]
    assert same(params, calm).lattices == 1


@pytest.mark.parametrize(("tick_s", "series"), [(20.0, 1), (60.0, 3), (1800.0, 1), (3600.0, 2)])
def test_outages_and_what_is_never_back_are_as_one_by_one(tick_s, series):
    params = series_params(series, laws=True, tick_s=tick_s, lead=2, keep=4, hold=9, refill=90, half_life=7e3)
    day = int(86_400.0 / tick_s)
    # The last outage ends after 300 ticks, or after the recording.
    last = 300 if tick_s == 60.0 else 999
    for clean in (True, False):
        past = recorded(11, day + 800, series, tick_s, clean=clean)
        calm = [
            replace(each, demand=np.where(each.demand < 400.0, 400.0, each.demand) * 3.0) for each in past
        ]
        for first, ticks, of in ((40, 7, 0), (150, 1, 0), (260, 20, -1), (400, last, 0)):
            for each in calm[day + first : day + first + ticks]:
                each.demand[of] *= 0.01
        # A day is needed to know what was usual at the time; the first outage comes forty ticks after it.
        state = same(params, calm, learned=day)
        assert not clean or state.falls.returns.max() >= 1.0


def test_a_series_that_has_grown_up_is_as_one_by_one_too():
    params = series_params(laws=True, tick_s=3600.0, lead=1, keep=2, hold=4, refill=24, half_life=60.0)
    assert same(params, recorded(8, 500, 1, 3600.0, clean=True)).grown


def test_learning_from_many_ticks_leaves_what_living_through_them_does():
    params = series_params(laws=True, tick_s=60.0, lead=1, keep=2, half_life=7e3)
    past, learned = recorded(9, 500, 1, 60.0), SeriesState.empty(params)
    learn(params, learned, *past)
    for name, array in arrays_of(same(params, past)).items():
        if name not in UNSAID:
            np.testing.assert_array_equal(array, arrays_of(learned)[name], err_msg=name)


@pytest.mark.parametrize("half_life", [0.5, 3.0])
def test_where_weights_grow_fast_fewer_ticks_are_gone_through_together(half_life):
    params = series_params(laws=True, tick_s=60.0, lead=1, keep=2, hold=5, half_life=half_life)
    same(params, recorded(6, 300, 1, 60.0))


def test_ticks_in_which_nothing_is_heard_are_as_one_by_one_too():
    params = series_params(laws=True, tick_s=60.0, lead=1, keep=2, half_life=7e3)
    past = recorded(6, 700, 1, 60.0, clean=True)
    same(params, past[:100] + [replace(each, demand=np.full(1, np.nan)) for each in past[100:]])
    assert list(steps(params, SeriesState.empty(params), [])) == []


def test_horizons_with_blocks_of_another_length_between_them_are_as_one_by_one_too():
    params = series_params(laws=True, tick_s=60.0, lead=2, keep=20, hold=9, refill=90, half_life=7e3)
    for clean in (True, False):
        same(params, recorded(2, 600, 1, 60.0, clean=clean))


def test_stretches_in_which_no_block_ends_are_as_one_by_one_too():
    params = series_params(laws=True, tick_s=60.0, lead=300, keep=400, hold=500, refill=900, half_life=7e3)
    past, one, few = (
        recorded(6, 40, 1, 60.0, clean=True),
        SeriesState.empty(params),
        SeriesState.empty(params),
    )
    for each in past:
        step(params, one, each)
    for at in range(0, len(past), 2):
        learn(params, few, *past[at : at + 2])
    for name, array in arrays_of(one).items():
        if name not in UNSAID:
            np.testing.assert_array_equal(array, arrays_of(few)[name], err_msg=name)


@pytest.mark.parametrize("series", [1, 2])
def test_samples_at_hand_are_as_those_that_come_one_by_one(series):
    params = series_params(series, laws=True, tick_s=60.0, lead=1, keep=2, half_life=7e3)
    past, by_one, at_hand = (
        recorded(4, 500, series, 60.0),
        SeriesState.empty(params),
        SeriesState.empty(params),
    )
    wanted, found = (
        [by_tick(outlook, len(outlook.evidence) // series) for outlook in steps(params, state, samples)]
        for state, samples in ((by_one, past), (at_hand, SampleRows.of(past)))
    )
    for one, other in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
    for name, array in arrays_of(by_one).items():
        np.testing.assert_array_equal(array, arrays_of(at_hand)[name], err_msg=name)


@pytest.mark.parametrize("tick_s", [20.0, 60.0])
def test_series_with_different_lead_times_are_as_one_by_one(tick_s):
    params = series_params(3, laws=True, tick_s=tick_s, half_life=7e3)
    lead = np.array([1, 20, 90])
    params = replace(params, lead_ticks=lead, keep_ticks=lead + 3, hold_ticks=3 * lead)
    for clean in (True, False):
        same(params, recorded(5, 400, 3, tick_s, clean=clean))
    for series in range(3):
        one = replace(
            series_params(laws=True, tick_s=tick_s, half_life=7e3),
            lead_ticks=lead[series : series + 1],
            keep_ticks=lead[series : series + 1] + 3,
            hold_ticks=3 * lead[series : series + 1],
        )
        same(one, recorded(5, 300, 1, tick_s))


def test_events_are_told_too():
    params = series_params(2, laws=True, tick_s=60.0, lead=1, keep=2, half_life=7e3)
    begins = np.full((1, 2), 1e6 + 6000.0)
    params = replace(
        params,
        event_start_s=begins,
        event_end_s=begins + 3600.0,
        event_factor=np.array([[3.0, 1.0]]),
        event_odds=np.array([[0.9, 0.0]]),
    )
    same(params, recorded(3, 160, 2, 60.0, clean=True))


@pytest.mark.parametrize(
    "made",
    [
        lambda state, _: state.copy(),
        lambda state, params: state.carried_over(params, np.arange(2)),
        lambda state, params: taken_in(SeriesState.empty(params), state),
    ],
    ids=["copied", "carried over", "taken in"],
)
def test_what_waits_for_the_fit_is_in_all_that_is_made_of_a_state(made):
    params = series_params(2, tick_s=60.0)
    past = recorded(4, 198, 2, 60.0, clean=True)
    learned, lived = SeriesState.empty(params), SeriesState.empty(params)
    learn(params, learned, *past)
    for each in past:
        step(params, lived, each)
    assert lived.lessons.fits
    state = made(lived, params)
    for name in ("sums", "miss"):
        np.testing.assert_array_equal(getattr(state, name), getattr(learned, name), err_msg=name)


def taken_in(state, other):
    state.last_tick, state.slot = other.last_tick, other.slot
    state.falls = other.falls.of_columns(np.full(2, -1))
    state.take_in(np.arange(2), other)
    return state
