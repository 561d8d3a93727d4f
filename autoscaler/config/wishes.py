"""Policy section: the rules that ask for VMs, and prices."""

from __future__ import annotations

from datetime import time
from typing import Annotated

from pydantic import Field

from autoscaler.config.quantities import (
    CHANGE,
    CLOCK_TIME,
    DAYS_OF_WEEK,
    DURATION,
    MONEY,
    PERCENT,
    PRICE,
    Change,
    Quantity,
)
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Section


class ReactiveSection(Section):
    """Follow the demand that is measured now."""

    headroom: Annotated[float, Quantity(PERCENT, 0, 10)] = Field(
        0.3, description="Planned surplus over demand."
    )
    tolerance: Annotated[float, Quantity(PERCENT, 0, 0.9)] = Field(
        0.1, description="Relative difference between wanted and ordered VMs within which nothing changes."
    )
    censored_growth: Annotated[float, Quantity(PERCENT, 0, 10)] = Field(
        0.5, description="How much more demand to plan for while saturated VMs hide it."
    )


class ForecastSection(Section):
    """Order ahead: cover a quantile of the demand expected once a VM ordered now can serve."""

    cover: Annotated[float, Quantity(PERCENT, 0.5, 0.99)] = Field(
        0.95, description="Share of outcomes that is covered: 50%, 90%, 95% or 99%."
    )
    half_life_s: Annotated[float, Quantity(DURATION, 60, 365 * DAY_S)] = Field(
        5 * DAY_S, description="Age at which learned data has half its weight."
    )


class StepRule(Section):
    """One step: while utilisation is within [above, below), change the number of VMs."""

    above: Annotated[float, Quantity(PERCENT, 0, 10)] | None = Field(
        None, description="Utilisation from which the rule matches; if not set, from zero."
    )
    below: Annotated[float, Quantity(PERCENT, 0, 10)] | None = Field(
        None, description="Utilisation below which the rule matches; if not set, without limit."
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


class PricesSection(Section):
    """What the fleet costs, in the one currency you use throughout."""

    in_service_per_h: Annotated[float, Quantity(PRICE, 0, 1e6)] = Field(
        0.0, description="Money per VM-hour while a VM is billed as running."
    )
    stopped_per_h: Annotated[float, Quantity(PRICE, 0, 1e6)] = Field(
        0.0, description="Money per VM-hour of storage, due for every provisioned VM whether it runs or not."
    )
    start: Annotated[float, Quantity(MONEY, 0, 1e6)] = Field(
        0.0, description="Money per start, in addition to the time billed until it serves."
    )
    start_billed_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] | None = Field(
        None,
        description="How long a start is billed before the VM serves; if not set, `vm.start_time`.",
    )
    provision: Annotated[float, Quantity(MONEY, 0, 1e6)] = Field(
        0.0, description="Money per VM made from nothing."
    )
    memory_per_h: Annotated[float, Quantity(PRICE, 0, 1e6)] = Field(
        0.0,
        description="Money per VM-hour that a saved memory costs while its VM waits hibernated, beside `prices.stopped`; 0 where the disk has room for it in any case.",
    )
