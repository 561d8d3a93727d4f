"""Bad input to a forecaster: none of it is believed blindly, and its effects pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.forecast import SeriesState, learn, step
from autoscaler.core.forecast.issuing import GROWTH_BOUND
from autoscaler.core.types import Freshness, Samples
from tests.core.builders import UNSAID, arrays_of, series_params

TICK_S = 60.0


def params(**changed):
    return series_params(
        **{"laws": True, "lead": 1, "keep": 2, "hold": 5, "refill": 60, "tick_s": TICK_S, "half_life": 7200.0}
        | changed
    )


def sample(tick, demand, *, freshness=Freshness.FRESH, censored=False, tick_s=TICK_S):
    now_s = tick * tick_s
    return Samples(
        now_s,
        np.array([float(demand)]),
        np.array([now_s]),
        np.array([int(freshness)]),
        np.ones(1),
        np.array([censored]),
    )


def fed(state, values, first=0, given=None, **marks):
    given = given or params()
    return [step(given, state, sample(first + at, value, **marks)) for at, value in enumerate(values)]


def learn_values(state, values, first=0):
    """The same without outlooks, in a tenth of the time."""
    learn(params(), state, *(sample(first + at, value) for at, value in enumerate(values)))


def noisy(level, ticks, seed=1, spread=0.1):
    return level * np.exp(np.random.default_rng(seed).normal(0.0, spread, ticks))


def sound(outlooks, state):
    for outlook in outlooks:
        assert np.isfinite(outlook.at_lead).all()
        assert np.isfinite(outlook.peak).all()
        assert np.isfinite(outlook.laws.excess).all()
        assert np.isfinite(outlook.laws.level).all()
        assert (np.diff(outlook.at_lead, axis=0) >= 0.0).all()
        assert (outlook.at_lead >= 0.0).all()
    for name in ("tables", "totals", "sizes", "short", "shifts", "sums", "fits", "weight", "offset"):
        assert np.isfinite(arrays_of(state)[name]).all(), name


def test_nothing_but_zero():
    state = SeriesState.empty(params())
    outlooks = fed(state, np.zeros(400))
    sound(outlooks, state)
    assert outlooks[-1].at_lead[2, 0] < 1.0
    assert outlooks[-1].laws.excess[0, 0].max() < 5.0


def test_always_the_same():
    state = SeriesState.empty(params())
    outlooks = fed(state, np.full(600, 500.0))
    sound(outlooks, state)
    assert outlooks[-1].at_lead[0, 0] == pytest.approx(500.0, rel=0.01)
    assert outlooks[-1].at_lead[3, 0] < 515.0


def test_silence_for_a_day_is_not_zero_and_costs_nothing_of_what_was_learned():
    state = SeriesState.empty(params())
    learn_values(state, noisy(500.0, 1500))
    before = fed(state, [500.0], 1500)[0]
    silent = fed(state, [np.nan] * 1440, 1501, freshness=Freshness.ABSENT)
    sound(silent, state)
    # What was known last is repeated, and its age is the decision's affair.
    np.testing.assert_allclose(silent[-1].at_lead, before.at_lead, rtol=0.1)
    after = fed(state, noisy(500.0, 3, seed=2), 1501 + 1440)[-1]
    assert after.at_lead[2, 0] == pytest.approx(before.at_lead[2, 0], rel=0.1)


def test_a_counter_that_was_reset_is_not_demand():
    state = SeriesState.empty(params())
    usual = fed(state, noisy(500.0, 800))
    totals = state.totals.copy()
    wild = fed(state, [-4e9, np.nan, np.inf, -1.0], 800)
    sound(wild, state)
    np.testing.assert_array_equal(state.totals, totals)
    assert wild[-1].at_lead[2, 0] == pytest.approx(usual[-1].at_lead[2, 0], rel=0.15)


def test_one_wild_spike_is_over_after_an_hour():
    state = SeriesState.empty(params())
    known = noisy(500.0, 2000)
    learn_values(state, known[:-300])
    usual = fed(state, known[-300:], 1700)
    spike = fed(state, [500_000.0], 2000)
    after = fed(state, noisy(500.0, 60, seed=3), 2001)
    sound([*spike, *after], state)
    assert after[-1].at_lead[0, 0] == pytest.approx(500.0, rel=0.1)
    assert after[-1].at_lead[2, 0] < 1.25 * usual[-1].at_lead[2, 0]


def test_a_level_shift_is_the_new_level_within_minutes():
    state = SeriesState.empty(params())
    learn_values(state, noisy(500.0, 2000))
    shifted = fed(state, noisy(2000.0, 120, seed=4), 2000)
    sound(shifted, state)
    assert shifted[3].at_lead[0, 0] > 1400.0
    assert shifted[-1].at_lead[0, 0] == pytest.approx(2000.0, rel=0.12)
    assert shifted[-1].at_lead[3, 0] < 4000.0


def test_a_week_of_saturation_teaches_no_ceiling():
    """Demand of 500 to 2,000 is cut off at 800 for a week: quantiles must not learn that 800 is the most."""
    given = params(tick_s=300.0, half_life=1440.0)
    day = 1000.0 * np.exp(0.7 * np.sin(np.arange(288) / 288.0 * 2.0 * np.pi))
    truth = np.tile(day, 4) * noisy(1.0, 4 * 288, spread=0.05)
    state = SeriesState.empty(given)
    learn(given, state, *(sample(tick, value, tick_s=300.0) for tick, value in enumerate(truth)))
    for tick in range(4 * 288, 11 * 288):
        hidden = day[tick % 288] > 800.0
        seen = min(day[tick % 288], 800.0)
        outlook = step(given, state, sample(tick, seen, censored=hidden, tick_s=300.0))
        if hidden:
            assert outlook.at_lead[2, 0] > 800.0
    # The cut-off values were neither outcomes nor ends of windows.
    assert not (state.blocks[0, :, 0] == 800.0).any()


def test_bounded_growth():
    """No quantile exceeds GROWTH_BOUND times the highest demand of late plus as many times the offset."""
    rng = np.random.default_rng(5)
    values = np.exp(np.cumsum(rng.normal(0.0, 0.7, 1500)) % 9.0)
    values[rng.random(1500) < 0.05] *= 300.0
    state = SeriesState.empty(params())
    highest = 0.0
    for at, value in enumerate(values):
        highest = max(highest, value)
        outlook = fed(state, [value], at)[0]
        bound = GROWTH_BOUND * (highest + state.offset[0])
        assert outlook.at_lead[3, 0] <= bound * 1.001
        assert outlook.peak[3, 0] <= bound * 1.001


def test_a_clock_that_goes_back_a_little_holds_still_and_much_begins_anew():
    given = params()
    state = SeriesState.empty(given)
    learn_values(state, noisy(500.0, 900), 10_000)
    totals = state.totals.copy()
    little = fed(state, [505.0], 10_897)
    np.testing.assert_array_equal(state.totals, totals)
    sound(little, state)
    assert state.last_tick == 10_899
    back = fed(state, noisy(500.0, 120, seed=6), 7_000)
    sound(back, state)
    assert state.last_tick == 7_119
    assert state.totals[0, -1, 0] > totals[0, -1, 0]
    assert back[-1].at_lead[0, 0] == pytest.approx(500.0, rel=0.1)


def test_a_clock_that_leaps_a_year_ahead_keeps_what_was_learned():
    state = SeriesState.empty(params())
    before = fed(state, noisy(500.0, 900))[-1]
    after = fed(state, noisy(500.0, 30, seed=7), 525_600)
    sound(after, state)
    assert after[-1].at_lead[2, 0] == pytest.approx(before.at_lead[2, 0], rel=0.2)


@pytest.mark.parametrize("tick_s", [1.0, 10.0, 300.0, 420.0, 3600.0])
def test_every_length_of_tick_works(tick_s):
    def ticks(seconds):
        return max(1, int(np.ceil(seconds / tick_s)))

    given = params(
        tick_s=tick_s,
        lead=ticks(60),
        keep=ticks(120),
        hold=ticks(300),
        refill=ticks(86_400),
        half_life=5 * 86_400 / tick_s,
    )
    state = SeriesState.empty(given)
    values = noisy(500.0, 700, seed=8)
    outlooks = [step(given, state, sample(at, value, tick_s=tick_s)) for at, value in enumerate(values)]
    sound(outlooks, state)
    covered = [values[at + ticks(60)] <= outlooks[at].at_lead[1, 0] for at in range(200, 700 - ticks(60))]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.08)


ODD = st.one_of(
    st.floats(0.0, 1e12), st.sampled_from([0.0, -1.0, np.nan, np.inf, 1e300, 5e-324, 100.0, 100.0, 100.0])
)


EVENTS = st.lists(
    st.tuples(
        ODD,
        st.sampled_from(list(Freshness)),
        st.booleans(),
        st.sampled_from([0, 1, 1, 1, 2, 9, -3, -400, 5000]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_whatever_comes_no_nonsense_leaves(events):
    given_params = params()
    state = SeriesState.empty(given_params)
    tick, born = 100_000, False
    for demand, freshness, censored, ahead in events:
        tick += ahead
        outlook = step(given_params, state, sample(tick, demand, freshness=freshness, censored=censored))
        born = born or (freshness == Freshness.FRESH and 0.0 <= demand < 1e15)
        assert np.isfinite(outlook.at_lead).all() == born
        assert np.isfinite(outlook.laws.excess).all() == born
        assert np.isfinite(outlook.evidence).all()


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.booleans(), st.integers(0, 400))
def test_what_is_only_learned_leaves_the_very_state_that_living_leaves(events, laws, calm):
    given_params = params(laws=laws)
    lived, learned = SeriesState.empty(given_params), SeriesState.empty(given_params)
    quiet = [(100.0 + at % 7, Freshness.FRESH, False, 1) for at in range(calm)]
    tick = 100_000
    for demand, freshness, censored, ahead in [*quiet, *events]:
        tick += ahead
        now = sample(tick, demand, freshness=freshness, censored=censored)
        step(given_params, lived, now)
        learn(given_params, learned, now)
    one, other = arrays_of(lived), arrays_of(learned)
    for name, value in one.items():
        if name not in UNSAID:
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    for name in ("last_tick", "unborn", "lattices", "slot"):
        assert getattr(lived, name) == getattr(learned, name)
    following = sample(tick + 1, 50.0)
    one, other = (step(given_params, state, following) for state in (lived, learned))
    np.testing.assert_array_equal(one.evidence, other.evidence)
    if laws:
        np.testing.assert_array_equal(one.laws.excess, other.laws.excess)


def test_noise_that_becomes_four_times_as_strong_is_soon_nearly_covered():
    state = SeriesState.empty(params())
    learn_values(state, noisy(500.0, 2000, spread=0.05))
    values = noisy(500.0, 600, seed=9, spread=0.2)
    outlooks = fed(state, values, 2000)
    sound(outlooks, state)
    covered = np.array([values[at + 1] <= outlooks[at].at_lead[2, 0] for at in range(599)])
    assert np.mean(covered[30:150]) > 0.85
    assert np.mean(covered[150:]) > 0.9


def test_a_series_that_begins_later_than_others_is_forecast_as_if_it_were_alone():
    values = 300.0 * np.exp(np.random.default_rng(3).normal(0.0, 0.1, (300, 2)))
    values[:80, 1] = np.nan
    given_both, given_one = series_params(2, lead=2), series_params(1, lead=2)
    both, one = SeriesState.empty(given_both), SeriesState.empty(given_one)
    ones, never = np.ones(2), np.zeros(2, np.bool_)
    for tick, row in enumerate(values):
        missing = np.where(np.isnan(row), int(Freshness.ABSENT), 0)
        pair = step(given_both, both, Samples(tick * 10.0, row, row, missing, ones, never))
        single = step(
            given_one, one, Samples(tick * 10.0, row[1:], row[1:], missing[1:], ones[1:], never[1:])
        )
    assert (pair.at_lead[:, 1] > 0.0).all()
    np.testing.assert_array_equal(pair.at_lead[:, 1:], single.at_lead)
