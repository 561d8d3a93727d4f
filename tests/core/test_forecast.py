"""The forecaster's contract: calibrated where outcomes are known, silent without data, the same alone and with other series."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, learn, step
from autoscaler.core.forecast.judging import MOST_SQUARE
from autoscaler.core.forecast.settings import DOUBT_S
from autoscaler.core.types import QUANTILE_LEVELS, Freshness, Horizon, Outlook
from tests.core.builders import UNSAID, arrays_of, samples, series_params
from tests.core.law_reader import LawReader

TICK_S = 10.0


def run(
    params, values: np.ndarray, *, start_s: float = 0.0, state: SeriesState | None = None, learned: int = 0
):
    """The state and the outlooks, without those of the first ticks, that are only learned: in a tenth of the time."""
    state = SeriesState.empty(params) if state is None else state
    past = [samples(start_s + i * params.tick_s, row) for i, row in enumerate(values)]
    learn(params, state, *past[:learned])
    return state, [step(params, state, each) for each in past[learned:]]


def test_before_the_first_sample_nothing_is_claimed():
    params = series_params(laws=True)
    outlook = step(params, SeriesState.empty(params), samples(0.0, np.nan, freshness=Freshness.ABSENT))
    assert np.isnan(outlook.at_lead).all()
    assert np.isnan(outlook.peak).all()
    assert np.isnan(outlook.laws.level).all()
    reader = LawReader(outlook.laws, Horizon.LEAD, np.array([0]))
    assert np.isnan(reader.beyond(np.array([10.0]))).all()


def test_cold_start_is_the_last_value_with_the_prior_spread():
    params = series_params()
    _, (outlook,) = run(params, np.array([[1000.0]]))
    median, q90, q95, q99 = outlook.at_lead[:, 0]
    assert median == pytest.approx(1000.0, rel=0.01)
    # 0.9 of a Laplace law of 0.08 and 0.1 of 1 / (1 + z/2)^2: 0.05 beyond 2.162 spreads, where 0.9 * 0.5 * exp(-z) is
    # 0.0518 * ... + 0.05 / (1 + z/2)^2; on 1000 + 30.
    for level, found in ((0.9, q90), (0.95, q95), (0.99, q99)):
        z = np.linspace(0.0, 60.0, 600_001)
        beyond = 0.5 * (0.9 * np.exp(-z) + 0.1 / (1.0 + z / 2.0) ** 2)
        exact = 1030.0 * np.exp(0.08 * z[np.argmax(beyond <= 1.0 - level)]) - 30.0
        assert found == pytest.approx(exact, rel=0.01)
    assert outlook.evidence[0] == 0.0


@pytest.fixture(scope="module", name="stationary")
def _stationary():
    """Two series of noise around one mean and their outlooks, forecast side by side."""
    noise = [np.random.default_rng(seed).normal(0.0, 0.1, 6000) for seed in (1, 2)]
    values = 1000.0 * np.exp(np.stack(noise, axis=1))
    _, outlooks = run(series_params(2, lead=3, keep=6), values)
    return values, outlooks


def test_quantiles_are_calibrated_on_a_stationary_series(stationary):
    values, outlooks = stationary[0][:, 0], stationary[1]
    start = 2000
    issued = np.stack([o.at_lead[:, 0] for o in outlooks[start:-3]])
    outcome = values[start + 3 :]
    for row, level in enumerate(QUANTILE_LEVELS):
        assert np.mean(outcome <= issued[:, row]) == pytest.approx(level, abs=0.02)
    # The last value is off by sqrt(2) as much as the mean; the level learns to be the mean.
    assert np.mean(issued[:, 2]) == pytest.approx(1000.0 * np.exp(1.645 * 0.1), rel=0.02)


def test_the_peak_covers_the_highest_demand_of_the_keep_window(stationary):
    values, outlooks = stationary[0][:, 1], stationary[1]
    start = 2000
    issued = np.stack([o.peak[2, 1] for o in outlooks[start:-6]])
    highest = np.lib.stride_tricks.sliding_window_view(values[start + 1 :], 6).max(axis=1)
    assert np.mean(highest <= issued) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("rises", [True, False])
def test_what_comes_before_the_lead_time_is_expected_on_the_way_there(rises):
    """Of rises and falls that take turns, the next tick is expected a quarter as far as the fourth."""
    params = series_params(lead=4, keep=1, laws=True)
    slopes = np.where(np.arange(3000) // 60 % 2, -0.01, 0.01)
    value = 1000.0 * np.exp(np.cumsum(slopes))[: 2910 if rises else 2970]
    laws = run(params, value, learned=len(value) - 1)[1][-1].laws
    far, near = np.log((laws.level[0, :2] + laws.scale[0]) / (value[-1] + laws.scale[0]))
    assert far > 0.02 if rises else far < -0.02
    assert near / far == pytest.approx(0.25, abs=0.1)


def test_laws_expect_beyond_a_demand_what_comes_beyond_it():
    rng = np.random.default_rng(3)
    values = 400.0 * rng.gamma(4.0, 0.25, 4000)
    params = series_params(laws=True, lead=2, keep=5, hold=12, refill=30)
    start = 2000
    _, outlooks = run(params, values[:, np.newaxis], learned=start)
    for horizon, ahead in zip(Horizon, (2, 5, 12, 30), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(values[start + 1 :], ahead)
        outcome = windows[:, -1] if horizon is Horizon.LEAD else windows.max(axis=1)
        demand = np.array([[200.0], [400.0], [800.0], [1200.0]])
        told = [
            LawReader(o.laws, horizon, np.array([0])).beyond(demand)[:, 0] for o in outlooks[: len(outcome)]
        ]
        came = np.mean(np.maximum(outcome - demand, 0.0), axis=1)
        # The farthest horizon starts from the highest demand of its last window: where peaks come back to their mean,
        # expectations are a little too high, though their quantiles are not.
        share = 0.09 if horizon is Horizon.REFILL else 0.05
        np.testing.assert_allclose(np.mean(told, axis=0), came, atol=share * outcome.mean())


def test_laws_are_convex_and_never_rise():
    rng = np.random.default_rng(4)
    values = 100.0 * rng.poisson(2.0, 3000).astype(float)
    _, outlooks = run(series_params(laws=True), values[:, np.newaxis], learned=len(values) - 1)
    reader = LawReader(outlooks[-1].laws, Horizon.LEAD, np.zeros(400, np.int64))
    beyond = reader.beyond(np.linspace(0.0, 2000.0, 400))
    slope = np.diff(beyond)
    assert (slope <= 1e-4).all()
    assert (np.diff(slope) >= -2e-3).all()
    assert beyond[0] == pytest.approx(200.0, rel=0.15)


def test_laws_and_quantiles_are_one():
    rng = np.random.default_rng(5)
    values = 1000.0 * np.exp(rng.normal(0.0, 0.2, 1500))
    _, outlooks = run(series_params(laws=True), values[:, np.newaxis])
    outlook = outlooks[-1]
    reader = LawReader(outlook.laws, Horizon.LEAD, np.array([0]))
    for level, quantile in zip(QUANTILE_LEVELS, outlook.at_lead[:, 0], strict=True):
        around = reader.beyond(np.array([[quantile - 5.0], [quantile + 5.0]]))[:, 0]
        assert (around[0] - around[1]) / 10.0 == pytest.approx(1.0 - level, rel=0.35)


def test_zero_has_the_share_that_it_had():
    rng = np.random.default_rng(6)
    values = np.where(rng.random(4000) < 0.7, 0.0, 300.0)
    _, outlooks = run(series_params(laws=True, lead=1), values[:, np.newaxis], learned=len(values) - 300)
    told = [LawReader(o.laws, Horizon.LEAD, np.array([0])) for o in outlooks]
    some = [1.0 - (r.beyond(np.array([0.0])) - r.beyond(np.array([1.0])))[0] for r in told]
    assert np.mean(some) == pytest.approx(0.7, abs=0.04)
    assert np.mean([o.at_lead[0, 0] for o in outlooks]) < 1.0


def test_a_growing_series_shifts_its_own_median():
    values = 100.0 * 1.01 ** np.arange(800)
    params = series_params(lead=5)
    _, outlooks = run(params, values[:, np.newaxis])
    assert outlooks[-1].at_lead[0, 0] == pytest.approx(values[-1] * 1.01**5, rel=0.04)


def test_yesterday_is_expected_today():
    """A step each day at the same minute is in the level before it comes, once some days have shown it."""
    minutes = np.arange(1440 * 4)
    rng = np.random.default_rng(7)
    values = np.where(minutes % 1440 < 600, 200.0, 1000.0) * np.exp(rng.normal(0.0, 0.03, len(minutes)))
    params = series_params(lead=1, keep=2, hold=5, refill=60, tick_s=60.0, half_life=7200.0)
    before = 1440 * 3 + 599
    _, outlooks = run(params, values[: before + 1, np.newaxis], learned=before - 240)
    assert outlooks[-1].at_lead[0, 0] > 1.3 * values[before]
    assert outlooks[-121].at_lead[0, 0] == pytest.approx(200.0, rel=0.1)


def test_a_young_series_is_fitted_more_often():
    rng = np.random.default_rng(11)
    values = 500.0 * np.exp(rng.normal(0.0, 0.2, (500, 1)))
    params = series_params(tick_s=1.0, lead=1)
    _, outlooks = run(params, values)
    found = np.array([outlook.at_lead[0, 0] for outlook in outlooks])
    off = np.abs(np.log(found[300:-1] / values[301:, 0]))
    # The mean would be off by 16 %, the last value by 23 %: before the first quarter of an hour is over, more is known.
    assert np.mean(off) < 0.175


def test_a_gap_breaks_the_link_between_before_and_after():
    params = series_params(lead=3)
    state, _ = run(params, np.full((50, 1), 500.0))
    total = state.totals[0, -1, 0]
    for i in range(3):  # after a gap of an hour, the first three samples have no partner 3 ticks earlier
        step(params, state, samples(4100.0 + i * TICK_S, 800.0))
    assert state.totals[0, -1, 0] == total
    step(params, state, samples(4130.0, 800.0))
    assert state.totals[0, -1, 0] > total


def test_a_second_call_in_one_tick_replaces_the_sample_and_learns_once():
    params = series_params(lead=1)
    state, _ = run(params, np.full((5, 1), 500.0))
    total = state.totals[0, -1, 0]
    outlook = step(params, state, samples(44.0, 700.0))
    assert state.totals[0, -1, 0] == total
    assert outlook.at_lead[0, 0] == pytest.approx(700.0, rel=0.15)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_sudden_factor_of_a_thousand_counts_as_one_of_four_in_the_squared_errors(at_once):
    params, seen = (
        series_params(lead=1),
        [samples(at * TICK_S, 1e5 if at == 9 else 100.0) for at in range(10)],
    )
    state = SeriesState.empty(params)
    for part in [seen] if at_once else [[one] for one in seen]:
        learn(params, state, *part)
    by_last = state.doubt[0, 1] / -np.expm1(-TICK_S / DOUBT_S)
    assert by_last == pytest.approx(np.log(4.0) ** 2, rel=0.05)
    assert by_last == pytest.approx(MOST_SQUARE)


def everything(outlook):
    found = [outlook.at_lead, outlook.peak, outlook.evidence]
    return found if outlook.laws is None else [*found, outlook.laws.level, outlook.laws.excess]


@pytest.mark.parametrize("laws", [False, True])
def test_restart_changes_nothing(laws):
    rng = np.random.default_rng(8)
    values = rng.gamma(5.0, 40.0, (240, 4))
    params = series_params(4, laws=laws)
    _, straight = run(params, values)
    state, _ = run(params, values[:120])
    restored = SeriesState.restore(state.dump())
    _, resumed = run(params, values[120:], start_s=1200.0, state=restored)
    for a, b in zip(straight[120:], resumed, strict=True):
        for one, other in zip(everything(a), everything(b), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_restored_lies_in_memory_as_it_did():
    state, _ = run(series_params(3, laws=True), np.full((5, 3), 100.0))
    again = arrays_of(SeriesState.restore(state.dump()))
    for name, array in arrays_of(state).items():
        assert again[name].strides == array.strides, name


def test_a_learned_history_is_as_good_as_a_lived_one():
    rng = np.random.default_rng(9)
    values = rng.gamma(5.0, 40.0, (300, 3))
    params = series_params(3, laws=True)
    lived, _ = run(params, values)
    filled = SeriesState.empty(params)
    for i, row in enumerate(values):
        learn(params, filled, samples(i * TICK_S, row))
    for name, array in arrays_of(lived).items():
        if name not in UNSAID:
            np.testing.assert_array_equal(array, arrays_of(filled)[name], err_msg=name)


def test_a_dump_of_another_version_is_refused():
    params = series_params()
    with pytest.raises(ValueError, match="version 99"):
        SeriesState.restore(SeriesState.empty(params).dump() | {"version": 99})


def test_series_are_independent_to_the_bit():
    rng = np.random.default_rng(10)
    values = rng.gamma(5.0, 40.0, (400, 90))
    values[rng.random(values.shape) < 0.1] *= 20.0
    values[rng.random(values.shape) < 0.05] = 0.0
    _, crowd = run(series_params(90, laws=True), values)
    _, few = run(series_params(5, laws=True), values[:, :5])
    _, alone = run(series_params(1, laws=True), values[:, 2:3])
    _, mute = run(series_params(1), values[:, 2:3])
    for many, some, one, silent in zip(crowd, few, alone, mute, strict=True):
        for name in ("at_lead", "peak"):
            np.testing.assert_array_equal(getattr(many, name)[:, :5], getattr(some, name))
            np.testing.assert_array_equal(getattr(many, name)[:, 2:3], getattr(one, name))
            np.testing.assert_array_equal(getattr(silent, name), getattr(one, name))
        np.testing.assert_array_equal(many.laws.excess[2:3], one.laws.excess)


def test_series_without_bursts_are_fitted_in_company_as_they_are_alone():
    rng = np.random.default_rng(14)
    values = 200.0 * np.exp(0.05 * rng.standard_normal((400, 60)))
    # The first sample says when a series is fitted: all at once.
    values[0] = 200.0
    values[150:160, ::3] *= 4.0
    crowd, _ = run(series_params(60), values)
    for series in (0, 1):
        alone, _ = run(series_params(1), values[:, series : series + 1])
        assert np.any(alone.sums[0, 1:]) == (series == 0)
        np.testing.assert_array_equal(crowd.fits[series], alone.fits[0])


def test_series_with_other_horizons_are_no_company_that_matters():
    rng = np.random.default_rng(11)
    values = rng.gamma(5.0, 40.0, (400, 2))
    mixed = series_params(2, laws=True)
    mixed.lead_ticks[:], mixed.keep_ticks[:], mixed.hold_ticks[:] = [3, 90], [6, 130], [30, 400]
    _, both = run(mixed, values)
    _, alone = run(series_params(1, laws=True), values[:, :1])
    for pair, one in zip(both, alone, strict=True):
        np.testing.assert_array_equal(pair.at_lead[:, :1], one.at_lead)
        np.testing.assert_array_equal(pair.laws.excess[:1], one.laws.excess)


def test_the_future_does_not_reach_back():
    rng = np.random.default_rng(12)
    values = rng.gamma(5.0, 40.0, (80, 1))
    poisoned = values.copy()
    poisoned[60:] = 1e9
    _, one = run(series_params(1, laws=True), values)
    _, two = run(series_params(1, laws=True), poisoned)
    for a, b in zip(one[:60], two[:60], strict=True):
        for mine, theirs in zip(everything(a), everything(b), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("tick_s", [1.0, 10.0, 60.0, 3600.0])
def test_state_fits_its_budget_per_series(tick_s):
    def ticks(seconds):
        return max(1, int(np.ceil(seconds / tick_s)))

    params = series_params(
        2, laws=True, tick_s=tick_s, lead=ticks(40), keep=ticks(80), hold=ticks(300), refill=ticks(86_400)
    )
    state = SeriesState.empty(params)
    assert sum(array.nbytes for array in arrays_of(state).values()) / 2 <= 80_000


def test_a_lead_time_of_many_ticks_is_judged_at_its_end():
    """Longer than the blocks remembered: forecasts are judged less often, and still at the lead time."""
    rng = np.random.default_rng(13)
    values = 1000.0 * np.exp(rng.normal(0.0, 0.1, 8000))
    _, outlooks = run(series_params(lead=200, keep=300, hold=600, tick_s=1.0), values[:, np.newaxis])
    issued = np.stack([o.at_lead[:, 0] for o in outlooks[4000:-200]])
    outcome = values[4200:]
    for row, level in enumerate(QUANTILE_LEVELS[:3]):
        assert np.mean(outcome <= issued[:, row]) == pytest.approx(level, abs=0.035)


@pytest.mark.parametrize("count", [1, 3, 300])
def test_what_nobody_asks_for_is_unknown_and_changes_nothing_else(count):
    rng = np.random.default_rng(3)
    values = rng.gamma(20.0, 50.0, (150, count))
    values[70] = np.nan
    whole = series_params(count, laws=True)
    asked = replace(whole, refill_laws=np.zeros(count, np.bool_))
    (_, all_of_them), (_, some) = run(whole, values), run(asked, values)
    kept = slice(0, int(Horizon.REFILL))
    for one, other in zip(all_of_them, some, strict=True):
        np.testing.assert_array_equal(one.laws.level[:, kept], other.laws.level[:, kept])
        np.testing.assert_array_equal(one.laws.spread[:, kept], other.laws.spread[:, kept])
        np.testing.assert_array_equal(one.laws.excess[:, kept], other.laws.excess[:, kept])
        np.testing.assert_array_equal(one.peak, other.peak)
        np.testing.assert_array_equal(one.at_lead, other.at_lead)
        assert np.isnan(other.laws.level[:, Horizon.REFILL]).all()
    assert not np.isnan(all_of_them[-1].laws.level).any()


def test_quantiles_that_are_read_late_are_those_of_their_tick():
    rng = np.random.default_rng(4)
    # Noise that grows makes what is added to both sides of a ratio change, in place.
    values = np.abs(1000.0 + rng.normal(size=(400, 2)) * np.linspace(0.0, 1500.0, 400)[:, np.newaxis])
    _, late = run(series_params(2, laws=True), values)
    state, params = None, series_params(2, laws=True)
    for value, outlook, tick in zip(values, late, range(400), strict=True):
        state, (once,) = run(params, value[np.newaxis], start_s=tick * TICK_S, state=state)
        at_lead, peak = once.at_lead.copy(), once.peak.copy()
        np.testing.assert_array_equal(outlook.at_lead, at_lead)
        np.testing.assert_array_equal(outlook.peak, peak)
    assert state is not None
    assert (state.offset > 30.0).any()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_an_outlook_whose_quantiles_were_not_read_yet_can_be_copied_and_sent(again):
    values = np.abs(1000.0 + 50.0 * np.random.default_rng(5).normal(size=(50, 2)))
    _, (*_, last) = run(series_params(2, laws=True), values)
    found = again(last)
    assert type(found) is Outlook
    np.testing.assert_array_equal(found.at_lead, last.at_lead)
    np.testing.assert_array_equal(found.peak, last.peak)
    np.testing.assert_array_equal(found.laws.excess, last.laws.excess)
