"""Learned capacity: lines through medians, saturation left out, bounded moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.learned.capacity import Capacities, CapacityParams

HOUR_S = 3600.0


def params(lanes=1, *, guess=100.0, at=1.0, saturation=0.9, within=3.0, most_per_day=0.2):
    def full(value):
        return np.full(lanes, value)

    return CapacityParams(full(guess), full(at), full(saturation), full(within), full(most_per_day))


def teach(learned, given, work_at, *, lane=0, count=4000, noise=0.05, seed=0, low=0.15, high=0.85):
    """VMs that are so busy and do `work_at(utilisation)`, with some noise."""
    rng = np.random.default_rng(seed)
    busy = rng.uniform(low, high, count)
    work = work_at(busy) * np.exp(noise * rng.standard_normal(count))
    learned.take(given, np.full(count, lane), work, busy)


def test_the_capacity_is_the_work_at_full_utilisation():
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: 140.0 * busy)
    assert learned.learned(given)[0] == pytest.approx(140.0, rel=0.03)
    assert learned.evidence()[0] == pytest.approx(4000.0, rel=0.1)
    # Half of a normal spread's middle half is 0.67 of it.
    assert learned.spread()[0] == pytest.approx(0.034, abs=0.006)


def test_what_a_vm_spends_while_idle_bends_the_ratio_and_not_the_line():
    """Busy 10 % with no work at all: the plain ratio would say 60 % of what it can do where VMs are little busy."""
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: (busy - 0.1) / 0.9 * 140.0, high=0.6)
    assert learned.learned(given)[0] == pytest.approx(140.0, rel=0.06)


def test_bad_vms_do_not_move_it():
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: 140.0 * busy)
    teach(learned, given, lambda busy: 20.0 * busy, count=1300, seed=1)
    assert learned.learned(given)[0] == pytest.approx(140.0, rel=0.06)


def test_readings_of_one_band_that_are_out_of_line_hardly_bend_it():
    """The busiest did a third less than they should, so that less was done in them than in the band below."""
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: (busy - 0.1) / 0.9 * 140.0, high=0.74)
    teach(learned, given, lambda busy: (busy - 0.1) / 0.9 * 93.0, count=600, low=0.76, high=0.84, seed=1)
    assert learned.learned(given)[0] == pytest.approx(140.0, rel=0.1)


def test_an_objective_below_full_utilisation_takes_its_share():
    learned, given = Capacities.empty(1), params(at=0.7)
    teach(learned, given, lambda busy: 140.0 * busy)
    assert learned.learned(given)[0] == pytest.approx(98.0, rel=0.03)


def test_saturated_vms_are_counted_and_not_learned_from():
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: 140.0 * busy, count=2000)
    before = learned.learned(given)[0]
    # Saturated by something else: no work gets done.
    teach(learned, given, lambda busy: 5.0 * busy, count=2000, low=0.91, high=1.0, seed=2)
    assert learned.learned(given)[0] == before
    assert learned.hidden_share()[0] == pytest.approx(0.5, abs=0.02)
    # And they count for less once others are read.
    teach(learned, given, lambda busy: 140.0 * busy, count=8000)
    assert learned.hidden_share()[0] < 2000 / 12000


def test_a_fleet_that_is_always_equally_busy_is_known_by_its_ratio():
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: 140.0 * busy, low=0.52, high=0.58)
    assert learned.learned(given)[0] == pytest.approx(140.0, rel=0.06)


def test_too_few_readings_and_impossible_ones_say_nothing():
    learned, given = Capacities.empty(2), params(2)
    teach(learned, given, lambda busy: 140.0 * busy, count=200)
    bad = np.array([np.nan, np.inf, -1.0, 0.0, 50.0, 50.0, 50.0])
    busy = np.array([0.5, 0.5, 0.5, 0.5, np.nan, -0.5, np.inf])
    learned.take(given, np.ones(7, np.int64), bad, busy)
    assert np.isnan(learned.learned(given)).all()
    assert learned.read[1] == 0.0
    assert learned.move(given, np.full(2, HOUR_S)).tolist() == [100.0, 100.0]


def test_what_is_planned_with_moves_by_a_share_a_day_and_stays_within_bounds():
    learned, given = Capacities.empty(1), params(within=1.5)
    teach(learned, given, lambda busy: 400.0 * busy)
    hour = np.array([HOUR_S])
    day = [learned.move(given, hour)[0] for _ in range(24)]
    assert day[0] == pytest.approx(100.0 * 1.2 ** (1 / 24))
    assert day[-1] == pytest.approx(120.0)
    for _ in range(24 * 10):
        last = learned.move(given, hour)[0]
    assert last == 150.0
    assert learned.move(given, np.array([-5.0]))[0] == 150.0
    # A new guess brings new bounds.
    assert learned.move(params(guess=60.0, within=1.5), hour)[0] == 90.0


def test_it_comes_down_as_it_goes_up():
    learned, given = Capacities.empty(1), params()
    teach(learned, given, lambda busy: 50.0 * busy)
    moved = [learned.move(given, np.array([86400.0]))[0] for _ in range(6)]
    assert moved[:2] == pytest.approx([100.0 / 1.2, 100.0 / 1.44])
    assert moved[-1] == pytest.approx(50.0, rel=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lanes_alone_in_company_and_moved_give_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    crowd, given = Capacities.empty(4), params(4)
    alone = [Capacities.empty(1) for _ in range(4)]
    for _ in range(5):
        count = int(rng.integers(100, 900))
        lane = rng.integers(0, 4, count)
        busy = rng.uniform(0.0, 1.1, count)
        work = rng.gamma(20.0, 6.0, count) * busy
        crowd.take(given, lane, work, busy)
        crowd.move(given, np.full(4, HOUR_S))
        for own, learned in enumerate(alone):
            mine = lane == own
            learned.take(params(), lane[mine] * 0, work[mine], busy[mine])
            learned.move(params(), np.array([HOUR_S]))
    np.testing.assert_array_equal(crowd.learned(given), [a.learned(params())[0] for a in alone])
    np.testing.assert_array_equal(crowd.planned, [a.planned[0] for a in alone])
    moved = Capacities.restore(crowd.dump()).carried_over(np.array([3, -1]))
    assert np.isnan(moved.planned[1])
    np.testing.assert_array_equal(moved.of_lane(0), crowd.of_lane(3))
    other = Capacities.empty(1)
    other.put_lane(0, crowd.of_lane(2))
    np.testing.assert_array_equal(other.of_lane(0), crowd.of_lane(2))
