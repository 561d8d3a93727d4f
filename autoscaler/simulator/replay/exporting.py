"""Exports a journal to files: the measured demand as a trace that can be replayed, and the timeline.

The daemon measures demand at ticks, and ticks are irregular: the setting changes, ticks are skipped, the clock is set. A
trace has a regular grid. Every measurement is therefore assigned to an interval of the grid. Several measurements in one
interval are averaged, and an interval without any is a gap. If the clock was set back and a time occurs twice, the later
measurement holds. Notes say which of this happened.

What a tick measures is the demand since the tick before it. So a count is that of the interval that ends
with the tick: a replay then knows no demand before the daemon knew it. A gauge is the level at the tick, which a replay knows
at once and takes to last until the next one. Replays of gauges therefore have fewer and shorter shortages than there were.

Rules of this file: unknown demand gives no row, never a zero. Censored demand is marked. Ticks are read one by one.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float
from autoscaler.errors import TraceError
from autoscaler.simulator.replay.recording import MOST_SKIPPED
from autoscaler.simulator.replay.timeline import TIMELINE_COLUMNS, TimelineRow, write_rows
from autoscaler.store.reader import TickRow
from autoscaler.traces.trace import Trace, TraceKind, describe_time
from autoscaler.traces.writing import ending_of, write_whole

_GRID_TOLERANCE = 1e-6
_BATCH = 20_000
_COUNTS = (
    "desired",
    "in_service",
    "starting",
    "draining",
    "stopped",
    "warm_target",
    "starts",
    "stops",
    "provisions",
)
_SURE_OF_LENGTH = 1e6
"""Tick number from which on time divided by number gives the tick's length to the millisecond."""


@dataclass(frozen=True, slots=True)
class DemandExport:
    """A trace of measured demand, with notes.

    Attributes:
        trace: Work in each interval, or a gauge of work per second. Its interval is the usual tick unless another was asked for.
        ticks: Number of ticks read.
        unknown: Number of these ticks without a measurement.
        notes: Sentences for the user on what the trace does not show.
    """

    trace: Trace
    ticks: int
    unknown: int
    notes: tuple[str, ...]


def demand_trace(
    fleet: str,
    ticks: Iterable[TickRow],
    interval_s: float | None = None,
    kind: TraceKind = TraceKind.COUNT,
) -> DemandExport:
    """Build a trace from the demand in the ticks of one fleet.

    Args:
        fleet: Name of the fleet, which becomes the name of the trace.
        ticks: Ticks in the order in which they were written.
        interval_s: Length of the trace's intervals in seconds. None takes the usual length of a tick.
        kind: What the values of the trace are.

    Raises:
        TraceError: The ticks contain too little to make a trace of, or the interval is shorter than a tick.
    """
    found = [(t.at_s, t.tick, t.recorded.demand, t.recorded.censored) for t in ticks]
    if not found:
        raise TraceError(f"fleet {fleet} has no tick in this time; choose a longer time")
    at_s, number, demand, censored = (np.array(column) for column in zip(*found, strict=True))
    at_s, demand = at_s.astype(np.float64), demand.astype(np.float64)
    lengths = tick_lengths(at_s, number.astype(np.int64))
    usual_s = _usual(lengths)
    if interval_s is not None and usual_s is not None and interval_s < usual_s * (1.0 - _GRID_TOLERANCE):
        raise TraceError(
            f"demand was measured every {usual_s:g} s, so an interval of {interval_s:g} s would be mostly gaps; take "
            f"{usual_s:g} s or more"
        )
    step_s = interval_s or usual_s
    if step_s is None:
        raise TraceError(
            f"fleet {fleet} has only one tick in this time, which makes no trace; choose a longer time"
        )
    known = np.isfinite(demand)
    if not known.any():
        raise TraceError(f"none of the {len(found):,} ticks of fleet {fleet} in this time has a measurement")
    earlier_s, scale = (usual_s or step_s, step_s) if kind is TraceKind.COUNT else (0.0, 1.0)
    slot = np.floor((at_s[known] - earlier_s) / step_s + _GRID_TOLERANCE).astype(np.int64)
    slots, means, hidden = _per_slot(slot, demand[known], censored[known].astype(np.bool_))
    trace = Trace.build(
        slots * step_s, means * scale, kind=kind, name=fleet, interval_s=step_s, censored=hidden
    )
    unknown = int(np.count_nonzero(~known))
    notes = _notes(trace, at_s, lengths, unknown, len(found))
    return DemandExport(trace, len(found), unknown, notes)


def export_timeline(path: Path, rows: Iterable[TimelineRow], *, overwrite: bool = False) -> int:
    """Write a timeline as CSV, gzipped CSV or Parquet, by the ending of the file name. Returns the number of rows.

    Raises:
        TraceError: There are no rows, the ending is unknown, the file exists already, or it cannot be written.
    """
    ending, count = ending_of(path), 0

    def write(unfinished: Path) -> None:
        nonlocal count
        count = (
            _write_parquet(unfinished, rows) if ending == ".parquet" else _write_csv(unfinished, ending, rows)
        )
        if not count:
            raise TraceError(
                "there is no row in this time, because a row takes two ticks; choose a longer time"
            )

    write_whole(path, write, overwrite=overwrite)
    return count


