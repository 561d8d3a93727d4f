"""Policy section: guards, the rules that may change what the policy wishes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autoscaler.config.quantities import DURATION, PERCENT, Quantity
from autoscaler.config.section import DAY_S, Section


class RateLimit(Section):
    """A token bucket: this many VMs at once, full again after the period."""

    vms: int = Field(ge=1, le=100_000, description="VMs within the period, in VMs.")
    per_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(60.0, description="The period.")


class GuardsSection(Section):
    """Rules that may change what the policy wishes."""

    stabilisation_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        300.0, description="Scale in at most to the highest wish within this time."
    )
    cooldown_out_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        0.0, description="Pause between a scale-out and the next one; 0s is none."
    )
    cooldown_in_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        120.0,
        description="Pause between a scale-in and the next one, and after the last ordered VM came into service.",
    )
    minimum_on_time_s: Annotated[float, Quantity(DURATION, 0, 30 * DAY_S)] = Field(
        180.0,
        description="A VM is not stopped before it has run this long (a start is billed for at least 60 s).",
    )
    minimum_coverage: Annotated[float, Quantity(PERCENT, 0, 1)] = Field(
        0.7, description="Share of the VMs in service that must report freshly before any is stopped."
    )
    rate_out: RateLimit = Field(RateLimit(vms=50), description="How many VMs may be started.")
    rate_in: RateLimit = Field(RateLimit(vms=5), description="How many VMs may be stopped.")
    hands_off_s: Annotated[float, Quantity(DURATION, 0, 7 * DAY_S)] = Field(
        600.0,
        description="How long the daemon does not stop a VM that somebody else started, nor start one that a person stopped; 0s not at all.",
    )
    stop_share: Annotated[float, Quantity(PERCENT, 0.001, 1)] = Field(
        1.0,
        description="Largest share of the VMs in service that may be leaving at a time (one always may).",
    )
