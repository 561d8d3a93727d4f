"""Optional abilities of a provider: reading launch templates, and deferring calls that can wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.ports.provider import Provider, ProvisionSpec


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """The current content of a launch template.

    Attributes:
        digest: Digest of the template's content and of what the policy replaces in it; equal content, equal digest.
        version: Its version number, for people.
        image: The image it names; empty if it names none, or one that is looked up at launch.
    """

    digest: str
    version: str
    image: str


@dataclass(frozen=True, slots=True)
class UnreadableTemplate:
    """A launch template that could not be read; `why` is for people."""

    why: str


@runtime_checkable
class Deferring(Protocol):
    """A provider that keeps a budget of calls, and can rank calls that may wait behind those that demand needs."""

    def for_refills(self) -> Provider:
        """The same provider, for calls that may wait."""
        ...


@runtime_checkable
class TemplateReader(Protocol):
    """A provider that can read launch templates."""

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate | None:
        """What VMs of this spec would now be created from, or why that could not be read; None if the provider cannot tell."""
        ...
