"""The figures that a scenario's expectations use: how each is measured, written and read.

Rules of this file: a figure is a function of what happened in the cloud and of what the journal says was accepted,
never of what the daemon believed. Unknown is NaN, and the one who judges refuses it.
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
class Seen:
    """What happened in a part of a run, one entry per tick.

    Attributes:
        tick_s: Length of a tick.
        at_s: float64 (n,), epoch seconds at which each interval begins.
        demand: float64 (n,), work per second wanted in it; NaN unknown.
        serving, stopped: float64 (n,), VMs that really served, waited stopped, in the middle of it.
        capacity: float64 (n,), work per second that those that served could do.
        desired: float64 (n,), as decided; NaN while no daemon ran.
        starts, stops, provisions: VMs for which that was accepted.
        most_at_once: Most VMs whose start or making was ordered in one tick, as far as it was accepted.
        repeated_starts: Starts accepted for VMs that ran or were starting.
        calls, refused_calls: API calls that the cloud accepted, refused.
        cost, peak_cost: Money; of as many VMs as the peak needs, always on.
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
        """float64 (n,), work per second that found no capacity; NaN unknown."""
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
        label: For people.
        noun: What a bound on it is.
        unit: How it is shown.
        read: A bound as written to its number; raises ValueError.
        measure: Its value.
        whole_run: Whether it is known of a whole run only.
    """

    label: str
    noun: str
    unit: Unit
    read: Callable[[object], float]
    measure: Callable[[Seen], float]
    whole_run: bool = False

    def shown(self, value: float) -> str:
        """With its unit."""
        return shown(value, self.unit)


def _unserved(seen: Seen) -> float:
    known = ~np.isnan(seen.demand)
    wanted = float(seen.demand[known].sum())
    return float(seen.shortage[known].sum()) / wanted if wanted > 0 else math.nan


def _longest(seen: Seen) -> float:
    episodes = shortage_episodes(seen.at_s, seen.shortage, seen.tick_s)
    return max((episode.end_s - episode.start_s for episode in episodes), default=0.0)


def _recovery(seen: Seen) -> float:
    """Until nothing is short any more, from the beginning of the part; unknown where it still is at the end."""
    short = np.flatnonzero(seen.shortage > 0)
    if not len(short):
        return 0.0
    return math.nan if short[-1] == len(seen.shortage) - 1 else float(short[-1] + 1) * seen.tick_s


FIGURES: dict[str, Figure] = {
    "unserved": Figure("unserved work", "share", Unit.SHARE, _share, _unserved),
    "shortage_time": Figure(
        "time short", "duration", Unit.SPAN, _span,
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
        "fewest VMs stopped", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.stopped.min())
    ),
    "starts": Figure("starts", "number", Unit.COUNT, _count, lambda seen: float(seen.starts)),
    "stops": Figure("stops", "number", Unit.COUNT, _count, lambda seen: float(seen.stops)),
    "provisions": Figure("VMs made", "number", Unit.COUNT, _count, lambda seen: float(seen.provisions)),
    "repeated_starts": Figure(
        "starts of VMs that ran", "number", Unit.COUNT, _count, lambda seen: float(seen.repeated_starts)
    ),
    "reversals": Figure(
        "reversals", "number", Unit.COUNT, _count, lambda seen: float(reversals(seen.desired))
    ),
    "growth_most": Figure(
        "most VMs ordered in a tick", "number of VMs", Unit.COUNT, _count, lambda seen: float(seen.most_at_once)
    ),
    "recovery": Figure("time until all is served", "duration", Unit.SPAN, _span, _recovery),
    "calls": Figure("API calls", "number", Unit.COUNT, _count, lambda seen: float(seen.calls), whole_run=True),
    "refused_calls": Figure(
        "refused API calls", "number", Unit.COUNT, _count, lambda seen: float(seen.refused_calls),
        whole_run=True,
    ),
    "cost_of_peak": Figure(
        "cost, of always on at peak", "share", Unit.SHARE, _share,
        lambda seen: seen.cost / seen.peak_cost if seen.peak_cost > 0 else math.nan, whole_run=True,
    ),
}  # fmt: skip
"""Every figure, by the name that it has in a scenario."""
