"""Recovery from a damaged journal: how damage is detected, the file set aside, and what carries over to a new one.

Rules of this file: nothing is ever deleted. The damaged database is renamed together with its log, so that it can still be examined
with any SQLite tool. Files that our program cannot have written (a foreign file, another program's database, a newer version) are
not damage, and `schema` leaves them alone. Losing the journal loses history and nothing else: the cloud lists the VMs under the
ownership tag, and operators' changes in force have a file of their own (`changes`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from autoscaler.errors import JournalDamagedError, JournalError
from autoscaler.ports import ActionRecord, ChangeRecord
from autoscaler.store import schema
from autoscaler.store.actions import insert_action
from autoscaler.store.changes import insert_change, last_id, read_in_force, sync_directory
from autoscaler.store.mark import Progress, require
from autoscaler.store.reader import OPEN, read_actions

_T = TypeVar("_T")

EVENT = "journal_recovered"
"""Kind of the event that a new journal begins with."""

CHECK_WITHIN_S = 10.0
"""Time limit for checking a database when it is opened; damage beyond that is found when it is read."""

_SUFFIXES = ("", "-wal", "-shm")
# Small tables first: what a restart needs is then checked even if the ticks take longer than the limit.
_TABLES = ("actions", "outcomes", "operator_changes", "learned", "events", "meta", "rosters", "ticks")
_HEADER_BYTES = 16


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a journal needs to replace a damaged database by itself.

    Attributes:
        now: The clock, used to name the file set aside; called in the journal's thread.
        tell: Receives the message for people; called in the journal's thread.
    """

    now: Callable[[], float]
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Carried:
    """What carries over to a new journal.

    Attributes:
        actions: The open actions.
        changes: Operators' pauses and overrides in force.
        sure: Whether `changes` is known to be complete and current; False if it was read from the damaged journal.
    """

    actions: tuple[ActionRecord, ...] = ()
    changes: tuple[ChangeRecord, ...] = ()
    sure: bool = False


@dataclass(slots=True)
class Damage:
    """A damaged journal that is to be replaced.

    Attributes:
        why: What was noticed, as a sentence.
        carried: What could still be read.
        aside: The damaged file's new path, once it was renamed.
    """

    why: str
    carried: Carried
    aside: Path | None = None


def open_checked(path: Path, mark: Progress | None) -> sqlite3.Connection:
    """Open the journal for writing and check that it is intact.

    Args:
        path: The database file.
        mark: How far the journal is known to have been written; None if not known.

    Raises:
        JournalDamagedError: The journal is damaged, or acknowledged records are missing.
        JournalError: The file is not a journal, has a newer version, or cannot be written.
    """
    if mark is not None and not path.exists():
        raise JournalDamagedError(f"The journal {path} was removed, but its mark was left.")
    try:
        connection = schema.open_for_writing(path)
    except JournalDamagedError as error:
        if mark is None and not _was_ours(path):
            raise JournalError(str(error)) from error
        raise
    try:
        with schema.translated(str(path), "opened"):
            check(connection, path)
            if mark is not None:
                require(connection, mark, path)
    except BaseException:
        connection.close()
        raise
    return connection


def check_again(path: Path, mark: Progress) -> None:
    """Check with a new connection that everything acknowledged is still in the files.

    Raises:
        JournalDamagedError: Something is missing.
    """
    try:
        with schema.translated(str(path), "read"), closing(schema.open_for_reading(path)) as connection:
            require(connection, mark, path)
    except JournalDamagedError:
        raise
    except JournalError as error:
        raise JournalDamagedError(str(error)) from error


def carried_from(
    path: Path, in_use: sqlite3.Connection | None, changes: tuple[ChangeRecord, ...] | None
) -> Carried:
    """Read what a damaged journal still contains, and close the connection that used it.

    A writer that closes last moves the log into the database, and a damaged log would do more harm there. A reader
    that closes last does not, so one stays open longer.

    Args:
        path: The database file.
        in_use: The connection in use, if any.
        changes: Operators' changes in force, if known from elsewhere.
    """
    reader = None
    try:
        with suppress(JournalError):
            reader = schema.open_for_reading(path)
        actions = _tolerant(reader, lambda journal: read_actions(journal, OPEN))
        if changes is None:
            return Carried(actions, _tolerant(reader, read_in_force))
        return Carried(actions, changes, sure=True)
    finally:
        for connection in (in_use, reader):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()


