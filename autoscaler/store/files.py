"""Watches the journal's files: whether they are still the ones that were opened, and have their expected length.

Why: a database keeps working on files that somebody deleted or replaced, and everything it acknowledges from then on is lost with
the process. Two `stat` calls before each write detect that.

Rules of this file: a harmless change (a checkpoint by a backup program) is examined and accepted.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from autoscaler.errors import JournalDamagedError
from autoscaler.store import mark, recovery


class Files:
    """Database, write-ahead log and mark of one writer.

    Args:
        directory: The state directory.
        path: The database file.

    Raises:
        OSError: The mark cannot be opened.
    """

    def __init__(self, directory: Path, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self.reached = mark.read(directory)
        self.settled = self.reached.settled if self.reached else 0
        self._mark = mark.MarkFile(directory)
        self._database_inode: int | None = None
        self._log_seen: tuple[int, int] | None = None

    def reach(self, connection: sqlite3.Connection) -> None:
        """After a durable write, advance the mark and note the state of the files."""
        self.reached = mark.progress(connection, self.settled)
        self._mark.write(self.reached)
        self._note()

    def renewed(self) -> None:
        """Note the state of the files after new ones were created."""
        with suppress(OSError):  # a mark that stays behind the journal is harmless
            self._mark.reopen()
        self._note()

    def verify(self) -> None:
        """Raise JournalDamagedError if the files are no longer those that were written to."""
        if self._database_inode is None:
            return
        if _inode(self._path) != self._database_inode:
            raise JournalDamagedError(f"The journal {self._path} was deleted or replaced while in use.")
        seen = _inode_and_size(self._log)
        if seen == self._log_seen or self.reached is None:
            return
        if seen is None or (self._log_seen is not None and seen[0] != self._log_seen[0]):
            raise JournalDamagedError(
                f"The write-ahead log {self._log} was deleted or replaced while in use."
            )
        recovery.check_again(self._path, self.reached)
        self._log_seen = seen

    def close(self) -> None:
        """Close the mark's file."""
        self._mark.close()

    def _note(self) -> None:
        self._database_inode = _inode(self._path)
        self._log_seen = _inode_and_size(self._log)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _inode_and_size(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size
