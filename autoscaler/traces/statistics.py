"""Describes a trace in numbers: extent, gaps, level, burstiness, daily cycle, and warnings.

Rules of this file: statistics are computed over recorded intervals only. A gap is neither zero nor interpolated. A figure
that the trace cannot support is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.traces.trace import GRID_TOLERANCE_S, Trace, TraceKind, describe_time

DAY_S = 86_400.0
_ENOUGH_ROWS = 100
"""Number of rows from which on recurring values are significant."""
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of intervals that were not recorded.

    Attributes:
        start_s: Start of the gap, epoch seconds.
        intervals: Number of missing intervals.
    """

    start_s: float
    intervals: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a trace, in the unit of its values per interval.

    Attributes:
        rows: Number of recorded intervals.
        gaps: Runs of missing intervals, in order.
        missing: Number of missing intervals.
        mean, peak: Mean and largest value.
        peak_to_mean: Peak divided by mean. NaN if all values are zero.
        quantiles: Values at `QUANTILES`.
        zeros: Share of intervals that are exactly 0.
        variation: Coefficient of variation, standard deviation divided by mean. NaN if all values are zero.
        dispersion: Index of dispersion for counts, variance divided by mean (Cox and Lewis, 1966), which is 1 for a Poisson
            process. NaN for a gauge.
        daily: Correlation of the series with itself 24 hours later (r24), over pairs of recorded intervals. NaN with less
            than a day of pairs.
        censored: Number of intervals whose value is a lower bound.
    """

    rows: int
    gaps: tuple[Gap, ...]
    missing: int
    mean: float
    peak: float
    peak_to_mean: float
    quantiles: tuple[float, ...]
    zeros: float
    variation: float
    dispersion: float
    daily: float
    censored: int

    @property
    def longest_gap(self) -> Gap | None:
        """The longest gap, the first if several are equally long. None without gaps."""
        return max(self.gaps, key=lambda gap: gap.intervals, default=None)


def statistics_of(trace: Trace) -> Statistics:
    """Compute the figures of a trace."""
    values, peak = trace.values, float(trace.values.max())
    relative = values / peak if peak > 0 else values  # sums of the largest numbers would overflow
    mean, spread = float(relative.mean()) * peak, float(relative.std()) * peak
    some = mean > 0
    return Statistics(
        rows=len(values),
        gaps=gaps_of(trace),
        missing=trace.missing,
        mean=mean,
        peak=peak,
        peak_to_mean=peak / mean if some else np.nan,
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()),
        zeros=float((values == 0).mean()),
        variation=spread / mean if some else np.nan,
        dispersion=spread / mean * spread if some and trace.kind is TraceKind.COUNT else np.nan,
        daily=_correlation_after(trace, DAY_S),
        censored=int(trace.censored.sum()),
    )


def gaps_of(trace: Trace) -> tuple[Gap, ...]:
    """Return the runs of missing intervals between the first and the last row, in order."""
    steps = np.round(np.diff(trace.timestamps) / trace.interval_s).astype(np.int64)
    return tuple(
        Gap(float(trace.timestamps[at]) + trace.interval_s, int(steps[at]) - 1)
        for at in np.flatnonzero(steps > 1).tolist()
    )


def _correlation_after(trace: Trace, lag_s: float) -> float:
    """Return Pearson's correlation of a series with itself `lag_s` seconds later."""
    there = np.searchsorted(trace.timestamps, trace.timestamps + lag_s - GRID_TOLERANCE_S)
    there = np.minimum(there, len(trace.values) - 1)
    paired = np.abs(trace.timestamps[there] - trace.timestamps - lag_s) <= GRID_TOLERANCE_S
    if paired.sum() * trace.interval_s < lag_s:
        return float(np.nan)
    relative = trace.values / max(float(trace.values.max()), 1e-300)
    one, two = relative[paired], relative[there[paired]]
    one, two = one - one.mean(), two - two.mean()
    scale = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return float((one * two).sum()) / scale if scale > 0 else float(np.nan)


_SERIAL_DAYS = 20_000.0
"""Spreadsheet day number of a day in 1954. Relative times in seconds begin below it, mostly at zero."""
_MANY_STEPS = 12
"""Number of equal, longer steps in a row from which on they are not gaps."""
_RESETS = 0.02
"""Share of falling rows above which the falls are not resets of a counter."""
_YEAR_1980_S = 315_532_800.0


