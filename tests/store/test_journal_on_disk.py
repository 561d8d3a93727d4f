"""The journal and its files: crashes, second writers, and foreign, newer, damaged and full ones."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.core.types import Stage
from autoscaler.errors import JournalDamagedError, JournalError
from autoscaler.ports import (
    ActionIntent,
    FleetTick,
    Note,
    Outcome,
    OutcomeKind,
    Settled,
    TickRecord,
    Verb,
)
from autoscaler.store import JournalReader, SqliteJournal, schema

VERSION_1 = Path(__file__).parent / "data" / "journal-v1.sqlite.gz"

START = ActionIntent("web", Verb.START, ("i-1", "i-2"), 2, "", "demand needs 2 more")


def fleet_tick(fleet: str = "web", desired: int = 4) -> FleetTick:
    return FleetTick(
        fleet=fleet,
        demand=431.5,
        observed_at_s=9.0,
        freshness=0,
        coverage=1.0,
        censored=False,
        in_service=2,
        starting=0,
        draining=0,
        stopping=0,
        stopped=40,
        provisioned=42,
        stoppable=2,
        forecast=440.0,
        forecast_hi=470.25,
        wish=desired,
        desired=desired,
        start=desired - 2,
        provision=0,
        stop=0,
        warm_target=38,
        capacity=240.0,
        shortage=191.5,
        cost=0.0123,
        stages=(desired,) * 11,
        reasons=(1,) + (0,) * 10,
        sentence="start 2 of 40 stopped",
    )


def digest(folder: Path) -> tuple[str, int]:
    file = folder / "journal.sqlite"
    return hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns


async def write_and_close(state: Path, ticks: int = 1) -> None:
    journal = SqliteJournal(state, inline=True)
    for tick in range(ticks):
        await journal.record_tick(TickRecord(tick, tick * 10.0, (fleet_tick(),)), (START,))
    await journal.close()


@contextmanager
def child(script: str, *arguments: object):
    """A Python process running the script, its output as lines; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The group, because a child may have left one of its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_journal_on_disk import SqliteJournal, TickRecord, START, fleet_tick

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    for tick in range(100000):
        ids = await journal.record_tick(TickRecord(tick, tick * 10.0, (fleet_tick(),)), (START,))
        print(tick, ids[0], flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path) -> None:
    with child(WRITER, tmp_path, Path(__file__).parent) as process:
        for _ in range(20):
            acknowledged = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        # What it had printed before it died was acknowledged as well.
        acknowledged = ([acknowledged, *process.stdout.readlines()])[-1]
    tick, action_id = map(int, acknowledged.split())
    assert tick >= 19
    journal = SqliteJournal(tmp_path)
    opened = await journal.recent_actions(math.inf)
    assert (tick, action_id, START) in [(action.tick, action.id, action.intent) for action in opened]
    assert [action.tick for action in opened] == list(range(len(opened)))
    with journal.reader() as reader:
        assert len(reader.ticks("web", 0.0, 1e9)) == len(opened)
    await journal.record_outcomes([Settled(action_id, 1e6, (Outcome("i-1", OutcomeKind.UNKNOWN),))])
    await journal.close()


async def test_a_reader_sees_a_running_writers_ticks(tmp_path) -> None:
    with child(WRITER, tmp_path, Path(__file__).parent) as process:
        process.stdout.readline()
        with JournalReader(tmp_path) as reader:
            seen: list[int] = []
            # The first ones may have waited to be read, while the writer had no time to go on.
            while len(seen) < 10 or seen[-1] == seen[0]:
                acknowledged = int(process.stdout.readline().split()[0])
                last = reader.last("web")
                assert last is not None
                assert last.tick >= acknowledged
                assert len(reader.actions_of_tick(last.tick)) == 1
                seen.append(last.tick)
    assert seen == sorted(seen)


async def test_a_reader_may_not_write(tmp_path) -> None:
    await write_and_close(tmp_path)
    with JournalReader(tmp_path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM ticks")


async def test_many_calls_at_once_are_all_written(tmp_path) -> None:
    journal = SqliteJournal(tmp_path)
    calls = [
        journal.record_tick(TickRecord(tick, float(tick), (fleet_tick(),)), (START,)) for tick in range(50)
    ]
    ids = await asyncio.gather(*calls)
    assert sorted(ids) == [(number,) for number in range(1, 51)]
    await journal.close()


# ── one writer ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_writer_is_told_who_the_first_is(tmp_path) -> None:
    first = SqliteJournal(tmp_path)
    with pytest.raises(JournalError, match=rf"in use by process {os.getpid()}\. Stop that daemon"):
        SqliteJournal(tmp_path)
    await first.record_events(1.0, [Note("note", "", "the first still writes")])
    await first.close()
    await SqliteJournal(tmp_path).close()


def test_a_second_process_is_told_who_the_first_is(tmp_path) -> None:
    with child(WRITER, tmp_path, Path(__file__).parent) as process:
        process.stdout.readline()
        with pytest.raises(JournalError, match=f"in use by process {process.pid}"):
            SqliteJournal(tmp_path)


FORKER = """
import os, signal, sys
from pathlib import Path
from autoscaler.store import SqliteJournal

journal = SqliteJournal(Path(sys.argv[1]), inline=True)
child = os.fork()
if child == 0:
    os.write(1, b"forked\\n")
    signal.pause()
os.write(1, f"{child}\\n".encode())
signal.pause()
"""


async def test_a_forked_child_does_not_hold_the_lock_after_the_writers_death(tmp_path) -> None:
    with child(FORKER, tmp_path) as process:
        lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        (orphan,) = (int(line) for line in lines - {"forked"})
        process.kill()
        process.wait()
        os.kill(orphan, 0)  # raises where it is gone
        await SqliteJournal(tmp_path).close()


async def test_a_failed_opening_releases_the_lock(tmp_path) -> None:
    file = tmp_path / "journal.sqlite"
    file.write_text("shopping list: milk")
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path)
    file.unlink()
    await SqliteJournal(tmp_path).close()


