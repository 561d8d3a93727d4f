"""The warm pool by the law of its own waits: counted by hand, and compared with the cost of holding and of not holding."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.warm.provisioned_target import LATER, USED, ProvisionedTarget
from autoscaler.core.warm.returns import HITS, rung_of, waits_by_ticks
from autoscaler.core.warm.waits import WarmPool
from tests.core.builders import lane_params

TICK_S = 60.0
PER_HOUR = 60
START = 10**6 - 10**6 % PER_HOUR


def lived(desired, *, price=50.0, each=PER_HOUR, **changed):
    """The pool after a run in which `desired` were wanted, and VMs worth holding after each hour, or after each so many ticks."""
    given = {"economic": True, "stopped_cost": 0.05, "provision_cost": 2.0, "cold_ticks": 4.0} | changed
    params = lane_params(1, tick_s=TICK_S, **given)
    pool, rule, found = WarmPool.empty(params), ProvisionedTarget(params, np.array([0])), []
    for tick, vms in enumerate(desired):
        got = int(rule.step(pool, START + tick, np.array([vms]), np.array([price]))[0])
        if (tick + 1) % each == 0:
            found.append(got)
    pool.settle()
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


@pytest.mark.parametrize(("maximum", "vms"), [(50, 25), (22, 22), (20, 20), (18, 20)])
def test_for_what_was_never_seen_it_holds_a_quarter_more_up_to_the_maximum(maximum, vms):
    assert held(bursts(3, 30, 20), maximum=maximum)[-1] == vms


@pytest.mark.parametrize(
    "tick_s", [0.25, 1.0, 3.3, 7.0, 10.0, 45.0, 60.0, 251.0, 300.0, 1799.0, 1800.0, 3600.0]
)
def test_what_has_not_waited_for_an_hour_is_of_one_bin_in_each_hour_to_come(tick_s):
    wait_of, hour_ticks = waits_by_ticks(tick_s), 3600.0 / tick_s
    waited = np.arange(1, int(np.ceil(hour_ticks)))
    for ahead, bin_then in enumerate(LATER.ravel(), 1):
        assert (wait_of[waited + int(ahead * hour_ticks)] == bin_then).all()


def test_a_pool_that_does_not_pay_is_none():
    # A VM would wait for seven days at 0.5 a tick to save at most 102.
    assert held(bursts(400, 10_000, 20)[200:], stopped_cost=0.5)[-1] == 2


def test_what_waits_for_less_than_an_hour_is_looked_at_every_five_minutes():
    load = np.r_[bursts(24, 10, 20), np.full(3, 20), np.full(57, 2)]
    _, found = lived(load, each=1, stopped_cost=1.0, price=20.0)
    last_hour = np.array(found[-PER_HOUR:])
    (falls,) = np.flatnonzero(np.diff(last_hour) < 0) + 1
    assert falls % 5 == 0
    assert last_hour[falls - 1 : falls + 1].tolist() == [20, 2]


@pytest.mark.parametrize(("hour", "last"), [(3, 2), (9, 20)])
def test_a_short_wait_is_given_up_at_times_when_it_seldom_ended(hour, last):
    """On six days three hours had bursts every 25 minutes; one burst at another hour was the only one."""
    days = np.full((7, 24, PER_HOUR), 2)
    for minute in (0, 25, 50):
        days[:, 9:12, minute : minute + 3] = 20
    for day in range(6):
        days[day, 13 + day, :3] = 20
    load = np.r_[days.ravel()[: (6 * 24 + hour) * PER_HOUR], np.full(3, 20), np.full(56, 2)]
    assert held(load, each=1, stopped_cost=0.3, price=20.0)[-1] == last


def test_a_wait_is_expected_to_grow_in_the_hours_to_come():
    """Bursts come every three hours, so there is nothing to gain from a VM in its second hour, but in its third."""
    found = held(bursts(72, 185, 20), stopped_cost=0.1, provision_cost=100.0, price=5.0)
    assert set(found[-24:]) == {20}


def counts(pool, ticks):
    """What was counted of waits of so many ticks: how many ended, and of how many."""
    wait = waits_by_ticks(TICK_S)[ticks]
    return float(pool.ended[:, wait].sum()), float(pool.asked[:, wait].sum())


def rungs_between(low, high):
    return int(rung_of(np.array([high]))[0] - rung_of(np.array([low]))[0])


def test_a_wait_of_less_than_an_hour_is_counted_when_it_is_over():
    load = np.full(50, 2)
    load[:2], load[12:] = 9, 9  # ten minutes lie between
    pool, _ = lived(load)
    assert counts(pool, 11) == (rungs_between(2, 9), 0.0)
    assert pool.ended.sum() == rungs_between(2, 9)


def test_a_wait_that_outlasts_an_hour_is_counted_as_each_hour_begins_and_when_it_ends_in_it():
    # From minute 30 on; at the second hour after that it has waited for 91 minutes, at the next for 151, and is over soon after.
    load = np.full(4 * PER_HOUR, 2)
    load[:30], load[3 * PER_HOUR + 20 :] = 9, 9
    pool, _ = lived(load)
    rungs, decay = rungs_between(2, 9), 0.5 ** (1 / (14 * 24))
    ended, asked = counts(pool, 91)
    assert (ended, asked) == (0.0, pytest.approx(rungs * decay * 91 / 60, rel=1e-6))
    assert counts(pool, 151) == (rungs, rungs)
    # Among the shorter ones it is one that outlasted an hour.
    assert counts(pool, 59) == (0.0, pytest.approx(rungs * decay, rel=1e-6))


def test_a_wait_that_ends_before_the_second_hour_begins_counts_for_the_part_of_it_that_it_lasted():
    load = np.full(3 * PER_HOUR, 2)
    load[:30], load[30 + 89 :] = 9, 9
    pool, _ = lived(load)
    rungs, decay = rungs_between(2, 9), 0.5 ** (1 / (14 * 24))
    ended, asked = counts(pool, 90)
    assert (ended, asked) == (
        pytest.approx(rungs * decay, rel=1e-6),
        pytest.approx(rungs * decay * 0.5, rel=1e-6),
    )


@pytest.mark.parametrize("minute", [-70, 5])
@pytest.mark.parametrize("days", [0, 1, 3])
def test_a_short_wait_is_counted_among_those_at_times_wanted_on_as_many_days(days, minute):
    day = np.full(24 * PER_HOUR, 2)
    day[9 * PER_HOUR : 9 * PER_HOUR + 30] = 9
    last = np.full(10 * PER_HOUR, 2)
    last[9 * PER_HOUR + minute :] = 9
    last[9 * PER_HOUR + 20 : 9 * PER_HOUR + 32] = 2
    pool, _ = lived(np.concatenate([np.tile(day, days), last]))
    ended = pool.ended[:, waits_by_ticks(TICK_S)[13]].sum(axis=(0, 2))
    assert ended.tolist() == [rungs_between(2, 9) * (kind == days) for kind in range(HITS)]


def working_days(days):
    """Twelve VMs from 9:20 to 17:00, else two."""
    day = np.full(24 * PER_HOUR, 2)
    day[9 * PER_HOUR + 20 : 17 * PER_HOUR] = 12
    return np.tile(day, days)


def test_what_is_wanted_each_morning_is_given_up_at_night_and_made_before_it_is_wanted():
    quarters = held(working_days(12), price=20.0, each=15)[-96:]
    assert quarters[4 * 9] == 12  # at 9:15
    assert quarters[: 4 * 8] == [2] * 32
    assert quarters[4 * 19 :] == [2] * 20


def test_a_morning_that_falls_out_is_not_waited_for_at_night():
    load = np.concatenate([working_days(12), np.full(24 * PER_HOUR, 2)])
    quarters = held(load, price=20.0, each=15)[-96:]
    assert quarters[4 * 9] == 12
    # Not longer than on any day before.
    assert quarters[4 * 18 :] == [2] * 24


@pytest.mark.parametrize("price", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("every", [20, 200, 2000])
def test_it_costs_little_more_than_the_better_of_always_and_never(every, price):
    load = bursts(400, every, 12, length=5)
    stopped, made, late = 0.05, 2.0, 4.0
    params = lane_params(
        1, tick_s=TICK_S, economic=True, stopped_cost=stopped, provision_cost=made, cold_ticks=late
    )
    pool, rule = WarmPool.empty(params), ProvisionedTarget(params, np.array([0]))
    have, cost, always, never = 2, 0.0, 0.0, 0.0
    for tick, vms in enumerate(load.tolist()):
        wanted = int(rule.step(pool, START + tick, np.array([vms]), np.array([price]))[0])
        lacking, had = max(vms - have, 0), max(vms, have)
        have = max(wanted, vms)
        if tick > len(load) // 4:
            per_vm = made + price * late * USED
            cost += lacking * per_vm + max(have - had, 0) * made + stopped * (have - vms)
            always += stopped * (12 - vms)
            never += max(vms - load[tick - 1], 0) * per_vm
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
    pool, rule = WarmPool.empty(params), ProvisionedTarget(params, np.arange(3))
    for tick in range(loads.shape[1]):
        together = rule.step(pool, START + tick, loads[:, tick], np.full(3, 9.0))
    pool.settle()
    for lane in range(3):
        alone = lived(loads[lane], price=9.0)[0]
        assert alone.wanted[0] == together[lane]
        np.testing.assert_array_equal(alone.ended[..., 0], pool.ended[..., lane])


def test_what_is_counted_and_worked_out_late_is_the_same_whenever_somebody_asks():
    rng = np.random.default_rng(7)
    load = np.where(rng.random((700, 5)) < 0.05, rng.integers(5, 60, (700, 5)), rng.integers(1, 4, (700, 5)))
    given = {"economic": True, "stopped_cost": 0.05, "provision_cost": 2.0, "cold_ticks": 4.0}
    params, price = lane_params(5, tick_s=TICK_S, **given), np.full(5, 30.0)
    found = []
    for asked_each in (1, 7, 60, 10_000):
        pool, rule, wanted = WarmPool.empty(params), ProvisionedTarget(params, np.arange(5)), []
        for tick, vms in enumerate(load):
            wanted.append(rule.step(pool, START + tick, vms, price))
            if tick % asked_each == 0:
                pool.settle()
        found.append((np.array(wanted), pool.dump()))
    for wanted, dumped in found[1:]:
        np.testing.assert_array_equal(wanted, found[0][0])
        for name, value in dumped.items():
            np.testing.assert_array_equal(value, found[0][1][name], name)


def test_where_starts_fail_a_lane_holds_alone_what_it_holds_among_others():
    rng = np.random.default_rng(11)
    load = rng.integers(1, 9, (200, 2)).repeat(3, axis=0)
    given = {"economic": True, "stopped_cost": 0.5, "provision_cost": 2.0, "cold_ticks": 4.0}

    def run(lanes):
        params = lane_params(len(lanes), tick_s=TICK_S, start_success=0.8, **given)
        pool, rule = WarmPool.empty(params), ProvisionedTarget(params, np.arange(len(lanes)))
        price = np.full(len(lanes), 5.0)
        return np.array(
            [rule.step(pool, START + tick, vms, price) for tick, vms in enumerate(load[:, lanes])]
        )

    both = run([0, 1])
    for lane in (0, 1):
        np.testing.assert_array_equal(run([lane])[:, 0], both[:, lane])


def test_after_restarts_it_goes_on_as_if_there_had_been_none():
    rng = np.random.default_rng(5)
    often, height = rng.random(24) ** 3, rng.integers(5, 40, 24)
    wanted = np.where(rng.random((10, 24)) < often, height, 2).ravel().repeat(6)
    given = {"economic": True, "stopped_cost": 3.0, "provision_cost": 100.0, "cold_ticks": 0.5}
    params = lane_params(1, tick_s=600.0, **given)
    found = []
    for restarts in (False, True):
        pool, rule = WarmPool.empty(params), ProvisionedTarget(params, np.array([0]))
        for tick, vms in enumerate(wanted):
            if restarts and tick % 42 == 6:
                pool, rule = WarmPool.restore(pool.dump()), ProvisionedTarget(params, np.array([0]))
            found.append(int(rule.step(pool, START + tick, np.array([vms]), np.array([200.0]))[0]))
    assert found[: len(wanted)] == found[len(wanted) :]
    assert len(set(found)) > 10


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
        pool, rule, found = WarmPool.empty(params), ProvisionedTarget(params, np.arange(len(columns))), []
        for tick, vms in enumerate(load[:, columns]):
            if tick == 300:
                pool = WarmPool.restore(pool.dump())
            found.append(rule.step(pool, START + tick, vms, prices[columns]))
        pool.settle()
        return np.array(found), pool

    together, pool = run(np.arange(kinds * times))
    for column in range(kinds * times):
        alone, own = run(np.array([column]))
        np.testing.assert_array_equal(together[:, column], alone[:, 0])
        for name in ("ended", "asked", "odds", "lasts", "since", "hours"):
            np.testing.assert_array_equal(getattr(pool, name)[..., column], getattr(own, name)[..., 0])


def test_variants_that_were_asked_together_are_given_the_law_when_they_are_carried_over_or_dumped():
    given = {"economic": True, "stopped_cost": 0.2, "provision_cost": 2.0, "cold_ticks": 4.0}
    params = lane_params(4, tick_s=TICK_S, series=np.zeros(4, np.int64), **given)
    pool, rule = WarmPool.empty(params), ProvisionedTarget(params, np.arange(4))
    for tick, vms in enumerate(bursts(5, 30, 20)):
        rule.step(pool, START + tick, np.full(4, vms), np.full(4, 50.0))
    known = lived(bursts(5, 30, 20), stopped_cost=0.2)[0].odds
    assert pool.together is not None
    others = pool.carried_over(params, np.array([3, 2, 1, 0]))
    for odds in (others.odds, WarmPool.restore(pool.dump()).odds):
        np.testing.assert_array_equal(odds, known.repeat(4, axis=-1))
    assert known.any()


def test_variants_that_were_asked_together_part_when_one_takes_in_another_past():
    given = {"economic": True, "stopped_cost": 0.2, "provision_cost": 2.0, "cold_ticks": 4.0}
    first, other, then = bursts(5, 30, 20), bursts(5, 50, 40), bursts(5, 70, 9)

    def run(columns, *, changed):
        params = lane_params(len(columns), tick_s=TICK_S, series=np.zeros(len(columns), np.int64), **given)
        many, price = np.ones(len(columns), np.int64), np.full(len(columns), 50.0)
        pool, past = WarmPool.empty(params), WarmPool.empty(params)
        rule, others_rule = (ProvisionedTarget(params, np.arange(len(columns))) for _ in range(2))
        for tick, (vms, others) in enumerate(zip(first, other, strict=True)):
            rule.step(pool, START + tick, vms * many, price)
            others_rule.step(past, START + tick, others * many, price)
        pool.take_in(np.flatnonzero(changed), past)
        for tick, vms in enumerate(then, len(first)):
            rule.step(pool, START + tick, vms * many, price)
        return pool.dump()

    changed = np.array([False, True, False, False])
    together = run(np.arange(4), changed=changed)
    for column in range(4):
        alone = run(np.arange(1), changed=changed[[column]])
        for name in ("ended", "asked", "odds", "since", "held", "wanted", "hours"):
            np.testing.assert_array_equal(together[name][..., column], alone[name][..., 0])
