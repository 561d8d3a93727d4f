"""Faults of the world: which fault is active, when, and for which VMs and calls.

Rules: a fault is a frozen value with a window relative to the start of the world; no fault is on by default.
Whether a fault with a probability strikes is drawn from its place in the schedule and from what it would strike,
never from a running stream, so one fault does not shift another. `world` implements the effects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.cloud.physics import Purpose, uniform


class FaultKind(StrEnum):
    """Kind of a fault: what goes wrong, and what `delay_s` and `code` mean (default in parentheses)."""

    NO_CAPACITY = "no_capacity"
    """Starts and launches fail with InsufficientInstanceCapacity (or `code`)."""
    FALL_BACK = "fall_back"
    """Starts are accepted and fall back to stopped after `delay_s` (10) with `code` as the state reason."""
    STUCK_PENDING = "stuck_pending"
    """Started VMs stay pending `delay_s` longer, or for ever without it."""
    STUCK_STOPPING = "stuck_stopping"
    """Stopped VMs stay stopping `delay_s` longer, or for ever without it. A forced stop ends this."""
    UNREADY = "unready"
    """Started VMs run but become ready `delay_s` later, or never without it."""
    NO_HIBERNATION = "no_hibernation"
    """Stops that should save the memory are refused with `code` (UnsupportedHibernationConfiguration)."""
    HOST_STOP = "host_stop"
    """At the start of the window, the provider stops running VMs with `code` (Server.ScheduledStop) as the state reason."""
    THROTTLE = "throttle"
    """Calls fail with RequestLimitExceeded; nothing is done."""
    API_ERROR = "api_error"
    """Calls fail with `code` (InternalError); nothing is done."""
    LOST_REPLY = "lost_reply"
    """Calls are carried out and then answered with `code` (InternalError), so the caller does not know the outcome."""
    LATENCY = "latency"
    """Answers take `delay_s` longer. A call takes effect when it arrives."""
    LISTING_LAG = "listing_lag"
    """Listings show VMs as they were `delay_s` ago."""
    MISSING_ROWS = "missing_rows"
    """Listings leave out VMs, which are drawn anew for each listing."""


ON_CALLS = frozenset({FaultKind.THROTTLE, FaultKind.API_ERROR, FaultKind.LOST_REPLY, FaultKind.LATENCY})
"""Kinds that strike API calls and may be limited to `actions`."""

NEEDS_DELAY = frozenset({FaultKind.LATENCY, FaultKind.LISTING_LAG})
"""Kinds that require `delay_s`."""

DEFAULT_CODES = {
    FaultKind.NO_CAPACITY: "InsufficientInstanceCapacity",
    FaultKind.FALL_BACK: "Server.InsufficientInstanceCapacity",
    FaultKind.NO_HIBERNATION: "UnsupportedHibernationConfiguration",
    FaultKind.HOST_STOP: "Server.ScheduledStop",
    FaultKind.THROTTLE: "RequestLimitExceeded",
    FaultKind.API_ERROR: "InternalError",
    FaultKind.LOST_REPLY: "InternalError",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A scheduled fault. An empty scope matches everything.

    Attributes:
        kind: What goes wrong.
        start_s: Start of the window, in seconds from the start of the world.
        end_s: End of the window, excluded.
        probability: Chance that it strikes, per VM and event, per call, or per VM and listing.
        delay_s: Duration in seconds; its meaning depends on the kind.
        code: Error code or state reason, depending on the kind; empty for the kind's default.
        zone, vm_type, fleet: Strike only VMs of this zone, type or fleet.
        vm_ids: Strike only these VMs.
        actions: Strike only these API actions, for kinds in ON_CALLS.
    """

    kind: FaultKind
    start_s: float = 0.0
    end_s: float = math.inf
    probability: float = 1.0
    delay_s: float | None = None
    code: str = ""
    zone: str = ""
    vm_type: str = ""
    fleet: str = ""
    vm_ids: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.end_s > self.start_s:
            raise ValueError(f"end_s ({self.end_s}) must be after start_s ({self.start_s})")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be within 0 and 1, not {self.probability}")
        if self.delay_s is not None and not self.delay_s >= 0:
            raise ValueError(f"delay_s must be zero or more seconds, not {self.delay_s}")
        if self.delay_s is None and self.kind in NEEDS_DELAY:
            raise ValueError(f"{self.kind} needs delay_s")
        if self.actions and self.kind not in ON_CALLS:
            raise ValueError(f"actions belong to faults on calls; {self.kind} strikes VMs")

    @property
    def reason_code(self) -> str:
        """The code given, or else the kind's default."""
        return self.code or DEFAULT_CODES.get(self.kind, "")

    @property
    def scoped(self) -> bool:
        """Whether it is limited to some VMs."""
        return bool(self.zone or self.vm_type or self.fleet or self.vm_ids)

    def covers(self, vm: Scope) -> bool:
        """Whether a VM is in the fault's scope."""
        return (
            (not self.zone or self.zone == vm.zone)
            and (not self.vm_type or self.vm_type == vm.vm_type)
            and (not self.fleet or self.fleet == vm.fleet)
            and (not self.vm_ids or vm.id in self.vm_ids)
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """The properties of a VM by which faults may be limited. A launch has an empty id."""

    id: str
    fleet: str
    vm_type: str
    zone: str


class FaultPlan:
    """The schedule of faults in one world. Faults can be added while it runs, and never change their place."""

    def __init__(self, faults: Sequence[Fault], *, seed: int, start_s: float) -> None:
        self._seed = seed
        self._start_s = start_s
        self._by_kind: dict[FaultKind, list[tuple[int, Fault]]] = {kind: [] for kind in FaultKind}
        self.faults: list[Fault] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Append a fault to the schedule."""
        self.faults.append(fault)
        self._by_kind[fault.kind].append((len(self.faults), fault))

    @property
    def longest_lag_s(self) -> float:
        """Sum of all listing lags in the schedule, in seconds."""
        return sum(fault.delay_s or 0.0 for _, fault in self._by_kind[FaultKind.LISTING_LAG])

    def active(self, kind: FaultKind, now_s: float) -> Sequence[tuple[int, Fault]]:
        """Faults of a kind whose window is open, each with its place in the schedule."""
        scheduled = self._by_kind[kind]
        if not scheduled:
            return ()
        at_s = now_s - self._start_s
        return [(place, fault) for place, fault in scheduled if fault.start_s <= at_s < fault.end_s]

    def on_vm(self, kind: FaultKind, now_s: float, vm: Scope, number: int, count: int) -> Fault | None:
        """Return the first fault that strikes this VM at its `count`-th event, or None."""
        for place, fault in self.active(kind, now_s):
            if fault.covers(vm) and self.strikes(place, fault, number, count):
                return fault
        return None

    def on_call(
        self, kind: FaultKind, now_s: float, action: str, vms: Sequence[Scope] | None, count: int
    ) -> Fault | None:
        """Return the first fault that strikes the `count`-th call, or None.

        A scoped fault strikes only if one of `vms` is in its scope; None stands for a call that affects all VMs.
        """
        if not self._by_kind[kind]:
            return None
        for place, fault in self.active(kind, now_s):
            if fault.actions and action not in fault.actions:
                continue
            if fault.scoped and vms is not None and not any(fault.covers(vm) for vm in vms):
                continue
            if self._strikes(place, fault, Purpose.FAULT_ON_CALL, int(kind in ON_CALLS), count):
                return fault
        return None

    def strikes_listing(self, place: int, fault: Fault, number: int, count: int) -> bool:
        """Whether a fault with an open window strikes this VM in the `count`-th listing."""
        return self._strikes(place, fault, Purpose.FAULT_ON_LISTING, number, count)

    def strikes(self, place: int, fault: Fault, number: int, count: int) -> bool:
        """Whether a fault strikes this VM at its `count`-th event. Window and scope are not checked."""
        return self._strikes(place, fault, Purpose.FAULT_ON_VM, number, count)

    def _strikes(self, place: int, fault: Fault, purpose: Purpose, item: int, count: int) -> bool:
        if fault.probability >= 1:
            return True
        return uniform(self._seed, place, purpose, item, count) < fault.probability
