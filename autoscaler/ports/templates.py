"""Optional abilities of a provider: reading launch templates, and deferring calls that can wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.ports.provider import Provider, ProvisionSpec


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What a launch template says now.

    Attributes:
        digest: Of everything that it says and of what the policy puts in its place; the same for the same.
        version: Its number, for people.
        image: The image that it names; empty where it names none, or one that is looked up at launch.
    """

    digest: str
    version: str
    image: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A launch template could not be read, and why, for people."""

    why: str


@runtime_checkable
class Deferring(Protocol):
    """A provider that keeps a budget of calls, and can put what may wait behind what demand needs."""

    def for_refills(self) -> Provider:
        """The same provider for calls that nobody waits for."""
        ...


@runtime_checkable
class TemplateReader(Protocol):
    """A provider that can say what a launch template says."""

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | Unread | None:
        """What VMs of this spec would be made from now, or why it could not be read; None where the provider cannot tell."""
        ...
