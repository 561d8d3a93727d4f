"""Reads columns from Parquet files. The only module that reads with pyarrow, which is imported on demand.

Rules of this file: a null is an error, like an empty field in CSV. Times become epoch seconds in UTC, as strictly as in text
(`stamps`).
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

MAX_ROWS = 200_000_000
"""Largest number of rows, as for text: identical rows take almost no space in a file, but gigabytes of memory."""


def read_parquet(
    path: Path, choose: Choose, times: TimeForm
) -> tuple[dict[str, Float], dict[str, Texts], int]:
    """Read the columns that `choose` names. Returns columns of numbers and times, columns of texts, and the number of rows.

    Raises:
        TraceError: pyarrow is not installed, or the file cannot be used.
    """
    from autoscaler.traces.tables import Form, Texts

    names = column_names(path)
    from pyarrow import ArrowException, parquet

    try:
        wanted = choose(names)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    try:
        rows = parquet.read_metadata(path).num_rows
        if rows > MAX_ROWS:
            raise TraceError(
                f"{path}: it has {rows:,} rows, but at most {MAX_ROWS:,} can be read; cut it into parts"
            )
        data = parquet.read_table(path, columns=[column.name for column in wanted])
    except (ArrowException, OSError) as error:
        raise TraceError(f"{path}: not a readable Parquet file: {error}") from None
    numbers: dict[str, Float] = {}
    texts: dict[str, Texts] = {}
    for column in wanted:
        found = _column(path, column.name, data.column(column.name), empty=column.form is Form.CELL)
        if column.form is Form.TEXT:
            known: dict[str, int] = {}
            code = np.array([known.setdefault(str(text), len(known)) for text in found], np.int64)
            texts[column.name] = Texts(code, tuple(known))
        elif column.form is Form.TIME:
            numbers[column.name] = _times(path, found, data.column(column.name).type, times)
        elif not isinstance(found, np.ndarray):
            raise TraceError(
                f"{path}: column `{column.name}` should hold numbers and holds text; write it with a numeric type"
            )
        else:
            numbers[column.name] = found
    return numbers, texts, int(data.num_rows)


def column_names(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        TraceError: pyarrow is not installed, or the file is not Parquet.
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


def _times(path: Path, found: Sequence[str] | Float, kind: Any, times: TimeForm) -> Float:
    """Convert a column of times to epoch seconds, as strictly as in text.

    The unit must fit, and the given zone applies if the file has none.
    """
    import pyarrow as pa

    reader = StampReader(times)
    try:
        if not isinstance(found, np.ndarray):
            return reader.finish(reader.read_slow(found)) if found else np.empty(0)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return reader.finish(reader.read_moments(found, local=getattr(kind, "tz", None) is None))
        return reader.finish(reader.read_numbers(found))
    except RowError as error:
        raise TraceError(f"{path}: row {error.row + 1}: {error}") from None


def _column(path: Path, name: str, column: Any, *, empty: bool = False) -> Sequence[str] | Float:
    """Return a column as numbers or texts. Times become epoch seconds, and a null becomes NaN if `empty` allows it."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if empty and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.asarray(compute.fill_null(column.cast(pa.float64()), float("nan")), np.float64)
    if compute.any(compute.is_null(column)).as_py():
        row = compute.index(compute.is_null(column), value=True).as_py()
        raise TraceError(
            f"{path}: row {row + 1}: `{name}` is null; leave the row out if nothing was recorded"
        )
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        in_us = compute.cast(column, pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return np.asarray(compute.cast(in_us, pa.int64()), np.float64) / 1e6
    if pa.types.is_decimal(kind):
        column, kind = compute.cast(column, pa.float64()), pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column, np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: list[str] = column.to_pylist()
        return texts
    raise TraceError(f"{path}: column `{name}` holds {kind}, wanted are times, numbers or text")
