"""The last value with its error distribution: calibrated, patient, honest about what it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.types import QUANTILE_LEVELS, Freshness
from tests.core.builders import samples, series_params

TICK_S = 10.0


def run(params, values: np.ndarray, *, start_s: float = 0.0, state: SeriesState | None = None):
    state = SeriesState.empty(params) if state is None else state
    outlooks = [step(params, state, samples(start_s + i * TICK_S, row)) for i, row in enumerate(values)]
    return state, outlooks


def test_before_the_first_sample_nothing_is_claimed():
    params = series_params()
    outlook = step(params, SeriesState.empty(params), samples(0.0, np.nan, freshness=Freshness.ABSENT))
    assert np.isnan(outlook.at_lead).all()
    assert np.isnan(outlook.peak).all()


def test_cold_start_is_the_last_value_with_the_prior_spread():
    params = series_params()
    _, (outlook,) = run(params, np.array([[1000.0]]))
    median, q90, q95, q99 = outlook.at_lead[:, 0]
    assert median == pytest.approx(1000.0, rel=0.01)
    # Laplace(0.08): q = 0.08 ln(1 / (2 (1 - level))), on 1000 + 30.
    assert q90 == pytest.approx(1030.0 * 5**0.08 - 30.0, rel=0.01)
    assert q95 == pytest.approx(1030.0 * 10**0.08 - 30.0, rel=0.01)
    assert q99 == pytest.approx(1030.0 * 50**0.08 - 30.0, rel=0.01)
    assert outlook.evidence[0] == 0.0


def test_quantiles_are_calibrated_on_a_stationary_series():
    rng = np.random.default_rng(1)
    values = 1000.0 * np.exp(rng.normal(0.0, 0.1, 6000))
    params = series_params(lead=3)
    _, outlooks = run(params, values[:, np.newaxis])
    start = 2000
    issued = np.stack([o.at_lead[:, 0] for o in outlooks[start:-3]])
    outcome = values[start + 3 :]
    for row, level in enumerate(QUANTILE_LEVELS):
        assert np.mean(outcome <= issued[:, row]) == pytest.approx(level, abs=0.015)


def test_the_peak_covers_the_highest_demand_of_the_keep_window():
    rng = np.random.default_rng(2)
    values = 1000.0 * np.exp(rng.normal(0.0, 0.1, 6000))
    params = series_params(lead=3, keep=6)
    _, outlooks = run(params, values[:, np.newaxis])
    start = 2000
    issued = np.stack([o.peak[2, 0] for o in outlooks[start:-6]])
    highest = np.lib.stride_tricks.sliding_window_view(values[start + 1 :], 6).max(axis=1)
    assert np.mean(highest <= issued) == pytest.approx(0.95, abs=0.02)


def test_a_growing_series_shifts_its_own_median():
    values = 100.0 * 1.01 ** np.arange(800)
    params = series_params(lead=5)
    _, outlooks = run(params, values[:, np.newaxis])
    assert outlooks[-1].at_lead[0, 0] == pytest.approx(values[-1] * 1.01**5, rel=0.04)


def test_missing_and_censored_samples_teach_nothing():
    params = series_params()
    state, _ = run(params, np.full((50, 1), 500.0))
    before = state.copy()
    step(params, state, samples(500.0, np.nan, freshness=Freshness.ABSENT))
    step(params, state, samples(510.0, 9000.0, censored=True))
    np.testing.assert_array_equal(state.errors, before.errors)
    assert state.last[0] == 9000.0


def test_a_gap_breaks_the_link_between_before_and_after():
    params = series_params(lead=3)
    state, _ = run(params, np.full((50, 1), 500.0))
    evidence = state.evidence[0]
    for i in range(3):  # after a gap of an hour, the first three samples have no partner 3 ticks earlier
        step(params, state, samples(4100.0 + i * TICK_S, 800.0))
    assert state.evidence[0] == evidence
    step(params, state, samples(4130.0, 800.0))
    assert state.evidence[0] == pytest.approx(evidence + 1.0, rel=1e-3)


def test_a_second_call_in_one_tick_replaces_the_sample_and_learns_once():
    params = series_params(lead=1)
    state, _ = run(params, np.full((5, 1), 500.0))
    evidence = state.evidence[0]
    outlook = step(params, state, samples(44.0, 700.0))
    assert state.evidence[0] == evidence
    assert outlook.at_lead[0, 0] == pytest.approx(700.0, rel=0.02)


def test_zero_demand_is_an_ordinary_value():
    params = series_params()
    _, outlooks = run(params, np.zeros((300, 1)))
    assert np.isfinite(outlooks[-1].at_lead).all()
    assert outlooks[-1].at_lead[2, 0] < 5.0


def test_a_jump_of_a_thousand_stays_bounded():
    values = np.full((300, 1), 10.0)
    values[250] = 10_000.0
    params = series_params()
    _, outlooks = run(params, values)
    assert all(np.isfinite(o.at_lead).all() for o in outlooks)
    assert outlooks[-1].at_lead[2, 0] < 100.0


def test_restart_changes_nothing():
    rng = np.random.default_rng(3)
    values = rng.gamma(5.0, 40.0, (120, 4))
    params = series_params(4)
    _, straight = run(params, values)
    state, _ = run(params, values[:60])
    restored = SeriesState.restore(state.dump())
    _, resumed = run(params, values[60:], start_s=600.0, state=restored)
    for a, b in zip(straight[60:], resumed, strict=True):
        np.testing.assert_array_equal(a.at_lead, b.at_lead)
        np.testing.assert_array_equal(a.peak, b.peak)


def test_a_dump_of_another_version_is_refused():
    params = series_params()
    with pytest.raises(ValueError, match="version 99"):
        SeriesState.restore(SeriesState.empty(params).dump() | {"version": 99})


def test_series_are_independent_to_the_bit():
    rng = np.random.default_rng(4)
    values = rng.gamma(5.0, 40.0, (300, 40))
    values[rng.random(values.shape) < 0.1] *= 20.0
    _, crowd = run(series_params(40), values)
    _, few = run(series_params(5), values[:, :5])
    _, alone = run(series_params(1), values[:, 2:3])
    for many, some, one in zip(crowd, few, alone, strict=True):
        for name in ("at_lead", "peak"):
            np.testing.assert_array_equal(getattr(many, name)[:, :5], getattr(some, name))
            np.testing.assert_array_equal(getattr(many, name)[:, 2:3], getattr(one, name))


def test_the_future_does_not_reach_back():
    rng = np.random.default_rng(5)
    values = rng.gamma(5.0, 40.0, (80, 1))
    poisoned = values.copy()
    poisoned[60:] = 1e9
    _, one = run(series_params(1), values)
    _, two = run(series_params(1), poisoned)
    for a, b in zip(one[:60], two[:60], strict=True):
        np.testing.assert_array_equal(a.at_lead, b.at_lead)


def test_state_fits_its_budget_per_series():
    state = SeriesState.empty(series_params(1, lead=6, keep=12))
    size = sum(getattr(state, name).nbytes for name in ("last", "ring", "errors", "evidence"))
    assert size <= 80_000
