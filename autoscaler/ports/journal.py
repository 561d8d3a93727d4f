"""The journal: what each tick saw, decided and did, and what operators changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from autoscaler.core.types import NO_CEILING
from autoscaler.ports.provider import Outcome


class Verb(StrEnum):
    """What an action does."""

    START = "start"
    STOP = "stop"
    PROVISION = "provision"
    REFILL = "refill"
    """Provision VMs for the warm pool, ahead of any need."""
    EXERCISE = "exercise"
    """Start a stopped VM to check that it would serve, and stop it again."""
    STORE = "store"
    """Mark prepared VMs as members of the warm pool, and stop them."""
    TERMINATE = "terminate"
    """Delete stopped VMs for good."""
    DRAIN = "drain"
    """Take VMs out of the balancer; they finish the work they have."""
    RETURN = "return"
    """Put draining VMs back into the balancer."""


IN_SHADOW = "shadow"
"""Token, or token prefix before a colon, of simulated actions, for which nothing was really done."""

PAUSABLE = (Verb.START, Verb.STOP, Verb.PROVISION, Verb.REFILL)
"""Verbs that operators may pause, in display order."""


@dataclass(frozen=True, slots=True)
class ActionIntent:
    """One provider call for one fleet, written before it is made.

    Attributes:
        fleet: Owner of the VMs.
        verb: What the call asks for.
        vm_ids: The chosen VMs; empty for a provision.
        count: Number of VMs (len(vm_ids), or the number to provision).
        token: Client token of a provision; `IN_SHADOW`, alone or as a prefix, for a fleet in shadow; empty otherwise.
        reason: One sentence for people.
    """

    fleet: str
    verb: Verb
    vm_ids: tuple[str, ...]
    count: int
    token: str
    reason: str

    @property
    def simulated(self) -> bool:
        """Whether a fleet in shadow asked for it, so that nothing was really done."""
        return self.token.partition(":")[0] == IN_SHADOW

    def in_shadow(self) -> ActionIntent:
        """The same intent for a fleet in shadow. A refill keeps its token, by which its VMs are recognised."""
        if self.simulated or self.verb is Verb.REFILL:
            return self
        return replace(self, token=f"{IN_SHADOW}:{self.token}" if self.token else IN_SHADOW)


@dataclass(frozen=True, slots=True)
class RealVms:
    """What a fleet in shadow really has and costs, besides what its policy would have.

    Attributes:
        running: VMs that really run; they serve the measured demand.
        provisioned: VMs that really exist.
        cost: Money over the interval that this tick closes, at the policy's prices.
    """

    running: int
    provisioned: int
    cost: float


@dataclass(frozen=True, slots=True)
class Earnings:
    """The numbers that sized a fleet with an objective.

    Attributes:
        shortage_price: Price of unserved work, as a multiple of the price of a VM in service for the same time.
        model: The model that drives, in words: the one that would recently have cost least.
        up_to: Number of VMs that are worth starting.
        down_to: Number of VMs that are worth keeping.
        last: What the last wanted VM earns, as a multiple of its cost; None if not known.
        following: What one more VM would earn, as a multiple of its cost; None if not known.
        doubted: VMs kept for a while because demand fell suddenly and unusually deep; 0 if there was no such fall.
    """

    shortage_price: float
    model: str
    up_to: int
    down_to: int
    last: float | None
    following: float | None
    doubted: int = 0


@dataclass(frozen=True, slots=True)
class DueBurst:
    """A burst that usually begins at a certain clock time, due before a start ordered now serves.

    Attributes:
        at_s: That time, epoch seconds.
        odds: Probability that the burst comes, rounded to hundredths.
        period_s: Time between such bursts.
    """

    at_s: float
    odds: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Memories:
    """How many of the waiting VMs should hibernate, for a fleet whose VMs may.

    Attributes:
        hibernated: How many of the VMs that would be started first should wait hibernated; None: all that may.
        reason: The name of a `core.types.TierReason`, in lower case.
        least: Share of its work that a VM must be expected to serve within the refill horizon to be worth a saved memory; 0
            if every VM is, above 1 if none is; None if nothing was weighed.
        last: The expected share of the last VM that is worth it; None if nothing was weighed.
        following: The expected share of the next VM; None if nothing was weighed.
    """

    hibernated: int | None
    reason: str
    least: float | None
    last: float | None
    following: float | None


@dataclass(frozen=True, slots=True)
class SharedHold:
    """A limit shared with other fleets that keeps a fleet below its wish.

    Attributes:
        group: Name of the group in the policies.
        limit: `vms`, `money` or `starts`.
        most: The limit: VMs, money per hour, or VMs started within `per_s`.
        per_s: The period of a limit on starts; 0 for other limits.
        wanted: VMs that the fleet would have.
        worth: What the first of the missing VMs would earn, as a multiple of its cost; without an objective, how busy
            VMs would be with it. None if not known.
        rival: Of the group's other fleets, the one whose last VM earns least; empty if none has any.
        rival_vm: The number of that VM.
        rival_worth: What that VM earns, in the rival's unit as for `worth`; None if not known.
        priced, rival_priced: Whether the fleet, and the rival, has an objective.
    """

    group: str
    limit: str
    most: float
    per_s: float
    wanted: int
    worth: float | None
    rival: str
    rival_vm: int
    rival_worth: float | None
    priced: bool
    rival_priced: bool


@dataclass(frozen=True, slots=True)
class FleetTick:
    """One fleet's snapshot, Outlook and decision of one tick, as recorded. Units of fields as in `core.types`.

    `stages` and `reasons` hold one entry per core `Stage`: the wish after it and the core `Reason` code. `capacity` and
    `shortage` are work per second; `cost` is money in the settings' currency over the interval that this tick closes;
    `source_error` is empty if the source worked. `may_start` to `ceiling` are the operators' pauses and overrides in
    force. In shadow, counts and cost are those of the simulated VMs, and `real` holds the real ones; otherwise it is None.
    `earnings` is set for fleets with an objective, `shared` if a limit shared with other fleets holds the fleet back,
    `burst` if one is due and the policy orders by forecast, `memories` if the fleet's VMs may hibernate. `provider` is
    the name of the place where the fleet's VMs are; empty if places have no names.
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
    earnings: Earnings | None = None
    shared: SharedHold | None = None
    burst: DueBurst | None = None
    memories: Memories | None = None
    provider: str = ""


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
"""Fleet of an operator's change that applies to every fleet, including those added later."""


