"""What keeps a fleet's decision from being carried out, or limits it, in words.

Rules of this file: nothing is decided here; whatever holds a fleet notes the end of the hold on the fleet.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autoscaler.core.types import Reason
from autoscaler.daemon.acts.fallbacks import provisionable_now
from autoscaler.daemon.fleets import Fleet
from autoscaler.ports import FLEET_TAG, FleetTick, TickRecord
from autoscaler.words import some

_MAXIMUM, _MINIMUM = int(Reason.MAXIMUM), int(Reason.MINIMUM)
UNLISTED = "held until its VMs have been listed: "
_INCOMPLETE, _POOL_EMPTY = int(Reason.LISTING_INCOMPLETE), int(Reason.WARM_POOL_EMPTY)
UNKNOWN_TO_BALANCER = "no VM leaves, since the load balancer has too few of them: "
NOT_LET_GO = "no VM leaves for a minute, since the load balancer did not take it out: "
UNMADE = "no VM is provisioned, since it failed recently: "
UNRECORDED = "held, since the journal cannot be written: "


def full_sentence(fleet: Fleet, row: FleetTick, now_s: float) -> str:
    """Return the sentence of a decision with what holds it back or limits it; the same object if nothing does."""
    why, sentence = held(fleet, row, now_s), row.sentence
    # An objective never proposes a number beyond the bounds, so no stage reports that it was clipped.
    bounds, fits = fleet.policy.bounds, row.demand / fleet.capacity_per_s
    if fits > row.desired == bounds.maximum and _MAXIMUM not in row.reasons:
        sentence = f"{sentence}; more would be needed, but the policy's maximum is {row.desired}"
    if fits <= row.desired - 1 and row.desired == bounds.minimum and _MINIMUM not in row.reasons:
        sentence = f"{sentence}; the policy's minimum is {row.desired}"
    if _POOL_EMPTY in row.reasons and fleet.inventory.listed and not fleet.inventory.vms:
        sentence = f"{sentence}; no VM carries the tag {FLEET_TAG}={fleet.name}"
    missing = fleet.inventory.parts.missing_zones
    if missing and (why == UNLISTED or _INCOMPLETE in row.reasons):
        sentence = f"{sentence}; the list lacks {some(missing)}"
    return why + sentence if why else sentence


def held(fleet: Fleet, row: FleetTick, now_s: float) -> str:
    """Return, for people, why the decision is not carried out; empty if it is."""
    if not (row.start or row.stop or row.provision):
        return "" if fleet.inventory.listed else UNLISTED
    if fleet.leased_to:
        return f"held, since another daemon acts on the fleet ({fleet.leased_to}): "
    if fleet.held_until_s == math.inf:
        return "held until it is known that no other daemon acts on the fleet: "
    if now_s < fleet.held_until_s:
        return "held, since the provider denies access: "
    if not fleet.inventory.listed:
        return UNLISTED
    if row.stop and fleet.drains is not None and fleet.drains.members.holds:
        return UNKNOWN_TO_BALANCER
    if row.stop and fleet.drains is not None and fleet.drains.refusals.holds_all(now_s):
        return NOT_LET_GO
    if row.provision > (room := provisionable_now(fleet, now_s)):
        tried = "one VM is" if room == 1.0 else f"{room:.0f} VMs are"
        return f"{tried} provisioned, to see whether there is room again: " if room else UNMADE
    return ""


def provisioned(fleet: Fleet, row: FleetTick, now_s: float) -> int:
    """Return how many of the wanted new VMs may be provisioned now."""
    return row.provision if now_s >= fleet.provision_held_until_s else 0


def unrecorded(record: TickRecord) -> TickRecord:
    """Return a tick that could not be recorded, with sentences that say it is not carried out.

    For log and status only: it is not stored.
    """
    rows = [
        replace(row, sentence=UNRECORDED + row.sentence) if row.start or row.stop or row.provision else row
        for row in record.fleets
    ]
    return replace(record, fleets=tuple(rows))
