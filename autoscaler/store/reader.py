"""Reading the journal, by one who may not write: `explain`, `status`, the web pages, replay.

Rules of this file: every query is one short read that ends before it returns, so that a reader never holds
back the writer's log. Ranges are half open, times are epoch seconds of the clock that the daemon ran on.
Results are in the order of writing; where the clock jumped that is not the order of time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from autoscaler.errors import JournalError
from autoscaler.ports import ActionIntent, ActionRecord, FleetTick, Outcome, OutcomeKind, Verb, VmState
from autoscaler.store import schema
from autoscaler.store.rows import decode

_ACTIONS = (
    "SELECT a.id, a.at_s, a.tick, a.fleet, a.verb, a.vm_ids, a.count, a.token, a.reason, a.settled_at_s, "
    "o.vm_id, o.kind, o.code, o.message, o.previous_state "
    "FROM actions a LEFT JOIN outcomes o ON o.action_id = a.id WHERE $condition ORDER BY a.id, o.position"
)

OPEN = "a.settled_at_s IS NULL"
"""Condition of `read_actions` for actions without outcomes."""

OPEN_OR_SETTLED_SINCE = "a.settled_at_s IS NULL OR a.settled_at_s >= ?"
"""Condition of `read_actions` for these and for actions settled at or after a time."""


@dataclass(frozen=True, slots=True)
class TickRow:
    """One fleet's part of one recorded tick.

    Attributes:
        tick: Number of the tick on the grid.
        at_s: When it was decided.
        recorded: The numbers and reasons.
    """

    tick: int
    at_s: float
    recorded: FleetTick


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event as recorded; `fleet` is empty where it concerns no single fleet."""

    at_s: float
    kind: str
    fleet: str
    text: str


