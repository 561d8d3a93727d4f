"""Properties that every registered stage and the whole chain must keep, on random fleets and histories."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import CHAIN, decide
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, QUANTILE_LEVELS, Freshness, Outlook, Reason, Snapshot, Stage
from tests.core.builders import DECIDED, apply, lane_params

NOW_S = 1_000_000.0
seeds = st.integers(0, 2**32 - 1)


def random_params(rng: np.random.Generator, lanes: int):
    """Policies that have some guards and others not, so that lanes meet others which do not have theirs."""

    def pick(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, lanes)

    def coin() -> np.ndarray:
        return rng.random(lanes) < 0.5

    def some(values: np.ndarray, none: float = 0.0) -> np.ndarray:
        return np.where(coin(), values, none).astype(values.dtype)

    minimum = rng.integers(0, 4, lanes)
    return lane_params(
        lanes,
        reactive=coin(),
        headroom=pick(0.0, 0.5),
        tolerance=some(pick(0.0, 0.2)),
        steps=coin(),
        step_lower=np.stack([np.full(lanes, 0.8), np.full(lanes, -np.inf)]),
        step_upper=np.stack([np.full(lanes, np.inf), np.full(lanes, 0.3)]),
        step_vms=np.stack([np.full(lanes, 2), np.full(lanes, -1)]),
        step_share=np.stack([some(pick(0.0, 0.5)), some(pick(-0.5, 0.0))]),
        schedule=coin(),
        window_start_s=np.full((1, lanes), NOW_S + 50.0),
        window_end_s=np.full((1, lanes), NOW_S + 150.0),
        window_floor=rng.integers(0, 10, (1, lanes)),
        cover=coin(),
        cover_quantile=rng.integers(0, len(QUANTILE_LEVELS), lanes),
        uses_signal=np.ones(lanes, np.bool_),
        min_coverage=pick(0.0, 1.0),
        loss_hold_s=pick(0.0, 60.0),
        zero_hold_s=some(pick(0.0, 60.0)),
        stabilisation_ticks=some(rng.integers(0, 50, lanes)),
        cooldown_out_s=some(pick(0.0, 60.0)),
        cooldown_in_s=some(pick(0.0, 60.0)),
        minimum=minimum,
        maximum=minimum + rng.integers(0, 40, lanes),
        rate_out_vms=some(pick(1.0, 20.0), np.inf),
        rate_out_period_s=pick(5.0, 120.0),
        rate_in_vms=some(pick(1.0, 5.0), np.inf),
        rate_in_period_s=pick(5.0, 120.0),
        provision=coin(),
        max_provisioned=rng.integers(0, 60, lanes),
        warm_memory_ticks=rng.integers(0, 100, lanes),
        warm_spare=pick(0.0, 0.5),
    )


def random_snapshot(
    rng: np.random.Generator, lanes: int, tick: int, *, silent: object = False, operated: float = 0.0
) -> Snapshot:
    in_service = rng.integers(0, 20, lanes)
    freshness = np.where(rng.random(lanes) < 0.8, Freshness.FRESH, rng.integers(1, 4, lanes)).astype(np.int64)
    freshness[np.broadcast_to(silent, lanes)] = int(Freshness.ABSENT)
    now_s = NOW_S + tick * 10.0
    fresh = freshness == Freshness.FRESH
    return Snapshot(
        now_s=now_s,
        tick=int(now_s // 10.0),
        demand=np.where(fresh, rng.gamma(2.0, 500.0, lanes) * (rng.random(lanes) < 0.9), np.nan),
        observed_at_s=np.where(fresh, now_s - 5.0, np.nan),
        freshness=freshness,
        coverage=np.where(fresh, rng.random(lanes), 0.0),
        censored=fresh & (rng.random(lanes) < 0.1),
        in_service=in_service,
        starting=rng.integers(0, 5, lanes),
        draining=rng.integers(0, 3, lanes),
        stopping=rng.integers(0, 3, lanes),
        stopped=rng.integers(0, 20, lanes),
        provisioned=in_service + rng.integers(0, 40, lanes),
        stoppable=(in_service * rng.random(lanes)).astype(np.int64),
        listed=rng.random(lanes) < 0.9,
        may_start=rng.random(lanes) >= operated,
        may_provision=rng.random(lanes) >= operated,
        may_stop=rng.random(lanes) >= operated,
        floor=np.where(rng.random(lanes) < operated, rng.integers(0, 30, lanes), 0),
        ceiling=np.where(rng.random(lanes) < operated, rng.integers(0, 60, lanes), NO_CEILING),
    )


def random_outlook(rng: np.random.Generator, lanes: int) -> Outlook:
    at_lead = np.sort(rng.gamma(2.0, 500.0, (len(QUANTILE_LEVELS), lanes)), axis=0)
    return Outlook(at_lead=at_lead, peak=at_lead * 1.2, evidence=np.ones(lanes))


def history(seed: int, lanes: int, ticks: int, *, silent_from: int | None = None, operated: float = 0.25):
    """Parameters and ticks; operators pause or override that share of each lane's ticks, and half of the lanes are
    silent for some ticks on end.
    """
    rng = np.random.default_rng(seed)
    params = random_params(rng, lanes)
    begins, lasts = rng.integers(0, ticks, lanes), rng.integers(2, 7, lanes) * (rng.random(lanes) < 0.5)
    steps = []
    for tick in range(ticks):
        silent = (begins <= tick) & (tick < begins + lasts)
        if silent_from is not None and tick >= silent_from:
            silent = True
        view = random_snapshot(rng, lanes, tick, silent=silent, operated=operated)
        steps.append((view, random_outlook(rng, lanes)))
    return params, steps


def lanes_of(values: object, chosen: np.ndarray) -> object:
    """The same dataclass with only the chosen lanes (last axis); scalars stay."""
    return replace(
        values,
        **{
            f.name: getattr(values, f.name)[..., chosen]
            for f in fields(values)
            if isinstance(getattr(values, f.name), np.ndarray)
        },
    )


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_counts_are_possible(seed: int):
    params, steps = history(seed, 8, 12)
    state = LaneState.empty(params)
    for view, seen in steps:
        d = decide(params, state, view, seen)
        now = view.in_service + view.starting
        for count in (d.wish, d.desired, d.start, d.stop, d.provision, d.warm_target):
            assert (count >= 0).all()
        assert (d.start <= view.stopped).all()
        assert (d.stop <= view.stoppable).all()
        assert ((d.start + d.provision == 0) | (d.stop == 0)).all()
        assert (view.in_service - d.stop >= np.minimum(d.desired, view.in_service)).all()
        assert (view.provisioned + d.provision <= np.maximum(params.max_provisioned, view.provisioned)).all()
        # Bounds: never above the maximum by ordering, never further below the minimum by stopping.
        lowest, highest = effective_bounds(params, view)
        assert (now + d.start + d.provision <= np.maximum(highest, now)).all()
        assert (now - d.stop >= np.minimum(lowest, now)).all()
        assert (d.start + d.provision <= params.rate_out_vms).all()
        assert (d.stop <= params.rate_in_vms).all()


def effective_bounds(params: LaneParams, view: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Lane by lane in words of the rule: the operator wins, and a floor wins over every maximum."""
    bounds = []
    for minimum, maximum, floor, ceiling in zip(
        params.minimum, params.maximum, view.floor, view.ceiling, strict=True
    ):
        highest = max(maximum if ceiling == NO_CEILING else ceiling, floor)
        bounds.append((min(max(minimum, floor), highest), highest))
    return np.array(bounds).T


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_what_an_operator_has_paused_does_not_happen(seed: int):
    params, steps = history(seed, 16, 8, operated=0.5)
    state = LaneState.empty(params)
    for view, seen in steps:
        d = decide(params, state, view, seen)
        assert (d.start[~view.may_start] == 0).all()
        assert (d.provision[~view.may_provision] == 0).all()
        assert (d.stop[~view.may_stop] == 0).all()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_pause_of_stops_leaves_scale_out_as_it_was(seed: int):
    params, steps = history(seed, 16, 8)
    free, paused = LaneState.empty(params), LaneState.empty(params)
    for view, seen in steps:
        one = decide(params, free, replace(view, may_stop=np.ones(16, np.bool_)), seen)
        two = decide(params, paused, replace(view, may_stop=np.zeros(16, np.bool_)), seen)
        np.testing.assert_array_equal(one.wish, two.wish)
        np.testing.assert_array_equal(one.start, two.start)
        np.testing.assert_array_equal(one.provision, two.provision)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_pause_of_one_way_to_start_leaves_the_other_free(seed: int):
    params, steps = history(seed, 16, 1, operated=0.0)
    ((view, seen),) = steps
    closed = np.zeros(16, np.bool_)
    free = decide(params, LaneState.empty(params), view, seen)
    no_start = decide(params, LaneState.empty(params), replace(view, may_start=closed), seen)
    no_provision = decide(params, LaneState.empty(params), replace(view, may_provision=closed), seen)
    assert (no_start.provision >= free.provision).all()
    np.testing.assert_array_equal(no_provision.start, free.start)
    np.testing.assert_array_equal(no_start.desired, free.desired)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_silence_never_stops_a_vm_that_the_operators_bounds_allow(seed: int):
    params, steps = history(seed, 8, 12, silent_from=4, operated=0.0)
    params = replace(params, maximum=np.full(8, 1000), loss_hold_s=np.full(8, np.inf))
    state = LaneState.empty(params)
    for tick, (view, seen) in enumerate(steps):
        d = decide(params, state, view, seen)
        if tick >= 4:
            assert (d.stop == 0).all()
            assert (d.desired >= view.in_service + view.starting).all()


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_lane_alone_in_a_crowd_or_permuted_gives_the_same_bits(seed: int):
    params, steps = history(seed, 7, 8)
    order = np.random.default_rng(seed).permutation(7)
    state, permuted, alone = (
        LaneState.empty(params),
        LaneState.empty(lanes_of(params, order)),
        LaneState.empty(lanes_of(params, np.array([3]))),
    )
    moved = replace(lanes_of(params, order), series=np.arange(7))
    single = replace(lanes_of(params, np.array([3])), series=np.array([0]))
    for view, seen in steps:
        crowd = decide(params, state, view, seen)
        other = decide(moved, permuted, lanes_of(view, order), lanes_of(seen, order))
        one = decide(single, alone, lanes_of(view, np.array([3])), lanes_of(seen, np.array([3])))
        for name in DECIDED:
            got = getattr(crowd, name)
            np.testing.assert_array_equal(got[..., order], getattr(other, name), err_msg=name)
            np.testing.assert_array_equal(got[..., [3]], getattr(one, name), err_msg=name)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_restart_in_the_middle_changes_nothing(seed: int):
    params, steps = history(seed, 5, 10)
    straight = LaneState.empty(params)
    resumed = LaneState.empty(params)
    for tick, (view, seen) in enumerate(steps):
        if tick == 5:
            resumed = LaneState.restore(resumed.dump())
        one, two = decide(params, straight, view, seen), decide(params, resumed, view, seen)
        np.testing.assert_array_equal(one.value, two.value)
        np.testing.assert_array_equal(one.warm_target, two.warm_target)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1.0, 5.0))
