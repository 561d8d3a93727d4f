"""Limits that several fleets share, as declared in `defaults.yaml`.

They are in the defaults because every fleet of a group must have the same limits, and the file of one fleet is the wrong place
for limits of others. A fleet is in the group that names it; the checks of a folder ensure that there is at most one.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from autoscaler.config.guarding import RateLimit
from autoscaler.config.quantities import PRICE, Quantity
from autoscaler.config.section import Filled, Section


class SharedLimits(Section):
    """Limits on several fleets together; capacity goes to the VMs that earn most (only in `defaults.yaml`)."""

    name: Filled = Field(description="Name of the group; appears in reasons.")
    fleets: Annotated[tuple[Filled, ...], Field(strict=False, max_length=1000)] = Field(
        description="Names of its fleets; `*` stands for any letters. Acting fleets and those in shadow share apart."
    )
    most_vms: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="Most VMs of all of them that are in service, on their way there, or draining, in VMs; a limit stops no VM.",
    )
    most_money_per_h: Annotated[float, Quantity(PRICE, 0, 1e9)] | None = Field(
        None, description="Most that these VMs may cost together while they are in service."
    )
    most_starts: RateLimit | None = Field(
        None, description="How many VMs may be started or made for all of them."
    )

    def has(self, fleet: str) -> bool:
        """Return whether a fleet is in the group."""
        return any(fnmatchcase(fleet, pattern) for pattern in self.fleets)