def warnings_of(trace: Trace, found: Statistics) -> list[str]:
    """Return warnings for users of the trace, in sentences."""
    told = []
    span_s = trace.end_s - trace.start_s
    if span_s < 2 * DAY_S:
        told.append("It is shorter than two days, so it cannot show a daily rhythm.")
    share = found.missing / (found.missing + found.rows)
    if share > 0.01:
        told.append(
            f"{share:.1%} of its time was not recorded; demand is unknown there, and nothing is filled in."
        )
    if found.censored:
        told.append(
            f"{found.censored} intervals ({found.censored / found.rows:.1%}) are censored: the VMs were saturated, so "
            "demand was at least this much and may have been more."
        )
    at_top = float((trace.values == found.peak).mean())
    if at_top > 0.01 and found.variation > 0 and found.peak > 2 and found.rows >= _ENOUGH_ROWS:
        told.append(
            f"{at_top:.1%} of the values equal the highest one, {found.peak:g}; the metric may have a ceiling that "
            "hides demand."
        )
    if found.peak == 0:
        told.append("It is zero throughout.")
    elif found.variation == 0:
        told.append(f"It is {found.peak:g} throughout.")
    late_s = 253_402_300_800.0
    if trace.start_s < 0 or trace.end_s > late_s:
        told.append(
            f"It begins at {describe_time(trace.start_s)}, which is implausible; are its times in seconds?"
        )
    return told + doubts_of(trace)


def doubts_of(trace: Trace) -> list[str]:
    """Return doubts about whether the trace was read as what it is, in sentences."""
    return [text for text in (odd_unit(trace), _two_steps(trace), _counter(trace)) if text]


def _two_steps(trace: Trace) -> str:
    """Return a doubt if part of a trace has longer steps than the rest. Its counts would be read as too many per second."""
    steps = np.round(np.diff(trace.timestamps) / trace.interval_s).astype(np.int64)
    if len(steps) < _MANY_STEPS:
        return ""
    begins = np.concatenate(([0], np.flatnonzero(np.diff(steps) != 0) + 1))
    lengths = np.diff(np.append(begins, len(steps)))
    long = (lengths >= _MANY_STEPS) & (steps[begins] > 1)
    if not long.any():
        return ""
    at = int(begins[int(np.argmax(long))])
    return (
        f"From {describe_time(float(trace.timestamps[at]))} on, its rows are {float(steps[at]) * trace.interval_s:g} s apart, "
        f"elsewhere {trace.interval_s:g} s, and all are read with the shorter interval. If these are two recordings, cut it "
        "there, and resample the finer part to the longer interval (`autoscaler trace cut --every`)."
    )


def _counter(trace: Trace) -> str:
    """Return a doubt if values look like a cumulative counter with occasional resets. Empty if they do not."""
    rises = np.diff(trace.values)
    if len(rises) < _ENOUGH_ROWS or trace.values[-1] == trace.values[0]:
        return ""
    falls = rises < 0
    # After a reset the counter holds one interval's increase, which is small compared with the sum before.
    small = trace.values[1:][falls] <= 0.1 * trace.values[:-1][falls]
    if falls.mean() > _RESETS or not small.all() or (rises > 0).mean() < 0.5:
        return ""
    return (
        "Its values rise all the time, except for falls to almost nothing: is it a cumulative counter? A trace needs its "
        "increase in each interval: in PromQL `sum(increase(…[1m]))`, from a file `autoscaler trace import --counter`."
    )


def odd_unit(trace: Trace) -> str:
    """Return a doubt if time stamps that were read as epoch seconds may be in a longer unit. Empty if there is none."""
    # Times of this century, as days since 1899 or as hours or minutes since 1970, fall into this range, at most 1 s apart.
    if not (_SERIAL_DAYS <= trace.start_s < _YEAR_1980_S and trace.interval_s <= 1.0):
        return ""
    return (
        f"Its times are in {describe_time(trace.start_s)[:4]}, {trace.interval_s:.3g} s apart: are they in seconds? Spreadsheet "
        "days, and hours or minutes since 1970, look like this; write times as 2026-03-01T08:00:00Z."
    )
