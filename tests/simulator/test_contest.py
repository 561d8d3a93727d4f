"""Contests cut into segments have the same bits as the uncut run, and a bad seam is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.types import Int, Snapshot
from autoscaler.simulator.judging.contest import Contestant, ContestCourse, contest
from autoscaler.simulator.judging.standings import RIVALS, terms_of, without_pool
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.peers.holding import DelayedOff, Google
from autoscaler.simulator.peers.peer import Sized
from autoscaler.simulator.peers.periodic import SameTimeBefore
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy
from tests.simulator.test_ledger import assert_same

PLANT = PlantSettings(vms=25, in_service=6, start=Duration(50.0), provision=Duration(300.0))


def a_policy(**changes):
    base = {
        "signal": {"kind": "total", "max_age": "300s"},
        "vm": {"start_time": "60s"},
        "bounds": {"minimum": 1, "maximum": 25},
        "warm_pool": {"memory": "1h"},
    }
    return policy(**(base | changes))


def restless(ticks: int, tick_s: float) -> Trace:
    rng = np.random.default_rng(4)
    day = np.arange(ticks) * tick_s / 86_400
    level = 700 + 450 * np.sin(day * 2 * np.pi) + rng.gamma(1.0, 60.0, ticks)
    for begin in rng.integers(0, ticks, ticks // 200):
        level[begin : begin + 15] += 600
    known = rng.random(ticks) > 0.02
    known[0] = True
    stamps = BEGIN_S + tick_s * np.arange(ticks)
    return Trace.build(
        stamps[known], np.maximum(level[known], 0.0), kind=TraceKind.GAUGE, name="restless", interval_s=tick_s
    )


def course(ticks: int, tick_s: float = 300.0, warm_up: int = 20) -> ContestCourse:
    return ContestCourse(
        restless(ticks, tick_s), Ticks.over(BEGIN_S, ticks * tick_s, tick_s), warm_up_ticks=warm_up, seed=3
    )


def everybody(tick_s: float) -> list[Contestant]:
    terms = terms_of(a_policy(), PLANT, tick_s)
    shaky = replace(PLANT, start_failure=0.1, start=Duration(50.0, p95_s=100.0))
    return [
        Contestant(a_policy(), PLANT),
        Contestant(*without_pool(a_policy(), PLANT)),
        Contestant(a_policy(forecast="off", guards={"minimum_on_time": "10m"}), shaky),
        *(
            Contestant(a_policy(forecast="off"), PLANT, lambda params, rival=rival: rival.make(params, terms))
            for rival in RIVALS
        ),
    ]


@pytest.mark.parametrize("tick_s", [300.0, 20.0])
def test_segments_have_the_bits_of_the_uncut_run(tick_s: float) -> None:
    ticks = {300.0: 2000, 20.0: 5600}[tick_s]
    contestants = everybody(tick_s)
    whole = contest(contestants, course(ticks, tick_s), segments=1)
    cut = contest(contestants, course(ticks, tick_s), segments=3)
    assert (whole.segments, whole.again) == (1, ())
    assert cut.segments > 1
    assert whole.begins == cut.begins
    assert whole.sums is not None
    assert cut.sums is not None
    assert whole.sums.ticks == ticks - 20
    assert_same(whole.sums, cut.sums)
    # Cutting would be pointless if seams were torn; every peer has forgotten its beginning by then.
    assert not [at for at in cut.again if contestants[at].make is not None]


def test_a_long_run_is_cut_by_itself_and_a_short_one_is_not() -> None:
    contestants = [Contestant(a_policy(forecast="off"), PLANT, Google)]
    assert contest(contestants, course(400)).segments == 1
    assert contest(contestants, course(9000)).segments > 2


class Stubborn(Sized):
    """Forgets nothing: twice as many VMs as were in service when it began."""

    def __init__(self, params) -> None:
        super().__init__(params)
        self._began: Int | None = None

    def sized(self, snapshot: Snapshot) -> Int:
        if self._began is None:
            self._began = np.asarray(2 * snapshot.in_service, np.int64)
        return self._began

    def memory(self, now_s: float):
        assert self._began is not None
        return [self._began[np.newaxis]]


class Creeping(Sized):
    """Counts its ticks, and needs a VM more every 400 of them: its segments begin as no uncut run would."""

    def __init__(self, params) -> None:
        super().__init__(params)
        self._ticks = np.zeros(len(params.series), np.int64)

    def sized(self, snapshot: Snapshot) -> Int:
        self._ticks = self._ticks + 1
        return 1 + self._ticks // 400

    def memory(self, now_s: float):
        return [self._ticks[np.newaxis]]


def creeping() -> list[Contestant]:
    bare = a_policy(forecast="off")
    return [
        Contestant(bare, PLANT, Google),
        Contestant(bare, PLANT, Creeping),
        Contestant(bare, PLANT, lambda params: DelayedOff(params, break_even_s=900.0)),
    ]


@pytest.mark.parametrize(("segments", "rounds", "again"), [(2, 2, ()), (3, 2, (1,)), (8, 2, (1,))])
def test_a_contestant_that_does_not_forget_is_mended_or_runs_again_uncut(
    segments: int, rounds: int, again: tuple[int, ...]
) -> None:
    cut = contest(creeping(), course(2500), segments=segments)
    assert (cut.segments, cut.rounds, cut.again) == (segments, rounds, again)
    assert cut.sums is not None
    whole = contest(creeping(), course(2500), segments=1).sums
    assert whole is not None
    assert_same(cut.sums, whole)


def priced() -> list[Contestant]:
    """Policies with an objective, which cannot be cut, and peers, which can."""
    terms = terms_of(a_policy(), PLANT, 300.0)
    ours = a_policy(objective={"shortage_price": "5/h"}, prices={"in_service": "0.1/h", "stopped": "0.01/h"})
    shaky = replace(PLANT, start_failure=0.1, start=Duration(50.0, p95_s=100.0))
    return [
        Contestant(ours, PLANT),
        Contestant(*without_pool(ours, PLANT)),
        *(Contestant(ours, shaky, lambda params, rival=rival: rival.make(params, terms)) for rival in RIVALS),
    ]


def test_peers_are_cut_beside_policies_that_cannot_be() -> None:
    told: list[float] = []
    parted = contest(priced(), course(1500), progress=told.append, segments=2)
    whole = contest(priced(), course(1500), segments=1)
    assert parted.segments > 1
    assert parted.begins == whole.begins
    assert parted.sums is not None
    assert whole.sums is not None
    assert_same(parted.sums, whole.sums)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("looks", [1, 18])
def test_ended_among_policies_or_among_peers_it_has_no_sums(looks: int) -> None:
    left = iter(range(looks))
    ended = contest(priced(), course(2500), enough=lambda: next(left, None) is None, segments=3)
    assert ended.sums is None
    assert next(left, None) is None


def test_a_memory_of_a_week_is_not_cut_at_a_day() -> None:
    contestants = [
        Contestant(
            a_policy(forecast="off"),
            PLANT,
            lambda params: SameTimeBefore(params, period_s=7 * 86_400.0, ahead_s=60.0),
        )
    ]
    cut = contest(contestants, course(4000), segments=3)
    assert cut.rounds > 1
    assert cut.sums is not None
    whole = contest(contestants, course(4000), segments=1).sums
    assert whole is not None
    assert_same(cut.sums, whole)


def test_what_is_the_same_in_every_segment_is_not_run_again() -> None:
    contestants = [Contestant(a_policy(forecast="off"), PLANT, Stubborn)]
    cut = contest(contestants, course(2500), segments=3)
    assert (cut.rounds, cut.again) == (1, ())


@pytest.mark.parametrize("segments", [1, 3])
def test_a_run_ended_before_its_end_has_no_sums(segments: int) -> None:
    calls: list[float] = []
    found = contest(
        everybody(300.0),
        course(2500),
        segments=segments,
        progress=calls.append,
        enough=lambda: len(calls) > 2,
    )
    assert found.sums is None
    assert len(calls) == 3
