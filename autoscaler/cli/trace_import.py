"""`trace import`: makes a trace from a file in another format, or from a Prometheus' history.

Rules of this file: options and messages only; `traces` and `sources` do the reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autoscaler.cli.options import JSON, MANIFEST, OVERWRITE, TRACE_KIND
from autoscaler.cli.output import errors_in_words, moment_or_ago, seconds, share, since_epoch
from autoscaler.cli.trace import (
    check_out,
    kind_of,
    write,
)

if TYPE_CHECKING:
    from autoscaler.traces.trace import Trace

_PROMETHEUS = "From a Prometheus"
_TEXT = "How the text is written"
_VMS = "Tables of single VMs"
_LOGS = "Access logs"


def import_trace(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The file (several of access logs or events), then the trace to write.",
            metavar="SOURCE… OUT",
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(
            help="What the file holds (default: detected).",
            metavar="series|wide|per-vm|wide-vms|events|access-log|prometheus|cloudwatch",
        ),
    ] = None,
    kind: TRACE_KIND = None,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval",
            parser=seconds,
            help="Length of an interval (events and logs: 1m).",
            metavar="DURATION",
        ),
    ] = None,
    time: Annotated[
        str,
        typer.Option(
            help="Column of times; two columns if the date is in one of its own: 'date time'.",
            metavar="COLUMN",
        ),
    ] = "",
    value: Annotated[
        str, typer.Option(help="Column of values; for CloudWatch, a statistic or an Id.", metavar="COLUMN")
    ] = "",
    columns: Annotated[
        str,
        typer.Option(help="Columns of a wide table to take, such as 'requests *'.", metavar="PATTERN"),
    ] = "*",
    empty: Annotated[
        Literal["unknown", "zero"],
        typer.Option(
            help="Meaning of an empty cell, or of a CloudWatch period without a value; zero only if nothing is "
            "recorded when nothing happens."
        ),
    ] = "unknown",
    counter: Annotated[
        bool,
        typer.Option("--counter", help="Values are a running total: take its increase over each interval."),
    ] = False,
    duration: Annotated[
        str, typer.Option(help="Column of durations of events, in seconds.", metavar="COLUMN")
    ] = "",
    measure: Annotated[
        str | None,
        typer.Option(
            help="What to derive from events; concurrency if they have durations.",
            metavar="count|concurrency",
        ),
    ] = None,
    sort: Annotated[bool, typer.Option("--sort", help="Sort rows that are not in time order.")] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="Move each time to the start of its --interval.")
    ] = False,
    separator: Annotated[
        str, typer.Option(help="Column separator; `tab` for tabs.", rich_help_panel=_TEXT)
    ] = ",",
    decimal: Annotated[
        str,
        typer.Option(
            help="Decimal separator: a point, or a comma as in 3,14.",
            metavar=".|,",
            rich_help_panel=_TEXT,
        ),
    ] = ".",
    no_header: Annotated[
        bool,
        typer.Option(
            "--no-header", help="The first line is data; columns are 1, 2 and so on.", rich_help_panel=_TEXT
        ),
    ] = False,
    skip: Annotated[
        int, typer.Option(min=0, help="Lines before the header.", metavar="LINES", rich_help_panel=_TEXT)
    ] = 0,
    time_format: Annotated[
        str,
        typer.Option(
            help="auto (ISO 8601 or epoch seconds), iso, s, ms, us, ns, or a pattern such as %d/%m/%Y %H:%M.",
            rich_help_panel=_TEXT,
        ),
    ] = "auto",
    zone: Annotated[
        str,
        typer.Option(
            help="Time zone of times without an offset, such as Europe/Berlin.", rich_help_panel=_TEXT
        ),
    ] = "UTC",
    vm: Annotated[
        str, typer.Option(help="Column of VM names.", metavar="COLUMN", rich_help_panel=_VMS)
    ] = "vm",
    utilisation: Annotated[
        str, typer.Option(help="Column of utilisation.", metavar="COLUMN", rich_help_panel=_VMS)
    ] = "cpu_percent",
    full_at: Annotated[
        float,
        typer.Option(help="Utilisation of a fully used VM.", min=1e-9, rich_help_panel=_VMS),
    ] = 100.0,
    capacity: Annotated[
        float,
        typer.Option(
            help="Work per second of one VM; 1 gives demand in fully used VMs.",
            min=1e-9,
            rich_help_panel=_VMS,
        ),
    ] = 1.0,
    capacity_column: Annotated[
        str,
        typer.Option(
            help="Column of each VM's own capacity, times --capacity.", metavar="COLUMN", rich_help_panel=_VMS
        ),
    ] = "",
    saturation: Annotated[
        float,
        typer.Option(
            parser=share,
            help="Mean utilisation above which demand counts as hidden.",
            metavar="SHARE",
            rich_help_panel=_VMS,
        ),
    ] = 0.9,
    coverage: Annotated[
        float,
        typer.Option(
            parser=share,
            help="Smallest share of the VMs that must have a row.",
            metavar="SHARE",
            rich_help_panel=_VMS,
        ),
    ] = 1.0,
    log_format: Annotated[
        str | None,
        typer.Option(
            help="Format of the log lines (default: detected); combined counts as common.",
            metavar="common|haproxy|w3c|alb",
            rich_help_panel=_LOGS,
        ),
    ] = None,
    max_refused: Annotated[
        float,
        typer.Option(
            parser=share,
            help="Largest share of lines that may be unreadable; also for events in JSON lines.",
            metavar="SHARE",
            rich_help_panel=_LOGS,
        ),
    ] = 0.01,
    disorder_s: Annotated[
        float,
        typer.Option(
            "--disorder",
            parser=seconds,
            help="How much earlier a line may be than those before it.",
            metavar="DURATION",
            rich_help_panel=_LOGS,
        ),
    ] = 600.0,
    prometheus: Annotated[
        str | None,
        typer.Option(
            help="Query this Prometheus instead of reading a file.",
            metavar="URL",
            rich_help_panel=_PROMETHEUS,
        ),
    ] = None,
    query: Annotated[
        str,
        typer.Option(
            help="PromQL query that returns one series.", metavar="PROMQL", rich_help_panel=_PROMETHEUS
        ),
    ] = "",
    start_s: Annotated[
        float | None,
        typer.Option(
            "--start",
            parser=moment_or_ago,
            help="From then on: 7d (ago) or a moment.",
            metavar="TIME",
            rich_help_panel=_PROMETHEUS,
        ),
    ] = None,
    end_s: Annotated[
        float | None,
        typer.Option(
            "--end",
            parser=moment_or_ago,
            help="End, in the same form (default: now).",
            metavar="TIME",
            rich_help_panel=_PROMETHEUS,
        ),
    ] = None,
    step_s: Annotated[
        float,
        typer.Option(
            "--step",
            parser=seconds,
            help="Time between values.",
            metavar="DURATION",
            rich_help_panel=_PROMETHEUS,
        ),
    ] = 60.0,
    describes: Annotated[
        str | None,
        typer.Option(
            help="Which step a value describes: before for counts and queries over a range, else after. A file does not "
            "tell its query: say before where that was one of a rate or another range.",
            metavar="before|after",
            rich_help_panel=_PROMETHEUS,
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token.", rich_help_panel=_PROMETHEUS)
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="CA certificates to trust instead of the system's.", rich_help_panel=_PROMETHEUS),
    ] = None,
    force: OVERWRITE = False,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Make a trace from a table, events, VM utilisation, logs, or a response of Prometheus or CloudWatch."""
    *sources, out = files
    if bool(sources) == bool(prometheus):
        raise typer.BadParameter(
            "name the source and the file to write, or --prometheus and the file to write",
            param_hint="SOURCE… OUT",
        )
    with errors_in_words("trace import"):
        check_out(out, sources, force=force, manifest=manifest)
        if prometheus:
            if not query or start_s is None:
                raise typer.BadParameter("--prometheus needs --query and --start")
            when = _when(start_s, end_s, step_s)
            trace, notes = _from_prometheus(
                _asked(prometheus, query, when, kind, describes), token_file, ca_file
            )
        else:
            options = _options(
                shape=shape, kind=kind, interval_s=interval_s, time=time, value=value, duration=duration,
                measure=measure, sort=sort, floor=floor, separator=separator, decimal=decimal,
                no_header=no_header, time_format=time_format, zone=zone, vm=vm, utilisation=utilisation, full_at=full_at,
                capacity=capacity, capacity_column=capacity_column, saturation=saturation, coverage=coverage,
                log_format=log_format, max_refused=max_refused, disorder_s=disorder_s, describes=describes,
                columns=columns, empty=empty, skip=skip, counter=counter,
            )  # fmt: skip
            trace, notes = _from_files(sources, options)
        write(out, trace, force=force, manifest=manifest, as_json=as_json, notes=notes)


