"""Imports any readable file as a trace, with warnings for the user: one entry point for import and description.

Rules of this file: it only chooses. Each shape is read by its own module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces import access_logs
from autoscaler.traces.access_logs import LogFormat, read_access_logs
from autoscaler.traces.blocks import Progress
from autoscaler.traces.cloudwatch_json import read_cloudwatch
from autoscaler.traces.column_roles import (
    SeriesColumns,
    Shape,
    read_events,
    read_series,
    time_column,
    told_shape,
)
from autoscaler.traces.events import Measure
from autoscaler.traces.numerals import check_decimal
from autoscaler.traces.per_vm import PerVmColumns, PerVmTrace, counterfactual, read_per_vm
from autoscaler.traces.query_range import read_answer
from autoscaler.traces.reading import manifest_entry, manifest_interval, trace_name
from autoscaler.traces.shaping import increases
from autoscaler.traces.stamps import TimeForm
from autoscaler.traces.statistics import doubts_of
from autoscaler.traces.tables import Layout
from autoscaler.traces.trace import Float, RowError, Trace, TraceKind, describe_time
from autoscaler.traces.wide import Wide, added, read_wide, vms_of

_DECIMALS = 3
"""Decimals of a Prometheus step in seconds, which has milliseconds."""
_NAMED = 3
DEFAULT_INTERVAL_S = 60.0
"""Interval, in seconds, of traces made from events and log lines, which have none of their own."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read files. Values that are empty or None are taken from the manifest or the file.

    Attributes:
        shape: The contents of the files.
        kind: What the values of a series mean.
        interval_s: Length of an interval in seconds.
        series: Columns of a series or of events.
        per_vm: Columns of a table of single VMs.
        separator, decimal, header, skip: The layout of text (`tables.Layout`).
        time_style, zone: The format of times (`stamps.TimeForm`).
        sort, floor: As for `column_roles.read_series`.
        before: Whether a Prometheus value describes the step that ends at its time. None means that it does if values are
            counts.
        capacity_per_s, saturation, coverage: As for `per_vm.counterfactual`.
        measure: What to derive from events.
        log_format, max_refused, disorder_s: As for `access_logs.read_access_logs`.
        columns: Pattern of the names of the columns of a wide table.
        empty_is_zero: Whether a missing value means that nothing happened.
        counter: Whether values are a cumulative counter, so that their increase is taken.
    """

    shape: Shape | None = None
    kind: TraceKind | None = None
    interval_s: float | None = None
    series: SeriesColumns = field(default_factory=SeriesColumns)
    per_vm: PerVmColumns = field(default_factory=PerVmColumns)
    separator: str = ","
    decimal: str = "."
    header: bool = True
    time_style: str = "auto"
    zone: str = "UTC"
    sort: bool = False
    floor: bool = False
    before: bool | None = None
    capacity_per_s: float = 1.0
    saturation: float = 0.9
    coverage: float = 1.0
    measure: Measure | None = None
    log_format: LogFormat | None = None
    max_refused: float = 0.01
    disorder_s: float = 600.0
    columns: str = "*"
    empty_is_zero: bool = False
    counter: bool = False
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import.

    Attributes:
        trace: The trace.
        shape: The contents of the files.
        notes: Short notes for the user.
        vms: Number of VMs in a table of VMs. 0 for other shapes.
    """

    trace: Trace
    shape: Shape
    notes: tuple[str, ...] = ()
    vms: int = 0


