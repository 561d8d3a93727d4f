"""Limits shared by lanes: which lanes get VMs when there are not enough for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.allocation import BLOCK, Limit, SharedState, handed_out
from autoscaler.core.decide import decide
from autoscaler.core.objective.models import MODELS, Kind, Model, Window
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Freshness, Reason, Stage
from tests.core.builders import DECIDED, lane_params, snapshot
from tests.core.laws import joined, laws_of, whole
from tests.core.test_properties import history, lanes_of

seeds = st.integers(0, 2**32 - 1)


# ── handing out ─────────────────────────────────────────────────────────────────────────────────────────


def one_by_one(have, wanted, takes, left, table):
    """The same in words: again and again the dearest offer that fits, the first lane's where they are worth the same."""
    vms = have.tolist()
    while True:
        offers = [
            (-table[vms[lane], lane], lane)
            for lane in range(len(vms))
            if vms[lane] < wanted[lane] and takes[lane] <= left + 1e-9
        ]
        if not offers:
            return vms
        _, lane = min(offers)
        vms[lane] += 1
        left -= takes[lane]


def case(seed, *, ties):
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 6))
    have = rng.integers(0, 20, lanes)
    wanted = have + rng.integers(0, 3 * BLOCK, lanes)
    # Row k is what VM k + 1 of each is worth.
    steps = rng.integers(0, 3, (20 + 4 * BLOCK, lanes)) if ties else rng.random((20 + 4 * BLOCK, lanes))
    table = 200.0 - np.add.accumulate(steps, axis=0)
    takes = np.ones(lanes) if ties else rng.choice([0.25, 0.5, 1.0, 3.0], lanes)
    return have, wanted, takes, float(rng.integers(0, 4 * BLOCK)), table


def out(have, wanted, takes, left, table):
    lanes = np.arange(len(have))
    return handed_out(have, wanted, takes, left, lambda vms: table[np.minimum(vms, len(table)) - 1, lanes])


@settings(max_examples=150, deadline=None)
@given(seeds, st.booleans())
def test_the_dearest_offers_are_taken_one_by_one(seed, ties):
    have, wanted, takes, left, table = case(seed, ties=ties)
    got = out(have, wanted, takes, left, table)
    assert got.tolist() == one_by_one(have, wanted, takes, left, table)
    assert float(((got - have) * takes).sum()) <= left


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 40))
def test_more_of_a_limit_takes_from_nobody(seed, more):
    have, wanted, takes, left, table = case(seed, ties=True)
    assert (out(have, wanted, takes, left + more, table) >= out(have, wanted, takes, left, table)).all()


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_the_order_of_lanes_decides_nothing_but_ties(seed):
    have, wanted, takes, left, table = case(seed, ties=False)
    order = np.random.default_rng(seed).permutation(len(have))
    moved = out(have[order], wanted[order], takes[order], left, table[:, order])
    assert moved.tolist() == out(have, wanted, takes, left, table)[order].tolist()


def test_what_is_not_known_comes_last_and_is_served_from_what_is_left():
    table = np.stack([np.full(200, np.nan), np.full(200, 0.01)], axis=1)
    none, wanted = np.zeros(2, np.int64), np.array([5, 5])
    assert out(none, wanted, np.ones(2), 4.0, table).tolist() == [0, 4]
    assert out(none, wanted, np.ones(2), 7.0, table).tolist() == [2, 5]
    assert out(wanted, wanted, np.ones(2), -3.0, table).tolist() == [5, 5]


# ── the stage ───────────────────────────────────────────────────────────────────────────────────────────


def decided(params, view, state=None):
    return decide(params, LaneState.empty(params) if state is None else state, view, None)


def test_by_hand_without_objectives_vms_become_equally_busy():
    """Demand of 12 and of 6 VMs, 12 VMs together; a third lane of no group wants 40 and gets them.

    How busy VM k would be: 12/k and 6/k. With 8 and 4 VMs both are 1.5 times busy; VM 9 would be 1.33, VM 5 1.2.
    """
    params = lane_params(3, reactive=True, group=[0, 0, -1], group_vms=[12.0, 12.0, np.inf])
    d = decided(params, snapshot(3, demand=[1200.0, 600.0, 4000.0]))
    assert d.desired.tolist() == [8, 4, 40]
    assert d.start.tolist() == [8, 4, 40]
    assert d.reason[Stage.SHARED].tolist() == [Reason.SHARED_VMS, Reason.SHARED_VMS, Reason.NONE]
    first, second = d.held_back
    assert (first.lane, first.limit, first.wanted, first.rival, first.rival_vm) == (0, Limit.VMS, 12, 1, 4)
    np.testing.assert_allclose([first.worth, first.rival_worth], [12 / 9, 6 / 4])
    np.testing.assert_allclose([second.worth, second.rival_worth], [6 / 5, 12 / 8])


