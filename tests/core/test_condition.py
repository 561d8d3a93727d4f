"""The condition of fleets: which VMs are slow, and how many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.learned.condition import KNOWN_AFTER, Condition, VmPasts, judging


def judge(*arguments):
    """All steps at once."""
    steps = judging(*arguments)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value


class Fleet:
    """One fleet whose VMs report the given speeds, with some noise."""

    def __init__(self, vms, *, comparable=False, noise=0.05, seed=0):
        self.pasts = VmPasts.empty(vms)
        self.vms, self.comparable, self.noise = vms, comparable, noise
        self.rng = np.random.default_rng(seed)

    def reads(self, *speeds, times=2):
        """Groups of (VMs, speed), repeated; the condition and how many are slow."""
        speed = np.concatenate([np.full(count, value, np.float64) for count, value in speeds])
        assert len(speed) == self.vms
        for _ in range(times):
            noisy = speed * np.exp(self.noise * self.rng.standard_normal(self.vms))
            got = judge(
                self.pasts,
                np.zeros(self.vms, np.int64),
                noisy,
                np.isnan(noisy),
                np.array([0.5]),
                np.array([self.comparable]),
            )
        return Condition(int(got.condition[0])), int(got.slow[0])


@pytest.mark.parametrize(
    ("slow", "condition"),
    [
        (0, Condition.HEALTHY),
        (1, Condition.DEGRADED_FEW),
        (7, Condition.DEGRADED_FEW),
        (9, Condition.DEGRADED_HALF),
    ],
)
def test_slow_vms_are_found_and_counted_up_to_half_of_the_fleet(slow, condition):
    fleet = Fleet(18)
    assert fleet.reads((slow, 20.0), (18 - slow, 100.0)) == (condition, slow)
    assert fleet.pasts.slow.tolist() == [True] * slow + [False] * (18 - slow)


def test_one_slow_reading_is_none_and_recovery_takes_as_many_good_ones():
    fleet = Fleet(6)
    bad, good = ((1, 20.0), (5, 100.0)), ((6, 100.0),)
    assert fleet.reads(*bad, times=1) == (Condition.HEALTHY, 0)
    assert fleet.reads(*good, times=1) == (Condition.HEALTHY, 0)
    assert fleet.reads(*bad, times=20) == (Condition.DEGRADED_FEW, 1)
    assert fleet.reads(*good, times=2) == (Condition.DEGRADED_FEW, 1)
    assert fleet.reads(*good, times=1) == (Condition.HEALTHY, 0)


def test_all_slow_together_is_seen_only_where_speeds_can_be_compared_with_the_past():
    for comparable, expected in ((True, (Condition.DEGRADED_ALL, 8)), (False, (Condition.HEALTHY, 0))):
        fleet = Fleet(8, comparable=comparable)
        assert fleet.reads((8, 100.0), times=2 * int(KNOWN_AFTER)) == (Condition.HEALTHY, 0)
        assert fleet.reads((8, 30.0)) == expected
        # A slow stretch does not become the past that VMs are held to.
        assert fleet.reads((8, 30.0), times=50) == expected


def test_the_past_that_vms_are_held_to_follows_them():
    """Work became dearer for good: what is a third less than before is the past in the end."""
    fleet = Fleet(8, comparable=True, noise=0.0)
    fleet.reads((8, 100.0), times=500)
    fleet.reads((8, 60.0), times=300)
    assert fleet.reads((8, 35.0)) == (Condition.HEALTHY, 0)
    assert fleet.reads((8, 25.0)) == (Condition.DEGRADED_ALL, 8)


def test_demand_that_falls_makes_no_vm_slow():
    fleet = Fleet(8)
    for work in (100.0, 60.0, 30.0, 5.0, 0.5):
        assert fleet.reads((8, work)) == (Condition.HEALTHY, 0)


def test_vms_that_differ_widely_are_not_called_slow_for_it():
    """Uneven load: the spread of the others sets the bar."""
    assert Fleet(30, noise=0.3, seed=4).reads((30, 100.0), times=40)[1] == 0
    assert Fleet(30).reads(*((1, speed) for speed in np.geomspace(30.0, 300.0, 30)), times=5)[1] == 0


def test_a_silent_vm_among_reporting_ones_is_out_and_silence_of_most_says_nothing():
    fleet = Fleet(6)
    assert fleet.reads((1, np.nan), (5, 100.0)) == (Condition.DEGRADED_FEW, 1)
    fleet = Fleet(6)
    assert fleet.reads((6, 100.0)) == (Condition.HEALTHY, 0)
    assert fleet.reads((4, np.nan), (2, 100.0), times=5) == (Condition.UNKNOWN, 0)
    assert fleet.reads((6, np.nan), times=5) == (Condition.UNKNOWN, 0)


def test_a_vm_of_which_nothing_can_be_said_now_keeps_its_standing():
    fleet = Fleet(6)
    fleet.reads((1, 10.0), (5, 100.0))
    idle = np.full(6, np.nan)
    got = judge(
        fleet.pasts, np.zeros(6, np.int64), idle, np.zeros(6, bool), np.array([0.5]), np.array([False])
    )
    assert (got.condition[0], got.slow[0]) == (Condition.DEGRADED_FEW, 1)


def test_two_vms_cannot_be_compared():
    assert Fleet(2).reads((1, 1.0), (1, 100.0), times=5) == (Condition.HEALTHY, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fleets_do_not_see_each_other_nor_the_order_of_vms(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 12, 4)
    lane = np.repeat(np.arange(4), sizes)
    order = rng.permutation(len(lane))
    pasts, mixed = VmPasts.empty(len(lane)), VmPasts.empty(len(lane))
    alone = [VmPasts.empty(int(size)) for size in sizes]
    below, comparable = rng.uniform(0.3, 0.8, 4), rng.random(4) < 0.5
    for _ in range(15):
        speed = rng.gamma(2.0, 50.0, len(lane))
        speed[rng.random(len(lane)) < 0.1] = np.nan
        got = judge(pasts, lane, speed, np.isnan(speed), below, comparable)
        other = judge(mixed, lane[order], speed[order], np.isnan(speed[order]), below, comparable)
        for name in ("condition", "slow", "judged"):
            np.testing.assert_array_equal(getattr(got, name), getattr(other, name))
        np.testing.assert_array_equal(pasts.slow[order], mixed.slow)
        for own in range(4):
            mine = lane == own
            one = judge(
                alone[own],
                lane[mine] * 0,
                speed[mine],
                np.isnan(speed[mine]),
                below[own : own + 1],
                comparable[own : own + 1],
            )
            assert (one.condition[0], one.slow[0]) == (got.condition[own], got.slow[own])
    moved = pasts.carried_over(np.array([len(lane) - 1, -1]) if len(lane) else np.array([-1, -1]))
    assert moved.seen[-1] == 0.0
    if len(lane):
        assert moved.level[0] == pasts.level[-1]
