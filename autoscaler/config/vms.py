"""Policy section: capacity and readiness of VMs, how many may exist, and where new ones come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoscaler.config.quantities import DURATION, PERCENT, WORK, Quantity
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Off, Section, Url


class CapacityLearning(Section):
    """How the capacity of a VM is learned from its work and its utilisation."""

    url: Url = Field(
        "http://{address}:9100/metrics",
        description="Where a VM shows node_cpu_seconds_total, from which its utilisation is read; {address} is its private address.",
    )
    at: Annotated[float, Quantity(PERCENT, 0.1, 1)] = Field(
        1.0, description="Utilisation up to which a VM meets its service objective."
    )
    within: float = Field(
        3.0, ge=1, le=10, description="The planned capacity stays within this factor of capacity, a number."
    )
    most_per_day: Annotated[float, Quantity(PERCENT, 0.01, 1)] = Field(
        0.2, description="Largest share by which the planned capacity may move in a day."
    )


class TypeWeight(Section):
    """How much a VM of one machine type can do."""

    type: Filled = Field(description="Machine type, for example m7i.xlarge.")
    weight: float = Field(
        ge=0.01,
        le=100,
        description="Its capacity as a multiple of capacity, a number; types not listed have 1.",
    )


class VmSection(Section):
    """What one VM can do, and how long it takes to start and stop."""

    capacity_per_s: Annotated[float, Quantity(WORK, 1e-6, 1e9)] = Field(
        description="Work per second that one VM does while it meets its service objective."
    )
    weights: Annotated[tuple[TypeWeight, ...], Field(strict=False, max_length=50)] = Field(
        (),
        description="Weights of machine types where VMs differ in size; decisions count VMs of the fleet's mean weight.",
    )
    learn_capacity: Annotated[CapacityLearning | None, Off] = Field(
        None,
        description="Learn the capacity from the work of VMs and their CPU use meanwhile, beginning with capacity, or off.",
    )
    start_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        40.0, description="Expected time from the request to start a stopped VM until it serves."
    )
    learn_start_time: bool = Field(
        False,
        description="Whether the 90 % quantile of measured start times takes the place of start_time once 20 starts were seen, within half and three times of it.",
    )
    stop_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        40.0, description="Expected time from the request to stop a VM until it could be started again."
    )
    types: Annotated[tuple[Filled, ...], Field(strict=False, max_length=20)] = Field(
        (),
        description="Machine types that a VM may be started as, best first, each able to do the capacity; empty: only its own.",
    )


class AfterStartSection(Section):
    """Your own program on this machine, run without a shell once per start of a VM; exit code 0 lets the VM serve."""

    run: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=50)] = Field(
        description="The program and its arguments; the VM is in AUTOSCALER_VM_ID, AUTOSCALER_VM_ADDRESS and AUTOSCALER_VM_PUBLIC_ADDRESS."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 1, 600)] = Field(
        30.0, description="Longest run before the program is ended with its children."
    )


class ReadinessSection(Section):
    """When a running VM counts as in service."""

    probe: Literal["running", "status_checks", "http"] = Field(
        "running",
        description="running: some time after it runs; status_checks: the provider's checks passed; http: it answers 2xx.",
    )
    after_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        10.0, description="Time after a VM was first seen running (probe running)."
    )
    url: Url | None = Field(
        None, description="URL to request, for example http://{address}/health (probe http)."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        2.0, description="Longest wait for one answer (probe http)."
    )
    after_start: Annotated[AfterStartSection | None, Off] = Field(
        None,
        description="Your own program to run once the probe passes after a start, before the VM serves, or off.",
    )


class ConditionSection(Section):
    """When a VM counts as slow, and what is done about it."""

    slow_below: Annotated[float, Quantity(PERCENT, 0.1, 0.95)] = Field(
        0.5,
        description="A VM is slow if its speed is below this share of the others' speed, or of its own past if that is comparable.",
    )
    replace: Annotated[float, Quantity(PERCENT, 0, 0.5)] = Field(
        0.0,
        description="Share of the VMs in service that may be replaced at a time for being slow or silent, at least one; 0% only watches.",
    )


class BoundsSection(Section):
    """Fewest and most VMs of the fleet."""

    minimum: int = Field(1, ge=0, le=100_000, description="Fewest VMs in service, in VMs.")
    maximum: int = Field(ge=1, le=100_000, description="Most VMs in service, in VMs.")


class HibernationSection(Section):
    """How VMs that go into the warm pool keep their memory.

    With an objective, as many waiting VMs are hibernated as are worth it, beginning with those that would start first. A VM is
    worth it if its start is faster by `start_time`, and the work expected to wait meanwhile costs more than saving and holding the
    memory (`prices.memory`). Without an objective, and until start times are known, all are hibernated.
    """

    start_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] | None = Field(
        None,
        description="Expected time from the request to start a hibernated VM until it serves, compared with vm.start_time; if not set, learned with vm.learn_start_time, and until then all VMs that may hibernate do.",
    )
    save_time_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        60.0, description="How long saving a memory takes, during which the VM is billed as running."
    )
    renew_after_s: Annotated[float, Quantity(DURATION, HOUR_S, 59 * DAY_S)] = Field(
        50 * DAY_S,
        description="How long after its memory was saved a VM is exercised and hibernated again, within the windows of freshness.exercise; the provider keeps no memory for longer than 60 days.",
    )


class WarmPoolSection(Section):
    """How many VMs wait stopped."""

    minimum: int = Field(0, ge=0, le=100_000, description="Fewest VMs wanted stopped, in VMs.")
    maximum: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        None, description="Most VMs wanted stopped, in VMs; if not set, as many as the fleet may have."
    )
    memory_s: Annotated[float, Quantity(DURATION, 60, 30 * DAY_S)] = Field(
        DAY_S, description="How long a peak keeps its VMs in the warm pool."
    )
    spare: Annotated[float, Quantity(PERCENT, 0, 10)] = Field(0.1, description="Share added to that peak.")
    hibernate: Annotated[HibernationSection | None, Off] = Field(
        None,
        description="Save the memory of VMs that are stopped after they served and were launched for it (hibernation), or off.",
    )


class ProvisionSection(Section):
    """How VMs are made from nothing when the warm pool is empty."""

    launch_template: Filled = Field(
        description="Launch template, by id (lt-...) or name; on libvirt the name of a domain that is cloned."
    )
    version: Filled = Field(
        "$Default",
        description="Its version: $Default, $Latest or a number in quotes (on libvirt there is none).",
    )
    vm_type: Filled | None = Field(
        None,
        description="Machine type instead of the template's, for example m7i.large, or on libvirt 2x2048 (processors x MiB).",
    )
    subnet: Filled | None = Field(
        None, description="Subnet instead of the template's; it also decides the zone. On libvirt the host."
    )
    types: Annotated[tuple[Filled, ...], Field(strict=False, max_length=20)] = Field(
        (), description="Machine types to use if there is no room for vm_type, best first."
    )
    subnets: Annotated[tuple[Filled, ...], Field(strict=False, max_length=20)] = Field(
        (), description="Subnets to use if there is no room in subnet, best first."
    )
    maximum: int = Field(ge=1, le=100_000, description="Most VMs of the fleet that may exist, in VMs.")
