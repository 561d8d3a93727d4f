"""Carries out recorded intents concurrently, and reports outcomes to the fleet and the journal.

Rules of this file: starts before stops. Starts that failed are tried elsewhere within the tick (`fallbacks`), until the fleet
is decided on again. A slow account does not cost the other fleets their ticks: calls that outlast the tick are settled when
they return. An exception while an outcome is handled is reported; a later listing shows what became of the call.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.daemon.acts.actuator import (
    NOT_SENT,
    ActionResult,
    CallParameters,
    carry_out,
    change_type,
)
from autoscaler.daemon.acts.calls import Calls, TickWait, may_delay_tick
from autoscaler.daemon.acts.fallbacks import ROUNDS, fallback_intents, retryable_failures
from autoscaler.daemon.acts.shortages import Shortages
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.fleet_places import FleetPlaces
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.places import Places
from autoscaler.daemon.vms.quarantine import blame_for_no_room
from autoscaler.daemon.vms.tracked import TYPE_TAG, TrackedVm
from autoscaler.ports import (
    BUDGET_SPENT,
    ActionIntent,
    Clock,
    FleetTick,
    Note,
    Outcome,
    OutcomeKind,
    Provider,
    Settled,
    TickRecord,
    Verb,
    Vm,
    VmState,
)

_DENIED_HOLD_S = 60.0
"""How long a fleet's actions wait after the provider denied access, in seconds: repeating does not help, only a person
can.
"""
_PROVISION_HOLD_S = 180.0
"""How long the next provisioning waits after one was refused because of its template, in seconds. A lack of room holds
only its place.
"""
_RESTORED_AT_ONCE = 3
"""Most VMs of one fleet whose type is changed back in one tick; it is not urgent."""
_RESTORED_AGAIN_S = 180.0
"""How long a VM whose type could not be changed back is left as it is, in seconds; it may be started meanwhile."""


@dataclass(frozen=True, slots=True)
class _FleetDecision:
    """One decision on one fleet.

    Attributes:
        tick: Number of the tick.
        row: What was decided.
        number: How many times the fleet has been decided on, including this time.
        attempt: How many times failed starts have been tried elsewhere so far.
    """

    tick: int
    row: FleetTick
    number: int
    attempt: int = 0


class IntentExecutor:
    """Carries out recorded intents, and handles their outcomes.

    Args:
        clock: The source of time.
        recorder: The journal.
        telemetry: Metrics and log.
        call_s: Longest time of one provider call, in seconds of the event loop.
        ask_again: Called with fleets that should be decided on again soon: the API budget left out some of their VMs, or
            VMs failed that the latest decision counted on.
    """

    def __init__(
        self,
        clock: Clock,
        recorder: Recorder,
        telemetry: Telemetry,
        call_s: float,
        ask_again: Callable[[Iterable[str]], None],
    ) -> None:
        self._clock = clock
        self._recorder = recorder
        self._telemetry = telemetry
        self._call_s = call_s
        self._ask_again = ask_again
        self._fleets: Mapping[str, Fleet] = {}
        self._calls = Calls(telemetry, call_s)
        self._turns: Counter[str] = Counter()
        """By fleet, how many times it was decided on: an earlier decision requests nothing more."""
        self._waits: set[asyncio.Task[None]] = set()
        """Waits for listings to show what calls have changed; none of them keeps the daemon from ending."""
        self._choosing: dict[str, asyncio.Lock] = {}
        self._places: dict[int, tuple[Provider, Places]] = {}
        self.shortages = Shortages(telemetry)
        self._accepted_s: dict[str, float] = {}
        """By fleet, when a start or a provisioning was last accepted."""

    def govern(self, fleets: Mapping[str, Fleet], *, anew: bool = False) -> None:
        """Act on these fleets from now on; calls in flight for others are still finished and recorded.

        Fleets of one provider share what is known of places.

        Args:
            fleets: The fleets by name.
            anew: Whether to forget what is known of places, and what lies in the future, because the clock was set back.
        """
        self._fleets = fleets
        if anew:
            self._accepted_s.clear()
            self.shortages.set_back(self._clock.now())
        known = {} if anew else self._places
        self._places = {}
        for fleet in fleets.values():
            key = id(fleet.provider)
            if key not in self._places:
                self._places[key] = known.get(key, (fleet.provider, Places()))
            shared = self._places[key][1]
            if fleet.inventory.places.shared is not shared:
                fleet.inventory.places = FleetPlaces(shared)
            fleet.inventory.types = fleet.policy.vm.types
        self.shortages.keep(fleets)
        for kept in (self._choosing, self._accepted_s):
            for name in kept.keys() - fleets.keys():
                del kept[name]

    def begin_turn(self, fleets: Iterable[str]) -> None:
        """Note that these fleets are about to be decided on, so that earlier decisions on them request nothing more."""
        for name in fleets:
            self._turns[name] += 1

    async def act(
        self,
        record: TickRecord,
        intents: Sequence[ActionIntent],
        action_ids: Sequence[int],
        wait: TickWait,
    ) -> None:
        """Make the calls of a tick's intents, and wait for them for a limited time.

        Args:
            record: The tick.
            intents: What to do, for fleets passed to `govern`; already durable.
            action_ids: Their journal ids, in the same order.
            wait: The tick's wait for its calls.
        """
        if intents:
            await self._carry_out_all(record, list(zip(action_ids, intents, strict=True)), wait)
        await self._follow_shortages(record)
        self._restore_types(record)

    def not_recorded(self, record: TickRecord) -> None:
        """Release the places that a tick claimed, because the tick could not be recorded and nothing of it is done."""
        for fleet in self._fleets.values():
            fleet.inventory.places.give_back_all_of(record.at_s)

    async def _carry_out_all(
        self, record: TickRecord, numbered: Sequence[tuple[int, ActionIntent]], wait: TickWait
    ) -> None:
        rows = {row.fleet: row for row in record.fleets}
        for verbs in ((Verb.START, Verb.PROVISION), (Verb.STOP,)):
            calls = set()
            for number, intent in numbered:
                if intent.verb in verbs:
                    turn = _FleetDecision(record.tick, rows[intent.fleet], self._turns[intent.fleet])
                    call = self._begin_call(number, intent, turn)
                    if not may_delay_tick(self._fleets[intent.fleet]):
                        calls.add(call)
            await wait.on(calls)

    async def finish(self) -> None:
        """Wait for the calls in flight; the next run settles what is still open then."""
        for wait in self._waits:
            wait.cancel()
        await self._calls.finish()

    def _begin_call(self, action_id: int, intent: ActionIntent, turn: _FleetDecision) -> asyncio.Task[None]:
        """Begin the call of a recorded intent; it counts from now on."""
        fleet = self._fleets[intent.fleet]
        how = self._call_parameters(fleet, intent)
        fleet.inventory.sent(
            intent.verb, intent.vm_ids, intent.count, action_id, self._clock.now(), intent.token
        )
        for vm_id in intent.vm_ids if how.force else ():
            fleet.inventory.vms[vm_id].forced = True
        for vm_id in how.hibernate:
            fleet.inventory.vms[vm_id].saves_memory = True
        return self._calls.begin(self._carry_out(action_id, intent, how, turn))

    def _call_parameters(self, fleet: Fleet, intent: ActionIntent) -> CallParameters:
        """Return the parameters of the call that follow from the present state of its VMs."""
        now_s = self._clock.now()
        if intent.verb is Verb.PROVISION:
            return CallParameters(fleet.inventory.make_as.pop(intent.token, fleet.spec))
        vms = [fleet.inventory.vms[vm_id] for vm_id in intent.vm_ids]
        if intent.verb is Verb.STOP:
            force = bool(vms) and all(t.phase is Phase.STOPPING for t in vms)
            return CallParameters(
                force=force, hibernate=fleet.hibernation.of_stops(fleet.inventory, vms, now_s)
            )
        changing = [t for t in vms if t.start_as]
        return CallParameters(
            start_as={t.vm.id: t.start_as for t in changing}, type_of={t.vm.id: own_type(t) for t in changing}
        )

    async def _carry_out(
        self, action_id: int, intent: ActionIntent, how: CallParameters, turn: _FleetDecision
    ) -> None:
        done = await carry_out(
            self._fleets[intent.fleet].provider,
            self._clock,
            action_id,
            intent,
            how=how,
            timeout_s=self._call_s,
        )
        counted_on = not self._current(intent.fleet, turn)
        await self._settle(done)
        if intent.verb is not Verb.STOP:
            left_out = any(o.code == BUDGET_SPENT for o in done.outcomes)
            if left_out or (counted_on and retryable_failures(done)):
                self._ask_again([intent.fleet])
        await self._try_elsewhere(done, turn)

    async def _try_elsewhere(self, done: ActionResult, turn: _FleetDecision) -> None:
        """Try what failed elsewhere, until the fleet is decided on again."""
        name, short = done.intent.fleet, retryable_failures(done)
        if not short or turn.attempt >= ROUNDS:
            return
        turn = replace(turn, attempt=turn.attempt + 1)
        # Two calls that fail at the same time must not choose the same VMs.
        async with self._choosing.setdefault(name, asyncio.Lock()):
            now_s = self._clock.now()
            if not self._current(name, turn) or now_s < self._fleets[name].held_until_s:
                return
            fleet, number = self._fleets[name], done.action_id
            intents = fallback_intents(fleet, short, turn.row, turn.tick, turn.attempt, now_s, number)
            if not intents:
                return
            ids = await self._recorder.more(turn.tick, now_s, intents)
            known = self._fleets.get(name) is fleet and all(
                vm_id in fleet.inventory.vms for intent in intents for vm_id in intent.vm_ids
            )
            if not ids or not known or not self._current(name, turn):
                fleet.inventory.places.give_back_all_of(now_s)
                await self._not_sent(ids, intents)
                return
            calls = [self._begin_call(*each, turn) for each in zip(ids, intents, strict=False)]
        if calls:
            await asyncio.wait(calls)

    def _current(self, name: str, turn: _FleetDecision) -> bool:
        return name in self._fleets and self._turns[name] == turn.number

    async def _not_sent(self, action_ids: Sequence[int], intents: Sequence[ActionIntent]) -> None:
        why, now_s = "the fleet got a new decision, policy or list before it was sent", self._clock.now()
        settled = []
        for action_id, intent in zip(action_ids, intents, strict=False):
            ids = intent.vm_ids or ("",)
            outcomes = [Outcome(vm_id, OutcomeKind.THROTTLED, NOT_SENT, why) for vm_id in ids]
            settled.append(Settled(action_id, now_s, outcomes))
        await self._recorder.outcomes(*settled)

    async def _follow_shortages(self, record: TickRecord) -> None:
        notes: list[Note] = []
        for row in record.fleets:
            fleet = self._fleets.get(row.fleet)
            note = None if fleet is None else self.shortages.follow(fleet, row, record.at_s)
            if note is not None:
                notes.append(note)
        if notes:
            await self._recorder.note(notes, record.at_s)

    def _restore_types(self, record: TickRecord) -> None:
        """Begin to change VMs that were started as another type back to their own, for fleets that start nothing."""
        for row in record.fleets:
            fleet = self._fleets.get(row.fleet)
            if fleet is None or not fleet.inventory.types or row.start or row.provision:
                continue
            if record.at_s < fleet.held_until_s:
                continue
            for t in fleet.inventory.to_restore(record.at_s)[:_RESTORED_AT_ONCE]:
                t.restoring = True
                fleet.inventory.touch()
                self._calls.begin(self._restore_type(fleet, t))

    async def _restore_type(self, fleet: Fleet, t: TrackedVm) -> None:
        own, vm_id, settles = own_type(t), t.vm.id, False
        try:
            outcome = await change_type(fleet.provider, vm_id, own, own, self._call_s)
            settles, tried_before = outcome.kind is OutcomeKind.ACCEPTED, t.restore_from_s > -math.inf
            t.restore_from_s = -math.inf if settles else self._clock.now() + _RESTORED_AGAIN_S
            note = Note("type_restored", fleet.name, f"{vm_id} is {own} again")
            if not settles:
                text = f"{vm_id} stays as it is for now: {outcome.message}"
                note = Note("type_not_restored", fleet.name, text)
            self._recorder.note_with_tick([note] if settles or not tried_before else [])
        finally:
            if settles:
                self._restored_later(fleet, t)
            else:
                self._restored(fleet, t)

    def _restored_later(self, fleet: Fleet, t: TrackedVm) -> None:
        """Wait until a listing shows the VM's new type; until then it would look as if it still had to be changed back."""
        until_s = self._clock.monotonic() + fleet.inventory.patience.consistency_s
        wait = asyncio.create_task(self._clock.sleep_until(until_s))
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)
        wait.add_done_callback(lambda _: self._restored(fleet, t))

    @staticmethod
    def _restored(fleet: Fleet, t: TrackedVm) -> None:
        t.restoring = False
        fleet.inventory.touch()

    async def _settle(self, done: ActionResult) -> None:
        self._telemetry.count_outcomes(done.intent, done.outcomes)
        fleet = self._fleets.get(done.intent.fleet)
        notes = [] if fleet is None else self._tell_fleet(fleet, done)
        if fleet is not None and fleet.inventory.places.take_room_again():
            near = (each for each in self._fleets.values() if each.provider is fleet.provider)
            self._ask_again([each.name for each in near if self.shortages.waits(each.name)])
        await self._recorder.outcomes(Settled(done.action_id, done.received_s, done.outcomes, notes))

    def _tell_fleet(self, fleet: Fleet, done: ActionResult) -> list[Note]:
        """Apply the outcomes to the fleet, and return what deserves an event."""
        if done.intent.verb is Verb.PROVISION:
            accepted = [o for o in done.outcomes if o.kind is OutcomeKind.ACCEPTED and o.vm_id]
            fleet.new_vms += len(accepted)
            new = {o.vm_id: new_vm(fleet, o.vm_id, done.received_s) for o in accepted}
            fleet.inventory.provisioned(done.outcomes, new, done.action_id, done.received_s)
            failed = [o for o in done.outcomes if o.kind is not OutcomeKind.ACCEPTED]
            self._learn(fleet, done, made=bool(accepted))
            notes = [Note("provision_failed", fleet.name, f"{o.kind} {o.code}: {o.message}") for o in failed]
            notes += fleet.missed.made(fleet, len(accepted), done.received_s)
            if accepted and fleet.policy.warm_pool.maximum != 0:
                self._telemetry.missed_starts.labels(fleet.name).inc(len(accepted))
        else:
            fleet.hibernation.refused(fleet.inventory, fleet.name, done.plainly, done.received_s)
            fleet.hibernation.stopped(done.outcomes)
            notes = fleet.hibernation.take_news()
            notes += fleet.inventory.settle(done.intent.verb, done.outcomes, done.sent_s, done.received_s)
        starts = done.intent.verb is not Verb.STOP
        if starts:
            self.shortages.answered(fleet.name, done.outcomes, done.received_s)
        if starts and any(o.kind is OutcomeKind.ACCEPTED for o in done.outcomes):
            self._accepted_s[fleet.name] = done.received_s
            if fleet.held_until_s != math.inf:
                # Another call of the same time was denied; this one shows that the denial was not about all starts.
                fleet.held_until_s = -math.inf
        denied = next((o for o in done.outcomes if o.kind is OutcomeKind.DENIED), None)
        if denied is not None:
            if starts and self._accepted_s.get(fleet.name, -math.inf) < done.sent_s:
                # The hold is for starts that all failed: the stops of VMs that may not be stopped, and single denied
                # starts, say nothing about other starts.
                fleet.held_until_s = done.received_s + _DENIED_HOLD_S
            text = f"the provider denies access: {denied.code} {denied.message}; check credentials and permissions"
            self._telemetry.log.error("acting_held", fleet=fleet.name, text=text)
        return notes

    @staticmethod
    def _learn(fleet: Fleet, done: ActionResult, *, made: bool) -> None:
        """Note where new VMs found room, where they did not, and whether their template was refused."""
        places, now_s = fleet.inventory.places, done.received_s
        spec, kinds = done.how.spec, {o.kind for o in done.outcomes}
        if spec is not None and made:
            places.found_room(*spec.place, sum(o.kind is OutcomeKind.ACCEPTED for o in done.outcomes))
        if spec is None:
            pass
        elif OutcomeKind.NO_CAPACITY in kinds:
            # If some were made, these took the room that there was.
            places.found_dry(*spec.place, now_s, blame_for_no_room(done.outcomes))
        elif not made and OutcomeKind.UNKNOWN not in kinds:
            # The answer says nothing about the place, so another fleet may try it.
            places.give_back(*spec.place, done.sent_s, now_s)
        if OutcomeKind.REFUSED in kinds:
            fleet.provision_held_until_s = now_s + _PROVISION_HOLD_S


def own_type(t: TrackedVm) -> str:
    """Return the type to which a VM is changed back."""
    return t.vm.tags.get(TYPE_TAG, t.vm.vm_type)


def new_vm(fleet: Fleet, vm_id: str, now_s: float) -> Vm:
    """Return a VM that was just provisioned, as a listing will show it."""
    p = fleet.policy.provision
    return Vm(vm_id, fleet.name, VmState.PENDING, (p.vm_type if p else None) or "", "", None, now_s, "")
