"""The journal's only writer: a record is on disk before the call returns.

Rules of this file: one call is one transaction. A damaged journal is set aside and a new one is started if a `Recovery` is given, and
the call is repeated on the new one. One thread at a time uses the connection: a dedicated one for the live daemon, so that the loop
never waits for the disk, or the caller's (`inline`) on virtual time, where a second thread would make runs differ. Nothing here
decides anything or reads a clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cache, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from autoscaler.errors import InvariantError, JournalDamagedError, JournalError
from autoscaler.ports import (
    ActionIntent,
    ActionRecord,
    ChangeRecord,
    Learned,
    Note,
    OperatorChange,
    Outcome,
    Settled,
    TickRecord,
)
from autoscaler.store import recovery, schema
from autoscaler.store.actions import insert_action, insert_outcomes, storable
from autoscaler.store.changes import StandingFile, insert_change, read_in_force
from autoscaler.store.files import Files
from autoscaler.store.learned import forget_learned, insert_learned, read_learned
from autoscaler.store.lock import StateLock
from autoscaler.store.reader import OPEN_OR_SETTLED_SINCE, JournalReader, read_actions
from autoscaler.store.rows import FORMAT, Encoded, Raw
from autoscaler.store.thread import OneThread

_T = TypeVar("_T")

PRUNE_BATCH, PRUNE_ROWS = 200, 1000
"""Ticks, and other rows of each table, deleted per transaction: few enough that a tick recorded meanwhile does not wait."""

_MAX_PRUNE_BATCHES = 500
_HELD_ROWS = 256
"""Number of rows of ticks that a journal in memory writes together, at a third of the cost of single writes."""

_INSERT_TICK = "INSERT INTO ticks (tick, at_s, roster_id, format, body) VALUES (?, ?, ?, ?, ?)"
# The last tick is always kept, because a restart begins from it.
_OLDEST_WRITTEN = "SELECT id FROM ticks WHERE id < (SELECT max(id) FROM ticks) ORDER BY id LIMIT :limit"
_OLDER_THAN = (
    "SELECT id FROM ticks WHERE at_s < :before_s AND id < (SELECT max(id) FROM ticks) "
    "ORDER BY at_s LIMIT :limit"
)
_DELETES = tuple(
    f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE at_s < :before_s{and_} ORDER BY at_s LIMIT :limit)"  # noqa: S608
    for table, and_ in (("actions", " AND settled_at_s IS NOT NULL"), ("events", ""))
)


class SqliteJournal:
    """Implements `autoscaler.ports.Journal` on one SQLite database.

    Args:
        state_dir: Directory of the database, created if missing; or `":memory:"`, which is always inline.
        inline: Whether to execute in the caller instead of a separate thread; for runs on virtual time.
        heal: How to replace a damaged database; None: raise an error instead.

    Raises:
        JournalError: Another process holds the directory, it cannot be written, or the database is
            foreign or of a newer version.
        JournalDamagedError: The database is damaged, and `heal` was not given.
    """

    def __init__(
        self,
        state_dir: Path | Literal[":memory:"],
        *,
        inline: bool = False,
        heal: recovery.Recovery | None = None,
    ) -> None:
        directory = None if state_dir == ":memory:" else Path(state_dir)
        self._path = None if directory is None else directory / schema.FILE_NAME
        self._name = str(self._path or ":memory:")
        with ExitStack() as undo:
            self._lock = None if directory is None else _lock(directory)
            if self._lock is not None:
                undo.callback(self._lock.release)
            self._heal = heal
            self._rosters: dict[str, int] = {}
            self._encoded = Encoded()
            self._holds_back = directory is None
            self._held: list[tuple[int, float, int, Raw]] = []
            self._held_rows = 0
            self._carried_up_to = 0
            self._damage: recovery.Damage | None = None
            self._files: Files | None = None
            self._standing = None if directory is None else StandingFile(directory)
            self._in_force = self._standing.read() if self._standing else None
            self._open(directory)
            undo.callback(self._close_connection)
            self._translated(partial(self._write, self._write_identity))
            self._keep(self._translated(lambda: read_in_force(self._connection)))
            undo.pop_all()
        self.answers_at_once = inline or directory is None
        self.outlives_the_run = directory is not None
        self._executor = None if inline or directory is None else OneThread("journal")
        self._closed = False

    async def record_tick(
        self, record: TickRecord, intents: Sequence[ActionIntent], events: Sequence[Note] = ()
    ) -> tuple[int, ...]:
        """Write a tick, its intents and its events in one transaction; return the ids of the actions, in order.

        Raises:
            JournalError: The tick cannot be written; nothing of it is stored.
            InvariantError: A fleet is recorded twice, or a value is out of range.
        """
        if self._holds_back and not intents and not events and self._hold_back(record):
            return ()
        write = partial(self._write_tick, record, tuple(intents), tuple(events))
        return await self._run(partial(self._write, write))

    async def record_intents(
        self, tick: int, at_s: float, intents: Sequence[ActionIntent]
    ) -> tuple[int, ...]:
        """Write further intents of a recorded tick in one transaction; return the ids of the actions, in order.

        Raises:
            JournalError: The intents cannot be written; none is stored.
        """
        return await self._run(partial(self._write, partial(self._write_intents, tick, at_s, tuple(intents))))

    async def record_outcomes(self, settled: Sequence[Settled]) -> None:
        """Write the outcomes of actions, which settles them, with their events, in one transaction.

        Raises:
            JournalError: The outcomes cannot be written; the actions stay open.
            InvariantError: One of the actions does not exist, or is already settled; none is changed.
        """
        await self._run(partial(self._write, partial(self._write_outcomes, tuple(settled))))

    async def record_events(self, at_s: float, events: Sequence[Note]) -> None:
        """Write events in one transaction, because each transaction waits for the disk."""
        await self._run(partial(self._write, partial(self._write_events, at_s, tuple(events))))

    async def record_changes(
        self, at_s: float, changes: Sequence[OperatorChange], events: Sequence[Note]
    ) -> tuple[ChangeRecord, ...]:
        """Write operators' changes and the events that report them in one transaction; return the changes as stored.

        Raises:
            JournalError: The changes cannot be written; none is stored.
        """
        return await self._run(
            partial(self._write, partial(self._write_changes, at_s, tuple(changes), tuple(events)))
        )

    async def changes_in_force(self) -> tuple[ChangeRecord, ...]:
        """Pauses and overrides that no later change has replaced, oldest first, including expired ones."""
        return await self._run(lambda: read_in_force(self._connection))

    async def record_learned(self, at_s: float, learned: Sequence[Learned]) -> None:
        """Write learned state in one transaction; each value replaces the earlier one of its fleet and name.

        Raises:
            JournalError: The state cannot be written; earlier state is kept.
        """
        await self._run(partial(self._write, partial(self._write_learned, at_s, tuple(learned))))

    async def learned(self) -> tuple[Learned, ...]:
        """All learned state, sorted by fleet and name."""
        return await self._run(lambda: read_learned(self._connection))

    async def recent_actions(self, settled_since_s: float) -> tuple[ActionRecord, ...]:
        """Actions that are open or were settled at or after a time, oldest first: a listing may not show them yet."""
        return await self._run(lambda: read_actions(self._connection, OPEN_OR_SETTLED_SINCE, settled_since_s))

    async def prune(self, *, before_s: float, max_bytes: int) -> int:
        """Delete ticks older than `before_s`, then the oldest until the rest fits into `max_bytes`.

        The last tick, open actions and operators' changes in force are kept whatever their age. Works in short
        transactions, so that a tick recorded meanwhile does not wait. Free space is returned to the file system.

        Returns:
            Number of ticks deleted.
        """
        deleted = 0
        for _ in range(_MAX_PRUNE_BATCHES):
            batch, is_more = await self._run(partial(self._prune_batch, before_s, max_bytes))
            deleted += batch
            if not is_more:
                break
        return deleted

    async def size_bytes(self) -> int:
        """Bytes in use in the database, without free pages and the write-ahead log."""
        return await self._run(self._used_bytes)

    def reader(self) -> JournalReader:
        """A reader of this journal. For a journal in memory it shares the connection, so use it in the same thread."""
        self._let_go()
        self._holds_back = False
        return JournalReader(self._connection if self._path is None else self._path)

    async def close(self) -> None:
        """Write what is pending and release the directory; further calls do nothing.

        This waits for a write that hangs. A caller that cannot wait may abandon it; the thread ends with the process.
        """
        if self._closed:
            return
        self._closed = True
        self._holds_back = False
        self._held.clear()
        try:
            with schema.translated(self._name, "closed"):
                await self._execute(self._close_connection)
        finally:
            if self._executor is not None:
                self._executor.shutdown()
            if self._files is not None:
                self._files.close()
            if self._lock is not None:
                self._lock.release()

    # ── in the executing thread ─────────────────────────────────────────────────────────────────────────

    def _open(self, directory: Path | None) -> None:
        if self._path is None or directory is None:
            self._connection = schema.open_for_writing(None)
            return
        with schema.translated(self._name, "opened"):
            self._files = Files(directory, self._path)
        try:
            self._connection = recovery.open_checked(self._path, self._files.reached)
        except JournalDamagedError as error:
            if self._heal is None:
                raise
            carried = recovery.carried_from(self._path, None, self._in_force)
            self._damage = recovery.Damage(str(error), carried)
            self._begin_anew(self._heal, self._path, self._files)

    def _begin_anew(self, heal: recovery.Recovery, path: Path, files: Files) -> None:
        """Set the damaged journal aside and create a new one; if that fails, the next call tries again."""
        damage = self._damage
        if damage is None:
            return
        if self._lock is not None:
            self._lock.hold()
        with schema.translated(self._name, "set aside"):
            now_s = heal.now()
            damage.aside = recovery.set_aside(path, now_s) or damage.aside
            self._connection = recovery.begin(path, files.reached, damage.carried)
            self._damage = None
            self._rosters = {}
            reached = files.reached.actions if files.reached else 0
            self._carried_up_to = max([reached, *(action.id for action in damage.carried.actions)])
            text = recovery.message(path, damage)
            self._insert_events(now_s, [Note(recovery.EVENT, "", text)])
        files.renewed()
        heal.tell(text)

    def _close_connection(self) -> None:
        self._connection.close()

    def _write(self, call: Callable[[], _T]) -> _T:
        """Execute one write, after checking that the files are still the ones that were opened; then advance the mark."""
        if self._lock is not None:
            self._lock.hold()
        if self._files is not None:
            self._files.verify()
        result = call()
        if self._files is not None:
            self._files.reach(self._connection)
        return result

    def _write_events(self, at_s: float, events: tuple[Note, ...]) -> None:
        with schema.transaction(self._connection):
            self._insert_events(at_s, events)

    def _insert_events(self, at_s: float, events: Iterable[Note]) -> None:
        self._connection.executemany(
            "INSERT INTO events (at_s, kind, fleet, text) VALUES (?, ?, ?, ?)",
            ((at_s, event.kind, event.fleet, storable(event.text)) for event in events),
        )

    def _write_changes(
        self, at_s: float, changes: tuple[OperatorChange, ...], events: tuple[Note, ...]
    ) -> tuple[ChangeRecord, ...]:
        with schema.transaction(self._connection):
            records = tuple(
                ChangeRecord(insert_change(self._connection, at_s, change), at_s, change)
                for change in changes
            )
            self._insert_events(at_s, events)
            in_force = read_in_force(self._connection)
        self._keep(in_force)
        return records

    def _write_learned(self, at_s: float, learned: tuple[Learned, ...]) -> None:
        with schema.transaction(self._connection):
            insert_learned(self._connection, at_s, learned)

    def _keep(self, in_force: tuple[ChangeRecord, ...]) -> None:
        """Remember the changes in force, and write them to the file beside the journal."""
        self._in_force = in_force
        if self._standing is not None:
            self._standing.write(in_force)

    def _write_identity(self) -> None:
        self._connection.execute(
            "INSERT INTO meta VALUES ('last_writer', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (_program_version(),),
        )

    def _hold_back(self, record: TickRecord) -> bool:
        """Keep a tick, to write it together with later ones: a journal in memory has no reader yet, and no crash to survive."""
        raw, names = self._encoded.raw(record.fleets)
        roster_id = self._rosters.get(_roster(names))
        if roster_id is None:
            return False
        self._held.append((record.tick, record.at_s, roster_id, raw))
        self._held_rows += len(names)
        if self._held_rows >= _HELD_ROWS:
            self._let_go()
        return True

    def _let_go(self) -> None:
        """Write the ticks held back."""
        if self._held:
            blob = self._encoded.blob
            rows = [(tick, at_s, roster, FORMAT, blob(raw)) for tick, at_s, roster, raw in self._held]
            with schema.translated(self._name, "written"), schema.transaction(self._connection):
                self._connection.executemany(_INSERT_TICK, rows)
            self._held.clear()
            self._held_rows = 0

    def _write_tick(
        self, record: TickRecord, intents: tuple[ActionIntent, ...], events: tuple[Note, ...]
    ) -> tuple[int, ...]:
        body, names = self._encoded.of(record.fleets)
        roster = _roster(names)
        row = record.tick, record.at_s
        if not intents and not events and roster in self._rosters:
            # A single statement is its own transaction.
            self._connection.execute(_INSERT_TICK, (*row, self._rosters[roster], FORMAT, body))
            return ()
        with schema.transaction(self._connection):
            roster_id = self._roster_id(roster)
            self._connection.execute(_INSERT_TICK, (*row, roster_id, FORMAT, body))
            ids = tuple(
                insert_action(self._connection, record.at_s, record.tick, intent) for intent in intents
            )
            self._insert_events(record.at_s, events)
        # Only after the commit: a roster of a failed transaction does not exist.
        self._rosters = {roster: roster_id}
        return ids

    def _write_intents(self, tick: int, at_s: float, intents: tuple[ActionIntent, ...]) -> tuple[int, ...]:
        with schema.transaction(self._connection):
            return tuple(insert_action(self._connection, at_s, tick, intent) for intent in intents)

    def _roster_id(self, roster: str) -> int:
        known = self._rosters.get(roster)
        if known is not None:
            return known
        self._connection.execute("INSERT INTO rosters (fleets) VALUES (?) ON CONFLICT DO NOTHING", (roster,))
        return int(
            self._connection.execute("SELECT id FROM rosters WHERE fleets = ?", (roster,)).fetchone()[0]
        )

    def _write_outcomes(self, settled: tuple[Settled, ...]) -> None:
        with schema.transaction(self._connection):
            for each in settled:
                self._insert_events(each.at_s, each.events)
                if insert_outcomes(self._connection, each):
                    continue
                if not 0 < each.action_id <= self._carried_up_to:
                    raise InvariantError(
                        f"Action {each.action_id} is not open in the journal {self._name}; please report this."
                    )
                text = f"outcome of action {each.action_id}, whose intent is in the journal that was set aside: {_brief(each.outcomes)}"
                self._insert_events(each.at_s, [Note(recovery.EVENT, "", text)])
        if self._files is not None and settled:
            self._files.settled = settled[-1].action_id

    def _prune_batch(self, before_s: float, max_bytes: int) -> tuple[int, bool]:
        """Delete some of what is too old; return the number of ticks deleted, and whether more may be."""
        over = self._used_bytes() > max_bytes
        with schema.transaction(self._connection):
            oldest = self._connection.execute(
                _OLDEST_WRITTEN if over else _OLDER_THAN, {"before_s": before_s, "limit": PRUNE_BATCH}
            ).fetchall()
            self._connection.executemany("DELETE FROM ticks WHERE id = ?", oldest)
            # Not the times of the ticks deleted: some lie ahead if the clock was set back since.
            kept_s = self._connection.execute("SELECT min(at_s) FROM ticks").fetchone()[0] if over else None
            horizon_s = before_s if kept_s is None else max(before_s, kept_s)
            limits = {"before_s": horizon_s, "limit": PRUNE_ROWS}
            rows = [self._connection.execute(delete, limits).rowcount for delete in _DELETES]
            self._connection.execute(
                "DELETE FROM operator_changes WHERE at_s < ? AND in_force = 0", (horizon_s,)
            )
            forget_learned(self._connection, before_s)
            self._connection.execute(
                "DELETE FROM rosters WHERE NOT EXISTS (SELECT 1 FROM ticks WHERE roster_id = rosters.id)"
            )
        self._rosters = {}
        # As a script, because `execute` steps the statement once, and one step frees one page.
        self._connection.executescript("PRAGMA incremental_vacuum")
        return len(oldest), len(oldest) == PRUNE_BATCH or PRUNE_ROWS in rows

    def _used_bytes(self) -> int:
        size, pages, free = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return size * (pages - free)

    # ── executing ───────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, call: Callable[[], _T]) -> _T:
        if self._closed:
            raise JournalError(f"The journal {self._name} is closed.")
        self._let_go()
        if self._executor is None:
            return self._translated(call)
        return await self._execute(partial(self._translated, call))

    async def _execute(self, call: Callable[[], _T]) -> _T:
        if self._executor is None:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _translated(self, call: Callable[[], _T]) -> _T:
        if self._heal is None or self._path is None or self._files is None:
            with schema.translated(self._name, "written"):
                return call()
        try:
            self._begin_anew(self._heal, self._path, self._files)
            with schema.translated(self._name, "written"):
                return call()
        except JournalDamagedError as error:
            if self._damage is not None:
                raise
            carried = recovery.carried_from(self._path, self._connection, self._in_force)
            self._damage = recovery.Damage(str(error), carried)
        self._begin_anew(self._heal, self._path, self._files)
        with schema.translated(self._name, "written"):
            return call()


def open_journal(
    state_dir: Path, now: Callable[[], float], tell: Callable[[str], None], *, inline: bool = False
) -> SqliteJournal:
    """Open the journal of a daemon, which keeps working whatever happens to its files.

    A damaged database, found now or later, is set aside under a name that contains the time. A new one is
    created with the open actions and the operators' changes, as far as they can still be read. It begins
    with an event that reports this.

    Args:
        state_dir: Directory of the database, created if missing.
        now: The clock, epoch seconds.
        tell: Receives the one message for people; called in the journal's own thread.
        inline: Whether to execute in the caller, for runs on virtual time.

    Raises:
        JournalError: As for `SqliteJournal`.
    """
    return SqliteJournal(state_dir, inline=inline, heal=recovery.Recovery(now, tell))


def _lock(state_dir: Path) -> StateLock:
    with schema.translated(str(state_dir / schema.FILE_NAME), "opened"):
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    return StateLock(state_dir)


@lru_cache(maxsize=2)
def _roster(names: tuple[str, ...]) -> str:
    if len(set(names)) != len(names):
        raise InvariantError(f"A tick records a fleet twice, of {', '.join(names)}; please report this.")
    return json.dumps(names, ensure_ascii=False)


@cache
def _program_version() -> str:
    try:
        return version("vm-autoscaler")
    except PackageNotFoundError:
        return "not installed"


def _brief(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{o.vm_id or 'provision'} {o.kind} {o.code}".rstrip() for o in outcomes) or "none"
