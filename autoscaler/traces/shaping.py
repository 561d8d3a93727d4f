"""Makes traces from traces: merged, or resampled to longer intervals.

Rules of this file: nothing is filled. What no trace knows stays a gap, and a longer interval is known only where
all of its parts are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.trace import GRID_TOLERANCE_S, Trace, TraceKind, describe_time

_MOST_RESETS = 0.1
"""A larger share of falls is none of a counter's beginnings."""


def merge(traces: Sequence[Trace], *, name: str = "merged") -> Trace:
    """One trace of several recordings of the same thing; where they overlap they must agree.

    Args:
        traces: Of the same kind and interval, on one grid, in any order.
        name: For people.

    Raises:
        TraceError: They do not fit together; the message says which and where.
    """
    first = traces[0]
    for other in traces[1:]:
        _check_fit(first, other)
    # Stamps on one grid may differ in the last bits, so rows are told apart by their number on it.
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
            f"{int(differ.sum())} rows do in all: cut one of them so that they do not overlap"
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
            f"{first.name} is a {first.kind} and {other.name} a {other.kind}; they do not add up"
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
    """What came in each interval, of a counter of all that ever came.

    A fall is a counter that began at zero again. What came while it was not read is not known to which interval it
    belongs, so that stays a gap.

    Args:
        trace: The counter at the end of an interval, which is the start of the next one.

    Raises:
        TraceError: It falls too often for a counter, or no two rows follow one another.
    """
    adjoin = np.round(np.diff(trace.timestamps) / trace.interval_s) == 1
    if not adjoin.any():
        raise TraceError(
            f"trace {trace.name} has no two rows that follow one another, so nothing tells what came between"
        )
    rises = np.diff(trace.values)
    if (falls := float((rises < 0).mean())) > _MOST_RESETS:
        raise TraceError(
            f"trace {trace.name} falls at {falls:.0%} of its rows, so it is no counter of all that ever came"
        )
    came = np.where(rises < 0, trace.values[1:], rises)
    return Trace.build(
        trace.timestamps[:-1][adjoin],
        came[adjoin],
        kind=TraceKind.COUNT,
        name=trace.name,
        interval_s=trace.interval_s,
    )


def resample(trace: Trace, interval_s: float) -> Trace:
    """The trace in longer intervals: sums of counts, means of a gauge, on the grid of whole intervals since the epoch.

    An interval that is not covered whole is a gap; one with a censored part is censored.

    Args:
        trace: A trace whose grid the longer one contains.
        interval_s: A whole multiple of the trace's interval.

    Raises:
        TraceError: The interval does not fit, or no interval is covered whole.
    """
    parts = round(interval_s / trace.interval_s)
    if parts < 1 or abs(parts * trace.interval_s - interval_s) > GRID_TOLERANCE_S:
        raise TraceError(
            f"{interval_s:g} s is no whole multiple of the {trace.interval_s:g} s of trace {trace.name}"
        )
    off_s = trace.start_s % trace.interval_s
    if min(off_s, trace.interval_s - off_s) > GRID_TOLERANCE_S:
        raise TraceError(
            f"trace {trace.name} begins at {describe_time(trace.start_s)}, not at a whole interval of its own, so the "
            "longer ones would begin at odd times"
        )
    step = np.floor((trace.timestamps + GRID_TOLERANCE_S) / interval_s)
    begins = np.flatnonzero(np.concatenate(([True], np.diff(step) > 0)))
    whole = np.diff(np.append(begins, len(step))) == parts
    if not whole.any():
        raise TraceError(f"trace {trace.name} covers no interval of {interval_s:g} s whole")
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
