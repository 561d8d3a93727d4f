"""From a decision's numbers to chosen VMs: the plan, as intents to be recorded before anything is done.

Order of choice for starts: even zones, least recently launched (so that every VM gets its turn and a broken one is
found in quiet times), then id. For stops: fullest zone, longest in service, then id. Both are stable: the same
fleet gives the same choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from autoscaler.core.select import start_order, stop_order
from autoscaler.core.types import Int
from autoscaler.daemon.inventory import ON_THE_WAY, FleetInventory, Phase, TrackedVm
from autoscaler.ports import ActionIntent, Verb


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a decision asks of one fleet, in VMs, with the sentence that says why."""

    start: int
    stop: int
    provision: int
    sentence: str


def plan(
    inventory: FleetInventory,
    wanted: Wanted,
    *,
    tick: int,
    now_s: float,
    minimum_on_time_s: float,
    early: int = 0,
) -> list[ActionIntent]:
    """Choose the VMs and group them into calls.

    Args:
        inventory: The fleet.
        wanted: Numbers of the decision.
        tick: Goes into the client token of a provisioning, which makes a repeated call harmless.
        now_s: The clock.
        minimum_on_time_s: VMs younger than this are not stopped.
        early: Number of the early turn, which goes into the token too; 0 in a regular one.

    Returns:
        One intent per call: starts per (type, zone), at most one provision, one stop.
    """
    intents: list[ActionIntent] = []
    for group in _starts(inventory, wanted.start, now_s):
        ids = tuple(t.vm.id for t in group)
        intents.append(ActionIntent(inventory.fleet, Verb.START, ids, len(ids), "", wanted.sentence))
    if wanted.provision:
        turn = f"{tick}e{early}" if early else f"{tick}"
        token = _token(inventory.fleet, turn, wanted.provision)
        intents.append(
            ActionIntent(inventory.fleet, Verb.PROVISION, (), wanted.provision, token, wanted.sentence)
        )
    stops = _stops(inventory, wanted.stop, now_s, minimum_on_time_s)
    if stops:
        ids = tuple(t.vm.id for t in stops)
        intents.append(ActionIntent(inventory.fleet, Verb.STOP, ids, len(ids), "", wanted.sentence))
    return intents


def _token(fleet: str, turn: str, count: int) -> str:
    """A client token of at most 64 characters (EC2's limit) that no other fleet or turn has."""
    digest = hashlib.blake2b(fleet.encode(), digest_size=6).hexdigest()
    return f"{fleet[:24]}-{digest}-{turn}-{count}"


def _starts(inventory: FleetInventory, count: int, now_s: float) -> list[list[TrackedVm]]:
    if not count:
        return []
    candidates = sorted(inventory.startable(now_s), key=lambda t: (t.vm.launched_at_s, t.vm.id))
    if not candidates:
        return []
    zone_of, levels = _zones(inventory, candidates)
    chosen = [candidates[i] for i in start_order(zone_of, np.arange(len(candidates)), levels)[:count]]

    def place(t: TrackedVm) -> tuple[str, str]:
        return t.vm.vm_type, t.vm.zone

    return [list(group) for _, group in groupby(sorted(chosen, key=place), key=place)]


def _stops(inventory: FleetInventory, count: int, now_s: float, minimum_on_time_s: float) -> list[TrackedVm]:
    if not count:
        return []
    candidates = sorted(
        inventory.stoppable(now_s, minimum_on_time_s),
        key=lambda t: (t.in_service_from_s or 0.0, t.vm.id),
    )
    if not candidates:
        return []
    zone_of, levels = _zones(inventory, candidates)
    return [candidates[i] for i in stop_order(zone_of, np.arange(len(candidates)), levels)[:count]]


def _zones(inventory: FleetInventory, candidates: Sequence[TrackedVm]) -> tuple[Int, Int]:
    """The zone index of each candidate, and the VMs ordered per zone."""
    zones = sorted({t.vm.zone for t in inventory.vms.values()})
    index = {zone: i for i, zone in enumerate(zones)}
    levels = np.zeros(len(zones), np.int64)
    for t in inventory.vms.values():
        if t.phase is Phase.IN_SERVICE or t.phase in ON_THE_WAY:
            levels[index[t.vm.zone]] += 1
    return np.array([index[t.vm.zone] for t in candidates], np.int64), levels
