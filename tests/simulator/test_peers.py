"""Peers: each rule by hand, and what holds for all of them."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Snapshot
from autoscaler.simulator.peers.alarms import Points, StepScaling, TargetTracking
from autoscaler.simulator.peers.classic import Adapt, Hist, React
from autoscaler.simulator.peers.holding import DelayedOff, Google, StaticPeak, break_even_s
from autoscaler.simulator.peers.knative import Knative
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.peers.lazy import LazyCapacity
from autoscaler.simulator.peers.peer import Peer, window_ticks
from autoscaler.simulator.peers.periodic import PeriodicQuantile, PredictiveScaling, SameTimeBefore
from autoscaler.simulator.peers.regression import ConPaaS, Reg
from tests.core.builders import lane_params, outlook
from tests.simulator.peering import BEGIN_S, Fleet, decisions, lanes_of, played, random_run, steps

MAKERS: dict[str, Callable[[LaneParams], Peer]] = {
    "static peak": lambda p: StaticPeak(p, 4),
    "target tracking": TargetTracking,
    "step scaling": StepScaling,
    "kubernetes": Kubernetes,
    "google": Google,
    "delayed off": lambda p: DelayedOff(p, break_even_s=45.0),
    "kubernetes outside": lambda p: Kubernetes(p, external=True),
    "knative": Knative,
    "predictive scaling": PredictiveScaling,
    "lazy capacity": lambda p: LazyCapacity(p, shortage_price=20.0, start_ticks=2.0),
    "react": React,
    "adapt": Adapt,
    "hist": Hist,
    "reg": Reg,
    "conpaas": ConPaaS,
    "periodic quantile": lambda p: PeriodicQuantile(p, level=0.9, ahead_s=30.0),
    "yesterday": lambda p: SameTimeBefore(p, period_s=20 * p.tick_s, ahead_s=30.0),
}
every_peer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


# ---- static peak ---------------------------------------------------------------------------------------------


def test_static_peak_never_moves() -> None:
    assert played(lambda p: StaticPeak(p, 4), 0.0, 9.0, float("nan"), begin=4) == [4, 4, 4]


# ---- target tracking ------------------------------------------------------------------------------------------


def half(make: type[TargetTracking | StepScaling]) -> Callable[[LaneParams], Peer]:
    return lambda p: make(p, utilisation=0.5)


def test_target_tracking_goes_out_after_three_minutes_in_proportion() -> None:
    # 2 VMs at 1.5 VMs of demand: 75 % where 50 % is wanted, so 3 are needed.
    assert played(half(TargetTracking), *steps((1.5, 5)), begin=2) == [2, 2, 3, 3, 3]


def test_target_tracking_forgets_a_peak_of_two_minutes() -> None:
    wanted = played(half(TargetTracking), *steps((1.5, 2), (0.9, 1), (1.5, 2), (0.9, 2)), begin=2)
    assert wanted == [2] * 7


def test_target_tracking_goes_in_after_fifteen_minutes_below_ninety_percent() -> None:
    # 4 VMs at 0.8: 20 %, below 45 %; ceil(4 * 0.2 / 0.5) = 2.
    wanted = played(half(TargetTracking), *steps((0.8, 16)), begin=4)
    assert wanted == [4] * 14 + [2, 2]
    # 46 % is within the band, and 15 minutes in a row are needed.
    assert played(half(TargetTracking), *steps((1.84, 40)), begin=4) == [4] * 40
    assert played(half(TargetTracking), *steps((0.8, 14), (1.9, 1), (0.8, 14)), begin=4) == [4] * 29


def test_target_tracking_does_not_add_twice_while_vms_start_and_waits_with_scale_in() -> None:
    # Lead time of 4 minutes: the alarm holds on, but what is ordered covers it.
    wanted = played(half(TargetTracking), *steps((2.0, 8)), begin=2, lead=4)
    assert wanted == [2, 2, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("tick_s", "out_after", "in_after"),
    [(10.0, 18, 90), (20.0, 9, 45), (60.0, 3, 15), (90.0, 2, 10), (300.0, 1, 3)],
)
def test_target_tracking_counts_minutes_whatever_the_tick(
    tick_s: float, out_after: int, in_after: int
) -> None:
    up = played(half(TargetTracking), *steps((1.5, 20)), begin=2, tick_s=tick_s)
    assert up.index(3) + 1 == out_after
    down = played(half(TargetTracking), *steps((0.8, 100)), begin=4, tick_s=tick_s)
    assert down.index(2) + 1 == in_after


def test_a_point_is_the_mean_of_its_minute() -> None:
    # 10 s ticks: each minute's mean is 60 %, although half of its ticks are at 20 %.
    demand = list(itertools.islice(itertools.cycle([0.4, 0.4, 0.4, 2.0, 2.0, 2.0]), 18))
    assert played(half(TargetTracking), *demand, begin=2, tick_s=10.0)[-1] == 3
    points = Points(lane_params(2, tick_s=20.0))
    assert points.add(BEGIN_S + 20, np.array([1.0, np.nan])) is None
    assert points.add(BEGIN_S + 40, np.array([np.nan, np.nan])) is None
    mean = points.add(BEGIN_S + 60, np.array([2.0, np.nan]))
    assert mean is not None
    np.testing.assert_array_equal(mean, [1.5, np.nan])


# ---- step scaling -----------------------------------------------------------------------------------------------


def test_step_scaling_takes_the_step_of_the_breach_and_rounds_towards_zero() -> None:
    # 10 VMs at 66 % (>= 60 %): 10 % more. At 75 %: 30 % more.
    assert played(half(StepScaling), *steps((6.6, 2)), begin=10) == [10, 11]
    assert played(half(StepScaling), *steps((7.5, 2)), begin=10) == [10, 13]
    # 30 % of 13 is 3.9, rounded to 3; 10 % of 4 is 0.4, which is one VM.
    assert played(half(StepScaling), *steps((9.2, 2)), begin=13) == [13, 16]
    assert played(half(StepScaling), *steps((2.5, 2)), begin=4) == [4, 5]


def test_step_scaling_adds_the_difference_of_a_higher_step_while_vms_warm_up() -> None:
    # 10 % of 10, then 30 % of the same 10 VMs that are warm: 13, not 11 plus 30 %.
    wanted = played(half(StepScaling), *steps((6.6, 3), (9.9, 3)), begin=10)
    assert wanted == [10, 11, 11, 13, 13, 13]


def test_step_scaling_steps_in_after_two_points_and_pauses() -> None:
    # 10 VMs at 35 %: one fewer, then nothing for 300 s, then again.
    wanted = played(half(StepScaling), *steps((3.5, 8)), begin=10)
    assert wanted == [10, 9, 9, 9, 9, 9, 8, 8]
    assert played(half(StepScaling), *steps((2.5, 2)), begin=10) == [10, 7]
    # Between 40 % and 60 % nothing moves.
    assert played(half(StepScaling), *steps((4.2, 5), (5.8, 5)), begin=10) == [10] * 10


# ---- kubernetes ----------------------------------------------------------------------------------------------------


def hpa(params: LaneParams) -> Peer:
    return Kubernetes(params, utilisation=0.5)


def test_kubernetes_moves_beyond_its_tolerance_of_ten_percent() -> None:
    # 10 VMs: at 5.4 VMs of demand 54 % over 50 % is 1.08, held; at 5.6 it is 1.12: ceil(11.2) = 12.
    assert played(hpa, 5.4, begin=10, tick_s=15.0) == [10]
    assert played(hpa, 5.6, begin=10, tick_s=15.0) == [12]
    assert played(hpa, 4.6, begin=10, tick_s=15.0) == [10]


def test_kubernetes_grows_by_doubling_or_by_four_in_fifteen_seconds() -> None:
    # From 1 towards 16: 5 (four more), then double. VMs serve at once, one tick later.
    assert played(hpa, *steps((8.0, 3)), begin=1, tick_s=15.0) == [5, 10, 16]
    # A tick of a minute has four turns of 15 s: 1, 5, 10, 20.
    assert played(hpa, *steps((8.0, 1)), begin=1, tick_s=60.0) == [16]
    assert played(hpa, *steps((30.0, 1)), begin=1, tick_s=60.0, maximum=100) == [40]


def test_kubernetes_counts_starting_vms_as_idle() -> None:
    # 10 wanted at 4 ready and 5.0 of demand: over the ready ones 125 %, over all 10 exactly 50 %.
    wanted = played(hpa, *steps((2.0, 1), (5.0, 4)), begin=4, lead=3, tick_s=15.0)
    assert wanted == [4, 8, 10, 10, 10]


def test_kubernetes_goes_in_to_the_highest_wish_of_five_minutes() -> None:
    # 20 wishes of 15 s: the 8 of the second tick holds for 20 turns, then the wish of 2 is followed at once.
    wanted = played(hpa, *steps((2.0, 1), (4.0, 1), (1.0, 25)), begin=4, tick_s=15.0)
    assert wanted[:2] == [4, 8]
    assert wanted[2:21] == [8] * 19
    assert wanted[21:] == [2] * 6


def test_kubernetes_decides_at_fifteen_seconds_of_the_clock_with_shorter_ticks() -> None:
    # 5 s ticks: only every third one decides.
    wanted = played(hpa, *steps((8.0, 9)), begin=4, tick_s=5.0)
    assert wanted == [4, 4, 8, 8, 8, 16, 16, 16, 16]


def test_kubernetes_does_not_come_from_zero() -> None:
    assert played(hpa, *steps((3.0, 4)), begin=0, tick_s=15.0) == [0] * 4
    assert played(hpa, *steps((3.0, 2)), begin=0, tick_s=15.0, minimum=1) == [1, 5]


# ---- google, delayed off, same time before ------------------------------------------------------------------------------


def test_google_keeps_the_peak_of_ten_minutes() -> None:
    google = lambda p: Google(p, utilisation=0.5)  # noqa: E731
    wanted = played(google, *steps((1.0, 1), (3.0, 1), (1.0, 12)), begin=2)
    assert wanted == [2, 6] + [6] * 9 + [2, 2, 2]
    assert played(google, *steps((3.0, 1), (1.0, 2)), tick_s=900.0) == [6, 2, 2]


def test_delayed_off_keeps_each_vm_until_its_idling_has_cost_a_start() -> None:
    # Break-even after 120 s: two idle ticks of a minute, each level by itself.
    rule = lambda p: DelayedOff(p, utilisation=1.0, break_even_s=120.0)  # noqa: E731
    wanted = played(rule, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0)
    assert wanted == [3, 3, 3, 2, 2, 1, 1]
    at_once = lambda p: DelayedOff(p, utilisation=1.0, break_even_s=0.0)  # noqa: E731
    assert played(at_once, 3.0, 1.0, 2.0) == [3, 1, 2]
    assert break_even_s(per_start=0.02, in_service_per_h=1.2) == pytest.approx(60.0)


def test_same_time_before_looks_as_far_ahead_as_a_start_takes() -> None:
    # Period of 6 minutes; a start serves after one minute, so the past of now and of the two ticks after is covered.
    rule = lambda p: SameTimeBefore(p, utilisation=1.0, period_s=360.0, ahead_s=60.0)  # noqa: E731
    first = [1.0, 1.0, 1.0, 5.0, 1.0, 1.0]
    wanted = played(rule, *first, *([0.0] * 6), begin=1)
    assert wanted[:6] == [1, 1, 1, 5, 1, 1]
    # The tick that saw the peak ended at index 3; seen from index 7 it is at most two ticks away.
    assert wanted[6:] == [1, 5, 5, 1, 1, 0]


def test_same_time_before_does_not_need_the_present() -> None:
    rule = lambda p: SameTimeBefore(p, utilisation=1.0, period_s=240.0, ahead_s=60.0)  # noqa: E731
    wanted = played(rule, 2.0, 2.0, 2.0, 2.0, *([float("nan")] * 3))
    assert wanted == [2] * 7


# ---- all of them -----------------------------------------------------------------------------------------------------------


@every_peer
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_bounds_supply_and_types_hold(make: Callable[[LaneParams], Peer], seed: int) -> None:
    params, demand = random_run(seed, 4, 60)
    fleet, peer = Fleet(params, np.full(4, 2), lead=2), make(params)
    for row in demand:
        before = fleet.in_service + fleet.due[0]
        decision = fleet.go(peer, row)
        assert ((params.minimum <= decision.desired) & (decision.desired <= params.maximum)).all()
        assert (fleet.in_service == before - decision.stop).all()
        assert (fleet.in_service >= 0).all()
        assert (decision.start * decision.stop == 0).all()
        assert ((decision.provision == 0) | params.provision).all()
        for name in ("wish", "desired", "start", "provision", "stop", "warm_target", "reason", "value"):
            assert getattr(decision, name).dtype == np.int64, name
        assert decision.value.shape == decision.reason.shape
        assert (decision.value[-1] == decision.desired).all()
        assert (decision.warm_target >= 0).all()


@every_peer
@given(seed=st.integers(0, 10**6), lane=st.integers(0, 4))
@settings(max_examples=8, deadline=None)
def test_a_lane_alone_decides_as_among_others(
    make: Callable[[LaneParams], Peer], seed: int, lane: int
) -> None:
    params, demand = random_run(seed, 5, 60)
    alone = lanes_of(params, lane)
    crowd = decisions(make(params), params, demand)
    single = decisions(make(alone), alone, demand[:, lane : lane + 1])
    for one, all_of_them in zip(single, crowd, strict=True):
        np.testing.assert_array_equal(one[:, 0], all_of_them[:, lane])


@every_peer
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 59))
@settings(max_examples=8, deadline=None)
def test_a_copy_and_a_pickle_go_on_as_the_peer_would(
    make: Callable[[LaneParams], Peer], seed: int, cut: int
) -> None:
    params, demand = random_run(seed, 3, 60)
    fleet, peer = Fleet(params, np.full(3, 2), lead=2), make(params)
    for row in demand[:cut]:
        fleet.go(peer, row)
    others = [
        (copy.deepcopy(fleet), copy.deepcopy(peer)),
        (copy.deepcopy(fleet), pickle.loads(pickle.dumps(peer))),
    ]
    expected = [fleet.go(peer, row).desired for row in demand[cut:]]
    for other_fleet, other in others:
        for wanted, row in zip(expected, demand[cut:], strict=True):
            np.testing.assert_array_equal(other_fleet.go(other, row).desired, wanted)


@every_peer
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 59), poison=st.sampled_from([np.nan, 0.0, 1e9]))
@settings(max_examples=8, deadline=None)
def test_the_future_changes_nothing(
    make: Callable[[LaneParams], Peer], seed: int, cut: int, poison: float
) -> None:
    params, demand = random_run(seed, 3, 60)
    poisoned = demand.copy()
    poisoned[cut:] = poison
    clean = decisions(make(params), params, demand)
    other = decisions(make(params), params, poisoned)
    np.testing.assert_array_equal(clean[:cut], other[:cut])


@every_peer
def test_without_any_data_what_is_ordered_stays(make: Callable[[LaneParams], Peer]) -> None:
    params = lane_params(1, tick_s=60.0, minimum=1, maximum=30)
    found = decisions(make(params), params, np.full((30, 1), np.nan), begin=4)
    assert [int(row[0, 0]) for row in found] == [4] * 30


@every_peer
def test_what_an_operator_paused_or_overrode_is_kept(make: Callable[[LaneParams], Peer]) -> None:
    params = lane_params(1, tick_s=60.0, minimum=1, maximum=30)
    fleet, peer = Fleet(params, np.array([4])), make(params)
    for row in np.full((20, 1), 900.0):
        fleet.go(peer, row)
    no = np.zeros(1, np.bool_)
    view = fleet.snapshot(np.array([900.0]))
    lowered = replace(view, ceiling=np.array([2]), may_stop=no)
    assert peer.decide(lowered, outlook(1)).stop[0] == 0
    assert peer.decide(lowered, outlook(1)).desired[0] == 2
    raised = replace(view, floor=np.array([25]), may_start=no, may_provision=no)
    decision = peer.decide(raised, outlook(1))
    assert (decision.start[0], decision.provision[0], decision.desired[0]) == (0, 0, 25)


def test_a_window_is_never_shorter_than_a_tick() -> None:
    assert [window_ticks(s, 60.0) for s in (0.0, 1.0, 60.0, 61.0, 600.0)] == [1, 1, 1, 2, 10]
    assert window_ticks(0.3, 0.1) == 3


def test_knobs_may_differ_by_lane() -> None:
    params = lane_params(2, tick_s=60.0, maximum=30)
    peer = Google(params, utilisation=np.array([0.5, 1.0]))
    decision = Fleet(params, np.array([1, 1])).go(peer, np.array([300.0, 300.0]))
    assert decision.desired.tolist() == [6, 3]


def test_outlooks_are_not_looked_at() -> None:
    params, demand = random_run(1, 3, 40)
    for make in MAKERS.values():
        fleet = Fleet(params, np.full(3, 2))
        one, other = make(params), make(params)
        for row in demand:
            view = fleet.snapshot(row)
            expected = one.decide(view, outlook(3, 1e9)).desired
            np.testing.assert_array_equal(other.decide(view, None).desired, expected)
            fleet.tick += 1


def test_counts_keep_the_type_they_come_in() -> None:
    params, demand = random_run(2, 3, 10)
    for make in MAKERS.values():
        fleet, wide, narrow = Fleet(params, np.full(3, 2)), make(params), make(params)
        for row in demand:
            view = fleet.snapshot(row)
            small = {
                f.name: getattr(view, f.name).astype(np.int32)
                for f in fields(Snapshot)
                if f.name not in ("now_s", "tick") and getattr(view, f.name).dtype == np.int64
            }
            expected, found = wide.decide(view, None), narrow.decide(replace(view, **small), None)
            for name in ("wish", "desired", "start", "provision", "stop", "warm_target"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
                assert getattr(found, name).dtype == np.int32
            fleet.tick += 1


def test_delayed_off_keeps_all_where_a_start_costs_as_much_as_a_vm_of_ages() -> None:
    rule = lambda p: DelayedOff(p, utilisation=1.0, break_even_s=3.6e13)  # noqa: E731
    assert played(rule, 3.0, 1.0, 1.0) == [3, 3, 3]
