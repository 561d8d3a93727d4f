"""The warm pool by expected cost: counted by hand, and against what holding or not holding would have cost."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.habits import HOURS, Habits, bin_of
from autoscaler.core.stopped import Holding, WarmPool
from tests.core.builders import lane_params

TICK_S = 60.0
PER_HOUR = 60


def held(desired, need, *, ticks=None, price=50.0, **changed):
    """VMs worth holding after each hour of a run; `desired` and `need` are of each tick."""
    given = {
        "economic": True, "stopped_cost": 0.05, "provision_cost": 2.0, "cold_ticks": 4, "refill_ticks": 40,
    } | changed  # fmt: skip
    params = lane_params(1, tick_s=TICK_S, **given)
    pool, habits = WarmPool.empty(params), Habits.empty(1, 2, TICK_S)
    rule = Holding(params, np.array([0]))
    found = []
    for tick, (vms, work) in enumerate(zip(desired, need, strict=True)):
        habits.seen[HOURS, bin_of(np.array([float(work)])), 0] += 1
        got = int(rule.step(pool, 10**6 + tick, np.array([vms]), habits, np.array([price]))[0])
        if (10**6 + tick + 1) % PER_HOUR == 0:
            found.append(got)
    return found


def bursts(hours, every, height, base=2, length=3):
    ticks = np.arange(hours * PER_HOUR)
    return np.where(ticks % every < length, height, base)


def test_nothing_is_known_in_the_first_hour():
    assert held(bursts(1, 30, 10), bursts(1, 30, 10))[0] == -1


def test_bursts_that_come_often_are_worth_a_pool_up_to_their_height():
    load = bursts(200, 30, 20)
    # Bins are 9 % wide: VM 20 stands in one that ends at 20.7.
    assert 19 <= held(load, load)[-1] <= 21


def test_a_pool_that_does_not_pay_is_none():
    load = bursts(400, 10_000, 20)
    # Six bursts in 400 hours: a VM would wait a week for each, at 0.05 a tick, to save at most 4 ticks at 50.
    assert held(load, load, stopped_cost=0.5, refill_ticks=4)[-1] == 0


def test_dearer_shortage_slower_provisioning_and_cheaper_disks_hold_no_fewer():
    load = bursts(300, 900, 20)
    usual = held(load, load)[-1]
    for better in ({"price": 5000.0}, {"cold_ticks": 40}, {"stopped_cost": 0.0001}, {"provision_cost": 50.0}):
        assert held(load, load, **better)[-1] >= usual
    assert held(load, load, stopped_cost=5.0, refill_ticks=1)[-1] <= usual


def test_starts_that_fail_are_provided_for():
    load = bursts(200, 30, 20)
    every, some = held(load, load)[-1], held(load, load, start_success=0.8)[-1]
    assert some == pytest.approx(every / 0.8, abs=1)


def test_a_rare_crowd_is_remembered_for_weeks_where_shortage_is_dear():
    load = np.concatenate([np.full(60, 2), np.full(3, 40), np.full(24 * 14 * PER_HOUR, 2)])
    # Two weeks later the fear has halved, and VMs that would wait idle for a year still pay at this price.
    assert held(load, load, price=3000.0, refill_ticks=1440, stopped_cost=0.02)[-1] >= 40
    assert held(load, load, price=1.0, refill_ticks=1440, stopped_cost=0.02)[-1] == 0
