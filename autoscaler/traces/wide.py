"""Reads wide tables (one row per interval, one column per part), as dashboards and pivoted spreadsheets export them.

Columns are services or VMs whose values are added (`added`), or VMs with their utilisation (`vms_of`).

Rules of this file: an empty cell is unknown, and so is a sum over it, unless the caller says that nothing is recorded while
nothing happens. Before its first value and after its last one, a column did not exist and does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress
from autoscaler.traces.per_vm import FLOOR_NEEDS_INTERVAL, PerVmTrace
from autoscaler.traces.reading import trace_name
from autoscaler.traces.tables import Form, Layout, Table, Wanted, joined, read_table
from autoscaler.traces.trace import Float, RowError, Trace, TraceKind, check_stamps, grid_interval

CENSORED_NAME = "censored"


@dataclass(frozen=True, slots=True)
class Wide:
    """A wide table of V columns at T times, in order of time.

    Attributes:
        table: The file, for errors.
        time: Name of the column of times.
        parts: V names of the selected columns.
        rows: int64 (T,), row of the file for each row of the arrays.
        stamps: float64 (T,), epoch seconds.
        values: float64 (T, V), NaN where a cell is empty.
    """

    table: Table
    time: str
    parts: tuple[str, ...]
    rows: NDArray[np.int64]
    stamps: Float
    values: Float

    def error(self, row: int, message: str, column: str = "") -> TraceError:
        """Return an error that names the place in the file."""
        return self.table.error(int(self.rows[row]), message, column)


@dataclass(frozen=True, slots=True)
class Added:
    """The sum of the columns.

    Attributes:
        trace: The trace of the sum.
        empty: Number of cells without a value between the first and the last value of their column.
        left_out: Number of intervals that stay unknown because of such cells.
    """

    trace: Trace
    empty: int
    left_out: int


def read_wide(
    path: Path,
    time: Callable[[list[str]], str],
    pattern: str = "*",
    layout: Layout | None = None,
    progress: Progress | None = None,
    *,
    interval_s: float | None = None,
    sort: bool = False,
    floor: bool = False,
) -> Wide:
    """Read the columns whose names match a pattern.

    Args:
        path: Text, gzip, Parquet or JSON lines.
        time: Chooses the column of times from the names in the header, or raises.
        pattern: Shell-style pattern of names, such as `requests *`.
        layout: The layout of the text.
        progress: Called with the share that has been read.
        interval_s: Length of an interval in seconds, for `floor`.
        sort: Whether to sort rows by time.
        floor: Whether to move each time stamp to the start of its interval.

    Raises:
        TraceError: The file cannot be used. The message names file, line and a remedy.
    """
    if floor and interval_s is None:
        raise TraceError(FLOOR_NEEDS_INTERVAL)
    found: list[str] = []

    def choose(names: list[str]) -> Sequence[Wanted]:
        found[:] = [time(names)]
        others = [name for name in names if name not in (*joined(found[0], names), CENSORED_NAME)]
        parts = [name for name in others if fnmatchcase(name, pattern)]
        if not parts:
            raise TraceError(
                f"no column is called like `{pattern}` (`--columns`); the columns are: {', '.join(others)[:200]}"
            )
        found.extend(parts)
        return (Wanted(found[0], Form.TIME), *(Wanted(name, Form.CELL) for name in parts))

    # A VM that appears late in the file is a column, too.
    layout = replace(layout or Layout(), every_line=True)
    table = read_table(path, lambda names: tuple(choose(names)), layout, progress)
    name, *parts = found
    stamps = table.numbers[name]
    values = np.column_stack([table.numbers[part] for part in parts])
    _check_cells(table, values, parts)
    rows = np.argsort(stamps, kind="stable") if sort else np.arange(len(stamps))
    if floor and interval_s is not None:
        stamps = np.floor(stamps / interval_s) * interval_s
    wide = Wide(table, name, tuple(parts), rows, stamps[rows], values[rows])
    try:
        check_stamps(wide.stamps)
    except RowError as error:
        hint = " (`--sort` does it here)" if "before the row above" in str(error) else ""
        raise wide.error(error.row, f"{error}{hint}", name) from None
    return wide


def added(
    wide: Wide, kind: TraceKind, *, interval_s: float | None = None, empty_is_zero: bool = False
) -> Added:
    """Add the columns, interval by interval.

    Args:
        wide: The table.
        kind: What the values mean.
        interval_s: Length of an interval in seconds. None takes the smallest step.
        empty_is_zero: Whether an empty cell means that nothing happened.

    Raises:
        TraceError: No interval is left, or rows are off the grid.
    """
    known = np.isfinite(wide.values)
    alive = _alive(known)
    empty = alive & ~known
    whole = alive.any(axis=1) & ~empty.any(axis=1)
    if empty_is_zero:
        whole = np.ones(len(wide.stamps), np.bool_)
    if not whole.any():
        raise TraceError(
            f"{wide.table.path}: no interval has a value in all columns that exist then; take fewer of them "
            "(`--columns`), or use `--empty zero` if nothing is recorded while nothing happens"
        )
    # Unknown rows also determine the grid.
    step_s = _interval(wide, interval_s)
    trace = Trace.build(
        wide.stamps[whole],
        np.where(known, wide.values, 0.0).sum(axis=1)[whole],
        kind=kind,
        name=trace_name(wide.table.path),
        interval_s=step_s,
    )
    return Added(trace, int(empty.sum()), int((~whole).sum()))


def vms_of(wide: Wide, full_at: float, *, interval_s: float | None = None) -> PerVmTrace:
    """Take the columns as the utilisation of VMs.

    Args:
        wide: The table.
        full_at: The utilisation of a fully used VM.
        interval_s: Length of an interval in seconds. None takes the smallest step.

    Raises:
        TraceError: Rows are off the grid, or no cell has a value.
    """
    some = np.isfinite(wide.values).any(axis=1)
    if not some.any():
        raise TraceError(f"{wide.table.path}: no cell has a value")
    step_s = _interval(wide, interval_s)
    order = sorted(range(len(wide.parts)), key=wide.parts.__getitem__)
    names = tuple(wide.parts[at] for at in order)
    grid = np.ascontiguousarray(wide.values[some][:, order] * (100.0 / full_at))
    times = wide.stamps[some]
    for array in (grid, times):
        array.setflags(write=False)
    return PerVmTrace(trace_name(wide.table.path), step_s, times, names, grid, None)


def _alive(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where each column exists, from its first value to its last one: bool (T, V)."""
    begun: NDArray[np.bool_] = np.maximum.accumulate(known, axis=0)
    return begun & np.maximum.accumulate(known[::-1], axis=0)[::-1]


def _interval(wide: Wide, interval_s: float | None) -> float:
    try:
        return grid_interval(wide.stamps, interval_s)
    except RowError as error:
        raise wide.error(
            error.row,
            f"{error} (`--floor` with `--interval` moves each to the start of its interval)",
            wide.time,
        ) from None
    except TraceError as error:
        raise TraceError(f"{wide.table.path}: {error}") from None


def _check_cells(table: Table, values: Float, parts: Sequence[str]) -> None:
    wrong = np.isinf(values) | (values < 0)
    if wrong.any():
        row, place = (int(at) for at in np.argwhere(wrong)[0])
        why = "negative" if values[row, place] < 0 else "not a finite number"
        raise table.error(
            row,
            f"{parts[place]} {values[row, place]:g} is {why}; leave the cell empty if nothing was recorded",
            parts[place],
        )
