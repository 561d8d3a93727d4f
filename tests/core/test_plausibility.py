"""A single VM that reports many times what it can do is ignored; a whole fleet that does so is not."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.demand import Folds, fold
from autoscaler.core.types import Freshness, Readings, Signal
from tests.core.builders import fold_params

NOW_S = 10_000.0
SINGLE = (Signal.THROUGHPUT, Signal.UTILISATION, Signal.CONCURRENCY)


def readings(*values, lane=0, capacity=100.0, age_s=5.0):
    count = len(values)
    return Readings(
        np.broadcast_to(np.asarray(lane), (count,)),
        np.array(values, np.float64),
        NOW_S - np.broadcast_to(np.asarray(age_s, np.float64), (count,)),
        np.broadcast_to(np.asarray(capacity, np.float64), (count,)),
    )


def folded(got, in_service, signal=Signal.THROUGHPUT, now_s=NOW_S):
    return fold(fold_params(1, signal), got, np.array([in_service]), np.array([in_service * 100.0]), now_s)


def seen(samples):
    left_out = None if samples.beyond is None else samples.beyond.tolist()
    return float(samples.demand[0]), float(samples.coverage[0]), left_out


def test_a_thousand_times_its_work_is_not_read_and_filled_in_by_the_others():
    """(80 + 60 + 70) / 3 = 70 for each of the four."""
    assert seen(folded(readings(80.0, 81_520.0, 60.0, 70.0), 4)) == (280.0, 0.75, [1])


def test_one_of_two_is_not_read_either():
    assert seen(folded(readings(81_520.0, 80.0), 2)) == (160.0, 0.5, [0])


def test_where_there_is_nobody_to_compare_with_it_is_taken_as_it_is():
    assert seen(folded(readings(81_520.0), 1)) == (81_520.0, 1.0, None)
    assert seen(folded(readings(81_520.0, 80.0, age_s=[5.0, 500.0]), 2)) == (163_040.0, 0.5, None)


def test_where_more_than_half_read_so_the_capacity_is_what_is_wrong():
    assert seen(folded(readings(5000.0, 6000.0, 50.0), 3)) == (11_050.0, 1.0, None)


@pytest.mark.parametrize(
    ("value", "fellows", "is_read"),
    [
        (1000.0, 90.0, True),  # ten times what it can do, not more
        (1001.0, 90.0, False),
        (4000.0, 420.0, True),  # not ten times what its fellows do, who are overloaded
        (4201.0, 420.0, False),
        (9999.0, 0.0, True),  # a crowd came to one VM; those that were started for it do nothing yet
        (10_001.0, 0.0, False),
        (1001.0, 1.0, False),
    ],
)
def test_its_capacity_and_its_fellows_speak_against_it(value, fellows, is_read):
    demand, _, left_out = seen(folded(readings(fellows, value, fellows), 3))
    assert left_out == (None if is_read else [1])
    assert demand == pytest.approx(2.0 * fellows + value if is_read else 3.0 * fellows)


def test_beside_one_that_is_left_out_nobody_is_held_to_less_than_otherwise():
    """Seven times what a VM can do is read as it is, alone and beside one that says twenty times."""
    assert seen(folded(readings(30.0, 700.0, 30.0, 30.0), 4))[2] is None
    assert seen(folded(readings(30.0, 700.0, 2000.0, 30.0, 30.0), 5))[2] == [2]


def test_what_its_fellows_do_is_what_half_of_them_do():
    """Twenty times what it can do, beside two that are idle and two that are not."""
    assert seen(folded(readings(0.5, 0.5, 50.0, 60.0, 2000.0), 5))[2] == [4]


def test_so_it_is_where_a_vm_does_less_than_one_a_second():
    assert seen(folded(readings(0.4, 500.0, 0.3, capacity=0.5), 3))[2] == [1]


def test_a_vm_whose_capacity_is_not_known_is_taken_as_it_is():
    assert seen(folded(readings(80.0, 500.0, 60.0, capacity=[100.0, 0.0, 100.0]), 3))[2] is None


def test_the_large_are_held_to_what_the_large_can_do():
    got = readings(80.0, 4000.0, 60.0, 81_520.0, capacity=[100.0, 1000.0, 100.0, 100.0])
    assert seen(folded(got, 4))[2] == [3]


def test_a_share_in_percent_among_shares_of_one_is_left_out():
    got = folded(readings(0.5, 50.0, 0.5), 3, Signal.UTILISATION)
    assert seen(got) == (150.0, pytest.approx(2.0 / 3.0), [1])
    assert not got.censored[0]


def test_many_in_flight_are_held_to_what_may_be():
    """A VM of these may have ten in flight."""
    assert seen(folded(readings(5.0, 5000.0, 5.0), 3, Signal.CONCURRENCY))[2] == [1]


@pytest.mark.parametrize("signal", [Signal.TOTAL, Signal.QUEUE])
def test_what_is_read_for_a_whole_fleet_is_taken_as_it_is(signal):
    assert seen(folded(readings(81_520.0), 2, signal)) == (81_520.0, 1.0, None)


@pytest.mark.parametrize("signal", SINGLE)
def test_a_lane_is_looked_at_alone(signal):
    odd, well = [0.5, 5e6, 0.5], [0.5, 0.75]
    both = readings(*odd, *well, lane=[0, 0, 0, 1, 1], age_s=[5.0, 5.0, 500.0, 5.0, 5.0])
    params = fold_params(2, signal)
    together = fold(params, both, np.array([3, 2]), np.array([300.0, 200.0]), NOW_S)
    alone = folded(readings(*odd, age_s=[5.0, 5.0, 500.0]), 3, signal)
    other = folded(readings(*well), 2, signal)
    assert together.beyond.tolist() == alone.beyond.tolist() == [1]
    assert other.beyond is None
    for name in ("demand", "coverage", "observed_at_s", "freshness", "censored"):
        apart = [getattr(alone, name)[0], getattr(other, name)[0]]
        assert getattr(together, name).tolist() == apart


def test_folds_that_repeat_look_again_when_its_fellows_are_old():
    """Fellows of the odd one stay the same and get too old; then there is nobody to compare with."""
    folds, params = Folds(), fold_params(1)
    fellow_age = float(params.max_age_s[0]) - 15.0
    got = readings(81_520.0, 80.0, 80.0, age_s=[0.0, fellow_age, fellow_age])
    for array in (got.value, got.observed_at_s):
        array.flags.writeable = False
    of = np.array([3]), np.array([300.0])
    for now_s in (NOW_S, NOW_S + 10.0, NOW_S + 20.0):
        again, anew = folds.fold(params, got, *of, now_s), fold(params, got, *of, now_s)
        assert seen(again) == seen(anew)
        assert (again.observed_at_s, again.freshness) == (anew.observed_at_s, Freshness.FRESH)
    assert anew.beyond is None