def test_by_hand_what_runs_stays_and_vms_that_drain_count():
    params = lane_params(2, reactive=True, group=0, group_vms=12.0)
    view = snapshot(2, demand=[100.0, 900.0], in_service=[7, 1], draining=[2, 0], stoppable=[0, 0])
    d = decided(params, view)
    # 7 and 2 count, 1 of the second lane runs: 12 - 10 are left. Nothing is stopped because of the limit.
    assert d.desired.tolist() == [7, 3]
    assert d.stop.tolist() == [0, 0]


def test_by_hand_a_budget_counts_what_vms_cost_and_a_cheaper_one_may_still_fit():
    """10 an hour: the first lane's VMs cost 4, the second's 1. Busy as they would be: 3/k and 2.9/k."""
    params = lane_params(2, reactive=True, group=0, group_money=10.0, vm_price=[4.0, 1.0])
    d = decided(params, snapshot(2, demand=[300.0, 290.0]))
    # First VM of the first lane (3.0), of the second (2.9), second of the first (1.5): 9 are spent, and 1 is left for a VM of
    # the second (1.45), where the third of the first would not fit.
    assert d.desired.tolist() == [2, 2]
    assert set(d.reason[Stage.SHARED].tolist()) == {Reason.SHARED_MONEY}


def test_by_hand_floors_of_safety_come_before_what_is_worth_more():
    params = lane_params(2, reactive=True, group=0, group_vms=10.0, minimum=[0, 4], maximum=50)
    d = decided(params, snapshot(2, demand=[2000.0, 0.0]))
    assert d.desired.tolist() == [6, 4]
    view = snapshot(2, demand=[2000.0, 0.0], floor=[0, 12])
    d = decided(params, view)
    assert d.desired.tolist() == [0, 12], "an operator's floor is given though it is above the limit"


def test_a_floor_that_cannot_be_had_yet_is_kept_free():
    params = lane_params(2, reactive=True, group=0, group_vms=10.0, minimum=[0, 4], maximum=50)
    d = decided(params, snapshot(2, demand=[2000.0, 0.0], stopped=[30, 1]))
    assert d.desired.tolist() == [6, 4]
    assert d.start.tolist() == [6, 1]


def test_a_lane_that_cannot_be_served_takes_nothing_from_the_others():
    params = lane_params(2, reactive=True, group=0, group_vms=10.0)
    d = decided(params, snapshot(2, demand=[2000.0, 500.0], stopped=[3, 30]))
    assert d.start.tolist() == [3, 5]
    assert d.reason[Stage.SUPPLY].tolist() == [Reason.WARM_POOL_EMPTY, Reason.NONE]


def test_a_blind_lane_keeps_its_last_known_value_and_starves_nobody():
    params = lane_params(2, reactive=True, group=0, group_vms=12.0, minimum=[8, 0], maximum=50)
    state = LaneState.empty(params)
    seen = snapshot(2, demand=[1200.0, 600.0], in_service=[4, 4])
    assert decided(params, seen, state).desired.tolist() == [8, 4]
    blind = replace(
        snapshot(2, demand=[np.nan, 600.0], in_service=[8, 2], now_s=1_000_010.0),
        freshness=np.array([int(Freshness.ABSENT), int(Freshness.FRESH)]),
    )
    d = decided(params, blind, state)
    # It keeps its 8, the other gets the 2 that are left, and what is told is by the demand of before.
    assert d.desired.tolist() == [8, 4]
    (held,) = d.held_back
    assert (held.lane, held.rival, held.rival_worth) == (1, 0, 1.5)


