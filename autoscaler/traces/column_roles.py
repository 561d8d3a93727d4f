"""Imports tables of other shapes: column roles come from options, or from the header if it is clear.

The import is strict, because an imported trace is believed from then on. A column is taken by its name, or because there is
no other choice. Rows that are out of order, duplicated or off the grid are errors unless the caller asks for sorting, or for
moving time stamps to the start of their interval.

Rules of this file: text of any shape in, a checked Trace out. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces import access_logs
from autoscaler.traces.blocks import Progress, beginning, check_file, part_of
from autoscaler.traces.cloudwatch_json import is_cloudwatch
from autoscaler.traces.events import Measure, trace_of_events
from autoscaler.traces.json_lines import field_names, is_json_lines
from autoscaler.traces.per_vm import FLOOR_NEEDS_INTERVAL, PerVmColumns
from autoscaler.traces.query_range import is_answer
from autoscaler.traces.reading import manifest_entry, trace_name
from autoscaler.traces.tables import (
    Choose,
    Form,
    Layout,
    Table,
    Wanted,
    declared,
    is_parquet,
    joined,
    read_table,
)
from autoscaler.traces.trace import GRID_TOLERANCE_S, Float, RowError, Trace, TraceKind

TIME_NAMES = ("timestamp", "time", "datetime", "date", "ts", "@timestamp")
"""Headers recognised as times, in order of preference."""
VALUE_NAMES = ("value", "count", "requests", "invocations")
DURATION_NAMES = ("duration_s", "duration")
CENSORED_NAME = "censored"
_HOUR_S = 3600.0
_TIME_LINE = {"demand", "desired", "in_service", "warm_target"}
"""Columns that identify a timeline."""


class Shape(StrEnum):
    """The contents of a file to import."""

    SERIES = "series"
    """One row per interval: time and value."""
    PER_VM = "per-vm"
    """One row per interval and VM: time, name of the VM, utilisation."""
    EVENTS = "events"
    """One row per event: time and optionally duration."""
    ACCESS_LOG = "access-log"
    """One line per request, in a format of `access_logs`."""
    PROMETHEUS = "prometheus"
    """A saved answer of /api/v1/query_range with one series."""
    WIDE = "wide"
    """One row per interval and one column per part, such as a service or a VM: values are summed."""
    WIDE_VMS = "wide-vms"
    """One row per interval and one column per VM: its utilisation."""
    CLOUDWATCH = "cloudwatch"
    """A saved answer of `aws cloudwatch get-metric-statistics` or `get-metric-data` with one metric."""


@dataclass(frozen=True, slots=True)
class SeriesColumns:
    """The roles of columns. An empty string leaves the choice to the header.

    Attributes:
        time, value, duration: Names, or numbers from 1 if there is no header.
    """

    time: str = ""
    value: str = ""
    duration: str = ""


def told_shape(
    path: Path, layout: Layout, columns: SeriesColumns | None = None, vms: PerVmColumns | None = None
) -> Shape:
    """Determine the contents of a file from its manifest, its header, or the look of its log lines.

    Args:
        path: The file.
        layout: The layout of its text.
        columns: The columns that were asked for.
        vms: The columns that were asked for in a table of VMs.

    Raises:
        TraceError: The contents cannot be determined.
    """
    check_file(path)
    said = (manifest_entry(path) or {}).get("kind", "")
    if said:
        return (
            Shape.SERIES
            if said in set(TraceKind)
            else Shape(said)
            if said in set(Shape)
            else _odd(path, said)
        )
    if is_cloudwatch(path):
        return Shape.CLOUDWATCH
    if is_answer(path):
        return Shape.PROMETHEUS
    logged = not is_parquet(path) and is_json_lines(path)
    names = field_names(path) if logged else _header(path, layout)
    if not logged and names[0][:1] in ("[", "{"):
        raise TraceError(
            f"{path}: it looks like JSON, of which only answers of Prometheus and CloudWatch can be read, and files with one "
            "object per line (`jq -c '.[]' FILE` converts a list)"
        )
    of_vms = vms or PerVmColumns()
    if {of_vms.vm, of_vms.utilisation} <= set(names):
        return Shape.PER_VM
    asked = columns or SeriesColumns()
    times = (asked.time.lower(), *map(str.lower, joined(asked.time, names)), *TIME_NAMES)
    # Logs first, because one comma in a user agent makes a log line look like two columns.
    if not (is_parquet(path) or logged) and access_logs.told_format(path):
        return Shape.ACCESS_LOG
    if any({name.lower(), name.lower().split(" ")[0]} & {*times} for name in names) or len(names) == 2:
        # A header that ends in a comma has a column without a name, which is not the one that was not asked for.
        durations = {asked.duration, *DURATION_NAMES} - {""}
        has_duration = not durations.isdisjoint(names) and not asked.value
        # An object without a value is an event.
        valued = asked.value or any(name in names for name in VALUE_NAMES)
        happened = logged and len(names) > 2 and not valued
        return Shape.EVENTS if has_duration or happened else Shape.SERIES
    raise TraceError(
        f"{path}: it is not clear what this file holds; convert it with `autoscaler trace import`, and give its kind with `--shape` ({', '.join(Shape)}), its columns with `--time` and `--value`, and their separator with "
        f"`--separator`; its columns are: {', '.join(names)[:200]}{_separated(names)}"
    )


def _odd(path: Path, said: str) -> Shape:
    raise TraceError(f"{path}: the manifest beside it says `{said}`, which is not one of {', '.join(Shape)}")


def _header(path: Path, layout: Layout) -> list[str]:
    if is_parquet(path):
        from autoscaler.traces.parquet import column_names

        return column_names(path)
    layout = declared(path, layout)
    begin = beginning(path)
    if not begin:
        raise TraceError(f"{path}: the file is empty")
    first = begin.split(b"\n", layout.skip + 1)[: layout.skip + 1][-1].decode()
    return [name.strip().strip('"') for name in first.split(layout.separator)]


def read_series(
    path: Path,
    *,
    kind: TraceKind,
    columns: SeriesColumns | None = None,
    layout: Layout | None = None,
    interval_s: float | None = None,
    sort: bool = False,
    floor: bool = False,
    empty_is_zero: bool = False,
    progress: Progress | None = None,
) -> tuple[Trace, int]:
    """Read a table with one row per interval. Returns the trace and the number of cells without a value.

    Args:
        path: Text, gzip or Parquet.
        kind: What the values mean.
        columns: The columns to take.
        layout: The layout of the text.
        interval_s: Length of an interval in seconds. None takes the smallest step.
        sort: Whether to sort rows by time.
        floor: Whether to move each time stamp to the start of its interval. Needs `interval_s`.
        empty_is_zero: Whether a cell without a value means that nothing happened. Otherwise it is unknown.
        progress: Called with the share that has been read.

    Raises:
        TraceError: The file cannot be used. The message names the place and a remedy.
    """
    if floor and interval_s is None:
        raise TraceError(FLOOR_NEEDS_INTERVAL)
    # A line of JSON may be about something else, so a missing field there is not an empty cell.
    form = Form.NUMBER if not is_parquet(path) and is_json_lines(path) else Form.CELL
    table = read_table(path, _series_choice(columns or SeriesColumns(), form), layout or Layout(), progress)
    time, value = list(table.numbers)[:2]
    stamps, values = table.numbers[time], table.numbers[value]
    marks = table.numbers.get(CENSORED_NAME)
    empty = np.isnan(values)
    order = np.arange(len(stamps))
    if sort:
        order = np.argsort(stamps, kind="stable")
    if empty.all():
        raise TraceError(f"{path}: no cell of the column `{value}` has a value")
    if floor and interval_s is not None:
        stamps = np.floor(stamps / interval_s) * interval_s
    try:
        trace = Trace.build(
            stamps[order],
            np.where(empty, 0.0, values)[order],
            kind=kind,
            name=trace_name(path),
            interval_s=interval_s,
            censored=None if marks is None else marks[order] != 0,
        )
    except RowError as error:
        column = {"timestamp": time, "value": value}.get(error.column, "")
        raise table.error(int(order[error.row]), _explained(error, stamps[order]), column) from None
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    if empty.any() and not empty_is_zero:
        # Unknown rows also determine the grid.
        known = ~empty[order]
        trace = Trace.build(
            trace.timestamps[known],
            trace.values[known],
            kind=kind,
            name=trace.name,
            interval_s=trace.interval_s,
            censored=trace.censored[known],
        )
    return trace, int(empty.sum())


def _explained(error: RowError, stamps: Float) -> str:
    """Add advice to an error, if there is any. `stamps` are the time stamps that the row of the error counts."""
    text = str(error)
    if "before the row above" in text:
        what = text.split(";", maxsplit=1)[0]
        if _put_back(stamps, error.row):
            return (
                f"{what}, by an hour, as when clocks are set back: if these are local times, give their zone "
                "(`--zone Europe/Berlin`)"
            )
        if stamps[error.row] == stamps[0]:
            return (
                f"{what}, and the times start again there: if there is one row per service and time, export one column per service (in "
                "Grafana: Data options, “Series joined by time”) and use `--shape wide`"
            )
        return f"{text} (`--sort` does that)"
    if "not on the grid" in text:
        return f"{text} (`--floor` with `--interval` moves each time to the start of its interval)"
    return text


def _put_back(stamps: Float, row: int) -> bool:
    """Return whether the time of a row is an hour earlier than the rows before it suggest."""
    if row < 2:
        return False
    step_s = stamps[row - 1] - stamps[row - 2]
    return bool(abs(stamps[row] - stamps[row - 1] + _HOUR_S - step_s) <= GRID_TOLERANCE_S)


def read_events(
    paths: Sequence[Path],
    *,
    interval_s: float,
    measure: Measure | None = None,
    columns: SeriesColumns | None = None,
    layout: Layout | None = None,
    progress: Progress | None = None,
) -> tuple[Trace, Measure, list[Table]]:
    """Read tables with one row per event, in any order, as one log. Returns the trace, what its values are, and the tables.

    A file is complete from its first event to its last one. What no file covers is unknown.

    Args:
        paths: Text, gzip, Parquet or JSON lines.
        interval_s: Length of an interval in seconds.
        measure: What to derive from the events. None takes concurrency if the first file has a column of durations, else
            counts.
        columns: The columns to take.
        layout: The layout of the text.
        progress: Called with the share that has been read.

    Raises:
        TraceError: A file cannot be used, or is given twice.
    """
    tables: list[Table] = []
    chosen = measure
    for number, path in enumerate(paths):
        choose = _event_choice(columns or SeriesColumns(), chosen)
        table = read_table(path, choose, layout or Layout(), part_of(progress, number, len(paths)))
        chosen = chosen or (Measure.CONCURRENCY if len(table.numbers) > 1 else Measure.COUNT)
        if not table.rows:
            raise TraceError(f"{path}: there are no events")
        for earlier in tables:
            if _same_events(earlier, table):
                raise TraceError(
                    f"{path}: this is the same as {earlier.path}; its events would be counted twice"
                )
        tables.append(table)
    assert chosen is not None
    begins, *durations = (np.concatenate(each) for each in zip(*map(_times, tables), strict=True))
    try:
        trace = trace_of_events(
            begins, durations[0] if durations else None, interval_s, chosen, name=trace_name(paths[0])
        )
    except RowError as error:
        raise _event_error(tables, error) from None
    except TraceError as error:
        raise TraceError(f"{paths[0]}: {error}") from None
    return (trace if len(tables) == 1 else _covered(trace, tables)), chosen, tables


def _times(table: Table) -> list[Float]:
    return list(table.numbers.values())


def _same_events(one: Table, other: Table) -> bool:
    return one.rows == other.rows and all(map(np.array_equal, _times(one), _times(other)))


def _event_error(tables: Sequence[Table], error: RowError) -> TraceError:
    """Return the error for a row of the concatenated tables, with its own file and line."""
    row = error.row
    for table in tables:
        if row < table.rows:
            break
        row -= table.rows
    time, *rest = table.numbers
    return table.error(row, str(error), time if error.column == "timestamp" else rest[0])


def _covered(trace: Trace, tables: Sequence[Table]) -> Trace:
    """Return the trace without the intervals that lie between two files."""
    keep = np.zeros(len(trace.values), np.bool_)
    for table in tables:
        begins = _times(table)[0]
        ends = np.array([begins.min(), begins.max()]) // trace.interval_s - trace.start_s / trace.interval_s
        first, last = np.rint(ends).astype(np.int64)
        keep[first : last + 1] = True
    return Trace.build(
        trace.timestamps[keep],
        trace.values[keep],
        kind=trace.kind,
        name=trace.name,
        interval_s=trace.interval_s,
    )


def _series_choice(columns: SeriesColumns, form: Form) -> Choose:
    def choose(names: list[str]) -> tuple[Wanted, ...]:
        time = time_column(columns.time)(names)
        others = [name for name in names if name not in {*joined(time, names), CENSORED_NAME}]
        value = others[0] if len(others) == 1 and not columns.value else ""
        value = value or _named(others, columns.value, VALUE_NAMES, "value", "--value")
        marks = [Wanted(CENSORED_NAME, Form.NUMBER)] if CENSORED_NAME in names else []
        return (Wanted(time, Form.TIME), Wanted(value, form), *marks)

    return choose


def _event_choice(columns: SeriesColumns, measure: Measure | None) -> Choose:
    def choose(names: list[str]) -> tuple[Wanted, ...]:
        time = Wanted(_named(names, columns.time, TIME_NAMES, "time", "--time"), Form.TIME)
        known = [name for name in DURATION_NAMES if name in names]
        if measure is Measure.COUNT or not (known or columns.duration or measure):
            return (time,)
        duration = _named(names, columns.duration, DURATION_NAMES, "duration in seconds", "--duration")
        return (time, Wanted(duration, Form.NUMBER))

    return choose


def _named(names: list[str], given: str, usual: tuple[str, ...], what: str, option: str) -> str:
    """Return the given column, or the one with a usual name.

    Raises:
        TraceError: There is none.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TraceError(f"the header has the column `{twice}` twice; rename one")
    if given:
        if given in names or (what == "time" and joined(given, names)):
            return given
        raise TraceError(
            f"there is no column `{given}` (`{option}`); the columns are: {', '.join(names)[:200]}"
        )
    for name in usual:
        for there in names:
            if there.lower() == name:
                return there
    raise TraceError(
        f"it is not clear which column is the {what}; name it with `{option}`; the columns are: "
        f"{', '.join(names)[:200]}{_hint(names, what)}"
    )


