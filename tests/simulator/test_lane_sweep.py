"""Sweeps: variants are validated, results are labelled, and the executor does not change a bit."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Budget, Duration
from autoscaler.simulator.lanes.segments import run_segmented
from autoscaler.simulator.search import sweep
from autoscaler.simulator.search.executors import Finished, LostPart, Processes
from autoscaler.simulator.search.sweep import SweepCourse, run_sweep
from autoscaler.simulator.search.variants import Axis, Between, grid, sampled
from tests.search.builders import BASE, TRACE, Interrupted, figures
from tests.search.dying import Dying, wrong
from tests.simulator.builders import policy

COURSE = SweepCourse(TRACE, Ticks.over(TRACE.start_s, 43_200.0, 60.0), seed=3)
AXES = [
    Axis("reactive.headroom", ("5%", "20%", "60%")),
    Axis("guards.stabilisation", ("0s", "10m")),
    Axis("plant.start.p95_s", (60.0, 100.0)),
]


@pytest.fixture(name="variants", scope="module")
def _variants():
    return list(grid(BASE, AXES))


@pytest.fixture(name="result", scope="module")
def _result(variants):
    return run_sweep(variants, COURSE)


# ── variants ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grid_is_the_product_and_keeps_its_labels(result):
    values = [
        (each.values["reactive.headroom"], each.values["plant.start.p95_s"]) for each in result.variants
    ]
    assert values == [(room, p95_s) for room in ("5%", "20%", "60%") for p95_s in (60.0, 100.0) * 2]
    assert result.numbers.tolist() == list(range(12))
    for variant in result.variants:
        assert f"{variant.policy.reactive.headroom:.0%}" == variant.values["reactive.headroom"]
        assert variant.plant.start.p95_s == variant.values["plant.start.p95_s"]
    cost = result.sums.amount(Amount.COST)
    assert cost[8] > cost[4] > cost[0]


def test_a_variant_of_nothing_is_the_base():
    assert BASE.variant({}).policy == BASE.policy
    again = BASE.variant({"reactive.headroom": "20%"})
    assert again.policy == BASE.policy
    assert BASE.variant({"forecast.cover": "99%"}).policy.forecast.cover == 0.99


def test_random_variants_are_in_range_and_an_axis_more_shifts_no_other():
    ranges = [
        Between("reactive.headroom", "5%", "80%"),
        Between("guards.stabilisation", "1m", "1h", logarithmic=True),
        Between("bounds.minimum", 1, 6),
    ]
    some = list(sampled(BASE, ranges[:2], 300, seed=1))
    more = list(sampled(BASE, [*ranges, Between("plant.stop_s", 10.0, 90.0)], 300, seed=1))
    headroom = np.array([each.policy.reactive.headroom for each in some])
    assert 0.05 <= headroom.min() < 0.1
    assert 0.75 < headroom.max() <= 0.8
    stabilisation = np.array([each.policy.guards.stabilisation_s for each in some])
    assert np.median(stabilisation) == pytest.approx(np.sqrt(60 * 3600), rel=0.25)
    assert [each.values["reactive.headroom"] for each in more] == [
        each.values["reactive.headroom"] for each in some
    ]
    assert {each.policy.bounds.minimum for each in more} == {1, 2, 3, 4, 5, 6}
    assert some[7].values != list(sampled(BASE, ranges[:2], 300, seed=2))[7].values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"reactive.headrom": "5%"},
            r"`reactive\.headrom` is not a field of a policy; did you mean `reactive\.headroom`\?",
        ),
        ({"headroom": "5%"}, r"not a field of a policy; it belongs at `reactive\.headroom`"),
        ({"plnt.vms": 5}, r"did you mean `plant`\?"),
        ({"reactive.headroom": "2000%"}, r"headroom = 2000%.*out of range; it must be 0% to 1000%"),
        ({"reactive.headroom": 0.2}, r"not a percentage"),
        ({"bounds.minimum": 90}, r"a variant is wrong \(bounds\.minimum = 90\)"),
        ({"steps.0.change": 3}, r"`steps\.0`: the policy has 0 entries"),
        (
            {"plant.strat.mean_s": 4},
            r"`plant\.strat\.mean_s` is not a field of the plant; did you mean `plant\.start`\?",
        ),
        ({"plant.start.mean": 4}, r"did you mean `plant\.start\.mean_s`\?"),
        ({"plant": 4}, r"is not a field of the plant"),
        ({"plant.vms": -4}, r"`plant\.vms`: vms must be within 0"),
        ({"plant.vms": "many"}, r"`plant\.vms`: 'many' is not a number"),
        ({"plant.vms": 2.5}, r"a number of VMs, not 2\.5"),
        ({"plant.start_budget.vms": 5.0}, r"`start_budget` is None and has no fields"),
        ({"plant.shortage": "gone"}, r"shortage is one of lost, queued, slows"),
    ],
)
def test_a_wrong_variant_is_told_before_anything_runs(values, words):
    with pytest.raises(ConfigError, match=words):
        BASE.variant(values)


def test_wrong_axes_and_ranges_are_told():
    for make, words in (
        (lambda: list(grid(BASE, [Axis("plant.vms", ())])), "has no values"),
        (lambda: list(grid(BASE, [AXES[0], AXES[0]])), "given twice"),
        (lambda: list(grid(BASE, [Axis("plant.vms", tuple(range(1200)))] * 1 + [Axis("plant.stop_s", tuple(range(900)))])), "1,080,000 variants"),
        (lambda: list(sampled(BASE, [Between("plant.vms", 9, 3)], 5, 0)), "ends at 3 before it begins at 9"),
        (lambda: list(sampled(BASE, [Between("plant.stop_s", 0, 3, logarithmic=True)], 5, 0)), "begins above 0"),
        (lambda: list(sampled(BASE, [Between("reactive.headroom", 1, 3)], 5, 0)), "a range needs numbers, not 1"),
        (lambda: list(sampled(BASE, [Between("reactive.head", "1%", "3%")], 5, 0)), r"did you mean `reactive\.headroom`"),
        (lambda: list(sampled(BASE, [Between("plant.vms", 1, 3)], 0, 0)), "not 0"),
        (lambda: run_sweep([], COURSE), "at least one variant"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            make()


def test_a_plants_sections_can_be_given_whole():
    changed = BASE.variant(
        {"plant.start": 25, "plant.start_budget": Budget(5.0, 1.0), "plant.shortage": "queued"}
    )
    assert changed.plant.start == Duration(25.0)
    assert changed.plant.start_budget.vms == 5.0
    assert changed.plant.shortage == "queued"


# ── who computes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [1, 5, 12])
def test_how_wide_the_parts_are_changes_nothing(variants, result, width):
    told = []
    again = run_sweep(variants, COURSE, part_variants=width, on_part=lambda done, of: told.append((done, of)))
    assert figures(again) == figures(result)
    assert told[-1] == (12, 12)


@pytest.mark.parametrize("count", [1, 3])
def test_how_many_processes_compute_changes_nothing(variants, result, count):
    again = run_sweep(variants, COURSE, executor=Processes(count), part_variants=4)
    assert figures(again) == figures(result)
    assert again.unfinished == ()


def test_a_killed_process_loses_its_part_and_no_other(variants, result):
    dying = Dying(sweep._run_part, {"plant.start.p95_s": 100.0, "reactive.headroom": "20%"})
    again = run_sweep(variants, COURSE, executor=dying, part_variants=1)
    assert again.numbers.tolist() == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert [str(each) for each in again.unfinished] == [
        "variants 5 to 5 have no result: its process ended by signal 9",
        "variants 7 to 7 have no result: its process ended by signal 9",
    ]
    kept = result.sums.taken(again.numbers)
    assert again.sums.amount(Amount.COST).tolist() == kept.amount(Amount.COST).tolist()
    assert again.digests == tuple(result.digests[number] for number in again.numbers)
    assert len(again.variants) == 10
    with pytest.raises(ConfigError, match=r"variants 5 to 5 have no result.*Run these again"):
        again.require_all()


def test_after_ctrl_c_what_is_finished_is_kept(variants, result):
    again = run_sweep(variants, COURSE, executor=Interrupted(), part_variants=3)
    assert again.interrupted
    assert again.numbers.tolist() == list(range(6))
    assert again.digests == result.digests[:6]
    assert [(each.first, each.end) for each in again.unfinished] == [(6, 9), (9, 12)]


def test_ctrl_c_between_two_parts_ends_the_processes(variants):
    before = {process.pid for process in multiprocessing.active_children()}

    def impatient(done, of):
        raise KeyboardInterrupt

    again = run_sweep(variants, COURSE, executor=Processes(2), part_variants=2, on_part=impatient)
    assert again.interrupted
    assert len(again.variants) == 2
    assert {process.pid for process in multiprocessing.active_children()} <= before


def test_an_error_in_a_part_is_raised_here():
    with pytest.raises(ConfigError, match="part b of all is wrong"):
        list(Processes(1).run(wrong, "all", ["b"]))
    with pytest.raises(ConfigError, match="at least one process"):
        Processes(0)
    assert list(Processes(2).run(wrong, "all", [])) == []
    assert Finished(0, LostPart("x")).result.why == "x"


def test_a_variant_that_lanes_cannot_express_stops_the_sweep_before_it_runs():
    looping = replace(BASE, policy=policy(signal={"trace": {"loop": True}}))
    with pytest.raises(ConfigError, match="the loop engine"):
        run_sweep([looping.variant({})], COURSE)


@pytest.mark.parametrize("segments", [1, 3])
def test_a_warm_up_is_run_and_not_counted(variants, segments):
    """As if the ledger had been opened after it, whether the run is cut or not."""
    # What is remembered for a day leaves nothing to cut in this half of one.
    some = [BASE.variant({**each.values, "warm_pool.memory": "5m"}) for each in variants[:4]]
    run = LaneRun(
        tuple(each.policy for each in some),
        tuple(each.plant for each in some),
        (TRACE,) * 4,
        COURSE.ticks,
        COURSE.seed,
    )
    lanes = Lanes(run)
    sums, prints = lanes.sums(), Fingerprints(4)
    lanes.run(37, None, prints)
    lanes.run(COURSE.ticks.count - 37, sums, prints)
    found = run_segmented(run, segments=segments, skipped=37)
    assert (found.cut is None) == (segments == 1)
    for which in Amount:
        assert found.sums.amount(which).tolist() == sums.amount(which).tolist()
    for which in Count:
        assert found.sums.count(which).tolist() == sums.count(which).tolist()
    assert found.sums.ticks == COURSE.ticks.count - 37
    assert found.fingerprints.digests() == prints.digests()


def test_a_sweep_does_not_count_the_warm_up(variants, result):
    again = run_sweep(variants, replace(COURSE, warm_up_ticks=60))
    assert again.sums.ticks == COURSE.ticks.count - 60
    assert again.digests == result.digests
    assert (again.sums.amount(Amount.COST) < result.sums.amount(Amount.COST)).all()
