"""Chores: everything done to VMs besides starts and stops for demand, through balancer and provider.

These are draining and taking back (`drain`), making VMs for the warm pool (`refill`), exercising stopped ones (`exercise`),
and deleting old ones (`freshness`). As with demand, nothing is done that the journal has not recorded.

Rules of this file: chores that give capacity back begin before starts, which do not wait for them; all others begin after stops.
Calls are bounded; those that outlast the tick are settled when they return. An answer that is not understood is settled by a listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from autoscaler.daemon.acts.actuator import (
    CallParameters,
    delete,
    outcomes_of,
    stop,
)
from autoscaler.daemon.acts.calls import Calls, may_delay_tick
from autoscaler.daemon.acts.drain import NOT_CORDONED
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.pool_tags import (
    EXERCISED_AT_TAG,
    MADE_AT_TAG,
    POOL_TAG,
    PREPARING,
    READY,
    SPEC_TAG,
    SUBNET_TAG,
    is_kept,
    is_preparing,
)
from autoscaler.daemon.vms.quarantine import blame_for_no_room
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, Order, Phase, TrackedVm
from autoscaler.daemon.warm.exercise_hooks import PreparingVm
from autoscaler.daemon.warm.refill import hold_s
from autoscaler.daemon.warm.warm_pool import Expected, WarmPool
from autoscaler.errors import InvariantError
from autoscaler.ports import (
    NOT_YET,
    ActionIntent,
    Clock,
    Deferring,
    Note,
    Outcome,
    OutcomeKind,
    Provider,
    ProvisionSpec,
    Settled,
    Verb,
    Vm,
    VmState,
)

FIRST = (Verb.RETURN,)
"""Chores that give capacity back at once."""
LAST = (Verb.DRAIN, Verb.STORE, Verb.EXERCISE, Verb.REFILL, Verb.TERMINATE)
"""Chores that can wait for starts and stops."""
NOT_MARKED = "NotMarked"
"""Our own code: the tag that marks a VM as ready could not be written."""

Outcomes: TypeAlias = tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ChoreResult:
    """One chore as it was carried out; fields as in `actuator.ActionResult`."""

    action_id: int
    intent: ActionIntent
    outcomes: Outcomes
    sent_s: float
    received_s: float


class ChoreExecutor:
    """Carries out chores, and handles their outcomes.

    Args:
        clock: The source of time.
        recorder: The journal.
        telemetry: Metrics and log.
        call_s: Longest time of one call, in seconds of the event loop.
    """

    def __init__(self, clock: Clock, recorder: Recorder, telemetry: Telemetry, call_s: float) -> None:
        self._clock = clock
        self._recorder = recorder
        self._telemetry = telemetry
        self._call_s = call_s
        self._calls = Calls(telemetry, call_s)

    def begin(
        self,
        fleets: Mapping[str, Fleet],
        warm_pools: Mapping[str, WarmPool],
        intents: Sequence[ActionIntent],
        action_ids: Sequence[int],
        verbs: Sequence[Verb],
    ) -> set[asyncio.Task[None]]:
        """Begin the intents of a tick that have one of these verbs, and return the calls that the tick may wait for.

        Args:
            fleets: The fleets by name.
            warm_pools: The warm pool of each fleet.
            intents: What to do; already durable.
            action_ids: Their journal ids, in the same order.
            verbs: Which intents to carry out.
        """
        calls = set()
        for number, intent in zip(action_ids, intents, strict=True):
            if intent.verb not in verbs:
                continue
            fleet, pool = fleets[intent.fleet], warm_pools[intent.fleet]
            _sent(fleet, pool, intent, number, self._clock.now())
            call = self._calls.begin(self._carry_out(fleet, pool, number, intent))
            if not may_delay_tick(fleet):
                calls.add(call)
        return calls

    async def wait(self) -> None:
        """Wait for the calls in flight, no longer than one call may take."""
        await self._calls.wait()

    async def finish(self) -> None:
        """Wait for the calls in flight, then cancel the rest; the next run settles what is still open."""
        await self._calls.finish()

    async def _carry_out(self, fleet: Fleet, pool: WarmPool, action_id: int, intent: ActionIntent) -> None:
        sent_s = self._clock.now()
        outcomes = await _done(fleet, pool, intent, self._clock, self._call_s)
        done = ChoreResult(action_id, intent, outcomes, sent_s, self._clock.now())
        self._telemetry.count_outcomes(intent, outcomes)
        notes = _settled(fleet, pool, done)
        await self._recorder.outcomes(Settled(action_id, done.received_s, outcomes, notes))


def _sent(fleet: Fleet, pool: WarmPool, intent: ActionIntent, action_id: int, now_s: float) -> None:
    """Count an intent from now on."""
    inventory, ids = fleet.inventory, intent.vm_ids
    match intent.verb:
        case Verb.DRAIN | Verb.RETURN if fleet.drains is not None:
            fleet.drains.sent(inventory, intent, now_s)
        case Verb.REFILL:
            until_s = now_s + inventory.patience.start_s
            pool.expected[action_id] = Expected(intent.count, until_s, intent.token)
        case Verb.EXERCISE:
            inventory.sent(Verb.START, ids, intent.count, action_id, now_s)
            for vm_id in ids:
                t = inventory.vms[vm_id]
                t.move(Phase.PREPARING, now_s)
                pool.preparing[vm_id] = PreparingVm(now_s, trying=True, guarded=is_kept(t.vm))
        case Verb.STORE:
            stored = [inventory.vms[vm_id] for vm_id in ids]
            saving = fleet.hibernation.of_stored(inventory, stored, now_s)
            inventory.sent(Verb.STOP, ids, intent.count, action_id, now_s)
            for t in stored:
                t.saves_memory = t.vm.id in saving
        case Verb.TERMINATE:
            pool.begin_deleting(inventory, ids, now_s)
        case _:
            raise InvariantError(f"{intent.verb} is no chore of {fleet.name}")


async def _done(
    fleet: Fleet, pool: WarmPool, intent: ActionIntent, clock: Clock, timeout_s: float
) -> Outcomes:
    """Make the calls of an intent, and return one outcome per VM."""
    provider, ids = fleet.provider, intent.vm_ids
    if isinstance(provider, Deferring) and intent.verb in (Verb.REFILL, Verb.EXERCISE):
        provider = provider.for_refills()
    match intent.verb:
        case Verb.DRAIN | Verb.RETURN if fleet.drains is not None:
            return await fleet.drains.carry_out(fleet.inventory, intent, clock.now(), timeout_s)
        case Verb.REFILL:
            spec = _marked(fleet, pool, intent, clock.now())
            return await outcomes_of(
                lambda: provider.provision(spec, intent.count, intent.token), ("",), timeout_s
            )
        case Verb.EXERCISE:
            return await _tried(fleet, provider, ids, timeout_s)
        case Verb.STORE:
            tags = {POOL_TAG: READY, EXERCISED_AT_TAG: f"{clock.now():.0f}"}
            marked = await outcomes_of(lambda: provider.tag(ids, tags), ids, timeout_s)
            # A VM without the mark must not be taken for a member of the pool: it runs on, and this is tried again.
            bad = {
                o.vm_id: o for o in marked if o.kind is not OutcomeKind.ACCEPTED and _is_new(fleet, o.vm_id)
            }
            done = await _stored(fleet, [i for i in ids if i not in bad], clock, timeout_s)
            refused = [replace(o, kind=OutcomeKind.REFUSED, code=o.code or NOT_MARKED) for o in bad.values()]
            return (*done, *refused)
        case _:
            return await delete(provider, ids, timeout_s)


async def _tried(fleet: Fleet, provider: Provider, ids: Sequence[str], timeout_s: float) -> Outcomes:
    """Start VMs for a trial; a VM to which the balancer would give work meanwhile is not started."""
    vms = [fleet.inventory.vms[i].vm for i in ids if i in fleet.inventory.vms]
    serving = (
        frozenset[str]() if fleet.drains is None else await fleet.drains.cordon_for_trial(vms, timeout_s)
    )
    why = "the balancer would send it work during the exercise, or cannot tell"
    refused = [Outcome(i, OutcomeKind.THROTTLED, NOT_CORDONED, why) for i in ids if i in serving]
    rest = [i for i in ids if i not in serving]
    started = await outcomes_of(lambda: provider.start(rest), rest, timeout_s) if rest else ()
    return (*started, *refused)


def _is_new(fleet: Fleet, vm_id: str) -> bool:
    """Return whether the VM is a new one, which only the tag makes a member; an exercised VM is one already."""
    t = fleet.inventory.vms.get(vm_id)
    return t is None or is_preparing(t.vm)


async def _stored(fleet: Fleet, ids: Sequence[str], clock: Clock, timeout_s: float) -> Outcomes:
    """Stop VMs into the pool; a VM that will be able to hibernate soon runs on until then."""
    vms, hibernation = fleet.inventory.vms, fleet.hibernation
    how = CallParameters(hibernate=frozenset(i for i in ids if i in vms and vms[i].saves_memory))

    def waits(vm_id: str) -> bool:
        return hibernation.is_waited_for(vm_id, clock.now())

    outcomes, refusals = await stop(fleet.provider, ids, how, timeout_s, waits=waits)
    hibernation.refused(fleet.inventory, fleet.name, refusals, clock.now())
    hibernation.stopped(outcomes)
    return outcomes


def _marked(fleet: Fleet, pool: WarmPool, intent: ActionIntent, now_s: float) -> ProvisionSpec:
    """Return what the VMs of a refill are made from, with the tags that identify them."""
    spec = pool.specs_by_token.get(intent.token) or fleet.spec
    if spec is None:
        raise InvariantError(f"{fleet.name} has no launch template")
    tags = {**spec.tags, MADE_BY_TAG: intent.token, POOL_TAG: PREPARING, MADE_AT_TAG: f"{now_s:.0f}"}
    if spec.subnet:
        tags[SUBNET_TAG] = spec.subnet
    if pool.template.current is not None:
        tags[SPEC_TAG] = pool.template.current.digest
    return replace(spec, tags=tags)


def _settled(fleet: Fleet, pool: WarmPool, done: ChoreResult) -> list[Note]:
    """Apply the outcomes of a chore, and return what deserves an event."""
    inventory, intent, outcomes = fleet.inventory, done.intent, done.outcomes
    sent_s, now_s = done.sent_s, done.received_s
    match intent.verb:
        case Verb.DRAIN | Verb.RETURN if fleet.drains is not None:
            return fleet.drains.settle(inventory, intent, outcomes, now_s)
        case Verb.REFILL:
            return _refilled(fleet, pool, done)
        case Verb.EXERCISE:
            if not all(outcome.kind.perhaps_done for outcome in outcomes):
                pool.trials.refused(now_s)
            return inventory.settle(Verb.START, outcomes, sent_s, now_s)
        case Verb.STORE:
            waiting = [outcome for outcome in outcomes if outcome.code == NOT_YET]
            inventory.settle(Verb.STOP, waiting, sent_s, now_s)
            told = [outcome for outcome in outcomes if outcome.code != NOT_YET]
            notes = fleet.hibernation.take_news() + inventory.settle(Verb.STOP, told, sent_s, now_s)
            for vm_id in intent.vm_ids:
                t = inventory.vms.get(vm_id)
                if t is not None and t.phase in (Phase.RUNNING, Phase.IN_SERVICE):
                    pool.try_again(inventory, t, now_s, refused=any(o.vm_id == vm_id for o in told))
            return notes
        case _:
            return pool.deleted(fleet, outcomes, now_s)


def _refilled(fleet: Fleet, pool: WarmPool, done: ChoreResult) -> list[Note]:
    inventory, intent, now_s = fleet.inventory, done.intent, done.received_s
    spec = pool.specs_by_token.get(intent.token) or fleet.spec
    accepted = [o.vm_id for o in done.outcomes if o.kind is OutcomeKind.ACCEPTED and o.vm_id]
    failed = [o for o in done.outcomes if o.kind is not OutcomeKind.ACCEPTED]
    fleet.new_vms += len(accepted)
    for vm_id in accepted:
        t = TrackedVm(_new_vm(fleet, spec, vm_id, now_s), Phase.PREPARING, now_s, new=True)
        t.order = Order(Verb.PROVISION, now_s, done.action_id, answered_at_s=now_s)
        if vm_id not in inventory.vms:
            inventory.await_vm(t)
    if accepted and spec is not None:
        inventory.places.found_room(*spec.place)
    if any(o.kind is OutcomeKind.UNKNOWN for o in failed):
        # A listing shows by their token which of them exist.
        return []
    pool.expected.pop(done.action_id, None)
    pool.specs_by_token.pop(intent.token, None)
    if not failed:
        return []
    if spec is not None and any(o.kind is OutcomeKind.NO_CAPACITY for o in failed):
        inventory.places.found_dry(*spec.place, now_s, blame_for_no_room(failed))
    elif spec is not None:
        # The answer says nothing about the place, so another fleet may try it.
        inventory.places.give_back(*spec.place, done.sent_s, now_s)
    first = failed[0]
    if accepted:
        later = "the others are made elsewhere, or once the place is tried again"
    else:
        pool.failures += 1
        pool.held_until_s = now_s + hold_s(pool.failures)
        later = f"next try in {hold_s(pool.failures):.0f} s or elsewhere"
    return [Note("refill_failed", fleet.name, f"{first.kind} {first.code}: {first.message}; {later}")]


def _new_vm(fleet: Fleet, spec: ProvisionSpec | None, vm_id: str, now_s: float) -> Vm:
    """Return a VM that was just made, as a listing will show it."""
    vm_type = (spec.vm_type if spec else None) or ""
    return Vm(vm_id, fleet.name, VmState.PENDING, vm_type, "", None, now_s, "", {POOL_TAG: PREPARING})
