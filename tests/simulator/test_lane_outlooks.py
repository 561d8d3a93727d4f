"""Kept outlooks equal those issued, including laws, for lanes that share a series, shorter runs, and shifted ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.law_grid import PagedLaws
from autoscaler.core.types import Samples
from autoscaler.simulator.lanes.measuring import Metrics, Ticks
from autoscaler.simulator.lanes.outlooks import Ahead, OutlookCache, Table
from tests.core.builders import series_params

TICK_S = 60.0
TICKS = Ticks(1000, 700, TICK_S)


def lumps(seed):
    """Demand of a lump of three VMs now and then, so that the offset of the laws changes as it is learned."""
    values = 300.0 * np.random.default_rng(seed).poisson(0.5, 700)
    return Metrics(values, np.full(700, TICKS.start_s), np.zeros(700, np.int64))


def params(series):
    return series_params(
        series, laws=True, tick_s=TICK_S, lead=1, keep=2, hold=5, refill=60, half_life=7200.0
    )


def issued(seen, count):
    given = params(1)
    state = SeriesState.empty(given)
    for at, now_s in enumerate(TICKS.times_s[:count].tolist()):
        demand = seen.demand[at : at + 1]
        yield step(
            given,
            state,
            Samples(now_s, demand, demand, seen.freshness[at : at + 1], np.ones(1), np.zeros(1, np.bool_)),
        )


def same(found, column, outlook):
    np.testing.assert_array_equal(found.at_lead[:, column], outlook.at_lead[:, 0])
    np.testing.assert_array_equal(found.peak[:, column], outlook.peak[:, 0])
    for name in ("level", "spread", "scale", "excess"):
        np.testing.assert_array_equal(getattr(found.laws, name)[column], getattr(outlook.laws, name)[0])


def test_what_is_kept_is_what_was_issued():
    recordings = {"a": lumps(1), "b": lumps(2)}
    outlooks, series = OutlookCache().table(
        ["a", "b", "a"], lambda key, ticks: recordings[key], params(3), TICKS
    )
    assert series.tolist() == [0, 1, 0]
    table = Table(outlooks, series)
    scales = set()
    for tick, (one, two) in enumerate(
        zip(issued(recordings["a"], 700), issued(recordings["b"], 700), strict=True)
    ):
        found = table.at(tick, None)
        same(found, 0, one)
        same(found, 1, two)
        scales.add(float(one.laws.scale[0]))
    assert len(scales) > 1


@pytest.mark.parametrize("wants", [[False, True], [True, False]])
def test_a_lane_with_an_objective_has_its_laws_beside_one_without(wants):
    both = replace(params(2), laws=np.array(wants))
    outlooks, series = OutlookCache().table(["a", "a"], lambda key, ticks: lumps(1), both, TICKS)
    assert series.tolist() == [0, 0]
    table = Table(outlooks, series)
    for tick, outlook in enumerate(issued(lumps(1), 200)):
        same(table.at(tick, None), 0, outlook)


def test_a_shorter_run_takes_the_beginning_of_a_longer_one_and_is_not_stepped_again():
    calls = []

    def seen(key, ticks):
        calls.append((key, ticks.count))
        return lumps(1)

    cache = OutlookCache()
    cache.table(["a"], seen, params(1), TICKS)
    outlooks, _ = cache.table(["a"], seen, params(1), replace(TICKS, count=300))
    assert calls == [("a", 700)]
    assert outlooks.excess.shape[0] == len(outlooks.evidence) == 300
    for tick, outlook in enumerate(issued(lumps(1), 300)):
        same(outlooks.at(tick), 0, outlook)
    cache.table(["a"], seen, params(1), replace(TICKS, first=1001, count=300))
    assert calls[1:] == [("a", 300)]


def test_lanes_that_are_ahead_read_their_own_tick():
    outlooks, series = OutlookCache().table(["a", "a"], lambda key, ticks: lumps(1), params(2), TICKS)
    table = Table(outlooks, series, shifts=np.array([0, 200]))
    every = list(issued(lumps(1), 700))
    found = table.at(100, None)
    same(found, 0, every[100])
    same(found, 1, every[300])
    # Beyond the end of the table nothing counts; the last row stands in.
    same(table.at(650, None), 1, every[-1])


def test_what_is_made_ahead_of_the_run_is_what_was_issued():
    recordings = [lumps(1), lumps(2)]
    feed = Ahead(recordings, params(2), np.array([0, 1, 0]), TICKS)
    for tick, (one, two) in enumerate(
        zip(issued(recordings[0], 700), issued(recordings[1], 700), strict=True)
    ):
        found = feed.at(tick, None)
        same(found, 0, one)
        same(found, 1, two)
        page, row = found.laws.page, found.laws.row
        assert page.first_tick + row == TICKS.first + tick
        assert page.demand[row].tolist() == [recording.demand[tick] for recording in recordings]


@pytest.mark.parametrize(("series", "per_page"), [(1, 240), (3, 80), (9, 0)])
def test_laws_tell_the_page_that_they_are_on_where_they_are_few(series, per_page):
    recordings = {f"t{number}": lumps(number) for number in range(series)}
    some = replace(TICKS, count=250)
    outlooks, of = OutlookCache().table(
        list(recordings), lambda key, ticks: recordings[key], params(series), some
    )
    table = Table(outlooks, of, first_tick=some.first)
    told = [table.at(tick, None).laws for tick in range(some.count)]
    paged = [laws for laws in told if isinstance(laws, PagedLaws)]
    assert len(paged) == (some.count if per_page else 0)
    assert len({id(laws.page) for laws in paged}) == (math.ceil(some.count / per_page) if per_page else 0)
    for tick, laws in enumerate(paged):
        # The last page ends with the run.
        assert laws.page.ticks == min(per_page, some.count - tick + tick % per_page)
        assert laws.row == tick % per_page
        assert laws.page.first_tick + laws.row == some.first + tick
        for number, recording in enumerate(recordings.values()):
            assert laws.page.demand[laws.row, number] == recording.demand[tick]
        for name in ("level", "spread", "scale", "excess"):
            mine = np.split(getattr(laws.page.laws, name), laws.page.ticks)[laws.row]
            np.testing.assert_array_equal(mine, getattr(laws, name))
