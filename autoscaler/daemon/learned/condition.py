"""Condition of VMs: judged every half minute from their reports, reported, and acted on within limits.

If its policy asks for it, a fleet's slow and silent VMs are replaced: they no longer count as capacity, so that others start,
and are stopped once those serve. At most a stated share is replaced at once, and none if about half of the fleet or more is
slow: a common cause is not cured by more VMs of the same kind.

Rules of this file: `core.learned.condition` defines what slow means. Nothing is stopped here; `replacements` says what may be.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from autoscaler.clock import give_way
from autoscaler.core.learned.condition import Condition, VmPasts, judging
from autoscaler.core.types import Bool, Float
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.learned.measurements import Look, looking
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import Counts, Note, Phase
from autoscaler.daemon.vms.listing_rows import Turns
from autoscaler.ports import FleetReadings
from autoscaler.words import some

Kind = TypeVar("Kind", Float, Bool)

JUDGE_EVERY_S = 30.0
GROUP_VMS = 5000
"""Fleets are judged together up to this many VMs; a larger fleet is judged in steps."""
_PART_VMS = 4000
_SHOWN_IDS = 5
_WORDS = {
    Condition.DEGRADED_FEW: "",
    Condition.DEGRADED_HALF: "; about half of the fleet: none is replaced, look for what they have in common",
    Condition.DEGRADED_ALL: "; nearly all of the fleet: none is replaced, others would be as slow",
}


@dataclass(frozen=True, slots=True)
class FleetCondition:
    """The condition of one fleet's VMs.

    Attributes:
        condition: The condition as a whole.
        slow: Ids of the VMs that are slow or silent, in order.
        judged: How many VMs were looked at.
        replacing: Ids of the VMs that are being replaced, in order.
    """

    condition: Condition = Condition.UNKNOWN
    slow: tuple[str, ...] = ()
    judged: int = 0
    replacing: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Describe the condition for people; empty if no VM is slow or silent, or nothing is known."""
        if not self.slow:
            return ""
        which = some(self.slow, _SHOWN_IDS)
        verb = "is" if len(self.slow) == 1 else "are"
        return f"{len(self.slow)} of {self.judged} VMs {verb} slow or silent: {which}{_WORDS.get(self.condition, '')}"


WELL = FleetCondition()


