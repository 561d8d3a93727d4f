"""Acting: one recorded intent becomes provider calls, and every VM of it gets an outcome.

Rules of this file: every call is bounded in time; a call that did not come back is UNKNOWN and is not made
again. Batches are all or nothing at the provider, so a refused batch is sent again without the refused VMs,
or in halves where none was named. Nothing here retries in place: what failed is decided anew next tick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from autoscaler.daemon.bounded import within
from autoscaler.daemon.tracked import MADE_BY_TAG
from autoscaler.errors import ProviderError
from autoscaler.ports import (
    BATCH_REFUSED,
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

Call = Callable[[Sequence[str]], Awaitable[tuple[Outcome, ...]]]


@dataclass(frozen=True, slots=True)
class Done:
    """One action as carried out.

    Attributes:
        action_id: Its journal id.
        intent: What was to be done.
        outcomes: One per VM; for a provision, one per VM made or one failure.
        sent_s, received_s: The clock around the calls.
    """

    action_id: int
    intent: ActionIntent
    outcomes: tuple[Outcome, ...]
    sent_s: float
    received_s: float


async def carry_out(
    provider: Provider,
    clock: Clock,
    action_id: int,
    intent: ActionIntent,
    *,
    spec: ProvisionSpec | None,
    timeout_s: float,
) -> Done:
    """Make the calls of one intent.

    Args:
        provider: Where.
        clock: For the times around the calls.
        action_id: Journal id of the intent, which has been made durable.
        intent: What to do.
        spec: Where new VMs come from; needed for a provision.
        timeout_s: Longest time of one call, in seconds of the event loop.
    """
    sent_s = clock.now()
    if intent.verb is Verb.START:
        outcomes = await _in_batches(provider.start, intent.vm_ids, timeout_s)
    elif intent.verb is Verb.STOP:
        outcomes = await _in_batches(provider.stop, intent.vm_ids, timeout_s)
    else:
        outcomes = await _provision(provider, intent, spec, timeout_s)
    return Done(action_id, intent, outcomes, sent_s, clock.now())


async def _in_batches(call: Call, vm_ids: Sequence[str], timeout_s: float) -> tuple[Outcome, ...]:
    """The outcome of each VM, in order; refused batches are taken apart until each VM has its own."""
    found: dict[str, Outcome] = {}
    waiting: list[tuple[Sequence[str], bool]] = [(vm_ids, True)]
    while waiting:
        ids, may_split = waiting.pop()
        outcomes = {o.vm_id: o for o in await _bounded(call, ids, timeout_s)}
        kinds = {o.kind for o in outcomes.values()}
        spared = [i for i in ids if outcomes[i].code == BATCH_REFUSED]
        half = len(ids) // 2
        if spared and len(spared) < len(ids):
            waiting.append((spared, may_split))
            found |= {i: o for i, o in outcomes.items() if o.code != BATCH_REFUSED}
        elif half and kinds == {OutcomeKind.REFUSED}:
            waiting += [(ids[half:], may_split), (ids[:half], may_split)]
        elif half and kinds == {OutcomeKind.NO_CAPACITY} and may_split:
            # Part of a batch may fit where the whole does not; once, since more calls eat the API budget.
            waiting += [(ids[half:], False), (ids[:half], False)]
        else:
            found |= outcomes
        if kinds & _ENOUGH:
            found |= _not_sent((i for rest, _ in waiting for i in rest), next(iter(outcomes.values())))
            break
    return tuple(found[i] for i in vm_ids)


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
