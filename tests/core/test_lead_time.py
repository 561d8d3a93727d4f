"""Learned start times: histograms, quantiles, and the values used for planning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.learned.histograms import LogHistograms
from autoscaler.core.learned.lead_time import (
    BINS,
    ENOUGH,
    LONGEST_S,
    SHORTEST_S,
    LeadTimes,
    Span,
    StartSource,
)

WIDTH = math.log(LONGEST_S / SHORTEST_S) / BINS
STOPPED, FRESH = StartSource.STOPPED, StartSource.FRESH


def histograms(cells=1, **changes):
    return LogHistograms.empty(
        cells, **({"bins": 96, "low": 0.5, "high": 7200.0, "half_life": 1e12} | changes)
    )


def learn(times, lane, seconds, source=STOPPED):
    seconds = np.atleast_1d(np.asarray(seconds, np.float64))
    count = len(seconds)
    whole = np.full((len(Span), count), np.nan)
    whole[Span.WHOLE] = seconds
    times.take(np.full(count, lane), np.full(count, int(source)), whole)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1.0, 3000.0), min_size=1, max_size=200), st.sampled_from([0.05, 0.5, 0.9, 0.99]))
def test_a_quantile_is_that_of_the_outcomes_within_a_bin(outcomes, level):
    learned = histograms()
    learned.take(np.zeros(len(outcomes), np.int64), np.array(outcomes))
    exact = float(np.quantile(outcomes, level, method="inverted_cdf"))
    assert abs(math.log(learned.quantile(level)[0] / exact)) <= WIDTH * 1.001
    assert learned.evidence()[0] == pytest.approx(len(outcomes))


def test_within_a_bin_outcomes_are_taken_to_lie_evenly():
    learned = histograms()
    learned.take(np.zeros(10_001, np.int64), np.geomspace(10.0, 1000.0, 10_001))
    for level, exact in ((0.25, 10.0**1.5), (0.5, 100.0), (0.75, 10.0**2.5)):
        assert learned.quantile(level)[0] == pytest.approx(exact, rel=0.05 * WIDTH)


def test_what_is_no_time_is_left_out_and_what_is_beyond_counts_at_the_end():
    learned = histograms()
    learned.take(np.zeros(6, np.int64), np.array([math.nan, math.inf, 0.0, -3.0, 0.001, 1e9]))
    assert learned.evidence()[0] == 2.0
    assert (learned.quantile(0.01)[0] < 0.6, learned.quantile(1.0)[0]) == (True, pytest.approx(7200.0))


def test_an_empty_cell_says_nothing():
    learned = histograms(2)
    learned.take(np.array([1]), np.array([30.0]))
    assert np.isnan(learned.quantile(0.5)).tolist() == [True, False]


def test_older_outcomes_weigh_half_after_a_half_life_of_the_cell_itself():
    learned = histograms(2, half_life=10.0)
    both = np.array([0, 1])
    learned.take(both, np.array([100.0, 100.0]))
    learned.take(np.zeros(10, np.int64), np.full(10, 20.0))
    slow = learned.weight[learned.weight.shape[0] // 2 :]
    assert slow[:, 0].sum() == pytest.approx(0.5)
    assert slow[:, 1].sum() == 1.0


def test_a_fleet_whose_starts_became_slower_is_planned_so_after_some_hundreds():
    times = LeadTimes.empty(1)
    learn(times, 0, np.full(300, 20.0))
    assert times.planned_s(np.array([20.0]))[0] == pytest.approx(20.0, rel=WIDTH)
    learn(times, 0, np.full(60, 50.0))
    assert times.planned_s(np.array([20.0]))[0] > 45.0


def test_the_guess_holds_until_there_is_evidence_and_bounds_what_is_learned():
    times = LeadTimes.empty(4)
    learn(times, 0, np.full(int(ENOUGH) - 1, 70.0))
    learn(times, 1, np.full(int(ENOUGH) + 5, 70.0))
    learn(times, 2, np.full(50, 5000.0))
    learn(times, 3, np.full(50, 1.0))
    planned = times.planned_s(np.full(4, 40.0))
    assert planned[0] == 40.0
    assert planned[1] == pytest.approx(70.0, rel=WIDTH)
    assert planned[2:].tolist() == [120.0, 20.0]


def test_starts_from_nothing_do_not_count_for_the_warm_pool():
    times = LeadTimes.empty(1)
    learn(times, 0, np.full(100, 200.0), source=FRESH)
    learn(times, 0, np.full(100, 30.0), source=StartSource.HIBERNATED)
    assert times.planned_s(np.array([40.0]))[0] == pytest.approx(30.0, rel=WIDTH)
    assert times.quantile(0.5, Span.WHOLE, FRESH)[0] == pytest.approx(200.0, rel=WIDTH)
    assert math.isnan(times.quantile(0.5, Span.WHOLE, STOPPED)[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lanes_alone_in_company_and_moved_give_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    crowd = LeadTimes.empty(5)
    alone = [LeadTimes.empty(1) for _ in range(5)]
    for _ in range(10):
        count = int(rng.integers(1, 20))
        lane, source = rng.integers(0, 5, count), rng.integers(0, 3, count)
        seconds = rng.gamma(2.0, 20.0, (len(Span), count))
        seconds[rng.random(seconds.shape) < 0.2] = np.nan
        crowd.take(lane, source, seconds)
        for own, times in enumerate(alone):
            mine = lane == own
            times.take(lane[mine] * 0, source[mine], seconds[:, mine])
    order = np.array([3, -1, 0])
    moved = LeadTimes.restore(crowd.dump()).carried_over(order)
    for span in Span:
        for source in StartSource:
            got = crowd.quantile(0.9, span, source)
            np.testing.assert_array_equal(got, [t.quantile(0.9, span, source)[0] for t in alone])
            np.testing.assert_array_equal(moved.quantile(0.9, span, source), [got[3], np.nan, got[0]])
    kept = LeadTimes.empty(2)
    kept.put_lane(1, crowd.of_lane(3))
    np.testing.assert_array_equal(kept.of_lane(1), crowd.of_lane(3))
    assert kept.evidence(Span.WHOLE, STOPPED)[0] == 0.0