def import_files(paths: Sequence[Path], options: ImportOptions, progress: Progress | None = None) -> Imported:
    """Read a file, or several access logs or files of events as one, into a trace.

    Raises:
        TraceError: The files cannot be used. The message names the place and a remedy.
    """
    if len(options.separator) != 1 or options.separator in '"\r\n':
        raise TraceError(f"the separator must be one character, not {options.separator!r}")
    shape = options.shape or told_shape(
        paths[0], _layout(options, repeats=False), options.series, options.per_vm
    )
    if shape in {Shape.EVENTS, Shape.ACCESS_LOG} and (options.sort or options.floor):
        raise TraceError(f"{paths[0]}: {shape} needs neither --sort nor --floor: order does not matter to it")
    if options.empty_is_zero and shape not in {Shape.SERIES, Shape.WIDE, Shape.CLOUDWATCH}:
        raise TraceError(
            f"{paths[0]}: `--empty zero` is for tables of values and answers of CloudWatch, and this is {shape}; leave it out"
        )
    if options.columns != "*" and shape not in {Shape.WIDE, Shape.WIDE_VMS}:
        raise TraceError(f"{paths[0]}: `--columns` is for wide tables, and this is {shape}; leave it out")
    if options.before is not None and shape is not Shape.PROMETHEUS:
        raise TraceError(
            f"{paths[0]}: --describes is for answers of Prometheus, and this is {shape}; leave it out"
        )
    if options.counter and shape not in {Shape.SERIES, Shape.PROMETHEUS}:
        raise TraceError(
            f"{paths[0]}: `--counter` is for one column of values, and this is {shape}; leave it out"
        )
    found = _read(paths, shape, options, progress)
    if options.counter:
        found = _uncounted(found)
    found = replace(found, notes=(*found.notes, *doubts_of(found.trace)))
    if options.kind not in {None, found.trace.kind}:
        raise TraceError(
            f"{paths[0]}: the resulting trace is a {found.trace.kind}, but --kind says {options.kind}; leave it out, or "
            "give the kind of file with --shape"
        )
    return found


def _read(paths: Sequence[Path], shape: Shape, options: ImportOptions, progress: Progress | None) -> Imported:
    if shape is Shape.ACCESS_LOG:
        return _logs(paths, options, progress)
    if shape is Shape.EVENTS:
        return _events(paths, options, progress)
    if len(paths) > 1:
        raise TraceError(
            f"{paths[1]}: only access logs and events can be imported several files at a time, and {paths[0]} is {shape}; "
            "import each file and join them with `autoscaler trace merge`"
        )
    read = {
        Shape.SERIES: _series,
        Shape.PER_VM: _per_vm,
        Shape.PROMETHEUS: _prometheus,
        Shape.WIDE: _wide,
        Shape.WIDE_VMS: _wide_vms,
        Shape.CLOUDWATCH: _cloudwatch,
    }[shape]
    return read(paths[0], options, progress)


def _uncounted(found: Imported) -> Imported:
    values = found.trace.values
    begun = int((np.diff(values) < 0).sum())
    note = f"the increase of a counter in each interval; it was reset {_many(begun, 'time', 'times')}"
    return replace(found, trace=increases(found.trace), notes=(note,))


def _layout(options: ImportOptions, *, repeats: bool, max_refused: float = 0.0) -> Layout:
    times = TimeForm.build(options.time_style, options.zone, repeats=repeats)
    decimal = check_decimal(options.decimal)
    return Layout(options.separator, options.header, times, decimal, options.skip, max_refused)


def _kind(path: Path, options: ImportOptions) -> TraceKind:
    said = (manifest_entry(path) or {}).get("kind", "")
    if options.counter:  # a counter is a level until its increase is taken
        return TraceKind.GAUGE
    if options.kind is not None:
        return options.kind
    if said in set(TraceKind):
        return TraceKind(said)
    raise TraceError(
        f"{path}: say whether the values are counts (work in the interval) or a gauge (a level): `--kind`"
    )


