"""The fold: which readings count as data, and what a silent VM means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core import demand
from autoscaler.core.demand import CLOCK_SKEW_S, Folds, fold
from autoscaler.core.types import Freshness, Readings, Signal
from tests.core.builders import fold_params

NOW_S = 10_000.0


def readings(
    values: list[float], *, age_s: object = 5.0, capacity: float = 100.0, lane: object = 0
) -> Readings:
    count = len(values)
    return Readings(
        lane=np.broadcast_to(np.asarray(lane), (count,)),
        value=np.asarray(values, np.float64),
        observed_at_s=NOW_S - np.broadcast_to(np.asarray(age_s, np.float64), (count,)),
        capacity=np.full(count, capacity),
    )


def fold_one(got: Readings, *, signal: Signal = Signal.THROUGHPUT, in_service: int = 2):
    return fold(fold_params(1, signal), got, np.array([in_service]), np.array([in_service * 100.0]), NOW_S)


def test_throughput_is_the_sum():
    assert fold_one(readings([30.0, 50.0])).demand[0] == 80.0


def test_utilisation_is_weighted_by_capacity():
    got = fold_one(readings([0.5, 0.25], capacity=200.0), signal=Signal.UTILISATION)
    assert got.demand[0] == pytest.approx(150.0)


def test_work_in_flight_counts_as_the_share_of_what_a_vm_may_have_of_it():
    """A VM that may have ten in flight and does 100/s meanwhile."""
    got = fold_one(readings([5.0, 20.0]), signal=Signal.CONCURRENCY, in_service=4)
    assert (got.demand[0], got.coverage[0]) == (500.0, 0.5)
    assert not got.censored[0]


def test_a_backlog_is_taken_as_it_is():
    got = fold_one(readings([700.0]), signal=Signal.QUEUE, in_service=4)
    assert (got.demand[0], got.coverage[0]) == (700.0, 1.0)


def test_a_total_is_taken_as_it_is_even_with_no_vm_in_service():
    got = fold_one(readings([500.0], capacity=0.0), signal=Signal.TOTAL, in_service=0)
    assert (got.demand[0], got.coverage[0], got.freshness[0]) == (500.0, 1.0, Freshness.FRESH)


def test_silent_vms_are_filled_with_the_mean_of_the_others_and_lower_coverage():
    got = fold_one(readings([30.0, 50.0]), in_service=4)
    assert (got.demand[0], got.coverage[0]) == (160.0, 0.5)


def test_more_reports_than_expected_is_full_coverage_and_no_filling():
    got = fold_one(readings([30.0, 50.0, 10.0]), in_service=2)
    assert (got.demand[0], got.coverage[0]) == (90.0, 1.0)


def test_a_measured_zero_is_zero_and_fresh():
    got = fold_one(readings([0.0, 0.0]))
    assert (got.demand[0], got.freshness[0]) == (0.0, Freshness.FRESH)


@pytest.mark.parametrize(
    ("got", "freshness"),
    [
        (readings([]), Freshness.ABSENT),
        (readings([np.nan]), Freshness.INVALID),
        (readings([np.inf]), Freshness.INVALID),
        (readings([-1.0]), Freshness.INVALID),
        (readings([5.0], age_s=-60.0), Freshness.INVALID),
        (readings([5.0], age_s=61.0), Freshness.STALE),
        (readings([5.0, np.nan], age_s=[61.0, 1.0]), Freshness.STALE),
        (readings([5.0, np.nan]), Freshness.FRESH),
        (readings([5.0], age_s=60.0), Freshness.FRESH),
        (readings([5.0], age_s=-4.0), Freshness.FRESH),
    ],
)
def test_freshness_says_why_there_is_no_demand(got: Readings, freshness: Freshness):
    folded = fold_one(got)
    assert folded.freshness[0] == freshness
    assert np.isnan(folded.demand[0]) == (freshness != Freshness.FRESH)
    assert np.isnan(folded.observed_at_s[0]) == (freshness != Freshness.FRESH)


@pytest.mark.parametrize(
    ("came_s_ago", "observed_s_ago", "freshness"),
    [
        (20.0, 40.0, Freshness.FRESH),
        (20.0, 16.0, Freshness.FRESH),
        (20.0, 14.0, Freshness.INVALID),
        (0.0, -4.0, Freshness.FRESH),
        (-50.0, -40.0, Freshness.INVALID),
    ],
)
def test_a_reading_cannot_be_observed_after_it_came_in(came_s_ago, observed_s_ago, freshness):
    got = replace(readings([5.0], age_s=observed_s_ago), received_at_s=np.array([NOW_S - came_s_ago]))
    assert fold_one(got).freshness[0] == freshness


def test_the_age_of_a_sample_is_that_of_its_oldest_fresh_reading():
    got = fold_one(readings([1.0, 2.0, 3.0], age_s=[5.0, 40.0, 500.0]))
    assert got.observed_at_s[0] == NOW_S - 40.0


def test_saturated_vms_mark_demand_as_censored_for_utilisation_only():
    assert fold_one(readings([1.0, 0.92]), signal=Signal.UTILISATION).censored[0]
    assert not fold_one(readings([1.0, 0.5]), signal=Signal.UTILISATION).censored[0]
    assert not fold_one(readings([1000.0, 1000.0])).censored[0]


def test_lanes_do_not_mix():
    got = fold(
        fold_params(2),
        readings([10.0, 20.0, 40.0], lane=[1, 0, 1]),
        np.array([1, 2]),
        np.array([100.0, 200.0]),
        NOW_S,
    )
    assert got.demand.tolist() == [20.0, 50.0]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_folds_of_one_tick_after_the_other_are_each_what_it_would_be_alone(seed):
    """Whatever stays the same, is renewed, is too old or not yet, and wherever the clock goes."""
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 4))
    params = fold_params(lanes, rng.choice(list(Signal), lanes), max_age_s=60.0)
    folds, now_s = Folds(), NOW_S
    for _ in range(5):
        count = int(rng.integers(0, 6))
        got = Readings(
            lane=rng.integers(0, lanes, count),
            value=rng.choice([0.0, 3.0, 80.0, np.nan] if rng.random() < 0.2 else [0.0, 3.0, 80.0], count),
            observed_at_s=now_s - rng.choice([0.0, 5.0, 30.0, -CLOCK_SKEW_S, -6.0, 60.0], count),
            capacity=np.full(count, 100.0),
        )
        expected = rng.integers(0, 4, lanes)
        planned = expected * 100.0
        # What nobody can change is known by being the same object; all else may have changed.
        shut = rng.random() < 0.6
        for _ in range(int(rng.integers(1, 15))):
            now_s += float(rng.choice([10.0, 10.0, 10.0, 2.5, 0.0, -20.0]))
            if rng.random() < 0.3:
                got = replace(
                    got,
                    observed_at_s=now_s - rng.choice([0.0, 5.0, 30.0, 65.0], count, p=[0.3, 0.3, 0.3, 0.1]),
                )
            if rng.random() < 0.1:
                got = replace(got, received_at_s=np.full(count, now_s) if rng.random() < 0.5 else None)
            for array in (got.lane, got.value, got.observed_at_s, got.capacity, expected, planned):
                array.flags.writeable = not shut
            if count and not shut and rng.random() < 0.3:
                got.value[0] += 1.0
            of = (params, got, expected, planned, now_s)
            said, meant = folds.fold(*of), fold(*of)
            for name in ("demand", "observed_at_s", "freshness", "coverage", "censored"):
                assert getattr(said, name).tobytes() == getattr(meant, name).tobytes(), name
            assert said.now_s == now_s


def test_a_fold_that_can_only_repeat_the_last_has_its_arrays_until_a_reading_is_too_old(monkeypatch):
    asked = []
    monkeypatch.setattr(demand, "fold", lambda *of: asked.append(of[-1]) or fold(*of))
    folds, params, got = Folds(), fold_params(1), readings([30.0, 50.0])
    of = (params, got, np.array([2]), np.array([200.0]))
    said = [folds.fold(*of, NOW_S + late_s) for late_s in (0.0, 0.0, 20.0, 54.0, 54.9995, 55.1)]
    assert [one.demand is said[0].demand for one in said] == [True] * 5 + [False]
    assert [float(one.demand[0]) for one in said[:5]] == [80.0] * 5
    assert said[5].freshness[0] == Freshness.STALE
    assert not said[2].demand.flags.writeable
    assert asked == [NOW_S, NOW_S, NOW_S + 55.1]


def test_readings_that_are_only_newer_have_the_arrays_of_the_last_but_for_their_age(monkeypatch):
    asked = []
    monkeypatch.setattr(demand, "fold", lambda *of: asked.append(of[-1]) or fold(*of))
    folds, params = Folds(), fold_params(1)
    given_s = (0.0, 0.0, 30.0, 60.0, 90.0)
    said = [
        folds.fold(
            params,
            replace(readings([30.0, 50.0]), observed_at_s=np.array([NOW_S, NOW_S - 5.0]) + at_s),
            np.array([2]),
            np.array([200.0]),
            NOW_S + at_s,
        )
        for at_s in given_s
    ]
    assert all(one.demand is said[0].demand and one.coverage is said[0].coverage for one in said)
    assert [float(one.observed_at_s[0]) for one in said] == [NOW_S - 5.0 + at_s for at_s in given_s]
    assert asked == [NOW_S, NOW_S]
