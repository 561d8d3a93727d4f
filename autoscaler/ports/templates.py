"""Launch templates: what new VMs are made from today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.ports.provider import ProvisionSpec


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


@runtime_checkable
class TemplateReader(Protocol):
    """A provider that can say what a launch template says."""

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | None:
        """What VMs of this spec would be made from now; None where it cannot be told."""
        ...
