"""One VM of the world: its states, its outside appearance, and what it was launched from.

Rules: a view is immutable and replaced on every change, so it can be kept for rendering or for delayed listings. The
record around it is private to `world`. Nothing here decides when a state changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.cloud.faults import Scope
from autoscaler.ports import FLEET_TAG


class State(StrEnum):
    """EC2's instance states. A VM that is being provisioned is pending for the first time."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


ENDED = frozenset({State.SHUTTING_DOWN, State.TERMINATED})
"""States of a VM that is terminated or being terminated."""

DEFAULT_IMAGE = "ami-0123456789abcdef0"
DEFAULT_VM_TYPE = "m7i.large"


@dataclass(frozen=True, slots=True)
class LaunchData:
    """Parameters of a launch. Empty fields are not given.

    Attributes:
        image: Image id.
        vm_type: Machine type.
        subnet: Subnet id, which implies the zone.
        zone: Availability zone.
        hibernation: Whether the VM may hibernate; None if not given.
        public: Whether it gets a public address at each start; None if not given.
        stop_protection: Whether StopInstances is refused; None if not given.
        termination_protection: Whether TerminateInstances is refused; None if not given.
        tags: Tags of the VMs.
    """

    image: str = ""
    vm_type: str = ""
    subnet: str = ""
    zone: str = ""
    hibernation: bool | None = None
    public: bool | None = None
    stop_protection: bool | None = None
    termination_protection: bool | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def filled_from(self, base: LaunchData) -> LaunchData:
        """Fill the fields that are not given from `base`. If a subnet or zone is given, neither is taken from `base`."""
        placed = bool(self.subnet or self.zone)

        def first(own: bool | None, other: bool | None) -> bool | None:
            return other if own is None else own

        return LaunchData(
            image=self.image or base.image,
            vm_type=self.vm_type or base.vm_type,
            subnet=self.subnet if placed else base.subnet,
            zone=self.zone if placed else base.zone,
            hibernation=first(self.hibernation, base.hibernation),
            public=first(self.public, base.public),
            stop_protection=first(self.stop_protection, base.stop_protection),
            termination_protection=first(self.termination_protection, base.termination_protection),
            tags={**base.tags, **self.tags},
        )


@dataclass(frozen=True, slots=True)
class VmView:
    """A VM as a caller may see it.

    Attributes:
        number: Position in the order of creation, from 0.
        id: EC2's form: i- and 17 hexadecimal digits.
        reservation: Id of the launch that made it, shared by all VMs of that launch.
        index: Position within that launch.
        state: Current state.
        vm_type, zone, subnet, image, address: As on EC2. The private address survives stops.
        launched_at_s: Time of the last launch or start.
        ready_at_s: When it has booted; infinite while unknown. This is the true time: a caller sees only `ready`.
        hibernation: Whether it may hibernate.
        public: Whether it gets a public address at each start.
        public_address: The public address while it is on; empty if it has none.
        stop_protection: Whether StopInstances is refused.
        termination_protection: Whether TerminateInstances is refused.
        client_token: Client token of the launch.
        tags: All tags.
        reason_code, reason_message: Why it is in this state; empty after a start.
        transition: EC2's sentence about the last state change by a user, or empty.
    """

    number: int
    id: str
    reservation: str
    index: int
    state: State
    vm_type: str
    zone: str
    subnet: str
    image: str
    address: str
    launched_at_s: float
    ready_at_s: float = math.inf
    hibernation: bool = False
    public: bool = False
    public_address: str = ""
    stop_protection: bool = False
    termination_protection: bool = False
    client_token: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    reason_code: str = ""
    reason_message: str = ""
    transition: str = ""

    @property
    def fleet(self) -> str:
        """Value of the ownership tag, or empty."""
        return self.tags.get(FLEET_TAG, "")

    @property
    def scope(self) -> Scope:
        """The properties that faults may match."""
        return Scope(self.id, self.fleet, self.vm_type, self.zone)

    def ready(self, now_s: float) -> bool:
        """Whether it is running and booted, which is what a status check tests."""
        return self.state is State.RUNNING and now_s >= self.ready_at_s


@dataclass(frozen=True, slots=True)
class ListingPage:
    """A part of a listing.

    Attributes:
        vms: The VMs, in order of creation.
        last: Number of the VM after which the next page begins; None on the last page.
    """

    vms: tuple[VmView, ...]
    last: int | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a call reports about one of the VMs that it named."""

    id: str
    previous: State
    current: State


@dataclass(slots=True)
class Record:
    """The world's internal state of one VM.

    Attributes:
        view: The VM now.
        history: Pairs of time of change and view, oldest first, as far back as listings may lag.
        created_at_s: When it was made.
        generation: Rises with every order; events of earlier generations are void.
        starts, stops: Number of orders so far, which also address random draws.
        boot_s: Time from running to ready of the current start.
        stopped_at_s: When its stop ends; infinite if it is stuck.
        holds_capacity: Whether it counts against the capacity of its type and zone.
        fall_back_code: State reason with which its start will fall back.
        first_ran_at_s: When it first ran; infinite before that.
        saves_memory: Whether the stop under way saves its memory.
        memory_saved_at_s: When its memory was saved; None if there is no saved memory.
    """

    view: VmView
    history: list[tuple[float, VmView]]
    created_at_s: float
    generation: int = 0
    starts: int = 0
    stops: int = 0
    boot_s: float = 0.0
    stopped_at_s: float = math.inf
    holds_capacity: bool = False
    fall_back_code: str = ""
    first_ran_at_s: float = math.inf
    saves_memory: bool = False
    memory_saved_at_s: float | None = None
