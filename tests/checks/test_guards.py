"""The guards: honest policies pass all of them, and each catches the cheat that was planted for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.config.loading import require_policy
from autoscaler.simulator.checks.guards import GUARDS, State
from autoscaler.simulator.checks.parities import decided_again, engine_parity, journal_parity
from autoscaler.simulator.checks.subject import Subject
from autoscaler.simulator.lanes.matching import as_probed, cloud_of
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.traffic.parts import Crowd, Daily, Level, Recipe, generate
from autoscaler.store import JournalReader
from tests.checks.cheats import CAUGHT_BY, Counts, Honest, StopsTwice, with_cheat
from tests.simulator.builders import policy


def day(interval_s):
    return generate(
        Recipe(
            length_s=86_400.0,
            interval_s=interval_s,
            dispersion=4.0,
            parts=(Level(200.0), Daily(900.0, 13 * 3600.0), Crowd(at_s=16 * 3600.0, height=800.0)),
        )
    )


DAY = day(180.0)
PLANT = PlantSettings(vms=24, in_service=3, start=Duration(40.0))
TICKS = Ticks.over(DAY.start_s + 180.0, 0.9 * 86_400.0, 180.0)
POLICIES = {
    "reactive": policy(forecast="off", signal={"max_age": "210s"}),
    "forecast": policy(signal={"max_age": "210s"}, forecast={"half_life": "2h"}),
    "steps": policy(
        forecast="off", reactive="off", signal={"max_age": "210s"},
        steps=({"above": "80%", "change": "+50%"}, {"below": "30%", "change": -1}),
    ),
    "schedule": policy(
        forecast="off", signal={"max_age": "210s"},
        schedule=[{"name": "open", "from": "08:00", "to": "18:00", "at_least": 6}],
    ),
}  # fmt: skip


FINER = {
    "policy": policy(forecast="off", signal={"max_age": "150s"}),
    "trace": day(120.0),
    "ticks": Ticks.over(DAY.start_s + 120.0, 0.9 * 86_400.0, 120.0),
}
"""Ticks in which it shows for how long demand is not known, or that it hardly changes."""


def subject(name="reactive", **changes):
    return replace(Subject(POLICIES[name], PLANT, DAY, TICKS), **changes)


def test_lag_shows_nothing_where_there_was_no_work():
    empty = generate(
        Recipe(length_s=86_400.0, interval_s=180.0, dispersion=1.0, variation=0.0, parts=(Level(0.0),))
    )
    verdict = GUARDS["lag"](subject(policy=policy(forecast="off", signal={"max_age": "210s"}), trace=empty))
    assert (verdict.state, verdict.finding) == (State.NOT_SHOWN, "there was no work to serve")


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("guard", GUARDS)
def test_an_honest_policy_passes(guard, name):
    verdict = GUARDS[guard](subject(name))
    assert verdict.guard == guard
    assert verdict.state is State.HOLDS, verdict.finding


@pytest.mark.parametrize("guard", GUARDS)
def test_a_decider_that_only_calls_core_passes(guard):
    verdict = GUARDS[guard](with_cheat(subject(), Honest))
    assert verdict.state is State.HOLDS, verdict.finding


OBJECTIVE = policy(
    signal={"max_age": "3000s"},
    forecast={"cover": "90%"},
    objective={"served": "99.9%"},
    prices={"in_service": "1/h"},
)


def over(days, **changes):
    long = generate(
        Recipe(
            length_s=days * 86_400.0,
            interval_s=1200.0,
            dispersion=400.0,
            parts=(Level(200.0), Daily(900.0, 13 * 3600.0)),
        )
    )
    ticks = Ticks.over(long.start_s + 1200.0, (days - 0.1) * 86_400.0, 1200.0)
    return replace(subject(trace=long, ticks=ticks), **changes)


def test_of_a_policy_that_learns_a_day_shows_nothing_and_says_by_how_much():
    verdict = GUARDS["warm-up"](over(2, policy=OBJECTIVE))
    assert verdict.state is State.NOT_SHOWN
    assert "the policy learns, and started " in verdict.finding
    assert verdict.finding.endswith("; give it two weeks of traffic or more")


def test_a_policy_that_learns_is_held_to_its_figures():
    forecast = policy(signal={"max_age": "3000s"}, forecast={"half_life": "5d"})
    verdict = GUARDS["warm-up"](over(16, policy=forecast))
    assert verdict.state is State.HOLDS
    assert "VM-hours in the second half" in verdict.finding


def test_within_a_tolerance_numbers_may_stay_apart_where_figures_do_not():
    calm = generate(
        Recipe(
            length_s=86_400.0,
            interval_s=120.0,
            dispersion=4.0,
            parts=(Level(800.0), Daily(150.0, 13 * 3600.0)),
        )
    )
    tolerant = policy(forecast="off", signal={"max_age": "150s"}, reactive={"tolerance": "15%"})
    verdict = GUARDS["warm-up"](subject(**{**FINER, "policy": tolerant, "trace": calm}))
    assert verdict.state is State.HOLDS, verdict.finding
    assert verdict.finding.startswith("numbers may keep differing within its tolerance, and started ")
    assert "VM-hours in the second half" in verdict.finding


def test_a_cheat_that_learns_is_caught_by_its_figures():
    verdict = GUARDS["warm-up"](with_cheat(over(16, policy=OBJECTIVE), CAUGHT_BY["warm-up"]))
    assert verdict.state is State.FAILS, verdict.finding


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_catches_its_cheat(guard):
    verdict = GUARDS[guard](with_cheat(subject(**(FINER if guard == "silence" else {})), CAUGHT_BY[guard]))
    assert verdict.state is State.FAILS, verdict.finding


def test_every_guard_has_a_cheat():
    assert set(CAUGHT_BY) == set(GUARDS)


def test_hidden_counters_are_caught_as_well():
    assert GUARDS["determinism"](with_cheat(subject(), Counts)).state is State.FAILS


def test_stops_of_vms_that_do_not_serve_are_caught_as_well():
    assert GUARDS["conservation"](with_cheat(subject(), StopsTwice)).state is State.FAILS


@pytest.mark.parametrize("guard", ["prefix", "poison", "warm-up", "conservation", "silence"])
def test_what_could_not_fail_is_not_called_shown(guard):
    flat = generate(
        Recipe(length_s=86_400.0, interval_s=180.0, dispersion=1.0, variation=0.0, parts=(Level(1.0),))
    )
    idle = subject(
        policy=policy(forecast="off", signal={"max_age": "210s"}),
        plant=PlantSettings(vms=1, in_service=1),
        trace=flat,
    )
    assert GUARDS[guard](idle).state is State.NOT_SHOWN


@pytest.mark.parametrize("name", POLICIES)
def test_the_engines_agree(name):
    verdict = engine_parity(subject(name, plant=replace(PLANT, start=Duration(19.0))))
    assert verdict.state is State.HOLDS, verdict.finding


def test_engines_that_decide_differently_are_told_apart():
    lanes = with_cheat(subject(), Counts)
    assert engine_parity(lanes).state is State.FAILS


@pytest.mark.parametrize("name", POLICIES)
def test_the_journal_gives_the_same_decisions_again(name):
    verdict = journal_parity(subject(name, plant=replace(PLANT, start=Duration(19.0))))
    assert verdict.state is State.HOLDS, verdict.finding


def test_a_journal_that_lacks_what_was_decided_on_is_caught(tmp_path):
    one = subject()
    fleet = as_probed(one.policy)
    run_loop(
        LoopRun(
            fleet, DAY, cloud_of(fleet, PLANT), TICKS.start_s, 20_000.0, 180.0, journal_dir=Path(tmp_path)
        )
    )
    with JournalReader(Path(tmp_path)) as reader:
        ticks = reader.ticks(fleet.fleet, float("-inf"), float("inf"))
    assert not decided_again(one, ticks)
    at = next(n for n, tick in enumerate(ticks) if tick.recorded.start)
    forged = replace(ticks[at], recorded=replace(ticks[at].recorded, demand=1.0))
    assert "lacks something" in decided_again(one, (*ticks[:at], forged, *ticks[at + 1 :]))


def test_the_shipped_policy_passes_every_guard():
    shipped = require_policy(Path(__file__).parents[2] / "policies" / "web.yaml", tick_s=180.0)
    for guard in GUARDS.values():
        verdict = guard(subject(policy=shipped))
        assert verdict.state is State.HOLDS, f"{verdict.guard}: {verdict.finding}"
