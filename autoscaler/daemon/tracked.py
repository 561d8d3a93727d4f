"""What is noted of one VM, and the values around it: phases, orders, patience, counts.

Rules of this file: values and the two changes that keep a VM's own fields together. What a listing or an
outcome means is decided in `inventory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.daemon.metering import Run
from autoscaler.ports import Verb, Vm

PROTECTED_TAG = "autoscaler:protected"
"""VMs with this tag, whatever its value, are never stopped by the daemon."""


MADE_BY_TAG = "autoscaler:made-by"
"""Names the provisioning that made a VM, so that a daemon that did not hear the answer knows its own VMs."""


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
    """Terminated: nobody counts on it."""


ON_THE_WAY = frozenset({Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING})


_RESTING = frozenset({Phase.STOPPED, Phase.IN_SERVICE, Phase.LOST})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the inventory waits before it believes the worst, per fleet.

    Attributes:
        start_s: From an order to start until the VM is no longer counted as coming.
        stop_s: From an order to stop until the VM is given up.
        consistency_s: How far a listing may lag behind an accepted order.
        absent_listings: Complete listings without a VM that make it gone.
        absent_s: Time over which they must stretch.
        quarantine_s: How long a VM whose start failed is not tried again.
        dry_s: How long a (type, zone) without capacity is not tried again.
    """

    start_s: float = 180.0
    stop_s: float = 900.0
    consistency_s: float = 30.0
    absent_listings: int = 3
    absent_s: float = 20.0
    quarantine_s: float = 600.0
    dry_s: float = 180.0


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
    in_service_from_s: float | None = None
    run: Run | None = None
    closed_runs: list[Run] = field(default_factory=list)
    overdue: bool = False
    at_rest: Vm | None = None
    """The row that was last taken in, where taking it in again would change nothing."""
    missing: int = 0
    missing_since_s: float = float("inf")
    quarantined_until_s: float = float("-inf")
    quarantine_reason: str = ""

    @property
    def rests(self) -> bool:
        """Whether nothing is awaited of it: neither a call of ours nor a change of phase."""
        return self.order is None and self.phase in _RESTING

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
