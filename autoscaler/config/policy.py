"""The policy schema: every field with unit, range, default and a sentence (rules: `section`)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from autoscaler.config.balancing import BalancerSection, DrainSection
from autoscaler.config.freshness import FreshnessSection, RefillSection
from autoscaler.config.guarding import GuardsSection
from autoscaler.config.known_events import KnownEvent
from autoscaler.config.objective import PROVISION_TIME_S, ObjectiveSection, guards_of_an_objective
from autoscaler.config.section import Off, Section
from autoscaler.config.sharing import SharedLimits
from autoscaler.config.signals import SignalSection
from autoscaler.config.vms import (
    BoundsSection,
    ConditionSection,
    ProvisionSection,
    ReadinessSection,
    VmSection,
    WarmPoolSection,
)
from autoscaler.config.wishes import ForecastSection, PricesSection, ReactiveSection, ScheduleWindow, StepRule


class Policy(Section):
    """The policy of one fleet."""

    fleet: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        description="Name of the fleet: lower-case letters, digits and dashes; the tag autoscaler:fleet assigns VMs to it."
    )
    act: bool = Field(
        False, description="Whether VMs are really started and stopped; otherwise the fleet runs in shadow."
    )
    provider: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")] | None = Field(
        None,
        description="Where its VMs are: a name that the settings give to one of several places (`providers`); without it the only one.",
    )
    signal: SignalSection = Field(description="What is measured, and how it is read.")
    vm: VmSection = Field(description="What one VM can do, and how long it takes to start and stop.")
    readiness: ReadinessSection = Field(
        ReadinessSection(), description="When a running VM counts as in service."
    )
    condition: ConditionSection = Field(
        ConditionSection(), description="When a VM counts as slow, and what is done about it."
    )
    bounds: BoundsSection = Field(description="Fewest and most VMs of the fleet.")
    objective: Annotated[ObjectiveSection | None, Off] = Field(
        None,
        description="What shortage costs, or how much work must be served; the number of VMs then follows from prices and forecast; or off.",
    )
    reactive: Annotated[ReactiveSection | None, Off] = Field(
        None, description="Follow the demand that is measured now, or off."
    )
    forecast: Annotated[ForecastSection | None, Off] = Field(
        None, description="Order ahead of demand, or off."
    )
    steps: Annotated[tuple[StepRule, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Step rules on utilisation; the rules must not overlap."
    )
    schedule: Annotated[tuple[ScheduleWindow, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Recurring windows of time, each with a floor."
    )
    events: Annotated[tuple[KnownEvent, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Known events that change demand; forecasts take them into account."
    )
    guards: GuardsSection = Field(
        GuardsSection(), description="Rules that may change what the policy wishes."
    )
    balancer: Annotated[BalancerSection | None, Off] = Field(
        None, description="The load balancer that VMs are put into and taken out of, or off."
    )
    drain: DrainSection = Field(
        DrainSection(), description="How VMs leave the balancer before they are stopped."
    )
    warm_pool: WarmPoolSection = Field(WarmPoolSection(), description="How many VMs wait stopped.")
    provision: Annotated[ProvisionSection | None, Off] = Field(
        None, description="How VMs are made from nothing, or off."
    )
    refill: Annotated[RefillSection | None, Off] = Field(
        None, description="How VMs are made for the warm pool, or off: then operators make them."
    )
    freshness: FreshnessSection = Field(FreshnessSection(), description="How old VMs of the pool may be.")
    prices: PricesSection = Field(PricesSection(), description="What the fleet costs.")
    shared: Annotated[tuple[SharedLimits, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Limits that groups of fleets share; only in `defaults.yaml`."
    )

    @model_validator(mode="before")
    @classmethod
    def _relaxed(cls, data: Any) -> Any:
        """Switch off guards that an objective makes unnecessary, unless the policy has them."""
        return guards_of_an_objective(data)

    @property
    def uses_signal(self) -> bool:
        """True if demand affects decisions, which it does in all policies that are not schedule-only."""
        return bool(self.reactive or self.forecast or self.steps or self.objective)

    @property
    def group(self) -> SharedLimits | None:
        """The limits that the fleet shares with others; None if it shares none."""
        return next((limits for limits in self.shared if limits.has(self.fleet)), None)

    @property
    def reads_template(self) -> bool:
        """True if the launch template must be known, to find VMs that are out of date."""
        return self.provision is not None and (self.freshness.refresh is not None or self.refill is not None)

    @property
    def provision_time_s(self) -> float:
        """Expected seconds from the order to make a VM from nothing until it serves; a default without an objective."""
        return PROVISION_TIME_S if self.objective is None else self.objective.provision_time_s

    @property
    def max_provisioned(self) -> int:
        """Largest number of VMs of the fleet that may exist."""
        return self.provision.maximum if self.provision else self.bounds.maximum


def policy_from(data: dict[str, Any]) -> Policy:
    """Return the policy of YAML-like data, without files and without checks across fields (for programs and tests).

    Raises:
        pydantic.ValidationError: A field is wrong.
    """
    return Policy.model_validate(data)
