"""The record of one VM, and the values around it: phases, orders, patience, counts.

Rules of this file: values, and the two changes that keep a VM's own fields consistent. `inventory` decides what a listing or
an outcome means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.vms.metering import Run
from autoscaler.daemon.vms.saved_memory import resumes
from autoscaler.ports import Verb, Vm, VmState

PROTECTED_TAG = "autoscaler:protected"
"""VMs with this tag, whatever its value, are never stopped by the daemon."""


TYPE_TAG = "autoscaler:type"
"""Tag with the machine type to which a VM is returned; written before it is started as another type."""

MADE_BY_TAG = "autoscaler:made-by"
"""Tag with the token of the call that made a VM, so that a daemon that lost the answer recognises its VMs."""


class Phase(StrEnum):
    """Where a VM is in its life, as the daemon counts it."""

    PROVISIONING = "provisioning"
    PREPARING = "preparing"
    """Runs, or soon will, for the warm pool and not for demand: it is being made for the pool, or tried."""
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    """Runs, and is not ready to serve yet."""
    IN_SERVICE = "in_service"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    """Terminated or given up; not counted on."""

    __hash__ = str.__hash__
    """Lookups by phase are frequent, and an Enum's own hash is computed in Python, not in C."""


ON_THE_WAY = frozenset({Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING})


PHASE_OF_STATE = {
    VmState.PENDING: Phase.STARTING,
    VmState.RUNNING: Phase.RUNNING,
    VmState.STOPPING: Phase.STOPPING,
    VmState.STOPPED: Phase.STOPPED,
    VmState.TERMINATED: Phase.LOST,
}
"""By state as listed, the phase of a VM of which nothing else is known."""

