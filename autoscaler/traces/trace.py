"""A recorded demand series as a value: shared by replays, the trace source and the generators.

Rules of this file: arrays in, arrays out; no files. A missing row is a gap, and demand in a gap is unknown: every look-up
returns NaN there, never zero. Traces are immutable. `cut` and the `scaled` methods return new traces with new digests.

Not here: reading files (`reading`), single VMs (`per_vm`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoscaler.errors import TraceError

Float: TypeAlias = NDArray[np.float64]

GRID_TOLERANCE_S = 1e-3
"""Largest distance of a time stamp from the grid, in seconds: finer than any recording, coarser than float64 at epoch scale."""


class TraceKind(StrEnum):
    """What the values of a trace mean."""

    COUNT = "count"
    """Work that arrived within the interval. It is known only when the interval is over."""
    GAUGE = "gauge"
    """A level at the time stamp, taken as work per second until the next one."""


class RowError(TraceError):
    """A row that cannot be used. The reader adds file and line.

    Args:
        row: Index of the row, from 0.
        message: What is wrong with the row, for a person.
        column: Name of the faulty column. Empty if the fault is not in one column.
    """

    def __init__(self, row: int, message: str, column: str = "") -> None:
        super().__init__(message)
        self.row = row
        self.column = column


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A demand series on a regular grid, possibly with gaps. Created by `Trace.build` or `reading.read_trace`.

    Attributes:
        name: Name for people: the file name without its endings.
        kind: What `values` mean.
        interval_s: Length of an interval in seconds.
        timestamps: float64 (n,), start of each interval in epoch seconds, ascending on one grid; read-only.
        values: float64 (n,), finite, at least 0; read-only.
        digest: SHA-256 over kind, interval, time stamps, values and censoring. Two traces are the same recording exactly if
            their digests are equal, whatever their files look like.
        censored: bool (n,), whether the value is a lower bound because the VMs that served it were saturated; read-only.
    """

    name: str
    kind: TraceKind
    interval_s: float
    timestamps: Float
    values: Float
    digest: str
    censored: NDArray[np.bool_]

    @classmethod
    def build(
        cls,
        timestamps: ArrayLike,
        values: ArrayLike,
        *,
        kind: TraceKind,
        name: str = "trace",
        interval_s: float | None = None,
        censored: ArrayLike | None = None,
    ) -> Trace:
        """Check the arrays and make a trace of them.

        Args:
            timestamps: Start of each interval, epoch seconds.
            values: One value per time stamp.
            kind: What the values mean.
            name: Name for people.
            interval_s: Length of an interval in seconds. None derives it from the steps between time stamps, which needs at
                least two rows.
            censored: For each time stamp, whether the value is only a lower bound. None means that no value is.

        Raises:
            RowError: A row is wrong. The error carries its index.
            TraceError: The arrays as a whole are wrong.
        """
        stamps, numbers = np.array(timestamps, np.float64), np.array(values, np.float64)
        if stamps.ndim != 1 or stamps.shape != numbers.shape:
            raise TraceError(
                f"stamps and values must be two equally long lists, not of shapes {stamps.shape}, {numbers.shape}"
            )
        hidden = np.zeros(stamps.shape, np.bool_) if censored is None else np.array(censored, np.bool_)
        if hidden.shape != stamps.shape:
            raise TraceError(f"there are {hidden.size} marks of censoring for {stamps.size} rows")
        if not stamps.size:
            raise TraceError("there are no rows")
        check_stamps(stamps)
        interval_s = grid_interval(stamps, interval_s)
        check_values(numbers, "value")
        for array in (stamps, numbers, hidden):
            array.setflags(write=False)
        digest = _digest(kind, interval_s, stamps, numbers, hidden)
        return cls(name, kind, interval_s, stamps, numbers, digest, hidden)

    @property
    def start_s(self) -> float:
        """Start of the first interval, epoch seconds."""
        return float(self.timestamps[0])

    @property
    def end_s(self) -> float:
        """End of the last interval, epoch seconds."""
        return float(self.timestamps[-1]) + self.interval_s

    @property
    def rates(self) -> Float:
        """float64 (n,), work per second in each interval."""
        return self.values / self.interval_s if self.kind is TraceKind.COUNT else self.values

    def rates_of(self, rows: NDArray[np.int64]) -> Float:
        """Return work per second in the intervals of these rows: float64 in the shape of `rows`. Row -1 is the last row."""
        values = self.values.take(rows, mode="wrap")
        return values / self.interval_s if self.kind is TraceKind.COUNT else values

    @property
    def peak_per_s(self) -> float:
        """The highest work per second."""
        return float(self.rates.max())

    @property
    def missing(self) -> int:
        """Number of intervals between start and end that were not recorded."""
        return round((self.end_s - self.start_s) / self.interval_s) - len(self.values)

    def row_at(self, t_s: Float) -> NDArray[np.int64]:
        """Return, per time, the row whose interval [start, start + interval) contains it, as int64. -1 if there is none."""
        row = np.searchsorted(self.timestamps, t_s, side="right") - 1
        inside = (row >= 0) & (t_s < self.timestamps[row] + self.interval_s)
        return np.where(inside, row, -1)

    @overload
    def rate_at(self, t_s: float) -> float: ...
    @overload
    def rate_at(self, t_s: Float) -> Float: ...
    def rate_at(self, t_s: float | Float) -> float | Float:
        """Return work per second at these epoch seconds. NaN in gaps and outside the trace."""
        times = np.asarray(t_s, np.float64)
        row = self.row_at(times)
        rates = np.where(row >= 0, self.rates_of(row), np.nan)
        return rates if isinstance(t_s, np.ndarray) else float(rates)

    def cut(self, start_s: float, end_s: float) -> Trace:
        """Return the trace of the rows whose intervals start within [start_s, end_s).

        Raises:
            TraceError: There are no such rows.
        """
        keep = (self.timestamps >= start_s) & (self.timestamps < end_s)
        if not keep.any():
            span = f" from {describe_time(start_s)}" if math.isfinite(start_s) else ""
            span += f" to {describe_time(end_s)}" if math.isfinite(end_s) else ""
            raise TraceError(
                f"trace {self.name} has no rows{span}; "
                f"it covers {describe_time(self.start_s)} to {describe_time(self.end_s)}"
            )
        return self._with(self.timestamps[keep], self.values[keep], self.censored[keep])

    def scaled(self, factor: float) -> Trace:
        """Return the trace with every value multiplied by the factor.

        Raises:
            TraceError: The factor is not a positive finite number.
        """
        if not (math.isfinite(factor) and factor > 0):
            raise TraceError(f"trace {self.name} cannot be scaled by {factor}: a factor above 0 is needed")
        return self._with(self.timestamps, self.values * factor, self.censored)

    def scaled_to_peak(self, work_per_s: float) -> Trace:
        """Return a trace of the same shape with the given highest work per second.

        Raises:
            TraceError: The trace is zero throughout, or the peak is not a positive finite number.
        """
        if self.peak_per_s <= 0:
            raise TraceError(f"trace {self.name} is zero throughout and cannot be scaled to a peak")
        return self.scaled(work_per_s / self.peak_per_s)

    def _with(self, timestamps: Float, values: Float, censored: NDArray[np.bool_]) -> Trace:
        return Trace.build(
            timestamps,
            values,
            kind=self.kind,
            name=self.name,
            interval_s=self.interval_s,
            censored=censored,
        )