def _one_of(enum: Any, text: str | None, option: str) -> Any:
    if text is None or text in set(enum):
        return None if text is None else enum(text)
    raise typer.BadParameter(f"{text!r} is none of {', '.join(enum)}", param_hint=option)


def _options(**given: Any) -> Any:
    from autoscaler.traces.access_logs import LogFormat
    from autoscaler.traces.column_roles import SeriesColumns, Shape
    from autoscaler.traces.events import Measure
    from autoscaler.traces.importing import ImportOptions
    from autoscaler.traces.per_vm import PerVmColumns

    separator = {"tab": "\t", "\\t": "\t"}.get(given["separator"], given["separator"])
    return ImportOptions(
        shape=_one_of(Shape, given["shape"], "--shape"),
        kind=kind_of(given["kind"]),
        interval_s=given["interval_s"],
        series=SeriesColumns(given["time"], given["value"], given["duration"]),
        per_vm=PerVmColumns(
            given["time"] or "timestamp",
            given["vm"],
            given["utilisation"],
            given["capacity_column"],
            given["full_at"],
        ),
        separator=separator,
        decimal=given["decimal"],
        header=not given["no_header"],
        time_style=given["time_format"],
        zone=given["zone"],
        sort=given["sort"],
        floor=given["floor"],
        before=_before(given["describes"]),
        capacity_per_s=given["capacity"],
        saturation=given["saturation"],
        coverage=given["coverage"],
        measure=_one_of(Measure, given["measure"], "--measure"),
        log_format=_one_of(LogFormat, given["log_format"], "--log-format"),
        max_refused=given["max_refused"],
        disorder_s=given["disorder_s"],
        columns=given["columns"],
        empty_is_zero=given["empty"] == "zero",
        skip=given["skip"],
        counter=given["counter"],
    )


