"""Fallbacks: a start that failed for lack of room, or because of its VM, is tried elsewhere within the tick.

The rungs, each tried only when the previous one has nothing left: other stopped VMs in places with room, spread over zones;
stopped VMs started as another machine type; new VMs, in each type and subnet that the policy lists. What no rung can supply
is a shortage, which is an event with a beginning and an end.

Rules of this file: choice only; `acting` records and carries out what was chosen. Never more is requested than failed, and
nothing that an operator has paused or the policy forbids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from autoscaler.core.types import Reason, Stage
from autoscaler.daemon.acts.actuator import NOT_SENT, Done
from autoscaler.daemon.acts.planning import Wanted, marked, place_of, plan
from autoscaler.daemon.fleets import Fleet
from autoscaler.ports import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    ActionIntent,
    FleetTick,
    Note,
    OutcomeKind,
    ProvisionSpec,
    Verb,
)
from autoscaler.words import counted

SETTLED_S = 60.0
"""A shortage has ended when nothing was lacking for so long."""
ROUNDS = 8
"""Times that the rest is asked for elsewhere within one tick, at most."""


def came_to_nothing(done: Done) -> int:
    """VMs of a start or a provisioning that may be asked for elsewhere at once.

    Not those of an unknown outcome, which may have been done, nor where the budget is spent or we are denied:
    elsewhere is no better then.
    """
    if done.intent.verb is Verb.STOP:
        return 0
    failed = sum(
        o.kind in (OutcomeKind.NO_CAPACITY, OutcomeKind.REFUSED)
        and o.code not in (BATCH_REFUSED, BUDGET_SPENT, NOT_SENT)
        for o in done.outcomes
    )
    if done.intent.verb is Verb.PROVISION and failed:
        return done.intent.count
    return failed


def next_rung(
    fleet: Fleet, short: int, row: FleetTick, tick: int, attempt: int, now_s: float, after: int
) -> list[ActionIntent]:
    """Intents that give up to `short` VMs elsewhere; none where there is nothing left.

    Args:
        fleet: Whose.
        short: VMs that came to nothing.
        row: Its row of this tick: what operators allow, and the sentence.
        tick: The tick's number.
        attempt: How often the rest was asked for elsewhere in this tick, from 1.
        now_s: The clock.
        after: Journal id of the action that came to nothing.
    """
    inventory = fleet.inventory
    start = min(short, len(inventory.startable(now_s))) if row.may_start else 0
    provision = 0
    if row.may_provision and may_be_made(fleet, now_s):
        counts = inventory.counts(now_s, fleet.minimum_on_time_s)
        provision = max(min(short - start, fleet.policy.max_provisioned - counts.provisioned), 0)
    wanted = Wanted(start, 0, provision, f"elsewhere, since {short} came to nothing: {row.sentence}")
    chosen = plan(
        inventory,
        wanted,
        tick=tick,
        now_s=now_s,
        minimum_on_time_s=fleet.minimum_on_time_s,
        may_stop=False,
        specs=partial(specs, fleet),
        again=_again(after, attempt, now_s),
    )
    return marked(chosen, acts=fleet.policy.act)


def _again(after: int, attempt: int, now_s: float) -> str:
    """What a client token gets so that no other attempt of the tick has it, also where two calls came to nothing at the
    same moment, as they do on virtual time: six characters.
    """
    return hashlib.blake2b(f"{after} {attempt} {now_s!r}".encode(), digest_size=3).hexdigest()


# ── new VMs ────────────────────────────────────────────────────────────────────────────────────────────


def specs(fleet: Fleet) -> Iterator[ProvisionSpec]:
    """The ways to make a VM of this fleet, best first: each type in each subnet before the next type."""
    base, section = fleet.spec, fleet.policy.provision
    if base is None or section is None:
        return
    types = (base.vm_type, *section.types) if base.vm_type or not section.types else section.types
    subnets = (base.subnet, *section.subnets) if base.subnet or not section.subnets else section.subnets
    for vm_type in types:
        for subnet in subnets:
            yield replace(base, vm_type=vm_type, subnet=subnet)


def may_be_made(fleet: Fleet, now_s: float) -> float:
    """VMs that may be made now: any number, one for each place that is to be tried, or none."""
    if now_s < fleet.provision_held_until_s:
        return 0.0
    places = fleet.inventory.places
    return sum(places.at_most(*place_of(spec), now_s) for spec in specs(fleet))


# ── what cannot be had ─────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Shortage:
    """One fleet's VMs that are wanted and cannot be had from anywhere.

    Attributes:
        since_s: When it began.
        seen_s: When it was last seen.
        most: The most VMs that were lacking since.
    """

    since_s: float
    seen_s: float
    most: int

    @classmethod
    def begun(cls, fleet: Fleet, lacking: int, now_s: float) -> tuple[Shortage, Note] | None:
        """A shortage with the event that tells of it; None where the cloud is not to blame.

        That a policy's warm pool is too small is a reason of the decision, and no event.
        """
        why = _why(fleet, now_s)
        if not why:
            return None
        note = Note("shortage_began", fleet.name, f"{counted(lacking, 'VM')} not available now: {why}")
        return cls(now_s, now_s, lacking), note

    def ended(self, fleet: Fleet, lacking: int, now_s: float) -> Note | None:
        """The event that tells of its end, where nothing has been lacking for a while."""
        if lacking:
            self.most, self.seen_s = max(self.most, lacking), now_s
        if lacking or now_s - self.seen_s < SETTLED_S:
            return None
        lasted_s = self.seen_s - self.since_s
        text = f"all wanted VMs are available again; up to {self.most} were missing for {lasted_s:.0f} s"
        return Note("shortage_ended", fleet.name, text)


def lacking(row: FleetTick) -> int:
    """VMs that the decision wanted and found nobody to give, in this tick."""
    if Reason.WARM_POOL_EMPTY not in row.reasons:
        return 0
    return max(row.stages[Stage.SUPPLY - 1] - row.stages[Stage.SUPPLY], 0)


def _why(fleet: Fleet, now_s: float) -> str:
    inventory = fleet.inventory
    dry = [f"{vm_type or 'new VMs'} in {zone or 'any zone'}" for vm_type, zone in inventory.dry(now_s)]
    held = sum(t.quarantined_until_s > now_s for t in inventory.vms.values())
    parts = [f"no room for {', '.join(dry)}"] if dry else []
    parts += [f"{held} in quarantine"] if held else []
    parts += ["provisioning failed recently"] if now_s < fleet.provision_held_until_s else []
    return "; ".join(parts)
