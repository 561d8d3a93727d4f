"""Policy section: the objective, as money or as a share of work; all that the economic rule asks of a person.

The price is that of a VM-hour of unserved work, because that is what one VM could have served in an hour. So it compares
directly with the price of a VM-hour, and only their ratio matters. A price per request is this price divided by the requests
that a VM serves in an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from autoscaler.config.quantities import DURATION, PERCENT, PRICE, Quantity
from autoscaler.config.section import HOUR_S, Section

FIRST_GUESS = 0.5
"""First guess at the price of shortage for a served share: this divided by the share that may stay unserved."""

PROVISION_TIME_S = 300.0
"""Planned time to make a VM from nothing if the policy gives none, seconds."""

RELAXED_GUARDS: Mapping[str, object] = {
    "stabilisation": "0s",
    "cooldown_out": "0s",
    "cooldown_in": "0s",
    "minimum_on_time": "60s",
    "rate_out": {"vms": 100_000, "per": "60s"},
    "rate_in": {"vms": 100_000, "per": "60s"},
}
"""Values of guards for a fleet with an objective, unless its policy has them. Prices and forecast replace what these guards only guess."""


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
    """Return whether the data of a policy has an objective."""
    return isinstance(data, Mapping) and data.get("objective") not in (None, "off", False)


def guards_of_an_objective(data: Any) -> Any:
    """Return the data of a policy, with guards that it does not have set to what an objective needs.

    Args:
        data: Data as read from YAML; not changed. Anything that is not a policy with an objective is returned as it is.
    """
    if not has_objective(data):
        return data
    guards = data.get("guards", {})
    if not isinstance(guards, Mapping):
        return data
    return {**data, "guards": {**RELAXED_GUARDS, **guards}}
