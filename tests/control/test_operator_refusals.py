"""What operators are refused, and what happens to a change that the journal does not accept, on virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.errors import ChangeRefusedError, JournalError, JournalLateError
from tests.control.builders import START, STOP, Commands, asked
from tests.daemon.builders import Bench, policy, steady, virtual
from tests.daemon.test_loop_acting import FailingJournal
from tests.daemon.test_loop_bounds import Hung

TOTAL = {"kind": "total"}


def bench_of(demand):
    bench = Bench(vms=6, running=1, zones="a")
    bench.add(policy(signal=TOTAL), demand)
    return bench


# ── what makes no sense ─────────────────────────────────────────────────────────────────────────────────


REFUSED = {
    "no such fleet": ("pause", asked("wbe"), STOP, "no policy in use is for a fleet wbe; did you mean web?"),
    "nothing like it": ("pause", asked("zzz"), STOP, "no policy in use is for a fleet zzz; known are: web"),
    "one of two": ("pause", asked(("web", "wbe")), STOP, "did you mean web"),
    "no fleet": ("pause", ChangeRequest((), "a", "b"), STOP, "no fleet is named"),
    "no reason": ("pause", asked(reason="  "), STOP, "a reason is needed"),
    "a long reason": ("pause", asked(reason="x" * 501), STOP, "of 1 to 500 characters"),
    "escapes": ("pause", asked(reason="a\x1b[2Jb"), STOP, "control characters"),
    "half a character": ("pause", asked(reason="a\ud800"), STOP, "control characters"),
    "the past": ("pause", asked(until_s=-1), STOP, "it would end at 2026-11-24T09:59:59Z"),
    "far away": ("pause", asked(until_s=367 * 86400), STOP, "at most 366 days away"),
    "the end of time": ("pause", asked(until_s=1e300), STOP, r"1e\+300 \(epoch seconds\)"),
    "no number": ("pause", asked(until_s=math.nan), STOP, "it would end at nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_words_and_changes_nothing(name):
    command, request, verbs, words = REFUSED[name]

    @virtual
    async def run():
        bench = bench_of(100)
        daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        with pytest.raises(ChangeRefusedError, match=words):
            await getattr(daemon.operators, command)(request, verbs)
        assert await bench.journal.changes_in_force() == ()
        assert bench.events() == []

    run()


@pytest.mark.parametrize(
    ("floor", "ceiling", "words"),
    [
        (None, None, "neither a floor nor a ceiling"),
        (0, None, "the floor 0 is not from 1 to 100000 VMs; to keep the policy's minimum, leave it out"),
        (100_001, None, "the floor 100001 is not from 1"),
        (None, -1, "the ceiling -1 is not from 0"),
        (9, 5, "the floor 9 is above the ceiling 5; exchange them"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(floor, ceiling, words):
    @virtual
    async def run():
        bench = bench_of(100)
        daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        with pytest.raises(ChangeRefusedError, match=words):
            await daemon.operators.override(asked(), floor, ceiling)
        assert await bench.journal.changes_in_force() == ()

    run()


@virtual
async def test_a_floor_above_what_there_is_is_taken_and_said():
    bench = bench_of(100)
    commands = Commands(bench).at(5, "override", asked(), 50, None)
    await bench.run(10)
    assert (
        "Note that web can have 7 VMs at most, so a floor of 50 will not be reached." in commands.words()[0]
    )


# ── a journal that does not take it ─────────────────────────────────────────────────────────────────────


@virtual
async def test_a_change_that_cannot_be_recorded_is_not_in_force():
    bench = bench_of(steady((0, 300), (30, 100)))
    bench.journal = Broken(bench.journal)
    commands = Commands(bench).at(5, "pause", asked(), STOP).at(25, "pause", asked(), START)
    loop = asyncio.get_running_loop()
    loop.call_later(4, setattr, bench.journal, "full", True)
    loop.call_later(24, setattr, bench.journal, "full", False)
    await bench.run(40)
    assert isinstance(commands.said[0][1], JournalError)
    assert [row.may_stop for row in bench.rows()] == [True] * 5
    assert [row.may_start for row in bench.rows()] == [True, True, True, False, False]
    assert any("an operator's change is not in force" in text for text in bench.log.texts("journal_failed"))


class Broken(FailingJournal):
    """Takes ticks and no changes while `full`."""

    full = False

    async def record_changes(self, at_s, changes, events):
        if self.full:
            raise JournalError("the disk is full")
        return await self.journal.record_changes(at_s, changes, events)


@virtual
async def test_a_change_that_arrives_after_it_was_given_up_is_in_force_then():
    bench = bench_of(steady((0, 300), (30, 100)))
    bench.journal = Hung(bench.journal, bench.clock, 4, 25, "record_changes")
    commands = Commands(bench).at(5, "pause", asked(), STOP)
    await bench.run(60)
    ((second, error),) = commands.said
    assert (second, type(error)) == (10, JournalLateError)
    assert [row.may_stop for row in bench.rows()][:4] == [True, True, True, False]
    assert not bench.calls("StopInstances")
    assert len(bench.daemon.operators.in_force()) == len(await bench.journal.changes_in_force()) == 1


@virtual
async def test_an_end_that_cannot_be_recorded_is_an_end_and_is_recorded_later():
    bench = bench_of(steady((0, 300), (15, 100)))
    bench.journal = Broken(bench.journal)
    Commands(bench).at(5, "pause", asked(until_s=25), STOP)
    loop = asyncio.get_running_loop()
    loop.call_later(15, setattr, bench.journal, "full", True)
    loop.call_later(45, setattr, bench.journal, "full", False)
    await bench.run(60)
    assert bench.calls("StopInstances")[0][0] == 30, "the pause has ended though the journal does not know"
    assert [(at, kind) for at, kind, _ in bench.events()] == [(5, "paused"), (50, "pause_expired")]


@virtual
async def test_an_end_does_not_undo_a_later_pause_of_the_same():
    bench = bench_of(100)
    bench.journal = Broken(bench.journal)
    commands = Commands(bench).at(5, "pause", asked(until_s=25), STOP)
    loop = asyncio.get_running_loop()
    # The end at 30 is not taken; before it is tried again the same is paused anew.
    loop.call_later(28, setattr, bench.journal, "full", True)
    loop.call_later(33, setattr, bench.journal, "full", False)
    commands.at(35, "pause", asked(who="bob", reason="again"), STOP)
    await bench.run(60)
    assert [kind for _, kind, _ in bench.events()] == ["paused", "paused", "pause_expired"]
    assert [record.change.who for record in await bench.journal.changes_in_force()] == ["bob"]
    assert [row.may_stop for row in bench.rows()][-2:] == [False, False]


@virtual
async def test_a_daemon_that_cannot_read_what_is_in_force_does_not_begin():
    bench = bench_of(100)
    bench.journal._connection.execute("DROP TABLE operator_changes")
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    with pytest.raises(JournalError, match="no such table: operator_changes"):
        await daemon.run()