class JournalReader:
    """Read-only view of a journal; works while a daemon writes.

    Args:
        source: The state directory or the database file; or, within this package, a connection to borrow.

    Raises:
        JournalError: There is no journal, it is not one, or its version is another.
    """

    def __init__(self, source: Path | sqlite3.Connection) -> None:
        self._owned = isinstance(source, Path)
        if isinstance(source, Path):
            path = source / schema.FILE_NAME if source.is_dir() else source
            self._name = str(path)
            self._connection = schema.open_for_reading(path)
        else:
            self._name = "in memory"
            self._connection = source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        if self._owned:
            self._connection.close()

    def copy_to(self, directory: Path) -> None:
        """Write all of it as the journal of another directory, as when a run in memory is to be kept.

        Raises:
            JournalError: There is one already, or it cannot be written.
        """
        path = directory / schema.FILE_NAME
        if path.exists():
            raise JournalError(f"{path} exists already; name another directory, or remove it")
        with schema.translated(str(path), "written"):
            directory.mkdir(parents=True, exist_ok=True)
            self._connection.execute("VACUUM INTO ?", (str(path),))

    def fleets(self) -> tuple[str, ...]:
        """The fleets of the last tick, in its order; empty before the first."""
        rows = self._all(
            "SELECT fleets FROM rosters WHERE id = (SELECT roster_id FROM ticks ORDER BY id DESC LIMIT 1)"
        )
        return tuple(json.loads(rows[0][0])) if rows else ()

    def ticks(self, fleet: str, start_s: float, end_s: float) -> tuple[TickRow, ...]:
        """The ticks of a fleet with `start_s <= at_s < end_s`."""
        rows: list[tuple[int, TickRow]] = []
        for roster_id, names, position in self._rosters_with(fleet):
            found = self._all(
                "SELECT id, tick, at_s, format, body FROM ticks WHERE roster_id = ? AND at_s >= ? AND at_s < ?",
                roster_id,
                start_s,
                end_s,
            )
            rows.extend(
                (key, self._row(tick, at_s, (number, body), names, position))
                for key, tick, at_s, number, body in found
            )
        rows.sort(key=lambda pair: pair[0])
        return tuple(row for _, row in rows)

    def tick_at(self, fleet: str, at_s: float) -> TickRow | None:
        """The latest tick of a fleet at or before a time; None where there is none."""
        return self._newest(
            fleet,
            "SELECT at_s, id, tick, format, body FROM ticks WHERE roster_id = ? AND at_s <= ? "
            "ORDER BY at_s DESC, id DESC LIMIT 1",
            at_s,
        )

    def last(self, fleet: str) -> TickRow | None:
        """The tick of a fleet that was written last; None where there is none."""
        return self._newest(
            fleet,
            "SELECT at_s, id, tick, format, body FROM ticks WHERE id = (SELECT max(id) FROM ticks WHERE roster_id = ?)",
        )

    def actions(self, fleet: str, start_s: float, end_s: float) -> tuple[ActionRecord, ...]:
        """The actions of a fleet whose intent was written within the range, with their outcomes."""
        with schema.translated(self._name, "read"):
            return read_actions(
                self._connection, "a.fleet = ? AND a.at_s >= ? AND a.at_s < ?", fleet, start_s, end_s
            )

    def actions_of_tick(self, tick: int) -> tuple[ActionRecord, ...]:
        """The actions that the tick of this number decided, for all fleets."""
        with schema.translated(self._name, "read"):
            return read_actions(self._connection, "a.tick = ?", tick)

    def open_actions(self) -> tuple[ActionRecord, ...]:
        """Actions whose outcomes are not written (yet, or for ever after a crash)."""
        with schema.translated(self._name, "read"):
            return read_actions(self._connection, OPEN)

    def events(self, start_s: float, end_s: float, fleet: str | None = None) -> tuple[EventRecord, ...]:
        """Events within the range, of one fleet where it is named."""
        rows = self._all(
            "SELECT at_s, kind, fleet, text FROM events WHERE at_s >= ? AND at_s < ? AND (? IS NULL OR fleet = ?) "
            "ORDER BY id",
            start_s,
            end_s,
            fleet,
            fleet,
        )
        return tuple(EventRecord(*row) for row in rows)

    def _newest(self, fleet: str, query: str, *arguments: float) -> TickRow | None:
        candidates = []
        for roster_id, names, position in self._rosters_with(fleet):
            for at_s, key, tick, number, body in self._all(query, roster_id, *arguments):
                candidates.append(
                    (at_s if arguments else key, key, tick, at_s, (number, body), names, position)
                )
        if not candidates:
            return None
        _, _, tick, at_s, blob, names, position = max(candidates, key=lambda found: found[:2])
        return self._row(tick, at_s, blob, names, position)

    def _rosters_with(self, fleet: str) -> list[tuple[int, list[str], int]]:
        rosters = [(key, json.loads(names)) for key, names in self._all("SELECT id, fleets FROM rosters")]
        return [(key, names, names.index(fleet)) for key, names in rosters if fleet in names]

    def _row(
        self, tick: int, at_s: float, blob: tuple[int, bytes], names: Sequence[str], position: int
    ) -> TickRow:
        try:
            (recorded,) = decode(*blob, names, (position,))
        except JournalError as error:
            raise JournalError(f"The journal {self._name} cannot be read at tick {tick}: {error}") from error
        return TickRow(tick=tick, at_s=at_s, recorded=recorded)

    def _all(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with schema.translated(self._name, "read"):
            return self._connection.execute(query, arguments).fetchall()


def read_actions(
    connection: sqlite3.Connection, condition: str, *arguments: object
) -> tuple[ActionRecord, ...]:
    """Actions with their outcomes, in one consistent read.

    Args:
        connection: An open journal.
        condition: SQL text of this package (never of a caller outside it) on the columns of `actions a`.
        arguments: Values of its question marks.
    """
    rows = connection.execute(_ACTIONS.replace("$condition", condition), arguments)
    return tuple(
        _action(action, [row[10:] for row in found]) for action, found in groupby(rows, lambda row: row[:10])
    )


def _action(action: tuple[Any, ...], found: Sequence[tuple[Any, ...]]) -> ActionRecord:
    key, at_s, tick, fleet, verb, vm_ids, count, token, reason, settled_at_s = action
    return ActionRecord(
        id=key,
        at_s=at_s,
        tick=tick,
        intent=ActionIntent(fleet, Verb(verb), tuple(json.loads(vm_ids)), count, token, reason),
        settled_at_s=settled_at_s,
        outcomes=tuple(
            Outcome(vm_id, OutcomeKind(kind), code, message, None if state is None else VmState(state))
            for vm_id, kind, code, message, state in found
            if vm_id is not None
        ),
    )
