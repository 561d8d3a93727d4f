"""The load balancer in front of a fleet: which VMs get new work, and which still have some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from autoscaler.ports.provider import Vm


class Rotation(StrEnum):
    """What a balancer does with a VM."""

    IN = "in"
    """It gets new work."""
    CORDONED = "cordoned"
    """It gets no new work and finishes what it has."""
    OUT = "out"
    """It gets none: switched off, unhealthy, or not known to the balancer."""


@dataclass(frozen=True, slots=True)
class Member:
    """One VM as a balancer sees it.

    Attributes:
        rotation: Whether it gets work.
        sessions: Pieces of work that it has now, waiting ones included; None where the balancer cannot tell.
        detail: The balancer's own words for its state, for a person.
        known: Whether the balancer has it at all. One that it does not have may have been taken out, or may stand
            behind another balancer.
    """

    rotation: Rotation
    sessions: int | None
    detail: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class RotationView:
    """One look at a balancer.

    Attributes:
        members: By VM id. A VM that is asked for and not here is one of which nothing could be learned.
        read_at_s: When the balancer was asked, by the clock.
        error: For a person, what could not be learned or done; empty when all is well.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    read_at_s: float = float("-inf")
    error: str = ""


class Balancer(Protocol):
    """Takes VMs out of rotation and puts them back.

    Contract (`tests/balancers/`): every call is bounded in time and never raises; what went wrong is in `error`. The
    answer is read back from the balancer after the change, so it says what is and not what was asked for. Repeating
    a call is harmless. A VM that the balancer does not know is `OUT` and not `known`, and `error` says so.
    """

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """How these VMs stand; changes nothing."""
        ...

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs new work from now on."""
        ...

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs no new work from now on; what they have they finish."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
