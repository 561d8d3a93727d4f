"""`trace info`, `trace cut` and `trace merge`: inspects traces, and makes traces from traces.

Rules of this file: presentation only; `traces` interprets the files. A file is written completely or not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import JSON, MANIFEST, NEW_TRACE, OVERWRITE, TRACE_KIND
from autoscaler.cli.output import errors_in_words, moment, print_json, seconds

if TYPE_CHECKING:
    from autoscaler.traces.importing import Imported
    from autoscaler.traces.statistics import Statistics
    from autoscaler.traces.trace import Trace, TraceKind

_WIDE = 110
"""Width of a terminal, in columns, from which the table shows all figures."""


def kind_of(text: str | None) -> TraceKind | None:
    """Parse an option value count or gauge.

    Raises:
        BadParameter: The text is neither.
    """
    from autoscaler.traces.trace import TraceKind

    if text is None or text in set(TraceKind):
        return None if text is None else TraceKind(text)
    raise typer.BadParameter(f"{text!r} is not a kind; write count or gauge")


def info(
    files: Annotated[
        list[Path], typer.Argument(help="Traces, or files that could be imported.", metavar="FILE…")
    ],
    kind: TRACE_KIND = None,
    as_json: JSON = False,
) -> None:
    """Describe files: extent, gaps, level, burstiness, daily rhythm, and what to beware of."""
    from autoscaler.cli.progress import Bar

    with errors_in_words("trace info"):
        given = kind_of(kind)
        with Bar("reading") as bar:
            told = []
            for number, path in enumerate(files):
                told.append(_described(path, given, lambda part, at=number: bar((at + part) / len(files))))
    if as_json:
        print_json(told)
    elif len(told) == 1:
        _show_one(told[0])
    else:
        _show_many(told)


def _described(path: Path, kind: TraceKind | None, progress: Any) -> dict[str, Any]:
    from autoscaler.errors import TraceError
    from autoscaler.traces.column_roles import Shape, told_shape
    from autoscaler.traces.importing import ImportOptions, import_files
    from autoscaler.traces.reading import manifest_entry
    from autoscaler.traces.tables import Layout
    from autoscaler.traces.trace import TraceKind

    shape = told_shape(path, Layout())
    said = (manifest_entry(path) or {}).get("kind")
    told_by_kind = shape in {Shape.SERIES, Shape.PROMETHEUS, Shape.CLOUDWATCH, Shape.WIDE}
    unsaid = told_by_kind and kind is None and said not in set(TraceKind)
    meant = TraceKind.GAUGE if unsaid else kind if told_by_kind else None
    options = ImportOptions(shape=shape, kind=meant)
    try:
        found = import_files([path], options, progress)
    except TraceError as error:
        text = str(error)
        if re.search(r"`--(?!kind)\w", text) and "trace import" not in text:
            text += "; these are options of `autoscaler trace import`"
        raise TraceError(text) from None
    return _facts(path, found, unsaid=unsaid)


def _facts(path: Path, found: Imported, *, unsaid: bool) -> dict[str, Any]:
    from autoscaler.traces.statistics import QUANTILES, statistics_of, warnings_of

    trace = found.trace
    told: Statistics = statistics_of(trace)
    warnings = warnings_of(trace, told)
    if unsaid:
        warnings.insert(
            0, "Nothing says whether the values are counts or a gauge; say --kind where it is used."
        )
    longest = told.longest_gap
    return {
        "file": str(path),
        "shape": str(found.shape),
        "kind": None if unsaid else str(trace.kind),
        "interval_s": trace.interval_s,
        "start": _time(trace.start_s),
        "end": _time(trace.end_s),
        "span_s": trace.end_s - trace.start_s,
        "rows": told.rows,
        "vms": found.vms or None,
        "gaps": len(told.gaps),
        "missing": told.missing,
        "longest_gap": longest and {"start": _time(longest.start_s), "intervals": longest.intervals},
        "gap_starts": [_time(gap.start_s) for gap in told.gaps[:20]],
        "mean": told.mean,
        "peak": told.peak,
        "peak_to_mean": told.peak_to_mean,
        "quantiles": {f"{level:g}": value for level, value in zip(QUANTILES, told.quantiles, strict=True)},
        "zero_share": told.zeros,
        "variation": told.variation,
        "dispersion": told.dispersion,
        "daily_correlation": told.daily,
        "censored": told.censored,
        "digest": None if unsaid else trace.digest,
        "notes": list(found.notes),
        "warnings": warnings,
    }


def _show_one(one: dict[str, Any]) -> None:
    say = typer.echo
    shape = one["shape"] if one["shape"] != "series" else ""
    say(f"{one['file']}: {one['kind'] or 'kind unknown'}{f' made from {shape}' if shape else ''}")
    say(f"  span        {one['start']} to {one['end']} ({_span(one['span_s'])})")
    say(f"  interval    {_span(one['interval_s'])}, {one['rows']:,} rows")
    gaps = "none"
    if one["gaps"]:
        longest = one["longest_gap"]
        gaps = (
            f"{one['gaps']} with {one['missing']:,} intervals; the longest {longest['intervals']:,} from "
            f"{longest['start']}; they begin at {', '.join(one['gap_starts'][:5])}{' …' if one['gaps'] > 5 else ''}"
        )
    say(f"  gaps        {gaps}")
    if one["vms"]:
        say(f"  VMs         {one['vms']}")
    say(
        f"  level       mean {_number(one['mean'])}, peak {_number(one['peak'])}, peak to mean {_number(one['peak_to_mean'])}"
    )
    quantiles = ", ".join(f"{float(level):.0%} {_number(value)}" for level, value in one["quantiles"].items())
    say(f"  quantiles   {quantiles}; {one['zero_share']:.1%} of the values are 0")
    say(
        f"  burstiness  CV {_number(one['variation'])}, IDC {_number(one['dispersion'])}, "
        f"r24 {_number(one['daily_correlation'])}"
    )
    if one["censored"]:
        say(f"  censored    {one['censored']:,} of {one['rows']:,} intervals are lower bounds")
    say(f"  digest      {one['digest'] or 'depends on the kind'}")
    for text in one["notes"]:
        say(f"  {text}")
    for text in one["warnings"]:
        say(f"  beware: {text}")


def _show_many(told: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from autoscaler.traces.reading import trace_name

    console = Console()
    wide = console.width >= _WIDE
    names = ["mean", "peak_to_mean", "variation", "daily_correlation"]
    heads = ["every", "span", "gaps", "mean", "p/m", "CV", "r24"]
    if wide:
        names += ["dispersion", "peak", "rows"]
        heads += ["IDC", "peak", "rows"]
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("file", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for one in told:
        table.add_row(
            trace_name(Path(one["file"])),
            one["kind"] or "?",
            _span(one["interval_s"]),
            _span(one["span_s"]),
            _short(one["missing"]),
            *(_short(one[name]) for name in names),
        )
    console.print(table)
    for one in told:
        for text in one["warnings"]:
            typer.echo(f"{Path(one['file']).name}: {text}")


def cut(
    source: Annotated[Path, typer.Argument(help="The trace.", metavar="IN")],
    out: NEW_TRACE,
    from_s: Annotated[
        float | None, typer.Option("--from", parser=moment, help="Keep from this time on.", metavar="TIME")
    ] = None,
    to_s: Annotated[
        float | None,
        typer.Option("--to", parser=moment, help="Keep up to this time, exclusive.", metavar="TIME"),
    ] = None,
    every_s: Annotated[
        float | None,
        typer.Option(
            "--every",
            parser=seconds,
            help="A longer interval: counts are added, gauges averaged, and incomplete intervals become gaps.",
            metavar="DURATION",
        ),
    ] = None,
    kind: TRACE_KIND = None,
    force: OVERWRITE = False,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Write part of a trace, or the trace in longer intervals."""
    with errors_in_words("trace cut"):
        check_out(out, force=force, manifest=manifest)
        trace = _read(source, kind)
        if from_s is not None or to_s is not None:
            trace = trace.cut(-math.inf if from_s is None else from_s, math.inf if to_s is None else to_s)
        if every_s is not None:
            from autoscaler.traces.shaping import resample

            trace = resample(trace, every_s)
        write(out, trace, force=force, manifest=manifest, as_json=as_json)


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Traces of the same kind and interval, then the output file.", metavar="A B… OUT"
        ),
    ],
    kind: TRACE_KIND = None,
    force: OVERWRITE = False,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Join recordings of the same demand; overlaps must agree, and gaps stay gaps."""
    *sources, out = files
    if len(sources) < 2:
        raise typer.BadParameter(
            "name at least two traces, and then the file to write", param_hint="A B… OUT"
        )
    with errors_in_words("trace merge"):
        from autoscaler.traces import shaping

        check_out(out, force=force, manifest=manifest)
        joined = shaping.merge([_read(path, kind) for path in sources], name=out.name)
        write(out, joined, force=force, manifest=manifest, as_json=as_json)


def _read(path: Path, kind: str | None) -> Trace:
    from autoscaler.cli.progress import Bar
    from autoscaler.traces.reading import read_trace

    with Bar(f"reading {path.name}") as bar:
        return read_trace(path, kind=kind_of(kind), progress=bar)


def check_out(out: Path, sources: Sequence[Path] = (), *, force: bool, manifest: bool) -> None:
    """Check that a trace can be written, before its sources are read, which may take an hour.

    Args:
        out: The trace to write.
        sources: Files it is made from; they are never overwritten.
        force: Whether another existing file may be replaced.
        manifest: Whether its kind will be recorded in the manifest beside it.

    Raises:
        TraceError: The file, or its entry in the manifest, cannot be written.
    """
    from autoscaler.errors import TraceError
    from autoscaler.traces.manifest import read_manifest
    from autoscaler.traces.writing import ending_of

    ending_of(out)
    if any(out.exists() and source.exists() and out.samefile(source) for source in sources):
        raise TraceError(f"{out}: this is an input of the trace and was left alone; give another name")
    if out.exists() and not force:
        raise TraceError(f"{out}: the file already exists and was left alone; give another name or --force")
    if manifest:
        try:
            read_manifest(out)
        except TraceError as error:
            raise TraceError(
                f"{error}; nothing was written. Give {out.name} another folder, or --no-manifest"
            ) from None


def write(
    out: Path, trace: Trace, *, force: bool, manifest: bool, as_json: bool = False, notes: Any = ()
) -> None:
    """Write a trace and describe it, for people or for programs.

    Raises:
        TraceError: It cannot be written.
    """
    from autoscaler.cli.progress import Bar
    from autoscaler.traces.manifest import note_in_manifest
    from autoscaler.traces.reading import manifest_entry
    from autoscaler.traces.writing import kind_note, write_trace

    with Bar(f"writing {out.name}") as bar:
        write_trace(out, trace, overwrite=force, progress=bar)
    # The manifest may describe an earlier file of this name, so an existing entry is replaced in any case.
    noted = manifest or manifest_entry(out) is not None
    if noted:
        note_in_manifest(out, trace)
    if as_json:
        facts = {
            "file": str(out), "kind": str(trace.kind), "interval_s": trace.interval_s, "start": _time(trace.start_s),
            "end": _time(trace.end_s), "rows": len(trace.values), "missing": trace.missing,
            "censored": int(trace.censored.sum()), "digest": trace.digest, "notes": list(notes),
        }  # fmt: skip
        typer.echo(json.dumps({"version": FORM, **facts}, indent=2))
        return
    typer.echo(
        f"{out}: {trace.kind}, {len(trace.values):,} rows every {_span(trace.interval_s)} from {_time(trace.start_s)} "
        f"to {_time(trace.end_s)}, {trace.missing:,} missing"
    )
    for text in notes:
        typer.echo(f"  {text}")
    typer.echo(f"  digest {trace.digest}")
    if not noted:
        typer.echo(f"  {kind_note(out, trace)}")


def _time(at_s: float) -> str:
    from autoscaler.traces.trace import describe_time

    return describe_time(at_s)


def _span(length_s: float) -> str:
    """Return a length of time in the largest unit that fits."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if length_s >= size:
            return f"{length_s / size:.4g}{unit}"
    return f"{length_s:.4g}s"


def _short(value: float) -> str:
    """Return a number with at most three digits, and a letter for thousands."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if 0.9995 * size <= abs(value) < 1e12:
            return f"{value / size:.3g}{letter}"
    return "-" if math.isnan(value) else f"{value:.2f}" if abs(value) < 10 and value % 1 else f"{value:.3g}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e12 else f"{value:.3g}"
