"""What the daemon knows about each VM: the listing reconciled with its own orders in flight.

Rules of this file: the provider is the truth, but its listings lag. An order counts at once and is settled
by a listing; an order that no listing confirms within `consistency_s` has failed. A VM is gone only when
several complete listings do not show it. Time comes in as an argument; nothing here calls anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.daemon.metering import Run
from autoscaler.ports import BATCH_REFUSED, Listing, Outcome, OutcomeKind, Verb, Vm, VmState

PROTECTED_TAG = "autoscaler:protected"
"""VMs with this tag, whatever its value, are never stopped by the daemon."""


class Phase(StrEnum):
    """Where a VM is in its life, as the daemon counts it."""

    PROVISIONING = "provisioning"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    """Runs, not yet ready to serve."""
    IN_SERVICE = "in_service"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    """Terminated, or its start or stop took far too long: nobody counts on it."""


ON_THE_WAY = frozenset({Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the inventory waits before it believes the worst, per fleet.

    Attributes:
        start_s: From an order to start until the VM is no longer counted as coming.
        stop_s: From an order to stop until the VM is given up.
        consistency_s: How far a listing may lag behind an accepted order.
        absent_listings: Complete listings without a VM that make it gone.
        quarantine_s: How long a VM whose start failed is not tried again.
        dry_s: How long a (type, zone) without capacity is not tried again.
    """

    start_s: float = 180.0
    stop_s: float = 900.0
    consistency_s: float = 30.0
    absent_listings: int = 3
    quarantine_s: float = 600.0
    dry_s: float = 180.0


@dataclass(slots=True)
class Order:
    """One of our calls on one VM that no listing has confirmed yet."""

    verb: Verb
    sent_at_s: float
    action_id: int
    unknown: bool = False
    """The call's outcome is not known; only a listing can say."""


