"""Counts the VMs of one fleet: how many are in each phase, and which can be started or stopped now.

Why a separate module: most ticks change nothing, so counts are kept until something changes, or until a VM leaves quarantine
or completes its minimum on-time.

Rules of this file: nothing here changes a VM. Whatever does calls `touch`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from autoscaler.daemon.vms.fleet_places import FleetPlaces
from autoscaler.daemon.vms.places import Places
from autoscaler.daemon.vms.pool_tags import GROUP_TAG
from autoscaler.daemon.vms.tracked import (
    ON_THE_WAY,
    PROTECTED_TAG,
    TYPE_TAG,
    Counts,
    Phase,
    TrackedVm,
)
from autoscaler.ports import ProvisionSpec, Vm

_EDGE_S = 1e-3
"""Counts are not reused this close to the time at which they may change, in seconds: sums of floats are inexact."""
_ID = attrgetter("vm.id")
PART_VMS = 500
"""VMs that are looked at in one part: up to 2 ms."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts, and when they hold.

    Attributes:
        counts: The counts.
        minimum_on_time_s: The minimum on-time that they were counted with.
        from_s: Beginning of the time in which they hold.
        until_s: End of that time.
        places: Value of `Places.version` when they were counted.
    """

    counts: Counts
    minimum_on_time_s: float
    from_s: float
    until_s: float
    places: int


@dataclass(slots=True)
class _Tally:
    """Counts of the VMs that have been looked at so far.

    Attributes:
        by_phase: These VMs by phase, each list in the order in which they became known.
        startable: How many of them can be started.
        stoppable: How many of them can be stopped.
        until_s: When time alone changes `startable` or `stoppable`.
    """

    by_phase: dict[Phase, list[TrackedVm]] = field(default_factory=lambda: {phase: [] for phase in Phase})
    startable: int = 0
    stoppable: int = 0
    until_s: float = math.inf

    def add(
        self, vms: Sequence[TrackedVm], places: FleetPlaces, now_s: float, minimum_on_time_s: float
    ) -> None:
        """Count these VMs too."""
        by_phase, until_s = self.by_phase, self.until_s
        earliest_s = now_s - _EDGE_S
        for t in vms:
            phase = t.phase
            by_phase[phase].append(t)
            if phase is Phase.IN_SERVICE:
                self.stoppable += _is_stoppable(t, now_s, minimum_on_time_s)
                edge_s = max(_on_since_s(t) + minimum_on_time_s, t.hands_off_until_s)
            elif phase is Phase.STOPPED:
                self.startable += _is_free(t, now_s)
                edge_s = max(t.quarantined_until_s, places.free_from_s(t.vm.vm_type, t.vm.zone))
            elif phase is Phase.DRAINING:
                edge_s = t.quarantined_until_s
            elif phase is Phase.RUNNING and t.stop_doubted:
                self.stoppable += _is_stoppable(t, now_s, minimum_on_time_s)
                edge_s = t.hands_off_until_s
            else:
                continue
            if earliest_s <= edge_s < until_s:
                until_s = edge_s
        self.until_s = until_s


class Holdings:
    """The VMs of one fleet by id, and counts of them."""

    def __init__(self) -> None:
        self.vms: dict[str, TrackedVm] = {}
        self.places = FleetPlaces(Places())
        """What is known of places; the fleets of one account share it, except for reservations and dedicated hosts."""
        self.types: tuple[str, ...] = ()
        """Machine types as which a VM may be started if there is no room for its own type, best first."""
        self.make_as: dict[str, ProvisionSpec] = {}
        """What new VMs are made from, by the token of the call that is planned for them."""
        self.looked_at = 0
        """How many VMs have been looked at one by one since this was last set to 0, for callers that give way to others."""
        self._counted: _Counted | None = None
        self.changes = 0
        """How many times any VM has changed."""
        self._by_phase: dict[Phase, list[TrackedVm]] | None = None
        self._in_phase: dict[tuple[Phase, ...], list[TrackedVm]] = {}
        self._vms_in: dict[Phase, tuple[Vm, ...]] = {}
        self._metered: list[TrackedVm] | None = None

    def touch(self) -> None:
        """Discard all counts because something about a VM has changed."""
        self.changes += 1
        self._counted = self._metered = self._by_phase = None
        self._in_phase.clear()
        self._vms_in.clear()

    def _expected_vms(self) -> int:
        """Return how many VMs were requested that are not known one by one yet."""
        return 0

    def startable(self, now_s: float) -> list[TrackedVm]:
        """Return the stopped VMs that may be started now, as their own type or another, the best first within a place.

        VMs that are quarantined or in a place without room are left out. If the time of such a place is over, one of
        its VMs is included, to try it; if it may have room for some, as many of its VMs as may be tried.
        """
        return [t for t, _ in self.startable_as(now_s)]

    def startable_as(self, now_s: float) -> list[tuple[TrackedVm, str]]:
        """Return the stopped VMs that may be started now, each with the type that it is started as: see `startable`."""
        free = [t for t in self._phases()[Phase.STOPPED] if _is_free(t, now_s)]
        if not self.places.dry_at_all:
            return [(t, t.vm.vm_type) for t in free]
        free.sort(key=_by_launch)
        tried: dict[tuple[str, str], int] = {}
        found = []
        for t in free:
            vm_type = self._type_for(t, tried, now_s)
            if vm_type:
                found.append((t, vm_type))
        return found

    def _type_for(self, t: TrackedVm, tried: dict[tuple[str, str], int], now_s: float) -> str:
        """Return the type to start a stopped VM as: its own if there may be room for it, else another, else "".

        Args:
            t: The VM.
            tried: By entry of a dry place, how many VMs are chosen to try it; this VM is added if it is one of them.
            now_s: The current time.
        """
        places, own, zone = self.places, t.vm.vm_type, t.vm.zone
        most = places.at_most(own, zone, now_s)
        if most == math.inf:
            return own
        # Another type could not resume from the memory.
        types = () if t.vm.hibernates else self.types
        other = next((each for each in types if places.at_most(each, zone, now_s) == math.inf), "")
        if other and self.is_narrow(own, zone, now_s):
            return other
        tries = places.tried_together(own, zone)
        if any(tried.get(key, 0) >= most for key in tries):
            return other
        tried.update({key: tried.get(key, 0) + 1 for key in tries})
        return own

    def is_narrow(self, vm_type: str, zone: str, now_s: float) -> bool:
        """Return whether this place had no room for many VMs lately; it is used only after all others."""
        return self.places.free_from_s(vm_type, zone) > now_s

    def start_success(self, now_s: float) -> float:
        """Return the odds, above 0 and up to 1, that a start of a stopped VM works in this hour; 1 without stopped VMs."""
        counted: dict[tuple[str, str], int] = {}
        for t in self.in_phase(Phase.STOPPED):
            place = t.vm.vm_type, t.vm.zone
            counted[place] = counted.get(place, 0) + 1
        if not counted:
            return 1.0
        odds = sum(self.places.success(*place, now_s) * vms for place, vms in sorted(counted.items()))
        return odds / sum(counted.values())

    def to_restore(self, now_s: float) -> list[TrackedVm]:
        """Return the stopped VMs to change back to their own type, which were started as another, in the order of ids."""
        return [
            t
            for t in self.in_phase(Phase.STOPPED)
            if not t.restoring
            and t.restore_from_s <= now_s
            and t.vm.tags.get(TYPE_TAG, t.vm.vm_type) != t.vm.vm_type
        ]

    def returnable(self, now_s: float) -> list[TrackedVm]:
        """Return the draining VMs that may serve again, the latest to leave first: they have most of their work left."""
        found = [t for t in self.in_phase(Phase.DRAINING) if t.quarantined_until_s <= now_s]
        return sorted(found, key=lambda t: (-t.phase_since_s, t.vm.id))

    def stoppable(self, now_s: float, minimum_on_time_s: float) -> list[TrackedVm]:
        """Return the unprotected VMs in service past their minimum on-time, in the order in which they became known.

        VMs that seem to run on after an order to stop them are included, first those that are not in service.
        """
        doubted = [t for t in self._phases()[Phase.RUNNING] if t.stop_doubted]
        serving = self._phases()[Phase.IN_SERVICE]
        return [t for t in (*doubted, *serving) if _is_stoppable(t, now_s, minimum_on_time_s)]

    def counts(self, now_s: float, minimum_on_time_s: float) -> Counts:
        """Return the counts by phase; the same object as in the last call if nothing has changed."""
        if (counts := self._cached_counts(now_s, minimum_on_time_s)) is not None:
            return counts
        tally = _Tally()
        tally.add([*self.vms.values()], self.places, now_s, minimum_on_time_s)
        self.looked_at += len(self.vms)
        return self._keep(tally, now_s, minimum_on_time_s)

    def counting(self, now_s: float, minimum_on_time_s: float) -> Iterator[int]:
        """Prepare what `counts` needs part by part, so that it then returns at once; yields how many VMs were looked at.

        Anything may happen between two parts. If a VM or a place changes, this ends, and `counts` counts by itself.
        """
        if self._cached_counts(now_s, minimum_on_time_s) is not None:
            return
        tally, vms, changes, places = _Tally(), [*self.vms.values()], self.changes, self.places.version
        for begin in range(0, len(vms), PART_VMS):
            part = vms[begin : begin + PART_VMS]
            tally.add(part, self.places, now_s, minimum_on_time_s)
            self.looked_at += len(part)
            yield len(part)
            if self.changes != changes or self.places.version != places:
                return
        self._keep(tally, now_s, minimum_on_time_s)

    def _cached_counts(self, now_s: float, minimum_on_time_s: float) -> Counts | None:
        """Return the last counts if they still hold, else None."""
        last = self._counted
        if last is not None:
            same = last.minimum_on_time_s == minimum_on_time_s and last.places == self.places.version
            if same and last.from_s <= now_s < last.until_s:
                return last.counts
        return None

    def _keep(self, tally: _Tally, now_s: float, minimum_on_time_s: float) -> Counts:
        """Return and keep the counts of all VMs."""
        self._by_phase = found = tally.by_phase
        expected = self._expected_vms()
        counts = Counts(
            in_service=len(found[Phase.IN_SERVICE]),
            starting=expected + sum(t.coming for phase in ON_THE_WAY for t in found[phase]),
            draining=len(found[Phase.DRAINING]),
            stopping=len(found[Phase.STOPPING]),
            stopped=len(found[Phase.STOPPED]),
            startable=len(self.returnable(now_s))
            + (len(self.startable(now_s)) if self.places.dry_at_all else tally.startable),
            provisioned=len(self.vms) - len(found[Phase.LOST]) + expected,
            stoppable=tally.stoppable,
        )
        until_s = tally.until_s - _EDGE_S
        self._counted = _Counted(counts, minimum_on_time_s, now_s, until_s, self.places.version)
        return counts

    def _phases(self) -> dict[Phase, list[TrackedVm]]:
        """Return the VMs by phase, in the order in which they became known."""
        if self._by_phase is None:
            found: dict[Phase, list[TrackedVm]] = {phase: [] for phase in Phase}
            for t in self.vms.values():
                found[t.phase].append(t)
            self._by_phase = found
        return self._by_phase

    def known_in(self, phase: Phase) -> Sequence[TrackedVm]:
        """Return the VMs in a phase, in the order in which they became known."""
        return self._phases()[phase]

    def in_phase(self, *phases: Phase) -> list[TrackedVm]:
        """Return the VMs in any of these phases, in the order of ids. The caller must not change the list."""
        found = self._in_phase.get(phases)
        if found is None:
            of = self._phases()
            found = sorted((t for phase in phases for t in of[phase]), key=_ID)
            self._in_phase[phases] = found
        return found

    def vms_in(self, phase: Phase) -> tuple[Vm, ...]:
        """Return the VMs in a phase as listed, in the order of ids; the same tuple as before if nothing has changed."""
        found = self._vms_in.get(phase)
        if found is None:
            found = self._vms_in[phase] = tuple(t.vm for t in self.in_phase(phase))
        return found

    def metered(self) -> list[TrackedVm]:
        """Return the VMs that run, or have run since the meter last looked, in the order in which they became known."""
        if self._metered is None:
            self._metered = [t for t in self.vms.values() if t.run is not None or t.closed_runs]
        return self._metered

    def dry(self, now_s: float) -> list[tuple[str, str]]:
        """Return the (type, zone) pairs that had no capacity recently."""
        return self.places.dry(now_s)

    def unsettled_actions(self) -> set[int]:
        """Return the actions with an order whose outcome only a listing can tell."""
        orders = (t.order for t in self.vms.values() if t.order is not None)
        return {order.action_id for order in orders if order.unknown and not order.confirmed}


def _is_free(t: TrackedVm, now_s: float) -> bool:
    """Return whether nothing about a stopped VM itself prevents a start."""
    return t.quarantined_until_s <= now_s and not t.restoring and not t.disowned


def _is_stoppable(t: TrackedVm, now_s: float, minimum_on_time_s: float) -> bool:
    """Return whether a VM in service, or one that seems to run on after an order to stop it, may be stopped."""
    if is_stop_forbidden(t, now_s):
        return False
    return now_s - _on_since_s(t) >= minimum_on_time_s or (t.stop_doubted and not t.dismissed)


def is_stop_forbidden(t: TrackedVm, now_s: float) -> bool:
    """Return whether the VM must not be stopped because people want it on or it is not ours to stop."""
    tags = t.vm.tags
    return PROTECTED_TAG in tags or GROUP_TAG in tags or t.disowned or t.hands_off_until_s > now_s


def _by_launch(t: TrackedVm) -> tuple[float, str]:
    """Sort key: least recently launched first, so that every VM gets its turn."""
    return t.vm.launched_at_s, t.vm.id


def _on_since_s(t: TrackedVm) -> float:
    # A VM that we did not start ourselves has been on since its launch, not since we first saw it.
    if t.run is not None and t.run.counts_start:
        return t.in_service_from_s if t.in_service_from_s is not None else t.phase_since_s
    return t.vm.launched_at_s
