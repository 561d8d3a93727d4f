"""Learned values survive restarts: written, replaced, deleted with their fleet, and in journals of older versions."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from autoscaler.errors import JournalError
from autoscaler.ports import Learned, TickRecord
from autoscaler.store import JournalReader, SqliteJournal, open_journal, schema
from tests.store.test_journal_on_disk import fleet_tick

DATA = Path(__file__).parent / "data"
WEB = Learned("web", "start_times", 1, b"\x00\xff" * 50)
API = Learned("api", "start_times", 1, b"")


async def test_the_latest_of_each_fleet_and_name_is_kept_over_a_restart(tmp_path) -> None:
    journal = SqliteJournal(tmp_path)
    assert await journal.learned() == ()
    await journal.record_learned(1.0, (WEB, API))
    newer = Learned("web", "start_times", 2, b"newer")
    await journal.record_learned(2.0, (newer, Learned("web", "capacity", 1, b"c")))
    await journal.close()
    again = SqliteJournal(tmp_path)
    assert await again.learned() == (API, Learned("web", "capacity", 1, b"c"), newer)
    await again.close()


async def test_half_of_a_write_is_nothing(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_learned(1.0, (WEB,))
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = Learned("api", "start_times", 1, b"x" * 500_000)
    with pytest.raises(JournalError, match="the disk is full"):
        await journal.record_learned(2.0, (Learned("web", "start_times", 1, b"half"), big))
    assert await journal.learned() == (WEB,)
    await journal.close()


async def test_what_nobody_has_kept_for_long_is_forgotten(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_learned(100.0, (WEB, API))
    await journal.record_learned(200.0, (WEB,))
    await journal.prune(before_s=150.0, max_bytes=10**9)
    assert await journal.learned() == (WEB,)
    # A fleet that is still there keeps what it learned, however long ago: it may start once a month.
    await journal.record_tick(TickRecord(30, 300.0, (fleet_tick("web"),)), ())
    await journal.prune(before_s=250.0, max_bytes=10**9)
    assert await journal.learned() == (WEB,)
    # Size is no reason: it is small, and costs days to learn again.
    await journal.prune(before_s=150.0, max_bytes=1)
    assert await journal.learned() == (WEB,)
    await journal.close()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_journal_of_an_older_version_takes_what_is_learned_and_loses_nothing(
    tmp_path, version
) -> None:
    file = tmp_path / schema.FILE_NAME
    file.write_bytes(gzip.decompress((DATA / f"journal-v{version}.sqlite.gz").read_bytes()))
    with sqlite3.connect(file) as before:
        assert before.execute("PRAGMA user_version").fetchone() == (version,)
        kept = [
            before.execute(f"SELECT * FROM {table}").fetchall() for table in ("events", "ticks", "actions")
        ]
    before.close()
    journal = open_journal(tmp_path, lambda: 0.0, [].append, inline=True)
    assert await journal.learned() == ()
    await journal.record_learned(1.0, (WEB,))
    assert await journal.learned() == (WEB,)
    await journal.close()
    with sqlite3.connect(file) as after:
        assert after.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
        for table, rows in zip(("events", "ticks", "actions"), kept, strict=True):
            assert after.execute(f"SELECT * FROM {table}").fetchall() == rows
    after.close()
    with JournalReader(tmp_path) as reader:
        assert len(reader.open_actions()) == 1
