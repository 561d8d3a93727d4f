"""Makes traces from traces: merged, or resampled to longer intervals.

Rules of this file: nothing is filled in. Intervals that no trace knows stay gaps, and a longer interval is known only if all
of its parts are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.trace import GRID_TOLERANCE_S, Trace, TraceKind, describe_time

_MOST_RESETS = 0.1
"""Share of falling rows above which the falls are not resets of a counter."""


def merge(traces: Sequence[Trace], *, name: str = "merged") -> Trace:
    """Merge several recordings of the same thing into one trace. Where they overlap they must agree.

    Args:
        traces: Traces of the same kind and interval, on one grid, in any order.
        name: Name for people.

    Raises:
        TraceError: The traces do not fit together. The message says which and where.
    """
    first = traces[0]
    for other in traces[1:]:
        _check_fit(first, other)
    # Time stamps on one grid may differ in their last bits, so rows are matched by their number on the grid.
    steps = np.concatenate([np.round((t.timestamps - first.start_s) / first.interval_s) for t in traces])
    stamps = np.concatenate([t.timestamps for t in traces])
    values = np.concatenate([t.values for t in traces])
    censored = np.concatenate([t.censored for t in traces])
    owner = np.repeat(np.arange(len(traces)), [len(t.values) for t in traces])
    order = np.argsort(steps, kind="stable")
    again = np.diff(steps[order]) == 0
    differ = again & (values[order][1:] != values[order][:-1])
    if differ.any():
        at = order[int(np.argmax(differ)) : int(np.argmax(differ)) + 2]
        one, two = (traces[owner[row]].name for row in at)
        raise TraceError(
            f"{one} and {two} disagree at {describe_time(stamps[at[0]])}: {values[at[0]]:g} and {values[at[1]]:g}; "
            f"{int(differ.sum())} rows disagree in all: cut one of them so that they do not overlap"
        )
    begins = np.flatnonzero(np.concatenate(([True], ~again)))
    kept = order[begins]
    return Trace.build(
        stamps[kept],
        values[kept],
        kind=first.kind,
        name=name,
        interval_s=first.interval_s,
        censored=np.logical_or.reduceat(censored[order], begins),
    )


def _check_fit(first: Trace, other: Trace) -> None:
    if other.kind is not first.kind:
        raise TraceError(
            f"{first.name} is a {first.kind} and {other.name} a {other.kind}; they cannot be added"
        )
    if other.interval_s != first.interval_s:
        raise TraceError(
            f"{first.name} has intervals of {first.interval_s:g} s and {other.name} of {other.interval_s:g} s; bring "
            "the finer one to the longer interval first (`autoscaler trace cut --every`)"
        )
    off_s = (other.start_s - first.start_s) % first.interval_s
    if min(off_s, first.interval_s - off_s) > GRID_TOLERANCE_S:
        raise TraceError(
            f"{other.name} begins at {describe_time(other.start_s)}, which is {off_s:g} s off the grid of {first.name}"
        )


def increases(trace: Trace) -> Trace:
    """Return the increase of a cumulative counter in each interval.

    A fall is a reset of the counter to zero. An increase across missing rows cannot be assigned to an interval, so it stays
    a gap.

    Args:
        trace: The counter at the end of an interval, which is the start of the next one.

    Raises:
        TraceError: The values fall too often for a counter, or no two rows are adjacent.
    """
    adjoin = np.round(np.diff(trace.timestamps) / trace.interval_s) == 1
    if not adjoin.any():
        raise TraceError(f"trace {trace.name} has no two adjacent rows, so no increase can be computed")
    rises = np.diff(trace.values)
    if (falls := float((rises < 0).mean())) > _MOST_RESETS:
        raise TraceError(f"trace {trace.name} falls at {falls:.0%} of its rows, so it is not a counter")
    came = np.where(rises < 0, trace.values[1:], rises)
    return Trace.build(
        trace.timestamps[:-1][adjoin],
        came[adjoin],
        kind=TraceKind.COUNT,
        name=trace.name,
        interval_s=trace.interval_s,
    )


def resample(trace: Trace, interval_s: float) -> Trace:
    """Resample a trace to longer intervals: sums of counts, or means of a gauge.

    The new grid is that of whole intervals since the epoch. An interval that is not completely covered is a gap. An interval
    with a censored part is censored.

    Args:
        trace: The trace. Its grid must contain the longer grid.
        interval_s: A whole multiple of the trace's interval, in seconds.

    Raises:
        TraceError: The interval does not fit, or no interval is completely covered.
    """
    parts = round(interval_s / trace.interval_s)
    if parts < 1 or abs(parts * trace.interval_s - interval_s) > GRID_TOLERANCE_S:
        raise TraceError(
            f"{interval_s:g} s is not a whole multiple of trace {trace.name}'s interval of {trace.interval_s:g} s"
        )
    off_s = trace.start_s % trace.interval_s
    if min(off_s, trace.interval_s - off_s) > GRID_TOLERANCE_S:
        raise TraceError(
            f"trace {trace.name} begins at {describe_time(trace.start_s)}, not at a multiple of its interval, so the "
            "longer intervals would begin at odd times"
        )
    step = np.floor((trace.timestamps + GRID_TOLERANCE_S) / interval_s)
    begins = np.flatnonzero(np.concatenate(([True], np.diff(step) > 0)))
    whole = np.diff(np.append(begins, len(step))) == parts
    if not whole.any():
        raise TraceError(f"trace {trace.name} covers no complete interval of {interval_s:g} s")
    sums = np.add.reduceat(trace.values, begins)
    values = sums if trace.kind is TraceKind.COUNT else sums / parts
    return Trace.build(
        step[begins][whole] * interval_s,
        values[whole],
        kind=trace.kind,
        name=trace.name,
        interval_s=interval_s,
        censored=np.logical_or.reduceat(trace.censored, begins)[whole],
    )