_RESTING = frozenset({Phase.STOPPED, Phase.IN_SERVICE, Phase.LOST})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one fleet's inventory waits before it gives up.

    Attributes:
        start_s: From an order to start until the VM no longer counts as coming.
        made_s: From an order to make a VM until it no longer counts as coming.
        stop_s: From an order to stop until the stop is forced.
        consistency_s: How far a listing usually lags behind an order at most.
        accepted_s: How far it may lag behind an order that the provider has accepted. If it shows the VM as before, it is
            still more likely to be outdated than the order to be lost.
        absent_listings: Complete listings without a VM after which it is gone.
        absent_s: Time that these listings must span.
        all_absent_s: Time that they must span if they show no VM of the fleet at all, not even a terminated one.
        quarantine_s: How long a VM whose start failed is not tried again; doubled with each failure in a row.
        hands_off_s: How long a VM that someone else started is not stopped, and one that a person stopped is not
            started.
    """

    start_s: float = 180.0
    made_s: float = 600.0
    stop_s: float = 900.0
    consistency_s: float = 30.0
    accepted_s: float = 90.0
    absent_listings: int = 3
    absent_s: float = 20.0
    all_absent_s: float = 600.0
    quarantine_s: float = 600.0
    hands_off_s: float = 0.0

    def coming_s(self, *, new: bool) -> float:
        """Return how long either half of a start (until the VM runs, and from then on) is waited for; `new` as in
        `TrackedVm`.
        """
        return self.made_s if new else self.start_s

    def written_off_s(self, *, new: bool) -> float:
        """Return the time from an order to start after which a VM that still does not run is written off."""
        return max(3.0 * self.coming_s(new=new), 900.0)

    def never_ready_s(self, *, new: bool) -> float:
        """Return the time for which a VM may run without becoming ready before it is stopped again."""
        return 2.0 * self.coming_s(new=new)

    @property
    def stuck_s(self) -> float:
        """Time from an order to stop after which a VM that did not stop even when forced is written off."""
        return 2.0 * self.stop_s


@dataclass(slots=True)
class Order:
    """One of our calls on one VM, kept for as long as a listing may be older than it.

    Attributes:
        verb: What was requested.
        sent_at_s: When the call was made.
        action_id: Journal id of the action.
        launched_before_s: The VM's launch time before the call; a row with a later one is newer than the call.
        answered_at_s: When the call returned; None while it is in flight.
        unknown: Whether the outcome is unknown, so that only a listing can tell.
        confirmed: Whether a listing has shown its effect.
    """

    verb: Verb
    sent_at_s: float
    action_id: int
    launched_before_s: float = float("-inf")
    answered_at_s: float | None = None
    unknown: bool = False
    confirmed: bool = False


@dataclass(slots=True)
class TrackedVm:
    """One VM, and what became of our orders on it.

    Attributes:
        vm: The VM as last listed.
        phase: Where it is in its life.
        phase_since_s: When it entered the phase.
        order: Our order that listings may not show yet; None without one.
        ordered_at_s: When the start under way was ordered; None without one.
        source: The state that its last start began from.
        new: Whether we made it, and it has been neither ready nor stopped since: this takes longer than a start.
        pending_at_s: When the cloud began the start under way.
        in_service_from_s: When it came into service; None if it is not in service.
        stopping_from_s: When we ordered the stop under way; None if there is none, or it is not ours.
        run: The billed run under way.
        closed_runs: Runs that have ended and are not charged yet.
        overdue: Whether its start or stop takes too long: a start is not counted on, a stop is forced.
        at_rest: The row that was last applied, if applying it again would change nothing.
        missing: Complete listings in a row that did not show it.
        missing_since_s: When the first of them was requested.
        quarantined_until_s: It is not started before this time.
        quarantine_reason: For people, why it is quarantined.
        hands_off_until_s: It is not stopped before this time, because someone else started it, the balancer did not
            release it, or its stop was refused.
        failures: Failed starts since the last that reached service.
        denied: Whether permission for its last start was denied; others are tried before it.
        brief: How many times in a row it was shut down from within soon after it came into service.
        stops_refused: Stops refused since the last accepted one.
        stop_doubted: Whether it seems to run on after an order to stop it. It is stopped before any other, since listings may be
            outdated, and then it does not run.
        late: Whether it was overtaken: another VM was ordered in its place before it arrived.
        hedged: Whether the budget has paid for overtaking it.
        dismissed: Why it is stopped before it ever serves; empty if it is not.
        spared: Whether it was reported that it does not become ready and is not stopped for that.
        forced: Whether its stop was forced.
        saves_memory: Whether the stop under way saves its memory first, which is billed.
        start_as: The type that it is started as; empty for its own.
        restoring: Whether its type is being changed back, or no listing shows yet that it was.
        restore_from_s: Its type is not changed back before this time, because that failed; minus infinity if it did not.
        disowned: Whether an operator gave it up: it stays as it is until listings no longer show it.
    """

    vm: Vm
    phase: Phase
    phase_since_s: float
    order: Order | None = None
    ordered_at_s: float | None = None
    source: StartSource = StartSource.STOPPED
    new: bool = False
    pending_at_s: float | None = None
    in_service_from_s: float | None = None
    stopping_from_s: float | None = None
    run: Run | None = None
    closed_runs: list[Run] = field(default_factory=list)
    overdue: bool = False
    at_rest: Vm | None = None
    missing: int = 0
    missing_since_s: float = float("inf")
    quarantined_until_s: float = float("-inf")
    quarantine_reason: str = ""
    hands_off_until_s: float = float("-inf")
    failures: int = 0
    denied: bool = False
    brief: int = 0
    stops_refused: int = 0
    stop_doubted: bool = False
    late: bool = False
    hedged: bool = False
    dismissed: str = ""
    spared: bool = False
    forced: bool = False
    saves_memory: bool = False
    start_as: str = ""
    restoring: bool = False
    restore_from_s: float = float("-inf")
    disowned: bool = False

    def start_ordered(self, at_s: float) -> None:
        """Note that a start is ordered, from which the durations of its phases are measured."""
        self.ordered_at_s, self.pending_at_s = at_s, None
        self.source = StartSource.HIBERNATED if resumes(self.vm, at_s) else StartSource.STOPPED

    @property
    def rests(self) -> bool:
        """Whether nothing is awaited of the VM: neither the effect of a call nor a change of phase."""
        return self.order is None and self.phase in _RESTING

    def move(self, phase: Phase, at_s: float) -> None:
        """Enter a phase; nothing changes if the VM is already in it."""
        if phase is self.phase:
            return
        self.phase, self.phase_since_s, self.overdue, self.forced = phase, at_s, False, False
        self.saves_memory = self.spared = False
        self.stopping_from_s = None
        if phase not in ON_THE_WAY and phase is not Phase.STOPPING:
            self.late = self.hedged = False
            self.dismissed = ""

    @property
    def coming(self) -> bool:
        """Whether the VM counts as coming: on its way, and neither given up, overtaken nor about to be stopped."""
        if self.phase not in ON_THE_WAY or self.overdue or self.dismissed:
            return False
        return self.phase is Phase.RUNNING or not self.late

    def end_run(self, at_s: float) -> None:
        """End the billed run; it is kept until the meter has charged it."""
        if self.run is not None:
            self.run.to_s = max(at_s, self.run.from_s)
            self.closed_runs.append(self.run)
            self.run = None


@dataclass(frozen=True, slots=True)
class Counts:
    """VMs of one fleet by phase.

    Attributes:
        in_service: VMs in service.
        starting: VMs that count as coming, including those that are requested and not listed yet.
        draining: VMs that are draining.
        stopping: VMs that are stopping.
        stopped: Stopped VMs; all of them are in the warm pool.
        startable: Stopped or draining VMs that may serve if they are started or taken back now.
        provisioned: VMs that exist, including those that are requested and not listed yet.
        stoppable: VMs in service that may be stopped now.
    """

    in_service: int
    starting: int
    draining: int
    stopping: int
    stopped: int
    startable: int
    provisioned: int
    stoppable: int