def test_starts_are_a_bucket_of_the_group_and_floors_come_first():
    params = lane_params(
        2, reactive=True, group=0, group_starts=6.0, group_period_s=60.0, minimum=[0, 2], maximum=50
    )
    state = LaneState.empty(params)
    d = decided(params, snapshot(2, demand=[1000.0, 0.0]), state)
    assert d.start.tolist() == [4, 2]
    assert d.reason[Stage.SHARED].tolist() == [Reason.SHARED_STARTS, Reason.NONE]
    d = decided(params, snapshot(2, demand=[1000.0, 0.0], in_service=[4, 2], now_s=1_000_025.0), state)
    assert d.start.tolist() == [2, 0], "25 s are two and a half tokens"
    d = decided(params, snapshot(2, demand=[1000.0, 0.0], in_service=[6, 2], now_s=1_000_030.0), state)
    assert d.start.tolist() == [1, 0]


def test_by_hand_with_objectives_vms_go_where_they_earn_most():
    """Demand of 19.8 and of 9.8 VMs for sure, at prices of shortage of 100 and of 10 times a VM, 22 VMs together."""
    params = lane_params(
        3, economic=[True, True, False], reactive=[False, False, True], vm_capacity=1.0, shortage_price=[100.0, 10.0, 1.0],
        start_cost=0.1, group=[0, 0, -1], group_vms=[22.0, 22.0, np.inf],
    )  # fmt: skip
    sure = joined([laws_of(np.full(50, vms), spread=0.02) for vms in (19.8, 9.8, 5.0)])
    state = LaneState.empty(params)
    state.trial.driver[:] = MODELS.index(Model(Kind.WORTH, 0, Window.LONG))
    d = decide(params, state, snapshot(3, demand=[19.8, 9.8, 5.0]), whole(sure))
    assert d.value[Stage.PAUSE].tolist() == [20, 10, 5]
    # The 20th VM of the first serves 0.8 of its work: 80 times its cost. Each of the second earns 10 times.
    assert d.desired.tolist() == [20, 2, 5]
    (held,) = d.held_back
    assert (held.lane, held.wanted, held.rival, held.rival_vm) == (1, 10, 0, 20)
    np.testing.assert_allclose([held.worth, held.rival_worth], [10.0, 80.0], rtol=0.02)


def test_by_hand_beside_one_with_an_objective_a_lane_without_goes_by_how_busy_its_vms_would_be():
    params = lane_params(
        2, economic=[True, False], reactive=[False, True], vm_capacity=1.0, shortage_price=[100.0, 1.0],
        start_cost=0.1, group=0, group_vms=22.0,
    )  # fmt: skip
    sure = joined([laws_of(np.full(50, vms), spread=0.02) for vms in (19.8, 12.0)])
    state = LaneState.empty(params)
    state.trial.driver[:] = MODELS.index(Model(Kind.WORTH, 0, Window.LONG))
    d = decide(params, state, snapshot(2, demand=[19.8, 12.0]), whole(sure))
    # The 20th VM of the first earns 80 times its cost; with three VMs those of the second would be 4 times busy.
    assert d.desired.tolist() == [20, 2]
    (held,) = d.held_back
    assert (held.lane, held.wanted, held.rival, held.rival_vm) == (1, 12, 0, 20)
    np.testing.assert_allclose([held.worth, held.rival_worth], [4.0, 80.0], rtol=0.02)


def test_starts_that_are_spent_stay_spent_when_fleets_come_and_go():
    params = lane_params(2, reactive=True, group=0, group_starts=6.0)
    state = LaneState.empty(params)
    assert decided(params, snapshot(2, demand=[300.0, 100.0]), state).start.tolist() == [3, 1]
    after = lane_params(3, reactive=True, group=0, group_starts=6.0)
    carried = state.carried_over(after, np.array([-1, 1, 0]))
    view = snapshot(3, demand=[900.0, 100.0, 300.0], in_service=[0, 1, 3])
    assert decided(after, view, carried).start.tolist() == [2, 0, 0]
    assert decided(params, snapshot(2, demand=[900.0, 100.0], in_service=[3, 1]), state).start.tolist() == [
        2,
        0,
    ]


# ── properties of decisions ─────────────────────────────────────────────────────────────────────────────


def grouped(seed, lanes=8, ticks=10):
    params, steps = history(seed, lanes, ticks)
    rng = np.random.default_rng(seed + 1)
    group = rng.integers(-1, 2, lanes)
    limits = {
        "group_vms": rng.choice([np.inf, 20.0, 60.0, 200.0], 2),
        "group_money": rng.choice([np.inf, 5.0, 40.0], 2),
        "group_starts": rng.choice([np.inf, 3.0, 12.0], 2),
    }
    mine = {name: np.where(group >= 0, of[group], np.inf) for name, of in limits.items()}
    free = replace(params, vm_price=rng.choice([0.1, 0.5, 1.0], lanes))
    return free, replace(free, group=group, **mine), steps


