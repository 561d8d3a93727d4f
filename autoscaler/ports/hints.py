"""Hints: news about VMs that may be lost, late, repeated or out of order. They bring the next listing
forward and are never trusted by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class HintKind(StrEnum):
    """What the cloud reports to have happened."""

    STATE = "state"
    """A VM changed its state."""
    SCHEDULED = "scheduled"
    """Maintenance or retirement of a VM's host is planned."""
    INTERRUPTION = "interruption"
    """A VM is about to be taken away."""
    CAPACITY = "capacity"
    """A capacity reservation changed."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One piece of news about a VM or its host.

    Attributes:
        kind: What happened.
        vm_id: The VM; empty if it concerns none.
        text: A few words for people.
        at_s: When it happened, epoch seconds, by the cloud's clock.
    """

    kind: HintKind
    vm_id: str
    text: str
    at_s: float


class HintSource(Protocol):
    """Delivers hints as they arrive."""

    async def next(self) -> tuple[Hint, ...]:
        """Wait for hints, for a bounded time; return an empty tuple if none came.

        Raises:
            ProviderError: Hints cannot be received; the message says why and what to do.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
