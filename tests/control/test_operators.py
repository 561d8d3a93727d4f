"""Pauses and overrides in a running daemon, on virtual time: what they hold back, from when, and until when."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict

import numpy as np

from autoscaler.core.types import NO_CEILING, Reason, Stage
from autoscaler.daemon.operating.allowances import allowances
from autoscaler.errors import ChangeRefusedError
from autoscaler.ports import ALL_FLEETS, PAUSABLE, ChangeKind, OperatorChange, Verb
from tests.control.builders import EVERYTHING, EVERYWHERE, PROVISION, START, STOP, Commands, asked, metric
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.test_loop_bounds import Hung
from tests.daemon.test_loop_time import SetClock

TOTAL = {"kind": "total"}
UP_AND_DOWN = steady((0, 100), (20, 400), (80, 100), (160, 300))


def bench_of(demand=UP_AND_DOWN, **changes):
    bench = Bench(vms=6, running=1, zones="a")
    bench.add(policy(signal=TOTAL, **changes), demand)
    return bench


# ── what is held back ───────────────────────────────────────────────────────────────────────────────────


def ordered(bench, name="start"):
    return [
        (record.at_s - ORIGIN_S, row)
        for record in bench.records
        for row in [getattr(record.fleets[0], name)]
        if row
    ]


def run_with(*commands, until_s=200, demand=UP_AND_DOWN, clock=None, **changes):
    """A bench that has run on its own virtual time with these commands, and what was answered."""
    held = []

    @virtual
    async def run():
        bench = Bench(vms=6, running=1, zones="a", clock=clock)
        bench.add(policy(signal=TOTAL, **changes), demand)
        given = Commands(bench)
        for command in commands:
            given.at(*command)
        await bench.run(until_s)
        held.extend((bench, given.words()))

    run()
    return held


def test_paused_stops_stop_nothing_and_leave_every_start_as_it_was():
    plain, _ = run_with()
    bench, said = run_with((5, "pause", asked(until_s=150), STOP))
    assert ordered(plain, "stop") == [(80, 3)]
    assert ordered(bench, "stop") == [(150, 3)], "nothing is stopped until the pause ends by itself"
    assert ordered(bench) == [(20, 3), (160, 2)]
    assert ordered(plain) == [(20, 3), (160, 2)]
    (row,) = [r.fleets[0] for r in bench.records if r.at_s == ORIGIN_S + 90]
    assert (row.may_stop, row.may_start, row.may_provision) == (False, True, True)
    assert Reason(row.reasons[Stage.PAUSE]) is Reason.PAUSED_STOP
    assert "an operator has paused stops, so 4 VMs stay" in row.sentence
    (text,) = said
    assert text == (
        "Nothing is stopped in web until 2026-11-24T10:02:30Z; starts, provisioning and refills go on. "
        "It applies from the next decision on, within 10 s; calls in flight are not cancelled."
    )


def test_paused_starts_leave_provisioning_and_both_paused_leave_nothing():
    bench, _ = run_with(
        (5, "pause", asked(until_s=75), START),
        (15, "pause", asked(until_s=45), PROVISION),
        demand=steady((0, 100), (20, 400)),
        until_s=90,
        provision={"launch_template": "web", "maximum": 9},
    )
    # From 50 on two may be made, up to the template's nine; the stopped ones have to wait for the end at 80.
    assert bench.changes() == [(50, "RunInstances", 2, ""), (80, "StartInstances", 1, "")]


@virtual
async def test_a_pause_of_all_fleets_holds_for_those_that_are_added_later():
    bench = bench_of(steady((0, 100), (20, 400)))
    bench.place("new", 3)
    commands = Commands(bench).at(5, "pause", asked(EVERYWHERE), EVERYTHING)
    later = asyncio.get_running_loop().call_later

    def add():
        bench.add(policy("new", signal=TOTAL), 200)
        commands.given.append(asyncio.ensure_future(bench.daemon.take_over(bench.setups)))

    later(35, add)
    commands.at(75, "resume", asked(EVERYWHERE, who="bob", reason="over"), EVERYTHING)
    await bench.run(100)
    assert sorted(call[:3] for call in bench.changes()) == [
        (80, "StartInstances", 2),
        (80, "StartInstances", 3),
    ]
    assert metric(bench, "paused", fleet="new", verb="start") == 0
    assert commands.words()[-1].startswith(
        "No longer paused: starts, stops, provisioning and refills in any fleet."
    )


@virtual
async def test_an_override_moves_the_bounds_both_ways_and_ends_by_itself():
    bench = bench_of(100, bounds={"minimum": 1, "maximum": 3})
    commands = (
        Commands(bench)
        .at(5, "override", asked(until_s=75), 4, 5)
        .at(15, "override", asked(who="bob", reason="less", until_s=95), None, 0)
    )
    await bench.run(130)
    desired = {record.at_s - ORIGIN_S: record.fleets[0].desired for record in bench.records}
    assert (desired[0], desired[10], desired[20], desired[90], desired[100]) == (1, 4, 4, 0, 1) or desired[
        10
    ] == 4
    assert desired[0] == 1
    assert desired[10] == 4, "the floor is above the policy's maximum and wins"
    assert desired[90] == 0, "the ceiling is below the policy's minimum and wins"
    assert desired[100] == 1, "the policy's bounds hold again"
    assert commands.words()[0].startswith(
        "From 4 to 5 VMs are wanted in web until 2026-11-24T10:01:15Z, instead of the policy's 1 to 3."
    )
    assert (
        "this takes the place of: from 4 to 5 VMs are wanted in web until 2026-11-24T10:01:15Z (alice: migration)"
        in commands.words()[1]
    )
    kinds = [kind for _, kind, _ in bench.events() if "overr" in kind]
    assert kinds == ["overridden", "overridden", "override_expired"]


@virtual
async def test_clearing_an_override():
    bench = bench_of(100)
    commands = (
        Commands(bench).at(5, "override", asked(), 3, None).at(25, "clear", asked(who="bob", reason="done"))
    )
    commands.at(26, "clear", asked(who="bob", reason="done"))
    await bench.run(40)
    assert [row.floor for row in bench.rows()] == [0, 3, 3, 0, 0]
    assert commands.words()[1].startswith("The bounds of the policy of web apply again.")
    assert commands.words()[2] == "Nothing to clear: the bounds of web are not overridden."
    assert metric(bench, "override_floor_vms", fleet="web") is None


@virtual
async def test_an_answer_says_of_the_rest_that_it_goes_on_only_where_it_does():
    bench = bench_of(100)
    commands = (
        Commands(bench)
        .at(1, "pause", asked(EVERYWHERE, reason="incident"), PROVISION)
        .at(2, "pause", asked("web"), STOP)
        .at(3, "pause", asked("web", who="bob"), START)
    )
    await bench.run(10)
    first, second, third = commands.words()
    assert first.startswith(
        "Nothing is provisioned in any fleet until an operator ends it; starts and stops go on."
    )
    assert second.startswith("Nothing is stopped in web until an operator ends it; starts go on.")
    assert third.startswith("Nothing is started in web until an operator ends it. It applies")


# ── what is recorded ────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_who_why_and_until_when_are_in_the_journal_before_the_answer():
    bench = bench_of(100)
    Commands(bench).at(5, "pause", asked(until_s=25), STOP).at(
        6, "resume", asked(who="bob", reason="no"), STOP
    )
    Commands(bench).at(7, "pause", asked(until_s=25), START)
    await bench.run(40)
    told = [event for event in bench.events() if event[1] != "daemon_started"]
    assert told == [
        (5, "paused", "alice paused stops: nothing is stopped in web until 2026-11-24T10:00:25Z (migration)"),
        (6, "resumed", "bob resumed stops in web (no)"),
        (
            7,
            "paused",
            "alice paused starts: nothing is started in web until 2026-11-24T10:00:25Z (migration)",
        ),
        (
            30,
            "pause_expired",
            "over by the clock: nothing is started in web until 2026-11-24T10:00:25Z (alice: migration)",
        ),
    ]
    assert bench.log.texts("operator") == [text for _, _, text in told]
    assert metric(bench, "operator_changes_total", kind="paused") == 2
    assert metric(bench, "operator_changes_total", kind="pause_expired") == 1
    assert await bench.journal.changes_in_force() == ()


@virtual
async def test_a_replay_of_the_journal_decides_the_same():
    """Each recorded tick has what core needs to be asked again: the stages after COVER give the same numbers."""
    bench = bench_of()
    Commands(bench).at(5, "override", asked(), 2, 3).at(5, "pause", asked(until_s=120), STOP)
    await bench.run(160)
    with bench.journal.reader() as reader:
        rows = [row.recorded for row in reader.ticks("web", 0.0, math.inf)]
    assert [asdict(row) for row in rows] == [asdict(row) for row in bench.rows()]
    seen = {(row.may_stop, row.floor, row.ceiling) for row in rows}
    assert seen == {(True, 0, NO_CEILING), (False, 2, 3), (True, 2, 3)}
    changes = [
        OperatorChange(ChangeKind.PAUSED, "web", Verb.STOP, "", ""),
        OperatorChange(ChangeKind.OVERRIDDEN, "web", None, "", "", 2, 3),
    ]
    again = allowances(changes, ("web",))
    for row in rows:
        if not row.may_stop:
            assert again.noted(row, 0) == row
        ordered_vms = row.in_service + row.starting
        bounded = row.stages[Stage.BOUNDS]
        assert row.floor <= bounded
        assert bounded <= max(row.floor, row.ceiling)
        assert row.may_stop or row.stages[Stage.PAUSE] >= ordered_vms


@virtual
async def test_gauges_say_what_is_in_force():
    bench = bench_of(100)
    commands = Commands(bench).at(5, "pause", asked(), START).at(5, "override", asked(), 2, 7)
    commands.at(5, "pause", asked(), [Verb.REFILL])
    await bench.run(10)
    verbs = {verb: metric(bench, "paused", fleet="web", verb=verb.value) for verb in PAUSABLE}
    assert verbs == {Verb.START: 1, Verb.STOP: 0, Verb.PROVISION: 0, Verb.REFILL: 1}
    assert metric(bench, "override_floor_vms", fleet="web") == 2
    assert metric(bench, "override_ceiling_vms", fleet="web") == 7


# ── the life of a pause ─────────────────────────────────────────────────────────────────────────────────


async def restarted(before, clock=None, demand=UP_AND_DOWN):
    """Another daemon on the same journal and cloud."""
    bench = Bench(clock=clock or before.clock)
    bench.world, bench.journal = before.world, before.journal
    bench.provider = before.provider
    bench.add(policy(signal=TOTAL), demand)
    return bench


@virtual
async def test_a_restart_keeps_what_is_in_force_and_drops_what_has_expired():
    bench = bench_of(100)
    Commands(bench).at(5, "pause", asked(until_s=25), STOP).at(5, "pause", asked(until_s=500), START)
    await bench.run(10)
    await bench.clock.sleep_until(bench.clock.monotonic() + 30)
    after = await restarted(bench, demand=400)
    await after.run(30)
    assert [row.may_start for row in after.rows()] == [False] * len(after.rows())
    assert after.rows()[0].may_stop
    assert not after.calls("StartInstances")
    assert [kind for _, kind, _ in after.events()] == ["paused", "paused", "pause_expired"]
    assert [record.change.verb for record in await after.journal.changes_in_force()] == [Verb.START]


def test_a_clock_set_forward_ends_a_pause_for_good():
    bench, _ = run_with(
        (5, "pause", asked(until_s=600), STOP), clock=SetClock((22, 3600), (42, 0)), demand=100, until_s=60
    )
    at = [(round(r.at_s - ORIGIN_S), r.fleets[0].may_stop) for r in bench.records]
    assert [may for second, may in at if second in (10, 20)] == [False, False]
    assert all(may for second, may in at if second >= 3600)
    assert at[-1] == (60, True), "what the clock has ended stays ended when it is set back"


def test_a_clock_set_back_prolongs_a_pause():
    bench, _ = run_with(
        (5, "pause", asked(until_s=40), STOP), clock=SetClock((22, -3600)), demand=100, until_s=80
    )
    assert [r.fleets[0].may_stop for r in bench.records] == [True] + [False] * (len(bench.records) - 1)


@virtual
async def test_a_pause_of_a_fleet_that_is_gone_stays_and_has_no_effect():
    bench = bench_of(100)
    bench.place("api", 2)
    bench.add(policy("api", signal=TOTAL), 100)
    commands = Commands(bench).at(5, "pause", asked("web"), STOP)
    loop = asyncio.get_running_loop()
    loop.call_later(
        15, lambda: commands.given.append(asyncio.ensure_future(bench.daemon.take_over(bench.setups[1:])))
    )
    commands.at(25, "pause", asked("web"), STOP)
    commands.at(26, "resume", asked("web", who="bob", reason="gone"), STOP)
    commands.at(27, "resume", asked("web", who="bob", reason="gone"), STOP)
    await bench.run(30)
    assert [row.may_stop for row in bench.rows("api")] == [True] * 4
    assert metric(bench, "paused", fleet="web", verb="stop") is None
    assert commands.words()[1] == "no policy in use is for a fleet web; known are: api"
    assert commands.words()[2].startswith("No longer paused: stops in web.")
    assert commands.words()[3] == "no policy in use is for a fleet web; known are: api"


@virtual
async def test_two_operators_at_once_the_later_wins_and_both_are_recorded():
    bench = bench_of(100)
    bench.journal = Hung(bench.journal, bench.clock, 4, 7, "record_changes")
    commands = (
        Commands(bench)
        .at(5, "pause", asked(until_s=100), STOP)
        .at(5, "pause", asked(who="bob", reason="mine", until_s=200), STOP)
        .at(5.5, "resume", asked(who="carol", reason="neither"), STOP)
    )
    await bench.run(20)
    assert bench.journal.most_under_way == 1, "one after the other"
    assert (
        "takes the place of: nothing is stopped in web until 2026-11-24T10:01:40Z (alice"
        in commands.words()[1]
    )
    assert commands.words()[2].startswith("No longer paused: stops in web.")
    assert [kind for _, kind, _ in bench.events()] == ["paused", "paused", "resumed"]
    first, second, _ = bench.log.texts("operator")
    assert "place of" not in first
    assert second.startswith("bob paused stops: ")
    assert second.endswith(
        "(mine); this takes the place of: nothing is stopped in web until 2026-11-24T10:01:40Z (alice: migration)"
    )
    assert bench.daemon.operators.in_force() == ()


@virtual
async def test_resuming_one_fleet_does_not_undo_a_pause_of_all():
    bench = bench_of(100)
    commands = (
        Commands(bench)
        .at(1, "pause", asked(EVERYWHERE, reason="incident"), STOP)
        .at(2, "resume", asked("web"), EVERYTHING)
        .at(3, "pause", asked("web", reason="mine"), STOP)
        .at(4, "resume", asked("web"), EVERYTHING)
        .at(5, "pause", asked("web", reason="mine"), START)
        .at(6, "resume", asked(EVERYWHERE, reason="over"), EVERYTHING)
    )
    await bench.run(10)
    said = commands.words()
    assert said[1] == (
        "nothing is stopped in any fleet until an operator ends it (alice: incident), web among them; end that with "
        "--all-fleets"
    )
    assert isinstance(commands.said[1][1], ChangeRefusedError)
    assert said[3].startswith("No longer paused: stops in web. Nothing is stopped in any fleet until")
    assert said[5].startswith("No longer paused: stops in any fleet. No longer paused: starts in web.")
    assert bench.daemon.operators.in_force() == ()


# ── what a tick pays ────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_while_nothing_changes_a_tick_reads_the_same_arrays():
    bench = bench_of(100)
    Commands(bench).at(5, "pause", asked(until_s=25), STOP)
    seen = []

    def look(record):
        seen.append(bench.daemon.operators.allowed(record.at_s))

    asyncio.get_running_loop().call_later(1, lambda: setattr(bench.daemon, "_on_tick", look))
    await bench.run(70)
    assert seen[0] is seen[1], "paused at 5: ticks 10 and 20"
    assert seen[2] is seen[3] is seen[-1], "ended at 30"
    assert seen[1] is not seen[2]


def test_allowances_of_many_changes():
    pause = OperatorChange(ChangeKind.PAUSED, "b", Verb.STOP, "", "")
    everywhere = OperatorChange(ChangeKind.PAUSED, ALL_FLEETS, Verb.START, "", "")
    bounds = OperatorChange(ChangeKind.OVERRIDDEN, "a", None, "", "", None, 0)
    gone = OperatorChange(ChangeKind.OVERRIDDEN, "gone", None, "", "", 5, 5)
    found = allowances((pause, everywhere, bounds, gone), ("a", "b"))
    np.testing.assert_array_equal(found.may_stop, [True, False])
    np.testing.assert_array_equal(found.may_start, [False, False])
    np.testing.assert_array_equal(found.may_provision, [True, True])
    np.testing.assert_array_equal(found.floor, [0, 0])
    np.testing.assert_array_equal(found.ceiling, [0, NO_CEILING])
    assert found.limited == {0, 1}
    assert allowances((gone,), ("a",)).limited == frozenset()
