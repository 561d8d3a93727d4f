"""Tables of single VMs (`timestamp,vm,cpu_percent` and other columns), and the demand derived from them.

The demand for a fleet is rarely recorded, but the utilisation of its VMs often is. Demand is utilisation times capacity,
computed in the same way as by the daemon. Where the VMs were saturated it is a lower bound, and the trace marks it as such.

Rules of this file: a VM without a row at some time is unknown then (NaN), never idle. Before its first row and after its
last one, a VM did not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress
from autoscaler.traces.reading import trace_name
from autoscaler.traces.tables import PLAIN, Choose, Form, Layout, Table, Wanted, joined, read_table
from autoscaler.traces.trace import Float, RowError, Trace, TraceKind, check_values, grid_interval

Index: TypeAlias = NDArray[np.int64]

FLOOR_NEEDS_INTERVAL = "to move times to the start of their interval, give its length (`--interval`)"
MAX_CELLS = 100_000_000
"""Largest number of times × VMs. More does not fit into memory comfortably."""


@dataclass(frozen=True, slots=True)
class PerVmColumns:
    """Names of the columns.

    Attributes:
        time, vm, utilisation: Columns with the start of the interval, the name of the VM, and its utilisation.
        capacity: Column with the capacity of the VM at that time, in any unit of work per second. Empty if there is none.
        full_at: The utilisation of a fully used VM, such as 100 if it is in per cent.
    """

    time: str = "timestamp"
    vm: str = "vm"
    utilisation: str = "cpu_percent"
    capacity: str = ""
    full_at: float = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class PerVmTrace:
    """Utilisation of V VMs at T times on a regular grid.

    Attributes:
        name: Name for people.
        interval_s: Length of an interval in seconds.
        timestamps: float64 (T,), start of each interval at which any VM has a row, epoch seconds; read-only.
        vms: V names, sorted.
        cpu_percent: float64 (T, V), NaN where the VM has no row; may exceed 100 if a clock boosts; read-only.
        capacity: float64 (T, V), work per second, NaN where the VM has no row. None if the table has no capacities.
    """

    name: str
    interval_s: float
    timestamps: Float
    vms: tuple[str, ...]
    cpu_percent: Float
    capacity: Float | None


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The demand behind a table of VMs, and how much of it is known.

    Attributes:
        trace: Gauge of work per second. An interval in which too few VMs have a row is a gap.
        vms: Number of VMs in the table.
        left_out: Number of intervals left out because too few VMs have a row.
        filled: Number of kept intervals in which a VM has no row and counts with the mean of the others.
        censored: Number of kept intervals in which the mean utilisation reached the saturation.
    """

    trace: Trace
    vms: int
    left_out: int
    filled: int
    censored: int


def read_per_vm(
    path: Path,
    columns: PerVmColumns | None = None,
    layout: Layout = PLAIN,
    progress: Progress | None = None,
    *,
    interval_s: float | None = None,
    sort: bool = False,
    floor: bool = False,
) -> PerVmTrace:
    """Read a table of single VMs.

    Args:
        path: Text, gzip or Parquet.
        columns: The columns to take.
        layout: The layout of the text.
        progress: Called with the share that has been read.
        interval_s: Length of an interval in seconds. None takes the smallest step.
        sort: Whether rows may be out of the order of time.
        floor: Whether to move each time stamp to the start of its interval. Needs `interval_s`.

    Raises:
        TraceError: The file cannot be used. The message names file, line and a remedy.
    """
    names = columns or PerVmColumns()
    table = read_table(path, _choice(names), layout, progress)
    stamps, used = table.numbers[names.time], table.numbers[names.utilisation]
    _check_order(table, stamps, names.time, sort=sort)
    if floor:
        if interval_s is None:
            raise TraceError(FLOOR_NEEDS_INTERVAL)
        stamps = np.floor(stamps / interval_s) * interval_s
    times, first_row, at_time = np.unique(stamps, return_index=True, return_inverse=True)
    step_s = _interval(table, times, first_row, names.time, interval_s)
    for column in filter(None, (names.utilisation, names.capacity)):
        try:
            check_values(table.numbers[column], column)
        except RowError as error:
            raise table.error(error.row, str(error), column) from None
    texts = table.texts[names.vm]
    order = np.argsort(np.array(texts.names))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    vms, at_vm = tuple(texts.names[place] for place in order), rank[texts.code]
    if len(times) * len(vms) > MAX_CELLS:
        raise TraceError(
            f"{path}: {len(vms)} VMs at {len(times)} times need too much memory; cut the file by time"
        )
    cell = at_time * len(vms) + at_vm
    _check_twice(table, cell, vms, at_vm, names.vm)
    grid = _grid(cell, used * (100.0 / names.full_at), len(times), len(vms))
    capacity = _grid(cell, table.numbers[names.capacity], *grid.shape) if names.capacity else None
    times.setflags(write=False)
    return PerVmTrace(trace_name(path), step_s, times, vms, grid, capacity)


