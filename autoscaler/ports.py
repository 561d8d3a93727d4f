"""The seams between the daemon and the world: small protocols and the values they exchange.

Rules: no adapter here, no I/O. An expected failure is a value (`Listing.error`, `OutcomeKind`), so that one
fleet's trouble never becomes another fleet's exception. Times are epoch seconds of the Clock in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import NO_CEILING


@runtime_checkable
class Clock(Protocol):
    """Time as an argument. Implementations: system, scaled, virtual (`autoscaler.clock`)."""

    def now(self) -> float:
        """Epoch seconds; may be far from the machine's (scaled, virtual); may jump (system)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards, at the clock's own speed."""
        ...

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once `monotonic()` has reached the argument; at once if it has."""
        ...


# ── Provider ────────────────────────────────────────────────────────────────────────────────────────────


class VmState(StrEnum):
    """What a provider says of a VM."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATED = "terminated"
    """Terminated or on the way there."""


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM as listed.

    Attributes:
        id: The provider's id.
        fleet: Value of the ownership tag (`autoscaler:fleet`); empty where there is none.
        state: As listed; may lag behind the truth.
        vm_type: Machine type, for example m7i.large.
        zone: Availability zone.
        address: Private address, or None where none is assigned.
        launched_at_s: Time of the last launch or start request as the provider records it.
        image: Image id.
        tags: All tags.
        state_reason: The provider's code for why it is in this state (`Server.InsufficientInstanceCapacity`,
            `Client.UserInitiatedShutdown`), or empty.
    """

    id: str
    fleet: str
    state: VmState
    vm_type: str
    zone: str
    address: str | None
    launched_at_s: float
    image: str
    tags: Mapping[str, str] = field(default_factory=dict)
    state_reason: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """One view of all VMs that carry the ownership tag.

    Attributes:
        vms: The VMs found, in the provider's order; terminated ones may still appear.
        complete: Every page arrived. Only a complete listing may prove that a VM is absent.
        requested_at_s: Clock when the call began: changes after this may be missing.
        received_at_s: Clock when the last page arrived.
        error: For a person, why it is not complete; empty when it is.
        real: Where `vms` is a simulated view (shadow), the VMs as they really are; None where `vms` is that.
    """

    vms: tuple[Vm, ...]
    complete: bool
    requested_at_s: float
    received_at_s: float
    error: str = ""
    real: tuple[Vm, ...] | None = None


class OutcomeKind(StrEnum):
    """What came back from one provider call, for one VM."""

    ACCEPTED = "accepted"
    NO_CAPACITY = "no_capacity"
    """No room for this type in this zone now (or quota): a matter of routing, not of retries."""
    THROTTLED = "throttled"
    """The API budget is spent; nothing was done."""
    REFUSED = "refused"
    """This VM or this request is wrong, and repeating it will not help."""
    DENIED = "denied"
    """Credentials, permission or account: stop acting in scope and call a person."""
    UNKNOWN = "unknown"
    """It may or may not have been done: hold until a listing settles it."""


BATCH_REFUSED = "BatchRefused"
"""Code of ours on a REFUSED outcome: nothing was done for this VM because others in the same call were
refused. The call may be made again at once without those."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back for one VM.

    Attributes:
        vm_id: The VM; for a failed provision, empty.
        kind: The class of the outcome.
        code: The provider's own code (`InsufficientInstanceCapacity`), empty when accepted.
        message: The provider's own words, for a person.
        previous_state: State before the call where the provider tells it, so that starting a running VM
            is seen for what it is.
    """

    vm_id: str
    kind: OutcomeKind
    code: str = ""
    message: str = ""
    previous_state: VmState | None = None


@dataclass(frozen=True, slots=True)
class ProvisionSpec:
    """Where new VMs come from.

    Attributes:
        fleet: Owner, written to the ownership tag at creation.
        launch_template: Id (`lt-…`) or name.
        version: Template version (`$Default`, `$Latest` or a number).
        vm_type: Overrides the template's type where given.
        subnet: Overrides the template's subnet, and with it the zone, where given.
        tags: Further tags.
    """

    fleet: str
    launch_template: str
    version: str = "$Default"
    vm_type: str | None = None
    subnet: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


FLEET_TAG = "autoscaler:fleet"
"""Only VMs that carry this tag are seen; its value names the fleet."""


