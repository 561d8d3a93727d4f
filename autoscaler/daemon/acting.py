"""Acting: recorded intents are carried out at the same time, and what came back is told to fleet and journal.

Rules of this file: starts before stops. A slow account does not cost the other fleets their ticks: calls that
take longer than the tick waits are settled when they come back. What the handling of an outcome raises is told,
and a listing will tell what became of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaler.daemon.actuator import Done, carry_out
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import ActionIntent, Clock, Note, OutcomeKind, Verb, Vm, VmState

_DENIED_HOLD_S = 60.0
"""After the provider denied us, the fleet's actions wait this long: repeating does not help, a person does."""
_PROVISION_HOLD_S = 180.0
"""After a provisioning failed for want of room or for its template, the next one waits this long."""


@dataclass(frozen=True, slots=True)
class ActWaits:
    """How long acting may take, in seconds of the event loop.

    Attributes:
        call_s: Longest wait for one provider call.
        tick_s: Longest time that a tick waits for its calls.
    """

    call_s: float
    tick_s: float


class Acting:
    """The calls under way.

    Args:
        clock: Time.
        recorder: The journal.
        telemetry: Metrics and log.
        waits: How long calls may take.
    """

    def __init__(self, clock: Clock, recorder: Recorder, telemetry: Telemetry, waits: ActWaits) -> None:
        self._clock = clock
        self._recorder = recorder
        self._telemetry = telemetry
        self._waits = waits
        self._fleets: Mapping[str, Fleet] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def govern(self, fleets: Mapping[str, Fleet]) -> None:
        """From now on these are the fleets; calls under way for others are still finished and recorded."""
        self._fleets = fleets

    async def act(self, intents: Sequence[ActionIntent], action_ids: Sequence[int]) -> None:
        """Make the calls of a tick's intents, which have been made durable, and wait for them for a while.

        Args:
            intents: What to do, of fleets that are governed.
            action_ids: Their journal ids, in order.
        """
        if not intents:
            return
        numbered = list(zip(action_ids, intents, strict=True))
        for verbs in ((Verb.START, Verb.PROVISION), (Verb.STOP,)):
            now_s = self._clock.now()
            calls = set()
            for number, intent in numbered:
                if intent.verb not in verbs:
                    continue
                inventory = self._fleets[intent.fleet].inventory
                inventory.sent(intent.verb, intent.vm_ids, intent.count, number, now_s, intent.token)
                call = asyncio.create_task(self._carry_out(number, intent))
                call.add_done_callback(self._acted)
                calls.add(call)
            self._calls |= calls
            if calls:
                await asyncio.wait(calls, timeout=self._waits.tick_s)

    async def finish(self) -> None:
        """Wait for the calls under way; what is open after that is settled by the next run."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._waits.call_s)
        for call in self._calls:
            call.cancel()

    async def _carry_out(self, action_id: int, intent: ActionIntent) -> None:
        fleet = self._fleets[intent.fleet]
        done = await carry_out(
            fleet.provider,
            self._clock,
            action_id,
            intent,
            spec=fleet.spec,
            timeout_s=self._waits.call_s,
        )
        await self._settle(done)

    def _acted(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            text = f"{type(error).__name__}: {error}; a listing will tell what became of it, please report"
            self._telemetry.log.error("act_failed", text=text)

    async def _settle(self, done: Done) -> None:
        self._telemetry.acted(done)
        fleet = self._fleets.get(done.intent.fleet)
        if fleet is not None:
            await self._tell_fleet(fleet, done)
        await self._recorder.outcomes(done.action_id, done.received_s, done.outcomes)

    async def _tell_fleet(self, fleet: Fleet, done: Done) -> None:
        if done.intent.verb is Verb.PROVISION:
            accepted = [o for o in done.outcomes if o.kind is OutcomeKind.ACCEPTED and o.vm_id]
            fleet.new_vms += len(accepted)
            new = {o.vm_id: new_vm(fleet, o.vm_id, done.received_s) for o in accepted}
            fleet.inventory.provisioned(done.outcomes, new, done.action_id, done.received_s)
            failed = [o for o in done.outcomes if o.kind is not OutcomeKind.ACCEPTED]
            if any(o.kind in (OutcomeKind.NO_CAPACITY, OutcomeKind.REFUSED) for o in failed):
                fleet.provision_held_until_s = done.received_s + _PROVISION_HOLD_S
            notes = [Note("provision_failed", fleet.name, f"{o.kind} {o.code}: {o.message}") for o in failed]
        else:
            notes = fleet.inventory.settle(done.intent.verb, done.outcomes, done.sent_s, done.received_s)
        denied = next((o for o in done.outcomes if o.kind is OutcomeKind.DENIED), None)
        if denied is not None:
            fleet.held_until_s = done.received_s + _DENIED_HOLD_S
            text = (
                f"the provider denies us: {denied.code} {denied.message}; check credentials and permissions"
            )
            self._telemetry.log.error("acting_held", fleet=fleet.name, text=text)
        await self._recorder.note(notes, done.received_s)


def new_vm(fleet: Fleet, vm_id: str, now_s: float) -> Vm:
    """A VM that was just provisioned, as it will be listed once a listing shows it."""
    p = fleet.policy.provision
    return Vm(vm_id, fleet.name, VmState.PENDING, (p.vm_type if p else None) or "", "", None, now_s, "")