def _before(describes: str | None) -> bool | None:
    if describes is None:
        return None
    from autoscaler.sources.prometheus_range import Describes

    return bool(_one_of(Describes, describes, "--describes") is Describes.BEFORE)


def _from_files(sources: list[Path], options: Any) -> tuple[Trace, list[str]]:
    from autoscaler.cli.progress import Bar
    from autoscaler.traces.importing import import_files

    with Bar(f"reading {sources[0].name}") as bar:
        found = import_files(sources, options, bar)
    return found.trace, list(found.notes)


def _when(start_s: float, end_s: float | None, step_s: float) -> tuple[float, float, float]:
    """Return start, end and step of a query, the first two in epoch seconds. The default end is the last whole step."""
    from autoscaler.clock import SystemClock

    now_s = SystemClock().now()
    return since_epoch(start_s, now_s, now_s), since_epoch(end_s, now_s, now_s // step_s * step_s), step_s


def _asked(
    url: str, query: str, when: tuple[float, float, float], kind: str | None, describes: str | None
) -> Any:
    from autoscaler.errors import TraceError
    from autoscaler.sources.prometheus_range import Describes, RangeQuery

    told = kind_of(kind)
    if told is None:
        raise TraceError(
            "say what the query gives: counts (work in each step) or a gauge (a level): `--kind`"
        )
    return RangeQuery(url, query, *when, told, _one_of(Describes, describes, "--describes"))


def _from_prometheus(asked: Any, token_file: Path | None, ca_file: Path | None) -> tuple[Trace, list[str]]:
    import asyncio

    from autoscaler.cli.progress import Bar
    from autoscaler.clock import SystemClock
    from autoscaler.sources.prometheus_range import Access, read_range

    with Bar("asking Prometheus") as bar:
        return asyncio.run(read_range(asked, Access(token_file, ca_file), SystemClock(), bar))
