"""The true demand of a trace at each tick, and what a policy can know of it at that moment.

Every sample has two times: `observed_at`, the end of the window that it describes, and the moment at which it becomes
available, which is later by the lag of the metric pipeline. At a tick, a policy sees the latest window available by then, as
`sources.trace` plays it to the daemon. What the fleet must serve at a tick is the true demand of the interval that begins
there, which is not known before it is over.

Rules of this file: arrays over ticks, computed once per trace and setting, no look-ahead; a gap is unknown and stays
unknown. The lane engine reads a trace only through this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoscaler.core.types import Bool, Float, Freshness, Int
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.plant_settings import Span
from autoscaler.traces.trace import Trace, TraceKind

_GRID = 1e-6


@dataclass(frozen=True, slots=True)
class Ticks:
    """The ticks of a run: number `first` and the `count` - 1 after it, on the absolute grid of `tick_s`."""

    first: int
    count: int
    tick_s: float

    @property
    def start_s(self) -> float:
        """Epoch seconds of the first tick."""
        return self.first * self.tick_s

    @property
    def times_s(self) -> Float:
        """float64 (T,), epoch seconds of every tick."""
        return np.asarray(np.arange(self.first, self.first + self.count) * self.tick_s, np.float64)

    @classmethod
    def over(cls, start_s: float, duration_s: float, tick_s: float) -> Ticks:
        """Return the ticks of a run that begins at `start_s`, which must be a point of the grid.

        Raises:
            ValueError: `start_s` is not on the grid, or the run is shorter than a tick.
        """
        first = round(start_s / tick_s)
        if abs(first * tick_s - start_s) > _GRID:
            raise ValueError(
                f"a run must begin at a whole number of ticks of {tick_s:g} s since 1970, not at {start_s:f}"
            )
        count = math.floor(duration_s / tick_s + _GRID)
        if count < 1:
            raise ValueError(f"a run of {duration_s:g} s holds no tick of {tick_s:g} s")
        return cls(first, count, tick_s)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How demand becomes a metric; equal pipelines show the same of a trace.

    Attributes:
        lag_s: Time from the end of a window until it is available.
        max_age_s: Age above which samples are stale.
        interval_s: Length of a window; None for the trace's own intervals.
        loss: Probability that a window is never published.
        gaps: Spans in seconds from the start of the run in which nothing arrives.
        inside: The VMs themselves are read. So nothing is known at the first tick, before any VM is listed.
    """

    lag_s: float
    max_age_s: float
    interval_s: float | None = None
    loss: float = 0.0
    gaps: tuple[Span, ...] = ()
    inside: bool = True


@dataclass(frozen=True, slots=True)
class Metrics:
    """What is known of demand at each tick, provided that VMs are there to measure it.

    Attributes:
        demand: float64 (T,), work per second; NaN unless fresh.
        observed_at_s: float64 (T,); NaN unless fresh.
        freshness: int64 (T,) of `Freshness`.
    """

    demand: Float
    observed_at_s: Float
    freshness: Int


def wanted(trace: Trace, ticks: Ticks) -> Float:
    """Return float64 (T,), mean work per second over each tick's interval; NaN if any part of it is unknown."""
    return _means(trace, ticks.times_s, ticks.tick_s)


def seen(
    trace: Trace, ticks: Ticks, pipeline: Pipeline, luck: Luck, run_starts_s: float | None = None
) -> Metrics:
    """Return what is known of a trace's demand at every tick.

    Args:
        trace: The recording.
        ticks: Of a run, or of a part of one: a tick shows the same either way.
        pipeline: How demand becomes a metric.
        luck: Draws that decide which windows are lost.
        run_starts_s: Time of the run's first tick; None for that of `ticks`.
    """
    begin_s = ticks.start_s if run_starts_s is None else run_starts_s
    now_s = ticks.times_s
    if pipeline.interval_s is None and not pipeline.loss:
        demand, observed_at_s = _last_row(trace, now_s - pipeline.lag_s)
    else:
        demand, observed_at_s = _last_window(trace, now_s - pipeline.lag_s, pipeline, luck)
    absent = np.isnan(demand)
    if pipeline.inside:
        absent |= now_s == begin_s
    for start_s, end_s in pipeline.gaps:
        absent |= (now_s >= begin_s + start_s) & (now_s < begin_s + end_s)
    stale = now_s - observed_at_s > pipeline.max_age_s
    freshness = np.where(absent, Freshness.ABSENT, np.where(stale, Freshness.STALE, Freshness.FRESH))
    fresh = freshness == Freshness.FRESH
    return Metrics(
        np.where(fresh, demand, np.nan), np.where(fresh, observed_at_s, np.nan), freshness.astype(np.int64)
    )


