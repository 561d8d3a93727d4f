"""The guard on data: what is held, for how long, and what a fleet falls back to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core import trust
from autoscaler.core.decide import decide
from autoscaler.core.state import LaneState
from autoscaler.core.trust_state import TrustState
from autoscaler.core.types import Freshness, Reason
from tests.core.builders import apply, lane_params, outlook, snapshot

NOW_S = 1_000_000.0
ABSENT = int(Freshness.ABSENT)


class Lane:
    """One lane that is told wishes tick by tick, ten seconds apart, with ten VMs in service."""

    def __init__(self, **params):
        self.params = lane_params(**{"loss_hold_s": 60.0} | params)
        self.state = LaneState.empty(self.params)
        self.at_s = NOW_S

    def tick(self, wish, *, expects=None, **fields):
        self.at_s += 10.0
        fields = {"in_service": 10, "now_s": self.at_s, "demand": 500.0} | fields
        view = snapshot(**fields)
        seen = None if expects is None else outlook(at_lead=expects)
        value, reason = apply(trust.data, self.params, self.state, view, seen, np.array([wish]))
        return int(value[0]), Reason(int(reason[0]))

    def blind(self, wish=0, **fields):
        return self.tick(wish, demand=np.nan, freshness=ABSENT, **fields)


def test_a_blind_fleet_keeps_what_it_has_and_then_falls_back_to_the_last_good_wish():
    lane = Lane()
    assert lane.tick(7) == (7, Reason.NONE)
    # Sixty seconds of holding what is ordered, then the last wish that rested on data.
    assert [lane.blind() for _ in range(6)] == [(10, Reason.DATA_ABSENT)] * 6
    assert lane.blind() == (7, Reason.DATA_FALLBACK)
    assert lane.blind() == (7, Reason.DATA_FALLBACK)
    # Data that has only just come back may be of a part: for as long as it was away, nothing is stopped.
    assert [lane.tick(2) for _ in range(8)] == [(10, Reason.DATA_RETURNED)] * 8
    assert lane.tick(2) == (2, Reason.NONE)
    # The clock of a new loss begins anew.
    assert lane.blind() == (10, Reason.DATA_ABSENT)


def test_data_is_doubted_after_its_return_for_as_long_as_it_was_away_and_at_most_five_minutes():
    lane = Lane(min_coverage=0.5)
    lane.tick(7)
    # A source that fails in every other tick does not keep its fleet from scaling in.
    lane.blind()
    assert lane.tick(2) == (2, Reason.NONE)
    lane.blind()
    lane.blind()
    assert [lane.tick(2) for _ in range(3)] == [(10, Reason.DATA_RETURNED)] * 2 + [(2, Reason.NONE)]
    lane.blind()
    lane.blind()
    assert [lane.tick(12), lane.tick(2, coverage=0.1)] == [(12, Reason.NONE), (10, Reason.LOW_COVERAGE)]
    assert lane.tick(2) == (2, Reason.NONE)
    for _ in range(40):
        lane.blind()
    assert [lane.tick(2) for _ in range(30)] == [(10, Reason.DATA_RETURNED)] * 30
    assert lane.tick(2) == (2, Reason.NONE)


def test_a_higher_wish_of_data_that_has_only_just_come_back_is_what_a_fleet_falls_back_to():
    lane = Lane(loss_hold_s=0.0)
    lane.tick(7)
    lane.blind()
    lane.blind()
    assert lane.tick(12) == (12, Reason.NONE)
    assert lane.blind() == (12, Reason.DATA_FALLBACK)
    assert lane.blind() == (12, Reason.DATA_FALLBACK)
    assert lane.tick(3) == (10, Reason.DATA_RETURNED)
    assert lane.blind() == (12, Reason.DATA_FALLBACK)


def test_a_higher_wish_of_data_that_is_back_for_too_few_vms_is_not():
    lane = Lane(loss_hold_s=0.0, min_coverage=0.7)
    lane.tick(7)
    assert [lane.blind() for _ in range(3)] == [(7, Reason.DATA_FALLBACK)] * 3
    assert lane.tick(9, coverage=0.5) == (10, Reason.LOW_COVERAGE)
    assert lane.blind() == (7, Reason.DATA_FALLBACK)


def test_a_fleet_without_any_good_data_before_does_not_wait_after_its_first():
    lane = Lane()
    lane.blind()
    assert lane.tick(7) == (7, Reason.NONE)


def test_a_state_of_before_the_return_of_data_was_noted_can_be_read():
    state = TrustState.empty(2)
    before = state.dump()
    del before["returned_s"], before["returned"]
    read = TrustState.restore(before | {"version": 1}).dump()
    assert read.keys() == state.dump().keys()
    assert read["returned_s"].tolist() == [-np.inf, -np.inf]


def test_the_fallback_is_the_largest_of_last_good_schedule_and_forecast():
    lane = Lane(cover=True)
    lane.tick(7)
    for _ in range(6):
        lane.blind()
    assert lane.blind(expects=450.0) == (7, Reason.DATA_FALLBACK)
    assert lane.blind(expects=850.0) == (9, Reason.DATA_FALLBACK)
    # What stages before propose without data is the schedule; it may also ask for more than there is.
    assert lane.blind(wish=8, expects=450.0) == (8, Reason.NONE)
    assert lane.blind(wish=12) == (12, Reason.NONE)
    assert lane.blind(expects=1350.0) == (14, Reason.DATA_FALLBACK)


def test_a_fleet_that_never_saw_data_keeps_what_it_has():
    """As after a restart in the middle of an outage, also where a forecast has been learned from the past."""
    lane = Lane(loss_hold_s=0.0, cover=True)
    assert lane.blind(expects=450.0) == (10, Reason.DATA_ABSENT)
    assert [lane.blind() for _ in range(30)] == [(10, Reason.DATA_ABSENT)] * 30


def test_nothing_falls_back_on_a_partial_listing():
    lane = Lane(loss_hold_s=0.0)
    lane.tick(7)
    assert lane.blind(listed=False) == (10, Reason.LISTING_INCOMPLETE)
    assert lane.blind() == (7, Reason.DATA_FALLBACK)


def test_a_wish_on_too_few_vms_is_not_the_last_good_one():
    lane = Lane(loss_hold_s=0.0, min_coverage=0.7)
    lane.tick(7)
    assert lane.tick(2, coverage=0.5) == (10, Reason.LOW_COVERAGE)
    assert lane.blind() == (7, Reason.DATA_FALLBACK)


def test_demand_that_vanishes_at_once_is_doubted_for_a_while():
    lane = Lane(zero_hold_s=30.0)
    lane.tick(7)
    assert [lane.tick(0, demand=0.0) for _ in range(3)] == [(10, Reason.DEMAND_VANISHED)] * 3
    assert lane.tick(0, demand=0.0) == (0, Reason.NONE)
    # Demand again, and gone again: doubted anew.
    assert lane.tick(3, demand=300.0) == (3, Reason.NONE)
    assert lane.tick(0, demand=0.0) == (10, Reason.DEMAND_VANISHED)


def test_demand_that_faded_away_is_believed():
    lane = Lane(zero_hold_s=30.0)
    for demand in (500.0, 200.0, 50.0):
        lane.tick(5, demand=demand)
    assert lane.tick(0, demand=0.0) == (0, Reason.NONE)
    # More than half a VM's work has not faded away.
    lane.tick(1, demand=60.0)
    assert lane.tick(0, demand=0.0) == (10, Reason.DEMAND_VANISHED)


@pytest.mark.parametrize(
    ("demands", "stopped"), [((500.0, 400.0, 200.0, 50.0, 0.0), 5), ((50.0, 50.0, 400.0, 0.0), 0)]
)
def test_what_counts_is_the_demand_just_before_it_vanished(demands, stopped):
    params = lane_params(reactive=True, zero_hold_s=30.0)
    state, last = LaneState.empty(params), None
    for tick, demand in enumerate(demands):
        view = snapshot(now_s=NOW_S + 10.0 * tick, demand=demand, in_service=5)
        last = decide(params, state, view, None)
    assert last.stop.tolist() == [stopped]


def test_silence_between_does_not_hide_that_demand_vanished():
    lane = Lane(zero_hold_s=30.0)
    lane.tick(7)
    lane.blind()
    assert lane.tick(0, demand=0.0) == (10, Reason.DEMAND_VANISHED)


def test_demand_that_vanishes_is_not_doubted_unless_asked_for():
    lane = Lane()
    lane.tick(7)
    assert lane.tick(0, demand=0.0) == (0, Reason.NONE)


def test_lanes_are_doubted_each_for_its_own_reason():
    """In one tick the work of one vanishes, of another too few VMs are read, a third is silent and a fourth is well."""
    params = lane_params(4, zero_hold_s=30.0, min_coverage=0.7, loss_hold_s=15.0)
    state = LaneState.empty(params)

    def tick(at_s, wish, **fields):
        view = snapshot(4, now_s=NOW_S + at_s, in_service=10, **fields)
        value, reason = apply(trust.data, params, state, view, None, np.array(wish))
        return value.tolist(), [Reason(int(why)) for why in reason]

    tick(0.0, [7, 7, 7, 7], demand=500.0)
    doubted = {
        "demand": [0.0, 500.0, np.nan, 400.0],
        "coverage": [1.0, 0.5, 0.0, 1.0],
        "freshness": [0, 0, ABSENT, 0],
    }
    reasons = [Reason.DEMAND_VANISHED, Reason.LOW_COVERAGE, Reason.DATA_ABSENT, Reason.NONE]
    assert tick(10.0, [0, 6, 0, 4], **doubted) == ([10, 10, 10, 4], reasons)
    # What was good for the fourth alone is what it falls back to.
    silent = {"demand": np.nan, "coverage": 0.0, "freshness": ABSENT}
    tick(20.0, [0] * 4, **silent)
    value, reason = tick(35.0, [0] * 4, **silent)
    assert value == [7, 7, 7, 4]
    assert reason == [Reason.DATA_FALLBACK] * 4


# ── loss never costs capacity ───────────────────────────────────────────────────────────────────────────


def run(params, demand, lost, zeroed=None):
    """VMs ordered after each tick of one lane whose starts and stops are done at once."""
    state, ordered, told = LaneState.empty(params), 5, []
    for tick, level in enumerate(demand):
        now_s = NOW_S + 10.0 * tick
        seen_level = 0.0 if zeroed is not None and zeroed[tick] else level
        view = snapshot(
            now_s=now_s,
            demand=np.nan if lost[tick] else seen_level,
            freshness=lost[tick],
            coverage=0.0 if lost[tick] else 1.0,
            in_service=ordered,
        )
        decision = decide(params, state, view, None)
        ordered = int(ordered + decision.start[0] - decision.stop[0])
        told.append(ordered)
    return told


levels = st.lists(st.integers(0, 2000), min_size=5, max_size=60)
# Mostly seen, with stretches of each way to be blind.
losses = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=60, max_size=60)
policies = st.fixed_dictionaries(
    {
        "reactive": st.just(True),
        "headroom": st.sampled_from([0.0, 0.3]),
        # A blind tick is no wish, so with a window the whole run may stabilise on a demand that the other never saw.
        "stabilisation_ticks": st.just(0),
        "minimum": st.integers(0, 4),
        "loss_hold_s": st.sampled_from([0.0, 30.0, 300.0]),
        "zero_hold_s": st.just(0.0),
    }
)


@settings(max_examples=150, deadline=None)
@given(levels, losses, policies)
def test_a_run_with_losses_is_never_below_the_run_without_while_demand_does_not_grow_unseen(
    demand, lost, policy
):
    """While nothing is seen demand may fall as it likes; what the fleet then has is never less than without loss."""
    lost = [0, *lost][: len(demand)]
    for tick in range(1, len(demand)):
        if lost[tick] or lost[tick - 1]:
            demand[tick] = min(demand[tick], demand[tick - 1])
    params = lane_params(**policy)
    whole = run(params, demand, [0] * len(demand))
    holed = run(params, demand, lost)
    assert all(one >= other for one, other in zip(holed, whole, strict=True)), (whole, holed)


@settings(max_examples=150, deadline=None)
@given(levels, losses, policies)
def test_a_blind_run_is_never_below_the_least_that_the_last_good_sample_asked_for(demand, lost, policy):
    lost = [0, *lost][: len(demand)]
    params = lane_params(**policy)
    whole = run(params, demand, [0] * len(demand))
    holed = run(params, demand, lost)
    for tick, blind in enumerate(lost):
        if blind:
            last_seen = max(at for at in range(tick) if not lost[at])
            assert holed[tick] >= min(whole[last_seen : tick + 1])


@settings(max_examples=60, deadline=None)
@given(levels, st.integers(1, 50), st.integers(1, 20))
def test_an_outage_that_looks_like_no_demand_costs_no_capacity(demand, begin, ticks):
    """All VMs report nothing for as long as it is doubted."""
    demand = [level + 100 for level in demand]
    for tick in range(begin, len(demand)):
        demand[tick] = min(demand[tick], demand[tick - 1])
    zeroed = [begin <= tick < begin + ticks for tick in range(len(demand))]
    params = lane_params(reactive=True, zero_hold_s=10.0 * ticks)
    none = [0] * len(demand)
    whole, holed = run(params, demand, none), run(params, demand, none, zeroed)
    assert all(one >= other for one, other in zip(holed, whole, strict=True))


@pytest.mark.parametrize("blind", [False, True])
def test_what_is_remembered_survives_a_dump_and_other_lanes(blind):
    params = lane_params(3, loss_hold_s=60.0, zero_hold_s=60.0)
    state = LaneState.empty(params)
    wish = np.array([3, 4, 5])
    apply(trust.data, params, state, snapshot(3, now_s=NOW_S, demand=500.0, in_service=9), None, wish)
    if blind:
        view = snapshot(3, now_s=NOW_S + 10.0, demand=np.nan, freshness=ABSENT, in_service=9)
        apply(trust.data, params, state, view, None, wish * 0)
    restored = LaneState.restore(state.dump()).trusted
    assert restored.good.tolist() == [3, 4, 5]
    moved = state.carried_over(lane_params(3), np.array([2, -1, 0])).trusted
    assert moved.good.tolist() == [5, -1, 3]
    assert moved.work.tolist() == [500.0, 0.0, 500.0]
    assert np.isnan(moved.lost_s).tolist() == [not blind, True, not blind]
    later = replace(
        snapshot(3, now_s=NOW_S + 80.0, demand=np.nan, freshness=ABSENT, in_service=9), tick=10**9
    )
    state = LaneState.restore(state.dump())
    value, _ = apply(trust.data, params, state, later, None, wish * 0)
    assert value.tolist() == ([3, 4, 5] if blind else [9, 9, 9])
