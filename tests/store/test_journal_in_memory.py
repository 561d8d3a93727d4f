"""An in-memory journal writes ticks in batches, without visible difference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.errors import InvariantError, JournalError
from autoscaler.ports import Note, TickRecord, Verb
from autoscaler.store import SqliteJournal
from tests.contracts.test_journal_contract import START, fleet_tick


def _record(tick, *fleets):
    return TickRecord(tick, 10.0 * tick, tuple(fleet_tick(name, demand=float(tick)) for name in fleets))


async def _ticks(reader):
    return [row.tick for row in reader.ticks("web", 0.0, 1e9)]


async def test_whatever_else_is_written_or_read_comes_after_the_ticks_before_it():
    journal = SqliteJournal(":memory:")
    seen = []
    journal._connection.set_trace_callback(seen.append)
    for tick in range(3):
        await journal.record_tick(_record(tick, "web"), ())
    assert not [told for told in seen if "INTO ticks" in told and "20.0" in told]
    await journal.record_events(25.0, [Note("vm", "web", "something")])
    at = {what: next(i for i, told in enumerate(seen) if what in told) for what in ("20.0", "INTO events")}
    assert at["20.0"] < at["INTO events"]
    await journal.close()


@pytest.mark.parametrize("ticks", [1, 255, 256, 257, 700])
async def test_a_reader_sees_all_ticks_and_those_that_follow(ticks):
    journal = SqliteJournal(":memory:")
    for tick in range(ticks):
        await journal.record_tick(_record(tick, "web"), ())
    with journal.reader() as reader:
        assert await _ticks(reader) == [*range(ticks)]
        await journal.record_tick(_record(ticks, "web"), ())
        assert await _ticks(reader) == [*range(ticks + 1)]
    await journal.close()


async def test_ticks_with_intents_and_of_other_fleets_keep_their_order():
    journal = SqliteJournal(":memory:")
    await journal.record_tick(_record(0, "web"), ())
    await journal.record_tick(_record(1, "web"), ())
    (action,) = await journal.record_tick(_record(2, "web"), (START,))
    await journal.record_tick(_record(3, "web", "api"), ())
    await journal.record_tick(_record(4, "web"), ())
    with journal.reader() as reader:
        assert await _ticks(reader) == [0, 1, 2, 3, 4]
        assert [each.intent.verb for each in reader.open_actions()] == [Verb.START]
    ids = journal._connection.execute("SELECT id, tick FROM ticks ORDER BY id").fetchall()
    assert ids == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert action == 1
    await journal.close()


async def test_a_tick_that_cannot_be_stored_is_refused_at_once():
    journal = SqliteJournal(":memory:")
    await journal.record_tick(_record(0, "web"), ())
    wrong = replace(fleet_tick("web"), in_service=2**70)
    with pytest.raises(InvariantError, match="cannot store"):
        await journal.record_tick(TickRecord(1, 10.0, (wrong,)), ())
    with pytest.raises(InvariantError, match="twice"):
        await journal.record_tick(_record(2, "web", "web"), ())
    await journal.close()
    with pytest.raises(JournalError, match="closed"):
        await journal.record_tick(_record(3, "web"), ())


async def test_what_was_held_back_is_not_lost_where_it_cannot_be_written():
    journal = SqliteJournal(":memory:")
    for tick in range(3):
        await journal.record_tick(_record(tick, "web"), ())
    journal._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError):
        await journal.record_events(25.0, [Note("vm", "web", "something")])
    journal._connection.execute("PRAGMA query_only = OFF")
    with journal.reader() as reader:
        assert await _ticks(reader) == [0, 1, 2]
    await journal.close()