def _hint(names: list[str], what: str) -> str:
    """Say what else the table may be, with advice. Empty if nothing suggests that."""
    if names == [str(place + 1) for place in range(len(names))]:
        return "; without a header a column is named by its number, such as `--time 1 --value 2`"
    if what == "value" and set(names) >= _TIME_LINE:
        return (
            "; it is the time line of a replay or a daemon, of which demand is taken by `--shape wide --columns demand "
            "--kind gauge`"
        )
    if what == "value" and len(names) > 1:
        return (
            "; where each column is a service or a VM, say `--shape wide` (their values are added) or `--shape wide-vms` "
            "(utilisation of VMs)"
        )
    if separated := _separated(names):
        return separated
    if any(name[:1].isdigit() for name in names):
        return "; the first line looks like data, so the header may be missing (`--no-header`)"
    return ""


def time_column(given: str) -> Callable[[list[str]], str]:
    """Return a function that chooses the column of times.

    If no column has a usual name, it takes the first column if its name begins like one, such as `Time (UTC)`.
    """

    def choose(names: list[str]) -> str:
        known = any(name.lower() in TIME_NAMES for name in names)
        likely = names[0] if not known and names[0].lower().split(" ")[0] in TIME_NAMES else ""
        return _named(names, given or likely, TIME_NAMES, "time", "--time")

    return choose


def _separated(names: list[str]) -> str:
    """Say what seems to separate columns if the header is a single column, or that it may not be the header."""
    if names[0].startswith("#"):
        return "; the first line looks like a comment (`--skip 1` leaves out one line above the header)"
    sign = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), "")
    told = {"": "", "\t": "tab"}.get(sign, f"'{sign}'")
    return (
        f"; they seem to be separated by something other than a comma (`--separator {told}`)" if told else ""
    )
