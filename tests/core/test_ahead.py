"""Work done ahead or in batches gives the same results as tick by tick, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.decide import decide
from autoscaler.core.law_grid import LawPage, PagedLaws
from autoscaler.core.objective.ahead import AHEAD
from autoscaler.core.objective.charging import CHARGES
from autoscaler.core.objective.demand_buffer import BUFFERED_DEMAND
from autoscaler.core.objective.habits import DAY_S, Habits, note, note_page
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness
from tests.core.builders import DECIDED, arrays_of, snapshot
from tests.core.laws import joined, laws_of, whole
from tests.core.test_economic import objective

PER_PAGE = 10
SERIES, LANES = 2, 12


def variants(tick_s, **changed):
    """Lanes of two series at three prices; the last two are promised a share."""
    given = {
        "series": np.arange(LANES) % SERIES,
        "shortage_price": np.array([8.0, 70.0, 500.0])[np.arange(LANES) // SERIES % 3],
        "unserved_target": np.where(np.arange(LANES) < 10, 0.0, 0.01),
        "start_cost": 0.7,
        "lead_ticks": 3,
        "billed_ticks": 2,
        "tick_s": tick_s,
    }
    return objective(LANES, **(given | changed))


def story(seed, ticks, tick_s, *, troubles, series=SERIES):
    """Ticks that see something, with the page that foresees them and the row on it; with troubles not all is as foreseen."""
    rng = np.random.default_rng(seed)
    demand = rng.gamma(3.0, 3.0, (ticks, series)) * (1.0 + (np.arange(ticks) % 97 < 9))[:, np.newaxis]
    each = [
        joined([laws_of(of[of >= 0.0] + rng.gamma(2.0, 1.0, 9)) for of in now[:, np.newaxis]])
        for now in demand
    ]
    first = 10**5
    for at in range(ticks):
        begin = at - at % PER_PAGE
        if at == begin:
            page = LawPage(
                joined(each[begin : begin + PER_PAGE]),
                PER_PAGE,
                first + begin,
                demand[begin : begin + PER_PAGE],
            )
        seen, freshness = demand[at][np.arange(LANES) % series], np.zeros(LANES, np.int64)
        censored = np.zeros(LANES, np.bool_)
        if troubles and rng.random() < 0.02:
            seen = seen * 1.1
        if troubles and rng.random() < 0.02:
            freshness[:] = int(Freshness.ABSENT)
            seen = np.full(LANES, np.nan)
        if troubles and rng.random() < 0.02:
            censored[:] = True
        if troubles and rng.random() < 0.02:
            continue
        view = snapshot(
            LANES,
            now_s=(first + at) * tick_s,
            tick=first + at,
            demand=seen,
            freshness=freshness,
            censored=censored,
            in_service=rng.integers(0, 20, LANES),
        )
        yield view, each[at], page, at - begin


@pytest.mark.parametrize(("tick_s", "ticks"), [(20.0, 400), (60.0, 400), (900.0, 300)])
@pytest.mark.parametrize("troubles", [False, True])
def test_foreseen_or_not_the_same_is_decided_and_remembered(tick_s, ticks, troubles):
    params = variants(tick_s)
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    rng, ahead = np.random.default_rng(7), 0
    for view, laws, page, row in story(3, ticks, tick_s, troubles=troubles):
        paged = PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row)
        a, b = decide(params, foreseen, view, whole(paged)), decide(params, alone, view, whole(laws))
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        ahead += AHEAD in foreseen.trial.owed
        assert AHEAD not in alone.trial.owed
        if rng.random() < 0.03:
            # One is looked at, the other never is.
            foreseen.trial.dump()
        if troubles and rng.random() < 0.03:
            decide(params, foreseen, view, whole(paged))
            decide(params, alone, view, whole(laws))
        if troubles and rng.random() < 0.02:
            foreseen = foreseen.carried_over(params, np.arange(LANES))
            alone = alone.carried_over(params, np.arange(LANES))
    assert ahead > ticks // 3
    theirs = arrays_of(alone.trial)
    for name, array in arrays_of(foreseen.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("troubles", [False, True])
def test_policies_that_are_compiled_anew_leave_nothing_ahead_behind(troubles):
    """One tick in ten is on no page, as those are that come one by one."""
    params = variants(60.0)
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    rng, left = np.random.default_rng(2), 0
    for view, laws, page, row in story(6, 300, 60.0, troubles=troubles):
        given = whole(laws)
        if rng.random() < 0.9:
            given = whole(PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row))
        if rng.random() < 0.1:
            params = replace(params)
            left += AHEAD in foreseen.trial.owed and given.laws is laws
        a, b = decide(params, foreseen, view, given), decide(params, alone, view, whole(laws))
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert left > 0
    theirs = arrays_of(alone.trial)
    for name, array in arrays_of(foreseen.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("tick_s", [60.0, 900.0])
def test_falls_are_doubted_ahead_as_they_are_tick_by_tick(tick_s):
    """Demand is there for a day, then falls to nothing now and then, within pages and between them."""
    params, rng, day = variants(tick_s), np.random.default_rng(8), int(DAY_S / tick_s)
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    ticks, first, doubts = day + 40 * PER_PAGE, 10**5, 0
    demand = 20.0 + rng.gamma(3.0, 1.0, (ticks, SERIES))
    for at in rng.integers(day, ticks, 7):
        demand[at : at + rng.integers(1, 30), rng.integers(SERIES)] *= 0.05
    laws = [joined([laws_of(np.full(4, each)) for each in now]) for now in demand]
    for at, mine in enumerate(laws):
        begin = at - at % PER_PAGE
        if at == begin:
            some = slice(begin, begin + PER_PAGE)
            page = LawPage(joined(laws[some]), len(laws[some]), first + begin, demand[some])
        view = snapshot(
            LANES,
            now_s=(first + at) * tick_s,
            tick=first + at,
            demand=demand[at][np.arange(LANES) % SERIES],
            in_service=25,
        )
        paged = PagedLaws(mine.level, mine.spread, mine.scale, mine.excess, page, at - begin)
        a, b = decide(params, foreseen, view, whole(paged)), decide(params, alone, view, whole(mine))
        np.testing.assert_array_equal(a.value, b.value)
        np.testing.assert_array_equal(a.reason, b.reason)
        doubts += a.economics.doubted is not None
    assert doubts > 10
    theirs = arrays_of(alone.trial)
    for name, array in arrays_of(foreseen.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_who_sees_what_nobody_foresaw_parts_from_the_others():
    params = variants(60.0, unserved_target=0.0)
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    for at, (view, laws, page, row) in enumerate(story(5, 200, 60.0, troubles=False)):
        if at in (77, 120):
            view.demand[at % LANES] += 9.0
        paged = PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row)
        a, b = decide(params, foreseen, view, whole(paged)), decide(params, alone, view, whole(laws))
        np.testing.assert_array_equal(a.value, b.value)
    assert len(foreseen.trial.weight) == 8
    theirs = arrays_of(alone.trial)
    for name, array in arrays_of(foreseen.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("lanes", [1, 3])
def test_charged_and_noted_together_is_charged_and_noted_tick_by_tick(lanes):
    rng = np.random.default_rng(lanes)
    params = objective(lanes, start_cost=0.7, lead_ticks=4, billed_ticks=3, maximum=50)
    together, single = LaneState.empty(params), LaneState.empty(params)
    owed = set()
    for tick in range(700):
        demand = rng.gamma(2.0, 5.0, lanes)
        laws = whole(joined([laws_of(np.full(4, each)) for each in demand]))
        view = snapshot(lanes, now_s=1e6 + tick * 10.0, demand=demand, in_service=9)
        a, b = decide(params, together, view, laws), decide(params, single, view, laws)
        np.testing.assert_array_equal(a.value, b.value)
        single.trial.settle()
        assert not single.trial.owed
        owed |= set(together.trial.owed)
    assert owed == {CHARGES, BUFFERED_DEMAND}
    theirs = arrays_of(single.trial)
    for name, array in arrays_of(together.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_a_lane_is_charged_as_alone_beside_one_whose_demand_is_sometimes_unknown():
    rng = np.random.default_rng(8)
    both, one = (objective(n, start_cost=0.7, lead_ticks=4, billed_ticks=3, maximum=50) for n in (2, 1))
    beside, alone = LaneState.empty(both), LaneState.empty(one)
    for tick in range(400):
        demand = rng.gamma(2.0, 5.0, 2)
        laws = [laws_of(np.full(4, each)) for each in demand]
        unknown = rng.random() < 0.5
        fresh = np.array([Freshness.FRESH, Freshness.ABSENT if unknown else Freshness.FRESH], np.int64)
        demand[1] = np.nan if unknown else demand[1]
        seen = {"now_s": 1e6 + tick * 10.0, "in_service": 9}
        a = decide(both, beside, snapshot(2, demand=demand, freshness=fresh, **seen), whole(joined(laws)))
        b = decide(one, alone, snapshot(1, demand=demand[:1], **seen), whole(laws[0]))
        np.testing.assert_array_equal(a.value[:, :1], b.value)
    beside.trial.settle(), alone.trial.settle()
    for name in ("lately", "paid", "unserved", "below", "weight", "wanted", "needed", "ticks"):
        theirs = getattr(alone.trial, name)
        np.testing.assert_array_equal(getattr(beside.trial, name)[..., :1], theirs, err_msg=name)


@pytest.mark.parametrize("tick_s", [7.0, 60.0, 450.0])
def test_a_page_of_demand_is_noted_as_its_ticks_are(tick_s):
    rng = np.random.default_rng(1)
    page, single = Habits.empty(3, 1, tick_s), Habits.empty(3, 1, tick_s)
    now_s, known = 20_000 * DAY_S, np.ones(3, np.bool_)
    for _ in range(60):
        need = rng.gamma(2.0, 3.0, (int(rng.integers(1, 8)), 3)) * (10.0 if rng.random() < 0.2 else 1.0)
        need[rng.random(len(need)) < 0.3] = 2.5
        times = [now_s + tick * tick_s for tick in range(len(need))]
        note_page(page, times, need, tick_s)
        for each_s, each in zip(times, need, strict=True):
            note(single, each_s, each, known, tick_s)
        # The next page is of another hour, or of the one after a gap.
        now_s = (times[-1] // 3600.0 + float(rng.integers(1, 4))) * 3600.0
        page.seen *= np.float32(0.9)
        single.seen *= np.float32(0.9)
    for name, array in arrays_of(page).items():
        np.testing.assert_array_equal(array, getattr(single, name), err_msg=name)
    assert (page.slot, page.week_slot) == (single.slot, single.week_slot)
