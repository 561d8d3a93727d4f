"""Bounded writes to the journal: a disk that hangs or fails delays actions, never decisions.

Rules of this file: a write that does not return in time has failed for its caller, and is left to finish on its own.
Until then nothing else is written, so that writes do not queue up behind it. Outcomes of many calls are combined into few writes
(`CombinedWrites`). Every failure is counted, and reported once an hour while it lasts.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from autoscaler.at_once import answers_at_once, begun
from autoscaler.daemon.acts.actuator import NOT_SENT
from autoscaler.daemon.bounded import within
from autoscaler.daemon.failures import AGAIN_S
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import InvariantError, JournalError, JournalLateError
from autoscaler.ports import (
    ActionIntent,
    ActionRecord,
    ChangeRecord,
    Journal,
    Learned,
    Note,
    OperatorChange,
    Outcome,
    OutcomeKind,
    Settled,
    TickRecord,
)
from autoscaler.words import counted

T = TypeVar("T")
R = TypeVar("R")

_MOST_UNTOLD, _UNTOLD_PER_TICK = 100, 5
"""How many writes of events are kept while the journal fails, and how many of them are made in one tick afterwards."""
OPEN_WITHIN_S = 60.0
"""Longest wait for reading the journal at startup, in seconds of the event loop. A large journal may have to be read."""


class Recorder:
    """Writes to the journal for the loop, each write within a time limit.

    Args:
        journal: Where to write.
        telemetry: Counts and reports failures.
        wait_s: Longest wait for one write, in seconds of the event loop.
    """

    def __init__(self, journal: Journal, telemetry: Telemetry, wait_s: float) -> None:
        self._journal = journal
        self._at_once = answers_at_once(journal)
        self.outlives_the_run: bool = getattr(journal, "outlives_the_run", True)
        """Whether a later run can read what is written; False for a journal in memory."""
        self._telemetry = telemetry
        self._wait_s = wait_s
        self.trouble = ""
        """Why nothing can be recorded now, and so nothing is done; empty if the last tick was recorded."""
        self._said_s: dict[str, float] = {}
        """Failures reported since the last recorded tick, with the time of the report, in seconds of the event loop."""
        self._failed_since_s: float | None = None
        self._hung: set[asyncio.Future[Any]] = set()
        self._may_succeed = False
        """Whether the last write of intents that failed did so only because it took too long."""
        self._news: list[Note] = []
        self._untold: deque[tuple[float, Sequence[Note]]] = deque(maxlen=_MOST_UNTOLD)
        self._unsettled: list[Settled] = []
        self._too_late: list[tuple[tuple[int, ...], tuple[ActionIntent, ...]]] = []
        self._settling: CombinedWrites[tuple[Settled, ...], None] = CombinedWrites(self._settled)
        self._further: dict[int, CombinedWrites[tuple[float, tuple[ActionIntent, ...]], tuple[int, ...]]] = {}

    async def tick(self, record: TickRecord, intents: list[ActionIntent]) -> tuple[int, ...]:
        """Make a tick and its intents durable, and return the ids of the actions.

        If that fails, `intents` is emptied, so that nothing unrecorded is done.
        """
        given, news = tuple(intents), tuple(self._news)
        self._news.clear()
        ids = await self._intents(lambda: self._journal.record_tick(record, given, news), given)
        if ids is None:
            intents.clear()
            if news and not self._may_succeed:
                self._untold.append((record.at_s, news))
            return ()
        self._written()
        return ids

    async def more(self, tick: int, at_s: float, intents: Sequence[ActionIntent]) -> tuple[int, ...]:
        """Make further intents of a recorded tick durable, and return the ids of the actions; empty if that fails."""
        if tick not in self._further:
            self._further = {tick: CombinedWrites(partial(self._more, tick))}
        return await self._further[tick].add((at_s, tuple(intents))) or ()

    async def _more(
        self, tick: int, asked: Sequence[tuple[float, tuple[ActionIntent, ...]]]
    ) -> list[tuple[int, ...]]:
        at_s = max(at_s for at_s, _ in asked)
        given = tuple(intent for _, intents in asked for intent in intents)
        ids = await self._intents(lambda: self._journal.record_intents(tick, at_s, given), given)
        if ids is None:
            return []
        left = iter(ids)
        return [tuple(islice(left, len(intents))) for _, intents in asked]

    async def _intents(
        self, write: Callable[[], Awaitable[tuple[int, ...]]], given: tuple[ActionIntent, ...]
    ) -> tuple[int, ...] | None:
        """Write intents and return the ids of the actions; None if that fails, which is then already reported."""
        try:
            ids = await self._write(
                write, self._wait_s, lambda late_ids: self._too_late.append((late_ids, given))
            )
        except JournalError as error:
            self.trouble, self._may_succeed = str(error), isinstance(error, JournalLateError)
            held = f"; {counted(len(given), 'action')} held back" if given else ""
            self._failed(str(error).removesuffix(".") + held)
            return None
        self.trouble = ""
        return ids

    async def outcomes(self, *settled: Settled) -> None:
        """Log the events, and record them with the outcomes; if that fails, try again after a tick that can be written."""
        for each in settled:
            self._log(each.events)
        if settled:
            await self._settling.add(settled)

    def outcomes_after_starts(self, *settled: Settled) -> None:
        """Log the events, and record them with the outcomes after the starts of the next recorded tick."""
        for each in settled:
            self._log(each.events)
        self._unsettled += settled

    async def _settled(self, given: Sequence[tuple[Settled, ...]]) -> tuple[None, ...]:
        settled = tuple(each for some in given for each in some)
        try:
            await self._write(lambda: self._journal.record_outcomes(settled), self._wait_s)
        except JournalError as error:
            self._failed(str(error))
            # A write that hangs may still succeed, and the outcomes of an action are recorded only once.
            if not isinstance(error, JournalLateError):
                self._unsettled += settled
        except InvariantError as error:
            # One action that cannot be settled must not keep the others open.
            if len(settled) > 1:
                for each in settled:
                    await self._settled([(each,)])
            else:
                self._failed(str(error))
        return ()

    async def settle_rest(self, at_s: float) -> None:
        """Record what could not be recorded when it was known; called after the starts of a tick.

        All outcomes are one write. Events keep their times, so they are one write per time, and only some are written in one
        tick.
        """
        if self.trouble:
            return
        for _ in range(min(len(self._untold), _UNTOLD_PER_TICK)):
            then_s, notes = self._untold.popleft()
            await self.events(notes, then_s)
        if not (self._too_late or self._unsettled):
            return
        rest, self._unsettled = self._unsettled, []
        why = "recorded too late, so it was not done"
        while self._too_late:
            ids, intents = self._too_late.pop()
            for action_id, intent in zip(ids, intents, strict=True):
                outcomes = [
                    Outcome(vm_id, OutcomeKind.THROTTLED, NOT_SENT, why) for vm_id in intent.vm_ids or ("",)
                ]
                rest.append(Settled(action_id, at_s, outcomes))
        await self._settling.add(tuple(rest))

    async def note(self, notes: Sequence[Note], at_s: float) -> None:
        """Log what happened, and record it in one write: on a bad day hundreds of VMs may have news at once."""
        self._log(notes)
        if notes:
            await self.events(notes, at_s)

    def note_with_tick(self, notes: Sequence[Note]) -> None:
        """Log what happened, and record it together with the next tick, so that no start waits for a write of its own."""
        self._log(notes)
        self._news += notes

    def _log(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self._telemetry.log.warning("vm", fleet=note.fleet, kind=note.kind, text=note.text)

    async def event(self, kind: str, text: str, at_s: float, fleet: str = "") -> None:
        """Record an event that has already been logged."""
        await self.events([Note(kind, fleet, text)], at_s)

    async def events(self, notes: Sequence[Note], at_s: float) -> None:
        """Record events that have already been logged, in one write; if that fails, try again after a tick that can be written."""
        try:
            await self._write(lambda: self._journal.record_events(at_s, notes), self._wait_s)
        except JournalError as error:
            self._failed(str(error))
            if not isinstance(error, JournalLateError):
                self._untold.append((at_s, notes))

    async def recent_actions(self, settled_since_s: float) -> tuple[ActionRecord, ...]:
        """Return the actions that earlier runs left open, and those settled since `settled_since_s`.

        Raises:
            JournalError: The journal cannot be read, or not in time.
        """
        return await self._write(lambda: self._journal.recent_actions(settled_since_s), OPEN_WITHIN_S)

    async def changes(
        self,
        at_s: float,
        changes: Sequence[OperatorChange],
        events: Sequence[Note],
        too_late: Callable[[tuple[ChangeRecord, ...]], object],
    ) -> tuple[ChangeRecord, ...]:
        """Make operators' changes durable, and return their records.

        Raises:
            JournalError: The changes could not be written, and none of them is stored.
            JournalLateError: The outcome is not known yet. If the changes become durable later, `too_late` is called
                with their records.
        """
        try:
            return await self._write(
                lambda: self._journal.record_changes(at_s, changes, events), self._wait_s, too_late
            )
        except JournalError as error:
            self._failed(f"{error}; an operator's change is not in force")
            raise

    async def changes_in_force(self) -> tuple[ChangeRecord, ...]:
        """Return the operators' changes that are in force.

        Raises:
            JournalError: The journal cannot be read, or not in time.
        """
        return await self._write(self._journal.changes_in_force, OPEN_WITHIN_S)

    async def learned(self, *, between_ticks: bool = False) -> tuple[Learned, ...]:
        """Return what earlier runs learned; `between_ticks` waits no longer than for a write.

        Raises:
            JournalError: The journal cannot be read, or not in time.
        """
        return await self._write(self._journal.learned, self._wait_s if between_ticks else OPEN_WITHIN_S)

    async def keep_learned(self, at_s: float, learned: Sequence[Learned]) -> bool:
        """Store what was learned for the next run, and return whether that succeeded.

        A failure is reported, and the caller tries again later.
        """
        try:
            await self._write(lambda: self._journal.record_learned(at_s, learned), self._wait_s)
        except JournalError as error:
            self._failed(f"{error}; what was learned is kept later")
            return False
        return True

    async def prune(self, *, before_s: float, max_bytes: int, within_s: float) -> None:
        """Delete old records in the background. A failure is logged, but not counted as a failed write."""
        try:
            await within(lambda: self._journal.prune(before_s=before_s, max_bytes=max_bytes), within_s)
        except TimeoutError:
            text = f"pruning did not end within {within_s:g} s; it continues next time"
            self._telemetry.log.warning("journal_failed", text=text)
        except JournalError as error:
            self._telemetry.log.warning("journal_failed", text=f"pruning: {error}")

    async def _write(
        self,
        call: Callable[[], Awaitable[T]],
        wait_s: float,
        too_late: Callable[[T], object] | None = None,
    ) -> T:
        """Make a call to the journal within a time limit, and return its result.

        If the call returns only after it was given up, `too_late` is called with the result.
        """
        if self._hung:
            raise JournalError("an earlier write has not come back; is the disk of state_dir hung?")
        task = begun(call, at_once=self._at_once)
        if not isinstance(task, asyncio.Future):
            return task.result()
        if not task.done():
            try:
                await asyncio.wait({task}, timeout=wait_s)
            except asyncio.CancelledError:
                task.cancel()
                raise
        if task.done():
            return task.result()
        self._hung.add(task)
        task.add_done_callback(partial(self._came_back, too_late))
        raise JournalLateError(
            f"no answer from the journal within {wait_s:g} s; is the disk of state_dir hung?"
        )

    def _came_back(self, too_late: Callable[[T], object] | None, task: asyncio.Future[T]) -> None:
        self._hung.discard(task)
        if not task.cancelled() and task.exception() is None and too_late is not None:
            too_late(task.result())

    def _failed(self, text: str) -> None:
        """Count a failure, and report it at most once an hour: a full disk fails every tick, and may hold the log as well."""
        self._telemetry.journal_errors.inc()
        now_s = asyncio.get_running_loop().time()
        if self._failed_since_s is None:
            self._failed_since_s = now_s
        if now_s - self._said_s.get(text, -math.inf) >= AGAIN_S:
            self._said_s[text] = now_s
            self._telemetry.log.error("journal_failed", text=text)

    def _written(self) -> None:
        if self._failed_since_s is None:
            return
        lasted_s = asyncio.get_running_loop().time() - self._failed_since_s
        self._failed_since_s = None
        self._said_s.clear()
        self._telemetry.log.info(
            "journal_written", text=f"the journal is written again, after {lasted_s:.0f} s"
        )


class _Batch(Generic[T, R]):
    """The items of the next write, and their results once it is done."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self.results: Sequence[R] = ()


class CombinedWrites(Generic[T, R]):
    """Writes each item together with those that came while an earlier write was in progress, in the order in which they came.

    Each write waits for the disk. On a bad day the calls of hundreds of fleets return at once, and their outcomes, one after the
    other, would keep a slow disk busy beyond the tick: the next tick could not be recorded, and its starts would be held.

    Args:
        write: Writes items in one transaction and returns one result per item, or none if that failed, which it has
            reported.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._next: _Batch[T, R] = _Batch()

    async def add(self, item: T) -> R | None:
        """Write an item and return its result; None if that failed."""
        batch, place = self._next, len(self._next.items)
        batch.items.append(item)
        async with self._turn:
            if batch is self._next:
                self._next = _Batch()
                batch.results = await self._write(batch.items)
        return batch.results[place] if batch.results else None
