"""Imports single events (`timestamp,duration_s`): how many began, or how many were in progress.

Rules of this file: a list of events is complete between its first and its last event, so an interval without events in
between is a measured zero. Time outside is not part of the trace.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Float, RowError, Trace, TraceKind

MAX_INTERVALS = 50_000_000
"""Largest number of intervals of a trace. A longer one comes from a stray time and would not fit into memory."""


class Measure(StrEnum):
    """What is derived from events."""

    COUNT = "count"
    """Number of events that began within the interval."""
    CONCURRENCY = "concurrency"
    """Mean number of events in progress over the interval: the work that they ask for, in busy VMs."""


def trace_of_events(
    begins_s: Float, durations_s: Float | None, interval_s: float, measure: Measure, *, name: str = "events"
) -> Trace:
    """Convert events in any order to a trace on the grid of whole intervals since the epoch.

    Args:
        begins_s: float64 (n,), epoch seconds.
        durations_s: float64 (n,), seconds, at least 0. Needed for concurrency only.
        interval_s: Length of an interval in seconds.
        measure: What the values are.
        name: Name for people.

    Raises:
        RowError: An event is impossible.
        TraceError: There are no events, durations are needed and missing, or the interval is impossible.
    """
    if not len(begins_s):
        raise TraceError("there are no events")
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise TraceError(f"an interval of {interval_s} s is impossible")
    if not np.isfinite(begins_s).all():
        raise RowError(int(np.argmin(np.isfinite(begins_s))), "timestamp is not a time", "timestamp")
    steps = np.floor(begins_s / interval_s)
    first, last = float(steps.min()), float(steps.max())
    if last - first >= MAX_INTERVALS:
        raise TraceError(
            f"from the first to the last event there are {last - first:.0f} intervals of {interval_s:g} s; is a time "
            "wrong, or the interval too short?"
        )
    rows = int(last - first) + 1
    grid: Float = (first + np.arange(rows + 1, dtype=np.float64)) * interval_s
    if measure is Measure.COUNT:
        values = np.bincount((steps - first).astype(np.int64), minlength=rows).astype(np.float64)
        kind = TraceKind.COUNT
    else:
        values = _under_way(begins_s, _checked(durations_s), grid) / interval_s
        kind = TraceKind.GAUGE
    return Trace.build(grid[:-1], values, kind=kind, name=name, interval_s=interval_s)


def _checked(durations_s: Float | None) -> Float:
    if durations_s is None:
        raise TraceError("concurrency cannot be worked out without the duration of each event")
    good = np.isfinite(durations_s) & (durations_s >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise RowError(row, f"duration_s {durations_s[row]:g} is not a duration of 0 or more", "duration_s")
    return durations_s


def _under_way(begins_s: Float, durations_s: Float, grid: Float) -> Float:
    """Return the seconds in progress within each interval of the grid, summed over all events: float64 (intervals,)."""
    since = begins_s - grid[0]  # small numbers keep the sums exact to the microsecond
    points = grid - grid[0]
    return np.diff(_passed(np.sort(since), points) - _passed(np.sort(since + durations_s), points))


def _passed(sorted_times: Float, points: Float) -> Float:
    """Return, per point, the sum of the times that have passed since each earlier time."""
    before = np.searchsorted(sorted_times, points)
    sums = np.concatenate(([0.0], np.cumsum(sorted_times)))
    return before * points - sums[before]