class Provider(Protocol):
    """Lists VMs and changes their state. Calls are bounded in time by the adapter and do not retry changes.

    Contract (`tests/contracts/`): a call returns exactly one Outcome per requested VM (provision: per VM
    accepted, or one with an empty id and the reason), in request order, and raises ProviderError only where
    nothing was sent. Starting a VM that runs is accepted with `previous_state=RUNNING`. A batch with one bad
    id changes none and says REFUSED for the bad one and BATCH_REFUSED for the others where the provider names
    it, and REFUSED for all where it does not.
    """

    async def list_vms(self) -> Listing:
        """All VMs with the ownership tag. Failures are in the Listing, never raised."""
        ...

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs in one call."""
        ...

    async def stop(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Stop running VMs in one call; they stay provisioned."""
        ...

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Create `count` VMs, all or none; the same token never creates twice."""
        ...

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Delete VMs for good."""
        ...

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Write tags."""
        ...

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Those of the running VMs whose status checks have passed. Empty on failure."""
        ...

    async def close(self) -> None:
        """Release connections and helper processes."""
        ...


# ── Metric sources ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class FleetReadings:
    """What a source read for one fleet.

    Attributes:
        vm_ids: One per reading; empty string for a reading of the whole fleet (Signal.TOTAL).
        values: float64 (n,), in the unit of the fleet's signal; NaN allowed, it counts as invalid.
        observed_at_s: float64 (n,), end of the window that the value describes.
        error: For a person, what went wrong or is missing; empty when all is well.
    """

    vm_ids: tuple[str, ...]
    values: NDArray[np.float64]
    observed_at_s: NDArray[np.float64]
    error: str = ""


class MetricSource(Protocol):
    """Reads one fleet's metrics.

    Contract: returns what it has within its own time limit; raises SourceError where it has nothing; never
    invents a value, and never turns a failure into zero.
    """

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the VMs in service (they may have changed since the last call)."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class ReadinessProbe(Protocol):
    """Says which running VMs are ready to serve. Failure and silence mean not ready."""

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Ids of those of the given running VMs that are ready."""
        ...


# ── Journal ─────────────────────────────────────────────────────────────────────────────────────────────


class Verb(StrEnum):
    """What an action does; words of providers."""

    START = "start"
    STOP = "stop"
    PROVISION = "provision"


@dataclass(frozen=True, slots=True)
class ActionIntent:
    """One provider call about to be made for one fleet, written before it is made.

    Attributes:
        fleet: Owner of the VMs.
        verb: What will be asked for.
        vm_ids: The VMs chosen; empty for provision.
        count: Number of VMs (len(vm_ids), or the number to provision).
        token: Client token of a provision; empty otherwise.
        reason: One sentence for a person.
    """

    fleet: str
    verb: Verb
    vm_ids: tuple[str, ...]
    count: int
    token: str
    reason: str


@dataclass(frozen=True, slots=True)
class RealVms:
    """What a fleet in shadow really has and costs, beside what its policy would have.

    Attributes:
        running: VMs that really run; they serve the demand that is measured.
        provisioned: VMs that really exist.
        cost: Money over the interval that this tick closes, at the policy's prices.
    """

    running: int
    provisioned: int
    cost: float


@dataclass(frozen=True, slots=True)
class FleetTick:
    """One fleet's snapshot, outlook and decision of one tick, as recorded. Field units as in core.types.

    `stages` and `reasons` hold one entry per core Stage: the wish after it and the core Reason code.
    `capacity`, `shortage` are work per second; `cost` is money in the settings' currency over the interval
    that this tick closes; `source_error` is empty when the source was well. `may_start` to
    `ceiling` are what operators had in force. `real` is known for fleets in shadow only, where the counts and
    the cost are those of the simulated VMs.
    """

    fleet: str
    demand: float
    observed_at_s: float
    freshness: int
    coverage: float
    censored: bool
    in_service: int
    starting: int
    draining: int
    stopping: int
    stopped: int
    provisioned: int
    stoppable: int
    forecast: float
    forecast_hi: float
    wish: int
    desired: int
    start: int
    provision: int
    stop: int
    warm_target: int
    capacity: float
    shortage: float
    cost: float
    stages: tuple[int, ...]
    reasons: tuple[int, ...]
    sentence: str
    source_error: str = ""
    may_start: bool = True
    may_provision: bool = True
    may_stop: bool = True
    floor: int = 0
    ceiling: int = NO_CEILING
    real: RealVms | None = None


@dataclass(frozen=True, slots=True)
class TickRecord:
    """One turn of the loop for all fleets."""

    tick: int
    at_s: float
    fleets: tuple[FleetTick, ...]


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """An intent as stored, with its outcomes once known.

    Attributes:
        id: Journal id of the action.
        at_s: When the intent was written.
        tick: The tick that decided it.
        intent: What was about to be done.
        settled_at_s: When the outcomes were written; None while open.
        outcomes: One per VM; empty while open.
    """

    id: int
    at_s: float
    tick: int
    intent: ActionIntent
    settled_at_s: float | None = None
    outcomes: tuple[Outcome, ...] = ()


ALL_FLEETS = ""
"""As the fleet of an operator's change: every fleet, those that are added later too."""


