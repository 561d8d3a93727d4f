"""From a journal to a timeline: the same rows for a live run, a demo and a virtual run.

The intervals of the journal and those of a timeline are not the same. The record of a tick closes the interval before the
tick, in which its cost was incurred, and opens the interval that its decision holds for. A row of a timeline is the interval
that a tick opens. It therefore takes its cost from the next tick, and the last tick, whose interval is still open, has no
row. A skipped tick has a row as well, with the state of the tick before it, so that all rows have the same length.

The counts of VMs in a row are those that the tick saw. Its capacity is that of the interval: without the VMs in service whose stop
the tick ordered, because they serve no more, and a tick may be an hour long.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from autoscaler.ports import ActionRecord, OutcomeKind, Verb
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.store.reader import JournalReader, TickRow

MOST_SKIPPED = 30
"""Longest gap, in ticks, whose skipped ticks get rows. In a longer gap the daemon was down, and what happened is not known."""

DemandBetween = Callable[[float, float], float]
"""Returns the mean true demand between two moments, in work per second. NaN where unknown."""


def timeline(
    reader: JournalReader,
    fleet: str,
    start_s: float,
    end_s: float,
    demand_between: DemandBetween | None = None,
) -> tuple[TimelineRow, ...]:
    """Return the timeline of one fleet.

    Args:
        reader: The journal.
        fleet: Name of the fleet.
        start_s: Earliest time of a tick, epoch seconds.
        end_s: Ticks at or after this time are left out.
        demand_between: The true demand if it is known. None takes the demand that the daemon measured at the start of a row.
    """
    return tuple(each_row(reader, fleet, start_s, end_s, demand_between))


def each_row(
    reader: JournalReader,
    fleet: str,
    start_s: float,
    end_s: float,
    demand_between: DemandBetween | None = None,
) -> Iterator[TimelineRow]:
    """Yield the rows of `timeline` one by one, for times too long to hold in memory."""
    actions = defaultdict(list)
    for action in reader.actions(fleet, start_s, end_s):
        actions[action.tick].append(action)
    for tick, after in pairwise(reader.each_tick(fleet, start_s, end_s)):
        # An early turn has a row of its own, under the number of the tick that contains it.
        own = [
            action
            for action in actions[tick.tick]
            if action.at_s >= tick.at_s and (after.tick != tick.tick or action.at_s < after.at_s)
        ]
        yield from _rows(tick, after, own, demand_between)


def _rows(
    tick: TickRow, after: TickRow, actions: Sequence[ActionRecord], demand_between: DemandBetween | None
) -> Iterator[TimelineRow]:
    """Yield one row per interval of the grid up to the next tick. A skipped tick repeats the state and has no actions."""
    parts = after.tick - tick.tick if 1 <= after.tick - tick.tick <= MOST_SKIPPED else 1
    length_s = (after.at_s - tick.at_s) / parts
    cost, capacity = after.recorded.cost / parts, _capacity(tick, actions)
    yield _row(tick, (tick.at_s, length_s), actions, demand_between, cost, capacity)
    for number in range(1, parts):
        span = (tick.at_s + number * length_s, length_s)
        yield _row(tick, span, (), demand_between, cost, capacity)


def _capacity(tick: TickRow, actions: Sequence[ActionRecord]) -> float:
    """Return the capacity that is left once this tick's orders are accepted.

    VMs leave service when they are told to drain, or to stop if they do not drain. The tick may also stop VMs that have drained,
    or that never came into service.
    """
    r = tick.recorded
    leaving = accepted(actions, Verb.DRAIN) + max(accepted(actions, Verb.STOP) - r.draining, 0)
    staying = r.in_service - min(leaving, r.stop, r.in_service)
    return r.capacity * staying / r.in_service if r.in_service else r.capacity


def _row(
    tick: TickRow,
    span: tuple[float, float],
    actions: Sequence[ActionRecord],
    demand_between: DemandBetween | None,
    cost: float | None,
    capacity: float,
) -> TimelineRow:
    r = tick.recorded
    start_s, length_s = span
    demand = r.demand if demand_between is None else demand_between(start_s, start_s + length_s)
    return TimelineRow(
        timestamp_s=start_s,
        demand=demand,
        forecast=r.forecast,
        forecast_hi=r.forecast_hi,
        desired=r.desired,
        in_service=r.in_service,
        starting=r.starting,
        draining=r.draining,
        stopped=r.stopped,
        warm_target=r.warm_target,
        capacity=capacity,
        shortage=math.nan if math.isnan(demand) else max(demand - capacity, 0.0),
        starts=accepted(actions, Verb.START),
        stops=accepted(actions, Verb.STOP),
        provisions=accepted(actions, Verb.PROVISION),
        cost=cost,
        reason=r.sentence,
    )


def accepted(actions: Sequence[ActionRecord], verb: Verb) -> int:
    """Return the number of VMs for which an action was accepted."""
    return sum(
        outcome.kind is OutcomeKind.ACCEPTED
        for action in actions
        if action.intent.verb is verb
        for outcome in action.outcomes
    )


def demand_of(
    rates: Callable[[np.ndarray], np.ndarray], offset_s: float, resolution_s: float
) -> DemandBetween:
    """Return a function that gives the mean demand of a trace between two moments of the clock that played it.

    Args:
        rates: Returns work per second at moments of the recording, NaN where unknown.
        offset_s: Seconds to add to the clock to get the moment of the recording.
        resolution_s: Length of the trace's intervals. Demand is sampled four times per interval, and at least ten times.
    """

    def between(start_s: float, end_s: float) -> float:
        points = min(max(10, math.ceil(4.0 * (end_s - start_s) / resolution_s)), 10_000)
        middle = start_s + (np.arange(points) + 0.5) * (end_s - start_s) / points
        return float(np.mean(rates(middle + offset_s)))

    return between
