"""Read-only access to the journal: for `explain`, `status`, the web pages and replays.

Rules of this file: every query is one short read that ends before it returns, so that a reader never holds back the writer's log.
Ranges are half open; times are epoch seconds of the clock that the daemon ran on. Results are in the order of writing, which is not
the order of time if the clock jumped.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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

_EVENTS = "SELECT at_s, kind, fleet, text, id FROM events"
_BATCH = 500
"""Number of ticks per read: a few megabytes."""

OPEN = "a.settled_at_s IS NULL"
"""Condition of `read_actions` for actions without outcomes."""

OPEN_OR_SETTLED_SINCE = "a.settled_at_s IS NULL OR a.settled_at_s >= ?"
"""Condition of `read_actions` for actions without outcomes or settled at or after a time."""


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
    """One event as recorded; `fleet` is empty if it concerns no single fleet, and `id` increases with every event."""

    at_s: float
    kind: str
    fleet: str
    text: str
    id: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects events.

    Attributes:
        start_s, end_s: Time range, half open.
        fleet: Only events of this fleet; None: all, including those of no single fleet.
        kinds: Only events of these kinds; empty: all.
    """

    start_s: float = float("-inf")
    end_s: float = float("inf")
    fleet: str | None = None
    kinds: tuple[str, ...] = ()

    def condition(self) -> tuple[str, list[object]]:
        """Return an SQL condition on the table of events, and the values of its question marks."""
        parts, values = ["at_s >= ? AND at_s < ?"], list[object]((self.start_s, self.end_s))
        if self.fleet is not None:
            parts.append("fleet = ?")
            values.append(self.fleet)
        if self.kinds:
            parts.append(f"kind IN ({', '.join('?' * len(self.kinds))})")
            values.extend(self.kinds)
        return " AND ".join(parts), values