class Conditions:
    """Judges the condition of all fleets.

    Args:
        telemetry: Publishes the last judgement.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._pasts: dict[str, _Past] = {}
        self._judged_at_s = -math.inf
        self._of: dict[str, FleetCondition] = {}

    def of(self, fleet: str) -> FleetCondition:
        """Return the last judgement of a fleet."""
        return self._of.get(fleet, WELL)

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time to judge."""
        return abs(now_s - self._judged_at_s) >= JUDGE_EVERY_S

    async def judge(
        self, fleets: Sequence[Fleet], readings: Mapping[str, FleetReadings], now_s: float
    ) -> list[Note]:
        """Judge all fleets, giving way in between if there are many VMs, and return what deserves an event."""
        self._judged_at_s = now_s
        turns = Turns()
        looks = [await turns.through(looking(fleet, readings[fleet.name], now_s)) for fleet in fleets]
        if not any(look.vm_ids for look in looks):
            self._pasts, self._of = {}, {}
            return []
        notes: list[Note] = []
        pasts: dict[str, _Past] = {}
        found: dict[str, FleetCondition] = {}
        for group in _groups(looks):
            among, seen = [fleets[lane] for lane in group], [looks[lane] for lane in group]
            for fleet, now, past in await self._judged(among, seen, turns):
                was = self.of(fleet.name)
                pasts[fleet.name] = past
                if replacing := _replacing(fleet, now, was):
                    now = replace(now, replacing=replacing)  # noqa: PLW2901  the same with more
                found[fleet.name] = now
                notes += _notes(fleet.name, was, now)
        self._pasts, self._of = pasts, found
        for name, now in found.items():
            self._telemetry.condition.labels(name).set(now.condition)
            self._telemetry.slow_vms.labels(name).set(len(now.slow))
        return notes

    async def _judged(
        self, fleets: Sequence[Fleet], looks: Sequence[Look], turns: Turns
    ) -> list[tuple[Fleet, FleetCondition, _Past]]:
        """Judge a group of fleets; return for each its condition and what to remember of its VMs."""
        nothing = _Past()
        before = [
            await turns.through(_following(self._pasts.get(fleet.name, nothing), look.vm_ids))
            for fleet, look in zip(fleets, looks, strict=True)
        ]
        sizes = [len(look.vm_ids) for look in looks]
        pasts = VmPasts.together(before)
        steps = judging(
            pasts,
            np.repeat(np.arange(len(fleets)), sizes),
            _joined([look.speed for look in looks]),
            _joined([look.silent for look in looks]),
            np.array([fleet.policy.condition.slow_below for fleet in fleets]),
            np.array([look.comparable for look in looks], np.bool_),
        )
        judged = await turns.through(steps, sum(sizes) // 20)
        found = []
        for lane, part in enumerate(pasts.apart(sizes)):
            vm_ids = looks[lane].vm_ids
            slow = tuple(sorted(vm_ids[slot] for slot in part.slow.nonzero()[0].tolist()))
            now = FleetCondition(Condition(int(judged.condition[lane])), slow, sizes[lane])
            found.append((fleets[lane], now, _Past(vm_ids, part)))
        return found

    async def count(self, fleets: Sequence[Fleet], now_s: float) -> list[Counts]:
        """Return the counts that each fleet is decided on, giving way in between where much has changed."""
        turns, found = Turns(), []
        for fleet in fleets:
            inventory = fleet.inventory
            inventory.looked_at = 0
            for rows in inventory.counting(now_s, fleet.minimum_on_time_s):
                if turns.spent(rows):
                    await give_way()
            found.append(self.counted(fleet, inventory.counts(now_s, fleet.minimum_on_time_s), now_s))
            if inventory.looked_at:
                # The VMs that are asked for metrics are needed in the order of ids next, and sorting them counts as
                # work too.
                inventory.in_phase(Phase.IN_SERVICE)
                if turns.spent(inventory.looked_at // 2):
                    await give_way()
        return found

    def counted(self, fleet: Fleet, counts: Counts, now_s: float) -> Counts:
        """Return the counts as if the VMs that are being replaced had left service."""
        leaving = self._leaving(fleet)
        if not leaving:
            return counts
        able = {t.vm.id for t in fleet.inventory.stoppable(now_s, fleet.minimum_on_time_s)}
        return replace(
            counts,
            in_service=counts.in_service - len(leaving),
            draining=counts.draining + len(leaving),
            stoppable=counts.stoppable - sum(vm in able for vm in leaving),
        )

    def replacements(self, fleet: Fleet, desired: int, in_service: int) -> tuple[str, ...]:
        """Return the replaced VMs that may be stopped now because others serve in their place.

        Args:
            fleet: The fleet.
            desired: VMs that the decision wants in service.
            in_service: VMs in service, without the replaced ones.
        """
        leaving = self._leaving(fleet)
        return leaving[: max(len(leaving) - max(desired - in_service, 0), 0)]

    def _leaving(self, fleet: Fleet) -> tuple[str, ...]:
        replacing = self.of(fleet.name).replacing
        if not replacing:
            return ()
        vms = fleet.inventory.vms
        return tuple(vm for vm in replacing if vm in vms and vms[vm].phase is Phase.IN_SERVICE)


@dataclass(frozen=True, slots=True)
class _Past:
    """What is remembered of the VMs of one fleet."""

    vm_ids: tuple[str, ...] = ()
    pasts: VmPasts = field(default_factory=lambda: VmPasts.empty(0))


def _following(past: _Past, vm_ids: tuple[str, ...]) -> Generator[int, None, VmPasts]:
    """Return what is remembered of these VMs, in their order; yields how much was done, in rows of a listing."""
    if past.vm_ids == vm_ids:
        return past.pasts
    slots: dict[str, int] = {}
    for begin in range(0, len(past.vm_ids), _PART_VMS):
        part = past.vm_ids[begin : begin + _PART_VMS]
        slots.update(zip(part, range(begin, begin + len(part)), strict=True))
        yield len(part) // 4
    known = np.full(len(vm_ids), -1, np.int64)
    for begin in range(0, len(vm_ids), _PART_VMS):
        part = vm_ids[begin : begin + _PART_VMS]
        known[begin : begin + len(part)] = [slots.get(vm, -1) for vm in part]
        yield len(part) // 4
    return past.pasts.carried_over(known)


def _joined(parts: Sequence[Kind]) -> Kind:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _groups(looks: Sequence[Look]) -> Iterator[range]:
    """Yield ranges of fleets that are judged together: many small fleets, or one large one."""
    begin, vms = 0, 0
    for at, look in enumerate(looks):
        vms += len(look.vm_ids)
        if vms >= GROUP_VMS:
            yield range(begin, at + 1)
            begin, vms = at + 1, 0
    if begin < len(looks):
        yield range(begin, len(looks))


def _replacing(fleet: Fleet, now: FleetCondition, was: FleetCondition) -> tuple[str, ...]:
    """Return the slow VMs to replace: those already being replaced, and more up to the fleet's share."""
    share = fleet.policy.condition.replace
    if share <= 0.0 or fleet.real is not None or now.condition is not Condition.DEGRADED_FEW:
        return ()
    budget = max(int(share * now.judged), 1)
    still = [vm for vm in was.replacing if vm in now.slow]
    others = [vm for vm in now.slow if vm not in still]
    return tuple(sorted((still + others)[:budget]))


def _notes(fleet: str, was: FleetCondition, now: FleetCondition) -> Iterable[Note]:
    if now.slow and (now.condition is not was.condition or set(now.slow) - set(was.slow)):
        yield Note("vms_slow", fleet, now.sentence())
    if was.slow and not now.slow:
        yield Note("vms_well", fleet, f"none of {now.judged} VMs is slow or silent any more")
    for vm in sorted(set(now.replacing) - set(was.replacing)):
        yield Note("vm_replaced", fleet, f"{vm} is slow or silent; it is stopped once another serves")
