"""Columns out of Parquet files. The only module that reads with pyarrow, which is imported when it is needed.

Rules of this file: a null is an error like an empty field in CSV; times become epoch seconds in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.stamps import StampReader, TimeForm
from autoscaler.traces.trace import Float, RowError

if TYPE_CHECKING:
    from autoscaler.traces.tables import Choose, Texts


def read_parquet(
    path: Path, choose: Choose, times: TimeForm
) -> tuple[dict[str, Float], dict[str, Texts], int]:
    """Columns of numbers and times, columns of texts, and the number of rows.

    Raises:
        TraceError: pyarrow is missing, or the file cannot be used.
    """
    from autoscaler.traces.tables import Form, Texts

    names = column_names(path)
    from pyarrow import ArrowException, parquet

    try:
        wanted = choose(names)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    try:
        data = parquet.read_table(path, columns=[column.name for column in wanted])
    except (ArrowException, OSError) as error:
        raise TraceError(f"{path}: not a readable Parquet file: {error}") from None
    numbers: dict[str, Float] = {}
    texts: dict[str, Texts] = {}
    for column in wanted:
        found = _column(path, column.name, data.column(column.name))
        if column.form is Form.TEXT:
            known: dict[str, int] = {}
            code = np.array([known.setdefault(str(text), len(known)) for text in found], np.int64)
            texts[column.name] = Texts(code, tuple(known))
        elif not isinstance(found, np.ndarray):
            numbers[column.name] = _parsed(path, found, times, is_time=column.form is Form.TIME)
        elif (
            column.form is Form.TIME
            and times.style in {"ms", "us", "ns"}
            and not _holds_times(data, column.name)
        ):
            numbers[column.name] = found / {"ms": 1e3, "us": 1e6, "ns": 1e9}[times.style]
        else:
            numbers[column.name] = found
    return numbers, texts, int(data.num_rows)


def column_names(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
        TraceError: pyarrow is missing, or the file is not Parquet.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise TraceError(
            f"{path}: reading Parquet needs pyarrow; install the extra `sim`, or use CSV"
        ) from None
    try:
        return list(parquet.read_schema(path).names)
    except (ArrowException, OSError) as error:
        raise TraceError(f"{path}: not a readable Parquet file: {error}") from None


def _holds_times(data: Any, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(data.column(name).type))


def _parsed(path: Path, texts: Sequence[str], times: TimeForm, *, is_time: bool) -> Float:
    if not is_time:
        raise TraceError(f"{path}: a column that should hold numbers holds text")
    reader = StampReader(times)
    try:
        return reader.finish(reader.read_slow(texts)) if texts else np.empty(0)
    except RowError as error:
        raise TraceError(f"{path}: row {error.row + 1}: {error}") from None


def _column(path: Path, name: str, column: Any) -> Sequence[str] | Float:
    """A column as numbers or texts; times become epoch seconds."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if compute.any(compute.is_null(column)).as_py():
        row = compute.index(compute.is_null(column), value=True).as_py()
        raise TraceError(
            f"{path}: row {row + 1}: `{name}` is null; leave the row out where nothing was recorded"
        )
    if pa.types.is_timestamp(kind):
        in_us = compute.cast(column, pa.timestamp("us", tz=kind.tz), safe=False)
        return np.asarray(compute.cast(in_us, pa.int64()), np.float64) / 1e6
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column, np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: list[str] = column.to_pylist()
        return texts
    raise TraceError(f"{path}: column `{name}` holds {kind}, wanted are times, numbers or text")
