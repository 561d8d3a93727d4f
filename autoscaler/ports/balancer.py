"""The load balancer in front of a fleet: which VMs get new work, and which still have some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from autoscaler.ports.provider import Vm


class Rotation(StrEnum):
    """How a balancer treats a VM."""

    IN = "in"
    """The VM gets new work."""
    CORDONED = "cordoned"
    """The VM gets no new work and finishes what it has."""
    OUT = "out"
    """The VM gets no work: it is switched off, unhealthy, or not known to the balancer."""


@dataclass(frozen=True, slots=True)
class Member:
    """One VM as a balancer sees it.

    Attributes:
        rotation: Whether the VM gets work.
        sessions: Pieces of work that it has now, including waiting ones; None if the balancer cannot tell.
        detail: The balancer's own words for its state, for people.
        known: Whether the balancer has the VM at all. A VM that it does not have may have been taken out, or may be
            behind another balancer.
    """

    rotation: Rotation
    sessions: int | None
    detail: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class RotationView:
    """What one reading of a balancer found.

    Attributes:
        members: VMs by id. If a requested VM is missing, nothing could be learned about it.
        read_at_s: When the balancer was asked, by the clock.
        error: What could not be learned or done, for people; empty if all is well.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    read_at_s: float = float("-inf")
    error: str = ""


class Balancer(Protocol):
    """Takes VMs out of rotation and puts them back.

    Contract (`tests/balancers/`): every call is bounded in time and never raises; what went wrong is in `error`. The
    result is read back from the balancer after the change, so it says what is, not what was requested. Repeating
    a call is harmless. A VM that the balancer does not know is `OUT` and not `known`, and `error` says so.
    """

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """Return the state of these VMs without changing anything."""
        ...

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs new work from now on."""
        ...

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs no new work from now on; they finish what they have."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
