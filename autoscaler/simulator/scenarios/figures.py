"""The figures that a scenario's expectations use: how each is measured, written and read.

Rules of this file: a figure is computed from what happened in the cloud and from what the journal says was accepted, never
from what the daemon believed. Unknown figures are NaN, and `judging` treats them as broken bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoscaler.config.quantities import DURATION, PERCENT
from autoscaler.core.types import Float
from autoscaler.simulator.replay.timeline import reversals, shortage_episodes
from autoscaler.simulator.report.wording import Unit, shown


@dataclass(frozen=True, slots=True)
class RunTicks:
    """What happened in a part of a run, with one array element per tick.

    Attributes:
        tick_s: Length of a tick in seconds.
        at_s: float64 (n,), begin of each interval, epoch seconds.
        demand: float64 (n,), work wanted per second. NaN where unknown.
        serving, stopped: float64 (n,), VMs that really served or waited stopped in the middle of the interval.
        capacity: float64 (n,), work per second that the serving VMs could do.
        desired: float64 (n,), decided number of VMs. NaN while no daemon ran.
        starts, stops, provisions: Numbers of VMs for which that was accepted.
        most_at_once: Most VMs whose start or provision was accepted in one tick.
        repeated_starts: Starts accepted for VMs that were already running or starting.
        calls, refused_calls: Numbers of API calls that the cloud accepted and refused.
        cost: Cost of the run, in money.
        peak_cost: Cost of as many VMs as the peak needs, always on.
    """

    tick_s: float
    at_s: Float
    demand: Float
    serving: Float
    stopped: Float
    capacity: Float
    desired: Float
    starts: int
    stops: int
    provisions: int
    most_at_once: int
    repeated_starts: int
    calls: int
    refused_calls: int
    cost: float
    peak_cost: float

    @property
    def shortage(self) -> Float:
        """float64 (n,), work per second that found no capacity. NaN where unknown."""
        return np.maximum(self.demand - self.capacity, 0.0)


def _share(raw: object) -> float:
    return float(PERCENT.read(raw))


def _span(raw: object) -> float:
    return 0.0 if raw == 0 and not isinstance(raw, bool) else float(DURATION.read(raw))


def _count(raw: object) -> float:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return float(raw)
    raise ValueError("write a whole number, for example 3")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        label: Name for people.
        noun: What a bound on the figure is, for error messages.
        unit: Unit of the value.
        read: Reads a bound from the scenario file. Raises ValueError.
        measure: Computes the value.
        whole_run: Whether the figure is known only for a whole run.
    """

    label: str
    noun: str
    unit: Unit
    read: Callable[[object], float]
    measure: Callable[[RunTicks], float]
    whole_run: bool = False

    def shown(self, value: float) -> str:
        """Format a value with its unit."""
        return shown(value, self.unit)


def _unserved(seen: RunTicks) -> float:
    known = ~np.isnan(seen.demand)
    wanted = float(seen.demand[known].sum())
    return float(seen.shortage[known].sum()) / wanted if wanted > 0 else math.nan


def _longest(seen: RunTicks) -> float:
    episodes = shortage_episodes(seen.at_s, seen.shortage, seen.tick_s)
    return max((episode.end_s - episode.start_s for episode in episodes), default=0.0)


def _recovery(seen: RunTicks) -> float:
    """Return the seconds from the beginning of the part until the last shortage is over. NaN if it lasts to the end."""
    short = np.flatnonzero(seen.shortage > 0)
    if not len(short):
        return 0.0
    return math.nan if short[-1] == len(seen.shortage) - 1 else float(short[-1] + 1) * seen.tick_s


FIGURES: dict[str, Figure] = {
    "unserved": Figure("unserved work", "share", Unit.SHARE, _share, _unserved),
    "shortage_time": Figure(
        "time with shortage", "duration", Unit.SPAN, _span,
        lambda seen: float(np.count_nonzero(seen.shortage > 0)) * seen.tick_s,
    ),
    "longest_episode": Figure("longest shortage", "duration", Unit.SPAN, _span, _longest),
    "serving_most": Figure(
        "most VMs in service", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.serving.max())
    ),
    "serving_least": Figure(
        "fewest VMs in service", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.serving.min())
    ),
    "stopped_least": Figure(
        "fewest stopped VMs", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.stopped.min())
    ),
    "starts": Figure("starts", "number", Unit.COUNT, _count, lambda seen: float(seen.starts)),
    "stops": Figure("stops", "number", Unit.COUNT, _count, lambda seen: float(seen.stops)),
    "provisions": Figure("VMs provisioned", "number", Unit.COUNT, _count, lambda seen: float(seen.provisions)),
    "repeated_starts": Figure(
        "starts of running VMs", "number", Unit.COUNT, _count, lambda seen: float(seen.repeated_starts)
    ),
    "reversals": Figure(
        "reversals", "number", Unit.COUNT, _count, lambda seen: float(reversals(seen.desired))
    ),
    "growth_most": Figure(
        "most VMs ordered in a tick", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.most_at_once)
    ),
    "recovery": Figure("time until the last shortage ends", "duration", Unit.SPAN, _span, _recovery),
    "calls": Figure("API calls", "number", Unit.COUNT, _count, lambda seen: float(seen.calls), whole_run=True),
    "refused_calls": Figure(
        "refused API calls", "number", Unit.COUNT, _count, lambda seen: float(seen.refused_calls),
        whole_run=True,
    ),
    "cost_of_peak": Figure(
        "cost, as a share of always on at peak", "share", Unit.SHARE, _share,
        lambda seen: seen.cost / seen.peak_cost if seen.peak_cost > 0 else math.nan, whole_run=True,
    ),
}  # fmt: skip
"""All figures, by their names in scenario files."""
