"""From a journal to a timeline: the same rows for a live run, a demo and a virtual run.

Two clocks of intervals meet here. A tick's record closes the interval before it (that is when its cost was
charged) and opens the one that its decision holds for; a time line's row is the opened one. So a row takes
its cost from the tick after, and the last tick, whose interval is still open, has no row. A tick that was
skipped has a row too, with the state of the one before it, so that rows are of equal length.
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
"""A longer gap is a daemon that was down: what happened in it is not known, and it has no rows of its own."""

DemandBetween = Callable[[float, float], float]
"""Mean work per second that was really wanted between two moments; NaN where unknown."""


def timeline(
    reader: JournalReader,
    fleet: str,
    start_s: float,
    end_s: float,
    demand_between: DemandBetween | None = None,
) -> tuple[TimelineRow, ...]:
    """The rows of one fleet.

    Args:
        reader: The journal.
        fleet: Which.
        start_s: First moment of a tick.
        end_s: Ticks before this.
        demand_between: The truth where it is known; else what the daemon measured at the start of a row.
    """
    return tuple(each_row(reader, fleet, start_s, end_s, demand_between))


def each_row(
    reader: JournalReader,
    fleet: str,
    start_s: float,
    end_s: float,
    demand_between: DemandBetween | None = None,
) -> Iterator[TimelineRow]:
    """The same one by one, for times too long to be held."""
    actions = defaultdict(list)
    for action in reader.actions(fleet, start_s, end_s):
        actions[action.tick].append(action)
    for tick, after in pairwise(reader.each_tick(fleet, start_s, end_s)):
        # An early turn is a row of its own, with the number of the tick that it is in.
        own = [
            action
            for action in actions[tick.tick]
            if action.at_s >= tick.at_s and (after.tick != tick.tick or action.at_s < after.at_s)
        ]
        yield from _rows(tick, after, own, demand_between)


def _rows(
    tick: TickRow, after: TickRow, actions: Sequence[ActionRecord], demand_between: DemandBetween | None
) -> Iterator[TimelineRow]:
    """One row per interval of the grid up to the tick after: a skipped tick was lived through undecided."""
    parts = after.tick - tick.tick if 1 <= after.tick - tick.tick <= MOST_SKIPPED else 1
    length_s = (after.at_s - tick.at_s) / parts
    first = _row(tick, (tick.at_s, length_s), actions, demand_between, after.recorded.cost / parts)
    yield first
    for number in range(1, parts):
        yield _row(tick, (tick.at_s + number * length_s, length_s), (), demand_between, first.cost)


def _row(
    tick: TickRow,
    span: tuple[float, float],
    actions: Sequence[ActionRecord],
    demand_between: DemandBetween | None,
    cost: float | None,
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
        capacity=r.capacity,
        shortage=math.nan if math.isnan(demand) else max(demand - r.capacity, 0.0),
        starts=accepted(actions, Verb.START),
        stops=accepted(actions, Verb.STOP),
        provisions=accepted(actions, Verb.PROVISION),
        cost=cost,
        reason=r.sentence,
    )


def accepted(actions: Sequence[ActionRecord], verb: Verb) -> int:
    """VMs for which that was accepted."""
    return sum(
        outcome.kind is OutcomeKind.ACCEPTED
        for action in actions
        if action.intent.verb is verb
        for outcome in action.outcomes
    )


def demand_of(
    rates: Callable[[np.ndarray], np.ndarray], offset_s: float, resolution_s: float
) -> DemandBetween:
    """The mean of a trace between two moments of the clock that played it.

    Args:
        rates: Work per second at moments of the recording, NaN where unknown.
        offset_s: Added to the clock to find the moment of the recording.
        resolution_s: Length of the trace's intervals; sampled four times as finely, at least ten times.
    """

    def between(start_s: float, end_s: float) -> float:
        points = min(max(10, math.ceil(4.0 * (end_s - start_s) / resolution_s)), 10_000)
        middle = start_s + (np.arange(points) + 0.5) * (end_s - start_s) / points
        return float(np.mean(rates(middle + offset_s)))

    return between
