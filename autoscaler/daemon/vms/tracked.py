"""The record of one VM, and the values around it: phases, orders, patience, counts.

Rules of this file: values, and the two changes that keep a VM's own fields consistent. `inventory` decides what a listing or
an outcome means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.vms.memory import resumes
from autoscaler.daemon.vms.metering import Run
from autoscaler.ports import Verb, Vm

PROTECTED_TAG = "autoscaler:protected"
"""VMs with this tag, whatever its value, are never stopped by the daemon."""


TYPE_TAG = "autoscaler:type"
"""The machine type that a VM goes back to: written before it is started as another one."""

MADE_BY_TAG = "autoscaler:made-by"
"""Names the provisioning that made a VM, so that a daemon that did not hear the answer knows its own VMs."""


class Phase(StrEnum):
    """Where a VM is in its life, as the daemon counts it."""

    PROVISIONING = "provisioning"
    PREPARING = "preparing"
    """Runs, or is about to, for the warm pool and not for demand: made for it, or tried."""
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    """Runs, not yet ready to serve."""
    IN_SERVICE = "in_service"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    """Terminated: nobody counts on it."""

    __hash__ = str.__hash__
    """VMs are looked up by phase all the time, and an Enum's own is not made in C."""


ON_THE_WAY = frozenset({Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING})


_RESTING = frozenset({Phase.STOPPED, Phase.IN_SERVICE, Phase.LOST})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the inventory waits before it believes the worst, per fleet.

    Attributes:
        start_s: From an order to start until the VM is no longer counted as coming.
        made_s: The same from an order to make it from nothing.
        stop_s: From an order to stop until the stop is forced.
        consistency_s: How far a listing may lag behind an accepted order.
        absent_listings: Complete listings without a VM that make it gone.
        absent_s: Time over which they must stretch.
        all_absent_s: The same where they show no VM of the fleet at all, not even one that was terminated.
        hands_off_s: How long a VM that somebody else started is not stopped, and one that a person stopped is not
            started.
        quarantine_s: How long a VM whose start failed is not tried again; twice as long each time in a row.
    """

    start_s: float = 180.0
    made_s: float = 600.0
    stop_s: float = 900.0
    consistency_s: float = 30.0
    absent_listings: int = 3
    absent_s: float = 20.0
    all_absent_s: float = 600.0
    quarantine_s: float = 600.0
    hands_off_s: float = 0.0

    def coming_s(self, *, new: bool) -> float:
        """How long either part of a start, until it runs and from there, is counted on; `new` as of `TrackedVm`."""
        return self.made_s if new else self.start_s

    def written_off_s(self, *, new: bool) -> float:
        """From an order to start until a VM that still does not run is written off."""
        return max(3.0 * self.coming_s(new=new), 900.0)

    def never_ready_s(self, *, new: bool) -> float:
        """From the moment a VM runs until it is stopped again, since it does not become ready."""
        return 2.0 * self.coming_s(new=new)

    @property
    def stuck_s(self) -> float:
        """From an order to stop until a VM that was forced to stop and did not is written off."""
        return 2.0 * self.stop_s


@dataclass(slots=True)
class Order:
    """One of our calls on one VM, kept for as long as a listing may be older than it.

    Attributes:
        verb: What was asked for.
        sent_at_s: When the call was made.
        action_id: Journal id of the action.
        launched_before_s: The VM's launch time before the call: a row with a later one is newer than the call.
        answered_at_s: When the call came back; None while it is under way.
        unknown: Its outcome is not known; only a listing can say.
        confirmed: A listing has shown its effect.
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
    """One VM and what became of our orders on it."""

    vm: Vm
    phase: Phase
    phase_since_s: float
    order: Order | None = None
    ordered_at_s: float | None = None
    source: StartSource = StartSource.STOPPED
    """What its last start began from."""
    new: bool = False
    """Made from nothing by us, and neither ready nor stopped since: this takes longer than a start."""
    pending_at_s: float | None = None
    """When the cloud took up the start under way."""
    in_service_from_s: float | None = None
    stopping_from_s: float | None = None
    """When the stop under way was ordered; None where none is, or somebody else did."""
    run: Run | None = None
    closed_runs: list[Run] = field(default_factory=list)
    overdue: bool = False
    at_rest: Vm | None = None
    """The row that was last taken in, where taking it in again would change nothing."""
    missing: int = 0
    missing_since_s: float = float("inf")
    quarantined_until_s: float = float("-inf")
    quarantine_reason: str = ""
    hands_off_until_s: float = float("-inf")
    """Somebody else started it, the balancer did not let it go, or its stop was refused: it is not stopped before."""
    failures: int = 0
    """Failed starts since the last that reached service."""
    denied: bool = False
    """We were denied its last start: others are tried before it."""
    brief: int = 0
    """Times in a row that it was shut down from inside soon after it came into service."""
    stops_refused: int = 0
    """Stops that were refused since the last that was taken."""
    late: bool = False
    """Overtaken: another VM was ordered in its place before it came."""
    hedged: bool = False
    """Overtaking it was paid for."""
    dismissed: str = ""
    """Why it is stopped before it ever serves; empty where it is not."""
    spared: bool = False
    """It does not become ready, it is not stopped for it, and that was told."""
    forced: bool = False
    """A stop was forced."""
    saves_memory: bool = False
    """The stop under way saves its memory first, and is billed until that is done."""
    start_as: str = ""
    """The type that it is started as, where that is not the one it has."""
    restoring: bool = False
    """Its type is being changed back."""
    disowned: bool = False
    """An operator gave it up: until listings no longer show it, it stays as it is."""

    def start_ordered(self, at_s: float) -> None:
        """A start is ordered; how long its parts take is measured from here."""
        self.ordered_at_s, self.pending_at_s = at_s, None
        self.source = StartSource.HIBERNATED if resumes(self.vm, at_s) else StartSource.STOPPED

    @property
    def rests(self) -> bool:
        """Whether nothing is awaited of it: neither a call of ours nor a change of phase."""
        return self.order is None and self.phase in _RESTING

    def move(self, phase: Phase, at_s: float) -> None:
        """Enter a phase; staying in it changes nothing."""
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
        """Whether it is counted on: on its way, neither given up nor overtaken nor about to be stopped."""
        if self.phase not in ON_THE_WAY or self.overdue or self.dismissed:
            return False
        return self.phase is Phase.RUNNING or not self.late

    def end_run(self, at_s: float) -> None:
        """The billed run ends; kept until the meter has charged it."""
        if self.run is not None:
            self.run.to_s = max(at_s, self.run.from_s)
            self.closed_runs.append(self.run)
            self.run = None


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
