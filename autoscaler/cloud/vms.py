"""One VM of the world: its states, its outside appearance, and what it was launched from.

Rules: a view is immutable and replaced on every change, so that whoever renders or lags it can keep it. The
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
    """EC2's states. A VM that is being provisioned is pending for the first time."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


ENDED = frozenset({State.SHUTTING_DOWN, State.TERMINATED})
"""On the way out or gone."""

DEFAULT_IMAGE = "ami-0123456789abcdef0"
DEFAULT_VM_TYPE = "m7i.large"


@dataclass(frozen=True, slots=True)
class LaunchData:
    """What a launch is made from; empty fields are not given.

    Attributes:
        image: Image id.
        vm_type: Machine type.
        subnet: Subnet id; it implies the zone.
        zone: Availability zone.
        hibernation: Whether the VM may hibernate; None where not given.
        public: Whether it gets a public address at each start; None where not given.
        stop_protection: Whether StopInstances is refused; None where not given.
        termination_protection: Whether TerminateInstances is refused; None where not given.
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

    def over(self, base: LaunchData) -> LaunchData:
        """This, with what it leaves open taken from `base`. A place of its own drops the base's place."""
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
        number: Place in the order of creation, from 0.
        id: EC2's form, i- and 17 hexadecimal digits.
        reservation: The launch that made it; VMs of one launch share it.
        index: Place within that launch.
        state: Current state.
        vm_type, zone, subnet, image, address: As on EC2; the private address survives stops.
        launched_at_s: Time of the last launch or start.
        ready_at_s: When it has booted; infinite while not known. The truth: a caller sees `ready`.
        hibernation: Whether it may hibernate.
        public: Whether it gets a public address at each start.
        public_address: That, while it is on; empty where it has none.
        stop_protection: Whether StopInstances is refused.
        termination_protection: Whether TerminateInstances is refused.
        client_token: Token of the launch.
        tags: All tags.
        reason_code, reason_message: Why it is in this state, empty after a start.
        transition: EC2's sentence on the last change of state by a user, or empty.
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
        """What faults may match."""
        return Scope(self.id, self.fleet, self.vm_type, self.zone)

    def ready(self, now_s: float) -> bool:
        """Running and booted: what a status check sees."""
        return self.state is State.RUNNING and now_s >= self.ready_at_s


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing.

    Attributes:
        vms: In order of creation.
        last: Number to go on after; None where nothing is left.
    """

    vms: tuple[VmView, ...]
    last: int | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a call says of one VM it named."""

    id: str
    previous: State
    current: State


@dataclass(slots=True)
class Record:
    """The world's own note on one VM.

    Attributes:
        view: The VM now.
        history: (changed at, view), oldest first; as far back as listings may lag.
        created_at_s: When it was made.
        generation: Rises with every order; what was due for an earlier one is void.
        starts, stops: Orders so far; they address draws.
        boot_s: Running to ready of the current start.
        stopped_at_s: When its stopping ends; infinite where it is stuck.
        holds_capacity: It counts against the capacity of its type and zone.
        fall_back_code: State reason that it will fall back with.
        first_ran_at_s: When it first ran; infinite before.
        saves_memory: The stop under way saves its memory.
        memory_saved_at_s: When its memory was saved; None where there is none to read back.
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
