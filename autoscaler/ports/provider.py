"""The cloud: VMs as listed, calls that change them, and the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class VmState(StrEnum):
    """State of a VM as the provider reports it."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATED = "terminated"
    """Terminated, or being terminated."""


HIBERNATED_REASON = "Client.UserInitiatedHibernate"
"""State reason of a VM whose memory was saved when it was stopped."""


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM as listed.

    Attributes:
        id: The provider's id.
        fleet: Value of the ownership tag (`autoscaler:fleet`); empty if there is none.
        state: State in the listing; may lag behind the truth.
        vm_type: Machine type, for example m7i.large.
        zone: Availability zone.
        address: Private address; None if none is assigned.
        launched_at_s: Time of the last launch or start request as the provider records it.
        image: Image id.
        tags: All tags.
        state_reason: The provider's code for why it is in this state (`Server.InsufficientInstanceCapacity`,
            `Client.UserInitiatedShutdown`), or empty.
        may_hibernate: Whether it was launched such that its memory can be saved when it stops.
        stopped_at_s: When it was last told to stop, as the provider records it; None if the provider does not say.
        public_address: Public address, which changes with each start; None if it has none.
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
    may_hibernate: bool = False
    stopped_at_s: float | None = None
    public_address: str | None = None

    @property
    def hibernates(self) -> bool:
        """Whether it is stopped, or stopping, with its memory saved."""
        off = self.state in (VmState.STOPPING, VmState.STOPPED)
        return off and self.state_reason == HIBERNATED_REASON


@dataclass(frozen=True, slots=True)
class Listing:
    """One view of all VMs that carry the ownership tag.

    Attributes:
        vms: The VMs found, in the provider's order; terminated ones may still appear.
        complete: Whether every page of every part arrived. Absence of a VM proves something only then; see `is_whole_of`.
        requested_at_s: Clock when the call began: later changes may be missing.
        received_at_s: Clock when the last page arrived.
        error: Why it is not complete, for people; empty if it is.
        parts: If the provider asks zone by zone (hosts), an error text for each of its zones, empty for a zone whose VMs are
            all listed. An empty mapping if the listing is complete or incomplete as a whole.
        real: All real VMs, if `vms` is a simulated view of one fleet (shadow); None if `vms` itself is real.
    """

    vms: tuple[Vm, ...]
    complete: bool
    requested_at_s: float
    received_at_s: float
    error: str = ""
    real: tuple[Vm, ...] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_real(self) -> tuple[Vm, ...]:
        """All real VMs, of every fleet."""
        return self.vms if self.real is None else self.real

    def is_whole_of(self, zone: str) -> bool:
        """Whether the listing has all VMs of this zone, so that a VM that is not listed does not exist."""
        return self.complete or self.parts.get(zone) == ""


class OutcomeKind(StrEnum):
    """What came back from one provider call for one VM."""

    ACCEPTED = "accepted"
    NO_CAPACITY = "no_capacity"
    """No room for this type in this zone now, or a quota is reached: try elsewhere rather than again."""
    THROTTLED = "throttled"
    """The API budget is spent; nothing was done."""
    REFUSED = "refused"
    """This VM or this request is wrong; repeating it will not help."""
    DENIED = "denied"
    """A problem of credentials, permissions or the account: stop acting in its scope and call a person."""
    UNKNOWN = "unknown"
    """The change may or may not have been made: hold until a listing settles it."""

    @property
    def perhaps_done(self) -> bool:
        """Whether the requested change was made, or may have been."""
        return self in (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN)


BATCH_REFUSED = "BatchRefused"
"""Our own code of a REFUSED outcome: nothing was done for this VM because others in the same call were
refused. The call may be repeated at once without those."""


BUDGET_SPENT = "BudgetSpent"
"""Our own code of a THROTTLED outcome: this VM was left out of the call, or the call was not made, because the
budget that we keep ourselves is spent for now. If other VMs of the call were requested, the call may be made again
at once without them."""

