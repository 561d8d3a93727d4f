"""The database file: its tables, migrations, how it is opened, and what its errors mean.

Rules of this file: `PRAGMA user_version` is the schema version, and `application_id` marks a database as ours. Both are checked before
anything is written, so that a foreign or newer file is never touched. A released migration is never edited; a change of tables is a
new entry at the end of `MIGRATIONS`. SQLite's errors leave this package only as JournalError. This file does not know the contents of
the tables.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from autoscaler.errors import JournalDamagedError, JournalError

FILE_NAME = "journal.sqlite"
"""Name of the database in the state directory."""

APPLICATION_ID = 0x41534A4C
"""Written to the file's header, to distinguish a journal from other SQLite databases."""

BUSY_TIMEOUT_S = 10.0
"""How long a statement waits for a lock of another process (a checkpoint, a backup)."""

WAL_KEPT_BYTES = 16 * 2**20
"""Size to which the write-ahead log is truncated after a checkpoint."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;

    -- The fleets of a tick, in the order of its rows. They change seldom, so ticks share a roster.
    CREATE TABLE rosters (
        id INTEGER PRIMARY KEY,
        fleets TEXT NOT NULL UNIQUE
    );

    -- `tick` is not unique: an early wake or a restart may decide twice within one tick of the grid.
    CREATE TABLE ticks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        tick INTEGER NOT NULL,
        at_s REAL NOT NULL,
        roster_id INTEGER NOT NULL REFERENCES rosters (id),
        format INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    -- In order of writing (an index ends with the row id) and in order of time.
    CREATE INDEX ticks_by_roster ON ticks (roster_id);
    CREATE INDEX ticks_by_roster_and_time ON ticks (roster_id, at_s);
    CREATE INDEX ticks_by_time ON ticks (at_s);

    CREATE TABLE actions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        tick INTEGER NOT NULL,
        fleet TEXT NOT NULL,
        verb TEXT NOT NULL,
        vm_ids TEXT NOT NULL,
        count INTEGER NOT NULL,
        token TEXT NOT NULL,
        reason TEXT NOT NULL,
        settled_at_s REAL
    );
    CREATE INDEX actions_open ON actions (id) WHERE settled_at_s IS NULL;
    CREATE INDEX actions_by_fleet ON actions (fleet, at_s);
    CREATE INDEX actions_by_time ON actions (at_s);
    CREATE INDEX actions_by_tick ON actions (tick);

    CREATE TABLE outcomes (
        action_id INTEGER NOT NULL REFERENCES actions (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        vm_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        previous_state TEXT,
        PRIMARY KEY (action_id, position)
    ) WITHOUT ROWID;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        kind TEXT NOT NULL,
        fleet TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX events_by_time ON events (at_s);
    """,
    """
    -- What operators changed. `verb` is empty for overrides, `fleet` for all fleets; `in_force` is 1 for the pause
    -- or override that counts now for its fleet and verb, so there is at most one.
    CREATE TABLE operator_changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        kind TEXT NOT NULL,
        fleet TEXT NOT NULL,
        verb TEXT NOT NULL,
        who TEXT NOT NULL,
        reason TEXT NOT NULL,
        floor INTEGER,
        ceiling INTEGER,
        expires_at_s REAL,
        in_force INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX operator_changes_in_force ON operator_changes (fleet, verb) WHERE in_force = 1;
    CREATE INDEX operator_changes_by_time ON operator_changes (at_s);
    """,
    """
    -- What was learned of fleets over hours and days; the latest of each fleet and name.
    CREATE TABLE learned (
        fleet TEXT NOT NULL,
        name TEXT NOT NULL,
        at_s REAL NOT NULL,
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (fleet, name)
    ) WITHOUT ROWID;
    """,
)
"""Entry i migrates a database from version i to version i + 1."""


def open_for_writing(path: Path | None, migrations: tuple[str, ...] = MIGRATIONS) -> sqlite3.Connection:
    """Open or create the journal and bring it to the newest version.

    Args:
        path: The database file; None for a database in memory.
        migrations: All steps from an empty database to the newest version.

    Raises:
        JournalError: The file is not a journal, has a newer version, or cannot be written.
    """
    name = ":memory:" if path is None else str(path)
    with translated(name, "opened"):
        if path is not None and path.exists() and path.stat().st_size > 0:
            with closing(_connect(_uri(path, "ro"))) as connection:
                _check_identity(connection, name, len(migrations))
        connection = _connect(name if path is None else _uri(path, "rwc"))
        try:
            _configure(connection)
            _migrate(connection, migrations)
        except BaseException:
            connection.close()
            raise
        return connection


def version_of(directory: Path) -> int:
    """Return the schema version of the journal in a directory; 0 if there is none, or it cannot be read."""
    path = directory / FILE_NAME
    with suppress(OSError, sqlite3.Error):
        if path.stat().st_size:
            with closing(_connect(_uri(path, "ro"))) as connection:
                return int(connection.execute("PRAGMA user_version").fetchone()[0])
    return 0


