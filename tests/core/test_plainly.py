"""The compiled chain on arrays decides what the rules say in plain Python, to the bit, with every reason."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness, Reason, Snapshot, Stage
from autoscaler.core.windows import RollingMax
from tests.core.builders import DECIDED
from tests.core.plainly import Memory, decide_plainly, lane_of
from tests.core.test_properties import history, random_outlook, random_params, random_snapshot

LANES = 6

USES = {
    "everything": {},
    "plain reactive": {
        "reactive": True, "tolerance": 0.0, "steps": False, "schedule": False, "cover": False, "provision": False,
        "cooldown_out_s": 0.0, "cooldown_in_s": 0.0, "rate_out_vms": np.inf, "rate_in_vms": np.inf,
    },
    "one window for all": {"stabilisation_ticks": 5, "warm_memory_ticks": 90},
    "no window": {"stabilisation_ticks": 1, "warm_memory_ticks": 0},
    "schedule only": {"reactive": False, "steps": False, "cover": False, "schedule": True, "uses_signal": False},
    "cover for all": {"cover": True, "reactive": False, "steps": False},
    "one way only": {"rate_out_vms": np.inf, "cooldown_in_s": 0.0},
    "nothing proposes": {"reactive": False, "steps": False, "schedule": False, "cover": False},
}  # fmt: skip
"""Sets of policies from which the chain leaves out different stages, and parts of stages."""


def policies(seed, uses):
    params = random_params(np.random.default_rng(seed), LANES)
    changed = {name: np.full(LANES, value, getattr(params, name).dtype) for name, value in USES[uses].items()}
    return replace(params, **changed)


def views(seed, ticks, *, operated):
    """Ticks that come mostly one by one, now and then twice, and now and then after a gap."""
    rng = np.random.default_rng(seed)
    at = 0
    for _ in range(ticks):
        at += int(rng.choice([1, 1, 1, 1, 1, 1, 1, 0, 7, 60]))
        yield random_snapshot(rng, LANES, at, operated=operated), random_outlook(rng, LANES)


@pytest.mark.parametrize("uses", USES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), operated=st.sampled_from([0.0, 0.3]))
def test_decisions_are_what_the_rules_say(uses, seed, operated):
    params = policies(seed, uses)
    state = LaneState.empty(params)
    memories = [Memory() for _ in range(LANES)]
    for view, seen in views(seed, 40, operated=operated):
        decision = decide(params, state, view, seen)
        for lane, memory in enumerate(memories):
            told = decide_plainly(
                lane_of(params, lane),
                memory,
                lane_of(view, lane),
                seen.at_lead[:, lane].tolist(),
                seen.peak[:, lane].tolist(),
            )
            got = {name: getattr(decision, name)[..., lane].tolist() for name in DECIDED}
            assert got == told


def test_the_comparison_sees_every_stage_and_reason():
    """Random policies and ticks reach what they are meant to hold."""
    seen = set()
    for seed in range(60):
        params = policies(seed, "everything")
        state = LaneState.empty(params)
        for view, outlook in views(seed, 30, operated=0.3):
            reason = decide(params, state, view, outlook).reason
            seen |= {
                (Stage(k), Reason(code)) for k, row in enumerate(reason.tolist()) for code in row if code
            }
    economic = {reason for reason in Reason if reason.name.startswith(("WORTH", "MODEL", "SHARED", "FALL"))}
    assert {reason for _, reason in seen} == set(Reason) - {Reason.NONE} - economic
    assert {stage for stage, _ in seen} == set(Stage) - {Stage.ECONOMIC, Stage.SHARED}


def fixed(values):
    """The same with read-only arrays that own their memory."""
    kept = {}
    for f in fields(values):
        if isinstance(value := getattr(values, f.name), np.ndarray):
            kept[f.name] = value.copy()
            kept[f.name].flags.writeable = False
    return replace(values, **kept)


def same(one, other):
    for name in DECIDED:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("uses", USES)
def test_arrays_that_stay_the_same_read_only_ones_change_nothing(uses):
    params = policies(5, uses)
    kept, anew = LaneState.empty(params), LaneState.empty(params)
    often = [fixed(view) for view, _ in views(5, 4, operated=0.3)]
    shared = (
        "freshness",
        "coverage",
        "listed",
        "censored",
        "may_start",
        "may_provision",
        "may_stop",
        "floor",
        "ceiling",
    )
    for tick, (view, seen) in enumerate(views(6, 60, operated=0.0)):
        # Each set of arrays for ten ticks, then another, then the first again.
        held = {name: getattr(often[tick // 10 % 4], name) for name in shared}
        held["demand"] = np.where(held["freshness"] == Freshness.FRESH, view.demand, np.nan)
        one = replace(view, **held)
        other = replace(view, **{name: array.copy() for name, array in held.items()})
        same(decide(params, kept, one, seen), decide(params, anew, other, seen))


def test_a_writable_array_may_change_between_ticks():
    params = policies(5, "plain reactive")
    state, fresh_state = LaneState.empty(params), LaneState.empty(params)
    (view, seen), *_ = views(5, 1, operated=0.0)
    for may in (True, False, True):
        view.may_stop[:] = may
        view.floor[:] = 0 if may else 25
        view.freshness[:] = int(Freshness.FRESH if may else Freshness.STALE)
        copied = replace(
            view, may_stop=view.may_stop.copy(), floor=view.floor.copy(), freshness=view.freshness.copy()
        )
        same(decide(params, state, view, seen), decide(params, fresh_state, copied, seen))


NARROW = (
    "in_service",
    "starting",
    "draining",
    "stopping",
    "stopped",
    "provisioned",
    "stoppable",
)
OPERATED = ("floor", "ceiling")


@pytest.mark.parametrize("kind", [np.int32, np.int16])
@pytest.mark.parametrize("uses", USES)
def test_narrow_counts_give_the_same_numbers(uses, kind):
    params = policies(7, uses)
    wide, narrow = LaneState.empty(params), LaneState.empty(params)
    if kind is np.int16:
        narrow.wishes = RollingMax.empty(params.stabilisation_ticks, np.dtype(kind))
        narrow.peaks = RollingMax.empty(params.warm_memory_ticks, np.dtype(kind))
    for view, seen in views(7, 60, operated=0.3):
        slim = replace(
            view,
            **{name: getattr(view, name).astype(kind) for name in NARROW},
            **{name: getattr(view, name).astype(np.int32) for name in OPERATED},
        )
        one, other = decide(params, wide, view, seen), decide(params, narrow, slim, seen)
        same(one, other)
        for count in (other.wish, other.desired, other.start, other.provision, other.stop, other.value):
            assert count.dtype == kind


def test_demand_beyond_any_narrow_count_is_the_highest_of_them():
    params = replace(policies(7, "plain reactive"), maximum=np.full(LANES, 400), minimum=np.full(LANES, 1))
    (view, seen), *_ = views(7, 1, operated=0.0)
    view = replace(view, demand=np.full(LANES, 1e9), freshness=np.full(LANES, int(Freshness.FRESH)))
    slim = replace(view, **{name: getattr(view, name).astype(np.int16) for name in NARROW})
    one, other = (decide(params, LaneState.empty(params), each, seen) for each in (view, slim))
    assert (other.wish == 2**14 - 1).all()
    for name in ("desired", "start", "provision", "stop"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_without_an_outlook_there_is_no_forecast_and_all_else_is_the_same():
    params = policies(9, "plain reactive")
    with_one, without = LaneState.empty(params), LaneState.empty(params)
    for view, seen in views(9, 20, operated=0.3):
        one, other = decide(params, with_one, view, seen), decide(params, without, view, None)
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert np.isnan(other.forecast).all()
        assert np.isnan(other.forecast_hi).all()


def test_a_lane_that_orders_by_forecast_needs_an_outlook():
    params = policies(9, "cover for all")
    ((view, _),) = views(9, 1, operated=0.0)
    with pytest.raises(ValueError, match="needs an Outlook"):
        decide(params, LaneState.empty(params), view, None)


def test_what_is_read_later_is_what_was_decided():
    """Reasons and values stay true when many decisions have been made since."""
    params, steps = history(3, LANES, 40)
    at_once, later = LaneState.empty(params), LaneState.empty(params)
    read = []
    for view, seen in steps:
        decision = decide(params, at_once, view, seen)
        read.append({name: getattr(decision, name).copy() for name in DECIDED})
    kept = [decide(params, later, view, seen) for view, seen in steps]
    for told, decision in zip(read, kept, strict=True):
        for name, array in told.items():
            np.testing.assert_array_equal(getattr(decision, name), array, err_msg=name)


def test_new_policies_are_compiled_anew():
    params = policies(3, "everything")
    state = LaneState.empty(params)
    ((view, seen),) = views(3, 1, operated=0.0)
    assert isinstance(view, Snapshot)
    before = decide(params, state, view, seen).desired
    raised = replace(
        params, minimum=np.full(LANES, 70), maximum=np.full(LANES, 90), rate_out_vms=np.full(LANES, 1e6)
    )
    after = decide(raised, LaneState.empty(raised), view, seen).desired
    state.tokens_out[:] = 1e6
    np.testing.assert_array_equal(
        decide(raised, state, replace(view, now_s=view.now_s + 1e4, tick=view.tick + 1000), seen).desired
        >= 70,
        after >= 70,
    )
    assert (before != after).any()
