"""Turns one recorded intent into provider calls, and gives every VM in it an outcome.

Rules of this file: every call is bounded in time; a call that did not return is UNKNOWN and is not repeated. The
provider accepts or refuses a batch as a whole, so a refused batch is sent again without the refused VMs, or in halves
if none was named; batches that can be sent concurrently are, the largest first. Nothing is retried in place: `fallbacks`
tries elsewhere, or the next tick decides again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from autoscaler.daemon.bounded import within
from autoscaler.daemon.vms.hibernation import PLAINLY
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, TYPE_TAG
from autoscaler.errors import ProviderError
from autoscaler.ports import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    NO_HIBERNATION,
    ActionIntent,
    Clock,
    Outcome,
    OutcomeKind,
    Provider,
    ProvisionSpec,
    Verb,
)

NOT_SENT = "NotSent"
"""Our own code: nothing was sent, because the provider could not be reached or an earlier call failed."""
NO_ANSWER = "NoAnswer"
"""Our own code: the provider's answer does not mention this VM."""
TIMED_OUT = "TimedOut"
"""Our own code: the call did not return in time."""
NO_ROOM_AS_TYPE = "TypeNotChanged"
"""Our own code: the VM was to be started as another type, and its type could not be changed."""

WAVE_S = 2.0
"""How often VMs whose type has been changed are started while others are still being changed, in seconds of the event loop. EC2
changes one VM per call, fifty at once and five a second: the last of 180 VMs after 26 s, for which the first need not wait."""

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]


@dataclass(frozen=True, slots=True)
class CallParameters:
    """Parameters of calls that the intent does not contain.

    Attributes:
        spec: What new VMs are made from; required to provision.
        start_as: By id, the type of each VM that is started as another type than it has.
        type_of: By id, the own type of these VMs, to which they are changed back later.
        force: Whether a stop is forced.
        hibernate: Ids of VMs that save their memory when they are stopped.
    """

    spec: ProvisionSpec | None = None
    start_as: Mapping[str, str] = field(default_factory=dict)
    type_of: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    hibernate: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ActionResult:
    """One action as it was carried out.

    Attributes:
        action_id: Its journal id.
        intent: What was to be done.
        outcomes: One per VM; for a provision, one per VM made, or one failure.
        sent_s: The clock before the calls.
        received_s: The clock after the calls.
        how: What the calls were made with.
        plainly: The refusals to save the memory of VMs that were then stopped without.
    """

    action_id: int
    intent: ActionIntent
    outcomes: tuple[Outcome, ...]
    sent_s: float
    received_s: float
    how: CallParameters = field(default_factory=CallParameters)
    plainly: tuple[Outcome, ...] = ()


async def carry_out(
    provider: Provider,
    clock: Clock,
    action_id: int,
    intent: ActionIntent,
    *,
    how: CallParameters,
    timeout_s: float,
) -> ActionResult:
    """Make the calls of one intent.

    Args:
        provider: The provider to call.
        clock: Gives the times before and after the calls.
        action_id: Journal id of the intent, which is already durable.
        intent: What to do.
        how: Further parameters of the calls.
        timeout_s: Longest time of one call, in seconds of the event loop.
    """
    sent_s = clock.now()
    plainly: tuple[Outcome, ...] = ()
    if intent.verb is Verb.START:
        outcomes = await _start(provider, intent.vm_ids, how, timeout_s)
    elif intent.verb is Verb.STOP:
        outcomes, plainly = await stop(provider, intent.vm_ids, how, timeout_s)
    else:
        outcomes = await _provision(provider, intent, how.spec, timeout_s)
    return ActionResult(action_id, intent, outcomes, sent_s, clock.now(), how, plainly)


async def stop(
    provider: Provider,
    vm_ids: Sequence[str],
    how: CallParameters,
    timeout_s: float,
    *,
    waits: Callable[[str], bool] = lambda _: False,
) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """Stop VMs: those in `how.hibernate` with their memory saved, or plainly if that is refused.

    Args:
        provider: The provider to call.
        vm_ids: The VMs.
        how: Which VMs save their memory, and whether the stop is forced.
        timeout_s: Longest time of one call, in seconds of the event loop.
        waits: Returns whether a VM that cannot hibernate yet keeps running instead of being stopped plainly.

    Returns:
        The outcome of each VM, and the refusals to save a memory.
    """
    saving = [vm_id for vm_id in vm_ids if vm_id in how.hibernate]
    found: dict[str, Outcome] = {}
    if saving:
        call: Call = partial(provider.stop, hibernate=True)
        found = {o.vm_id: o for o in await _in_batches(call, saving, timeout_s)}
    refused = [o for o in found.values() if o.kind is OutcomeKind.REFUSED and o.code in PLAINLY]
    for outcome in refused:
        if outcome.code == NO_HIBERNATION or not waits(outcome.vm_id):
            del found[outcome.vm_id]
    plain = [vm_id for vm_id in vm_ids if vm_id not in found]
    if plain:
        call = partial(provider.stop, force=True) if how.force else provider.stop
        found |= {o.vm_id: o for o in await _in_batches(call, plain, timeout_s)}
    return tuple(found[vm_id] for vm_id in vm_ids), tuple(refused)


