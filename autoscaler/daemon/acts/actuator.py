"""Turns one recorded intent into provider calls, and gives every VM in it an outcome.

Rules of this file: every call is bounded in time; a call that did not return is UNKNOWN and is not repeated. The provider
accepts or refuses a batch as a whole, so a refused batch is sent again without the refused VMs, or in halves if none was
named; batches that can be sent concurrently are, the largest first. Nothing is retried in place: `ladder` tries elsewhere,
or the next tick decides anew.
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
"""Code of ours: nothing was sent, because the provider could not be reached or an earlier call went wrong."""
NO_ANSWER = "NoAnswer"
"""Code of ours: the provider's answer does not say what became of this VM."""
TIMED_OUT = "TimedOut"
"""Code of ours: the call did not come back in time."""
NO_ROOM_AS_TYPE = "TypeNotChanged"
"""Code of ours: the VM was to be started as another type, and its type could not be changed."""

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]


@dataclass(frozen=True, slots=True)
class How:
    """What an intent does not say and its calls need.

    Attributes:
        spec: Where new VMs come from; needed for a provision.
        start_as: By id, the type of VMs that are to be started as another type than they have, and
        type_of: the type that they have.
        force: Whether a stop is forced.
        hibernate: Ids of VMs that save their memory when they are stopped.
    """

    spec: ProvisionSpec | None = None
    start_as: Mapping[str, str] = field(default_factory=dict)
    type_of: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    hibernate: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """One action as carried out.

    Attributes:
        action_id: Its journal id.
        intent: What was to be done.
        outcomes: One per VM; for a provision, one per VM made or one failure.
        sent_s, received_s: The clock around the calls.
        how: What the calls were made with.
        plainly: What refused VMs to save their memory that were then stopped without.
    """

    action_id: int
    intent: ActionIntent
    outcomes: tuple[Outcome, ...]
    sent_s: float
    received_s: float
    how: How = field(default_factory=How)
    plainly: tuple[Outcome, ...] = ()


async def carry_out(
    provider: Provider,
    clock: Clock,
    action_id: int,
    intent: ActionIntent,
    *,
    how: How,
    timeout_s: float,
) -> Done:
    """Make the calls of one intent.

    Args:
        provider: Where.
        clock: For the times around the calls.
        action_id: Journal id of the intent, which has been made durable.
        intent: What to do.
        how: What its calls are made with.
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
    return Done(action_id, intent, outcomes, sent_s, clock.now(), how, plainly)


async def stop(
    provider: Provider,
    vm_ids: Sequence[str],
    how: How,
    timeout_s: float,
    *,
    waits: Callable[[str], bool] = lambda _: False,
) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """Stop VMs: those of `how.hibernate` with their memory saved, or plainly where that is refused.

    Args:
        provider: Where.
        vm_ids: Which.
        how: How.
        timeout_s: Longest time of one call, in seconds of the event loop.
        waits: Which of those that cannot hibernate yet are not stopped plainly either: they run on.

    Returns:
        The outcome of each VM, and what was refused of saving memories.
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
    """Delete VMs; one that somebody has protected against it keeps no other."""
    return await _in_batches(provider.terminate, vm_ids, timeout_s)


async def _start(
    provider: Provider, vm_ids: Sequence[str], how: How, timeout_s: float
) -> tuple[Outcome, ...]:
    if not how.start_as:
        return await _in_batches(provider.start, vm_ids, timeout_s)
    changed = await asyncio.gather(*(_change_type(provider, i, how, timeout_s) for i in vm_ids))
    found = {o.vm_id: o for o in changed if o.kind is not OutcomeKind.ACCEPTED}
    ready = [vm_id for vm_id in vm_ids if vm_id not in found]
    if ready:
        found |= {o.vm_id: o for o in await _in_batches(provider.start, ready, timeout_s)}
    return tuple(found[vm_id] for vm_id in vm_ids)


async def _change_type(provider: Provider, vm_id: str, how: How, timeout_s: float) -> Outcome:
    """Give a stopped VM the type it is to be started as; its own is written down first."""
    new_type = how.start_as.get(vm_id)
    if new_type is None:
        return Outcome(vm_id, OutcomeKind.ACCEPTED)
    return await change_type(provider, vm_id, how.type_of[vm_id], new_type, timeout_s)