def _tolerant(
    reader: sqlite3.Connection | None, read: Callable[[sqlite3.Connection], tuple[_T, ...]]
) -> tuple[_T, ...]:
    try:
        return () if reader is None else read(reader)
    except (sqlite3.Error, ValueError, TypeError):  # what is read may be anything, and need not be text
        return ()


def set_aside(path: Path, now_s: float) -> Path | None:
    """Rename the database and its log; return the new path, or None if there was nothing to rename.

    Raises:
        OSError: The directory cannot be written to.
    """
    found = [suffix for suffix in _SUFFIXES if _beside(path, suffix).exists()]
    if not found:
        return None
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"{path.stem}.damaged-{stamp}{'' if n == 1 else f'-{n}'}{path.suffix}" for n in range(1, 1000))
    aside = next(
        candidate
        for candidate in map(path.with_name, names)
        if not any(_beside(candidate, suffix).exists() for suffix in _SUFFIXES)
    )
    # Rename the database last: after a crash in between, the next opening sets the rest aside, too.
    for suffix in reversed(found):
        _beside(path, suffix).rename(_beside(aside, suffix))
    sync_directory(path.parent)
    return aside


def begin(path: Path, mark: Progress | None, carried: Carried) -> sqlite3.Connection:
    """Create a journal whose ids continue from the mark, with what carries over.

    Raises:
        JournalError: It cannot be written; no file is left.
    """
    try:
        connection = schema.open_for_writing(path)
        try:
            with schema.translated(str(path), "written"):
                _number_on(connection, mark or Progress(), carried)
        except BaseException:
            connection.close()
            raise
    except JournalError:
        # A half-written journal would look like a damaged one next time.
        for suffix in _SUFFIXES:
            _beside(path, suffix).unlink(missing_ok=True)
        raise
    return connection


def _number_on(connection: sqlite3.Connection, reached: Progress, carried: Carried) -> None:
    with schema.transaction(connection):
        for action in carried.actions:
            insert_action(connection, action.at_s, action.tick, action.intent, action.id)
        for record in carried.changes:
            insert_change(connection, record.at_s, record.change, record.id)
        last_action = max([reached.actions, *(action.id for action in carried.actions)])
        connection.execute("DELETE FROM sqlite_sequence")
        connection.executemany(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)",
            (
                ("ticks", reached.ticks),
                ("actions", last_action),
                ("events", reached.events),
                ("operator_changes", last_id(carried.changes)),
            ),
        )


def message(path: Path, damage: Damage) -> str:
    """Describe what happened, for people."""
    aside, carried = damage.aside, len(damage.carried.actions)
    where = "There was nothing to set aside" if aside is None else f"It was set aside as {aside}"
    under_way = f"{carried} actions under way were carried over" if carried else "no action was carried over"
    return (
        f"{damage.why} {where}, and a new journal was begun at {path}: "
        f"{under_way}, history before now is not in it, and which VMs a fleet has comes from the cloud's listing. "
        f"{_of_operators(damage.carried)} Look at the disk, and delete what was set aside when you do not "
        "need it."
    )


def _of_operators(carried: Carried) -> str:
    count = len(carried.changes)
    if carried.sure and not count:
        return "No operator had paused or overridden anything. Nothing needs to be done."
    if carried.sure:
        return f"Operators' pauses and overrides ({count}) stay in force. Nothing needs to be done."
    if count:
        return (
            f"Operators' pauses and overrides ({count}) were read from what is left of it; LATER CHANGES MAY BE LOST, "
            "so look at what is in force (`autoscaler operations`)."
        )
    return (
        "PAUSES AND OVERRIDES OF OPERATORS ARE LOST where there were any: nothing is paused now, so give those that "
        "shall hold again (`autoscaler pause`, `autoscaler override`)."
    )


def check(connection: sqlite3.Connection, path: Path, within_s: float = CHECK_WITHIN_S) -> None:
    """Check that the tables are intact, within a time limit.

    Raises:
        JournalDamagedError: A table is damaged.
    """
    limit = threading.Timer(within_s, connection.interrupt)
    limit.daemon = True
    limit.start()
    try:
        for table in _TABLES:
            (found,) = connection.execute(f"PRAGMA quick_check('{table}')").fetchone()
            if found != "ok":
                raise JournalDamagedError(f"The journal {path} is damaged: {' '.join(found.split())}.")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
    finally:
        limit.cancel()


def _was_ours(path: Path) -> bool:
    """Whether a file that is not a database looks like a journal that lost its first page."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    return not head.strip(b"\0") or head.startswith(b"SQLite format 3") or _beside(path, "-wal").exists()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
