"""Confidence intervals of means: how often they hold, and that they widen for dependent values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.search.intervals import FEWEST, block_length, interval_of


def autoregressive(seed, count, memory):
    noise = np.random.default_rng(seed).normal(size=count)
    values = np.zeros(count)
    for at in range(1, count):
        values[at] = memory * values[at - 1] + noise[at]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_a_95_percent_interval_holds_the_mean_about_as_often(memory):
    held = 0
    for seed in range(80):
        found = interval_of(autoregressive(seed, 400, memory), 3600.0, seed, resamples=400)
        held += found.low <= 0.0 <= found.high
    # Too narrow by nature where blocks are a day of a few weeks; never by half.
    assert 65 <= held <= 80


@pytest.mark.parametrize(
    ("count", "level", "t"), [(16, 0.95, 2.52), (16, 0.8, 1.46), (40, 0.95, 2.21), (40, 0.8, 1.37)]
)
def test_of_independent_values_an_interval_is_about_that_of_student(count, level, t):
    """With one degree of freedom less than there are blocks: of 16 days 6.3, of 40 days 11.7."""
    widths = []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=count)
        found = interval_of(values, 86_400.0, seed, level=level, resamples=600)
        widths.append((found.high - found.low) / 2 * count**0.5)
    assert np.mean(widths) == pytest.approx(t, rel=0.07)


def test_what_depends_on_its_past_is_less_sure():
    values = autoregressive(3, 600, 0.9)
    shuffled = np.random.default_rng(0).permutation(values)
    apart = interval_of(shuffled, 86_400.0, 1)
    together = interval_of(values, 3600.0, 1)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_a_shift_is_seen_and_the_same_seed_gives_the_same_bits():
    values = autoregressive(5, 400, 0.3)
    up = interval_of(values + 5.0, 3600.0, 1)
    assert up.above_zero
    assert not up.below_zero
    down = interval_of(values - 5.0, 3600.0, 1)
    assert down.below_zero
    assert not down.above_zero
    assert up == interval_of(values + 5.0, 3600.0, 1)
    assert up != interval_of(values + 5.0, 3600.0, 2)


def test_a_wider_level_is_wider_and_a_thin_tail_is_the_furthest_resample():
    values = autoregressive(7, 200, 0.0)
    ends = [interval_of(values, 3600.0, 1, level=level) for level in (0.8, 0.95, 0.999, 0.9999999)]
    widths = [each.high - each.low for each in ends]
    assert widths == sorted(widths)
    assert widths[0] < widths[1] < widths[-1]


def test_too_few_values_have_no_interval_and_nothing_has_a_constant():
    few = interval_of(np.ones(FEWEST - 1), 3600.0, 1)
    assert few.mean == 1.0
    assert np.isnan(few.low)
    assert np.isnan(few.high)
    assert not few.below_zero
    assert not few.above_zero
    none = interval_of(np.zeros(0), 3600.0, 1)
    assert np.isnan(none.mean)
    assert none.count == 0
    flat = interval_of(np.zeros(50), 3600.0, 1)
    assert (flat.low, flat.high) == (0.0, 0.0)
    assert not flat.below_zero


@settings(max_examples=25, deadline=None)
@given(st.integers(16, 200), st.integers(0, 2**31), st.floats(-1e3, 1e3), st.floats(0.01, 100.0))
def test_an_interval_moves_and_scales_with_its_values(count, seed, shift, scale):
    values = np.random.default_rng(seed).normal(size=count)
    plain = interval_of(values, 3600.0, 1, resamples=100)
    moved = interval_of(scale * values + shift, 3600.0, 1, resamples=100)
    assert moved.low == pytest.approx(scale * plain.low + shift, abs=1e-6 * (1 + abs(shift) + scale))
    assert moved.high == pytest.approx(scale * plain.high + shift, abs=1e-6 * (1 + abs(shift) + scale))
    assert plain.low <= plain.mean <= plain.high


def test_blocks_are_a_day_where_the_series_allows_it():
    assert block_length(24 * 60, 3600.0) == 24.0
    assert block_length(50, 3600.0) == 10.0
    assert block_length(1000, 86_400.0) == pytest.approx(10.0)
    assert block_length(2, 3600.0) == 1.0
