"""Operators' pauses and overrides: checked, made durable, then in force from the next decision.

    asked ─ checked against the fleets in use ─ journal (one transaction) ─ in force ─ answered

Rules of this file: nothing is in force, or confirmed, before the journal has it. One change at a time. A change with an end
expires by the clock (epoch seconds), whether or not that can be recorded: a clock that is set forward past the end expires
it for good. A tick reads arrays that are rebuilt only when something changes, so that it costs nothing while nothing does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.operating import operator_words as words
from autoscaler.daemon.operating.allowances import Allowances, allowances
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ChangeRefusedError, JournalError
from autoscaler.ports import ALL_FLEETS, ChangeKind, ChangeRecord, Clock, Note, OperatorChange, Verb

MOST_VMS = 100_000
"""Largest bound of an override; a higher one is probably a typing error."""
LONGEST_S = 366 * 86_400.0
"""Longest duration of a change, in seconds; a change that should hold longer should have no end."""
LONGEST_REASON = 500

Subject = tuple[str, Verb | None]


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What every request for a change contains.

    Attributes:
        fleets: Names of fleets, or `ALL_FLEETS` alone.
        who: The user, for people.
        reason: The user's reason.
        expires_at_s: When the change ends by itself; None for never, and for requests that end a change.
    """

    fleets: tuple[str, ...]
    who: str
    reason: str
    expires_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """The answer to a request.

    Attributes:
        sentences: What was done, for people.
        changes: The recorded changes; empty if there was nothing to change.
    """

    sentences: tuple[str, ...]
    changes: tuple[ChangeRecord, ...] = ()


