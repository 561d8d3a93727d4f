"""What a policy may say: one model per section, every field with unit, range, default and one sentence.

Rules of this file: declarations only. A YAML key is the attribute's name without its unit suffix (`_s`,
`_per_s`, `_per_h`); how quantities are written is `quantities`. A section that may be `off` is None here.
Checks that need two fields at once are in `checks`, so that they can point at a line and carry advice.
"""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from autoscaler.config.quantities import (
    CHANGE,
    CLOCK_TIME,
    DAYS_OF_WEEK,
    DURATION,
    METRIC,
    MOMENT,
    MONEY,
    PERCENT,
    PRICE,
    WORK,
    Change,
    MetricSelector,
    Quantity,
    refuse,
    shown,
)

HOUR_S = 3600.0
DAY_S = 86400.0

SignalKind: TypeAlias = Literal["utilisation", "throughput", "total"]


def yaml_key(attribute: str) -> str:
    """The YAML key of an attribute: its name without the unit."""
    for suffix in ("_per_s", "_per_h", "_s"):
        if attribute.endswith(suffix):
            return attribute.removesuffix(suffix)
    return attribute


def _off(raw: object) -> object:
    if raw is None:
        raise refuse("the section is empty", "write `{}` to take all of its defaults, or `off`")
    return None if raw == "off" or raw is False else raw


def _filled(raw: object) -> object:
    if isinstance(raw, str) and not raw.strip():
        raise refuse("the text is empty", "fill it in, or remove the key")
    return raw


def _http(raw: object) -> object:
    if isinstance(raw, str) and not re.match(r"https?://[^/\s]", raw):
        raise refuse(f"{shown(raw)} is not a web address", "write for example http://{address}:9100/metrics")
    return raw


Off = BeforeValidator(_off)
Filled: TypeAlias = Annotated[str, BeforeValidator(_filled)]
Url: TypeAlias = Annotated[str, BeforeValidator(_http)]


