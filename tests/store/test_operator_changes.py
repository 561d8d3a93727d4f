"""Operators' changes in force survive the journal: the file beside it, damage, full disks, older versions."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.errors import JournalError
from autoscaler.ports import ALL_FLEETS, ChangeKind, ChangeRecord, Note, OperatorChange, Verb
from autoscaler.store import JournalReader, SqliteJournal, open_journal
from autoscaler.store.changes import FILE_NAME, StandingFile, last_id
from autoscaler.store.rows import _HEAD, decode, row_dtype
from tests.store.test_journal_on_disk import START, VERSION_1, fleet_tick
from tests.store.test_journal_recovery import CHECKPOINTED, LOGGED, Told, delete_log, fill

VERSION_2 = VERSION_1.with_name("journal-v2.sqlite.gz")

PAUSE = OperatorChange(ChangeKind.PAUSED, ALL_FLEETS, Verb.STOP, "älice", "migration “B”", expires_at_s=9.5)
OVERRIDE = OperatorChange(ChangeKind.OVERRIDDEN, "web", None, "bob", "crowd", floor=4, ceiling=9)
RESUME = replace(PAUSE, kind=ChangeKind.RESUMED, expires_at_s=None)


def in_file(state: Path) -> list[OperatorChange] | None:
    found = StandingFile(state).read()
    return None if found is None else [record.change for record in found]


async def test_the_file_follows_the_journal(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    assert in_file(tmp_path) == []
    await journal.record_changes(1.0, (PAUSE, OVERRIDE), ())
    assert in_file(tmp_path) == [PAUSE, OVERRIDE]
    await journal.record_changes(2.0, (RESUME,), ())
    assert in_file(tmp_path) == [OVERRIDE]
    await journal.close()
    # A file that is behind, as a crash between the two leaves it, or that somebody has edited.
    StandingFile(tmp_path).write(())
    journal = SqliteJournal(tmp_path, inline=True)
    assert [record.change for record in await journal.changes_in_force()] == [OVERRIDE]
    assert in_file(tmp_path) == [OVERRIDE]
    await journal.close()


@pytest.mark.parametrize(
    "content", ["", "17\n{}", "x\n{}", '{"version": 1, "in_force": []}', "é", "\0" * 40], ids=repr
)
def test_a_file_that_is_torn_or_foreign_says_nothing(tmp_path, content) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    assert StandingFile(tmp_path).read() is None


async def test_what_was_changed_on_the_disk_says_nothing_and_what_says_so_already_is_not_written(
    tmp_path,
) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_changes(1.0, (OVERRIDE,), ())
    await journal.close()
    file = tmp_path / FILE_NAME
    standing, before = StandingFile(tmp_path), file.stat().st_ino
    standing.write(standing.read() or ())
    assert file.stat().st_ino == before
    file.write_text(file.read_text().replace('"floor": 4', '"floor": 3'))
    assert standing.read() is None


def test_ids_go_on_from_the_highest_that_is_in_force() -> None:
    assert last_id(ChangeRecord(number, 1.0, PAUSE) for number in (3, 9, 7)) == 9
    assert last_id(()) == 0


@pytest.mark.parametrize("body", [{"version": 2, "in_force": []}, {"version": 1, "in_force": [{"id": 1}]}])
def test_a_file_of_another_version_says_nothing(tmp_path, body) -> None:
    text = json.dumps(body)
    (tmp_path / FILE_NAME).write_text(f"{zlib.crc32(text.encode())}\n{text}")
    assert StandingFile(tmp_path).read() is None


def as_it_is(state: Path) -> Callable[[], None]:
    """Puts the files back as they are now: as `kill -9` would leave them."""
    files = {path: path.read_bytes() for path in state.iterdir() if path.name != "lock"}

    def put_back() -> None:
        for path, content in files.items():
            path.write_bytes(content)

    return put_back


async def damaged(state: Path, damage, *, checkpoint: bool) -> None:
    """A journal with a pause and an override, then damaged while no daemon ran."""
    journal = Told().open(state)
    await journal.record_changes(1.0, (PAUSE, OVERRIDE), (Note("paused", "", "paused"),))
    await fill(journal, 40)
    if checkpoint:
        journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await journal.record_events(1.0, [Note("note", "", "after the checkpoint")])
    put_back = as_it_is(state)
    await journal.close()
    put_back()
    damage(state)


@pytest.mark.parametrize(
    ("damage", "checkpoint"),
    [(each, True) for each in CHECKPOINTED] + [(each, False) for each in LOGGED],
)
async def test_pauses_outlive_a_journal_that_is_set_aside(tmp_path, damage, checkpoint) -> None:
    await damaged(tmp_path, damage, checkpoint=checkpoint)
    told = Told()
    journal = told.open(tmp_path)
    (text,) = told
    assert [record.change for record in await journal.changes_in_force()] == [PAUSE, OVERRIDE]
    assert "Operators' pauses and overrides (2) stay in force" in text
    (again,) = await journal.record_changes(9.0, (RESUME,), ())
    assert again.id == 3, "ids go on"
    assert in_file(tmp_path) == [OVERRIDE]
    await journal.close()


async def test_without_the_file_they_are_read_from_what_is_left_of_the_journal(tmp_path) -> None:
    await damaged(tmp_path, delete_log, checkpoint=True)
    (tmp_path / FILE_NAME).unlink()
    told = Told()
    journal = told.open(tmp_path)
    assert [record.change for record in await journal.changes_in_force()] == [PAUSE, OVERRIDE]
    assert "(2) were read from what is left of it; LATER CHANGES MAY BE LOST" in told[0]
    await journal.close()


async def test_what_is_lost_with_both_is_said_loudly(tmp_path) -> None:
    await damaged(tmp_path, delete_log, checkpoint=False)
    (tmp_path / FILE_NAME).write_text("torn")
    told = Told()
    journal = told.open(tmp_path)
    assert await journal.changes_in_force() == ()
    assert "PAUSES AND OVERRIDES OF OPERATORS ARE LOST" in told[0]
    assert "`autoscaler pause`" in told[0]
    with journal.reader() as reader:
        assert [event.text for event in reader.events(0.0, 1e12)] == list(told)
    await journal.close()


@pytest.mark.parametrize("with_file", [True, False])
async def test_they_outlive_damage_found_while_running(tmp_path, with_file) -> None:
    told = Told()
    journal = told.open(tmp_path)
    await journal.record_changes(1.0, (PAUSE,), ())
    if not with_file:
        (tmp_path / FILE_NAME).unlink()
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        (tmp_path / name).unlink()
    await journal.record_changes(2.0, (OVERRIDE,), ())
    assert len(told) == 1
    assert [record.change for record in await journal.changes_in_force()] == [PAUSE, OVERRIDE]
    assert in_file(tmp_path) == [PAUSE, OVERRIDE]
    await journal.close()


async def test_a_full_disk_refuses_the_change_whole(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    (kept,) = await journal.record_changes(1.0, (PAUSE,), ())
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    long = replace(RESUME, reason="x" * 50_000)
    with pytest.raises(JournalError, match="the disk is full"):
        await journal.record_changes(2.0, (OVERRIDE, long), (Note("resumed", "", "half"),))
    assert await journal.changes_in_force() == (kept,)
    assert in_file(tmp_path) == [PAUSE]
    with journal.reader() as reader:
        assert reader.events(0.0, 99.0) == ()
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    await journal.record_changes(3.0, (OVERRIDE, long), ())
    assert [record.change for record in await journal.changes_in_force()] == [OVERRIDE]
    await journal.close()


async def test_a_file_that_cannot_be_written_is_removed_rather_than_left_to_lie(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_changes(1.0, (PAUSE,), ())
    (tmp_path / f"{FILE_NAME}.new").mkdir()
    await journal.record_changes(2.0, (RESUME,), ())
    assert not (tmp_path / FILE_NAME).exists()
    assert await journal.changes_in_force() == ()
    (tmp_path / f"{FILE_NAME}.new").rmdir()
    await journal.record_changes(3.0, (OVERRIDE,), ())
    assert in_file(tmp_path) == [OVERRIDE]
    await journal.close()


async def test_a_version_1_journal_takes_changes_after_its_migration(tmp_path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(gzip.decompress(VERSION_1.read_bytes()))
    journal = open_journal(tmp_path, lambda: 0.0, [].append, inline=True)
    await journal.record_changes(1.0, (PAUSE,), (Note("paused", "", "said"),))
    await journal.close()
    with JournalReader(tmp_path) as reader:
        assert [event.text for event in reader.events(0.0, 99.0)] == ["daemon started", "said"]
        assert len(reader.open_actions()) == 1


def test_a_row_of_format_1_is_read_as_todays_chain_would_have_recorded_it() -> None:
    """Eleven stages, of which the last is what could be supplied; nothing could be paused then."""
    rows = np.zeros(1, row_dtype(11, 1))
    rows["stages"], rows["reasons"] = np.arange(20, 31), np.arange(1, 12)
    head = json.dumps({"stages": 11, "sentences": ["so"], "source_errors": [""]}).encode()
    (tick,) = decode(1, zlib.compress(_HEAD.pack(len(head)) + head + rows.tobytes()), ("web",), (0,))
    assert tick.stages == (20, 21, 22, 23, 23, 24, 25, 26, 27, 28, 29, 29, 29, 30)
    assert tick.reasons == (1, 2, 3, 4, 0, 5, 6, 7, 8, 9, 10, 0, 0, 11)
    assert (tick.may_start, tick.may_provision, tick.may_stop, tick.floor) == (True, True, True, 0)
    assert tick.ceiling == 2**31 - 1


async def test_a_version_2_file_opens_with_todays_program(tmp_path) -> None:
    """Written by the first program that knew operators' changes: ticks of format 2, a pause ended, an override."""
    (tmp_path / "journal.sqlite").write_bytes(gzip.decompress(VERSION_2.read_bytes()))
    journal = SqliteJournal(tmp_path)
    (override,) = await journal.changes_in_force()
    assert (override.id, override.at_s, override.change) == (2, 5.0, OVERRIDE)
    (opened,) = await journal.recent_actions(math.inf)
    assert (opened.tick, opened.intent) == (1, START)
    stages = {"stages": (4,) * 10 + (6, 5, 5, 5), "reasons": (1,) + (0,) * 9 + (19, 25, 0, 0)}
    later = replace(fleet_tick(desired=6), may_stop=False, floor=4, ceiling=9, **stages)
    with journal.reader() as reader:
        assert [row.recorded for row in reader.ticks("web", 0.0, 99.0)] == [
            replace(fleet_tick(), **stages),
            later,
        ]
        texts = [event.text for event in reader.events(0.0, 99.0)]
    assert texts == ["daemon started", "said", "so"]
    await journal.record_changes(20.0, (PAUSE,), ())
    assert [record.id for record in await journal.changes_in_force()] == [2, 4]
    await journal.close()
