"""The cloud: VMs as listed, calls that change them, and the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class VmState(StrEnum):
    """What a provider says of a VM."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATED = "terminated"
    """Terminated or on the way there."""


HIBERNATED_REASON = "Client.UserInitiatedHibernate"
"""State reason of a VM whose memory was saved when it was stopped."""


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
        may_hibernate: It was launched so that its memory can be saved when it is stopped.
        stopped_at_s: When it was told to stop last, as the provider records it; None where that is not told.
        public_address: Public address, which is another one after each start; None where it has none.
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
        """Whether it is stopped, or on the way there, with its memory saved."""
        off = self.state in (VmState.STOPPING, VmState.STOPPED)
        return off and self.state_reason == HIBERNATED_REASON


@dataclass(frozen=True, slots=True)
class Listing:
    """One view of all VMs that carry the ownership tag.

    Attributes:
        vms: The VMs found, in the provider's order; terminated ones may still appear.
        complete: Every page of every part arrived. Only what is whole may prove that a VM is absent; see `is_whole_of`.
        requested_at_s: Clock when the call began: changes after this may be missing.
        received_at_s: Clock when the last page arrived.
        error: For a person, why it is not complete; empty when it is.
        parts: Where the provider asks zone by zone (hosts): for each of its zones what is wrong with it, empty where its
            VMs are all here. Empty where all is one, which is then whole or not.
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
        """Whether a VM of this zone that is not here is not there."""
        return self.complete or self.parts.get(zone) == ""


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

    @property
    def perhaps_done(self) -> bool:
        """Whether what was asked for is done, or may be."""
        return self in (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN)


BATCH_REFUSED = "BatchRefused"
"""Code of ours on a REFUSED outcome: nothing was done for this VM because others in the same call were
refused. The call may be made again at once without those."""


BUDGET_SPENT = "BudgetSpent"
"""Code of ours on a THROTTLED outcome: this VM was left out of the call, or the call was not made, because the
budget that we keep ourselves is spent for now. Where other VMs of the call were asked for, it may be made again
at once without those."""


NO_HIBERNATION = "UnsupportedHibernationConfiguration"
"""The provider's code where a VM can never hibernate."""
NOT_YET = "UnsupportedOperation"
"""The provider's code where a VM cannot hibernate yet: its guest has not made room for the memory."""


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
        """All VMs with the ownership tag. Failures are in the Listing, never raised, each where it belongs: what one zone
        does not tell says nothing of the others (`Listing.parts`).
        """
        ...

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs in one call."""
        ...

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Stop running VMs in one call; they stay provisioned.

        `force` ends VMs that do not stop. `hibernate` saves their memory first, and is refused for VMs that were not
        launched for it (NO_HIBERNATION) and for those that cannot yet (NOT_YET).
        """
        ...

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Give stopped VMs another machine type, one call each."""
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


def name_of(provider: object) -> str:
    """The name that the settings give to where a provider's VMs are; empty where there is only one."""
    return str(getattr(provider, "name", ""))