def _series(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    said = manifest_entry(path) or {}
    kind = _kind(path, options)
    interval_s = options.interval_s
    if interval_s is None and said.get("interval_s"):
        interval_s = manifest_interval(path, said["interval_s"])
    trace, empty = read_series(
        path,
        kind=kind,
        columns=options.series,
        layout=_layout(options, repeats=False),
        interval_s=interval_s,
        sort=options.sort,
        floor=options.floor,
        empty_is_zero=options.empty_is_zero,
        progress=progress,
    )
    cells = _many(empty, "empty cell", "empty cells")
    told = (
        f"{cells}: taken as 0 (`--empty`)"
        if options.empty_is_zero
        else f"{cells}: unknown (`--empty zero` takes them as 0)"
    )
    return Imported(trace, Shape.SERIES, (told,) if empty else ())


@contextmanager
def _placed(path: Path, stamps: Float) -> Iterator[None]:
    """Add the file, and the time of the faulty value, to errors."""
    try:
        yield
    except RowError as error:
        raise TraceError(f"{path}: at {describe_time(float(stamps[error.row]))}: {error}") from None
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def _prometheus(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    kind = _kind(path, options)
    stamps, values, unknown = read_answer(path, progress)
    if len(stamps) < 2:
        raise TraceError(f"{path}: it holds {len(stamps)} values, but a trace needs at least two")
    step_s = options.interval_s or round(float(np.min(np.diff(stamps))), _DECIMALS)
    before = kind is TraceKind.COUNT if options.before is None else options.before
    with _placed(path, stamps):
        trace = Trace.build(
            stamps - (step_s if before else 0.0), values, kind=kind, name=trace_name(path), interval_s=step_s
        )
    moved = (
        "that ends at its time, so times were moved back by one step" if before else "that begins at its time"
    )
    notes = [f"each value is taken to describe the step {moved} (`--describes`)"]
    if unknown:
        notes.append(f"{unknown} values were not numbers and stay unknown")
    return Imported(trace, Shape.PROMETHEUS, tuple(notes))


def _cloudwatch(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    kind = _kind(path, options)
    stamps, values, what = read_cloudwatch(path, options.series.value, progress)
    step_s = options.interval_s or round(float(np.min(np.diff(stamps))), _DECIMALS)
    name = trace_name(path)
    with _placed(path, stamps):
        trace = Trace.build(stamps, values, kind=kind, name=name, interval_s=step_s)
        if trace.missing and options.empty_is_zero:
            grid = np.arange(round((stamps[-1] - stamps[0]) / step_s) + 1) * step_s + stamps[0]
            filled = np.zeros(len(grid))
            filled[np.round((stamps - stamps[0]) / step_s).astype(np.int64)] = values
            trace = Trace.build(grid, filled, kind=kind, name=name, interval_s=step_s)
    notes = [f"values are {what}"]
    missing = len(trace.values) - len(values) or trace.missing
    if missing:
        periods = _many(missing, "period", "periods")
        notes.append(
            f"{periods} without a datapoint: taken as 0 (`--empty`)"
            if options.empty_is_zero
            else f"{periods} without a datapoint: unknown; use `--empty zero` if the metric exists only while "
            "something happens"
        )
    return Imported(trace, Shape.CLOUDWATCH, tuple(notes))


def _read_wide(path: Path, options: ImportOptions, progress: Progress | None) -> Wide:
    return read_wide(
        path,
        time_column(options.series.time),
        options.columns,
        _layout(options, repeats=False),
        progress,
        interval_s=options.interval_s,
        sort=options.sort,
        floor=options.floor,
    )


def _wide(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    kind = _kind(path, options)
    wide = _read_wide(path, options, progress)
    found = added(wide, kind, interval_s=options.interval_s, empty_is_zero=options.empty_is_zero)
    notes = [f"the sum of {_listed(wide.parts)}"]
    if found.empty and options.empty_is_zero:
        notes.append(f"{_many(found.empty, 'empty cell is', 'empty cells are')} taken as 0 (`--empty`)")
    elif found.empty:
        notes.append(
            f"{_many(found.left_out, 'interval stays', 'intervals stay')} unknown, since "
            f"{_many(found.empty, 'cell is', 'cells are')} empty between the first and the last "
            "value of their column; use `--empty zero` if nothing is recorded while nothing happens"
        )
    return Imported(found.trace, Shape.WIDE, tuple(notes))


def _many(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _listed(parts: Sequence[str]) -> str:
    named = ", ".join(parts[:_NAMED])
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return f"{len(parts)} column{'s' if len(parts) != 1 else ''} ({named}{more})"


def _wide_vms(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    if options.per_vm.capacity:
        raise TraceError(f"{path}: a wide table has no column of capacities; give `--capacity` for all VMs")
    wide = _read_wide(path, options, progress)
    table = vms_of(wide, options.per_vm.full_at, interval_s=options.interval_s)
    return replace(_of_vms(table, options), shape=Shape.WIDE_VMS)


def _per_vm(path: Path, options: ImportOptions, progress: Progress | None) -> Imported:
    table = read_per_vm(
        path,
        options.per_vm,
        _layout(options, repeats=True),
        progress,
        interval_s=options.interval_s,
        sort=options.sort,
        floor=options.floor,
    )
    return _of_vms(table, options)


def _of_vms(table: PerVmTrace, options: ImportOptions) -> Imported:
    found = counterfactual(
        table, options.capacity_per_s, saturation=options.saturation, coverage=options.coverage
    )
    unit = "work per second" if options.capacity_per_s != 1 or options.per_vm.capacity else "fully used VMs"
    notes = [f"demand in {unit}: utilisation × capacity, summed over the {found.vms} VMs"]
    rows = len(found.trace.values)
    notes.append(
        f"{found.censored} of {rows} intervals ({found.censored / rows:.1%}) are censored: mean utilisation reached "
        f"{options.saturation:.0%}, so demand may have been more"
    )
    notes += _odd_scale(table, options.per_vm.full_at)
    if found.filled:
        notes.append(
            f"in {found.filled} intervals, VMs without a row count with the mean of the others (coverage of at least "
            f"{options.coverage:.0%})"
        )
    if found.left_out:
        notes.append(
            f"{found.left_out} intervals stay unknown, since fewer than {options.coverage:.0%} of the VMs have a row; "
            "`--coverage` lowers that"
        )
    return Imported(found.trace, Shape.PER_VM, tuple(notes), found.vms)


def _odd_scale(table: PerVmTrace, full_at: float) -> list[str]:
    """Return a doubt about the unit if VMs seem to be almost unused, or used to more than 100 %."""
    highest = float(np.nanmax(table.cpu_percent, initial=0.0)) / 100.0
    told = f"the highest utilisation is {highest * full_at:.3g}, with {full_at:g} for a fully used VM"
    if 0 < highest <= 0.01:
        return [f"{told}: if these are shares rather than per cent, use `--full-at {full_at / 100:g}`"]
    if highest > 1.5:
        return [
            f"{told}: if it is the sum over several processors, give the value for all of them with `--full-at`"
        ]
    return []


def _events(paths: Sequence[Path], options: ImportOptions, progress: Progress | None) -> Imported:
    trace, measure, tables = read_events(
        paths,
        interval_s=options.interval_s or DEFAULT_INTERVAL_S,
        measure=options.measure,
        columns=options.series,
        layout=_layout(options, repeats=True, max_refused=options.max_refused),
        progress=progress,
    )
    what = {
        Measure.COUNT: "how many began in each interval",
        Measure.CONCURRENCY: "how many were in progress, averaged over each interval",
    }[measure]
    files = f" in {len(tables)} files" if len(tables) > 1 else ""
    notes = [f"{sum(table.rows for table in tables):,} events{files}; values are {what} (`--measure`)"]
    if len(tables) > 1 and trace.missing:
        notes.append(f"{_many(trace.missing, 'interval', 'intervals')} between the files are unknown")
    return Imported(trace, Shape.EVENTS, (*notes, *(note for table in tables for note in table.notes)))


def _logs(paths: Sequence[Path], options: ImportOptions, progress: Progress | None) -> Imported:
    trace, found = read_access_logs(
        paths,
        options.interval_s or DEFAULT_INTERVAL_S,
        log_format=options.log_format,
        max_refused=options.max_refused,
        disorder_s=options.disorder_s,
        zone=TimeForm.build(zone=options.zone).zone,
        progress=progress,
    )
    return Imported(trace, Shape.ACCESS_LOG, tuple(access_logs.notes(found, trace)))
