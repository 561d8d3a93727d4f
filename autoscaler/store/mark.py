"""How far the journal was written, in a small file beside it: reveals a lost or truncated write-ahead log.

Why: a database without its log, or with the end of the log cut off, is intact and merely older than it was, which SQLite cannot
know. The mark can: a journal that ends before its mark has lost acknowledged records.

Rules of this file: the mark is written after a record is durable, never before, and nothing waits for it. So it may be behind the
journal, which is harmless, and never ahead of it. A missing or torn mark counts as none. Numbers continue from the mark when a new
journal is started, so an action's id is never used twice.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoscaler.errors import JournalDamagedError

FILE_NAME = "journal.mark"
"""Name of the mark in the state directory."""

_WIDTH = 20
_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """The highest ids given so far, and the last settled action; 0 stands for none.

    Attributes:
        ticks: Id of the last tick.
        actions: Id of the last action.
        events: Id of the last event.
        settled: Id of the action whose outcomes were written last.
    """

    ticks: int = 0
    actions: int = 0
    events: int = 0
    settled: int = 0


def read(state_dir: Path) -> Progress | None:
    """The mark of a state directory; None if there is no readable one."""
    try:
        text = (state_dir / FILE_NAME).read_text("ascii")
        *numbers, checksum = map(int, text.split())
        found = Progress(*numbers)
    except (OSError, ValueError, TypeError):
        return None
    return found if len(numbers) == _FIELDS and checksum == _checksum(found) else None


def progress(connection: sqlite3.Connection, settled: int) -> Progress:
    """How far the journal has been written, as seen by this connection."""
    last = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    return Progress(last.get("ticks", 0), last.get("actions", 0), last.get("events", 0), settled)


def require(connection: sqlite3.Connection, mark: Progress, path: Path) -> None:
    """Raise JournalDamagedError if acknowledged records are missing from this database."""
    seen = progress(connection, mark.settled)
    query = "SELECT 1 FROM actions WHERE id = ? AND settled_at_s IS NULL"
    if (
        seen.ticks < mark.ticks
        or seen.actions < mark.actions
        or seen.events < mark.events
        or connection.execute(query, (mark.settled,)).fetchone() is not None
    ):
        raise JournalDamagedError(
            f"The journal {path} ends before records that were acknowledged: its write-ahead log was deleted or "
            "cut short, or an older copy was put in its place."
        )


class MarkFile:
    """The mark of a state directory, kept open by the journal's writer.

    Args:
        state_dir: The state directory, existing and writable.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._fd = self._opened()

    def write(self, reached: Progress) -> None:
        """Write the mark. If the disk refuses, the mark stays behind the journal, which is harmless."""
        numbers = (reached.ticks, reached.actions, reached.events, reached.settled, _checksum(reached))
        line = " ".join(f"{number:{_WIDTH}d}" for number in numbers) + "\n"
        with suppress(OSError):
            os.pwrite(self._fd, line.encode("ascii"), 0)

    def reopen(self) -> None:
        """Go on in the file that is there now: the one that was opened may have been removed. Raises OSError."""
        opened = self._opened()
        os.close(self._fd)
        self._fd = opened

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _opened(self) -> int:
        return os.open(self._state_dir / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _checksum(reached: Progress) -> int:
    text = f"{reached.ticks} {reached.actions} {reached.events} {reached.settled}"
    return zlib.crc32(text.encode("ascii"))
