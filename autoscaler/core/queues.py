"""Demand of a fleet that works off a queue, from how much waits in it.

Demand is what arrives plus what would work off the backlog in the time allowed. What arrives is seen in how the
backlog changes: while something waits the VMs in service are all at work, so what arrives is their capacity plus the
change. While nothing waits they may be idle, and all that is known is that no more arrives than they can do; what
was known before then fades, so that the fleet shrinks slowly until something waits again.

Rules of this file: lanes do not see each other. What is not fresh changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from autoscaler.core.params import FoldParams
from autoscaler.core.remembered import Remembered
from autoscaler.core.types import Float, Freshness, Int, Samples, Signal

FADES_S = 600.0
"""While nothing waits, what is taken to arrive halves in this time."""
NOTHING = 0.05
"""Where nothing waits, less than this share of what the VMs in service can do is taken for nothing."""
SMOOTHED = 0.5
"""Arrivals are averaged over this share of the time allowed for a backlog."""


@dataclass(slots=True)
class QueueState(Remembered):
    """What is remembered of the queues of L lanes.

    Attributes:
        backlog: float64 (L,), work that waited last; NaN before the first sample.
        at_s: float64 (L,), when that was.
        arrives: float64 (L,), work per second that is taken to arrive.
    """

    version: ClassVar[int] = 1
    backlog: Float
    at_s: Float
    arrives: Float

    @classmethod
    def empty(cls, lanes: int) -> QueueState:
        """Nothing has been seen."""
        return cls(np.full(lanes, np.nan), np.full(lanes, -np.inf), np.zeros(lanes))

    def carried_over(self, lanes: Int) -> QueueState:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            lanes: int64 (N,), the lane that each was; -1 for a new one.
        """
        new = QueueState.empty(len(lanes))
        known = lanes >= 0
        for name in ("backlog", "at_s", "arrives"):
            getattr(new, name)[known] = getattr(self, name)[lanes[known]]
        return new


def demand_of_queues(
    params: FoldParams, state: QueueState, samples: Samples, serving_capacity: Float
) -> Samples:
    """The samples with demand in the place of the backlogs of those lanes that measure a queue.

    Args:
        params: L lanes.
        state: Updated in place.
        samples: As folded.
        serving_capacity: float64 (L,), work per second that the VMs in service can do.
    """
    queue = params.signal == int(Signal.QUEUE)
    fresh = queue & (samples.freshness == int(Freshness.FRESH))
    backlog, at_s = samples.demand, samples.observed_at_s
    first = fresh & np.isnan(state.backlog)
    later = fresh & (at_s > state.at_s) & ~first
    passed_s = np.where(later, at_s - state.at_s, 1.0)
    waited = later & ((backlog > 0.0) | (state.backlog > 0.0))
    emptied = later & (backlog <= 0.0)

    change = np.where(waited, (backlog - state.backlog) / passed_s, 0.0)
    arrived = np.maximum(serving_capacity + change, 0.0)
    weight = 1.0 - np.exp(-passed_s / (SMOOTHED * params.drain_s))
    seen = state.arrives + weight * (arrived - state.arrives)
    faded = np.minimum(state.arrives * 0.5 ** (passed_s / FADES_S), serving_capacity)
    faded = np.where(faded < NOTHING * serving_capacity, 0.0, faded)
    arrives = np.where(emptied, faded, np.where(waited, seen, state.arrives))
    state.arrives = np.where(first & (backlog > 0.0), serving_capacity, arrives)
    taken = first | later
    state.backlog = np.where(taken, backlog, state.backlog)
    state.at_s = np.where(taken, at_s, state.at_s)
    demand = np.where(fresh, state.arrives + backlog / params.drain_s, samples.demand)
    return replace(samples, demand=demand)
