"""The journal: what each tick saw, decided and did, and what operators changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from autoscaler.core.types import NO_CEILING
from autoscaler.ports.provider import Outcome


class Verb(StrEnum):
    """What an action does; words of providers."""

    START = "start"
    STOP = "stop"
    PROVISION = "provision"
    REFILL = "refill"
    """Make VMs for the warm pool, when nobody waits for them."""
    EXERCISE = "exercise"
    """Start a stopped VM to see that it would serve, and stop it again."""
    STORE = "store"
    """Mark VMs that are ready as members of the warm pool, and stop them."""
    TERMINATE = "terminate"
    """Delete stopped VMs for good."""
    DRAIN = "drain"
    """Take VMs out of the balancer; they finish what they have."""
    RETURN = "return"
    """Put draining VMs back into the balancer."""


IN_SHADOW = "shadow"
"""Token, or what comes before it and a colon, of actions that were simulated: nothing was really done."""

PAUSABLE = (Verb.START, Verb.STOP, Verb.PROVISION, Verb.REFILL)
"""What operators may pause, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class ActionIntent:
    """One provider call about to be made for one fleet, written before it is made.

    Attributes:
        fleet: Owner of the VMs.
        verb: What will be asked for.
        vm_ids: The VMs chosen; empty for provision.
        count: Number of VMs (len(vm_ids), or the number to provision).
        token: Client token of a provision, or of a fleet in shadow that it is in shadow; empty otherwise.
        reason: One sentence for a person.
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
        """The same of a fleet in shadow; a refill keeps its token, by which its VMs are known."""
        if self.simulated or self.verb is Verb.REFILL:
            return self
        return replace(self, token=f"{IN_SHADOW}:{self.token}" if self.token else IN_SHADOW)


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
class Earnings:
    """What a fleet with an objective was sized by.

    Attributes:
        shortage_price: Price of unserved work, in prices of a VM in service for the same time.
        model: The model that drives, in words; of all it would lately have cost least.
        up_to: VMs that are worth starting.
        down_to: VMs that are worth keeping.
        last: What the last of the VMs that are wanted earns, in multiples of its cost; None where not known.
        following: What one more would earn, likewise.
        doubted: VMs that did the work which fell away at once, as it hardly ever did, and that stay for a while; 0 for none.
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
    """A burst that usually begins at a time of the clock which comes before a start ordered now serves.

    Attributes:
        at_s: Epoch seconds of that time.
        odds: Probability that it comes, in hundredths.
        period_s: From one such time to the next.
    """

    at_s: float
    odds: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Memories:
    """How the VMs of a fleet that may hibernate should wait.

    Attributes:
        hibernated: So many of those that wait with their memory saved, those that are started first; None where all that
            may are.
        reason: The name of a `core.types.TierReason`, in lower case.
        least: Share of its work that a VM must be expected to serve within the refill horizon for that; 0 for any, above
            1 for none; None where nothing was weighed.
        last: What the last of them is expected to serve, likewise.
        following: What the next one is.
    """

    hibernated: int | None
    reason: str
    least: float | None
    last: float | None
    following: float | None


@dataclass(frozen=True, slots=True)
class SharedHold:
    """A limit that a fleet shares with others and that keeps it below what it wants.

    Attributes:
        group: What the policies call it.
        limit: `vms`, `money` or `starts`.
        most: VMs, money per hour, or VMs started within `per_s`.
        per_s: The period of a limit on starts; 0 for another.
        wanted: VMs that the fleet would have.
        worth: What the first of the missing VMs would earn, as a multiple of its cost; without an objective how busy
            VMs would be with it. None where not known.
        rival: Of the group's other fleets, the one whose last VM earns least; empty where none has any.
        rival_vm: The number of that VM.
        rival_worth: What it earns, likewise.
        priced, rival_priced: Whether they have an objective.
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
    """One fleet's snapshot, outlook and decision of one tick, as recorded. Field units as in core.types.

    `stages` and `reasons` hold one entry per core Stage: the wish after it and the core Reason code.
    `capacity`, `shortage` are work per second; `cost` is money in the settings' currency over the interval
    that this tick closes; `source_error` is empty when the source was well. `may_start` to
    `ceiling` are what operators had in force. `real` is known for fleets in shadow only, where the counts and
    the cost are those of the simulated VMs. `earnings` is known for fleets with an objective,
    `shared` where a limit that the fleet shares with others holds it back, `burst` where one is due and the policy
    orders by forecast, `memories` where VMs of the fleet may hibernate. `provider` names the place where its VMs are, where
    places have names.
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


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned of one fleet in one respect, as it is kept over restarts.

    Attributes:
        fleet: Which.
        name: In which respect, for example `start_times`.
        version: Of the body's layout; who does not know it leaves it.
        body: Opaque here.
    """

    fleet: str
    name: str
    version: int
    body: bytes


class Journal(Protocol):
    """Audit trail, replay input and the source of `explain`. What returns has been made durable."""

    async def record_tick(self, record: TickRecord, intents: Sequence[ActionIntent]) -> tuple[int, ...]:
        """Write a tick and the intents it leads to in one transaction; ids of the actions, in order."""
        ...

    async def record_intents(
        self, tick: int, at_s: float, intents: Sequence[ActionIntent]
    ) -> tuple[int, ...]:
        """Write further intents of a tick that is recorded, in one transaction; ids of the actions, in order."""
        ...

    async def record_outcomes(self, action_id: int, at_s: float, outcomes: Sequence[Outcome]) -> None:
        """Settle an action."""
        ...

    async def record_events(self, at_s: float, events: Sequence[Note]) -> None:
        """Write events in one transaction: errors, recoveries, daemon starts."""
        ...

    async def recent_actions(self, settled_since_s: float) -> tuple[ActionRecord, ...]:
        """Actions without recorded outcomes (left by a crash), and those whose outcomes were recorded since then; oldest first."""
        ...

    async def record_changes(
        self, at_s: float, changes: Sequence[OperatorChange], events: Sequence[Note]
    ) -> tuple[ChangeRecord, ...]:
        """Write operators' changes and the events that tell of them in one transaction; as stored."""
        ...

    async def changes_in_force(self) -> tuple[ChangeRecord, ...]:
        """Pauses and overrides that no later change has ended, oldest first; expired ones too."""
        ...

    async def record_learned(self, at_s: float, learned: Sequence[Learned]) -> None:
        """Write what was learned, in one transaction; each takes the place of what was kept of its fleet and name."""
        ...

    async def learned(self) -> tuple[Learned, ...]:
        """All that is kept, by fleet and name."""
        ...

    async def prune(self, *, before_s: float, max_bytes: int) -> int:
        """Forget what is older than `before_s`, and the oldest beyond `max_bytes`; ticks forgotten.

        What operators have in force is kept whatever its age.
        """
        ...

    async def close(self) -> None:
        """Flush and release."""
        ...