@dataclass(slots=True)
class TrackedVm:
    """One VM and what became of our orders on it."""

    vm: Vm
    phase: Phase
    phase_since_s: float
    order: Order | None = None
    ordered_at_s: float | None = None
    in_service_from_s: float | None = None
    run: Run | None = None
    closed_runs: list[Run] = field(default_factory=list)
    overdue: bool = False
    missing: int = 0
    quarantined_until_s: float = float("-inf")
    quarantine_reason: str = ""

    def move(self, phase: Phase, at_s: float) -> None:
        """Enter a phase; staying in it changes nothing."""
        if phase is not self.phase:
            self.phase, self.phase_since_s, self.overdue = phase, at_s, False

    def end_run(self, at_s: float) -> None:
        """The billed run ends; kept until the meter has charged it."""
        if self.run is not None:
            self.run.to_s = max(at_s, self.run.from_s)
            self.closed_runs.append(self.run)
            self.run = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to a VM outside of a decision; becomes an event."""

    kind: str
    fleet: str
    text: str


@dataclass(frozen=True, slots=True)
class Counts:
    """VMs of one fleet by phase; `stopped` are all in the warm pool, `startable` those that may be started."""

    in_service: int
    starting: int
    draining: int
    stopping: int
    stopped: int
    startable: int
    provisioned: int
    stoppable: int


class FleetInventory:
    """The VMs of one fleet.

    Args:
        fleet: Its name.
        patience: How long to wait for what.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        self.fleet = fleet
        self.patience = patience or Patience()
        self.vms: dict[str, TrackedVm] = {}
        self.start_times_s: list[float] = []
        """Seconds from order to in service of the starts that completed since the last `take_start_times`."""
        self._dry_until_s: dict[tuple[str, str], float] = {}
        self._listed_at_s: float | None = None

    # ── observing ──────────────────────────────────────────────────────────────────────────────────────

    def reconcile(self, listing: Listing, vms: Iterable[Vm], now_s: float) -> list[Note]:
        """Take in a listing.

        Args:
            listing: The whole view; only a complete one can show that a VM is absent.
            vms: Those of it that belong to this fleet.
            now_s: The clock.

        Returns:
            What deserves an event.
        """
        notes: list[Note] = []
        seen = set()
        for vm in vms:
            seen.add(vm.id)
            tracked = self.vms.get(vm.id)
            if tracked is None:
                if vm.state is not VmState.TERMINATED:
                    self.vms[vm.id] = self._adopt(vm, now_s)
                continue
            tracked.missing = 0
            self._update(tracked, vm, listing, now_s, notes)
        if listing.complete:
            self._age_absent(seen, listing, notes)
            self._listed_at_s = _middle(listing)
        self._give_up_late(now_s, notes)
        return notes

    def _adopt(self, vm: Vm, now_s: float) -> TrackedVm:
        tracked = TrackedVm(vm, _PHASE_OF_STATE[vm.state], now_s)
        if vm.state is VmState.RUNNING:
            # Found running: when it began is not known, so it is charged from now, and its minimum on-time
            # counts from its launch.
            tracked.run = Run(now_s)
        return tracked

    def _update(self, t: TrackedVm, vm: Vm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        t.vm = vm
        lags = (
            t.order is not None and listing.requested_at_s < t.order.sent_at_s + self.patience.consistency_s
        )
        match vm.state:
            case VmState.TERMINATED:
                if t.phase is not Phase.LOST:
                    notes.append(self._note("vm_terminated", f"{vm.id} was terminated{_because(vm)}"))
                t.end_run(self._between(listing))
                t.order = None
                t.move(Phase.LOST, now_s)
            case VmState.PENDING:
                self._seen_pending(t, listing, now_s, lags=lags)
            case VmState.RUNNING:
                self._seen_running(t, listing, now_s, notes, lags=lags)
            case VmState.STOPPING | VmState.STOPPED:
                self._seen_stopped(t, listing, now_s, notes, lags=lags)

    def _seen_pending(self, t: TrackedVm, listing: Listing, now_s: float, *, lags: bool) -> None:
        if t.order is not None and t.order.verb is Verb.STOP and lags:
            return
        t.order = None
        t.end_run(self._between(listing))
        if t.phase not in ON_THE_WAY:
            t.in_service_from_s = None
            t.move(Phase.STARTING, now_s)

    def _seen_running(
        self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note], *, lags: bool
    ) -> None:
        if t.order is not None and t.order.verb is Verb.STOP:
            if lags:
                return
            notes.append(self._note("stop_not_taken", f"{t.vm.id} still runs after an order to stop"))
            t.order = None
            t.run = t.run or Run(now_s)
            t.move(Phase.IN_SERVICE if t.in_service_from_s is not None else Phase.RUNNING, now_s)
            return
        if t.run is None:
            t.run = Run(self._between(listing, after_s=t.ordered_at_s))
            t.run.counts_start = t.phase in ON_THE_WAY or t.order is not None
        t.order = None
        if t.phase not in (Phase.IN_SERVICE, Phase.RUNNING, Phase.DRAINING):
            # Started by somebody else, or after we gave it up: it serves like any other once it is ready.
            if t.phase in (Phase.STOPPED, Phase.STOPPING):
                notes.append(self._note("started_outside", f"{t.vm.id} was started by somebody else"))
            t.in_service_from_s = None
            t.move(Phase.RUNNING, now_s)

    def _seen_stopped(
        self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note], *, lags: bool
    ) -> None:
        phase = Phase.STOPPED if t.vm.state is VmState.STOPPED else Phase.STOPPING
        if t.order is not None and t.order.verb is Verb.STOP:
            t.order = None
        elif t.order is not None:
            if lags:
                return
            self._start_failed(t, now_s, notes)
        elif t.phase in ON_THE_WAY:
            self._start_failed(t, now_s, notes)
        elif t.phase in (Phase.IN_SERVICE, Phase.DRAINING):
            notes.append(
                self._note("stopped_outside", f"{t.vm.id} was stopped by somebody else{_because(t.vm)}")
            )
        t.end_run(self._between(listing))
        t.in_service_from_s = None
        t.move(phase, now_s)

    def _start_failed(self, t: TrackedVm, now_s: float, notes: list[Note]) -> None:
        t.order = None
        t.ordered_at_s = None
        self._quarantine(t, now_s, f"its start fell back to stopped{_because(t.vm)}")
        if "Capacity" in t.vm.state_reason:
            self._dry_until_s[t.vm.vm_type, t.vm.zone] = now_s + self.patience.dry_s
        notes.append(self._note("start_fell_back", f"{t.vm.id} fell back to stopped{_because(t.vm)}"))

    def _age_absent(self, seen: set[str], listing: Listing, notes: list[Note]) -> None:
        for vm_id, t in list(self.vms.items()):
            if vm_id in seen:
                continue
            young = (
                t.order is not None
                and listing.requested_at_s < t.order.sent_at_s + self.patience.consistency_s
            )
            if young:
                continue
            t.missing += 1
            if t.missing >= self.patience.absent_listings:
                if t.phase is not Phase.LOST:
                    notes.append(
                        self._note("vm_gone", f"{vm_id} is missing from {t.missing} complete listings")
                    )
                del self.vms[vm_id]

    def _give_up_late(self, now_s: float, notes: list[Note]) -> None:
        for t in self.vms.values():
            waited_s = now_s - t.phase_since_s
            if t.overdue:
                continue
            if t.phase in ON_THE_WAY and waited_s > self.patience.start_s:
                t.overdue = True
                notes.append(
                    self._note(
                        "start_overdue", f"{t.vm.id} is {t.phase} for {waited_s:.0f} s; not counted on"
                    )
                )
            elif t.phase is Phase.STOPPING and waited_s > self.patience.stop_s:
                t.overdue = True
                notes.append(self._note("stop_overdue", f"{t.vm.id} is stopping for {waited_s:.0f} s"))

    def _between(self, listing: Listing, after_s: float | None = None) -> float:
        """Best guess of when something happened that this listing shows and the one before did not."""
        upper = _middle(listing)
        lower = upper if self._listed_at_s is None else self._listed_at_s
        if after_s is not None:
            lower = max(lower, after_s)
        return (min(lower, upper) + upper) / 2.0

    def mark_ready(self, ready: Iterable[str], now_s: float) -> None:
        """VMs whose readiness probe passed come into service."""
        for vm_id in ready:
            t = self.vms.get(vm_id)
            if t is None or t.phase is not Phase.RUNNING:
                continue
            t.in_service_from_s = now_s
            t.move(Phase.IN_SERVICE, now_s)
            if t.ordered_at_s is not None:
                self.start_times_s.append(now_s - t.ordered_at_s)
                t.ordered_at_s = None

    def take_start_times(self) -> list[float]:
        """Seconds from order to in service of the starts completed since the last call."""
        taken, self.start_times_s = self.start_times_s, []
        return taken

    # ── acting ─────────────────────────────────────────────────────────────────────────────────────────

    def sent(self, verb: Verb, vm_ids: Sequence[str], action_id: int, now_s: float) -> None:
        """An intent is recorded and its call is about to be made: it counts from now on."""
        for vm_id in vm_ids:
            t = self.vms[vm_id]
            t.order = Order(verb, now_s, action_id)
            if verb is Verb.START:
                t.ordered_at_s = now_s
                t.move(Phase.STARTING, now_s)
            else:
                t.move(Phase.STOPPING, now_s)

    def settle(self, verb: Verb, outcomes: Iterable[Outcome], sent_s: float, received_s: float) -> list[Note]:
        """Take in what came back from the provider for orders of this verb."""
        notes: list[Note] = []
        for outcome in outcomes:
            t = self.vms.get(outcome.vm_id)
            if t is None:
                continue
            if verb is Verb.START:
                self._settle_start(t, outcome, received_s, notes)
            else:
                self._settle_stop(t, outcome, sent_s, received_s, notes)
        return notes

    def _settle_start(self, t: TrackedVm, outcome: Outcome, now_s: float, notes: list[Note]) -> None:
        match outcome.kind:
            case OutcomeKind.ACCEPTED:
                if t.order is not None:
                    t.order.sent_at_s = now_s
                return
            case OutcomeKind.UNKNOWN:
                if t.order is not None:
                    t.order.unknown, t.order.sent_at_s = True, now_s
                return
            case OutcomeKind.NO_CAPACITY:
                self._dry_until_s[t.vm.vm_type, t.vm.zone] = now_s + self.patience.dry_s
            case OutcomeKind.REFUSED if outcome.code != BATCH_REFUSED:
                self._quarantine(t, now_s, f"{outcome.code}: {outcome.message}")
            case _:
                pass
        notes.append(
            self._note(
                "start_not_accepted", f"{t.vm.id}: {outcome.kind} {outcome.code} {outcome.message}".strip()
            )
        )
        t.order, t.ordered_at_s = None, None
        t.move(Phase.STOPPED, now_s)

    def _settle_stop(
        self, t: TrackedVm, outcome: Outcome, sent_s: float, received_s: float, notes: list[Note]
    ) -> None:
        if outcome.kind is OutcomeKind.ACCEPTED:
            t.end_run((sent_s + received_s) / 2.0)
            t.in_service_from_s = None
            if t.order is not None:
                t.order.sent_at_s = received_s
            return
        if outcome.kind is OutcomeKind.UNKNOWN:
            if t.order is not None:
                t.order.unknown, t.order.sent_at_s = True, received_s
            return
        notes.append(
            self._note(
                "stop_not_accepted", f"{t.vm.id}: {outcome.kind} {outcome.code} {outcome.message}".strip()
            )
        )
        t.order = None
        t.move(Phase.IN_SERVICE if t.in_service_from_s is not None else Phase.RUNNING, received_s)

    def provisioned(
        self, outcomes: Iterable[Outcome], vm_of: Mapping[str, Vm], action_id: int, now_s: float
    ) -> None:
        """New VMs were accepted: they count as on their way before any listing shows them."""
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.ACCEPTED and outcome.vm_id:
                t = TrackedVm(vm_of[outcome.vm_id], Phase.PROVISIONING, now_s)
                t.order, t.ordered_at_s = Order(Verb.PROVISION, now_s, action_id), now_s
                self.vms[outcome.vm_id] = t

    def _note(self, kind: str, text: str) -> Note:
        return Note(kind, self.fleet, text)

    def _quarantine(self, t: TrackedVm, now_s: float, reason: str) -> None:
        t.quarantined_until_s, t.quarantine_reason = now_s + self.patience.quarantine_s, reason

    # ── counting ───────────────────────────────────────────────────────────────────────────────────────

    def startable(self, now_s: float) -> list[TrackedVm]:
        """Stopped VMs that are neither quarantined nor in a dry (type, zone)."""
        return [
            t
            for t in self.vms.values()
            if t.phase is Phase.STOPPED
            and t.quarantined_until_s <= now_s
            and self._dry_until_s.get((t.vm.vm_type, t.vm.zone), float("-inf")) <= now_s
        ]

    def stoppable(self, now_s: float, minimum_on_time_s: float) -> list[TrackedVm]:
        """VMs in service past their minimum on-time and without protection."""
        return [
            t
            for t in self.vms.values()
            if t.phase is Phase.IN_SERVICE
            and PROTECTED_TAG not in t.vm.tags
            and now_s - self._on_since_s(t) >= minimum_on_time_s
        ]

    @staticmethod
    def _on_since_s(t: TrackedVm) -> float:
        # A VM that we did not start ourselves has been on since its launch, not since we first saw it.
        if t.run is not None and t.run.counts_start:
            return t.in_service_from_s if t.in_service_from_s is not None else t.phase_since_s
        return t.vm.launched_at_s

    def counts(self, now_s: float, minimum_on_time_s: float) -> Counts:
        """How many VMs are where."""
        by_phase = dict.fromkeys(Phase, 0)
        coming = 0
        for t in self.vms.values():
            by_phase[t.phase] += 1
            coming += t.phase in ON_THE_WAY and not t.overdue
        return Counts(
            in_service=by_phase[Phase.IN_SERVICE],
            starting=coming,
            draining=by_phase[Phase.DRAINING],
            stopping=by_phase[Phase.STOPPING],
            stopped=by_phase[Phase.STOPPED],
            startable=len(self.startable(now_s)),
            provisioned=len(self.vms) - by_phase[Phase.LOST],
            stoppable=len(self.stoppable(now_s, minimum_on_time_s)),
        )

    def in_phase(self, *phases: Phase) -> list[TrackedVm]:
        """The VMs in any of these phases, in the order of their ids."""
        return sorted((t for t in self.vms.values() if t.phase in phases), key=lambda t: t.vm.id)

    def dry(self, now_s: float) -> list[tuple[str, str]]:
        """The (type, zone) pairs that had no capacity lately."""
        return sorted(key for key, until_s in self._dry_until_s.items() if until_s > now_s)

    def unsettled_actions(self) -> set[int]:
        """Actions with an order whose outcome only a listing can tell."""
        return {t.order.action_id for t in self.vms.values() if t.order is not None and t.order.unknown}


_PHASE_OF_STATE = {
    VmState.PENDING: Phase.STARTING,
    VmState.RUNNING: Phase.RUNNING,
    VmState.STOPPING: Phase.STOPPING,
    VmState.STOPPED: Phase.STOPPED,
    VmState.TERMINATED: Phase.LOST,
}


def _middle(listing: Listing) -> float:
    return (listing.requested_at_s + listing.received_at_s) / 2.0


def _because(vm: Vm) -> str:
    return f" ({vm.state_reason})" if vm.state_reason else ""