def test_more_demand_never_asks_for_fewer_vms(seed: int, factor: float):
    params, steps = history(seed, 8, 1)
    (view, seen) = steps[0]
    more = replace(view, demand=view.demand * factor)
    low = decide(params, LaneState.empty(params), view, seen)
    high = decide(params, LaneState.empty(params), more, seen)
    # Step rules are not monotone by design of their author; the other stages are.
    monotone = ~params.steps
    assert (high.desired >= low.desired)[monotone].all()


@pytest.mark.parametrize("stage", list(Stage))
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_every_stage_gives_a_reason_exactly_where_it_changes_the_wish(stage: Stage, seed: int):
    params, steps = history(seed, 8, 6)
    rng = np.random.default_rng(seed)
    state = LaneState.empty(params)
    for view, seen in steps:
        wish = rng.integers(0, 30, 8)
        got, reason = apply(CHAIN[stage], params, state, view, seen, wish)
        assert got.dtype == np.int64
        assert got.shape == reason.shape == (8,)
        changed = got != wish
        assert (reason[changed] != Reason.NONE).all()
        assert (reason[~changed & (stage != Stage.SUPPLY)] == Reason.NONE).all()


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_is_pure_in_its_inputs(stage: Stage):
    params, steps = history(11, 6, 1)
    view, seen = steps[0]
    wish = np.array([0, 3, 7, 12, 20, 30])
    before = [
        getattr(view, f.name).copy() for f in fields(view) if isinstance(getattr(view, f.name), np.ndarray)
    ]
    apply(CHAIN[stage], params, LaneState.empty(params), view, seen, wish)
    after = [getattr(view, f.name) for f in fields(view) if isinstance(getattr(view, f.name), np.ndarray)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert wish.tolist() == [0, 3, 7, 12, 20, 30]
