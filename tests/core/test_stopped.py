"""The warm pool by the law of its own waits: counted by hand, and against what holding or not holding would have cost."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.habits import bin_of
from autoscaler.core.stopped import ALL_GROUPS, PRIOR_ENDS, PRIOR_WAITS, WAITS, Holding, WarmPool, bin_of_wait
from tests.core.builders import lane_params

TICK_S = 60.0
PER_HOUR = 60
START = 10**6 - 10**6 % PER_HOUR


def lived(desired, *, price=50.0, **changed):
    """The pool after a run in which `desired` were wanted, and VMs worth holding after each hour."""
    given = {"economic": True, "stopped_cost": 0.05, "provision_cost": 2.0, "cold_ticks": 4.0} | changed
    params = lane_params(1, tick_s=TICK_S, **given)
    pool, rule, found = WarmPool.empty(params), Holding(params, np.array([0])), []
    for tick, vms in enumerate(desired):
        got = int(rule.step(pool, START + tick, np.array([vms]), np.array([price]))[0])
        if (tick + 1) % PER_HOUR == 0:
            found.append(got)
    return pool, found


def held(desired, **changed):
    return lived(desired, **changed)[1]


def bursts(hours, every, height, base=2, length=3):
    ticks = np.arange(hours * PER_HOUR)
    return np.where(ticks % every < length, height, base)


def test_nothing_is_known_in_the_first_hour():
    assert held(bursts(1, 30, 10))[0] == -1


def test_bursts_that_come_often_are_worth_a_pool_of_their_height():
    assert held(bursts(100, 30, 20))[-1] == 20


def test_a_pool_that_does_not_pay_is_none():
    # A VM would wait for seven days at 0.5 a tick to save at most 102.
    assert held(bursts(400, 10_000, 20)[200:], stopped_cost=0.5)[-1] == 2


def test_waits_are_counted_by_their_length():
    pool, _ = lived(np.array([9, 9, 2, 2, 2, 2, 2, 9, 9] + [9] * 20))
    level, base = int(bin_of(np.array([9.0]))[0]), int(bin_of(np.array([2.0]))[0])
    waited = int(bin_of_wait(np.array([6]))[0])
    assert waited == 5  # from 2 ** 2.5 = 5.7 to 8 ticks
    assert pool.ended.sum() == level - base
    assert pool.ended[:, waited].sum() == level - base


def test_a_level_is_held_as_long_as_waiting_on_pays():
    # Twice a day two bursts, 15 minutes between them; 10 VM-ticks pay for 200 ticks of waiting.
    minute = np.arange(20 * 720 + 1) % 720
    load = np.where((minute < 5) | ((minute >= 20) & (minute < 25)), 20, 2)
    pool, found = lived(load, price=4.0)
    group = int(bin_of(np.array([20.0]))[0]) // 8
    # By hand, nothing waits in the burst at the end: the best time to give up, backwards over the bins.
    ended = pool.ended[group, :, 0]
    reached = ended[::-1].cumsum()[::-1]
    everything = pool.ended[:, :, 0].sum(axis=0)
    prior = (everything + PRIOR_ENDS) / (everything[::-1].cumsum()[::-1] + PRIOR_WAITS)
    odds = (ended + ALL_GROUPS * prior) / (reached + ALL_GROUPS)
    saved, later, gained = 2.0 + 4.0 * 4.0 * 0.5, 0.0, []
    for wait in reversed(range(WAITS)):
        length = 2.0 ** ((wait + 1) / 2) - 2.0 ** (wait / 2)
        held_until = 0.05 * length * (1.0 - 0.5 * odds[wait])
        later = odds[wait] * saved - held_until + (1.0 - odds[wait]) * max(later, 0.0)
        gained.append(later)
    gained.reverse()
    kept = np.logical_and.accumulate(np.array(gained) > 0.0)
    worth = (kept | (np.array(gained) > 2.0)).tolist()
    assert worth == pool.worth[group, :, 0].tolist()
    assert worth[int(bin_of_wait(np.array([15]))[0])]
    assert not worth[int(bin_of_wait(np.array([64]))[0])]
    # Given up over the hours, and there again before the next burst of the day, which is always as late.
    assert found[-5:] == [2, 2, 20, 20, 20]


@pytest.mark.parametrize("price", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("every", [20, 200, 2000])
def test_it_costs_little_more_than_the_better_of_always_and_never(every, price):
    load = bursts(400, every, 12, length=5)
    stopped, made, late = 0.05, 2.0, 4.0
    params = lane_params(
        1, tick_s=TICK_S, economic=True, stopped_cost=stopped, provision_cost=made, cold_ticks=late
    )
    pool, rule = WarmPool.empty(params), Holding(params, np.array([0]))
    have, cost, always, never = 2, 0.0, 0.0, 0.0
    for tick, vms in enumerate(load.tolist()):
        wanted = int(rule.step(pool, START + tick, np.array([vms]), np.array([price]))[0])
        rises = max(vms - (load[tick - 1] if tick else 2), 0)
        lacking = max(vms - have, 0)
        have = max(min(max(have, vms), max(wanted, vms)), vms)
        if tick > len(load) // 4:
            per_vm = made + price * late * 0.5
            cost += lacking * per_vm + stopped * (have - vms)
            always += stopped * (12 - vms)
            never += rises * per_vm
    assert cost <= 1.35 * min(always, never) + 20.0


def test_dearer_shortage_slower_provisioning_and_cheaper_disks_hold_no_fewer():
    load = bursts(100, 900, 20)
    usual = held(load)[-1]
    for better in (
        {"price": 5000.0},
        {"cold_ticks": 40.0},
        {"stopped_cost": 0.0001},
        {"provision_cost": 50.0},
    ):
        assert held(load, **better)[-1] >= usual
    assert held(load, stopped_cost=5.0)[-1] <= usual


def test_starts_that_fail_are_provided_for():
    load = bursts(100, 30, 20)
    every, some = held(load)[-1], held(load, start_success=0.8)[-1]
    assert some == pytest.approx(every / 0.8, abs=1)


def test_a_rare_crowd_is_remembered_for_weeks_where_shortage_is_dear():
    load = np.concatenate([np.full(60, 2), np.full(3, 40), np.full(24 * 14 * PER_HOUR, 2)])
    assert held(load, price=3000.0, stopped_cost=0.02)[-1] >= 40
    assert held(load, price=1.0, stopped_cost=0.02)[-1] == 2


def test_lanes_do_not_see_each_other():
    rng = np.random.default_rng(4)
    loads = rng.integers(0, 30, (3, 500))
    loads[1] = np.repeat(loads[1, ::50], 50)
    given = {"economic": True, "stopped_cost": 0.05, "provision_cost": 2.0, "cold_ticks": 4.0}
    params = lane_params(3, tick_s=TICK_S, **given)
    pool, rule = WarmPool.empty(params), Holding(params, np.arange(3))
    for tick in range(loads.shape[1]):
        together = rule.step(pool, START + tick, loads[:, tick], np.full(3, 9.0))
    for lane in range(3):
        alone = lived(loads[lane], price=9.0)[0]
        assert alone.wanted[0] == together[lane]
        np.testing.assert_array_equal(alone.ended[..., 0], pool.ended[..., lane])


def test_variants_with_one_past_are_held_as_each_alone_also_from_a_dump_and_once_they_part():
    rng = np.random.default_rng(3)
    kinds, times = 3, 4
    bursts = np.where(rng.random((600, kinds)) < 0.02, rng.integers(5, 60, (600, kinds)), 2)
    load, prices = bursts.repeat(times, axis=1), np.array([5.0, 50.0, 500.0]).repeat(times)
    # One variant wants something else for an hour, and one ever after.
    load[200:260, 1] += 5
    load[400:, 2] += 7
    given = {"economic": True, "stopped_cost": 0.2, "provision_cost": 2.0, "cold_ticks": 4.0}

    def run(columns):
        params = lane_params(len(columns), tick_s=TICK_S, series=np.zeros(len(columns), np.int64), **given)
        pool, rule, found = WarmPool.empty(params), Holding(params, np.arange(len(columns))), []
        for tick, vms in enumerate(load[:, columns]):
            if tick == 300:
                pool = WarmPool.restore(pool.dump())
            found.append(rule.step(pool, START + tick, vms, prices[columns]))
        return np.array(found), pool

    together, pool = run(np.arange(kinds * times))
    for column in range(kinds * times):
        alone, own = run(np.array([column]))
        np.testing.assert_array_equal(together[:, column], alone[:, 0])
        for name in ("ended", "worth", "since"):
            np.testing.assert_array_equal(getattr(pool, name)[..., column], getattr(own, name)[..., 0])


def test_the_bin_of_a_wait_is_the_same_looked_up_or_worked_out():
    ticks = np.arange(1, 2**15)
    worked_out = np.minimum(np.floor(2.0 * np.log2(ticks) + 1e-9), WAITS - 1).astype(np.int64)
    np.testing.assert_array_equal(bin_of_wait(ticks), worked_out)
    # Where one wait is longer than those that are looked up, all are worked out.
    np.testing.assert_array_equal(bin_of_wait(np.append(ticks, 2**40)), np.append(worked_out, WAITS - 1))
    assert bin_of_wait(ticks[:0]).shape == (0,)
