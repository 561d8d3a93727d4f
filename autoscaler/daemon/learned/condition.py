"""How the VMs of each fleet do: judged every half a minute from what they report, told, and acted upon within limits.

A fleet that asks for it has slow and silent VMs replaced: they are no longer counted as capacity, so that others are
started, and are stopped once those serve. At most a stated share is replaced at once, and none where about half of
the fleet or all of it is slow: what has one cause is not cured by other VMs of the same kind.

Rules of this file: what slow means is `core.condition`. Nothing is stopped here; `replacements` says what may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.clock import give_way
from autoscaler.core.condition import Condition, VmPasts, judge
from autoscaler.core.types import Float
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import Counts, Note, Phase
from autoscaler.daemon.vms.rows import Turns
from autoscaler.daemon.vms.weights import types_of
from autoscaler.ports import FleetReadings

JUDGE_EVERY_S = 30.0
IDLE_SHARE = 0.05
"""A fleet whose VMs do less than this share of their capacity is too idle to be judged."""
_SHOWN_IDS = 5
_WORDS = {
    Condition.DEGRADED_FEW: "",
    Condition.DEGRADED_HALF: "; about half of the fleet: none is replaced, look for what they have in common",
    Condition.DEGRADED_ALL: "; nearly all of the fleet: none is replaced, others would be as slow",
}


@dataclass(frozen=True, slots=True)
class FleetCondition:
    """How the VMs of one fleet do.

    Attributes:
        condition: As a whole.
        slow: Ids of the VMs that are slow or silent, in order.
        judged: VMs that were looked at.
        replacing: Ids of those that are being replaced, in order.
    """

    condition: Condition = Condition.UNKNOWN
    slow: tuple[str, ...] = ()
    judged: int = 0
    replacing: tuple[str, ...] = ()

    def sentence(self) -> str:
        """For a person; empty where all is well or nothing is known."""
        if not self.slow:
            return ""
        more = f" and {len(self.slow) - _SHOWN_IDS} more" if len(self.slow) > _SHOWN_IDS else ""
        which = f"{', '.join(self.slow[:_SHOWN_IDS])}{more}"
        verb = "is" if len(self.slow) == 1 else "are"
        return f"{len(self.slow)} of {self.judged} VMs {verb} slow or silent: {which}{_WORDS.get(self.condition, '')}"


WELL = FleetCondition()


class Conditions:
    """Judges the fleets of one daemon.

    Args:
        telemetry: Shows the last judgement.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._pasts = VmPasts.empty(0)
        self._slots: dict[tuple[str, str], int] = {}
        self._judged_at_s = -math.inf
        self._of: dict[str, FleetCondition] = {}

    def of(self, fleet: str) -> FleetCondition:
        """The last judgement."""
        return self._of.get(fleet, WELL)

    def judge(
        self, fleets: Sequence[Fleet], readings: Mapping[str, FleetReadings], now_s: float
    ) -> list[Note]:
        """Judge all fleets, if it is time; what deserves an event."""
        if abs(now_s - self._judged_at_s) < JUDGE_EVERY_S:
            return []
        self._judged_at_s = now_s
        looks = [_Look.at(fleet, readings[fleet.name], now_s) for fleet in fleets]
        keys = [(fleet.name, vm) for fleet, look in zip(fleets, looks, strict=True) for vm in look.vm_ids]
        if not keys and not self._slots and not self._of:
            return []
        self._pasts = self._pasts.carried_over(np.array([self._slots.get(key, -1) for key in keys], np.int64))
        self._slots = {key: slot for slot, key in enumerate(keys)}
        if not keys:
            self._of = {}
            return []
        sizes = [len(look.vm_ids) for look in looks]
        found = judge(
            self._pasts,
            np.repeat(np.arange(len(fleets)), sizes),
            np.concatenate([look.speed for look in looks]),
            np.concatenate([look.silent for look in looks]),
            np.array([fleet.policy.condition.slow_below for fleet in fleets]),
            np.array([look.comparable for look in looks], np.bool_),
        )
        slow: dict[str, list[str]] = {}
        for slot in np.flatnonzero(self._pasts.slow).tolist():
            fleet_name, vm = keys[slot]
            slow.setdefault(fleet_name, []).append(vm)
        before, self._of = self._of, {}
        notes: list[Note] = []
        for lane, fleet in enumerate(fleets):
            was = before.get(fleet.name, WELL)
            now = FleetCondition(
                Condition(int(found.condition[lane])),
                tuple(sorted(slow.get(fleet.name, ()))),
                sizes[lane],
            )
            now = replace(now, replacing=_replacing(fleet, now, was))
            self._of[fleet.name] = now
            self._telemetry.condition.labels(fleet.name).set(now.condition)
            self._telemetry.slow_vms.labels(fleet.name).set(len(now.slow))
            notes += _notes(fleet.name, was, now)
        return notes

    async def count(self, fleets: Sequence[Fleet], now_s: float) -> list[Counts]:
        """What of each fleet is to be decided on, worked out in slices where much has changed."""
        turns, found = Turns(), []
        for fleet in fleets:
            inventory = fleet.inventory
            inventory.looked_at = 0
            for rows in inventory.counting(now_s, fleet.minimum_on_time_s):
                if turns.spent(rows):
                    await give_way()
            found.append(self.counted(fleet, inventory.counts(now_s, fleet.minimum_on_time_s), now_s))
            if inventory.looked_at:
                # Whoever is asked for metrics is asked for in the order of ids, which is worked out here.
                inventory.in_phase(Phase.IN_SERVICE)
                if turns.spent(inventory.looked_at // 2):
                    await give_way()
        return found

    def counted(self, fleet: Fleet, counts: Counts, now_s: float) -> Counts:
        """The counts without the VMs that are being replaced, which leave service."""
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
        """The replaced VMs that may be stopped now, as others serve in their place.

        Args:
            fleet: Whose.
            desired: VMs that the decision wants in service.
            in_service: VMs that serve, without the replaced ones.
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
class _Look:
    """What one fleet's VMs can be judged by.

    Attributes:
        vm_ids: The VMs.
        speed: float64, the higher the better, NaN where nothing can be said.
        silent: bool, should have reported and did not.
        comparable: Speeds can be compared over time.
    """

    vm_ids: tuple[str, ...]
    speed: Float
    silent: np.ndarray
    comparable: bool

    @classmethod
    def at(cls, fleet: Fleet, got: FleetReadings, now_s: float) -> _Look:
        signal = fleet.policy.signal
        fresh = now_s - got.observed_at_s <= signal.max_age_s
        reported = {vm for vm, is_fresh in zip(got.vm_ids, fresh.tolist(), strict=True) if is_fresh and vm}
        if not reported:
            return cls((), np.empty(0), np.empty(0, np.bool_), comparable=False)
        missing = sorted(_overdue(fleet, now_s) - reported)
        at = np.array([i for i, vm in enumerate(got.vm_ids) if vm in reported], np.int64)
        ids = (*(got.vm_ids[i] for i in at.tolist()), *missing)
        speed, comparable = _speed(fleet, got, at)
        return cls(
            ids,
            np.concatenate([speed, np.full(len(missing), np.nan)]),
            np.arange(len(ids)) >= len(at),
            comparable,
        )


def _speed(fleet: Fleet, got: FleetReadings, at: np.ndarray) -> tuple[Float, bool]:
    """The speed of the VMs at these places, and whether it can be compared over time."""
    value, capacity = got.values[at], fleet.policy.vm.capacity_per_s
    if fleet.weights and fleet.policy.signal.kind != "utilisation":
        value = value / fleet.weights.of([got.vm_ids[i] for i in at.tolist()], types_of(fleet.inventory))
    if fleet.policy.signal.kind == "utilisation":
        busy = np.where(value >= IDLE_SHARE, value, np.nan)
        return 1.0 / busy, False
    if got.utilisation is not None:
        busy = got.utilisation[at]
        return value / np.where(busy >= IDLE_SHARE, busy, np.nan), True
    known = value[np.isfinite(value)]
    if not len(known) or float(np.median(known)) < IDLE_SHARE * capacity:
        return np.full(len(value), np.nan), False
    # One that gets no work at all while others do is as slow as can be.
    return np.maximum(value, 1e-6 * capacity), False


def _overdue(fleet: Fleet, now_s: float) -> set[str]:
    """The VMs that have served for long enough to be heard."""
    if fleet.real is not None:
        return set()
    grace_s = 2.0 * fleet.policy.signal.max_age_s
    serving = fleet.inventory.in_phase(Phase.IN_SERVICE)
    return {t.vm.id for t in serving if now_s - (t.in_service_from_s or now_s) > grace_s}


def _replacing(fleet: Fleet, now: FleetCondition, was: FleetCondition) -> tuple[str, ...]:
    """Which slow VMs are replaced: those that were, and more as far as the fleet's share allows."""
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