class Section(BaseModel):
    """Base of all sections: strict, closed, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=yaml_key)


class Scrape(Section):
    """How the VMs are scraped."""

    url: Url = Field(
        "http://{address}:9100/metrics",
        description="Where a VM shows its metrics; {address} is its private address (kind total: one address without it).",
    )
    metric: Annotated[MetricSelector, METRIC] | None = Field(
        None,
        description='Metric to read, by name and optionally exact labels, for example requests_total{code="200"}; series that match are summed (type cpu: node_cpu_seconds_total where missing).',
    )
    type: Literal["gauge", "counter", "cpu"] = Field(
        "gauge",
        description="gauge: the value counts as it is; counter: its rate between two scrapes; cpu: the share of time not idle.",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        3.0, description="How long one VM may take to answer."
    )


class TraceInput(Section):
    """Which recording is played."""

    file: Filled | None = Field(
        None,
        description="Trace file, relative to this policy's folder; where missing, the command supplies it.",
    )
    kind: Literal["count", "gauge"] | None = Field(
        None, description="What its values mean; where missing, the manifest.csv beside it says it."
    )
    loop: bool = Field(False, description="Whether it begins again at its end.")
    scale_to_vms: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Scale it so that its peak needs this many VMs at their capacity."
    )
    start_at: Annotated[datetime, MOMENT] | None = Field(
        None, description="Moment of the recording that plays first; where missing, its beginning."
    )
    lag_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        0.0, description="How late a reading is known, as with a monitoring system that lags."
    )


class SignalSection(Section):
    """What is measured, and how it is read."""

    kind: SignalKind = Field(
        description="utilisation: share of a VM's capacity in use; throughput: work per second that arrives at a VM; total: work per second wanted from the fleet."
    )
    source: Literal["scrape", "trace"] = Field(
        description="Where readings come from; the section of the same name says how."
    )
    max_age_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(
        60.0, description="Readings older than this are stale: nothing is scaled in on them."
    )
    saturation: Annotated[float, Quantity(PERCENT, 0.5, 1)] = Field(
        0.9, description="Mean utilisation from which demand counts as hidden (kind utilisation only)."
    )
    scrape: Annotated[Scrape | None, Off] = Field(None, description="How VMs are scraped (source scrape).")
    trace: Annotated[TraceInput | None, Off] = Field(
        None, description="Which recording is played (source trace)."
    )


class VmSection(Section):
    """What one VM can do, and how long it takes to come and go."""

    capacity_per_s: Annotated[float, Quantity(WORK, 1e-6, 1e9)] = Field(
        description="Work per second that one VM does while it meets its service objective."
    )
    start_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        40.0, description="Expected time from the order to start a stopped VM until it serves."
    )
    stop_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        40.0, description="Expected time from the order to stop a VM until it could be started again."
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


class BoundsSection(Section):
    """Between how many VMs the fleet moves."""

    minimum: int = Field(1, ge=0, le=100_000, description="Fewest VMs in service, in VMs.")
    maximum: int = Field(ge=1, le=100_000, description="Most VMs in service, in VMs.")


class ReactiveSection(Section):
    """Follow the demand that is measured now."""

    headroom: Annotated[float, Quantity(PERCENT, 0, 10)] = Field(
        0.3, description="Planned surplus over demand."
    )
    tolerance: Annotated[float, Quantity(PERCENT, 0, 0.9)] = Field(
        0.1, description="Relative difference between wanted and ordered VMs within which nothing moves."
    )
    censored_growth: Annotated[float, Quantity(PERCENT, 0, 10)] = Field(
        0.5, description="How much more demand is planned for while saturated VMs hide it."
    )


class ForecastSection(Section):
    """Order ahead: cover a quantile of the demand expected once a VM ordered now can serve."""

    cover: Annotated[float, Quantity(PERCENT, 0.5, 0.99)] = Field(
        0.95, description="Share of outcomes that is covered: 50%, 90%, 95% or 99%."
    )
    half_life_s: Annotated[float, Quantity(DURATION, 60, 365 * DAY_S)] = Field(
        6 * HOUR_S, description="Age at which evidence about forecast errors weighs half."
    )


class StepRule(Section):
    """One step: while utilisation is within [above, below), change the number of VMs."""

    above: Annotated[float, Quantity(PERCENT, 0, 10)] | None = Field(
        None, description="Utilisation from which the rule matches; where missing, from zero."
    )
    below: Annotated[float, Quantity(PERCENT, 0, 10)] | None = Field(
        None, description="Utilisation below which the rule matches; where missing, without end."
    )
    change: Annotated[Change, CHANGE] = Field(
        description="VMs to add or remove, or a share of those ordered."
    )


class ScheduleWindow(Section):
    """A recurring window of time with a floor."""

    name: Filled = Field(description="What it is for; appears in reasons.")
    days: Annotated[tuple[int, ...], DAYS_OF_WEEK] = Field(
        tuple(range(7)), description="Days on which it begins: mon-fri, a list such as sat,sun, or daily."
    )
    from_: Annotated[time | None, CLOCK_TIME] = Field(
        alias="from", description="Local time at which it begins."
    )
    to: Annotated[time | None, CLOCK_TIME] = Field(
        description="Local time at which it ends; not later than `from` means on the next day; 24:00 is allowed."
    )
    time_zone: Filled = Field("UTC", description="Time zone by its name, for example Europe/Berlin.")
    at_least: int = Field(ge=0, le=100_000, description="Fewest VMs in service within the window, in VMs.")


class RateLimit(Section):
    """A token bucket: so many VMs at once, full again after the period."""

    vms: int = Field(ge=1, le=100_000, description="VMs within the period, in VMs.")
    per_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(60.0, description="The period.")


class GuardsSection(Section):
    """Rules that may change what the policy wishes."""

    stabilisation_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        300.0, description="Scale in at most to the highest wish within this time."
    )
    cooldown_out_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        0.0, description="Pause after an order to scale out before the next one; 0s is none."
    )
    cooldown_in_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        120.0,
        description="Pause before a scale-in after the last one, and after the last ordered VM came into service.",
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


class ProvisionSection(Section):
    """How VMs are made from nothing when the warm pool is empty."""

    launch_template: Filled = Field(description="Launch template, by id (lt-...) or name.")
    version: Filled = Field("$Default", description="Its version: $Default, $Latest or a number in quotes.")
    vm_type: Filled | None = Field(
        None, description="Machine type instead of the template's, for example m7i.large."
    )
    subnet: Filled | None = Field(
        None, description="Subnet instead of the template's; it also decides the zone."
    )
    maximum: int = Field(ge=1, le=100_000, description="Most VMs of the fleet that may exist, in VMs.")


class PricesSection(Section):
    """What the fleet costs, in the one currency you use throughout."""

    in_service_per_h: Annotated[float, Quantity(PRICE, 0, 1e6)] = Field(
        0.0, description="Money per VM-hour while a VM is billed as running."
    )
    stopped_per_h: Annotated[float, Quantity(PRICE, 0, 1e6)] = Field(
        0.0, description="Money per VM-hour of storage, due for every provisioned VM whether it runs or not."
    )
    start: Annotated[float, Quantity(MONEY, 0, 1e6)] = Field(0.0, description="Money per start.")
    provision: Annotated[float, Quantity(MONEY, 0, 1e6)] = Field(
        0.0, description="Money per VM made from nothing."
    )


class Policy(Section):
    """The policy of one fleet."""

    fleet: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        description="Name of the fleet: lower-case letters, digits and dashes; VMs belong to it by the tag autoscaler:fleet."
    )
    act: bool = Field(
        False, description="Whether VMs are really started and stopped; without it the fleet runs in shadow."
    )
    signal: SignalSection = Field(description="What is measured, and how it is read.")
    vm: VmSection = Field(description="What one VM can do, and how long it takes to come and go.")
    readiness: ReadinessSection = Field(
        ReadinessSection(), description="When a running VM counts as in service."
    )
    bounds: BoundsSection = Field(description="Between how many VMs the fleet moves.")
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
    guards: GuardsSection = Field(
        GuardsSection(), description="Rules that may change what the policy wishes."
    )
    warm_pool: WarmPoolSection = Field(WarmPoolSection(), description="How many VMs wait stopped.")
    provision: Annotated[ProvisionSection | None, Off] = Field(
        None, description="How VMs are made from nothing, or off."
    )
    prices: PricesSection = Field(PricesSection(), description="What the fleet costs.")

    @property
    def uses_signal(self) -> bool:
        """Whether demand data decides anything (all but schedule-only policies)."""
        return bool(self.reactive or self.forecast or self.steps)

    @property
    def max_provisioned(self) -> int:
        """Most VMs of the fleet that may exist."""
        return self.provision.maximum if self.provision else self.bounds.maximum


def policy_from(data: dict[str, Any]) -> Policy:
    """A policy from YAML-like data, without files or cross-field checks (for programs and tests).

    Raises:
        pydantic.ValidationError: A field is wrong.
    """
    return Policy.model_validate(data)
