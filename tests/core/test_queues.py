"""Demand from a backlog: arrivals inferred from its changes, and the work that reduces it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.queues import FADES_S, QueueState, demand_of_queues
from autoscaler.core.types import Freshness, Signal
from tests.core.builders import fold_params, samples

NOW_S = 1_000_000.0
DRAIN_S = 100.0


class Queue:
    """A queue that `vms` VMs of 10/s each work off, seen every ten seconds."""

    def __init__(self, backlog=0.0):
        self.params, self.state = fold_params(1, Signal.QUEUE), QueueState.empty(1)
        self.backlog, self.at_s = backlog, NOW_S

    def passes(self, arrives, vms, ticks=1):
        for _ in range(ticks):
            self.backlog = max(self.backlog + 10.0 * (arrives - 10.0 * vms), 0.0)
            demand = self.sees(self.backlog, vms)
        return demand

    def sees(self, backlog, vms, freshness=Freshness.FRESH):
        self.at_s += 10.0
        seen = replace(samples(self.at_s, backlog, freshness=int(freshness)))
        return float(demand_of_queues(self.params, self.state, seen, np.array([10.0 * vms])).demand[0])


def test_by_hand():
    queue = Queue()
    # Something waits and nothing serves: only the backlog is demand.
    assert queue.sees(200.0, 0) == 200.0 / DRAIN_S
    # 100 more in ten seconds with two VMs at work: 10 + 20 arrive, weighed in over half the drain time.
    weight = 1.0 - np.exp(-10.0 / 50.0)
    assert queue.sees(300.0, 2) == pytest.approx(weight * 30.0 + 3.0)


def test_it_settles_at_what_arrives_plus_what_works_the_backlog_off():
    queue = Queue(5000.0)
    assert queue.passes(80.0, 8, ticks=60) == pytest.approx(80.0 + 50.0, rel=0.01)


def test_an_empty_queue_lets_the_fleet_shrink_slowly_and_never_below_what_arrives_for_long():
    queue = Queue(1000.0)
    queue.passes(80.0, 8, ticks=60)
    before = queue.passes(80.0, 20, ticks=30)
    assert before > 50.0
    after = queue.passes(80.0, 20, ticks=int(FADES_S / 10))
    assert after == pytest.approx(before / 2.0, rel=0.02)
    # With too few VMs something waits again, and demand comes back to what arrives.
    back = queue.passes(80.0, 4, ticks=20)
    assert back > 80.0


def test_a_queue_that_is_empty_at_first_tells_of_nothing_that_arrives():
    assert Queue().sees(0.0, 5) == 0.0


def test_where_a_single_job_always_waits_all_vms_are_at_work():
    queue = Queue()
    queue.sees(1.0, 2)
    for _ in range(60):
        demand = queue.sees(1.0, 4)
    assert demand == pytest.approx(40.0, rel=0.01)


def test_while_nothing_waits_no_more_arrives_than_is_served():
    queue = Queue(1000.0)
    queue.passes(80.0, 8, ticks=60)
    assert queue.sees(0.0, 3) <= 30.0


def test_the_same_sample_again_and_what_is_not_fresh_change_nothing():
    queue = Queue()
    queue.sees(100.0, 1)
    first = queue.sees(200.0, 1)
    queue.at_s -= 10.0
    assert queue.sees(200.0, 1) == first
    kept = queue.state.arrives.copy()
    assert np.isnan(queue.sees(np.nan, 1, Freshness.ABSENT))
    np.testing.assert_array_equal(queue.state.arrives, kept)


def test_a_closed_loop_serves_what_arrives():
    """VMs follow demand with a lag of three ticks: the backlog of a burst is worked off and the fleet shrinks."""
    queue, vms, ordered = Queue(), 1, [1, 1, 1]
    most, history = 0.0, []
    for tick in range(600):
        arrives = 200.0 if 50 <= tick < 150 else 40.0
        demand = queue.passes(arrives, vms)
        ordered.append(max(int(np.ceil(demand / 10.0)), 1))
        vms = ordered[-4]
        most = max(most, queue.backlog)
        history.append(vms)
    assert most < 200.0 * 100.0
    assert max(history) <= 60
    assert queue.backlog / 40.0 < 3.0 * DRAIN_S
    assert 3 <= np.mean(history[-200:]) <= 6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_lanes_of_other_kinds_and_in_company_are_as_alone(seed):
    rng = np.random.default_rng(seed)
    kinds = rng.choice([int(Signal.TOTAL), int(Signal.QUEUE)], 5)
    params, state = fold_params(5, kinds), QueueState.empty(5)
    alone = [QueueState.empty(1) for _ in range(5)]
    for tick in range(12):
        got = samples(NOW_S + 10.0 * tick, np.where(rng.random(5) < 0.3, 0.0, rng.gamma(2.0, 100.0, 5)))
        capacity = rng.gamma(2.0, 20.0, 5)
        found = demand_of_queues(params, state, got, capacity)
        assert np.isfinite(found.demand).all()
        assert (found.demand >= 0.0).all()
        for own in range(5):
            one = demand_of_queues(
                fold_params(1, kinds[own : own + 1]),
                alone[own],
                samples(got.now_s, got.demand[own : own + 1]),
                capacity[own : own + 1],
            )
            assert one.demand[0] == found.demand[own]
        others = kinds == int(Signal.TOTAL)
        np.testing.assert_array_equal(found.demand[others], got.demand[others])
    moved = QueueState.restore(state.dump()).carried_over(np.array([4, -1, 0]))
    assert np.isnan(moved.backlog[1])
    np.testing.assert_array_equal(moved.backlog[[0, 2]], state.backlog[[4, 0]])
    np.testing.assert_array_equal(moved.arrives[[0, 2]], state.arrives[[4, 0]])
