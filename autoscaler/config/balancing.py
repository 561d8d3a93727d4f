"""Policy section: the load balancer in front of a fleet, and how VMs drain before they are stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoscaler.config.quantities import DURATION, Quantity
from autoscaler.config.section import HOUR_S, Filled, Off, Section


class HaproxySection(Section):
    """HAProxy, over its runtime socket."""

    sockets: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=16)] = Field(
        description="Runtime sockets (`stats socket ... level admin`) of the HAProxy processes before the fleet: paths, or host:port."
    )
    backend: Filled = Field(description="The fleet's backend.")
    join: Literal["address", "id", "name"] = Field(
        "address",
        description="How entries of the backend identify VMs: address, by private address; id or name, by the VM's id or its tag Name as the entry's name.",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        2.0, description="How long one HAProxy may take to answer."
    )


class HaproxyInput(HaproxySection):
    """HAProxy as a source of demand: the work that arrives at the backend, and the work that waits there."""

    queue_within_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] | None = Field(
        None,
        description="Time in which work queued at the backend must be worked off; it counts as that much work per second (kind total). If not set, it does not count.",
    )


class TargetGroupSection(Section):
    """An Application or Network Load Balancer of AWS, by its target group."""

    arn: Filled = Field(description="The target group (arn:aws:elasticloadbalancing:...), of type instance.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the VMs; if not set, the target group's."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        5.0, description="How long one call may take."
    )


class CommandSection(Section):
    """Your own program, run without a shell for one VM at a time with admit, cordon or look as its last argument.

    With exit code 0 it prints the state of the VM (in, cordoned, out, or unknown if the balancer has no such VM) and the number
    of its sessions, as in `cordoned 3`. Without a number the VM never counts as idle, and its drain ends by `drain.timeout`. If admit or
    cordon print nothing, the request counts as done. Any other exit code means that the state is not known: the VM is then neither put
    into service nor counted as drained.
    """

    run: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=50)] = Field(
        description="The program and its first arguments; the VM is in AUTOSCALER_VM_ID and AUTOSCALER_VM_ADDRESS."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        3.0, description="Longest run before the program is ended with its children."
    )


class BalancerSection(Section):
    """The load balancer that sends work to the fleet's VMs: exactly one of the three kinds."""

    haproxy: Annotated[HaproxySection | None, Off] = Field(
        None, description="HAProxy, over its runtime socket."
    )
    target_group: Annotated[TargetGroupSection | None, Off] = Field(
        None, description="A load balancer of AWS."
    )
    command: Annotated[CommandSection | None, Off] = Field(None, description="A program of yours.")

    @property
    def named(self) -> list[str]:
        """The kinds that are given."""
        return [name for name in ("haproxy", "target_group", "command") if getattr(self, name) is not None]


class DrainSection(Section):
    """How a VM leaves: no new work, then idle at two readings, then stopped."""

    timeout_s: Annotated[float, Quantity(DURATION, 1, 24 * HOUR_S)] = Field(
        120.0, description="Longest time that a VM may take to become idle."
    )
    on_timeout: Literal["stop", "return"] = Field(
        "stop", description="What happens to a VM that is still busy then: it is stopped, or serves again."
    )
    idle_sessions: int = Field(
        0, ge=0, le=100_000, description="A VM with at most this many sessions is idle, in sessions."
    )
