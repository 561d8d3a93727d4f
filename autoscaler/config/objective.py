"""Policy section: the objective, as money or as a share of work; all that the economic rule asks of a person.

Why a price per VM-hour of unserved work: it is what one VM could have served in an hour, so it stands beside the price
of that VM-hour, and their ratio is all that decides. A price per request is this one divided by the requests
that a VM serves in an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from autoscaler.config.quantities import DURATION, PERCENT, PRICE, Quantity
from autoscaler.config.section import HOUR_S, Section

FIRST_GUESS = 0.5
"""The first guess at the price of shortage for a served share, as a share of the odds of serving: price = guess / missed."""

PROVISION_TIME_S = 300.0
"""What making a VM from nothing is planned with where nothing is said of it."""

RELAXED_GUARDS: Mapping[str, object] = {
    "stabilisation": "0s",
    "cooldown_out": "0s",
    "cooldown_in": "0s",
    "minimum_on_time": "60s",
    "rate_out": {"vms": 100_000, "per": "60s"},
    "rate_in": {"vms": 100_000, "per": "60s"},
}
"""Guards of a fleet that has an objective, unless it writes them: prices and forecast weigh what these only guess."""


class ObjectiveSection(Section):
    """What shortage costs, or how much work must be served: one of the two."""

    served: Annotated[float, Quantity(PERCENT, 0.5, 0.99999)] | None = Field(
        None,
        description="Share of the work that must find a VM in service; the price of shortage is then found by feedback.",
    )
    shortage_price_per_h: Annotated[float, Quantity(PRICE, 0, 1e9)] | None = Field(
        None,
        description="Money per VM-hour of unserved work: the loss if the work of one VM finds no VM for an hour.",
    )
    provision_time_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(
        PROVISION_TIME_S,
        description="Expected time from the order to make a VM from nothing until it serves; after twice that time it is not counted on.",
    )


def has_objective(data: Any) -> bool:
    """Whether the data of a policy has an objective."""
    return isinstance(data, Mapping) and data.get("objective") not in (None, "off", False)


def guards_of_an_objective(data: Any) -> Any:
    """The data of a policy, with guards that it does not write set to what an objective needs.

    Args:
        data: As read from YAML, not changed; anything else is given back as it is.
    """
    if not has_objective(data):
        return data
    guards = data.get("guards", {})
    if not isinstance(guards, Mapping):
        return data
    return {**data, "guards": {**RELAXED_GUARDS, **guards}}
