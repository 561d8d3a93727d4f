"""The economic stage has the properties of every stage: independent lanes, restarts without effect, monotonicity."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.law_grid import LawPage, PagedLaws
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness
from tests.core.builders import DECIDED, arrays_of, snapshot
from tests.core.laws import joined, laws_of, whole
from tests.core.test_economic import objective

seeds = st.integers(0, 2**32 - 1)


def random_run(seed, lanes, ticks):
    rng = np.random.default_rng(seed)
    params = objective(
        lanes,
        economic=np.append(rng.random(lanes - 1) < 0.7, [True]),
        reactive=rng.random(lanes) < 0.3,
        shortage_price=rng.uniform(2.0, 900.0, lanes),
        unserved_target=np.where(rng.random(lanes) < 0.5, 0.01, 0.0),
        lead_ticks=rng.integers(1, 6, lanes),
        billed_ticks=rng.integers(0, 7, lanes),
        start_success=rng.uniform(0.5, 1.0, lanes),
        minimum=rng.integers(0, 3, lanes),
        maximum=rng.integers(3, 40, lanes),
    )
    steps = []
    for tick in range(ticks):
        laws = joined([laws_of(rng.gamma(2.0, 3.0, 20), spread=0.1) for _ in range(lanes)])
        fresh = rng.random(lanes) < 0.9
        in_service = rng.integers(0, 20, lanes)
        view = snapshot(
            lanes,
            now_s=1e6 + tick * 400.0,
            tick=10**5 + tick,
            demand=np.where(fresh, rng.gamma(2.0, 3.0, lanes), np.nan),
            freshness=np.where(fresh, 0, int(Freshness.ABSENT)),
            censored=rng.random(lanes) < 0.1,
            in_service=in_service,
            starting=rng.integers(0, 4, lanes),
        )
        steps.append((view, whole(laws)))
    return params, steps


def some(values, lanes):
    return replace(
        values,
        **{
            f.name: getattr(values, f.name)[..., lanes]
            for f in fields(values)
            if isinstance(getattr(values, f.name), np.ndarray)
        },
    )


@pytest.mark.parametrize("seed", range(3))
def test_laws_that_are_on_a_page_decide_what_the_same_laws_decide_alone(seed):
    lanes, per_page = 5, 7
    params, steps = random_run(seed, lanes, 91)
    paged, alone = LaneState.empty(params), LaneState.empty(params)
    prices = set()
    for at, (view, seen) in enumerate(steps):
        first, row = at - at % per_page, at % per_page
        if row == 0:
            page = LawPage(joined([outlook.laws for _, outlook in steps[first : first + per_page]]), per_page)
        laws = PagedLaws(*(getattr(seen.laws, f.name) for f in fields(seen.laws)), page, row)
        a, b = decide(params, paged, view, replace(seen, laws=laws)), decide(params, alone, view, seen)
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        prices.add((first, a.economics.price.tobytes()))
    assert len(prices) > len(steps) // per_page, "prices change within a page, too"
    for name, was in alone.trial.dump().items():
        np.testing.assert_equal(paged.trial.dump()[name], was, err_msg=name)


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_a_lane_alone_or_among_others_decides_the_same_to_the_bit(seed):
    params, steps = random_run(seed, 5, 30)
    crowd = LaneState.empty(params)
    order = np.random.default_rng(seed).permutation(5)
    moved = replace(some(params, order), series=order)
    alone = replace(some(params, [4]), series=np.array([4]))
    other, one = LaneState.empty(moved), LaneState.empty(alone)
    for view, seen in steps:
        a = decide(params, crowd, view, seen)
        b = decide(moved, other, some(view, order), seen)
        c = decide(alone, one, some(view, [4]), seen)
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(a, name)[..., order], getattr(b, name), err_msg=name)
            np.testing.assert_array_equal(getattr(a, name)[..., [4]], getattr(c, name), err_msg=name)


def test_how_long_others_take_to_start_says_nothing_of_what_is_usual_when_a_start_serves():
    lead_ticks, rng = np.array([1, 45, 200]), np.random.default_rng(4)
    params = objective(3, lead_ticks=lead_ticks, series=np.zeros(3, np.int64), hold_ticks=200)
    state, alone = LaneState.empty(params), [some(params, [lane]) for lane in range(3)]
    states = [LaneState.empty(one) for one in alone]
    laws = whole(laws_of(np.full(4, 8.0)))
    for tick in range(432):
        demand = float(rng.gamma(2.0, 3.0)) * (1.0 + tick % 108 / 36.0)
        view = snapshot(3, now_s=1e6 + tick * 400.0, tick=10**5 + tick, demand=demand)
        value = decide(params, state, view, laws).value
        for lane, one in enumerate(alone):
            np.testing.assert_array_equal(
                value[:, [lane]], decide(one, states[lane], some(view, [lane]), laws).value
            )
    for each in (state, *states):
        each.trial.settle()
    for lane, one in enumerate(states):
        for name in ("wanted", "hour", "seen", "highest"):
            np.testing.assert_array_equal(
                getattr(state.trial.habits, name)[..., lane],
                getattr(one.trial.habits, name)[..., 0],
                err_msg=name,
            )
        for name in ("serving", "paid"):
            np.testing.assert_array_equal(
                getattr(state.trial, name)[:, lane], getattr(one.trial, name)[:, 0], err_msg=name
            )
    assert len(set(state.trial.habits.wanted[1, 0].tolist())) > 1 or len(set(state.trial.paid[6])) > 1


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_a_restart_or_a_change_of_lanes_in_the_middle_changes_nothing(seed):
    params, steps = random_run(seed, 4, 40)
    straight, resumed = LaneState.empty(params), LaneState.empty(params)
    for at, (view, seen) in enumerate(steps):
        if at == 15:
            resumed = LaneState.restore(resumed.dump())
        if at == 25:
            resumed = resumed.carried_over(params, np.arange(4))
        a, b = decide(params, straight, view, seen), decide(params, resumed, view, seen)
        np.testing.assert_array_equal(a.value, b.value)
    for name, array in arrays_of(straight.trial).items():
        if name not in ("ordered", "peaks.ring"):
            np.testing.assert_array_equal(array, arrays_of(resumed.trial)[name], err_msg=name)


def test_a_second_decision_within_a_tick_moves_no_model():
    params, steps = random_run(2, 3, 20)
    once, twice = LaneState.empty(params), LaneState.empty(params)
    for view, seen in steps:
        decide(params, once, view, seen)
        decide(params, twice, view, seen)
        decide(params, twice, view, seen)
    for part in ("trial", "budget"):
        for name, array in arrays_of(getattr(once, part)).items():
            np.testing.assert_array_equal(array, arrays_of(getattr(twice, part))[name], err_msg=name)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(1.0, 20.0))
def test_dearer_shortage_and_higher_demand_never_ask_for_fewer(seed, factor):
    params, (step, *_) = random_run(seed, 6, 1)
    view, seen = step
    laws = seen.laws
    low = decide(params, LaneState.empty(params), view, seen)
    dear = replace(params, shortage_price=params.shortage_price * factor)
    assert (decide(dear, LaneState.empty(dear), view, seen).wish >= low.wish).all()
    higher = replace(
        laws,
        level=laws.level * factor,
        scale=laws.scale * factor,
        excess=(laws.excess * factor).astype(np.float32),
    )
    assert (decide(params, LaneState.empty(params), view, replace(seen, laws=higher)).wish >= low.wish).all()


@pytest.mark.parametrize("seed", range(2))
def test_variants_that_are_alike_decide_as_each_would_alone(seed):
    rng = np.random.default_rng(seed)
    lanes = 12
    params = objective(
        lanes,
        series=np.arange(lanes) % 2,
        shortage_price=np.array([8.0, 70.0, 70.0])[np.arange(lanes) // 2 % 3],
        unserved_target=np.where(np.arange(lanes) < 10, 0.0, 0.01),
        maximum=rng.integers(20, 40, lanes),
    )
    state, alone = LaneState.empty(params), [some(params, [lane]) for lane in range(lanes)]
    states = [LaneState.empty(one) for one in alone]
    for tick in range(60):
        laws = whole(joined([laws_of(rng.gamma(2.0, 3.0, 20), spread=0.1) for _ in range(2)]))
        demand, fresh = rng.gamma(2.0, 3.0, 2)[params.series], rng.random(lanes) < 0.95
        view = snapshot(
            lanes,
            now_s=1e6 + tick * 400.0,
            tick=10**5 + tick,
            demand=np.where(fresh, demand, np.nan),
            freshness=np.where(fresh, 0, int(Freshness.ABSENT)),
            in_service=rng.integers(0, 20, lanes),
        )
        value = decide(params, state, view, laws).value
        for lane, one in enumerate(alone):
            mine = decide(one, states[lane], some(view, [lane]), laws).value
            np.testing.assert_array_equal(value[:, [lane]], mine)


@pytest.mark.parametrize("parting", ["demand", "freshness", "censored"])
def test_variants_that_share_models_part_when_they_see_anything_else_and_are_as_each_would_be_alone(parting):
    rng = np.random.default_rng(5)
    lanes = 10
    params = objective(
        lanes,
        series=np.arange(lanes) % 2,
        shortage_price=np.array([8.0, 70.0])[np.arange(lanes) // 2 % 2],
        unserved_target=np.where(np.arange(lanes) < 9, 0.0, 0.01),
        start_success=rng.uniform(0.5, 1.0, lanes),
        lead_ticks=4,
        billed_ticks=3,
    )
    state, alone = LaneState.empty(params), [some(params, [lane]) for lane in range(lanes)]
    states = [LaneState.empty(one) for one in alone]
    columns = []
    for tick in range(70):
        if tick == 25:
            state = LaneState.restore(state.dump())
        if tick == 50:
            kept = np.array([7, 8, 1, 3, 5])
            params, alone, states = (
                some(params, kept),
                [alone[at] for at in kept],
                [states[at] for at in kept],
            )
            state = state.carried_over(params, kept)
        laws = whole(joined([laws_of(rng.gamma(2.0, 3.0, 20), spread=0.1) for _ in range(2)]))
        seen = {
            "demand": rng.gamma(2.0, 3.0, 2)[params.series],
            "freshness": np.zeros(len(alone), np.int64),
            "censored": np.zeros(len(alone), np.bool_),
        }
        if tick in (15, 40):
            # Lanes 4 and 8 of one contest, then lane 1 of another.
            lane = [4, 8] if tick == 15 else [1]
            seen[parting][lane] += np.array(1, seen[parting].dtype)
        serving = rng.integers(0, 20, len(alone))
        view = snapshot(len(alone), now_s=1e6 + tick * 400.0, tick=10**5 + tick, in_service=serving, **seen)
        value = decide(params, state, view, laws).value
        for at, one in enumerate(alone):
            mine = decide(one, states[at], some(view, [at]), laws).value
            np.testing.assert_array_equal(value[:, [at]], mine)
        columns.append(len(state.trial.weight))
    # Four contests and a share that is promised; one contest of three lanes parts, and one of two; five lanes go on.
    assert columns[:15] == [5] * 15
    assert columns[15:40] == [7] * 25
    assert columns[40:50] == [8] * 10
    assert columns[50:] == [4] * 20
    for each in (state, *states):
        each.trial.settle()
    for at, lane in enumerate(states):
        column = state.trial.column[at]
        for name in (
            "serving",
            "paid",
            "unserved",
            "nearly",
            "crowd",
            "falling",
            "weight",
            "ticks",
            "driver",
        ):
            np.testing.assert_array_equal(
                getattr(state.trial, name)[..., column], getattr(lane.trial, name)[..., 0], err_msg=name
            )


@pytest.mark.parametrize("before", [30, 300, 40_000])
@pytest.mark.parametrize("after", [30, 300, 40_000])
def test_narrow_counts_decide_as_wide_ones(before, after, monkeypatch):
    rng = np.random.default_rng(before + after)
    policies = [objective(3, maximum=most, lead_ticks=4, billed_ticks=3) for most in (before, before, after)]
    demands = rng.gamma(2.0, np.where(np.arange(90) % 30 < 20, 5.0, 9_000.0)[:, np.newaxis], (90, 3))

    def run():
        state, values = LaneState.empty(policies[0]), []
        for tick, demand in enumerate(demands):
            params = policies[tick // 30]
            if tick % 30 == 15:
                state = LaneState.restore(state.dump())
            if tick % 30 == 0:
                state = state.carried_over(params, np.arange(3))
            laws = whole(joined([laws_of(np.full(4, each)) for each in demand]))
            view = snapshot(3, now_s=1e6 + tick * 300.0, tick=10**5 + tick, demand=demand, in_service=9)
            values.append(decide(params, state, view, laws).value)
        return np.stack(values), state.trial

    values, trial = run()
    with monkeypatch.context() as wide:
        wide.setattr("autoscaler.core.objective.competition._count_type", lambda most: np.dtype(np.int32))
        same, other = run()
    np.testing.assert_array_equal(values, same)
    for name, array in arrays_of(trial).items():
        np.testing.assert_array_equal(array, arrays_of(other)[name], err_msg=name)
    assert trial.serving.dtype == {30: np.int8, 300: np.int16, 40_000: np.int32}[after]