class JournalReader:
    """Read-only view of a journal, which works while a daemon writes.

    Args:
        source: The state directory or the database file; or, within this package, a connection to borrow.

    Raises:
        JournalError: There is no journal, the file is not a journal, or it has another version.
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
        """Close the database, unless the connection is borrowed."""
        if self._owned:
            self._connection.close()

    def copy_to(self, directory: Path) -> None:
        """Write a copy of the whole journal to another directory, for example to keep a run in memory.

        Raises:
            JournalError: That directory already has a journal, or cannot be written.
        """
        path = directory / schema.FILE_NAME
        if path.exists():
            raise JournalError(f"{path} exists already; name another directory, or remove it")
        with schema.translated(str(path), "written"):
            directory.mkdir(parents=True, exist_ok=True)
            self._connection.execute("VACUUM INTO ?", (str(path),))

    def fleets(self) -> tuple[str, ...]:
        """The fleets of the last tick, in recorded order; empty before the first tick."""
        rows = self._all(
            "SELECT fleets FROM rosters WHERE id = (SELECT roster_id FROM ticks ORDER BY id DESC LIMIT 1)"
        )
        return tuple(json.loads(rows[0][0])) if rows else ()

    def ticks(self, fleet: str, start_s: float, end_s: float) -> tuple[TickRow, ...]:
        """The ticks of a fleet with `start_s <= at_s < end_s`."""
        return tuple(self.each_tick(fleet, start_s, end_s))

    def each_tick(self, fleet: str, start_s: float, end_s: float) -> Iterator[TickRow]:
        """Yield the same ticks as `ticks` one by one, for long ranges: one short read per few hundred ticks."""
        rosters = {key: (names, position) for key, names, position in self._rosters_with(fleet)}
        bounds = "SELECT min(id), max(id) FROM ticks WHERE at_s >= ? AND at_s < ?"
        ((first, last),) = self._all(bounds, start_s, end_s)
        done = -1 if first is None else first - 1
        # The plus keeps SQLite from using the time index, whose result it would have to sort by id for every batch.
        query = (
            "SELECT id, tick, at_s, format, body, roster_id FROM ticks WHERE id > ? AND id <= ? "
            "AND +at_s >= ? AND +at_s < ? ORDER BY id LIMIT ?"
        )
        while found := self._all(query, done, last, start_s, end_s, _BATCH):
            for _, tick, at_s, number, body, roster_id in found:
                if roster_id in rosters:
                    yield self._row(tick, at_s, (number, body), *rosters[roster_id])
            done = found[-1][0]

    def sampled(self, fleet: str, start_s: float, end_s: float, most: int) -> tuple[tuple[TickRow, ...], int]:
        """At most about `most` ticks of a fleet in a range: every n-th, counted back from the last; and n."""
        rosters = {key: (names, position) for key, names, position in self._rosters_with(fleet)}
        within = f"at_s >= ? AND at_s < ? AND roster_id IN ({', '.join('?' * len(rosters))})"
        count_all = f"SELECT max(id), count(*) FROM ticks WHERE {within}"  # noqa: S608  question marks
        each = f"SELECT tick, at_s, format, body, roster_id FROM ticks WHERE {within} AND (? - id) % ? = 0 ORDER BY id"  # noqa: S608  question marks
        ((last, count),) = self._all(count_all, start_s, end_s, *rosters)
        every = max(1, -(-count // most))
        found = self._all(each, start_s, end_s, *rosters, last, every) if count else []
        return tuple(
            self._row(tick, at_s, (form, body), *rosters[key]) for tick, at_s, form, body, key in found
        ), every

    def tick_at(self, fleet: str, at_s: float) -> TickRow | None:
        """The latest tick of a fleet at or before a time; None if there is none."""
        return self._newest(
            fleet,
            "SELECT at_s, id, tick, format, body FROM ticks WHERE roster_id = ? AND at_s <= ? "
            "ORDER BY at_s DESC, id DESC LIMIT 1",
            at_s,
        )

    def last(self, fleet: str) -> TickRow | None:
        """The tick of a fleet that was written last; None if there is none."""
        return self._newest(
            fleet,
            "SELECT at_s, id, tick, format, body FROM ticks WHERE id = (SELECT max(id) FROM ticks WHERE roster_id = ?)",
        )

    def actions(self, fleet: str, start_s: float, end_s: float) -> tuple[ActionRecord, ...]:
        """The actions of a fleet whose intents were written within the range, with their outcomes."""
        with schema.translated(self._name, "read"):
            return read_actions(
                self._connection, "a.fleet = ? AND a.at_s >= ? AND a.at_s < ?", fleet, start_s, end_s
            )

    def actions_of_tick(self, tick: int) -> tuple[ActionRecord, ...]:
        """The actions that this tick decided, for all fleets."""
        with schema.translated(self._name, "read"):
            return read_actions(self._connection, "a.tick = ?", tick)

    def open_actions(self) -> tuple[ActionRecord, ...]:
        """Actions without recorded outcomes (not yet written, or lost in a crash).

        The daemon asks its journal (`recent_actions`). This is for those who look from outside at what a daemon left open, running
        or dead, as the tests of crashes do.
        """
        with schema.translated(self._name, "read"):
            return read_actions(self._connection, OPEN)

    def events(self, start_s: float, end_s: float, fleet: str | None = None) -> tuple[EventRecord, ...]:
        """Events within the range, of one fleet if it is given."""
        condition, values = EventFilter(start_s, end_s, fleet).condition()
        rows = self._all(f"{_EVENTS} WHERE {condition} ORDER BY id", *values)
        return tuple(EventRecord(*row) for row in rows)

    def newest_events(self, wanted: EventFilter, limit: int) -> tuple[tuple[EventRecord, ...], int]:
        """The newest matching events in the order of writing, and the number of older ones left out."""
        condition, values = wanted.condition()
        rows = self._all(f"{_EVENTS} WHERE {condition} ORDER BY id DESC LIMIT ?", *values, limit)
        ((count,),) = self._all(f"SELECT count(*) FROM events WHERE {condition}", *values)  # noqa: S608  ours
        return tuple(EventRecord(*row) for row in reversed(rows)), max(count - len(rows), 0)

    def events_after(self, after_id: int, wanted: EventFilter, limit: int) -> tuple[EventRecord, ...]:
        """The first matching events that were written after the event `after_id`."""
        condition, values = wanted.condition()
        rows = self._all(
            f"{_EVENTS} WHERE id > ? AND {condition} ORDER BY id LIMIT ?", after_id, *values, limit
        )
        return tuple(EventRecord(*row) for row in rows)

    def last_event(self) -> EventRecord | None:
        """The event that was written last; None if there is none."""
        rows = self._all(f"{_EVENTS} ORDER BY id DESC LIMIT 1")
        return EventRecord(*rows[0]) if rows else None

    def event_words(self) -> tuple[frozenset[str], frozenset[str]]:
        """All kinds and all fleets that occur in events."""
        kinds = self._all("SELECT DISTINCT kind FROM events")
        fleets = self._all("SELECT DISTINCT fleet FROM events WHERE fleet <> ''")
        return frozenset(kind for (kind,) in kinds), frozenset(fleet for (fleet,) in fleets)

    def fleets_ever(self) -> tuple[str, ...]:
        """Every fleet with recorded ticks, in alphabetical order."""
        rosters = self._all("SELECT fleets FROM rosters")
        return tuple(sorted({name for (names,) in rosters for name in json.loads(names)}))

    def begins_at_s(self) -> float | None:
        """Time of the earliest recorded tick of any fleet; None if there is none."""
        rows = self._all("SELECT at_s FROM ticks ORDER BY id LIMIT 1")
        return rows[0][0] if rows else None

    def span(self, fleet: str) -> tuple[float, float] | None:
        """Times of the earliest and latest tick of a fleet, by the clock; None if there is none."""
        rosters = [key for key, _, _ in self._rosters_with(fleet)]
        marks = ", ".join("?" * len(rosters))
        rows = self._all(f"SELECT min(at_s), max(at_s) FROM ticks WHERE roster_id IN ({marks})", *rosters)  # noqa: S608  question marks
        return None if rows[0][0] is None else (rows[0][0], rows[0][1])

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
    """Return actions with their outcomes, in one consistent read.

    Args:
        connection: An open journal.
        condition: SQL text from within this package, on the columns of `actions a`.
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
