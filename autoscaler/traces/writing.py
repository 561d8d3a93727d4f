"""Writes trace files as CSV, gzip-compressed CSV or Parquet, by file extension.

`reading` reads a written file back as the same recording, with the same digest. Whether values are counts or a gauge is not
part of a trace file, so `kind_note` says what a reader must be told.

Rules of this file: a file is written completely or not at all, and replaces another one only on request. Equal traces give
equal bytes. Nothing is written that reading would refuse. pyarrow is imported only for Parquet.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress
from autoscaler.traces.reading import MANIFEST
from autoscaler.traces.trace import Float, Trace, describe_time, grid_interval

ENDINGS: tuple[str, ...] = (".csv", ".csv.gz", ".parquet")
"""File endings of the formats that can be written."""

_CALENDAR_END_S = 253_402_300_800.0
"""First moment of the year 10000, which `reading` cannot parse as ISO 8601."""
_GZIP_LEVEL = 6
_ROWS_AT_ONCE = 100_000


def write_trace(
    path: Path, trace: Trace, *, overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Write a trace with the columns `timestamp,value`, and `censored` if any value is censored. A gap is a missing row.

    Time stamps are ISO 8601 if all of them are whole seconds, otherwise epoch seconds to the last bit.

    Args:
        path: The file, ending in one of `ENDINGS`. Its folder is created if needed.
        trace: The trace, of at least two rows.
        overwrite: Whether to replace an existing file.
        progress: Called with the share that has been written.

    Raises:
        TraceError: The ending is unknown, the file exists already, the trace has only one row, or the file cannot be
            written. What was there before is unchanged.
    """
    ending = ending_of(path)
    if len(trace.values) < 2:
        raise TraceError(
            f"{path}: trace {trace.name} has one row only ({describe_time(trace.start_s)}), which does not make a trace; choose a longer time"
        )
    if ending == ".parquet":
        write_whole(path, lambda unfinished: _write_parquet(unfinished, trace), overwrite=overwrite)
    else:
        packed = ending == ".csv.gz"
        write_whole(
            path, lambda unfinished: _write_text(unfinished, trace, packed, progress), overwrite=overwrite
        )


def ending_of(path: Path) -> str:
    """Return the ending of a file name, one of `ENDINGS`.

    Raises:
        TraceError: The name has none of them.
    """
    for ending in ENDINGS:
        if path.name.endswith(ending) and path.name != ending:
            return ending
    raise TraceError(
        f"{path}: the name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, which determines the format"
    )


def write_whole(path: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let `write` fill a file in the same folder, and move it into place when it is complete and on the disk.

    Args:
        path: The file. Its folder is created if needed.
        write: Called with the path of the unfinished file.
        overwrite: Whether to replace an existing file.

    Raises:
        TraceError: The file exists already, or cannot be written. What was there before is unchanged.
    """
    if path.is_dir():
        raise TraceError(f"{path}: this is a folder; give the name of a file in it")
    if path.exists() and not overwrite:
        raise TraceError(f"{path}: the file already exists and was left alone; give another name or --force")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        _to_disk(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise TraceError(
            f"{path}: cannot be written: {error.strerror or error}; give another place"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def kind_note(path: Path, trace: Trace) -> str:
    """Return one sentence on what a reader of this file must be told, because the file does not contain it."""
    line = f"{path.name},{trace.kind},{trace.interval_s:.12g}"
    told = "" if _interval_shows(trace) else f", and an interval is {trace.interval_s:g} s"
    return (
        f"The values are a {trace.kind}{told}: give `--kind {trace.kind}` when reading the file, or put the line "
        f"`{line}` into a {MANIFEST} beside it, below `file,kind,interval_s`."
    )


def _interval_shows(trace: Trace) -> bool:
    try:
        return grid_interval(trace.timestamps, None) == trace.interval_s
    except TraceError:
        return False


def _write_text(path: Path, trace: Trace, packed: bool, progress: Progress | None) -> None:
    with ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("wb"))
        if packed:
            # The gzip header gets neither name nor time, so that equal traces give equal bytes.
            zipped = gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0)
            stream = stack.enter_context(zipped)  # type: ignore[arg-type]
        for block, share in _csv_blocks(trace):
            stream.write(block.encode())
            if progress:
                progress(share)


def _csv_blocks(trace: Trace) -> Iterator[tuple[str, float]]:
    """Yield the text of some rows at a time, and the share that is written with them."""
    marked = bool(trace.censored.any())
    yield f"timestamp,value{',censored' if marked else ''}\n", 0.0
    iso = _fits_calendar(trace.timestamps)
    rows = len(trace.values)
    for begin in range(0, rows, _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        stamps = _stamp_texts(trace.timestamps[part], iso=iso)
        values = map(_number, trace.values[part].tolist())
        if marked:
            marks = trace.censored[part].astype(np.int64).tolist()
            lines = [f"{at},{value},{mark}\n" for at, value, mark in zip(stamps, values, marks, strict=True)]
        else:
            lines = [f"{at},{value}\n" for at, value in zip(stamps, values, strict=True)]
        yield "".join(lines), min(1.0, (begin + _ROWS_AT_ONCE) / rows)


def _fits_calendar(stamps: Float) -> bool:
    whole = bool((stamps == np.floor(stamps)).all())
    return whole and float(stamps[0]) >= 0 and float(stamps[-1]) < _CALENDAR_END_S


def _stamp_texts(stamps: Float, *, iso: bool) -> list[str]:
    if iso:
        texts = np.datetime_as_string(stamps.astype("datetime64[s]"))
        return [f"{text}Z" for text in texts.tolist()]
    return [repr(stamp) for stamp in stamps.tolist()]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and value < 2**53 else repr(value)


def _write_parquet(path: Path, trace: Trace) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise TraceError(
            f"{path}: writing Parquet needs pyarrow; install the extra `sim`, or use CSV"
        ) from None
    stamps = trace.timestamps
    micros = np.round(stamps * 1e6)
    exact = bool((np.abs(micros) < 2**63).all() and (micros / 1e6 == stamps).all())
    column = pa.array(micros.astype(np.int64), pa.timestamp("us", tz="UTC")) if exact else pa.array(stamps)
    columns = {"timestamp": column, "value": trace.values}
    if trace.censored.any():
        columns["censored"] = trace.censored.astype(np.int8)
    parquet.write_table(pa.table(columns), path)


def _to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
