"""After a sudden fall that is rare for the fleet, VMs are held for as long as prices justify."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.demand_falls import (
    HALF_LIFE_S,
    Falls,
    calm,
    came_back,
    doubted,
    fell,
    pass_calm,
    uneventful,
)
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.state import LaneState
from autoscaler.core.types import Reason, Stage
from tests.core.builders import snapshot
from tests.core.laws import laws_of, whole
from tests.core.test_economic import objective

TICK_S = 60.0
DAY = 1440
WORTH_TICKS = 40.0


class Fleet:
    """One column, tick by tick from a time on."""

    def __init__(self, first=0, tick_s=TICK_S, worth_ticks=WORTH_TICKS):
        self.state, self.tick, self.tick_s, self.worth = Falls.empty(1), first, tick_s, worth_ticks

    def __call__(self, *demand):
        """VMs that are held at the last of some ticks."""
        for each in demand:
            found = doubted(
                self.state,
                self.tick,
                self.tick_s,
                np.array([float(each)]),
                np.ones(1),
                np.array([self.worth]),
            )
            self.tick += 1
        return 0 if found is None else int(found[0])


def after_a_day(demand=20.0, **given):
    fleet = Fleet(**given)
    assert fleet(*[demand] * DAY) == 0
    return fleet


def test_what_fell_away_at_once_is_held_for_as_long_as_it_is_worth():
    fleet = after_a_day(19.4)
    assert [fleet(0.0) for _ in range(42)] == [20] * 40 + [0] * 2


def test_no_longer_than_a_day():
    fleet = after_a_day(worth_ticks=1e6)
    assert fleet(*[0.0] * DAY) == 20
    assert fleet(0.0) == 0


def test_half_way_back_it_is_over():
    """From 20 to 4: in logarithms of one more, half way back is 9.2; from there to 4 it falls again."""
    fleet = after_a_day()
    assert [fleet(4.0), fleet(2.0), fleet(9.2), fleet(9.3), fleet(4.0)] == [20, 20, 20, 0, 10]


@pytest.mark.parametrize("away", [5, 45, 200])
def test_the_second_of_two_outages_is_doubted_too(away):
    fleet = after_a_day(worth_ticks=300.0)
    assert fleet(*[0.0] * away) == 20
    assert fleet(*[20.0] * 10) == 0
    assert fleet(0.0) == 20


def test_what_is_not_back_within_a_day_is_what_lasts():
    fleet = after_a_day()
    fleet(*[0.0] * (DAY + 1))
    assert fleet(*[20.0] * 10, 0.0) == 0


def test_the_fourth_of_its_kind_is_believed():
    fleet, held = after_a_day(), []
    for _ in range(5):
        held.append(fleet(0.0))
        fleet(*[0.0] * 4, *[20.0] * 120)
    assert held == [20, 20, 20, 0, 0]


def test_what_was_away_for_long_is_held_for_less():
    """Away for 60 ticks, it came back once: 40 x 2 - 60 ticks; never within a day: 40 x 1 - 1440."""
    fleet = after_a_day()
    fleet(*[0.0] * 60, *[20.0] * 120)
    assert [fleet(0.0) for _ in range(22)] == [20] * 20 + [0] * 2
    never = after_a_day()
    never(*[0.0] * 1500, *[20.0] * 120)
    assert never(0.0) == 0


def test_falls_fade():
    """Two months later those of old count a quarter: ln(21 / 1) is more than twice that."""
    fleet = after_a_day()
    for _ in range(3):
        fleet(*[0.0] * 4, *[20.0] * 120)
    assert fleet(0.0) == 0
    fleet.tick = int(2 * HALF_LIFE_S / TICK_S)
    fleet(*[20.0] * 120)
    assert fleet(0.0) == 20


def test_who_is_young_or_was_away_knows_no_falls():
    young = Fleet()
    young(*[20.0] * (DAY - 60))
    assert young(0.0) == 0
    away = after_a_day()
    away.tick += 120
    assert away(20.0, 0.0) == 0, "nothing had been there for half an hour"


def test_a_crowd_that_goes_is_no_fall():
    fleet = after_a_day(2.0)
    assert fleet(*[30.0] * 20, 2.0) == 0


def test_silence_is_no_fall_and_ends_none():
    fleet = after_a_day()
    assert fleet(*[math.nan] * 10) == 0
    assert fleet(0.0, *[math.nan] * 9) == 20


def test_a_second_look_within_a_tick_changes_nothing():
    fleet = after_a_day()
    fleet(0.0)
    before = fleet.state.dump()
    fleet.tick -= 1
    assert fleet(20.0) == 0, "it has come back"
    fleet.tick -= 1
    np.testing.assert_equal(fleet.state.lowest, before["lowest"])


class Plainly:
    """The same of one column, written out."""

    def __init__(self, tick_s, worth):
        self.tick_s, self.worth, self.length = tick_s, worth, max(1800.0, 2 * tick_s)
        self.stretches, self.deep, self.deep_s, self.doubt = {}, [0.0, 0.0, 0.0], 0.0, None
        self.last, self.past = -1, []
        self.returns, self.away = 0.0, 0.0

    def __call__(self, tick, work):
        now_s = tick * self.tick_s
        stretch = int(now_s // self.length)
        if stretch != self.last:
            # As long as a fall is doubted, what had been there before it is what lasts.
            goes_on = self.doubt is not None and self.last == stretch - 1
            self.past = self.stretches.get(stretch - 1, []) or (self.past if goes_on else [])
            self.last = stretch
        mine, past = self.stretches.setdefault(stretch, []), self.past
        if past and not math.isnan(work) and self.doubt is None:
            lasted = min(past + mine)
            depth = math.log((lasted + 1.0) / (work + 1.0))
            if work * math.sqrt(2.0) + math.sqrt(2.0) - 1.0 < lasted:
                fade = 0.5 ** ((now_s - self.deep_s) / HALF_LIFE_S)
                faded = [deep * fade for deep in self.deep]
                self.returns, self.away = self.returns * fade, self.away * fade
                days = sum(bool(each) for at, each in self.stretches.items() if at < stretch)
                if depth > max(2.0 * faded[2], math.log(2.0)) and days * self.length >= 86_400.0:
                    self.doubt = lasted, math.sqrt((work + 1.0) * (lasted + 1.0)) - 1.0, tick
                self.deep, self.deep_s = sorted([*faded, depth], reverse=True)[:3], now_s
        if not math.isnan(work) and not (self.doubt is not None and work < self.doubt[1]):
            mine.append(work)
        if self.doubt is None:
            return 0
        before, back, since = self.doubt
        age = tick - since
        if work >= back or age >= 86_400.0 / self.tick_s:
            self.returns, self.away, self.doubt = self.returns + (work >= back), self.away + age, None
            return 0
        return math.ceil(before) if age + 1.0 + self.away <= self.worth * (self.returns + 1.0) else 0


def some_demand(rng, ticks, tick_s):
    """Noise around a level, with a few falls, crowds and silences."""
    demand = rng.gamma(30.0, rng.uniform(0.1, 1.0), ticks)
    for at in rng.integers(0, ticks, rng.integers(2, 9)):
        some = slice(at, at + int(rng.integers(1, max(2, int(9000.0 / tick_s)))))
        demand[some] *= rng.choice([0.0, 0.02, 0.2, 0.5, 3.0])
    demand[rng.random(ticks) < rng.choice([0.0, 0.02])] = math.nan
    return demand


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([300.0, 600.0, 1200.0, 3600.0]))
def test_many_columns_hold_what_each_would_alone_and_as_it_is_written_out(seed, tick_s):
    rng, columns = np.random.default_rng(seed), 6
    ticks = int(4 * 86_400.0 / tick_s)
    demand = np.stack([some_demand(rng, ticks, tick_s) for _ in range(columns)], axis=1)
    worth = rng.uniform(0.5, 60.0, columns)
    state, plain = Falls.empty(columns), [Plainly(tick_s, each) for each in worth.tolist()]
    alone, skipped = Falls.empty(1), rng.random(ticks) < 0.01
    for tick in range(ticks):
        if skipped[tick]:
            continue
        if tick == ticks // 2:
            state = Falls.restore(state.dump())
        found = doubted(state, tick, tick_s, demand[tick], np.ones(columns), worth)
        told = [each(tick, work) for each, work in zip(plain, demand[tick].tolist(), strict=True)]
        assert (found is None) == (not any(told))
        assert found is None or found.tolist() == told
        one = doubted(alone, tick, tick_s, demand[tick, -1:], np.ones(1), worth[-1:])
        assert (0 if one is None else int(one[0])) == told[-1]
    np.testing.assert_equal(state.of_columns(np.array([columns - 1])).dump(), alone.dump())


def taken_in(demand, tick_s, run):
    """The state after this demand; `run` takes in as many ticks at once as it can, and returns how many."""
    state, at, at_once = Falls.empty(demand.shape[1]), 0, 0
    while at < len(demand):
        many = run(state, at, demand[at : at + 50])
        at, at_once = at + many, at_once + many
        if at < len(demand):
            fell(state, at, tick_s, demand[at])
            came_back(state, at, tick_s, demand[at])
            at += 1
    return state.dump(), at_once


@pytest.mark.parametrize("seed", range(6))
def test_ticks_taken_in_at_once_are_as_tick_by_tick(seed):
    rng, tick_s = np.random.default_rng(seed), 600.0
    demand = np.stack([some_demand(rng, 600, tick_s) for _ in range(2)], axis=1)
    known = np.nan_to_num(demand, nan=9.0)

    def quietly(state, at, work):
        ticks = calm(state, at, tick_s, work)
        pass_calm(state, at, work[:ticks])
        return ticks

    for work, run in (
        (demand, lambda state, at, work: uneventful(state, at, tick_s, work)),
        (known, quietly),
    ):
        (together, at_once), (alone, _) = taken_in(work, tick_s, run), taken_in(work, tick_s, lambda *_: 0)
        np.testing.assert_equal(together, alone)
        assert at_once > 60


@pytest.mark.parametrize("seed", range(3))
def test_random_demand_does_fall(seed):
    """What the comparison above is about happens in it."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(12):
        fleet = Fleet(tick_s=600.0)
        held += sum(fleet(each) > 0 for each in some_demand(rng, 576, 600.0))
    assert held > 20