def open_for_reading(path: Path, newest: int = len(MIGRATIONS)) -> sqlite3.Connection:
    """Open an existing journal read-only, even while a daemon writes.

    Raises:
        JournalError: There is no journal, the file is not one, or this program does not read its version.
    """
    if not path.is_file():
        raise JournalError(
            f"There is no journal at {path}. Has a daemon run with this state directory? "
            "Give the directory that the daemon was started with (--state-dir, AUTOSCALER_STATE_DIR)."
        )
    with translated(str(path), "opened"):
        connection = _connect(_uri(path, _reading_mode(path)))
        try:
            version = _check_identity(connection, str(path), newest)
            _refuse_older(version, str(path), newest)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a block as one write transaction: all of it is durable afterwards, or nothing of it is in the file."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk ends the transaction by itself; there is then nothing to roll back.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(name: str, doing: str) -> Iterator[None]:
    """Turn errors of SQLite and the system into JournalError, with advice for people.

    Args:
        name: The file, for the message.
        doing: Past participle of what was attempted: opened, read, written.
    """
    try:
        yield
    except sqlite3.Error as error:
        kind = JournalDamagedError if _is_damage(error) else JournalError
        raise kind(f"The journal {name} cannot be {doing}: {_advice(error, Path(name).parent)}") from error
    except UnicodeDecodeError as error:
        # SQLite's message about a damaged schema quotes bytes of it, which need not be UTF-8.
        raise JournalDamagedError(
            f"The journal {name} cannot be {doing}: {_ADVICE[sqlite3.SQLITE_CORRUPT]}"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise JournalError(
            f"The journal {name} cannot be {doing}: {Path(name).parent} is not a folder. Give a state directory that is a folder or does not exist yet."
        ) from error
    except OSError as error:
        raise JournalError(
            f"The journal {name} cannot be {doing}: {error.strerror or error}. "
            "Check owner, mode and free space of the state directory, or give another one."
        ) from error


_INDEX_BYTES = 1 << 16
"""Size of the index of a write-ahead log with up to some thousand pages: two blocks of 32 kB."""
_ADVICE: dict[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space; nothing that was acknowledged is lost.",
    sqlite3.SQLITE_READONLY: "it may not be written to. Check the owner and mode of the file and its directory.",
    sqlite3.SQLITE_CANTOPEN: "the file or its directory cannot be opened. Check owner, mode and free space.",
    sqlite3.SQLITE_PERM: "permission denied. Check the owner and mode of the file and its directory.",
    sqlite3.SQLITE_NOTADB: (
        "it is not a SQLite database. If another program put it there, give another state directory; "
        "if it was a journal, move it aside and restore it from a backup or let the daemon begin a new one."
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged. A daemon sets it aside by itself and begins a new one: VMs are found again by their tags."
    ),
    sqlite3.SQLITE_BUSY: "another process holds its lock. End the program that has the file open, or wait for it.",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write. Look at the kernel log for the device.",
}


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    # A file that ends too early gives a short read, which SQLite reports as an I/O error.
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def _advice(error: sqlite3.Error, folder: Path) -> str:
    # Extended result codes carry the primary one in the low byte.
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_IOERR and _is_full(folder):
        # On a full disk, SQLite cannot make the index of its log, and calls that an I/O error.
        primary = sqlite3.SQLITE_FULL
    advice = None if primary is None else _ADVICE.get(primary)
    return f"{advice or 'SQLite refused.'} (SQLite: {error})"


def _is_full(folder: Path) -> bool:
    """Whether the folder's disk has no room for the index of a log."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _INDEX_BYTES
    return False


def _size(path: Path) -> int:
    """Size of the file in bytes; 0 if there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _reading_mode(path: Path) -> str:
    """The URI mode for reading. A database at rest (without a log) needs another one in a read-only directory or on a full disk.

    SQLite creates the log's files even to read. If they cannot be created, the file is opened as immutable, which it
    is while no daemon runs.
    """
    log, index = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
    # Files that could be made on a full disk, but not filled, are not in use.
    at_rest = not _size(log) and _size(index) < _INDEX_BYTES // 2
    may_create = os.access(path.parent, os.W_OK, effective_ids=True) and not _is_full(path.parent)
    return "ro&immutable=1" if at_rest and not may_create else "ro"


def _connect(name: str) -> sqlite3.Connection:
    # Transactions are explicit; the executor ensures that only one thread at a time uses a connection.
    return sqlite3.connect(
        name, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _check_identity(connection: sqlite3.Connection, name: str, newest: int) -> int:
    """Return the schema version, 0 for an empty database; refuse a file that is not a journal or is newer than `newest`."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application != APPLICATION_ID and tables and _has_our_tables(connection):
        raise JournalDamagedError(f"The journal {name} is damaged: its header was overwritten.")
    if application != APPLICATION_ID and (application or version or tables):
        raise JournalError(
            f"{name} is a SQLite database of another program and was left alone. Give another state directory."
        )
    if version > newest:
        raise JournalError(
            f"The journal {name} has version {version}, this program knows versions up to {newest}; the file was "
            "left alone. Install the newer program again, or give another state directory."
        )
    return version


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    return names >= {"actions", "outcomes", "rosters", "ticks"}


def _refuse_older(version: int, name: str, newest: int) -> None:
    if version < newest:
        raise JournalError(
            f"The journal {name} has version {version}, this program reads version {newest}. "
            "Start the daemon of this version on it once: that migrates the journal."
        )


def _configure(connection: sqlite3.Connection) -> None:
    # auto_vacuum can be set only before the first table exists; it has no effect on an older file.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _migrate(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {number}; COMMIT;"
            )
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
