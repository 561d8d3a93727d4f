"""Operators' changes, as rows of the journal and in a small file beside it.

Why the file: pauses and overrides are people's orders, and unlike VMs no cloud can list them again. A damaged journal is set aside
with its contents; the file lets what is in force survive that.

Rules of this file: statements run in the caller's transaction. The file follows the journal and is never ahead of it: it is written
atomically, after the commit and before the change is acknowledged. If it cannot be written it is removed, since an old one would
bring back changes that have ended.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscaler.ports import ChangeKind, ChangeRecord, OperatorChange, Verb
from autoscaler.store.actions import storable

FILE_NAME = "journal.operators"
"""Name of the file in the state directory."""

_VERSION = 1


def insert_change(
    connection: sqlite3.Connection, at_s: float, change: OperatorChange, number: int | None = None
) -> int:
    """Write a change, which replaces the change in force for its fleet and verb.

    Returns:
        Its id, which is the next free one if `number` is None.
    """
    verb = "" if change.verb is None else change.verb.value
    connection.execute(
        "UPDATE operator_changes SET in_force = 0 WHERE in_force = 1 AND fleet = ? AND verb = ?",
        (change.fleet, verb),
    )
    cursor = connection.execute(
        "INSERT INTO operator_changes "
        "(id, at_s, kind, fleet, verb, who, reason, floor, ceiling, expires_at_s, in_force) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            at_s,
            change.kind.value,
            change.fleet,
            verb,
            storable(change.who),
            storable(change.reason),
            change.floor,
            change.ceiling,
            change.expires_at_s,
            int(change.kind.holds),
        ),
    )
    return int(cursor.lastrowid or 0)


def read_in_force(connection: sqlite3.Connection) -> tuple[ChangeRecord, ...]:
    """Pauses and overrides that no later change has replaced, oldest first."""
    rows = connection.execute(
        "SELECT id, at_s, kind, fleet, verb, who, reason, floor, ceiling, expires_at_s "
        "FROM operator_changes WHERE in_force = 1 ORDER BY id"
    )
    return tuple(_record(*row) for row in rows)


def _record(number: int, at_s: float, kind: str, fleet: str, verb: str, *rest: Any) -> ChangeRecord:
    change = OperatorChange(ChangeKind(kind), fleet, Verb(verb) if verb else None, *rest)
    return ChangeRecord(number, at_s, change)


class StandingFile:
    """The changes in force, in a file beside the journal.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def read(self) -> tuple[ChangeRecord, ...] | None:
        """The changes in the file; None if there is no readable file, in which case nothing is known."""
        try:
            checksum, _, body = self._path.read_text("utf-8").partition("\n")
            if int(checksum) != zlib.crc32(body.encode()):
                return None
            found = json.loads(body)
            if found["version"] != _VERSION:
                return None
            return tuple(_of_json(item) for item in found["in_force"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, records: Sequence[ChangeRecord]) -> None:
        """Replace the content; does nothing if it is already the same."""
        if self.read() == tuple(records):
            return
        body = json.dumps({"version": _VERSION, "in_force": list(map(asdict, records))}, ensure_ascii=False)
        beside = self._path.with_name(f"{FILE_NAME}.new")
        try:
            with beside.open("w", encoding="utf-8") as stream:
                stream.write(f"{zlib.crc32(body.encode())}\n{body}")
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(self._path)
            sync_directory(self._path.parent)
        except OSError:
            for path in (beside, self._path):
                with suppress(OSError):
                    path.unlink()


def _of_json(item: dict[str, Any]) -> ChangeRecord:
    change = item["change"]
    verb = None if change["verb"] is None else Verb(change["verb"])
    kind = ChangeKind(change["kind"])
    return ChangeRecord(
        int(item["id"]), float(item["at_s"]), OperatorChange(**{**change, "kind": kind, "verb": verb})
    )


def sync_directory(directory: Path) -> None:
    """Make new names of files in a directory durable."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def last_id(records: Iterable[ChangeRecord]) -> int:
    """The highest id; 0 if there are no records."""
    return max((record.id for record in records), default=0)