async def delete(provider: Provider, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    """Delete VMs; a VM that is protected against deletion does not keep the others from being deleted."""
    return await _in_batches(provider.terminate, vm_ids, timeout_s)


async def _start(
    provider: Provider, vm_ids: Sequence[str], how: CallParameters, timeout_s: float
) -> tuple[Outcome, ...]:
    """Start VMs, in waves if some must be given another type first."""
    if not how.start_as:
        return await _in_batches(provider.start, vm_ids, timeout_s)
    tagged = await _tag_with_types(provider, vm_ids, how, timeout_s)
    found = {o.vm_id: o for o in tagged if o.kind is not OutcomeKind.ACCEPTED}
    ready = [vm_id for vm_id in vm_ids if vm_id not in how.start_as]
    starts: list[asyncio.Task[tuple[Outcome, ...]]] = []
    async with asyncio.TaskGroup() as tasks:
        changing = {
            tasks.create_task(_retype(provider, o.vm_id, how.start_as[o.vm_id], timeout_s))
            for o in tagged
            if o.vm_id not in found
        }
        while changing or ready:
            done: set[asyncio.Task[Outcome]] = set()
            if changing:
                done, changing = await asyncio.wait(changing, timeout=WAVE_S)
            changed = {o.vm_id: o for o in (task.result() for task in done)}
            ready += [vm_id for vm_id, o in changed.items() if o.kind is OutcomeKind.ACCEPTED]
            found |= {vm_id: o for vm_id, o in changed.items() if o.kind is not OutcomeKind.ACCEPTED}
            if ready:
                wave = [vm_id for vm_id in vm_ids if vm_id in set(ready)]
                starts.append(tasks.create_task(_in_batches(provider.start, wave, timeout_s)))
                ready = []
    found |= {o.vm_id: o for start in starts for o in start.result()}
    return tuple(found[vm_id] for vm_id in vm_ids)


async def _tag_with_types(
    provider: Provider, vm_ids: Sequence[str], how: CallParameters, timeout_s: float
) -> list[Outcome]:
    """Save the own types of the VMs that are started as another type in a tag, with one call for each type."""
    of_type: dict[str, list[str]] = {}
    for vm_id in vm_ids:
        if vm_id in how.start_as:
            of_type.setdefault(how.type_of[vm_id], []).append(vm_id)
    calls = (
        _in_batches(partial(provider.tag, tags={TYPE_TAG: own}), ids, timeout_s)
        for own, ids in of_type.items()
    )
    return [
        outcome
        if outcome.kind is OutcomeKind.ACCEPTED
        else _not_changed(outcome, how.start_as[outcome.vm_id])
        for outcomes in await asyncio.gather(*calls)
        for outcome in outcomes
    ]


async def _retype(provider: Provider, vm_id: str, new_type: str, timeout_s: float) -> Outcome:
    outcome = (await _bounded(lambda ids: provider.retype(ids, new_type), (vm_id,), timeout_s))[0]
    return outcome if outcome.kind is OutcomeKind.ACCEPTED else _not_changed(outcome, new_type)


def _not_changed(outcome: Outcome, new_type: str) -> Outcome:
    """The outcome for a VM that was not started, because it is not certain that it has the new type."""
    kind = OutcomeKind.REFUSED if outcome.kind is OutcomeKind.REFUSED else OutcomeKind.THROTTLED
    code = BUDGET_SPENT if outcome.code == BUDGET_SPENT else NO_ROOM_AS_TYPE
    return Outcome(outcome.vm_id, kind, code, f"{new_type}: {outcome.code} {outcome.message}".rstrip())


async def change_type(
    provider: Provider, vm_id: str, own_type: str, new_type: str, timeout_s: float
) -> Outcome:
    """Save a stopped VM's own type in a tag, then give it another type.

    Unless the change is certain, the outcome says that the type was not changed. The VM may then have the new type,
    which the tag reveals, but was not started.
    """
    tagged = (await _bounded(lambda ids: provider.tag(ids, {TYPE_TAG: own_type}), (vm_id,), timeout_s))[0]
    if tagged.kind is not OutcomeKind.ACCEPTED:
        return _not_changed(tagged, new_type)
    return await _retype(provider, vm_id, new_type, timeout_s)


async def _in_batches(call: Call, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    """Return the outcome of each VM, in order; refused batches are split until each VM has an outcome of its own."""
    found: dict[str, Outcome] = {}
    waiting: list[tuple[Sequence[str], bool]] = [(vm_ids, True)]
    denied = 0
    while waiting:
        sent = sorted(waiting, key=lambda batch: -len(batch[0]))
        if len(sent) == 1:
            # Called directly, not in a task, so that starts are sent before anything that was planned after them.
            answers = [await _bounded(call, sent[0][0], timeout_s)]
        else:
            answers = await asyncio.gather(*(_bounded(call, ids, timeout_s) for ids, _ in sent))
        waiting, last = [], None
        for (ids, may_split), answer in zip(sent, answers, strict=True):
            outcomes = {o.vm_id: o for o in answer}
            again, unsent = _taken_apart(ids, outcomes, may_split=may_split)
            # VMs that are sent again get another outcome in a later round.
            found |= outcomes
            waiting += again
            denied += sum(o.kind is OutcomeKind.DENIED for o in outcomes.values())
            # If some VMs of a batch are denied, the denial may be about them alone, unless there are too many of
            # them.
            of_some = denied <= _DENIED_EACH and any(o.code == BATCH_REFUSED for o in outcomes.values())
            last = last or next(
                (o for i, o in outcomes.items() if not of_some and i not in unsent and o.kind in _ENOUGH),
                None,
            )
        if last is not None:
            found |= _not_sent((i for rest, _ in waiting for i in rest), last)
            break
    return tuple(found[i] for i in vm_ids)


def _taken_apart(
    ids: Sequence[str], outcomes: Mapping[str, Outcome], *, may_split: bool
) -> tuple[list[tuple[Sequence[str], bool]], frozenset[str]]:
    """Return which batches to send again, and the VMs for which the API budget had no room."""
    unsent = [i for i in ids if outcomes[i].code == BUDGET_SPENT]
    sent = [i for i in ids if outcomes[i].code != BUDGET_SPENT]
    if not sent:
        return [], frozenset()
    again: list[tuple[Sequence[str], bool]] = [(unsent, may_split)] if unsent else []
    spared = [i for i in sent if outcomes[i].code == BATCH_REFUSED]
    kinds = {outcomes[i].kind for i in sent}
    half = len(sent) // 2
    if spared and len(spared) < len(sent):
        again.append((spared, may_split))
    elif half and kinds == {OutcomeKind.REFUSED}:
        again += [(sent[:half], may_split), (sent[half:], may_split)]
    elif half and kinds == {OutcomeKind.NO_CAPACITY} and may_split:
        # A part of a batch may fit if the whole does not. Split only once, because more calls use up the API budget.
        again += [(sent[:half], False), (sent[half:], False)]
    return again, frozenset(unsent)


_DENIED_EACH = 3
"""Most VMs of one action that may be denied individually; with more, the denial is not about single VMs."""
_ENOUGH = frozenset({OutcomeKind.THROTTLED, OutcomeKind.DENIED, OutcomeKind.UNKNOWN})
"""Kinds of outcome after which further calls of the same action would fare the same, each perhaps with its full time
limit.
"""


def _not_sent(vm_ids: Iterable[str], last: Outcome) -> dict[str, Outcome]:
    why = f"not tried after {last.kind} {last.code}".rstrip()
    return {vm_id: Outcome(vm_id, OutcomeKind.THROTTLED, NOT_SENT, why) for vm_id in vm_ids}


async def _bounded(call: Call, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    async def complete() -> tuple[Outcome, ...]:
        outcomes = tuple(await call(vm_ids))
        told = {o.vm_id for o in outcomes}
        silent = (i for i in vm_ids if i not in told and (i or not outcomes))
        return outcomes + tuple(
            Outcome(i, OutcomeKind.UNKNOWN, NO_ANSWER, "not in the answer") for i in silent
        )

    return await outcomes_of(complete, vm_ids, timeout_s)


async def outcomes_of(
    call: Callable[[], Awaitable[Sequence[Outcome]]], vm_ids: Sequence[str], timeout_s: float
) -> tuple[Outcome, ...]:
    """Return the outcomes of one call to a provider; a failure of any kind is an outcome of each of these VMs.

    Args:
        call: Makes the call.
        vm_ids: Ids of the VMs that it is about; `("",)` for VMs that do not exist yet.
        timeout_s: Longest time to wait, in seconds of the event loop.
    """
    try:
        return tuple(await within(call, timeout_s))
    except TimeoutError:
        kind, code, why = OutcomeKind.UNKNOWN, TIMED_OUT, f"no answer within {timeout_s:g} s"
    except ProviderError as error:
        kind, code, why = OutcomeKind.THROTTLED, error.code or NOT_SENT, str(error)
    except Exception as error:  # noqa: BLE001  an adapter's bug must not lose the other actions' outcomes
        kind, code = OutcomeKind.UNKNOWN, NO_ANSWER
        why = f"unexpected {type(error).__name__}: {error}; please report"
    return tuple(Outcome(vm_id, kind, code, why) for vm_id in vm_ids)


async def _provision(
    provider: Provider, intent: ActionIntent, spec: ProvisionSpec | None, timeout_s: float
) -> tuple[Outcome, ...]:
    if spec is None:
        return (Outcome("", OutcomeKind.REFUSED, "NoTemplate", "the policy names no launch template"),)

    tagged = replace(spec, tags={**spec.tags, MADE_BY_TAG: intent.token})

    async def call(_: Sequence[str]) -> tuple[Outcome, ...]:
        return await provider.provision(tagged, intent.count, intent.token)

    return await _bounded(call, ("",), timeout_s)