class Operators:
    """Makes, ends and applies pauses and overrides.

    Args:
        clock: The source of time.
        recording: The journal.
        telemetry: Metrics and log.
        tick_s: Length of a tick in seconds, to say when a change takes effect.
    """

    def __init__(self, clock: Clock, recording: Recorder, telemetry: Telemetry, tick_s: float) -> None:
        self._clock = clock
        self._recording = recording
        self._telemetry = telemetry
        self._tick_s = tick_s
        self._held: dict[Subject, ChangeRecord] = {}
        self._fleets: Mapping[str, Fleet] = {}
        self._ended: list[ChangeRecord] = []
        self._next_end_s = math.inf
        self._loaded = False
        self._lock = asyncio.Lock()
        self._changing: set[asyncio.Future[ChangeAnswer]] = set()
        self._allowances = allowances((), ())

    async def load(self) -> None:
        """Restore what earlier runs left in force, once; changes that have expired since end at the next look.

        Raises:
            JournalError: The journal cannot be read.
        """
        if not self._loaded:
            self._hold(await self._recording.changes_in_force())
            self._loaded = True

    def govern(self, fleets: Mapping[str, Fleet]) -> None:
        """Apply changes to these fleets from now on; their order is that of lanes."""
        self._fleets = fleets
        self._renew()

    # ── what a tick needs ──────────────────────────────────────────────────────────────────────────────

    def allowed(self, now_s: float) -> Allowances:
        """Return what operators allow at this moment, over lanes."""
        if now_s >= self._next_end_s:
            self._expire(now_s)
        return self._allowances

    async def record_ended(self, now_s: float) -> None:
        """Record changes that have expired; if that fails, try again after a later tick."""
        if not self._ended or self._lock.locked():
            return
        async with self._lock:
            ended, self._ended = self._ended, []
            # If the same subject was changed again, the journal knows that the earlier change has ended.
            changes = [_ended(record) for record in ended if record.change.subject not in self._held]
            notes = [self._note_of_end(record) for record in ended]
            try:
                await self._recording.changes(now_s, changes, notes, lambda _: None)
            except JournalError:
                self._ended += ended
                return
        self._tell(notes)

    def in_force(self) -> tuple[ChangeRecord, ...]:
        """Return what is in force now, oldest first, including changes for fleets that are not in use."""
        now_s = self._clock.now()
        return tuple(
            record
            for record in sorted(self._held.values(), key=lambda record: record.id)
            if not _has_ended(record, now_s)
        )

    # ── what operators ask for ─────────────────────────────────────────────────────────────────────────

    async def pause(self, asked: ChangeRequest, verbs: Sequence[Verb]) -> ChangeAnswer:
        """Pause these verbs.

        Raises:
            ChangeRefusedError: The request makes no sense; the text says why.
            JournalError: The change could not be recorded, so it is not in force.
        """
        return await self._alone(lambda: self._pause(asked, verbs))

    async def resume(self, asked: ChangeRequest, verbs: Sequence[Verb]) -> ChangeAnswer:
        """End pauses of these verbs; for all fleets, this includes pauses of single fleets.

        Raises:
            ChangeRefusedError, JournalError: As in `pause`.
        """
        return await self._alone(lambda: self._resume(asked, verbs))

    async def override(self, asked: ChangeRequest, floor: int | None, ceiling: int | None) -> ChangeAnswer:
        """Override the policy's bounds; this replaces an earlier override of the fleet as a whole.

        Raises:
            ChangeRefusedError, JournalError: As in `pause`.
        """
        return await self._alone(lambda: self._override(asked, floor, ceiling))

    async def clear(self, asked: ChangeRequest) -> ChangeAnswer:
        """End the override, so that the policy's bounds apply again.

        Raises:
            ChangeRefusedError, JournalError: As in `pause`.
        """
        return await self._alone(lambda: self._clear(asked))

    async def _alone(self, change: Callable[[], Awaitable[ChangeAnswer]]) -> ChangeAnswer:
        async def run() -> ChangeAnswer:
            async with self._lock:
                return await change()

        # An operator who disconnects must not interrupt a change.
        changing = asyncio.ensure_future(run())
        self._changing.add(changing)
        changing.add_done_callback(self._changing.discard)
        return await asyncio.shield(changing)

    async def _pause(self, asked: ChangeRequest, verbs: Sequence[Verb]) -> ChangeAnswer:
        self._check(asked, known=True)
        self._check_end(asked.expires_at_s)
        changes, notes, said = [], [], []
        for fleet in asked.fleets:
            pauses = [
                OperatorChange(
                    ChangeKind.PAUSED,
                    fleet,
                    verb,
                    asked.who,
                    asked.reason,
                    expires_at_s=asked.expires_at_s,
                )
                for verb in verbs
            ]
            changes += pauses
            effect = words.effect(verbs, pauses[0])
            left = words.goes_on([*verbs, *self._paused(fleet)])
            replaced = self._replaced([pause.subject for pause in pauses])
            said.append(_sentence(effect + (f"; {left}" if left else "") + replaced + self._shadow(fleet)))
            notes.append(
                Note(
                    "paused",
                    fleet,
                    f"{asked.who} paused {words.nouns(verbs)}: {effect} ({asked.reason}){replaced}",
                )
            )
        said.append(self._when())
        return ChangeAnswer(tuple(said), await self._make(changes, notes))

    async def _resume(self, asked: ChangeRequest, verbs: Sequence[Verb]) -> ChangeAnswer:
        self._check(asked, known=False)
        changes: list[OperatorChange] = []
        notes, said = [], []
        for fleet in asked.fleets:
            records = [r for r in self._pauses(fleet) if r.change.verb in verbs]
            changes += [_other(record, ChangeKind.RESUMED, asked) for record in records]
            for name in dict.fromkeys(record.change.fleet for record in records):
                again = [r.change.verb for r in records if r.change.fleet == name and r.change.verb]
                what = f"{words.nouns(again)} in {words.where(name)}"
                said.append(f"No longer paused: {what}.")
                notes.append(Note("resumed", name, f"{asked.who} resumed {what} ({asked.reason})"))
            everywhere = [r for r in self._pauses(ALL_FLEETS, own=True) if r.change.verb in verbs]
            if fleet != ALL_FLEETS and everywhere:
                standing = "; ".join(words.in_force(everywhere, self._fleets.keys()))
                text = f"{standing}, {fleet} among them; end that with --all-fleets"
                if not records:
                    raise ChangeRefusedError(text)
                said.append(_sentence(text))
            elif not records:
                self._refuse_unknown(fleet)
                said.append(
                    f"Nothing to resume: {words.nouns(verbs)} in {words.where(fleet)} are not paused."
                )
        if changes:
            said.append(self._when())
        return ChangeAnswer(tuple(said), await self._make(changes, notes))

    async def _override(self, asked: ChangeRequest, floor: int | None, ceiling: int | None) -> ChangeAnswer:
        self._check(asked, known=True)
        self._check_end(asked.expires_at_s)
        _check_bounds(floor, ceiling)
        changes, notes, said = [], [], []
        for name in asked.fleets:
            change = OperatorChange(
                ChangeKind.OVERRIDDEN, name, None, asked.who, asked.reason, floor, ceiling, asked.expires_at_s
            )
            changes.append(change)
            policy = self._fleets[name].policy.bounds
            instead = f"instead of the policy's {policy.minimum} to {policy.maximum}"
            effect = words.bounds(change)
            replaced = self._replaced([change.subject])
            said.append(_sentence(f"{effect}, {instead}{replaced}{self._shadow(name)}"))
            said += _too_few(self._fleets[name], floor)
            notes.append(
                Note("overridden", name, f"{asked.who} overrode: {effect} ({asked.reason}){replaced}")
            )
        said.append(self._when())
        return ChangeAnswer(tuple(said), await self._make(changes, notes))

    async def _clear(self, asked: ChangeRequest) -> ChangeAnswer:
        self._check(asked, known=False)
        changes, notes, said = [], [], []
        for fleet in asked.fleets:
            record = self._held.get((fleet, None))
            if record is None:
                self._refuse_unknown(fleet)
                said.append(f"Nothing to clear: the bounds of {fleet} are not overridden.")
                continue
            changes.append(_other(record, ChangeKind.OVERRIDE_CLEARED, asked))
            said.append(f"The bounds of the policy of {fleet} apply again.")
            text = f"{asked.who} ended the override ({asked.reason}): {words.standing(record.change)}"
            notes.append(Note("override_cleared", fleet, text))
        if changes:
            said.append(self._when())
        return ChangeAnswer(tuple(said), await self._make(changes, notes))

    # ── checks ─────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, asked: ChangeRequest, *, known: bool) -> None:
        if not asked.fleets:
            raise ChangeRefusedError("no fleet is named; name one, or all of them with --all-fleets")
        reason = asked.reason
        if not reason.strip() or len(reason) > LONGEST_REASON:
            raise ChangeRefusedError(
                f"a reason is needed, of 1 to {LONGEST_REASON} characters, for those who read it later"
            )
        # The reason is printed on terminals without escaping.
        if not reason.isprintable():
            raise ChangeRefusedError("the reason has control characters; write it in one line of plain text")
        for fleet in asked.fleets:
            if known and fleet != ALL_FLEETS:
                self._refuse_unknown(fleet)

    def _refuse_unknown(self, fleet: str) -> None:
        if fleet != ALL_FLEETS and fleet not in self._fleets:
            raise ChangeRefusedError(words.unknown_fleet(fleet, self._fleets.keys()))

    def _check_end(self, expires_at_s: float | None) -> None:
        now_s = self._clock.now()
        if expires_at_s is not None and not now_s < expires_at_s <= now_s + LONGEST_S:
            raise ChangeRefusedError(
                f"it would end at {_moment(expires_at_s)}, and it is {words.time(now_s)} now; the end must be later "
                f"than that and at most {LONGEST_S / 86_400:.0f} days away (without an end: --no-expiry)"
            )

    # ── what is in force ───────────────────────────────────────────────────────────────────────────────

    async def _make(
        self, changes: Sequence[OperatorChange], notes: Sequence[Note]
    ) -> tuple[ChangeRecord, ...]:
        if not changes:
            return ()

        def in_the_end(records: tuple[ChangeRecord, ...]) -> None:
            self._hold(records)
            self._tell(notes)

        records = await self._recording.changes(self._clock.now(), changes, notes, in_the_end)
        in_the_end(records)
        return records

    def _hold(self, records: Sequence[ChangeRecord]) -> None:
        for record in records:
            if record.change.kind.holds:
                self._held[record.change.subject] = record
            else:
                self._held.pop(record.change.subject, None)
        self._renew()

    def _expire(self, now_s: float) -> None:
        for subject, record in list(self._held.items()):
            if _has_ended(record, now_s):
                del self._held[subject]
                self._ended.append(record)
        self._renew()

    def _renew(self) -> None:
        changes = [record.change for record in self._held.values()]
        ends = (change.expires_at_s for change in changes if change.expires_at_s is not None)
        self._next_end_s = min(ends, default=math.inf)
        self._allowances = allowances(changes, list(self._fleets))
        self._telemetry.allowed(list(self._fleets), self._allowances)

    def _pauses(self, fleet: str, *, own: bool = False) -> list[ChangeRecord]:
        """Return the pauses of a fleet. For `ALL_FLEETS` this includes the pauses of single fleets, unless `own`."""
        return [
            record
            for record in self.in_force()
            if record.change.verb is not None
            and (record.change.fleet == fleet or (fleet == ALL_FLEETS and not own))
        ]

    def _paused(self, fleet: str) -> list[Verb]:
        """Return the verbs that are paused in a fleet, by itself or with all fleets."""
        records = (*self._pauses(fleet, own=True), *self._pauses(ALL_FLEETS, own=True))
        return [record.change.verb for record in records if record.change.verb is not None]

    # ── words ──────────────────────────────────────────────────────────────────────────────────────────

    def _replaced(self, subjects: Sequence[Subject]) -> str:
        before = [record for record in self.in_force() if record.change.subject in subjects]
        said = words.in_force(before, self._fleets.keys())
        return f"; this takes the place of: {'; '.join(said)}" if said else ""

    def _shadow(self, fleet: str) -> str:
        held = self._fleets.get(fleet)
        return (
            ""
            if held is None or held.policy.act
            else f"; {fleet} runs in shadow, where no VM is really changed"
        )

    def _when(self) -> str:
        return f"It applies from the next decision on, within {self._tick_s:g} s; calls in flight are not cancelled."

    def _note_of_end(self, record: ChangeRecord) -> Note:
        change = record.change
        text = f"over by the clock: {words.standing(change)}"
        return Note("override_expired" if change.verb is None else "pause_expired", change.fleet, text)

    def _tell(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self._telemetry.operator_changes.labels(note.kind).inc()
            self._telemetry.log.warning("operator", fleet=note.fleet, kind=note.kind, text=note.text)


def _has_ended(record: ChangeRecord, now_s: float) -> bool:
    expires_at_s = record.change.expires_at_s
    return expires_at_s is not None and now_s >= expires_at_s


def _ended(record: ChangeRecord) -> OperatorChange:
    kind = ChangeKind.OVERRIDE_EXPIRED if record.change.verb is None else ChangeKind.PAUSE_EXPIRED
    return replace(record.change, kind=kind)


def _other(record: ChangeRecord, kind: ChangeKind, asked: ChangeRequest) -> OperatorChange:
    """Return the change that ends one in force."""
    change = record.change
    return OperatorChange(kind, change.fleet, change.verb, asked.who, asked.reason)


def _check_bounds(floor: int | None, ceiling: int | None) -> None:
    if floor is None and ceiling is None:
        raise ChangeRefusedError("neither a floor nor a ceiling is given; name one of them, or both")
    for name, value, low in (("floor", floor, 1), ("ceiling", ceiling, 0)):
        if value is not None and not low <= value <= MOST_VMS:
            hint = "; to keep the policy's minimum, leave it out" if name == "floor" and not value else ""
            raise ChangeRefusedError(f"the {name} {value} is not from {low} to {MOST_VMS} VMs{hint}")
    if floor is not None and ceiling is not None and floor > ceiling:
        raise ChangeRefusedError(f"the floor {floor} is above the ceiling {ceiling}; exchange them")


def _too_few(fleet: Fleet, floor: int | None) -> list[str]:
    """Say that a floor cannot be reached with the VMs that the fleet can have; empty if it can."""
    there = len(fleet.inventory.vms)
    room = there if fleet.policy.provision is None else max(there, fleet.policy.provision.maximum)
    if floor is None or floor <= room:
        return []
    return [f"Note that {fleet.name} can have {room} VMs at most, so a floor of {floor} will not be reached."]


def _moment(at_s: float) -> str:
    try:
        return words.time(at_s)
    except (OverflowError, ValueError, OSError):
        return f"{at_s:g} (epoch seconds)"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
