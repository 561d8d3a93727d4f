"""A decision that lasts is the one that all stages would make, to the bit, in every number, reason and memory."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import Chain, decide, decide_later
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Freshness
from tests.core.builders import DECIDED, lane_params, outlook, snapshot

TICK_S = 10.0
SEEDS = st.integers(0, 2**32 - 1)


def fixed(seen):
    """The same snapshot with arrays that nobody can change."""
    arrays = {}
    for f in fields(seen):
        value = getattr(seen, f.name)
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.flags.writeable = False
        arrays[f.name] = value
    return type(seen)(**arrays)


def loose(seen):
    """The same snapshot with arrays of its own, of which nothing can be known."""
    return replace(seen, **{f.name: getattr(seen, f.name).copy() for f in fields(seen) if _is_array(seen, f)})


def _is_array(seen, f):
    return isinstance(getattr(seen, f.name), np.ndarray)


def any_params(rng, lanes):
    def pick(*values):
        return rng.choice(values, lanes)

    start_s = 1_000_000.0 + rng.integers(0, 600, (2, lanes)) * 1.0
    return lane_params(
        lanes,
        reactive=pick(True, True, False),
        headroom=pick(0.0, 0.2),
        tolerance=pick(0.0, 0.1),
        steps=pick(True, False, False),
        step_lower=np.stack([np.full(lanes, 0.9), np.full(lanes, -np.inf)]),
        step_upper=np.stack([np.full(lanes, np.inf), np.full(lanes, 0.2)]),
        step_vms=np.stack([np.full(lanes, 1), np.full(lanes, -1)]),
        step_share=np.zeros((2, lanes)),
        schedule=pick(True, False),
        window_start_s=start_s,
        window_end_s=start_s + rng.integers(1, 400, (2, lanes)),
        window_floor=rng.integers(0, 5, (2, lanes)),
        cover=pick(True, False, False, False) if rng.random() < 0.2 else np.zeros(lanes, bool),
        uses_signal=pick(True, True, False),
        min_coverage=pick(0.0, 0.7),
        loss_hold_s=pick(60.0, np.inf),
        zero_hold_s=pick(0.0, 60.0),
        stabilisation_ticks=pick(0, 3, 30, 40),
        cooldown_out_s=pick(0.0, 40.0),
        cooldown_in_s=pick(0.0, 120.0),
        minimum=pick(0, 2),
        maximum=pick(8, 20),
        rate_out_vms=pick(2.0, np.inf),
        rate_in_vms=pick(1.0, np.inf),
        provision=pick(True, False),
        max_provisioned=pick(10, 30),
        warm_memory_ticks=pick(0, 12, 100),
        warm_spare=pick(0.0, 0.2),
    )


def any_snapshot(rng, lanes, now_s):
    """Of at most one kind of trouble, since with several there is hardly ever a lane at rest."""
    in_service = rng.integers(0, 10, lanes)
    freshness = (
        rng.choice([0, 1, 2, 3], lanes)
        if (trouble := int(rng.integers(0, 10))) == 0
        else np.zeros(lanes, int)
    )
    demand = np.where(freshness == int(Freshness.FRESH), rng.choice([0.0, 40.0, 200.0, 900.0], lanes), np.nan)
    troubles = {
        1: {"coverage": rng.choice([1.0, 0.5], lanes)},
        2: {"listed": rng.random(lanes) < 0.5},
        3: {"may_start": rng.random(lanes) < 0.5, "may_stop": rng.random(lanes) < 0.5},
        4: {"floor": rng.choice([0, 3], lanes), "ceiling": rng.choice([NO_CEILING, 5], lanes)},
        5: {"stoppable": np.maximum(in_service - 2, 0)},
        6: {"censored": rng.random(lanes) < 0.5},
        7: {"starting": rng.choice([0, 2], lanes)},
    }
    given_anyway = {"stopped": rng.choice([0, 3, 30], lanes), "provisioned": in_service + 10}
    return snapshot(
        lanes,
        **{"now_s": now_s, "demand": demand, "freshness": freshness, "in_service": in_service}
        | given_anyway
        | troubles.get(trouble, {}),
    )


def at_rest(seen, state, params):
    """The snapshot of a fleet that has done what it was told, as most are for most of the time."""
    told = decide(
        params, state.copy(), seen, None if not params.cover.any() else outlook(len(seen.demand), 100.0)
    )
    desired = told.value[-1]
    return replace(seen, in_service=desired, stoppable=desired, starting=desired * 0)


def same_to_the_bit(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_to_the_bit(one[key], other[key]) for key in one)
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_what_lasts_is_what_all_stages_say(seed):
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 4))
    params = any_params(rng, lanes)
    state, plain = LaneState.empty(params), LaneState.empty(params)
    now_s = 1_000_000.0
    forecasts = bool(params.cover.any() or rng.random() < 0.3)
    for _ in range(4):
        seen = any_snapshot(rng, lanes, now_s)
        if rng.random() < 0.8:
            seen = at_rest(seen, plain, params)
        seen = fixed(seen)
        for _ in range(int(rng.integers(1, 60))):
            # Now and then ticks are skipped, a turn is early, or the clock is set back.
            now_s += float(rng.choice([10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 3.0, 70.0, -200.0]))
            now = replace(seen, now_s=now_s, tick=int(now_s // TICK_S))
            ahead = outlook(lanes, float(rng.integers(50, 500))) if forecasts else None
            said, meant = decide(params, state, now, ahead), decide(params, plain, loose(now), ahead)
            for name in DECIDED:
                assert same_to_the_bit(getattr(said, name), getattr(meant, name)), name
        assert same_to_the_bit(state.dump(), plain.dump())


def test_a_fleet_at_rest_is_decided_on_by_what_lasts(monkeypatch):
    """Or else the test above compares nothing."""
    asked = []
    every_stage = Chain._compute
    monkeypatch.setattr(
        Chain, "_compute", lambda chain, *seen: asked.append(seen) or every_stage(chain, *seen)
    )
    params = lane_params(
        reactive=True, stabilisation_ticks=30, cooldown_in_s=60.0, minimum=2, rate_in_vms=3.0
    )
    state = LaneState.empty(params)
    seen = fixed(snapshot(demand=120.0, in_service=2))
    said = [
        decide(params, state, replace(seen, now_s=10.0 * tick, tick=tick), None) for tick in range(1000, 1100)
    ]
    assert len(asked) == 3
    assert said[50] is said[99]
    assert state.dump()["wishes"]["tick"] == state.peaks.tick == 1099


@pytest.mark.parametrize("name", ["start", "provision", "stop"])
def test_what_is_handed_out_again_cannot_be_changed(name):
    params = lane_params(reactive=True)
    state = LaneState.empty(params)
    seen = fixed(snapshot(demand=120.0, in_service=2))
    for tick in range(1000, 1004):
        said = decide(params, state, replace(seen, now_s=10.0 * tick, tick=tick), None)
    with pytest.raises(ValueError, match="read-only"):
        getattr(said, name)[0] = 7


def test_a_schedule_ends_what_lasts_at_its_edge():
    params = lane_params(
        schedule=True,
        uses_signal=False,
        window_start_s=np.array([[10_500.0]]),
        window_end_s=np.array([[10_700.0]]),
        window_floor=np.array([[4]]),
    )
    state = LaneState.empty(params)
    seen = fixed(snapshot(demand=0.0, in_service=0))
    wished = [
        int(decide(params, state, replace(seen, now_s=10.0 * tick, tick=tick), None).start[0])
        for tick in range(1040, 1080)
    ]
    assert wished == [0] * 10 + [4] * 20 + [0] * 10


def test_a_higher_wish_that_leaves_its_window_ends_what_lasts():
    params = lane_params(reactive=True, stabilisation_ticks=30)
    state = LaneState.empty(params)
    decide(params, state, snapshot(now_s=10_000.0, demand=900.0, in_service=9), None)
    seen = fixed(snapshot(demand=200.0, in_service=9))
    stops = [
        int(decide(params, state, replace(seen, now_s=10.0 * tick, tick=tick), None).stop[0])
        for tick in range(1001, 1040)
    ]
    assert stops == [0] * 29 + [7] * 10


def test_a_decision_that_failed_leaves_nothing_that_lasts(monkeypatch):
    params = lane_params(reactive=True)
    state = LaneState.empty(params)
    at_rest, hit = fixed(snapshot(demand=120.0, in_service=2)), fixed(snapshot(demand=900.0, in_service=2))
    for tick in range(1000, 1005):
        decide(params, state, replace(at_rest, now_s=10.0 * tick, tick=tick), None)

    def fails(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Chain, "_compute", fails)
    for tick in range(1005, 1009):
        with pytest.raises(RuntimeError, match="no memory"):
            decide(params, state, replace(hit, now_s=10.0 * tick, tick=tick), None)
        assert decide_later(params, state, 10.0 * tick, tick, None) is None


def test_what_another_policy_has_decided_does_not_last():
    params = lane_params(reactive=True)
    state = LaneState.empty(params)
    seen = fixed(snapshot(demand=120.0, in_service=2))
    for tick in range(1000, 1005):
        decide(params, state, replace(seen, now_s=10.0 * tick, tick=tick), None)
    assert decide_later(lane_params(reactive=True, minimum=5), state, 10_050.0, 1005, None) is None
    assert decide_later(params, LaneState.empty(params), 10_050.0, 1005, None) is None
    assert decide_later(params, state, 10_050.0, 1005, None) is not None