def describe_time(t_s: float) -> str:
    """Format epoch seconds as ISO 8601 in UTC. Times beyond the calendar are formatted as plain numbers."""
    try:
        text = datetime.fromtimestamp(t_s, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{t_s:g}"
    return text.replace(".000", "").replace("+00:00", "Z")


def check_stamps(stamps: Float) -> None:
    """Check that time stamps are finite and strictly ascending.

    Raises:
        RowError: The first time stamp that is not.
    """
    if not np.isfinite(stamps).all():
        row = int(np.argmin(np.isfinite(stamps)))
        raise RowError(row, f"timestamp {stamps[row]} is not a time", "timestamp")
    step = np.diff(stamps)
    if (step <= 0).any():
        row = int(np.argmax(step <= 0)) + 1
        stamp = describe_time(stamps[row])
        if step[row - 1] == 0:
            raise RowError(row, f"timestamp {stamp} appears twice; keep one row per interval", "timestamp")
        raise RowError(
            row, f"timestamp {stamp} is before the row above it; sort the rows by time", "timestamp"
        )


def grid_interval(stamps: Float, interval_s: float | None) -> float:
    """Return the interval of a grid that contains all time stamps, given or derived from their steps.

    A derived interval is the smallest step, or the most frequent one if the smallest would make most of the trace a gap.

    Raises:
        RowError: The first time stamp off the grid.
        TraceError: The interval is impossible, or cannot be derived from one row.
    """
    if interval_s is None:
        if len(stamps) == 1:
            raise TraceError(
                "there is one row only, which does not tell the interval; at least two are needed"
            )
        steps = np.diff(stamps)
        interval_s = float(steps.min())
        sparse = len(stamps) < 0.5 * (stamps[-1] - stamps[0]) / interval_s
        if sparse or _off_grid(stamps, interval_s).any():
            # One stray time stamp makes a tiny step. With the most frequent step, the error names only that stamp.
            usual, count = np.unique(steps, return_counts=True)
            interval_s = float(usual[np.argmax(count)])
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise TraceError(f"an interval of {interval_s} s is impossible")
    off = _off_grid(stamps, interval_s)
    if off.any():
        row = int(np.argmax(off))
        raise RowError(
            row,
            f"timestamp {describe_time(stamps[row])} is not on the grid of {interval_s:g} s that starts at "
            f"{describe_time(stamps[0])}; all rows must be whole intervals apart",
            "timestamp",
        )
    return interval_s


def _off_grid(stamps: Float, interval_s: float) -> NDArray[np.bool_]:
    steps = (stamps - stamps[0]) / interval_s
    off: NDArray[np.bool_] = np.abs(steps - np.round(steps)) * interval_s > GRID_TOLERANCE_S
    off[1:] |= np.diff(steps) < 0.5
    return off


def check_values(values: Float, what: str) -> None:
    """Check that values are finite and at least 0.

    Raises:
        RowError: The first value that is not.
    """
    good = np.isfinite(values) & (values >= 0)
    if not good.all():
        row = int(np.argmin(good))
        why = "negative" if values[row] < 0 and np.isfinite(values[row]) else "not a finite number"
        raise RowError(
            row, f"{what} {values[row]:g} is {why}; leave the row out if nothing was recorded", what
        )


def _digest(
    kind: TraceKind, interval_s: float, stamps: Float, values: Float, censored: NDArray[np.bool_]
) -> str:
    digest = hashlib.sha256(f"trace 1 {kind} {interval_s!r} {len(stamps)}\n".encode())
    digest.update(stamps.astype("<f8", copy=False).data)
    digest.update(values.astype("<f8", copy=False).data)
    if censored.any():
        digest.update(b"censored\n")
        digest.update(np.packbits(censored).data)
    return digest.hexdigest()