def test_columns_go_over_to_others():
    fleet = after_a_day()
    fleet(0.0)
    moved = fleet.state.of_columns(np.array([-1, 0]))
    work, worth = np.zeros(2), np.full(2, WORTH_TICKS)
    assert doubted(moved, fleet.tick, TICK_S, work, np.ones(2), worth).tolist() == [0, 20]
    other = fleet.state.of_columns(np.array([0, -1]))
    other.last_tick, moved.last_tick = moved.last_tick, moved.last_tick
    other.take_in(np.array([1]), moved, np.array([1]))
    assert doubted(other, fleet.tick + 1, TICK_S, work, np.ones(2), worth).tolist() == [20, 20]


def lived(params, demand):
    """The state after some ticks, with as many VMs as serve what demand was at first."""
    state = LaneState.empty(params)
    laws = whole(laws_of(np.full(4, 1.0)))
    for tick, each in enumerate(demand):
        view = snapshot(demand=each, in_service=20, tick=tick, now_s=tick * TICK_S)
        decision = decide(params, state, view, laws)
    return state, decision


def test_a_decision_keeps_vms_and_says_why_and_starts_none_for_it():
    params = objective(tick_s=TICK_S, shortage_price=20.0, lead_ticks=2)
    state, decision = lived(params, [20.0] * DAY + [0.0])
    at = int(Stage.ECONOMIC)
    assert (int(decision.desired[0]), Reason(int(decision.reason[at, 0]))) == (20, Reason.FALL_DOUBTED)
    assert decision.economics.doubted.tolist() == [20]
    fewer = snapshot(demand=0.0, in_service=12, tick=DAY + 1, now_s=(DAY + 1) * TICK_S)
    decision = decide(params, state, fewer, whole(laws_of(np.full(4, 1.0))))
    assert (int(decision.desired[0]), int(decision.start[0])) == (12, 0)
    for tick in range(DAY + 2, DAY + 41):
        view = snapshot(demand=0.0, in_service=12, tick=tick, now_s=tick * TICK_S)
        decision = decide(params, state, view, whole(laws_of(np.full(4, 1.0))))
    assert int(decision.desired[0]) < 12, "a price of 20 and two ticks to start: 40 ticks"
    assert int(decision.reason[at, 0]) != Reason.FALL_DOUBTED


def test_models_remembered_by_a_version_that_counted_no_crowds_are_read():
    params = objective(tick_s=TICK_S)
    state, _ = lived(params, [20.0] * 60)
    dumped = state.trial.dump()
    habits = dict(dumped["habits"])
    none = {"beyond": np.zeros(1), "allowed": np.zeros(1)}
    for name in none:
        del habits[name]
    read = Trial.restore(dumped | {"habits": habits | {"version": 5}}).dump()
    np.testing.assert_equal(read, dumped | {"habits": dumped["habits"] | none})
    with pytest.raises(ValueError, match="Trial of version 7 cannot be read, only 9"):
        Trial.restore(dumped | {"version": 7})
    with pytest.raises(ValueError, match="Habits of version 4 cannot be read, only 6"):
        Trial.restore(dumped | {"habits": habits | {"version": 4}})
