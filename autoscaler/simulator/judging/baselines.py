"""Baselines: the same demand served in simpler ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.config.compiling_objective import objective_in_words
from autoscaler.config.guarding import GuardsSection
from autoscaler.config.objective import RELAXED_GUARDS
from autoscaler.config.policy import Policy
from autoscaler.config.wishes import ForecastSection, ReactiveSection
from autoscaler.simulator.replay.timeline import TimelineRow, column


def always_on(rows: Sequence[TimelineRow], policy: Policy, tick_s: float) -> tuple[TimelineRow, ...]:
    """Return a timeline with as many VMs as the highest demand of the run needs, in service all the time.

    It knows the peak beforehand, which no real fleet does, so it is the best case of sizing by hand. It pays for those VMs
    and their disks only.
    """
    peak = float(np.nanmax(column(rows, "demand"), initial=0.0))
    vms = max(math.ceil(peak / policy.vm.capacity_per_s - 1e-9), policy.bounds.minimum)
    per_h = policy.prices.in_service_per_h + policy.prices.stopped_per_h
    return tuple(
        replace(
            row,
            forecast=None,
            forecast_hi=None,
            desired=vms,
            in_service=vms,
            starting=0,
            draining=0,
            stopped=0,
            warm_target=0,
            capacity=vms * policy.vm.capacity_per_s,
            shortage=None if row.demand is None else 0.0 if not math.isnan(row.demand) else math.nan,
            starts=0,
            stops=0,
            provisions=0,
            cost=vms * per_h * tick_s / 3600.0,
            reason="always on",
        )
        for row in rows
    )


def plain_reactive(policy: Policy) -> Policy:
    """Return the policy resized by demand plus 30 % headroom, with 10 % tolerance.

    It has no objective, forecast, steps or schedule. 30 % headroom is a target utilisation of 77 %; the tolerance is that of
    the Kubernetes horizontal autoscaler. Bounds, guards, warm pool and prices stay those of the policy. Guards that an
    objective has switched off get their default values.
    """
    reactive = ReactiveSection.model_construct(headroom=0.3, tolerance=0.1, censored_growth=0.5)
    changes = {"reactive": reactive, "objective": None, "forecast": None, "steps": (), "schedule": ()}
    if policy.objective is None:
        return policy.model_copy(update=changes)
    usual, relaxed = GuardsSection(), GuardsSection.model_validate(dict(RELAXED_GUARDS))
    switched_off = {
        name: getattr(usual, name)
        for name in relaxed.model_fields_set
        if getattr(policy.guards, name) == getattr(relaxed, name)
    }
    return policy.model_copy(update={**changes, "guards": policy.guards.model_copy(update=switched_off)})


def describe(policy: Policy) -> str:
    """Return in a few words how a policy is sized."""
    aim = objective_in_words(policy).partition(": ")[2].partition(", a start")[0]
    parts = []
    if policy.reactive:
        parts.append(f"demand + {policy.reactive.headroom:.0%}")
    if isinstance(policy.forecast, ForecastSection):
        parts.append(f"forecast {policy.forecast.cover:.0%}")
    if policy.steps:
        parts.append("steps")
    if policy.schedule:
        parts.append("schedule")
    return "; ".join(filter(None, (aim, ", ".join(parts))))
