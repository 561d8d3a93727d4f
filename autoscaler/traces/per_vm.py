"""Tables of single VMs: `timestamp,vm,cpu_percent` and further columns, which are not read.

Rules of this file: a VM without a row at a time is unknown then (NaN), never idle.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.reading import parse_numbers, parse_stamps, read_table, trace_name
from autoscaler.traces.trace import Float, RowError, check_values, grid_interval


@dataclass(frozen=True, slots=True, eq=False)
class PerVmTrace:
    """CPU of single VMs on a regular grid.

    Attributes:
        name: For people.
        interval_s: Length of an interval.
        timestamps: float64 (T,), epoch seconds, start of each interval at which any VM has a row; read-only.
        vms: (V,) names, sorted.
        cpu_percent: float64 (T, V), NaN where the VM has no row; may exceed 100 where a clock boosts; read-only.
        digest: SHA-256 over all of these but the name.
    """

    name: str
    interval_s: float
    timestamps: Float
    vms: tuple[str, ...]
    cpu_percent: Float
    digest: str


def read_per_vm(path: Path) -> PerVmTrace:
    """Read a table of single VMs, sorted by time.

    Raises:
        TraceError: The file cannot be used; the message says file, line and what to do.
    """
    table = read_table(path, ("timestamp", "vm", "cpu_percent"), exact=False)
    stamps = parse_stamps(table, "timestamp")
    cpu = parse_numbers(table, "cpu_percent")
    names = np.asarray(table.columns["vm"], dtype=np.str_)
    back = np.diff(stamps) < 0
    if not np.isfinite(stamps).all():
        raise table.error(int(np.argmin(np.isfinite(stamps))), "timestamp is not a time")
    if back.any():
        raise table.error(
            int(np.argmax(back)) + 1, "timestamp is before the row above it; sort the rows by time"
        )
    times, first_row, at_time = np.unique(stamps, return_index=True, return_inverse=True)
    vms, at_vm = np.unique(names, return_inverse=True)
    try:
        interval_s = grid_interval(times, None)
    except RowError as error:
        raise table.error(int(first_row[error.row]), str(error)) from None
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    try:
        check_values(cpu, "cpu_percent")
    except RowError as error:
        raise table.error(error.row, str(error)) from None
    cell = at_time * len(vms) + at_vm
    _, first, count = np.unique(cell, return_index=True, return_counts=True)
    if (count > 1).any():
        doubled = cell[first[np.argmax(count > 1)]]
        raise table.error(
            int(np.flatnonzero(cell == doubled)[1]),
            f"VM {vms[at_vm[np.flatnonzero(cell == doubled)[1]]]} appears twice at this time",
        )
    grid = np.full((len(times), len(vms)), np.nan)
    grid[at_time, at_vm] = cpu
    times.setflags(write=False)
    grid.setflags(write=False)
    digest = hashlib.sha256(f"per-vm 1 {interval_s!r} {'|'.join(vms)}\n".encode())
    digest.update(times.astype("<f8").tobytes())
    digest.update(grid.astype("<f8").tobytes())
    return PerVmTrace(trace_name(path), interval_s, times, tuple(map(str, vms)), grid, digest.hexdigest())