async def change_type(
    provider: Provider, vm_id: str, own_type: str, new_type: str, timeout_s: float
) -> Outcome:
    """Write down a stopped VM's own type, then give it another.

    Where the change is not done for certain the outcome says that the type was not changed: a VM may then have
    the other type, which the tag tells, and nothing was started.
    """
    tags = {TYPE_TAG: own_type}
    for call in (lambda ids: provider.tag(ids, tags), lambda ids: provider.retype(ids, new_type)):
        outcome = (await _bounded(call, (vm_id,), timeout_s))[0]
        if outcome.kind is not OutcomeKind.ACCEPTED:
            kind = OutcomeKind.REFUSED if outcome.kind is OutcomeKind.REFUSED else OutcomeKind.THROTTLED
            why = f"{new_type}: {outcome.code} {outcome.message}".rstrip()
            return Outcome(vm_id, kind, NO_ROOM_AS_TYPE, why)
    return Outcome(vm_id, OutcomeKind.ACCEPTED)


async def _in_batches(call: Call, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    """The outcome of each VM, in order; refused batches are taken apart until each VM has its own."""
    found: dict[str, Outcome] = {}
    waiting: list[tuple[Sequence[str], bool]] = [(vm_ids, True)]
    denied = 0
    while waiting:
        sent = sorted(waiting, key=lambda batch: -len(batch[0]))
        if len(sent) == 1:
            # In the caller's own step, so that starts are sent before what was planned after them.
            answers = [await _bounded(call, sent[0][0], timeout_s)]
        else:
            answers = await asyncio.gather(*(_bounded(call, ids, timeout_s) for ids, _ in sent))
        waiting, last = [], None
        for (ids, may_split), answer in zip(sent, answers, strict=True):
            outcomes = {o.vm_id: o for o in answer}
            again, unsent = _taken_apart(ids, outcomes, may_split=may_split)
            # What is sent again has another answer then.
            found |= outcomes
            waiting += again
            denied += sum(o.kind is OutcomeKind.DENIED for o in outcomes.values())
            # Where we are denied some of a batch it may be about these, until there are too many of them.
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
    """What of a batch is to be sent again, in which batches; and the VMs that the budget left no room for."""
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
        # Part of a batch may fit where the whole does not; once, since more calls eat the API budget.
        again += [(sent[:half], False), (sent[half:], False)]
    return again, frozenset(unsent)


_DENIED_EACH = 3
"""VMs of one action that we may be denied one by one; after that it is not about them."""
_ENOUGH = frozenset({OutcomeKind.THROTTLED, OutcomeKind.DENIED, OutcomeKind.UNKNOWN})
"""After one of these, further calls of the same action would meet the same, and each may take its whole time."""


def _not_sent(vm_ids: Iterable[str], last: Outcome) -> dict[str, Outcome]:
    why = f"not tried after {last.kind} {last.code}".rstrip()
    return {vm_id: Outcome(vm_id, OutcomeKind.THROTTLED, NOT_SENT, why) for vm_id in vm_ids}


async def _bounded(call: Call, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    try:
        outcomes = tuple(await within(lambda: call(vm_ids), timeout_s))
        told = {o.vm_id for o in outcomes}
    except TimeoutError:
        kind, code, why = OutcomeKind.UNKNOWN, TIMED_OUT, f"no answer within {timeout_s:g} s"
    except ProviderError as error:
        kind, code, why = OutcomeKind.THROTTLED, error.code or NOT_SENT, str(error)
    except Exception as error:  # noqa: BLE001  an adapter's bug must not lose the other actions' outcomes
        kind, code = OutcomeKind.UNKNOWN, NO_ANSWER
        why = f"unexpected {type(error).__name__}: {error}; please report"
    else:
        silent = (i for i in vm_ids if i not in told and (i or not outcomes))
        return outcomes + tuple(
            Outcome(i, OutcomeKind.UNKNOWN, NO_ANSWER, "not in the answer") for i in silent
        )
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