def counterfactual(
    table: PerVmTrace, capacity_per_s: float = 1.0, *, saturation: float = 0.9, coverage: float = 1.0
) -> Counterfactual:
    """Compute the demand that the VMs served: the sum of utilisation × capacity over the VMs that existed.

    As in the daemon, VMs without a row count with the mean of the others, as long as enough VMs have a row. Demand is
    censored where the mean utilisation reaches the saturation.

    Args:
        table: Utilisation of the VMs.
        capacity_per_s: Work per second of one VM, multiplied by the VM's own capacity if the table has that. 1 gives demand
            in fully used VMs.
        saturation: Mean utilisation from which on demand is hidden, above 0.
        coverage: Least share of the VMs that must have a row, above 0 and at most 1.

    Raises:
        TraceError: An argument is impossible, or no interval is left.
    """
    if not (0 < capacity_per_s < np.inf and 0 < saturation <= 2 and 0 < coverage <= 1):
        raise TraceError("capacity must be above 0, saturation and coverage above 0 and coverage at most 1")
    known = np.isfinite(table.cpu_percent)
    alive = np.maximum.accumulate(known, axis=0) & np.maximum.accumulate(known[::-1], axis=0)[::-1]
    share = np.where(known, table.cpu_percent, 0.0) / 100.0
    capacity = np.ones_like(share) if table.capacity is None else table.capacity
    capacity = np.where(known, capacity, 0.0) * capacity_per_s
    seen, living = known.sum(axis=1), alive.sum(axis=1)
    enough = seen >= coverage * living
    if not enough.any():
        raise TraceError(
            f"{table.name}: there is no time at which {coverage:.0%} of the VMs have a row; lower the coverage (`--coverage`)"
        )
    work = (share * capacity).sum(axis=1) * (living / np.maximum(seen, 1))
    hidden = share.sum(axis=1) / np.maximum(seen, 1) >= saturation
    trace = Trace.build(
        table.timestamps[enough],
        work[enough],
        kind=TraceKind.GAUGE,
        name=table.name,
        interval_s=table.interval_s,
        censored=hidden[enough],
    )
    filled = int((enough & (seen < living)).sum())
    return Counterfactual(trace, len(table.vms), int((~enough).sum()), filled, int(hidden[enough].sum()))


def _choice(columns: PerVmColumns) -> Choose:
    wanted = [
        Wanted(columns.time, Form.TIME),
        Wanted(columns.vm, Form.TEXT),
        Wanted(columns.utilisation, Form.NUMBER),
    ]
    if columns.capacity:
        wanted.append(Wanted(columns.capacity, Form.NUMBER))

    def choose(names: list[str]) -> tuple[Wanted, ...]:
        missing = [
            column.name
            for column in wanted
            if column.name not in names and not (column.form is Form.TIME and joined(column.name, names))
        ]
        if missing:
            raise TraceError(
                f"the header is `{','.join(names)[:120]}`, wanted are the columns "
                f"{', '.join(column.name for column in wanted)}; give yours if they have other names (`--time`, `--vm`, "
                "`--utilisation`)"
            )
        return tuple(wanted)

    return choose


def _check_order(table: Table, stamps: Float, column: str, *, sort: bool) -> None:
    if not np.isfinite(stamps).all():
        raise table.error(int(np.argmin(np.isfinite(stamps))), "timestamp is not a time", column)
    back = np.diff(stamps) < 0
    if back.any() and not sort:
        row = int(np.argmax(back)) + 1
        raise table.error(
            row, "timestamp is before the row above it; sort the rows by time (`trace import --sort`)", column
        )


def _interval(table: Table, times: Float, first_row: Index, column: str, interval_s: float | None) -> float:
    try:
        return grid_interval(times, interval_s)
    except RowError as error:
        raise table.error(int(first_row[error.row]), str(error), column) from None
    except TraceError as error:
        raise TraceError(f"{table.path}: {error}") from None


def _grid(cell: Index, values: Float, times: int, vms: int) -> Float:
    flat = np.full(times * vms, np.nan)
    flat[cell] = values
    flat.setflags(write=False)
    return flat.reshape(times, vms)


def _check_twice(table: Table, cell: Index, vms: tuple[str, ...], at_vm: Index, column: str) -> None:
    by_cell = np.argsort(cell, kind="stable")
    again = np.flatnonzero(np.diff(cell[by_cell]) == 0)
    if len(again):
        row = int(by_cell[again + 1].min())
        raise table.error(row, f"VM {vms[at_vm[row]]} appears twice at this time", column)
