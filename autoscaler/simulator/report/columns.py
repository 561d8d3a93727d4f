"""A timeline as columns, from which pages and tables of many ticks are made, and its files.

Rules of this file: columns and units are those of `timeline`. An unknown value is NaN here and an empty cell in the file. A
malformed file is refused with the line and a remedy; nothing is repaired.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.core.types import Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import (
    TIMELINE_COLUMNS,
    TIMELINE_NAME,
    TimelineRow,
    column,
    written_whole,
)

PARQUET_NAME = "timeline.parquet"
NUMERIC = TIMELINE_COLUMNS[1:-1]
"""The columns between timestamp and reason."""
SIM_EXTRA = "install it with `pip install 'vm-autoscaler[sim]'`"


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A timeline of n ticks.

    Attributes:
        stamps_s: float64 (n,), start of each interval in epoch seconds, ascending.
        numbers: float64 (n,) by column name in `NUMERIC`. NaN where unknown.
        reasons: n sentences.
        interval_s: Length of an interval in seconds.
    """

    stamps_s: Float
    numbers: dict[str, Float]
    reasons: Sequence[str]
    interval_s: float

    def __len__(self) -> int:
        return len(self.stamps_s)

    def __getitem__(self, name: str) -> Float:
        return self.numbers[name]

    @property
    def end_s(self) -> float:
        """End of the last interval, epoch seconds."""
        return float(self.stamps_s[-1]) + self.interval_s

    def row_at(self, at_s: float) -> int | None:
        """Return the row whose interval contains a moment. None if there is none."""
        row = int(np.searchsorted(self.stamps_s, at_s, side="right")) - 1
        return row if row >= 0 and at_s < self.stamps_s[row] + self.interval_s else None


def columns_of(rows: Sequence[TimelineRow], interval_s: float) -> Columns:
    """Convert rows in time order to columns."""
    return Columns(
        column(rows, "timestamp_s"),
        {name: column(rows, name) for name in NUMERIC},
        [row.reason for row in rows],
        interval_s,
    )


def read_timeline(directory: Path) -> Columns:
    """Read the timeline that a run wrote to a directory, `timeline.parquet` or `timeline.csv`.

    Raises:
        ConfigError: There is no such file, or it cannot be read. The message names file and line.
    """
    for name, read in ((PARQUET_NAME, _read_parquet), (TIMELINE_NAME, _read_csv)):
        if (directory / name).is_file():
            return read(directory / name)
    raise ConfigError(
        f"{directory} holds no {TIMELINE_NAME} and no {PARQUET_NAME}; name a directory that "
        "`autoscaler replay --out` or `autoscaler demo --out` has written"
    )


def write_parquet(path: Path, columns: Columns) -> None:
    """Write the columns `TIMELINE_COLUMNS`. Timestamps are UTC, counts and amounts are doubles, unknown values are null.

    Raises:
        ConfigError: The file cannot be written, or pyarrow is not installed.
    """
    pa, pq = pyarrow()
    micros = np.round(columns.stamps_s * 1e6).astype(np.int64)
    table = pa.table(
        {
            "timestamp": pa.array(micros).cast(pa.timestamp("us", tz="UTC")),
            **{name: pa.array(columns[name], from_pandas=True) for name in NUMERIC},
            "reason": pa.array(columns.reasons, pa.string()),
        }
    )
    with written_whole(path) as unfinished:
        pq.write_table(table, unfinished)


def _read_csv(path: Path) -> Columns:
    stamps: list[float] = []
    cells: list[list[str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            if tuple(next(reader, ())) != TIMELINE_COLUMNS:
                raise ConfigError(f"{path}:1: is not the header of a timeline: {','.join(TIMELINE_COLUMNS)}")
            for cell in reader:
                if len(cell) != len(TIMELINE_COLUMNS):
                    raise ConfigError(
                        f"{path}:{reader.line_num}: has {len(cell)} columns instead of {len(TIMELINE_COLUMNS)}; "
                        "was the run interrupted while writing?"
                    )
                stamps.append(_stamp(cell[0], path, reader.line_num))
                cells.append(cell)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: is not a CSV file in UTF-8: {error}") from None
    numbers = {
        name: np.array(
            [_number(cell[at], name, path, line) for line, cell in enumerate(cells, 2)], np.float64
        )
        for at, name in enumerate(NUMERIC, 1)
    }
    return _checked(path, np.array(stamps, np.float64), numbers, [cell[-1] for cell in cells])


def _stamp(text: str, path: Path, line: int) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{path}:{line}:1: timestamp {text!r} is not a time in ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _number(text: str, name: str, path: Path, line: int) -> float:
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{path}:{line}: {name} {text!r} is not a number; unknown is an empty cell"
        ) from None


def _read_parquet(path: Path) -> Columns:
    pa, pq = pyarrow()
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from None
    missing = [name for name in TIMELINE_COLUMNS if name not in table.column_names]
    if missing:
        raise ConfigError(f"{path}: is not a timeline: it has no column {', '.join(missing)}")
    try:
        stamps = table["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() / 1e6
        numbers = {name: table[name].cast(pa.float64()).to_numpy().astype(np.float64) for name in NUMERIC}
    except pa.ArrowException as error:
        raise ConfigError(f"{path}: a column has the wrong type: {error}") from None
    return _checked(path, stamps, numbers, [reason or "" for reason in table["reason"].to_pylist()])


def _checked(path: Path, stamps: Float, numbers: dict[str, Float], reasons: list[str]) -> Columns:
    if len(stamps) < 2:
        raise ConfigError(f"{path}: has {len(stamps)} rows, which is too few to conclude anything")
    steps = np.diff(stamps)
    if not (steps > 0).all():
        row = int(np.argmin(steps > 0)) + 1
        raise ConfigError(
            f"{path}: row {row + 1} is not later than the one above it; rows must be in time order"
        )
    return Columns(stamps, numbers, reasons, float(np.median(steps)))


def pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet module.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"Parquet needs pyarrow; {SIM_EXTRA}, or write CSV") from None
    return pa, pq