# ── files that are not ours, or not well ────────────────────────────────────────────────────────────────


def test_junk_is_refused_and_left_alone(tmp_path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"shopping list: milk, bread\n" * 400)
    before = digest(tmp_path)
    for opener in (SqliteJournal, JournalReader):
        with pytest.raises(
            JournalError, match=r"journal\.sqlite cannot be opened: it is not a SQLite database"
        ):
            opener(tmp_path)
    assert digest(tmp_path) == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    before = digest(tmp_path)
    for opener in (SqliteJournal, JournalReader):
        with pytest.raises(JournalError, match="of another program and was left alone"):
            opener(tmp_path)
    assert digest(tmp_path) == before


async def test_a_newer_version_is_refused_and_left_alone(tmp_path) -> None:
    newer = (*schema.MIGRATIONS, "CREATE TABLE later (id INTEGER PRIMARY KEY)")
    await write_and_close(tmp_path)
    schema.open_for_writing(tmp_path / "journal.sqlite", newer).close()
    before = digest(tmp_path)
    for opener in (SqliteJournal, JournalReader):
        with pytest.raises(
            JournalError,
            match=f"has version {len(newer)}, this program knows versions up to {len(newer) - 1}",
        ):
            opener(tmp_path)
    assert digest(tmp_path) == before


def as_recorded_today(tick: FleetTick) -> FleetTick:
    """A tick of eleven stages with the three that came later, which left the wish as it was."""
    for at in (Stage.PAUSE - 1, Stage.ECONOMIC, Stage.SHARED):
        stages, reasons = tick.stages, tick.reasons
        tick = replace(
            tick,
            stages=(*stages[:at], stages[at - 1], *stages[at:]),
            reasons=(*reasons[:at], 0, *reasons[at:]),
        )
    return tick


