"""Reads trace files: the columns `timestamp,value`, in CSV, gzip-compressed CSV or Parquet.

Reading is strict because a replay is only worth its input. A row that is out of order, duplicated, off the grid or not a
number ends the reading with file, line and column. Nothing is repaired or guessed. In particular, whether values are counts
or a gauge is never guessed: the caller says it, or a `manifest.csv` in the same folder does. A third column `censored` (0 or
1) marks values that are lower bounds.

Not here: how files become columns (`tables`), what a trace can do (`trace`), single VMs (`per_vm`), files of other shapes
(`importing`).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress, check_file
from autoscaler.traces.tables import Choose, Form, Table, Wanted, is_parquet, read_table
from autoscaler.traces.trace import RowError, Trace, TraceKind

MANIFEST = "manifest.csv"
COLUMNS = ("timestamp", "value")
CENSORED = "censored"
_KIND_UNSAID = (
    "say whether the values are counts (work in the interval) or a gauge (a level): `--kind count` or `--kind gauge` (in a "
    f"policy `kind: count` or `kind: gauge` in `trace`), or name the file in a {MANIFEST} beside it with the columns "
    "file,kind,interval_s"
)


def read_trace(
    path: Path,
    *,
    kind: TraceKind | None = None,
    interval_s: float | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Read a series with the columns `timestamp,value` and optionally `censored`.

    Args:
        path: A `.csv`, `.csv.gz` or `.parquet` file.
        kind: What the values mean. None takes it from the manifest.
        interval_s: Length of an interval in seconds. None takes it from the manifest, or else the smallest step.
        progress: Called with the share of the file that has been read.

    Raises:
        TraceError: The file cannot be used. The message names file, line and a remedy.
    """
    check_file(path)
    said = manifest_entry(path)
    if kind is None:
        kind = _manifest_kind(path, said)
    if interval_s is None and said is not None and said.get("interval_s"):
        interval_s = manifest_interval(path, said["interval_s"])
    table = read_table(path, _columns(exact=not is_parquet(path), told=kind is not None), progress=progress)
    assert kind is not None
    if table.rows == 1:
        raise table.error(0, "there is one row only; a trace needs at least two")
    try:
        return Trace.build(
            table.numbers["timestamp"],
            table.numbers["value"],
            kind=kind,
            name=trace_name(path),
            interval_s=interval_s,
            censored=_marks(table),
        )
    except RowError as error:
        raise table.error(error.row, str(error), error.column) from None
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def _columns(*, exact: bool, told: bool) -> Choose:
    """Choose the columns of a series. In text files, the header must be exactly these columns in this order.

    The kind of the values is asked for only where the header is right, because of another file it would be asked in vain.
    """

    def choose(names: list[str]) -> tuple[Wanted, ...]:
        marked = CENSORED in names[2:]
        wanted = (*COLUMNS, CENSORED) if marked else COLUMNS
        if exact and tuple(names) != wanted:
            raise TraceError(
                f"the header is `{','.join(names)[:120]}`, wanted is `{','.join(COLUMNS)}`{_hint(names)}"
            )
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise TraceError(
                f"the columns are `{','.join(names)[:120]}`, `{missing[0]}` is missing{_hint(names)}"
            )
        if not told:
            raise TraceError(_KIND_UNSAID)
        forms = (Form.TIME, Form.NUMBER, Form.NUMBER)
        return tuple(map(Wanted, wanted, forms))

    return choose


def _hint(names: list[str]) -> str:
    """Say what the file may be instead, judging by its header."""
    if "vm" in names:
        return "; it looks like a table of single VMs: make a trace of it with `autoscaler trace import`"
    if "duration_s" in names:
        return "; it looks like a list of events: make a trace of it with `autoscaler trace import`"
    if any(name[:1].isdigit() for name in names):
        return "; the first line looks like data, so the header is missing: put it above the first line"
    if len(names) == 1 and any(sign in names[0] for sign in ";\t|"):
        return (
            "; columns are separated by something other than a comma: read it with `autoscaler trace import`"
        )
    return "; files of other shapes are read by `autoscaler trace import`"


def _marks(table: Table) -> NDArray[np.bool_] | None:
    marks = table.numbers.get(CENSORED)
    if marks is None:
        return None
    wrong = (marks != 0) & (marks != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise table.error(row, f"{CENSORED} {marks[row]:g} is neither 0 nor 1", CENSORED)
    censored: NDArray[np.bool_] = marks == 1
    return censored


def trace_name(path: Path) -> str:
    """Return the file name without its endings."""
    name = path.name
    for ending in (".gz", ".csv", ".parquet"):
        name = name.removesuffix(ending)
    return name


def manifest_entry(path: Path) -> dict[str, str] | None:
    """Return the row for a file in the `manifest.csv` of its folder (columns file, kind, interval_s). None if there is none."""
    manifest = path.parent / MANIFEST
    if manifest == path or not manifest.is_file():
        return None
    try:
        with manifest.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row.get("file") == path.name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{manifest}: the manifest cannot be read: {error}") from None
    return {key: value for key, value in rows[0].items() if key and isinstance(value, str)} if rows else None


def _manifest_kind(path: Path, said: dict[str, str] | None) -> TraceKind | None:
    kind = (said or {}).get("kind", "")
    if kind in set(TraceKind):
        return TraceKind(kind)
    if kind:
        raise TraceError(
            f"{path}: {MANIFEST} says it is of kind `{kind}`, which is not a series of demand (count or gauge)"
        )
    return None


def manifest_interval(path: Path, text: str) -> float:
    """Parse the interval, in seconds, that the manifest gives for a file.

    Raises:
        TraceError: It is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise TraceError(
            f"{path.parent / MANIFEST}: interval_s `{text}` of {path.name} is not a number of seconds"
        ) from None
