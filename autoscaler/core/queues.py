"""Demand of a fleet that works off a queue, derived from the length of the backlog.

Demand is the arrivals plus the rate that would clear the backlog in the time allowed. Arrivals are inferred from changes of the
backlog: while something waits, all VMs in service are busy, so arrivals are their capacity plus the change. While nothing waits they
may be idle, and arrivals are only known to be at most their capacity; the last estimate then fades, so that the fleet shrinks slowly
until something waits again.

Rules of this file: lanes do not see each other. Readings that are not fresh change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from autoscaler.core.params import FoldParams
from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Bool, Float, Freshness, Int, Samples, Signal

FADES_S = 600.0
"""Half-life of the estimated arrivals while nothing waits."""
NOTHING = 0.05
"""While nothing waits, estimated arrivals below this share of the capacity in service count as none."""
SMOOTHED = 0.5
"""Arrivals are averaged over this share of the time within which a backlog should be cleared."""


@dataclass(slots=True)
class QueueState(Remembered):
    """What is remembered of the backlogs of L lanes.

    Attributes:
        backlog: float64 (L,), work that waited at the last sample; NaN before the first.
        at_s: float64 (L,), time of that sample; -inf before the first.
        arrives: float64 (L,), estimated arrivals, work per second.
    """

    version: ClassVar[int] = 1
    backlog: Float
    at_s: Float
    arrives: Float

    @classmethod
    def empty(cls, lanes: int) -> QueueState:
        """A state that has seen no sample."""
        return cls(np.full(lanes, np.nan), np.full(lanes, -np.inf), np.zeros(lanes))

    def carried_over(self, lanes: Int) -> QueueState:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        new = QueueState.empty(len(lanes))
        known = lanes >= 0
        for name in ("backlog", "at_s", "arrives"):
            getattr(new, name)[known] = getattr(self, name)[lanes[known]]
        return new


def demand_of_queues(
    params: FoldParams, state: QueueState, samples: Samples, serving_capacity: Float
) -> Samples:
    """Return the samples with backlogs replaced by demand, in the lanes whose signal is a queue.

    Args:
        params: Settings of L lanes.
        state: Updated in place.
        samples: The samples that `fold` returned.
        serving_capacity: float64 (L,), work per second that the VMs in service can do.
    """
    queue = params.signal == int(Signal.QUEUE)
    fresh = queue & (samples.freshness == int(Freshness.FRESH))
    wanted = _wanted(state, fresh, samples.demand, samples.observed_at_s, serving_capacity, params.drain_s)
    return replace(samples, demand=np.where(fresh, wanted, samples.demand))


def demand_if(
    state: QueueState, backlog: float, at_s: float, serving_capacity: float, drain_s: float
) -> float:
    """Return the demand, work per second, that would result from one more sample of a backlog.

    Args:
        state: State of one lane; not changed.
        backlog: Work that waits.
        at_s: Time of the sample.
        serving_capacity: Work per second that the VMs in service can do.
        drain_s: Time within which a backlog should be cleared.
    """
    one = state.carried_over(np.zeros(1, np.int64))
    fresh = np.ones(1, np.bool_)
    arrays = (np.array([number]) for number in (backlog, at_s, serving_capacity, drain_s))
    return float(_wanted(one, fresh, *arrays)[0])


def _wanted(
    state: QueueState, fresh: Bool, backlog: Float, at_s: Float, serving_capacity: Float, drain_s: Float
) -> Float:
    """Update the state with the fresh lanes' backlogs; return their demand, work per second: float64 (L,)."""
    first = fresh & np.isnan(state.backlog)
    later = fresh & (at_s > state.at_s) & ~first
    passed_s = np.where(later, at_s - state.at_s, 1.0)
    waited = later & (backlog > 0.0)
    emptied = later & (backlog <= 0.0)

    change = np.where(waited, (backlog - state.backlog) / passed_s, 0.0)
    arrived = np.maximum(serving_capacity + change, 0.0)
    weight = 1.0 - np.exp(-passed_s / (SMOOTHED * drain_s))
    seen = state.arrives + weight * (arrived - state.arrives)
    faded = np.minimum(state.arrives * 0.5 ** (passed_s / FADES_S), serving_capacity)
    faded = np.where(faded < NOTHING * serving_capacity, 0.0, faded)
    arrives = np.where(emptied, faded, np.where(waited, seen, state.arrives))
    state.arrives = np.where(first & (backlog > 0.0), serving_capacity, arrives)
    taken = first | later
    state.backlog = np.where(taken, backlog, state.backlog)
    state.at_s = np.where(taken, at_s, state.at_s)
    wanted: Float = state.arrives + backlog / drain_s
    return wanted