def _last_row(trace: Trace, known_at_s: Float) -> tuple[Float, Float]:
    """Return the latest row known at these moments and the end of its window, as `sources.trace` finds it."""
    late = 1 if trace.kind is TraceKind.COUNT else 0
    step = np.floor((known_at_s - trace.start_s) / trace.interval_s) - late
    start_s = trace.start_s + step * trace.interval_s
    row = trace.row_at(start_s + trace.interval_s / 2)
    demand = np.where(row >= 0, trace.rates_of(row), np.nan)
    return demand, np.minimum(start_s + late * trace.interval_s, known_at_s)


def _last_window(trace: Trace, known_at_s: Float, pipeline: Pipeline, luck: Luck) -> tuple[Float, Float]:
    """Return the latest published window of the absolute grid; if a window was lost, that is one before it.

    Windows are searched as far back as a sample may be old. If all of these are lost, the returned time is long ago, so the
    sample counts as stale.
    """
    length_s = pipeline.interval_s or trace.interval_s
    last = np.floor(known_at_s / length_s + _GRID).astype(np.int64) - 1
    first = int(last[0]) - math.ceil(pipeline.max_age_s / length_s) - 1
    windows = np.arange(first, int(last[-1]) + 1).astype(np.float64)
    means = _means(trace, windows * length_s, length_s)
    lost = _lost(luck, first, len(windows), pipeline.loss)
    published = np.maximum.accumulate(np.where(lost, -1, np.arange(len(windows))))[last - first]
    begun = windows[last - first] * length_s >= trace.start_s - _GRID
    demand = np.where(published >= 0, means[published], np.where(begun, 0.0, np.nan))
    ended_s = np.where(published >= 0, (windows[published] + 1) * length_s, -np.inf)
    return demand, np.asarray(ended_s, np.float64)


_LOSS_PAGE = 1024


def _lost(luck: Luck, first: int, count: int, chance: float) -> Bool:
    """Return bool (count,), which windows from number `first` on are lost; each window has its own draw."""
    if not chance:
        return np.zeros(count, np.bool_)
    pages = range(first // _LOSS_PAGE, (first + count) // _LOSS_PAGE + 1)
    drawn = np.concatenate([luck.uniforms(Purpose.METRIC_LOSS, page, _LOSS_PAGE) for page in pages])
    at = first - pages[0] * _LOSS_PAGE
    return np.asarray(drawn[at : at + count] < chance, np.bool_)


def _means(trace: Trace, start_s: Float, length_s: float) -> Float:
    """Return the mean rate over [start, start + length) for each start; NaN if any part of it is unknown.

    Exact if the windows lie on the trace's grid; otherwise intervals are weighted by how much they overlap.
    """
    interval_s = trace.interval_s
    offset = (start_s[0] - trace.start_s) / interval_s
    parts = length_s / interval_s
    on_grid = abs(offset - round(offset)) < _GRID
    if on_grid and parts >= 1 and abs(parts - round(parts)) < _GRID:
        each = round(parts)
        middle = start_s[:, np.newaxis] + (np.arange(each) + 0.5) * interval_s
        rates = trace.rate_at(middle.ravel()).reshape(middle.shape)
        total = np.add.accumulate(rates, axis=1)[:, -1]
        return np.asarray(total / each, np.float64)
    steps = interval_s / length_s
    if abs(steps - round(steps)) < _GRID and abs((start_s[0] - trace.start_s) / length_s % 1.0) < _GRID:
        return trace.rate_at(start_s + length_s / 2)
    return _overlapping(trace, start_s, length_s)


def _overlapping(trace: Trace, start_s: Float, length_s: float) -> Float:
    """Return means over windows that cut through intervals: each overlapped interval counts by its overlap."""
    interval_s = trace.interval_s
    first = np.floor((start_s - trace.start_s) / interval_s + _GRID)
    total, share = np.zeros(len(start_s)), np.zeros(len(start_s))
    for extra in range(math.ceil(length_s / interval_s) + 1):
        begin_s = trace.start_s + (first + extra) * interval_s
        inside_s = np.minimum(begin_s + interval_s, start_s + length_s) - np.maximum(begin_s, start_s)
        inside_s = np.where(inside_s > _GRID, inside_s, 0.0)
        rate = trace.rate_at(begin_s + interval_s / 2)
        total += np.where(inside_s > 0, rate * inside_s, 0.0)
        share += inside_s
    return np.asarray(total / share, np.float64)