ROOM_REFUSED = "RoomRefused"
"""Our own code of a NO_CAPACITY outcome: no call was made for this VM by itself, because another one for no more VMs of its
type in its zone has just been refused for lack of room."""

ROOM_FOR_FEWER = "RoomForFewer"
"""Our own code of a NO_CAPACITY outcome without a VM: fewer VMs were made than requested, because there was no room for more."""

RESERVED_ROOM = frozenset(
    {
        "ReservationCapacityExceeded",
        "InsufficientReservedInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacityOnHost",
    }
)
"""The provider's codes for a lack of room in a capacity reservation or on dedicated hosts: it concerns the VMs that are bound to
these, and neither the zone nor other VMs."""


NO_HIBERNATION = "UnsupportedHibernationConfiguration"
"""The provider's code for a VM that can never hibernate."""
NOT_YET = "UnsupportedOperation"
"""The provider's code for a VM that cannot hibernate yet, because its guest has not made room for the memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back for one VM.

    Attributes:
        vm_id: The VM; empty for VMs that a provision did not make.
        kind: The class of the outcome.
        code: The provider's own code (`InsufficientInstanceCapacity`); empty if accepted.
        message: The provider's own words, for people.
        previous_state: State before the call, if the provider reports it, so that starting a VM that already runs
            can be recognised.
    """

    vm_id: str
    kind: OutcomeKind
    code: str = ""
    message: str = ""
    previous_state: VmState | None = None


@dataclass(frozen=True, slots=True)
class ProvisionSpec:
    """What new VMs are created from.

    Attributes:
        fleet: Owner, written to the ownership tag at creation.
        launch_template: Id (`lt-…`) or name.
        version: Template version (`$Default`, `$Latest` or a number).
        vm_type: Replaces the template's type, if given.
        subnet: Replaces the template's subnet, and with it the zone, if given.
        tags: Additional tags.
    """

    fleet: str
    launch_template: str
    version: str = "$Default"
    vm_type: str | None = None
    subnet: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        """Machine type and subnet of new VMs, in words where only the template determines them.

        Another template may have another type and subnet, so what is known of this place says nothing about that one.
        """
        of_template = f"of template {self.launch_template}"
        return self.vm_type or f"the type {of_template}", self.subnet or f"the subnet {of_template}"


FLEET_TAG = "autoscaler:fleet"
"""Only VMs with this tag are seen; its value names the fleet."""


class Provider(Protocol):
    """Lists VMs and changes their state. Calls are bounded in time by the adapter and do not retry changes.

    Contract (`tests/contracts/`): a call returns exactly one Outcome per requested VM, in request order (provision: one
    per accepted VM and, unless these are all, one more with an empty id and the reason). It raises ProviderError only if
    nothing was sent. Starting a VM that runs is accepted with `previous_state=RUNNING`. A batch with one bad id changes no VM; the
    outcome is REFUSED for the bad one and BATCH_REFUSED for the others if the provider names it, else REFUSED for all.
    """

    async def list_vms(self) -> Listing:
        """List all VMs with the ownership tag.

        Failures are in the Listing, never raised. A zone that does not answer does not affect the others
        (`Listing.parts`).
        """
        ...

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs in one call."""
        ...

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Stop running VMs in one call; they stay provisioned.

        `force` ends VMs that do not stop by themselves. `hibernate` saves their memory first; it is refused for VMs that
        were not launched for it (NO_HIBERNATION) and for VMs that cannot hibernate yet (NOT_YET).
        """
        ...

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Change the machine type of stopped VMs, with one call each."""
        ...

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Create `count` VMs, or as many as there is room for; the same token never creates VMs twice.

        If there is room for some only, the last outcome is NO_CAPACITY with the code ROOM_FOR_FEWER.
        """
        ...

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Delete VMs permanently."""
        ...

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Write tags to VMs."""
        ...

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Ids of the running VMs among these whose status checks have passed; empty on failure."""
        ...

    async def close(self) -> None:
        """Release connections and helper processes."""
        ...


def name_of(provider: object) -> str:
    """The name of a provider's place in the settings; empty if there is only one place."""
    return str(getattr(provider, "name", ""))
