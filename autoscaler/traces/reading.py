"""Reading trace files: CSV, CSV in gzip, Parquet.

Why it is strict: a replay is only worth its input. A row that is out of order, doubled, off the grid or not a
number ends the reading with file and line; nothing is repaired or guessed. Whether values are counts or a
gauge is never guessed either: the caller says it, or a `manifest.csv` beside the file does.

Rules of this file: one pass over the text, checks on whole arrays, and a second look for the line only once
something is wrong. pyarrow is imported only for Parquet.

Not here: what a trace can do (`trace`), tables of single VMs (`per_vm`).
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Float, RowError, Trace, TraceKind

MAX_BYTES = 1 << 30
"""The largest text read, unpacked: some thirty million rows. More is taken for a broken or hostile file."""

MANIFEST = "manifest.csv"


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a file as text, and what is needed to name a row in an error.

    Attributes:
        path: The file.
        columns: Column name to texts, or to numbers where Parquet holds numbers.
        rows: How many.
        first_line: Line of row 0 (2 in CSV; 1 in Parquet, where rows are counted instead).
        row_word: "line" or "row".
    """

    path: Path
    columns: dict[str, Sequence[str] | Float]
    rows: int
    first_line: int
    row_word: str

    def error(self, row: int, message: str) -> TraceError:
        """An error that names file and line."""
        where = (
            f"{self.path}:{row + self.first_line}"
            if self.row_word == "line"
            else f"{self.path}: row {row + 1}"
        )
        return TraceError(f"{where}: {message}")


def read_trace(path: Path, *, kind: TraceKind | None = None, interval_s: float | None = None) -> Trace:
    """Read a series with the columns `timestamp,value`.

    Args:
        path: A `.csv`, `.csv.gz` or `.parquet` file.
        kind: What the values mean; where None, the manifest beside the file must say it.
        interval_s: Length of an interval; where None, the manifest's, else the smallest step.

    Raises:
        TraceError: The file cannot be used; the message says file, line and what to do.
    """
    said = manifest_entry(path)
    if kind is None:
        kind = _manifest_kind(path, said)
    if interval_s is None and said is not None and said.get("interval_s"):
        interval_s = _manifest_interval(path, said["interval_s"])
    table = read_table(path, ("timestamp", "value"), exact=True)
    stamps = parse_stamps(table, "timestamp")
    values = parse_numbers(table, "value")
    if table.rows == 1:
        raise table.error(0, "there is one row only; a trace needs at least two")
    try:
        return Trace.build(stamps, values, kind=kind, name=trace_name(path), interval_s=interval_s)
    except RowError as error:
        raise table.error(error.row, str(error)) from None


def trace_name(path: Path) -> str:
    """The file's name without its endings."""
    name = path.name
    for ending in (".gz", ".csv", ".parquet"):
        name = name.removesuffix(ending)
    return name


def manifest_entry(path: Path) -> dict[str, str] | None:
    """What `manifest.csv` in the same folder says of this file (columns file, kind, interval_s), or None."""
    manifest = path.parent / MANIFEST
    if manifest == path or not manifest.is_file():
        return None
    try:
        with manifest.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row.get("file") == path.name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{manifest}: the manifest cannot be read: {error}") from None
    return {key: value for key, value in rows[0].items() if key and isinstance(value, str)} if rows else None


def _manifest_kind(path: Path, said: dict[str, str] | None) -> TraceKind:
    kind = (said or {}).get("kind", "")
    if kind in set(TraceKind):
        return TraceKind(kind)
    if kind:
        raise TraceError(
            f"{path}: {MANIFEST} says it is of kind `{kind}`, which is not a series of demand (count or gauge)"
        )
    raise TraceError(
        f"{path}: say whether the values are counts (work in the interval) or a gauge (a level): give the kind, "
        f"or name the file in a {MANIFEST} beside it with the columns file,kind,interval_s"
    )


