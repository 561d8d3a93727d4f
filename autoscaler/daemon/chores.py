"""Chores: what is done for VMs beside starting and stopping them for demand, through balancer and provider.

Draining and taking back (`drain`), making VMs for the warm pool (`refill`), trying stopped ones (`exercise`), deleting
old ones (`freshness`). As with demand, nothing is done that the journal has not recorded.

Rules of this file: what gives capacity back comes before starts, everything else after stops. Calls are bounded; what
takes longer than the tick waits is settled when it comes back. An answer that is not understood is settled by a
listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import ActionIntent, Clock, Note, Outcome, Verb

FIRST = (Verb.RETURN,)
"""What gives capacity back at once."""
LAST = (Verb.DRAIN,)
"""What may wait for starts and stops."""


@dataclass(frozen=True, slots=True)
class ChoreWaits:
    """How long chores may take, in seconds of the event loop.

    Attributes:
        call_s: Longest wait for one call.
        tick_s: Longest time that a tick waits for its calls.
    """

    call_s: float
    tick_s: float


class Chores:
    """The chores under way.

    Args:
        clock: Time.
        recorder: The journal.
        telemetry: Metrics and log.
        waits: How long calls may take.
    """

    def __init__(self, clock: Clock, recorder: Recorder, telemetry: Telemetry, waits: ChoreWaits) -> None:
        self._clock = clock
        self._recorder = recorder
        self._telemetry = telemetry
        self._waits = waits
        self._calls: set[asyncio.Task[None]] = set()

    async def act(
        self,
        fleets: Mapping[str, Fleet],
        intents: Sequence[ActionIntent],
        action_ids: Sequence[int],
        verbs: Sequence[Verb],
    ) -> None:
        """Carry out those of a tick's intents that have one of these verbs, and wait for them for a while.

        Args:
            fleets: By name.
            intents: What to do, made durable.
            action_ids: Their journal ids, in order.
            verbs: Which of them.
        """
        calls = set()
        for number, intent in zip(action_ids, intents, strict=True):
            if intent.verb not in verbs:
                continue
            fleet = fleets[intent.fleet]
            _sent(fleet, intent, number, self._clock.now())
            call = asyncio.create_task(self._carry_out(fleet, number, intent))
            call.add_done_callback(self._ended)
            calls.add(call)
        self._calls |= calls
        if calls:
            await asyncio.wait(calls, timeout=self._waits.tick_s)

    async def finish(self) -> None:
        """Wait for what is under way; what is open after that is settled by the next run."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._waits.call_s)
        for call in self._calls:
            call.cancel()

    async def _carry_out(self, fleet: Fleet, action_id: int, intent: ActionIntent) -> None:
        outcomes = await _done(fleet, intent, self._waits.call_s)
        now_s = self._clock.now()
        self._telemetry.count_outcomes(intent, outcomes)
        notes = _settled(fleet, intent, action_id, outcomes, now_s)
        await self._recorder.note(notes, now_s)
        await self._recorder.outcomes(action_id, now_s, outcomes)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            text = f"{type(error).__name__}: {error}; a listing will tell what became of it, please report"
            self._telemetry.log.error("act_failed", text=text)


def _sent(fleet: Fleet, intent: ActionIntent, action_id: int, now_s: float) -> None:
    """The intent counts from now on."""
    del action_id
    if fleet.drains is not None and intent.verb in (Verb.DRAIN, Verb.RETURN):
        fleet.drains.sent(fleet.inventory, intent, now_s)


async def _done(fleet: Fleet, intent: ActionIntent, timeout_s: float) -> tuple[Outcome, ...]:
    """One outcome per VM."""
    if fleet.drains is not None and intent.verb in (Verb.DRAIN, Verb.RETURN):
        return await fleet.drains.carry_out(fleet.inventory, intent, timeout_s)
    raise NotImplementedError


def _settled(
    fleet: Fleet, intent: ActionIntent, action_id: int, outcomes: Sequence[Outcome], now_s: float
) -> list[Note]:
    del action_id
    if fleet.drains is not None and intent.verb in (Verb.DRAIN, Verb.RETURN):
        return fleet.drains.settle(fleet.inventory, intent, outcomes, now_s)
    return []
