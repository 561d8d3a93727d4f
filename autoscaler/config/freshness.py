"""Policy section: upkeep of the warm pool (refilling in quiet times, current images, exercise)."""

from __future__ import annotations

from datetime import time
from typing import Annotated

from pydantic import Field

from autoscaler.config.guarding import RateLimit
from autoscaler.config.quantities import CLOCK_TIME, DAYS_OF_WEEK, DURATION, PERCENT, Quantity
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Off, Section


class QuietWindow(Section):
    """A recurring window of time in which the pool may be worked on."""

    days: Annotated[tuple[int, ...], DAYS_OF_WEEK] = Field(
        tuple(range(7)), description="Days on which it begins: mon-fri, a list such as sat,sun, or daily."
    )
    from_: Annotated[time | None, CLOCK_TIME] = Field(
        alias="from", description="Local time at which it begins."
    )
    to: Annotated[time | None, CLOCK_TIME] = Field(
        description="Local time at which it ends; not later than `from` means on the next day."
    )
    time_zone: Filled = Field("UTC", description="Time zone by its name, for example Europe/Berlin.")


class RefillSection(Section):
    """How VMs are made for the warm pool, from the template of `provision`, while no VM is on its way for demand."""

    calm_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        120.0, description="How long no VM may have been on its way for demand before one is made."
    )
    at_once: int = Field(2, ge=1, le=1000, description="Most VMs that are being prepared at a time, in VMs.")
    status_checks: bool = Field(
        True, description="Whether the provider's status checks must have passed before a VM is in the pool."
    )
    prepared_tag: bool = Field(
        False,
        description="Whether the image must have set the tag autoscaler:prepared=true on its VM before it is in the pool.",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 60, DAY_S)] = Field(
        1800.0, description="Longest time for preparing; a VM that takes longer is deleted and reported."
    )
    weights: Annotated[tuple[int, ...], Field(strict=False, max_length=21)] = Field(
        (),
        description="Shares of the pool for provision.vm_type and each of provision.types, in their order; empty: all of it for the first.",
    )
    trim_after_s: Annotated[float, Quantity(DURATION, HOUR_S, 90 * DAY_S)] | None = Field(
        None,
        description="Time after which VMs beyond the wanted number are deleted, oldest first; if not set, none are. Only VMs that the daemon made or that have the tag autoscaler:terminable=true are deleted.",
    )
    trim_rate: RateLimit = Field(
        RateLimit.model_validate({"vms": 2, "per": "1h"}), description="How many VMs may be deleted."
    )


class RefreshSection(Section):
    """How out-of-date VMs of the pool are replaced: the new one is made before the old one is deleted."""

    share: Annotated[float, Quantity(PERCENT, 0.01, 1)] = Field(
        0.1, description="Share of the pool that may be replaced at a time (one always may)."
    )
    windows: Annotated[tuple[QuietWindow, ...], Field(strict=False, max_length=20)] = Field(
        (), description="When it is done; empty: whenever no VM is on its way for demand."
    )


class ExerciseCommandSection(Section):
    """Your own program on this machine, run without a shell; exit code 0 means that the VM is healthy."""

    run: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=50)] = Field(
        description="The program and its arguments; the VM is in AUTOSCALER_VM_ID and AUTOSCALER_VM_ADDRESS."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        300.0, description="Longest run before the program is ended with its children."
    )


class SsmParameter(Section):
    """One parameter of a document."""

    name: Filled = Field(description="Its name, for example commands.")
    values: Annotated[tuple[Filled, ...], Field(strict=False, min_length=1, max_length=100)] = Field(
        description="Its values; no secrets, since policies are shown."
    )


class SsmSection(Section):
    """A document of AWS Systems Manager, run on the VM by its agent."""

    document: Filled = Field("AWS-RunShellScript", description="Name of the document.")
    parameters: Annotated[tuple[SsmParameter, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Its parameters."
    )
    timeout_s: Annotated[float, Quantity(DURATION, 30, HOUR_S)] = Field(
        600.0, description="How long one run may take before it is cancelled."
    )


class ExerciseSection(Section):
    """How stopped VMs are exercised: started, checked for readiness, stopped again."""

    every_s: Annotated[float, Quantity(DURATION, HOUR_S, 60 * DAY_S)] = Field(
        7 * DAY_S, description="Longest time that a VM may wait without running."
    )
    at_once: int = Field(1, ge=1, le=100, description="Most VMs exercised at a time, in VMs.")
    windows: Annotated[tuple[QuietWindow, ...], Field(strict=False, max_length=20)] = Field(
        (), description="When it is done; empty: whenever no VM is on its way for demand."
    )
    command: Annotated[ExerciseCommandSection | None, Off] = Field(
        None,
        description="Your own program that patches or checks a VM once it is ready, or off; if it fails, the VM is quarantined.",
    )
    ssm: Annotated[SsmSection | None, Off] = Field(
        None, description="The same by AWS Systems Manager, or off; one of the two."
    )


class FreshnessSection(Section):
    """How old VMs of the pool may be."""

    max_age_s: Annotated[float, Quantity(DURATION, HOUR_S, 3650 * DAY_S)] | None = Field(
        None,
        description="Age at which a VM is out of date; if not set, age does not matter.",
    )
    max_stopped_age_s: Annotated[float, Quantity(DURATION, HOUR_S, 3650 * DAY_S)] | None = Field(
        None,
        description="Time since its last start after which a stopped VM is out of date; if not set, it does not matter.",
    )
    refresh: Annotated[RefreshSection | None, Off] = Field(
        None, description="Replace VMs that are out of date or made from an older template, or off."
    )
    exercise: Annotated[ExerciseSection | None, Off] = Field(
        None, description="Exercise stopped VMs from time to time, or off."
    )
