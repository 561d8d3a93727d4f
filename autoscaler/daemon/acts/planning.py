"""From a decision's numbers to chosen VMs: the plan, as intents that are recorded before they are carried out.

Order of choice for starts: VMs that need no change of type first, hibernated before stopped (they serve sooner), balanced
zones, best type, least recently launched (so that every VM gets its turn, and a broken one is found in quiet times), then
id. For stops: VMs that were ordered to stop before and seem to run on, fullest zone, longest in service, then id. Both
orders are stable: the same fleet gives the same choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from autoscaler.core.select import start_order, stop_order
from autoscaler.core.types import Int
from autoscaler.daemon.vms.holdings import is_stop_forbidden
from autoscaler.daemon.vms.inventory import ON_THE_WAY, FleetInventory, Phase, TrackedVm
from autoscaler.daemon.vms.lateness import NOT_NEEDED
from autoscaler.daemon.vms.saved_memory import resumes
from autoscaler.ports import ActionIntent, ProvisionSpec, Verb


@dataclass(frozen=True, slots=True)
class WantedVms:
    """What a decision wants of one fleet, in VMs.

    Attributes:
        start: VMs to start.
        stop: VMs to stop.
        provision: VMs to make.
        sentence: Why, for people.
        replaced: Ids of VMs to stop in addition, because others serve in their place.
    """

    start: int
    stop: int
    provision: int
    sentence: str
    replaced: tuple[str, ...] = ()


def plan(
    inventory: FleetInventory,
    wanted: WantedVms,
    *,
    tick: int,
    now_s: float,
    minimum_on_time_s: float,
    early: int = 0,
    may_stop: bool = True,
    specs: Callable[[], Iterable[ProvisionSpec]] = tuple,
    again: str = "",
) -> list[ActionIntent]:
    """Choose the VMs and group them into calls.

    Args:
        inventory: The fleet's VMs.
        wanted: The numbers of the decision.
        tick: Number of the tick, a part of the client token of a provisioning, which makes a repeated call harmless.
        now_s: The current time.
        minimum_on_time_s: Time in service before which a VM is not stopped.
        early: Number of the early turn, also a part of the token; 0 in a regular one.
        may_stop: Whether operators allow stops beyond those that the decision wants.
        specs: Returns the ways to make a VM of the fleet, best first.
        again: A further part of the token, for another attempt in the same turn.

    Returns:
        One intent per call: starts per (type, zone), provisions per way, one stop, one stop of replaced VMs, one stop
            of VMs that never served, and one forced stop of VMs that do not stop.
    """
    intents: list[ActionIntent] = []
    for group in _starts(inventory, wanted.start - _taken_back(inventory, wanted.start), now_s):
        ids = tuple(t.vm.id for t in group)
        intents.append(ActionIntent(inventory.fleet, Verb.START, ids, len(ids), "", wanted.sentence))
    if wanted.provision:
        turn = f"{tick}e{early}" if early else f"{tick}"
        intents += _provisions(inventory, wanted, [*specs()], turn, again, now_s)
    stops = _stops(inventory, wanted, now_s, minimum_on_time_s)
    if stops:
        ids = tuple(t.vm.id for t in stops)
        intents.append(ActionIntent(inventory.fleet, Verb.STOP, ids, len(ids), "", wanted.sentence))
    gone = [t for t in inventory.stoppable(now_s, minimum_on_time_s) if t.vm.id in wanted.replaced]
    if gone and may_stop:
        ids = tuple(sorted(t.vm.id for t in gone))
        why = "slow or silent, and others serve in their place"
        inventory.set_aside(gone, now_s, why)
        intents.append(ActionIntent(inventory.fleet, Verb.STOP, ids, len(ids), "", why))
    if may_stop:
        dismissed = [t for t in inventory.dismissed() if not is_stop_forbidden(t, now_s)]
        for vms, why in ((dismissed, ""), (inventory.stuck(), "forced, since they do not stop")):
            if vms:
                ids = tuple(t.vm.id for t in vms)
                reason = why or "; ".join(sorted({t.dismissed for t in vms}))
                intents.append(ActionIntent(inventory.fleet, Verb.STOP, ids, len(ids), "", reason))
    return intents


def marked(intents: Iterable[ActionIntent], *, acts: bool) -> list[ActionIntent]:
    """Return the intents as they are recorded: those of a fleet in shadow are marked, for a later run that acts."""
    return [*intents] if acts else [intent.in_shadow() for intent in intents]


def _provisions(
    inventory: FleetInventory,
    wanted: WantedVms,
    specs: Sequence[ProvisionSpec],
    turn: str,
    again: str,
    now_s: float,
) -> list[ActionIntent]:
    """Plan new VMs in the best way for which there may be room, and one VM each in better ways whose places are to be
    tried.
    """
    places, left = inventory.places, float(wanted.provision)
    shares: list[tuple[ProvisionSpec, int]] = []
    for spec in specs:
        taken = int(min(left, places.at_most(*spec.place, now_s)))
        if taken >= 1:
            # The trial is for all fleets, so no other fleet tries this place, as with starts.
            places.claim(*spec.place, now_s)
            shares.append((spec, taken))
            left -= taken
    # Earlier plans have been carried out or given up.
    inventory.make_as = {}
    intents = []
    for number, (spec, count) in enumerate(shares):
        token = _token(inventory.fleet, f"{turn}p{number}" if number else turn, count)
        token = f"{token}-{again}" if again else token
        inventory.make_as[token] = spec
        intents.append(ActionIntent(inventory.fleet, Verb.PROVISION, (), count, token, wanted.sentence))
    return intents


def _taken_back(inventory: FleetInventory, count: int) -> int:
    """Take back VMs that came late and were about to be stopped, instead of starting others; return how many."""
    wanted = [t for t in inventory.dismissed() if t.dismissed == NOT_NEEDED][:count]
    for t in wanted:
        inventory.take_back(t)
    return len(wanted)


def _token(fleet: str, turn: str, count: int) -> str:
    """Return a client token of at most 64 characters (EC2's limit), unique to fleet and turn."""
    digest = hashlib.blake2b(fleet.encode(), digest_size=6).hexdigest()
    return f"{fleet[:24]}-{digest}-{turn}-{count}"


def _starts(inventory: FleetInventory, count: int, now_s: float) -> list[list[TrackedVm]]:
    """Choose the VMs to start, in groups of one type and zone.

    VMs that resume from their memory come first, because they serve sooner; VMs that must change their type come last, and
    after them those that the last complete listing lacks, and those in places that had no room for many.
    """
    if count <= 0:
        return []
    chosen: list[tuple[TrackedVm, str]] = []
    turns: dict[tuple[bool, ...], list[tuple[TrackedVm, str]]] = {}
    for t, vm_type in inventory.startable_as(now_s):
        narrow = inventory.is_narrow(vm_type, t.vm.zone, now_s)
        turn = narrow, t.missing > 0, vm_type != t.vm.vm_type, not resumes(t.vm, now_s)
        turns.setdefault(turn, []).append((t, vm_type))
    for _, here in sorted(turns.items()):
        left = count - len(chosen)
        if left > 0:
            chosen += _spread(inventory, here, [t for t, _ in chosen], left)
    for t, vm_type in chosen:
        t.start_as = "" if vm_type == t.vm.vm_type else vm_type
        # The trial of a place whose time is over is for all fleets, so no other fleet tries it in this tick.
        inventory.places.claim(vm_type, t.vm.zone, now_s)

    def place(each: tuple[TrackedVm, str]) -> tuple[str, str]:
        return each[1], each[0].vm.zone

    grouped = groupby(sorted(chosen, key=place), key=place)
    return [[t for t, _ in group] for _, group in grouped]


def _spread(
    inventory: FleetInventory, found: list[tuple[TrackedVm, str]], chosen: list[TrackedVm], count: int
) -> list[tuple[TrackedVm, str]]:
    """Choose `count` of these VMs so that zones become as even as possible, counting VMs in service, on the way and
    chosen.
    """
    best = {vm_type: n for n, vm_type in enumerate(inventory.types)}
    found = sorted(found, key=lambda e: (e[0].denied, best.get(e[1], 0), e[0].vm.launched_at_s, e[0].vm.id))
    zone_of, levels = _zones(inventory, [t for t, _ in found], chosen)
    return [found[i] for i in start_order(zone_of, np.arange(len(found)), levels)[:count]]


def _stops(
    inventory: FleetInventory, wanted: WantedVms, now_s: float, minimum_on_time_s: float
) -> list[TrackedVm]:
    if not wanted.stop:
        return []
    candidates = sorted(
        (t for t in inventory.stoppable(now_s, minimum_on_time_s) if t.vm.id not in wanted.replaced),
        key=lambda t: (t.in_service_from_s or 0.0, t.vm.id),
    )
    if not candidates:
        return []
    doubted = [t for t in candidates if t.stop_doubted][: wanted.stop]
    candidates = [t for t in candidates if not t.stop_doubted]
    left = wanted.stop - len(doubted)
    if not candidates or not left:
        return doubted
    zone_of, levels = _zones(inventory, candidates)
    order = stop_order(zone_of, np.arange(len(candidates)), levels)
    return [*doubted, *(candidates[i] for i in order[:left])]


def _zones(
    inventory: FleetInventory, candidates: Sequence[TrackedVm], chosen: Sequence[TrackedVm] = ()
) -> tuple[Int, Int]:
    """Return the zone index of each candidate, and the number of VMs in service, on the way and chosen per zone."""
    zones = sorted({t.vm.zone for t in inventory.vms.values()})
    index = {zone: i for i, zone in enumerate(zones)}
    levels = np.zeros(len(zones), np.int64)
    for t in inventory.vms.values():
        if t.phase is Phase.IN_SERVICE or t.phase in ON_THE_WAY:
            levels[index[t.vm.zone]] += 1
    for t in chosen:
        levels[index[t.vm.zone]] += 1
    return np.array([index[t.vm.zone] for t in candidates], np.int64), levels
