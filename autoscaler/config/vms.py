"""What VMs can do, when they serve, how many there may be, and where new ones come from."""

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
        3.0, ge=1, le=10, description="What is planned with stays within this factor of capacity, a number."
    )
    most_per_day: Annotated[float, Quantity(PERCENT, 0.01, 1)] = Field(
        0.2, description="Share by which what is planned with moves in a day at most."
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
    """What one VM can do, and how long it takes to come and go."""

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
        40.0, description="Expected time from the order to start a stopped VM until it serves."
    )
    learn_start_time: bool = Field(
        False,
        description="Whether the 90 % quantile of measured start times takes the place of start_time once 20 starts were seen, within half and three times of it.",
    )
    stop_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        40.0, description="Expected time from the order to stop a VM until it could be started again."
    )
    types: Annotated[tuple[Filled, ...], Field(strict=False, max_length=20)] = Field(
        (),
        description="Machine types that a VM may be started as, best first, each able to do the capacity; empty: only as it is.",
    )


class AfterStartSection(Section):
    """A program of yours on this machine, run without a shell once per start of a VM; exit code 0 lets it serve."""

    run: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=50)] = Field(
        description="The program and its arguments; the VM is in AUTOSCALER_VM_ID, AUTOSCALER_VM_ADDRESS and AUTOSCALER_VM_PUBLIC_ADDRESS."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 1, 600)] = Field(
        30.0, description="How long one run may take before it is ended with its children."
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
        None, description="What is asked, for example http://{address}/health (probe http)."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        2.0, description="How long one answer may take (probe http)."
    )
    after_start: Annotated[AfterStartSection | None, Off] = Field(
        None,
        description="A program of yours that is run once the probe passes after a start, before the VM serves, or off.",
    )


class ConditionSection(Section):
    """When a VM counts as slow, and what is done about it."""

    slow_below: Annotated[float, Quantity(PERCENT, 0.1, 0.95)] = Field(
        0.5,
        description="A VM is slow whose speed is below this share of the others', or of its own past where that can be compared.",
    )
    replace: Annotated[float, Quantity(PERCENT, 0, 0.5)] = Field(
        0.0,
        description="Share of the VMs in service that may be replaced at once for being slow or silent, at least one; 0% only watches.",
    )


class BoundsSection(Section):
    """Between how many VMs the fleet moves."""

    minimum: int = Field(1, ge=0, le=100_000, description="Fewest VMs in service, in VMs.")
    maximum: int = Field(ge=1, le=100_000, description="Most VMs in service, in VMs.")


class HibernationSection(Section):
    """How VMs that go into the warm pool keep their memory.

    With an objective, so many of those that wait are hibernated as are worth it, those that are started first: where the
    start is quicker by `start_time`, and the work that is expected to wait meanwhile costs more than saving the memory and
    holding it (`prices.memory`). Without one, and until it is known how quick the starts are, all are.
    """

    start_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] | None = Field(
        None,
        description="Expected time from the order to start a hibernated VM until it serves, weighed against vm.start_time; where missing, learned with vm.learn_start_time, and until then all that may hibernate do.",
    )
    save_time_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        60.0, description="How long saving a memory takes, during which the VM is billed as running."
    )
    renew_after_s: Annotated[float, Quantity(DURATION, HOUR_S, 59 * DAY_S)] = Field(
        50 * DAY_S,
        description="How long after its memory was saved a VM is tried and hibernated anew, within the windows of freshness.exercise; the provider keeps none for longer than 60 days.",
    )


class WarmPoolSection(Section):
    """How many VMs wait stopped."""

    minimum: int = Field(0, ge=0, le=100_000, description="Fewest VMs wanted stopped, in VMs.")
    maximum: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        None, description="Most VMs wanted stopped, in VMs; where missing, as many as the fleet may have."
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
        (), description="Machine types to take where there is no room for vm_type, best first."
    )
    subnets: Annotated[tuple[Filled, ...], Field(strict=False, max_length=20)] = Field(
        (), description="Subnets to take where there is no room in subnet, best first."
    )
    maximum: int = Field(ge=1, le=100_000, description="Most VMs of the fleet that may exist, in VMs.")