def _manifest_interval(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TraceError(
            f"{path.parent / MANIFEST}: interval_s `{text}` of {path.name} is not a number of seconds"
        ) from None


# ── Tables ──────────────────────────────────────────────────────────────────────────────────────────────


def read_table(path: Path, wanted: tuple[str, ...], *, exact: bool) -> Table:
    """Read the wanted columns.

    Args:
        path: The file.
        wanted: Column names, which must come first and in this order.
        exact: Whether further columns are an error.

    Raises:
        TraceError: The file cannot be read, has another header, or no rows.
    """
    if not path.exists():
        raise TraceError(f"{path}: there is no such file")
    if not path.is_file():
        raise TraceError(f"{path}: this is not a file")
    table = _read_parquet(path, wanted) if path.suffix == ".parquet" else _read_csv(path, wanted, exact=exact)
    if not table.rows:
        raise TraceError(f"{path}: there are no rows below the header")
    return table


def _read_csv(path: Path, wanted: tuple[str, ...], *, exact: bool) -> Table:
    lines = _text(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise TraceError(f"{path}: the file is empty")
    reader = csv.reader(lines, strict=True)
    flat: list[str] = []  # one flat list: a million small ones keep the garbage collector busy for a second
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(path, header, wanted, exact=exact)
        for row in reader:
            if len(row) != len(header):
                found = f"{len(row)} columns where the header has {len(header)}" if row else "empty line"
                raise TraceError(f"{path}:{reader.line_num}: {found}")
            flat += row
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    columns: dict[str, Sequence[str] | Float] = {
        name: flat[at :: len(header)] for at, name in enumerate(wanted)
    }
    return Table(path, columns, len(flat) // len(header), 2, "line")


def _check_header(path: Path, header: list[str], wanted: tuple[str, ...], *, exact: bool) -> None:
    if tuple(header[: len(wanted)]) == wanted and (not exact or len(header) == len(wanted)):
        return
    found = ",".join(header)[:120]
    hint = "; it looks like a table of single VMs" if "vm" in header and "value" in wanted else ""
    raise TraceError(f"{path}:1: the header is `{found}`, wanted is `{','.join(wanted)}`{hint}")


def _text(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                data = stream.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise TraceError(f"{path}: more than {MAX_BYTES >> 20} MiB of text; cut it into smaller traces")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path}:{line}: not UTF-8 text") from None


def _read_parquet(path: Path, wanted: tuple[str, ...]) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise TraceError(
            f"{path}: reading Parquet needs pyarrow; install the extra `sim`, or use CSV"
        ) from None
    try:
        names = parquet.read_schema(path).names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise TraceError(f"{path}: the columns are `{','.join(names)[:120]}`, `{missing[0]}` is missing")
        data = parquet.read_table(path, columns=list(wanted))
    except (ArrowException, OSError) as error:
        raise TraceError(f"{path}: not a readable Parquet file: {error}") from None
    columns = {name: _arrow_column(path, name, data.column(name)) for name in wanted}
    return Table(path, columns, data.num_rows, 1, "row")


def _arrow_column(path: Path, name: str, column: object) -> Sequence[str] | Float:
    """A column as numbers or texts; times become epoch seconds."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type  # type: ignore[attr-defined]
    if compute.any(compute.is_null(column)).as_py():
        row = compute.index(compute.is_null(column), value=True).as_py()
        raise TraceError(
            f"{path}: row {row + 1}: `{name}` is null; leave the row out where nothing was recorded"
        )
    if pa.types.is_timestamp(kind):
        return (
            np.asarray(compute.cast(compute.cast(column, pa.timestamp("us")), pa.int64()), np.float64) / 1e6
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column, np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: list[str] = column.to_pylist()  # type: ignore[attr-defined]
        return texts
    raise TraceError(f"{path}: column `{name}` holds {kind}, wanted are times, numbers or text")


# ── Columns ─────────────────────────────────────────────────────────────────────────────────────────────


def parse_numbers(table: Table, name: str) -> Float:
    """A column of numbers.

    Raises:
        TraceError: The first text that is none.
    """
    texts = table.columns[name]
    if isinstance(texts, np.ndarray):
        return texts
    try:
        return np.array(list(map(float, texts)), np.float64)
    except ValueError:
        row = next(row for row, text in enumerate(texts) if _float(text) is None)
        raise table.error(
            row, f"{name} `{texts[row][:40]}` is not a number; leave the row out where nothing was recorded"
        ) from None


def parse_stamps(table: Table, name: str) -> Float:
    """A column of times as epoch seconds: ISO 8601 (UTC unless it names an offset) or epoch seconds.

    Raises:
        TraceError: The first text that is no time.
    """
    texts = table.columns[name]
    if isinstance(texts, np.ndarray):
        return texts
    parse = _iso_seconds if _float(texts[0]) is None else float
    stamps = np.empty(len(texts), np.float64)
    row = 0
    try:
        for row, text in enumerate(texts):
            stamps[row] = parse(text)
    except ValueError:
        like = (
            "ISO 8601 such as 2026-03-01T08:00:00Z"
            if parse is _iso_seconds
            else "epoch seconds as in the first row"
        )
        raise table.error(row, f"timestamp `{texts[row][:40]}` is not a time; wanted is {like}") from None
    return stamps


def _iso_seconds(text: str) -> float:
    stamp = datetime.fromisoformat(text)
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