def floors(params, view):
    most = np.where(view.ceiling < NO_CEILING, view.ceiling, params.maximum)
    return np.minimum(np.maximum(params.minimum, view.floor), np.maximum(most, view.floor))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_limits_hold_and_nothing_that_runs_is_taken_away(seed):
    _, params, steps = grouped(seed)
    state = LaneState.empty(params)
    began_s, started = steps[0][0].now_s, np.zeros(2)
    for view, seen in steps:
        d = decide(params, state, view, seen)
        ordered = view.in_service + view.starting
        after = ordered + d.start + d.provision
        before, given_ = d.value[Stage.PAUSE], d.value[Stage.SHARED]
        assert (given_ <= before).all()
        assert (given_ >= np.minimum(before, ordered)).all()
        for number in range(2):
            mine = params.group == number
            if not mine.any():
                continue
            safe = np.maximum(ordered, floors(params, view))[mine] + view.draining[mine]
            price = params.vm_price[mine]
            held = after[mine] + view.draining[mine]
            assert held.sum() <= max(params.group_vms[mine][0], safe.sum())
            assert (held * price).sum() <= max(params.group_money[mine][0], (safe * price).sum()) + 1e-6
            started[number] += (after - ordered)[mine].sum()
            full = params.group_starts[mine][0]
            assert started[number] <= full * (1.0 + (view.now_s - began_s) / 60.0) + 1e-9


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_lanes_of_no_group_are_decided_to_the_bit_as_if_there_were_none(seed):
    free, params, steps = grouped(seed)
    outside = np.flatnonzero(params.group < 0)
    with_groups, without = LaneState.empty(params), LaneState.empty(free)
    for view, seen in steps:
        one, other = decide(params, with_groups, view, seen), decide(free, without, view, seen)
        for name in DECIDED:
            np.testing.assert_array_equal(
                getattr(one, name)[..., outside], getattr(other, name)[..., outside], err_msg=name
            )


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_group_is_the_same_alone_beside_others_and_after_a_restart(seed):
    _, params, steps = grouped(seed)
    mine = np.flatnonzero(params.group == 0)
    if not len(mine):
        return
    alone = replace(lanes_of(params, mine), series=np.arange(len(mine)))
    state, own = LaneState.empty(params), LaneState.empty(alone)
    for tick, (view, seen) in enumerate(steps):
        if tick == 5:
            state = LaneState.restore(state.dump())
        one = decide(params, state, view, seen)
        other = decide(alone, own, lanes_of(view, mine), lanes_of(seen, mine))
        for name in DECIDED:
            np.testing.assert_array_equal(getattr(one, name)[..., mine], getattr(other, name), err_msg=name)


def test_a_group_of_one_has_no_rival():
    params = lane_params(2, reactive=True, group=[0, -1], group_vms=[3.0, np.inf])
    d = decided(params, snapshot(2, demand=[500.0, 500.0]))
    assert d.desired.tolist() == [3, 5]
    (held,) = d.held_back
    assert (held.rival, held.rival_vm, held.wanted, held.worth) == (-1, 0, 5, 1.25)
    assert np.isnan(held.rival_worth)


def test_what_is_known_of_lanes_goes_with_them():
    params = lane_params(3, group=np.array([0, 0, 1]), group_starts=np.array([5.0, 5.0, 4.0]))
    state = SharedState.empty(params)
    state.demand[:], state.tokens[:], state.refilled_s = [10.0, 20.0, 30.0], [2.0, 2.0, 4.0], 1000.0
    after = lane_params(3, group=np.array([0, 0, 1]), group_starts=np.array([5.0, 5.0, 3.0]))
    moved = state.carried_over(after, np.array([1, -1, 0]))
    np.testing.assert_array_equal(moved.demand, [20.0, np.nan, 10.0])
    # Never more than the limit of now.
    assert moved.tokens.tolist() == [2.0, 5.0, 2.0]
    assert moved.refilled_s == 1000.0
    moved = state.carried_over(after, np.array([0, 1, 2]))
    assert (moved.demand.tolist(), moved.tokens.tolist()) == ([10.0, 20.0, 30.0], [2.0, 2.0, 3.0])
