"""Hints: news about VMs that may be lost, late, repeated or out of order. They bring the next listing
forward and are never trusted by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class HintKind(StrEnum):
    """What happened, as the cloud tells it."""

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
    """One piece of news.

    Attributes:
        kind: What happened.
        vm_id: The VM; empty where it concerns none.
        text: For a person, in a few words.
        at_s: When it happened, epoch seconds, as the cloud stamped it.
    """

    kind: HintKind
    vm_id: str
    text: str
    at_s: float


class HintSource(Protocol):
    """Gives hints as they come."""

    async def next(self) -> tuple[Hint, ...]:
        """Wait for news, for a bounded time; empty where none came.

        Raises:
            ProviderError: News cannot be had; the message says why and what to do.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