class ChangeKind(StrEnum):
    """What an operator, or the end of the time that one gave, has changed."""

    PAUSED = "paused"
    RESUMED = "resumed"
    OVERRIDDEN = "overridden"
    OVERRIDE_CLEARED = "override_cleared"
    PAUSE_EXPIRED = "pause_expired"
    OVERRIDE_EXPIRED = "override_expired"

    @property
    def holds(self) -> bool:
        """Whether it is in force from then on, until another change of the same fleet and verb."""
        return self in (ChangeKind.PAUSED, ChangeKind.OVERRIDDEN)


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """One change to what the daemon may do. The latest one of a fleet and verb is what counts.

    Attributes:
        kind: What.
        fleet: Which fleet, or `ALL_FLEETS`.
        verb: What is paused or resumed; None for overrides.
        who: The user, as the machine knows them, for a person.
        reason: In their words.
        floor: VMs in place of the policy's minimum; None where it holds.
        ceiling: VMs in place of the policy's maximum; None where it holds.
        expires_at_s: When it ends by itself; None where it does not.
    """

    kind: ChangeKind
    fleet: str
    verb: Verb | None
    who: str
    reason: str
    floor: int | None = None
    ceiling: int | None = None
    expires_at_s: float | None = None

    @property
    def subject(self) -> tuple[str, Verb | None]:
        """What it is about; a later change about the same takes its place."""
        return self.fleet, self.verb


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A change as stored.

    Attributes:
        id: Journal id of the change.
        at_s: When it was made.
        change: What was changed.
    """

    id: int
    at_s: float
    change: OperatorChange


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened; becomes an event. `fleet` is empty where it concerns no single one."""

    kind: str
    fleet: str
    text: str


class Journal(Protocol):
    """Audit trail, replay input and the source of `explain`. What returns has been made durable."""

    async def record_tick(self, record: TickRecord, intents: Sequence[ActionIntent]) -> tuple[int, ...]:
        """Write a tick and the intents it leads to in one transaction; ids of the actions, in order."""
        ...

    async def record_outcomes(self, action_id: int, at_s: float, outcomes: Sequence[Outcome]) -> None:
        """Settle an action."""
        ...

    async def record_event(self, at_s: float, kind: str, fleet: str, text: str) -> None:
        """Write one event: an error, a recovery, a daemon start."""
        ...

    async def open_actions(self) -> tuple[ActionRecord, ...]:
        """Actions whose outcomes were never written: what a crash left behind."""
        ...

    async def recent_actions(self, settled_since_s: float) -> tuple[ActionRecord, ...]:
        """Those, and the actions whose outcomes were written since then, oldest first."""
        ...

    async def record_changes(
        self, at_s: float, changes: Sequence[OperatorChange], events: Sequence[Note]
    ) -> tuple[ChangeRecord, ...]:
        """Write operators' changes and the events that tell of them in one transaction; as stored."""
        ...

    async def changes_in_force(self) -> tuple[ChangeRecord, ...]:
        """Pauses and overrides that no later change has ended, oldest first; expired ones too."""
        ...

    async def prune(self, *, before_s: float, max_bytes: int) -> int:
        """Forget what is older than `before_s`, and the oldest beyond `max_bytes`; ticks forgotten.

        What operators have in force is kept whatever its age.
        """
        ...

    async def close(self) -> None:
        """Flush and release."""
        ...