def _write_csv(path: Path, ending: str, rows: Iterable[TimelineRow]) -> int:
    with path.open("wb") as file:
        packed: Any = file
        if ending == ".csv.gz":
            # The gzip header gets neither name nor time, so that equal rows give equal bytes.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        with io.TextIOWrapper(packed, encoding="utf-8", errors="replace", newline="") as stream:
            return write_rows(stream, rows)


def _write_parquet(path: Path, rows: Iterable[TimelineRow]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise TraceError(
            f"{path}: writing Parquet needs pyarrow; install the extra `sim`, or use CSV"
        ) from None
    kinds = {"timestamp": pa.timestamp("us", tz="UTC"), "reason": pa.string()}
    counts = {name: pa.int64() for name in _COUNTS}
    schema = pa.schema([(name, {**kinds, **counts}.get(name, pa.float64())) for name in TIMELINE_COLUMNS])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        left = iter(rows)
        while batch := list(islice(left, _BATCH)):
            columns: list[list[Any]] = [[round(row.timestamp_s * 1e6) for row in batch]]
            columns += [[_cell(getattr(row, name)) for row in batch] for name in TIMELINE_COLUMNS[1:]]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(batch)
    return count


def _cell(value: float | str | None) -> float | str | None:
    """Return the value of a Parquet cell: null instead of NaN or infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def tick_lengths(at_s: Float, number: NDArray[np.int64]) -> Float:
    """Return the seconds per tick between neighbouring ticks: float64 (n-1,), NaN across an outage or a jump of the clock.

    Args:
        at_s: float64 (n,), time of each decision, which is a little after the grid point.
        number: int64 (n,), number of each tick on the grid.
    """
    steps, passed_s = np.diff(number), np.diff(at_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = passed_s / steps
        # Decisions come a moment after the grid point, but the number of the tick determines the grid point exactly.
        exact = np.round(at_s[1:] / number[1:], 3)
    same_grid = (steps >= 1) & (steps <= MOST_SKIPPED) & (passed_s > 0)
    # This also covers a decision that was late by less than a tick, which the next one seems to follow at once.
    sure = (number[1:] > _SURE_OF_LENGTH) & (np.abs(measured - exact) < exact)
    return np.where(same_grid, np.where(sure, exact, np.round(measured, 3)), np.nan)


def _usual(lengths: Float) -> float | None:
    """Return the tick length that covers the most time. None if no length is known."""
    known = lengths[np.isfinite(lengths) & (lengths > 0)]
    if not known.size:
        return None
    values, counts = np.unique(known, return_counts=True)
    return float(values[np.argmax(values * counts)])


def _per_slot(
    slot: NDArray[np.int64], demand: Float, censored: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Float, NDArray[np.bool_]]:
    """Return the visited slots in ascending order, their mean demand, and whether it is censored.

    If a slot was visited twice, only the later visit counts.
    """
    visit = np.concatenate(([0], np.cumsum(np.diff(slot) < 0)))
    order = np.lexsort((visit, slot))
    slot, visit, demand, censored = slot[order], visit[order], demand[order], censored[order]
    slots, first, count = np.unique(slot, return_index=True, return_counts=True)
    latest = visit == np.repeat(visit[first + count - 1], count)
    weight = latest.astype(np.float64)
    means = np.add.reduceat(demand * weight, first) / np.add.reduceat(weight, first)
    return slots, means, np.logical_or.reduceat(censored & latest, first)


def _notes(trace: Trace, at_s: Float, lengths: Float, unknown: int, ticks: int) -> tuple[str, ...]:
    notes = []
    gaps = trace.missing
    if gaps:
        share = gaps / (gaps + len(trace.values))
        why = f" ({unknown:,} of {ticks:,} ticks had no measurement)" if unknown else ""
        notes.append(
            f"{_span(gaps * trace.interval_s)} ({share:.1%}) are gaps, which are unknown and not zero{why}"
        )
    hidden = int(np.count_nonzero(trace.censored))
    if hidden:
        notes.append(
            f"in {_span(hidden * trace.interval_s)} ({hidden / len(trace.values):.1%}) VMs were saturated: demand was at "
            "least this much, and these rows are marked in the column `censored`"
        )
    others = {f"{length:g} s" for length in np.unique(lengths[np.isfinite(lengths)])} - {
        f"{trace.interval_s:g} s"
    }
    if others:
        lasted = ", ".join(sorted(others)[:4]) + (" and others" if len(others) > 4 else "")
        notes.append(
            f"ticks of {lasted} were fitted to intervals of {trace.interval_s:g} s: several in one gave their mean, "
            "longer ones left gaps"
        )
    back = np.flatnonzero(np.diff(at_s) < 0)
    if back.size:
        moment = describe_time(float(at_s[back[0]]))
        notes.append(
            f"the clock was set back {back.size} times, first after {moment}; of times that come twice the later ones hold"
        )
    return tuple(notes)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