class ChangeKind(StrEnum):
    """What an operator has changed, or which change of an operator has expired."""

    PAUSED = "paused"
    RESUMED = "resumed"
    OVERRIDDEN = "overridden"
    OVERRIDE_CLEARED = "override_cleared"
    PAUSE_EXPIRED = "pause_expired"
    OVERRIDE_EXPIRED = "override_expired"

    @property
    def holds(self) -> bool:
        """Whether the change stays in force until another change of the same fleet and verb."""
        return self in (ChangeKind.PAUSED, ChangeKind.OVERRIDDEN)


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """One change to what the daemon may do. Only the latest change of a fleet and verb counts.

    Attributes:
        kind: What was done.
        fleet: Name of the fleet, or `ALL_FLEETS`.
        verb: The verb that is paused or resumed; None for overrides.
        who: The user's name on the machine, for people.
        reason: The user's words.
        floor: VMs that replace the policy's minimum; None to keep it.
        ceiling: VMs that replace the policy's maximum; None to keep it.
        expires_at_s: When the change ends by itself; None if it does not.
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
        """Fleet and verb of the change; a later change with the same subject replaces it."""
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
    """Something that happened, to be written as an event. `fleet` is empty if it concerns no single fleet."""

    kind: str
    fleet: str
    text: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcomes of an action, to be written.

    Attributes:
        action_id: Journal id of the action.
        at_s: When they were known.
        outcomes: One per VM; empty if only a listing shows what became of it.
        events: What happened because of it.
    """

    action_id: int
    at_s: float
    outcomes: Sequence[Outcome]
    events: Sequence[Note] = ()


@dataclass(frozen=True, slots=True)
class Learned:
    """One kind of learned state of one fleet, as kept across restarts.

    Attributes:
        fleet: Name of the fleet.
        name: The kind, for example `start_times`.
        version: Layout version of the body; a reader that does not know it ignores the value.
        body: The state, opaque to the journal.
    """

    fleet: str
    name: str
    version: int
    body: bytes


class Journal(Protocol):
    """Audit trail, replay input and the source of `explain`. When a call returns, what it wrote is durable."""

    async def record_tick(
        self, record: TickRecord, intents: Sequence[ActionIntent], events: Sequence[Note] = ()
    ) -> tuple[int, ...]:
        """Write a tick, its intents and its events in one transaction; return the ids of the actions, in order."""
        ...

    async def record_intents(
        self, tick: int, at_s: float, intents: Sequence[ActionIntent]
    ) -> tuple[int, ...]:
        """Write further intents of a recorded tick in one transaction; return the ids of the actions, in order."""
        ...

    async def record_outcomes(self, settled: Sequence[Settled]) -> None:
        """Write the outcomes of actions, which settles them, with their events, in one transaction."""
        ...

    async def record_events(self, at_s: float, events: Sequence[Note]) -> None:
        """Write events, such as errors, recoveries and daemon starts, in one transaction."""
        ...

    async def recent_actions(self, settled_since_s: float) -> tuple[ActionRecord, ...]:
        """Actions that have no outcomes (left by a crash) or were settled since this time, oldest first."""
        ...

    async def record_changes(
        self, at_s: float, changes: Sequence[OperatorChange], events: Sequence[Note]
    ) -> tuple[ChangeRecord, ...]:
        """Write operators' changes and the events that report them in one transaction; return the changes as stored."""
        ...

    async def changes_in_force(self) -> tuple[ChangeRecord, ...]:
        """Pauses and overrides that no later change has replaced, oldest first, including expired ones."""
        ...

    async def record_learned(self, at_s: float, learned: Sequence[Learned]) -> None:
        """Write learned state in one transaction; each value replaces the earlier one of its fleet and name."""
        ...

    async def learned(self) -> tuple[Learned, ...]:
        """All learned state, sorted by fleet and name."""
        ...

    async def prune(self, *, before_s: float, max_bytes: int) -> int:
        """Delete ticks older than `before_s`, and the oldest beyond `max_bytes`; return how many ticks were deleted.

        Operators' changes in force are kept whatever their age.
        """
        ...

    async def close(self) -> None:
        """Write what is pending and release resources."""
        ...
