"""Damaged journals: noticed at opening and while running, set aside as a whole, and begun anew with one message."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from autoscaler.core.types import Stage
from autoscaler.errors import JournalDamagedError, JournalError
from autoscaler.ports import ActionIntent, FleetTick, Note, Outcome, OutcomeKind, Settled, TickRecord, Verb
from autoscaler.store import JournalReader, SqliteJournal, open_journal, schema
from autoscaler.store.recovery import check

START = ActionIntent("web", Verb.START, ("i-1", "i-2"), 2, "", "demand needs 2 more")
NOW_S = 1_795_514_400.0  # 2026-11-24T10:00:00Z
ASIDE = "journal.damaged-20261124T100000Z.sqlite"
PAGE = 4096


def fleet_tick(sentence: str = "start 2 of 40 stopped") -> FleetTick:
    counts = dict.fromkeys(
        [
            "in_service",
            "starting",
            "draining",
            "stopping",
            "stopped",
            "provisioned",
            "stoppable",
            "wish",
            "desired",
            "start",
            "provision",
            "stop",
            "warm_target",
            "freshness",
        ],
        1,
    )
    floats = dict.fromkeys(
        ["demand", "observed_at_s", "coverage", "forecast", "forecast_hi", "capacity", "shortage", "cost"],
        1.0,
    )
    stages = len(Stage)
    return FleetTick(
        fleet="web",
        censored=False,
        stages=(1,) * stages,
        reasons=(0,) * stages,
        sentence=sentence,
        **counts,
        **floats,
    )


def tick(number: int) -> TickRecord:
    return TickRecord(number, number * 10.0, (fleet_tick(os.urandom(400).hex()),))


class Told(list):
    """The messages for a person."""

    def open(self, state: Path, *, inline: bool = True) -> SqliteJournal:
        return open_journal(state, lambda: NOW_S, self.append, inline=inline)


async def fill(journal: SqliteJournal, ticks: int = 60) -> None:
    """Ticks with a settled action each, and one at the end that is under way."""
    for number in range(ticks):
        ids = await journal.record_tick(tick(number), (START,))
        if number < ticks - 1:
            await journal.record_outcomes(
                [Settled(ids[0], number * 10.0 + 1, (Outcome("i-1", OutcomeKind.ACCEPTED),))]
            )


async def killed(state: Path, grave: Path, *, checkpoint: bool) -> Path:
    """A state directory as `kill -9` leaves it: its log not folded into the database, or folded up to there."""
    journal = Told().open(state)
    await fill(journal)
    if checkpoint:
        journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await journal.record_events(1.0, [Note("note", "", "after the checkpoint")])
    shutil.copytree(state, grave)
    await journal.close()
    return grave


def overwrite(file: Path, offset: int, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def delete_log(state: Path) -> None:
    (state / "journal.sqlite-wal").unlink()


def empty_log(state: Path) -> None:
    os.truncate(state / "journal.sqlite-wal", 0)


def cut_log(state: Path) -> None:
    log = state / "journal.sqlite-wal"
    os.truncate(log, log.stat().st_size // 2)


def garble_log_header(state: Path) -> None:
    overwrite(state / "journal.sqlite-wal", 0, b"\0" * 32)


def tear_pages(state: Path) -> None:
    for page in range(2, 12):
        overwrite(state / "journal.sqlite", page * PAGE, bytes(range(256)) * 8)


def zero_header(state: Path) -> None:
    delete_log(state)
    overwrite(state / "journal.sqlite", 0, b"\0" * 100)


def zero_first_page(state: Path) -> None:
    delete_log(state)
    overwrite(state / "journal.sqlite", 0, b"\0" * PAGE)


def clear_identity(state: Path) -> None:
    delete_log(state)
    overwrite(state / "journal.sqlite", 60, b"\0" * 40)


def foreign_bytes(state: Path) -> None:
    overwrite(state / "journal.sqlite", 5 * PAGE, b"From: somebody\nSubject: lunch\n\n" * 1000)


def rows_out_of_order(state: Path) -> None:
    """The first two rows of each page of a table change places, which no reading of it would notice."""
    file = state / "journal.sqlite"
    pages = bytearray(file.read_bytes())
    for at in range(PAGE, len(pages), PAGE):
        if pages[at] == 0x0D and int.from_bytes(pages[at + 3 : at + 5]) > 1:
            pages[at + 8 : at + 12] = pages[at + 10 : at + 12] + pages[at + 8 : at + 10]
    file.write_bytes(pages)


def cut_database(state: Path) -> None:
    file = state / "journal.sqlite"
    os.truncate(file, file.stat().st_size // 2)


def empty_database(state: Path) -> None:
    delete_log(state)
    os.truncate(state / "journal.sqlite", 0)


def old_copy(state: Path) -> None:
    """What a restored backup looks like: sound, and older than what was acknowledged."""
    delete_log(state)
    with closing(sqlite3.connect(state / "journal.sqlite", isolation_level=None)) as connection:
        connection.execute("DELETE FROM ticks WHERE id > 10")
        connection.execute("UPDATE sqlite_sequence SET seq = 10 WHERE name = 'ticks'")


CHECKPOINTED = [
    tear_pages,
    zero_header,
    zero_first_page,
    clear_identity,
    foreign_bytes,
    rows_out_of_order,
    cut_database,
    empty_database,
    old_copy,
]
LOGGED = [delete_log, empty_log, cut_log, garble_log_header]


@pytest.mark.parametrize(
    ("damage", "checkpoint"),
    [(each, True) for each in CHECKPOINTED] + [(each, False) for each in LOGGED] + [(delete_log, True)],
)
async def test_damage_is_found_at_opening_and_set_aside(tmp_path, damage, checkpoint) -> None:
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=checkpoint)
    damage(state)
    damaged = (state / "journal.sqlite").read_bytes()
    told = Told()
    journal = told.open(state)
    (text,) = told
    assert str(state / "journal.sqlite") in text
    assert str(state / ASIDE) in text
    assert "comes from the cloud's listing" in text
    # The identity of a damaged file is looked at before it is opened for writing, so most are untouched.
    assert len((state / ASIDE).read_bytes()) >= len(damaged)
    carried = await journal.recent_actions(math.inf)
    # A log that is cut may end between an action and its outcome: what was open there is settled by a listing.
    at_the_cut = [action.id for action in carried]
    assert at_the_cut in ([], [60]) or (damage is cut_log and len(at_the_cut) == 1)
    (number,) = await journal.record_tick(tick(1000), (START,))
    assert number > 60, "an action's id is never used twice"
    await journal.record_outcomes([Settled(number, 1.0, ())])
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0, 1e9)] == [1000]
        assert [(e.kind, e.text) for e in reader.events(0, 1e12)] == [("journal_recovered", text)]
    await journal.close()
    # And that was it: the new journal opens in silence.
    await told.open(state).close()
    assert len(told) == 1


def lose_mark_and_first_page(state: Path) -> None:
    zero_first_page(state)
    (state / "journal.mark").unlink()


def write_over_it(state: Path) -> None:
    delete_log(state)
    (state / "journal.sqlite").write_bytes(b"shopping list: milk, bread\n" * 400)


@pytest.mark.parametrize("damage", [lose_mark_and_first_page, write_over_it])
async def test_its_mark_or_what_is_left_of_it_says_that_it_was_a_journal(tmp_path, damage) -> None:
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=True)
    damage(state)
    told = Told()
    journal = told.open(state)
    assert len(told) == 1
    assert (state / ASIDE).exists()
    assert await journal.recent_actions(math.inf) == ()
    await journal.close()


async def test_what_was_under_way_is_carried_over_where_it_can_be_read(tmp_path) -> None:
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=True)
    delete_log(state)
    told = Told()
    journal = told.open(state)
    (carried,) = await journal.recent_actions(math.inf)
    assert (carried.id, carried.tick, carried.at_s, carried.intent) == (60, 59, 590.0, START)
    assert "1 actions under way were carried over" in told[0]
    await journal.record_outcomes([Settled(60, 1e3, ())])
    assert await journal.recent_actions(math.inf) == ()
    await journal.close()


@pytest.mark.parametrize("seed", range(24))
async def test_no_damage_anywhere_keeps_a_daemon_from_its_journal(tmp_path, seed) -> None:
    """Bytes of any file overwritten or cut at random: it opens, works, and nothing that is read is wrong."""
    rng = np.random.default_rng(seed)
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=bool(seed % 2))
    for _ in range(int(rng.integers(1, 4))):
        file = state / str(rng.choice(["journal.sqlite", "journal.sqlite-wal", "journal.mark"]))
        size = max(file.stat().st_size, 1)
        if rng.random() < 0.3:
            os.truncate(file, int(rng.integers(size)))
        else:
            overwrite(file, int(rng.integers(size)), rng.bytes(int(rng.integers(1, 5000))))
    told = Told()
    journal = told.open(state)
    (number,) = await journal.record_tick(tick(1000), (START,))
    await journal.record_outcomes([Settled(number, 1.0, (Outcome("i-1", OutcomeKind.ACCEPTED),))])
    await journal.prune(before_s=300.0, max_bytes=2**30)
    for action in await journal.recent_actions(math.inf):
        assert action.intent == START
    with journal.reader() as reader:
        assert reader.last("web").tick == 1000
    await journal.close()
    assert len(told) <= 2
    assert len(list(state.glob("journal.damaged-*.sqlite"))) == len(told)


# ── while running ───────────────────────────────────────────────────────────────────────────────────────


def delete_database(state: Path) -> None:
    (state / "journal.sqlite").unlink()


def replace_database(state: Path) -> None:
    copy = state / "copy"
    shutil.copy(state / "journal.sqlite", copy)
    copy.rename(state / "journal.sqlite")


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    "damage", [delete_log, empty_log, cut_log, delete_database, replace_database, tear_pages]
)
async def test_damage_is_found_while_running(tmp_path, damage, inline) -> None:
    told = Told()
    journal = told.open(tmp_path, inline=inline)
    await fill(journal)
    if damage is tear_pages:
        # Out of the cache and out of the log, else nobody would meet the torn pages.
        journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        journal._connection.execute("PRAGMA cache_size = 0")
        await journal.record_events(1.0, [Note("note", "", "looks at its files")])
    damage(tmp_path)
    (number,) = await journal.record_tick(tick(1000), (START,))
    if damage is tear_pages:
        await journal.prune(before_s=1e9, max_bytes=2**30)
        (number,) = await journal.record_tick(tick(1001), (START,))
    assert len(told) == 1
    assert number > 60
    # The outcome of what was under way when it happened is kept, as an outcome or as an event.
    await journal.record_outcomes([Settled(60, 2.0, (Outcome("i-1", OutcomeKind.ACCEPTED),))])
    still_open = [action.id for action in await journal.recent_actions(math.inf)]
    assert still_open == ([61, number] if damage is tear_pages else [number])
    with JournalReader(tmp_path) as reader:
        assert reader.last("web").tick == (1001 if damage is tear_pages else 1000)
        assert reader.events(0, 1e12)[0].kind == "journal_recovered"
    await journal.close()


class Interruptible(sqlite3.Connection):
    """Keeps what is asked; where it `hangs`, its first step takes until it is interrupted, or for longer than that may take."""

    def __init__(self, *given):
        super().__init__(*given)
        self.asked, self.interrupted = [], threading.Event()

    def hangs(self):
        patience = iter([10.0])
        self.set_progress_handler(lambda: self.interrupted.wait(next(patience, 0.0)) and 0, 1)

    def execute(self, *given):
        self.asked.append(given)
        return super().execute(*given)

    def interrupt(self):
        super().interrupt()
        self.interrupted.set()


def test_a_check_that_takes_long_ends_in_time_and_is_no_damage(tmp_path):
    path = tmp_path / "journal.sqlite"
    schema.open_for_writing(path).close()
    with closing(Interruptible(path)) as connection:
        connection.hangs()
        check(connection, path, within_s=0.01)
        assert connection.interrupted.is_set()
        assert len(connection.asked) == 1


def test_a_check_that_ends_before_its_time_interrupts_nobody_later(tmp_path):
    path = tmp_path / "journal.sqlite"
    schema.open_for_writing(path).close()
    with closing(Interruptible(path)) as connection:
        check(connection, path, within_s=30.0)
        assert len(connection.asked) == 8
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        assert all(timer.finished.is_set() for timer in timers)


def test_a_check_that_fails_otherwise_is_told(tmp_path):
    path = tmp_path / "journal.sqlite"
    schema.open_for_writing(path).close()
    with closing(Interruptible(path)) as connection:
        connection.execute("DROP TABLE events")
        with pytest.raises(sqlite3.OperationalError, match="events"):
            check(connection, path)


async def test_a_checkpoint_by_another_program_is_no_damage(tmp_path) -> None:
    told = Told()
    journal = told.open(tmp_path)
    await fill(journal)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    await fill(journal, ticks=2)
    await journal.close()
    await told.open(tmp_path).close()
    assert told == []


async def test_a_daemon_killed_and_looked_at_with_another_program_is_no_damage(tmp_path) -> None:
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=False)
    with closing(sqlite3.connect(state / "journal.sqlite")) as other:
        assert other.execute("SELECT count(*) FROM ticks").fetchone() == (60,)
    assert not (state / "journal.sqlite-wal").exists()  # that program was the last to leave
    told = Told()
    journal = told.open(state)
    assert [action.id for action in await journal.recent_actions(math.inf)] == [60]
    await journal.close()
    assert told == []


async def test_a_new_journal_that_cannot_be_begun_is_begun_later(tmp_path) -> None:
    told = Told()
    journal = told.open(tmp_path)
    await fill(journal)
    delete_log(tmp_path)
    real, blocker = tmp_path / "journal.sqlite", tmp_path / "journal.sqlite-journal"
    blocker.mkdir()  # a new database cannot have its first rollback journal here
    for _ in range(3):
        with pytest.raises(JournalError):
            await journal.record_tick(tick(1), (START,))
    assert told == []
    assert not real.exists()
    blocker.rmdir()
    (number,) = await journal.record_tick(tick(2), (START,))
    assert number > 60
    assert str(tmp_path / ASIDE) in told[0]
    assert len(list(tmp_path.glob("journal.damaged-*.sqlite"))) == 1
    await journal.close()


async def test_two_damages_within_a_second_have_two_names(tmp_path) -> None:
    told = Told()
    for _ in range(2):
        journal = told.open(tmp_path)
        await fill(journal, ticks=3)
        await journal.close()
        overwrite(tmp_path / "journal.sqlite", 0, b"\0" * PAGE)
    await told.open(tmp_path).close()
    assert sorted(path.name for path in tmp_path.glob("journal.damaged-*.sqlite")) == [
        ASIDE.replace("Z.", "Z-2."),
        ASIDE,
    ]


# ── what is no damage ───────────────────────────────────────────────────────────────────────────────────


def test_a_foreign_file_is_left_alone(tmp_path) -> None:
    content = b"shopping list: milk, bread\n" * 400
    (tmp_path / "journal.sqlite").write_bytes(content)
    told = Told()
    with pytest.raises(JournalError, match="it is not a SQLite database"):
        told.open(tmp_path)
    assert (tmp_path / "journal.sqlite").read_bytes() == content
    assert told == []


def test_another_programs_database_is_left_alone(tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    told = Told()
    with pytest.raises(JournalError, match="of another program and was left alone"):
        told.open(tmp_path)
    assert told == []


async def test_a_journal_without_a_mark_is_taken_as_it_is(tmp_path) -> None:
    journal = Told().open(tmp_path)
    await fill(journal, ticks=3)
    await journal.close()
    (tmp_path / "journal.mark").unlink()
    told = Told()
    journal = told.open(tmp_path)
    assert len(await journal.recent_actions(math.inf)) == 1
    await journal.close()
    assert told == []


async def test_without_the_right_to_begin_anew_damage_is_an_error(tmp_path) -> None:
    state = await killed(tmp_path / "alive", tmp_path / "state", checkpoint=False)
    delete_log(state)
    with pytest.raises(JournalDamagedError, match="ends before records that were acknowledged"):
        SqliteJournal(state)
    journal = Told().open(state)
    await asyncio.gather(*(journal.record_tick(tick(number), ()) for number in range(5)))
    await journal.close()
