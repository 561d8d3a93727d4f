"""Preparing and running replays: both engines alike, short and long runs alike, parts alike."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES
from autoscaler.simulator.judging.score import FIGURES
from autoscaler.simulator.judging.standings import RIVALS
from autoscaler.simulator.replay.differing import differences
from autoscaler.simulator.replay.policy_plan import Plan, plan_markdown
from autoscaler.simulator.replay.preparing import Wanted, prepare, shared_luck
from autoscaler.simulator.replay.replaying import (
    card_of,
    details_of,
    engine_for,
    entry_of,
    rivals_of,
    run,
    same_span,
)
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy

STEPS = ({"above": "80%", "change": "+50%"}, {"below": "30%", "change": -1})


def minutes(count, *, seed=0, kind=TraceKind.GAUGE, missing=()):
    """A daily cycle of 100/s to 900/s with noise and two sudden crowds a day, one value a minute."""
    at = np.arange(count)
    level = 500 - 400 * np.cos(2 * np.pi * at / 1440) + np.random.default_rng(seed).normal(0, 15, count)
    level[(at % 720 >= 300) & (at % 720 < 310)] += 400
    keep = np.setdiff1d(at, np.array(missing, np.int64))
    values = np.maximum(level, 0) * (60 if kind is TraceKind.COUNT else 1)
    return Trace.build(BEGIN_S + 60.0 * keep, values[keep], kind=kind, name="minutes", interval_s=60.0)


def prepared(trace, wanted=None, **changes):
    usual = {"signal": {"max_age": "150s"}}
    return prepare(policy(**{**usual, **changes}), Path("web.yaml"), trace, wanted or Wanted())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"forecast": "off"},
        {"reactive": "off", "forecast": "off", "steps": STEPS},
        {"signal": {"kind": "utilisation", "max_age": "150s"}, "forecast": "off"},
        {"signal": {"kind": "total", "max_age": "150s"}, "guards": {"stabilisation": "15m"}},
        {"warm_pool": {"minimum": 3}, "guards": {"rate_out": {"vms": 2, "per": "1m"}}},
    ],
    ids=["forecast", "reactive", "steps", "utilisation", "total", "limits"],
)
@pytest.mark.parametrize("kind", list(TraceKind))
def test_the_engines_decide_alike(changes, kind):
    replay = prepared(minutes(420, kind=kind, missing=range(360, 370)), **changes)
    lanes, loop = run(replay, engine="lanes"), run(replay, engine="loop")
    assert [(row.timestamp_s, row.desired, row.in_service, row.starts, row.stops) for row in lanes.rows] == [
        (row.timestamp_s, row.desired, row.in_service, row.starts, row.stops) for row in loop.rows
    ]
    assert lanes.decisions == loop.decisions
    assert len(lanes.rows) == replay.ticks
    assert len(lanes.scored) == replay.ticks - replay.warm_up_ticks
    mine, theirs = (entry_of(replay, ran, "this").values for ran in (lanes, loop))
    for figure in ("unserved_share", "shortage_s", "unknown_s", "episodes", "vm_hours", "starts_per_day"):
        assert mine[figure] == pytest.approx(theirs[figure], rel=1e-9, nan_ok=True), figure
    foretold = {key: value for key, value in mine.items() if key.startswith("forecast_")}
    assert bool(foretold) == (replay.policy.forecast is not None)
    assert foretold == pytest.approx({key: theirs[key] for key in foretold})


@pytest.mark.parametrize("kind", list(TraceKind))
def test_forecasts_are_judged_by_the_interval_that_they_are_for(kind):
    """Demand that rises by as much each minute is known beforehand: by one interval off it would be 1 % off."""
    rising = 100.0 * np.cumprod(np.full(500, 1.01)) * (60 if kind is TraceKind.COUNT else 1)
    trace = Trace.build(BEGIN_S + 60.0 * np.arange(500), rising, kind=kind, name="up", interval_s=60.0)
    replay = prepared(trace, Wanted(vms=200))
    own = entry_of(replay, run(replay), "this")
    assert own.values["forecast_wape"] < 0.005
    card = card_of((own,), ())
    assert [figure.key for figure in card.figures[len(FIGURES) :]] == [f.key for f in FORECAST_FIGURES]


def test_a_run_long_enough_to_be_cut_is_judged_as_the_uncut_one():
    replay = prepared(minutes(4 * 1440, seed=2), forecast="off")
    ran = run(replay)
    assert [row.timestamp_s for row in ran.rows] == [BEGIN_S + 60.0 * at for at in range(replay.ticks)]
    rivals = rivals_of(replay)
    own = entry_of(replay, ran, "this policy", rivals=rivals)
    theirs = next(entry for entry in rivals if entry.key == "policy")
    for figure, value in theirs.values.items():
        assert own.values[figure] == pytest.approx(value, rel=1e-6, nan_ok=True), figure
    card = card_of((own,), rivals)
    assert [entry.key for entry in card.entries[:2]] == ["policy", "static_peak"]
    assert card.entry("clairvoyant").values["cost"] <= own.values["cost"]
    assert sum(entry.judged for entry in card.entries) == 1


def test_hindsight_judges_a_policy_as_when_it_is_the_first_one():
    replay = prepared(minutes(480), Wanted(vms=12))
    ran = run(replay)
    first = entry_of(replay, ran, "this policy", rivals=rivals_of(replay)).values
    other = entry_of(replay, ran, "this policy", hindsight=True).values
    for figure in ("regret", "captured", "pool_cost", "shortage_avoided_s", "cost_per_avoided_s"):
        assert other[figure] == pytest.approx(first[figure], rel=1e-9), figure
    assert first["pool_cost"] > 0
    assert first["shortage_avoided_s"] > 0
    looped = run(replay, engine="loop")
    by_loop = entry_of(replay, looped, "this policy", hindsight=True).values
    # What the loop ran is not held against what lanes would do without a pool.
    assert math.isnan(by_loop["pool_cost"])
    assert by_loop["captured"] == pytest.approx(first["captured"], rel=1e-3)
    # Whether it is the first one or another makes no difference to it.
    beside = entry_of(replay, looped, "this policy", rivals=rivals_of(replay), hindsight=True).values
    assert beside["captured"] == by_loop["captured"]
    assert math.isnan(entry_of(replay, ran, "this policy").values["regret"])
    cut = replace(ran, whole=False)
    assert math.isnan(entry_of(replay, cut, "this policy", hindsight=True).values["regret"])
    ended = entry_of(replay, ran, "this policy", hindsight=True, enough=lambda: True).values
    assert math.isnan(ended["pool_cost"])
    assert ended["regret"] == other["regret"]


def test_what_a_policy_goes_by_is_said_of_objectives_too():
    assert prepared(minutes(120)).in_words.startswith("demand + ")
    promised = prepared(minutes(120), objective={"served": "99.9%"}, reactive="off", forecast="off")
    assert promised.in_words == "of 1,000 VM-hours of work 1 may find no VM"


def test_a_plan_says_of_what_looks_alike_that_it_is_about_as_much():
    trace = minutes(480)
    one = prepared(trace, Wanted(vms=3))
    other = prepared(replace(trace, values=trace.values * (1 + 1e-7)), Wanted(vms=3))
    ran, again = run(one), run(other)
    first = again.scored[0]
    again = replace(again, scored=(replace(first, desired=first.desired + 1), *again.scored[1:]))
    found = plan_markdown(Plan("web", "trace day", one, ran, other, again))
    assert "as much as before**, and left about as much work unserved as before (" in found.splitlines()[2]
    assert re.search(r"\| Work unserved \| (\S+%) \| \1 \| \+less than 0\.001 points ▲ worse \|", found)


def after(times):
    """Asks for the end from then on."""
    asked = []

    def enough():
        asked.append(True)
        return len(asked) > times

    return enough


@pytest.mark.parametrize("times", [1, 4, 9])
def test_a_long_run_ends_when_it_is_asked_to_with_the_beginning_of_the_whole_one(times):
    replay = prepared(minutes(4 * 1440, seed=2), forecast="off")
    whole = run(replay)
    part = run(replay, enough=after(times))
    assert not part.whole
    assert len(part.rows) >= 512 * times - 512
    assert len(part.rows) < len(whole.rows)
    assert list(map(repr, part.rows)) == list(map(repr, whole.rows[: len(part.rows)]))


def test_a_run_ends_while_its_forecasts_are_made():
    replay = prepared(minutes(900))
    part = run(replay, enough=after(1))
    assert (part.rows, part.whole) == ((), False)
    assert run(replay).whole


def test_a_run_that_was_ended_is_the_beginning_of_the_whole_one():
    replay = prepared(minutes(900))
    part = run(replay, enough=after(3))
    whole = run(replay)
    assert 0 < len(part.rows) < len(whole.rows)
    assert list(map(repr, part.rows)) == list(map(repr, whole.rows[: len(part.rows)]))
    assert not part.whole
    cut = same_span({"a": (replay, whole), "b": (replay, part)})
    (_, a), (_, b) = cut.values()
    assert list(map(repr, a.rows)) == list(map(repr, b.rows))
    assert a.decisions == b.decisions
    assert not a.whole
    mine, theirs = entry_of(replay, a, "a").values, entry_of(replay, b, "b").values
    assert mine["cost"] == pytest.approx(theirs["cost"])
    # A time line does not tell which starts failed, nor what was billed.
    assert math.isnan(mine["failed_starts"])
    assert math.isnan(mine["running_cost"])


def test_runs_of_one_length_are_left_as_they_are():
    replay = prepared(minutes(300))
    runs = {"a": (replay, run(replay)), "b": (replay, run(replay))}
    assert same_span(runs) == runs
    found = differences(("a", runs["a"][1].rows), ("b", runs["b"][1].rows))
    assert found["first_at"] is None
    assert found["rows"] == []


def test_compared_policies_meet_one_plant_whatever_their_fleets_are_called():
    trace = minutes(300)
    small = prepare(policy(fleet="small", bounds={"maximum": 4}), Path("a"), trace, Wanted())
    large = prepare(policy(fleet="large", bounds={"maximum": 20}), Path("b"), trace, Wanted())
    assert small.plant.vms < large.plant.vms
    first, second = shared_luck((small, large))
    assert first.plant == second.plant
    assert first.plant.vms == large.plant.vms
    assert first.fitted.fleet == second.fitted.fleet == "small"
    assert second.policy.fleet == "large"


def test_compared_policies_are_told_of_the_one_plant_and_of_what_differs_between_them():
    trace = minutes(300)
    vm = {"capacity": "100/s", "start_time": "20s"}
    one = policy(fleet="one", vm=vm, prices={"in_service": "0.1/h"})
    other = policy(
        fleet="other", vm={"capacity": "50/s", "start_time": "50s"}, prices={"in_service": "0.05/h"}
    )
    first, second = shared_luck(tuple(prepare(each, Path("a"), trace, Wanted()) for each in (one, other)))
    for replay in (first, second):
        assert f"a plant of {replay.plant.vms} VMs" in replay.notes[0]
        assert "a start takes 20 s" in replay.notes[1]
        assert not any("50 s" in note for note in replay.notes)
        money, capacity, start, *_ = replay.cautions
        assert "a VM in service costs 0.1/h and 0.05/h" in money
        assert "different vm.capacity (100/s and 50/s)" in capacity
        assert "different vm.start_time (20 s and 50 s). Simulated starts take 20 s for all" in start
    alike = shared_luck((prepare(one, Path("a"), trace, Wanted()), prepare(one, Path("b"), trace, Wanted())))
    assert all(not replay.cautions for replay in alike)


def test_a_vm_made_from_nothing_takes_what_the_policy_plans_with():
    planned = prepared(minutes(300), objective={"served": "99%", "provision_time": "4m"})
    assert planned.made.mean_s == 240.0
    assert "provisioning a VM takes 4 min, as objective.provision_time says" in planned.notes[1]
    told = prepared(minutes(300), Wanted(provision_time_s=90.0))
    assert told.made.mean_s == 90.0
    assert prepared(minutes(300)).made.mean_s == 300.0
    template = {"launch_template": "web", "maximum": 30}
    assert prepared(minutes(300), provision=template).plant.provision.mean_s == 300.0


def test_what_is_not_scored_is_said():
    assert "the first 10 min are not scored (--warm-up)" in prepared(minutes(300)).notes
    assert not any("not scored" in note for note in prepared(minutes(300), Wanted(warm_up_s=0.0)).notes)


def test_without_a_warm_pool_every_start_takes_as_long_as_making_a_vm():
    at = np.arange(360)
    steps = Trace.build(
        BEGIN_S + 60.0 * at,
        np.where(at % 90 < 45, 100.0, 900.0),
        kind=TraceKind.GAUGE,
        name="t",
        interval_s=60.0,
    )
    quick, slow = (
        {entry.key: entry.values for entry in rivals_of(prepared(steps, Wanted(provision_time_s=made_s)))}
        for made_s in (30.0, 600.0)
    )
    assert quick["policy"] == slow["policy"] | {
        figure: quick["policy"][figure]
        for figure in ("pool_cost", "shortage_avoided_s", "cost_per_avoided_s")
    }
    assert slow["without_pool"]["shortage_s"] >= quick["without_pool"]["shortage_s"] + 300.0
    assert slow["policy"]["shortage_avoided_s"] >= quick["policy"]["shortage_avoided_s"] + 300.0


def test_the_engine_that_cannot_is_refused_and_the_one_that_can_is_taken():
    plain = prepared(minutes(300))
    assert engine_for(plain) == ("lanes", "")
    assert engine_for(plain, "loop") == ("loop", "")
    faulty = prepared(minutes(300), Wanted(faults=(Fault(FaultKind.NO_CAPACITY, 0.0, 600.0),)))
    engine, said = engine_for(faulty)
    assert engine == "loop"
    assert "only the loop engine simulates" in said
    with pytest.raises(ConfigError, match="--engine lanes cannot run this"):
        engine_for(faulty, "lanes")
    spread = prepared(minutes(300), Wanted(start_p95_s=90.0))
    assert "come from another random stream" in engine_for(spread, "loop")[1]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(tick_s=0.5), "must be from 1 s to 1 h"),
        (Wanted(begin_s=BEGIN_S - 3600), "must lie within it, in this order"),
        (Wanted(begin_s=BEGIN_S + 600, end_s=BEGIN_S + 300), "must lie within it, in this order"),
        (Wanted(end_s=BEGIN_S + 100), "fewer than 3 ticks"),
        (Wanted(warm_up_s=1e6), "leaves nothing of"),
        (Wanted(start_p95_s=1.0), "--start-time, --start-p95"),
        (Wanted(start_failure=2.0), "start_failure must be within 0 and 1"),
    ],
)
def test_what_cannot_be_prepared_is_said(wanted, words):
    with pytest.raises(ConfigError, match=words):
        prepared(minutes(300), wanted)


def test_ticks_lie_on_the_clock_and_begin_once_a_count_is_known():
    counts = prepared(minutes(300, kind=TraceKind.COUNT))
    assert counts.begin_s == BEGIN_S + 60.0
    odd = prepared(minutes(300), Wanted(begin_s=BEGIN_S + 61.0, tick_s=60.0))
    assert odd.begin_s == BEGIN_S + 120.0
    assert odd.ticks == 298


@pytest.mark.parametrize(
    ("lag_s", "said"), [(None, ""), (60.0, ""), (120.0, "33.1% of the ticks"), (3600.0, " of the ticks")]
)
def test_metrics_that_are_known_too_late_to_go_by_are_a_caution(lag_s, said):
    wanted = Wanted(metric_lag_s=lag_s, tick_s=20.0)
    told = [text for text in prepared(minutes(300), wanted).cautions if "stale" in text]
    assert len(told) == bool(said)
    assert all(said in text for text in told)
    blind = prepared(
        minutes(300),
        wanted,
        reactive="off",
        forecast="off",
        schedule=[{"name": "day", "from": "08:00", "to": "18:00", "at_least": 3}],
    )
    assert not any("stale" in text for text in blind.cautions)


def test_what_the_rules_of_others_aim_at_is_said():
    replay = prepared(minutes(300))
    notes = details_of(replay, run(replay))["notes"]
    assert any("aim at 77% of vm.capacity, which is 30% headroom" in note for note in notes)
    assert all("77%" in rival.what for rival in RIVALS)
    by_one = prepared(minutes(60), guards={"stop_share": "50%"})
    assert rivals_of(by_one) == ()
    notes = details_of(by_one, run(by_one))["notes"]
    assert any(note.startswith("the policy is not compared with other rules") for note in notes)
    assert not any("aim at 77%" in note for note in notes)


def test_a_recording_that_is_nothing_or_no_rate_is_a_caution():
    flat = minutes(300)
    zero, counter = (
        Trace.build(flat.timestamps, values, kind=TraceKind.GAUGE, name="odd", interval_s=60.0)
        for values in (np.zeros(300), np.cumsum(flat.values))
    )
    assert prepared(zero).cautions == ("The trace is zero throughout, so no VM is ever needed.",)
    assert any("is it a cumulative counter?" in text for text in prepared(counter).cautions)