async def test_a_version_1_file_opens_with_todays_program(tmp_path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(gzip.decompress(VERSION_1.read_bytes()))
    journal = SqliteJournal(tmp_path)
    assert await journal.changes_in_force() == ()
    (opened,) = await journal.recent_actions(math.inf)
    assert (opened.tick, opened.intent) == (1, START)
    with journal.reader() as reader:
        assert [(row.tick, row.at_s, row.recorded) for row in reader.ticks("web", 0.0, 99.0)] == [
            (0, 0.0, as_recorded_today(fleet_tick())),
            (1, 10.0, as_recorded_today(fleet_tick(desired=6))),
        ]
        assert reader.ticks("web", 0.0, 1.0)[0].recorded.may_stop is True
        assert reader.actions_of_tick(0)[0].outcomes == (Outcome("i-1", OutcomeKind.ACCEPTED),)
        assert [event.text for event in reader.events(0.0, 99.0)] == ["daemon started"]
    await journal.record_tick(TickRecord(2, 20.0, (fleet_tick(),)), ())
    await journal.close()


async def test_a_migration_keeps_what_was_written(tmp_path) -> None:
    await write_and_close(tmp_path, ticks=3)
    newer = (*schema.MIGRATIONS, "ALTER TABLE events ADD COLUMN severity TEXT NOT NULL DEFAULT 'note'")
    file = tmp_path / "journal.sqlite"
    with pytest.raises(JournalError, match="migrates the journal"):
        schema.open_for_reading(file, newest=len(newer))
    with closing(schema.open_for_writing(file, newer)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (3,)
    schema.open_for_reading(file, newest=len(newer)).close()


async def test_a_migration_that_fails_changes_nothing(tmp_path) -> None:
    await write_and_close(tmp_path)
    broken = (*schema.MIGRATIONS, "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1)")
    with pytest.raises(JournalError, match="no such table: nowhere"):
        schema.open_for_writing(tmp_path / "journal.sqlite", broken)
    with JournalReader(tmp_path) as reader:
        assert reader.last("web") is not None
        assert reader._connection.execute(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"
        ).fetchone() == (0,)


async def test_an_empty_file_becomes_a_journal(tmp_path) -> None:
    (tmp_path / "journal.sqlite").touch()
    with pytest.raises(JournalError, match="migrates the journal"):
        JournalReader(tmp_path)
    await write_and_close(tmp_path)
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        assert reader.fleets() == ("web",)


@pytest.mark.parametrize("first_damaged_page", [2, 12])
async def test_damage_is_said_with_file_and_remedy(tmp_path, first_damaged_page) -> None:
    await write_and_close(tmp_path, ticks=200)
    file = tmp_path / "journal.sqlite"
    start = 4096 * (first_damaged_page - 1)
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(b"\x5a" * (file.stat().st_size - start))
    with pytest.raises(JournalDamagedError, match=rf"{file} (cannot be (opened|written): it )?is damaged"):
        await write_and_close(tmp_path)
    with (
        pytest.raises(JournalError, match=rf"{file} cannot be read: it is damaged"),
        JournalReader(tmp_path) as reader,
    ):
        reader.last("web")


async def test_a_damaged_tick_names_file_and_tick(tmp_path) -> None:
    await write_and_close(tmp_path, ticks=3)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE ticks SET body = substr(body, 1, 40) WHERE tick = 1")
        connection.execute("UPDATE ticks SET format = 99 WHERE tick = 2")
    with JournalReader(tmp_path) as reader:
        assert reader.tick_at("web", 5.0) is not None
        with pytest.raises(JournalError, match=r"journal\.sqlite cannot be read at tick 1: .*damaged"):
            reader.tick_at("web", 15.0)
        with pytest.raises(JournalError, match=r"at tick 2: .*format 99"):
            reader.tick_at("web", 25.0)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        connection.execute("""UPDATE rosters SET fleets = '["web", "api"]'""")
    with (
        JournalReader(tmp_path) as reader,
        pytest.raises(JournalError, match=r"at tick 0: .*1 rows for 2 fleets"),
    ):
        reader.tick_at("web", 5.0)


async def test_a_full_disk_is_an_error_and_the_journal_goes_on_when_there_is_space(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_tick(TickRecord(0, 0.0, (fleet_tick(),)), (START,))
    # SQLite's own limit gives the very result code of a full file system.
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    fleets = tuple(fleet_tick(os.urandom(20).hex()) for _ in range(300))
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot be written: the disk is full"):
            await journal.record_tick(TickRecord(1, 10.0, fleets), (START,))
    assert len(await journal.recent_actions(math.inf)) == 1
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    await journal.record_tick(TickRecord(2, 20.0, fleets), (START,))
    assert [action.tick for action in await journal.recent_actions(math.inf)] == [0, 2]
    await journal.close()


@contextmanager
def as_nobody():
    """Without root's power to write anywhere."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.fixture
def closed_directory():
    # Not below tmp_path: that one is closed to other users as a whole.
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def test_one_who_may_only_read_reads_with_and_without_a_daemon(closed_directory) -> None:
    closed_directory.chmod(0o755)
    await write_and_close(closed_directory, ticks=2)
    closed_directory.chmod(0o555)
    with as_nobody(), JournalReader(closed_directory) as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [0, 1]
    closed_directory.chmod(0o755)
    journal = SqliteJournal(closed_directory)
    await journal.record_tick(TickRecord(2, 20.0, (fleet_tick(),)), ())
    closed_directory.chmod(0o555)
    with as_nobody(), JournalReader(closed_directory) as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 99.0)] == [0, 1, 2]
    closed_directory.chmod(0o755)
    await journal.close()


def test_a_directory_that_may_not_be_written_to(closed_directory) -> None:
    with (
        as_nobody(),
        pytest.raises(JournalError, match=rf"{closed_directory} cannot be written to: Permission denied"),
    ):
        SqliteJournal(closed_directory)
    with as_nobody(), pytest.raises(JournalError, match="cannot be opened: Permission denied"):
        SqliteJournal(closed_directory / "state")


def test_a_state_directory_that_is_a_file(tmp_path) -> None:
    (tmp_path / "state").touch()
    for path in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(
            JournalError, match=r"cannot be opened: .*/state.* is not a folder\. Give a state directory"
        ):
            SqliteJournal(path)


def test_a_state_directory_that_cannot_be_made_says_what_to_check() -> None:
    with pytest.raises(
        JournalError, match=r"/proc/none/journal\.sqlite cannot be opened: .* Check owner, mode"
    ):
        SqliteJournal(Path("/proc/none"))


def test_reading_where_no_daemon_ever_ran(tmp_path) -> None:
    with pytest.raises(JournalError, match=r"There is no journal at .*journal\.sqlite\. Has a daemon run"):
        JournalReader(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_closed_reader_says_so(tmp_path) -> None:
    await write_and_close(tmp_path)
    reader = JournalReader(tmp_path)
    reader.close()
    with pytest.raises(JournalError, match="closed"):
        reader.fleets()


async def test_every_commit_waits_for_the_disk(tmp_path) -> None:
    journal = SqliteJournal(tmp_path, inline=True)
    settings = {
        name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "auto_vacuum": 2}
    await journal.close()
