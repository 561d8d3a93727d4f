"""Reliving the past: imagined VMs, and what is taken over into the state of the live fleet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core import past_replay
from autoscaler.core.decide import decide
from autoscaler.core.past_replay import PastReplay
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness
from autoscaler.core.windows import RollingMax
from tests.core.builders import lane_params, samples, series_params

TICK_S = 10.0
LEAD, ON = 3, 4


def imagined(monkeypatch, demand, *, ticks=None):
    """The snapshots and decisions of one plain lane that lives through so much demand; NaN is unknown."""
    params = lane_params(1, reactive=True, lead_ticks=LEAD, vm_capacity=1.0, maximum=50)
    told = []

    def watched(params, state, snapshot, outlook):
        decision = decide(params, state, snapshot, outlook)
        told.append((snapshot, decision))
        return decision

    monkeypatch.setattr(past_replay, "decide", watched)
    lives = PastReplay(series_params(1), params, np.array([ON]))
    now = range(100, 100 + len(demand)) if ticks is None else ticks
    unknown = int(Freshness.ABSENT)
    given = [
        replace(each, freshness=np.array([unknown])) if np.isnan(value) else each
        for tick, value in zip(now, demand, strict=True)
        for each in [samples(tick * TICK_S, np.array([value]))]
    ]
    # In pieces of any length.
    for piece in (given[:3], given[3:4], given[4:]):
        if piece:
            lives.live(series_params(1), params, piece)
    return told


def column(told, name):
    return [int(getattr(snapshot, name)[0]) for snapshot, _ in told]


def test_imagined_vms_serve_after_a_start_and_stay_for_their_time(monkeypatch):
    told = imagined(monkeypatch, [5.0] * 4 + [9.0] * 4 + [2.0] * 12)
    serving, starting = column(told, "in_service"), column(told, "starting")
    assert serving[0] == 5, "what demand needs when it begins to be known"
    assert serving[4 : 4 + LEAD] == [5] * LEAD
    assert starting[5 : 4 + LEAD] == [4] * (LEAD - 1)
    assert serving[4 + LEAD] == 9
    assert starting[4 + LEAD] == 0
    stoppable = column(told, "stoppable")
    # The four that are young stay until they have served for their time, the others go at once.
    assert serving[9 : 7 + ON + 1] == [4] * (7 + ON + 1 - 9)
    assert serving[-1] == 2
    assert all(int(each.stop[0]) <= at for (_, each), at in zip(told, stoppable, strict=True))


def test_after_a_gap_all_is_there_that_demand_needs(monkeypatch):
    told = imagined(monkeypatch, [5.0, 9.0, 9.0, 20.0, 20.0], ticks=[100, 101, 102, 160, 161])
    assert column(told, "in_service") == [5, 5, 5, 20, 20]
    assert column(told, "starting") == [0, 0, 4, 0, 0]
    told = imagined(monkeypatch, [5.0, np.nan, np.nan, 20.0, 20.0])
    assert column(told, "in_service") == [5, 5, 5, 20, 20]


@given(
    lengths=st.lists(st.integers(1, 200), min_size=2, max_size=6),
    seed=st.integers(0, 99),
    ticks=st.integers(1, 400),
)
def test_windows_taken_in_go_on_as_they_were(lengths, seed, ticks):
    rng = np.random.default_rng(seed)
    lanes = len(lengths)
    mine, other = (RollingMax.empty(np.array(lengths)) for _ in range(2))
    first = int(rng.integers(0, 1000))
    for tick in range(first, first + ticks):
        mine.push_and_max(tick, rng.integers(0, 50, lanes))
        other.push_and_max(tick, rng.integers(0, 50, lanes))
    some = np.flatnonzero(rng.random(lanes) < 0.5)
    others = np.setdiff1d(np.arange(lanes), some)
    alone, theirs = mine.copy(), other.copy()
    mine.take_in(some, other, some)
    for tick in range(first + ticks, first + ticks + 250):
        value = rng.integers(0, 50, lanes) * (rng.random() < 0.2)
        found = mine.push_and_max(tick, value)
        assert (found[some] == theirs.push_and_max(tick, value)[some]).all()
        assert (found[others] == alone.push_and_max(tick, value)[others]).all()


def test_what_is_of_another_tick_or_of_other_policies_is_refused():
    params = lane_params(2, economic=True, vm_capacity=1.0, warm_memory_ticks=40)
    mine = LaneState.empty(params)
    for name in ("trial", "warm_pool", "peaks"):
        other = LaneState.empty(params)
        setattr(getattr(other, name), "tick" if name == "peaks" else "last_tick", 7)
        with pytest.raises(ValueError, match=r"do not fit|is not at"):
            mine.copy().take_in(np.array([1]), other)
    longer = LaneState.empty(
        lane_params(2, economic=True, vm_capacity=1.0, lead_ticks=9, warm_memory_ticks=40)
    )
    with pytest.raises(ValueError, match="models of other parameters"):
        mine.copy().take_in(np.array([1]), longer)
    taken = mine.copy()
    taken.take_in(np.array([], np.int64), LaneState.empty(params))
    assert taken.trial.dump().keys() == mine.trial.dump().keys()
