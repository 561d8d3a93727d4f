"""Fallbacks: a start that failed for lack of room, or because of its VM, is tried elsewhere within the tick.

The rungs, each tried only when the previous one has nothing left: other stopped VMs in places with room, spread over zones;
stopped VMs started as another machine type; new VMs, in each type and subnet that the policy lists. What no rung can supply
is a shortage (`shortages`).

Rules of this file: choice only; `intent_executor` records and carries out what was chosen. Never more is requested than failed, and
nothing that an operator has paused or the policy forbids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from autoscaler.daemon.acts.actuator import NOT_SENT, ActionResult
from autoscaler.daemon.acts.planning import WantedVms, marked, plan
from autoscaler.daemon.fleets import Fleet
from autoscaler.ports import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    ActionIntent,
    FleetTick,
    OutcomeKind,
    ProvisionSpec,
    Verb,
)

ROUNDS = 8
"""Most times that failed starts are tried elsewhere within one tick."""


def retryable_failures(done: ActionResult) -> int:
    """Return how many VMs of a start or a provisioning failed in a way that allows trying elsewhere at once.

    VMs with an unknown outcome do not count, because they may have been started. Neither do VMs for which the API
    budget is spent or access is denied, because elsewhere is no better then.
    """
    if done.intent.verb is Verb.STOP:
        return 0
    failed = sum(
        o.kind in (OutcomeKind.NO_CAPACITY, OutcomeKind.REFUSED)
        and o.code not in (BATCH_REFUSED, BUDGET_SPENT, NOT_SENT)
        for o in done.outcomes
    )
    if done.intent.verb is Verb.PROVISION and failed:
        return done.intent.count - sum(o.kind is OutcomeKind.ACCEPTED for o in done.outcomes)
    return failed


def fallback_intents(
    fleet: Fleet, short: int, row: FleetTick, tick: int, attempt: int, now_s: float, after: int
) -> list[ActionIntent]:
    """Return intents for up to `short` VMs elsewhere; empty if no rung is left.

    Args:
        fleet: The fleet.
        short: How many VMs failed.
        row: The fleet's row of this tick: what operators allow, and the sentence.
        tick: Number of the tick.
        attempt: How many times failed starts were tried elsewhere in this tick, from 1.
        now_s: The current time.
        after: Journal id of the action that failed.
    """
    inventory = fleet.inventory
    start = min(short, len(inventory.startable(now_s))) if row.may_start else 0
    provision = 0
    if row.may_provision and provisionable_now(fleet, now_s):
        counts = inventory.counts(now_s, fleet.minimum_on_time_s)
        provision = max(min(short - start, fleet.policy.max_provisioned - counts.provisioned), 0)
    wanted = WantedVms(start, 0, provision, f"elsewhere, since {short} came to nothing: {row.sentence}")
    chosen = plan(
        inventory,
        wanted,
        tick=tick,
        now_s=now_s,
        minimum_on_time_s=fleet.minimum_on_time_s,
        may_stop=False,
        specs=partial(provision_options, fleet),
        again=_again(after, attempt, now_s),
    )
    return marked(chosen, acts=fleet.policy.act)


def _again(after: int, attempt: int, now_s: float) -> str:
    """Return six characters that make client tokens differ between all attempts of a tick.

    This holds even if two calls fail at the same moment, as they do on virtual time.
    """
    return hashlib.blake2b(f"{after} {attempt} {now_s!r}".encode(), digest_size=3).hexdigest()


# ── new VMs ────────────────────────────────────────────────────────────────────────────────────────────


def provision_options(fleet: Fleet) -> Iterator[ProvisionSpec]:
    """Yield the ways to make a VM of this fleet, best first: each type in each subnet before the next type."""
    base, section = fleet.spec, fleet.policy.provision
    if base is None or section is None:
        return
    types = (base.vm_type, *section.types) if base.vm_type or not section.types else section.types
    subnets = (base.subnet, *section.subnets) if base.subnet or not section.subnets else section.subnets
    for vm_type in types:
        for subnet in subnets:
            yield replace(base, vm_type=vm_type, subnet=subnet)


def provisionable_now(fleet: Fleet, now_s: float) -> float:
    """Return how many VMs may be made now: infinity, the number of places to try one VM in, or 0."""
    if now_s < fleet.provision_held_until_s:
        return 0.0
    places = fleet.inventory.places
    return sum(places.at_most(*spec.place, now_s) for spec in provision_options(fleet))
