"""Folds, and what a choice can and cannot see of the data after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration
from autoscaler.simulator.search import walkforward
from autoscaler.simulator.search.executors import Processes
from autoscaler.simulator.search.limits import NO_WORSE
from autoscaler.simulator.search.recommending import chosen
from autoscaler.simulator.search.sweep import SweepCourse, run_sweep
from autoscaler.simulator.search.variants import Axis, grid
from autoscaler.simulator.search.walkforward import embargo_ticks, plan_folds, walk
from autoscaler.simulator.traffic.parts import Daily, Level, Recipe, generate
from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.traces.trace import Trace
from tests.search.builders import BASE, Interrupted
from tests.search.dying import Dying
from tests.simulator.builders import policy

TICK_S = 300.0
BASE_5M = replace(BASE, tick_s=TICK_S)
TRACE = generate(
    Recipe(
        parts=(Level(900.0), Daily(2400.0)), dispersion=30.0, length_s=5 * 86_400.0, interval_s=TICK_S, seed=4
    )
)
COURSE = SweepCourse(TRACE, Ticks.over(TRACE.start_s, 5 * 86_400.0, TICK_S), seed=3, warm_up_ticks=12)
VARIANTS = [
    BASE_5M.variant({}),
    *grid(
        BASE_5M,
        [Axis("reactive.headroom", ("0%", "10%", "40%", "90%")), Axis("guards.stabilisation", ("0s", "30m"))],
    ),
]
EMBARGO = embargo_ticks(VARIANTS, TICK_S, TICK_S)
PLAN = plan_folds(COURSE, EMBARGO)


def values_of(walked):
    """All that was found, as values that can be compared."""
    scores = [*walked.chosen_on, *walked.judged_on, walked.whole]
    values = [
        [None if np.isnan(x) else x for x in column.tolist()]
        for score in scores
        for column in score.values.values()
    ]
    cells = [each.tolist() for each in (walked.cells.cost, walked.cells.shortage, walked.cells.demand)]
    return values, cells, walked.cells.ends, walked.digests, walked.numbers


@pytest.fixture(name="walked", scope="module")
def _walked():
    return walk(VARIANTS, COURSE, PLAN)


# ── folding ────────────────────────────────────────────────────────────────────────────────────────────────


def test_folds_follow_each_other_and_keep_the_embargo():
    assert len(PLAN.folds) == 4
    assert PLAN.folds[-1].judged_to == COURSE.ticks.count
    for one, following in zip(PLAN.folds, PLAN.folds[1:], strict=False):
        assert one.judged_to == following.chosen_to
    for fold in PLAN.folds:
        assert COURSE.warm_up_ticks < fold.chosen_to
        assert fold.judged_from - fold.chosen_to == EMBARGO
        assert fold.judged_to - fold.judged_from > 3 * EMBARGO


def test_folds_are_whole_days_and_weeks_where_there_are_enough():
    for days, folds, word in ((5.1, 4, "days"), (36, 4, "weeks"), (3, 4, "hours")):
        trace = synth_day(1, days=days, interval_s=300.0)
        plan = plan_folds(SweepCourse(trace, Ticks.over(trace.start_s, days * 86_400.0, 300.0)), 3, folds)
        assert f"whole {word}" in plan.why
        part = {"days": 288, "weeks": 7 * 288, "hours": 12}[word]
        assert (plan.folds[0].judged_to - plan.folds[0].chosen_to) % part == 0


def test_a_short_course_has_fewer_folds_or_none_and_says_so():
    fewer = plan_folds(replace(COURSE, ticks=Ticks(COURSE.ticks.first, 400, TICK_S)), EMBARGO)
    assert 2 <= len(fewer.folds) < 4
    none = plan_folds(replace(COURSE, ticks=Ticks(COURSE.ticks.first, 200, TICK_S)), EMBARGO)
    assert none.folds == ()
    assert "too few for 2 folds" in none.why
    assert "chosen and judged on the same time" in none.why


def test_the_embargo_covers_horizon_lead_time_and_lag():
    plain = policy(vm={"start_time": "10m", "stop_time": "5m"}, forecast="off")
    ahead = policy(vm={"start_time": "10m", "stop_time": "5m"})
    late = replace(BASE.plant, start=Duration(600.0), metric_lag_s=120.0)
    given = type(BASE)(plain, late, 60.0).variant({})
    forecasting = type(BASE)(ahead, late, 60.0).variant({})
    slow = replace(given, plant=replace(late, start=Duration(1200.0)))
    assert embargo_ticks([given], 60.0, 60.0) == 10 + 2 + 1
    assert embargo_ticks([given, forecasting], 60.0, 60.0) == 15 + 10 + 2 + 1
    assert embargo_ticks([given, slow], 60.0, 60.0) == 20 + 2 + 1


# ── figures ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_is_what_a_sweep_finds(walked):
    swept = run_sweep(VARIANTS, COURSE)
    assert walked.digests == swept.digests
    cost = walked.cells.cost
    assert np.add.reduce(cost, axis=0) == pytest.approx(walked.whole["cost"], rel=1e-12)
    from autoscaler.simulator.judging.ledger import Amount

    assert walked.whole["cost"].tolist() == swept.sums.amount(Amount.COST).tolist()


def test_a_fold_is_judged_on_its_own_time_only(walked):
    """What it is judged on, summed from the cells between."""
    ends = np.array(walked.cells.ends)
    for fold, score in zip(PLAN.folds, walked.judged_on, strict=True):
        rows = (ends > fold.judged_from) & (ends <= fold.judged_to)
        assert np.add.reduce(walked.cells.cost[rows], axis=0) == pytest.approx(score["cost"], rel=1e-9)
    for fold, score in zip(PLAN.folds, walked.chosen_on, strict=True):
        rows = ends <= fold.chosen_to
        assert np.add.reduce(walked.cells.cost[rows], axis=0) == pytest.approx(score["cost"], rel=1e-9)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("until_the_end", [False, True])
def test_poison_in_the_embargo_and_after_it_changes_nothing_chosen(walked, number, until_the_end):
    fold = PLAN.folds[number]
    start_s = COURSE.ticks.start_s
    first_s = start_s + fold.chosen_to * TICK_S
    end_s = start_s + (COURSE.ticks.count if until_the_end else fold.judged_from) * TICK_S
    poisoned = (TRACE.timestamps >= first_s) & (TRACE.timestamps < end_s)
    assert poisoned.any()
    values = np.where(poisoned, 1e6, TRACE.values)
    trace = Trace.build(TRACE.timestamps, values, kind=TRACE.kind, interval_s=TRACE.interval_s)
    again = walk(VARIANTS, replace(COURSE, trace=trace), PLAN)
    for before in range(number + 1):
        mine, theirs = again.chosen_on[before], walked.chosen_on[before]
        assert chosen(mine, (NO_WORSE,), 0) == chosen(theirs, (NO_WORSE,), 0)
        for key in ("cost", "unserved_share", "shortage_s", "starts_per_day"):
            assert mine[key].tolist() == theirs[key].tolist()
    # The poison was not harmless: the whole shows it.
    assert again.whole["unserved_share"].tolist() != walked.whole["unserved_share"].tolist()


# ── who computes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [1, 4])
def test_how_wide_the_parts_are_changes_no_bit(walked, width):
    shares = []
    assert values_of(walk(VARIANTS, COURSE, PLAN, part_variants=width, progress=shares.append)) == values_of(
        walked
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_how_many_processes_compute_changes_no_bit(walked):
    assert values_of(walk(VARIANTS, COURSE, PLAN, executor=Processes(2), part_variants=2)) == values_of(
        walked
    )


def test_a_killed_process_is_named_and_what_finished_is_kept(walked):
    again = walk(
        VARIANTS,
        COURSE,
        PLAN,
        executor=Dying(walkforward._walk_part, {"reactive.headroom": "40%"}),
        part_variants=1,
    )
    assert again.numbers == (0, 1, 2, 3, 4, 7, 8)
    assert [str(each) for each in again.unfinished] == [
        "variants 5 to 5 have no result: its process ended by signal 9",
        "variants 6 to 6 have no result: its process ended by signal 9",
    ]
    kept = list(again.numbers)
    assert again.whole["cost"].tolist() == walked.whole["cost"][kept].tolist()
    with pytest.raises(ConfigError, match=r"variants 0 to 0 have no result.*Run these again"):
        walk(
            [VARIANTS[5]], COURSE, PLAN, executor=Dying(walkforward._walk_part, {"reactive.headroom": "40%"})
        )


def test_after_ctrl_c_what_is_finished_is_kept(walked):
    again = walk(VARIANTS, COURSE, PLAN, executor=Interrupted(2), part_variants=3)
    assert again.interrupted
    assert again.numbers == (0, 1, 2, 3, 4, 5)
    assert again.digests == walked.digests[:6]
    with pytest.raises(KeyboardInterrupt):
        walk(VARIANTS, COURSE, PLAN, executor=Interrupted(0), part_variants=3)
