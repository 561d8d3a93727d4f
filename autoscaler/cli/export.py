"""`export`: what a daemon measured and did, from the journal to a file for other programs and replays.

Exit codes: 0 written, 1 not written (no journal, an unknown fleet, no data in that time, or the file exists), 2 wrong
usage. Notes about what the file lacks go to standard error. A failure leaves no file.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from autoscaler.cli.json_keys import FORM
from autoscaler.cli.options import FLEET, JSON, MANIFEST, OVERWRITE, STATE_DIR
from autoscaler.cli.output import errors_in_words, moment_or_ago, seconds, since_epoch, unknown_word, utc
from autoscaler.cli.trace import check_out

if TYPE_CHECKING:
    from autoscaler.store import JournalReader


class What(StrEnum):
    """The data to export."""

    DEMAND = "demand"
    TIMELINE = "timeline"


def export(
    fleet: FLEET,
    out: Annotated[Path, typer.Argument(help="File to write: .csv, .csv.gz or .parquet.", metavar="FILE")],
    from_s: Annotated[
        float | None,
        typer.Option(
            "--from",
            parser=moment_or_ago,
            help="Start: 7d (ago) or a time (default: everything).",
            metavar="TIME",
        ),
    ] = None,
    to_s: Annotated[
        float | None,
        typer.Option("--to", parser=moment_or_ago, help="End, in the same form.", metavar="TIME"),
    ] = None,
    what: Annotated[
        What,
        typer.Option(help="demand: a trace of measured demand; timeline: one row per tick of what was done."),
    ] = What.DEMAND,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval",
            parser=seconds,
            help="Interval of the trace (default: a tick).",
            metavar="DURATION",
        ),
    ] = None,
    kind: Annotated[
        Literal["count", "gauge"] | None,
        typer.Option(
            help="Kind of the values: count, the work since the tick before (default); gauge, work per second at the tick. A replay "
            "of counts is as short as it really was.",
            show_default=False,
        ),
    ] = None,
    force: OVERWRITE = False,
    state_dir: STATE_DIR = None,
    manifest: MANIFEST = True,
    as_json: JSON = False,
) -> None:
    """Write a fleet's demand as a trace, or its timeline, from the journal to a file."""
    from autoscaler.clock import SystemClock
    from autoscaler.errors import JournalError
    from autoscaler.settings import load_settings
    from autoscaler.store import JournalReader

    if what is What.TIMELINE and interval_s is not None:
        raise typer.BadParameter(
            "a timeline has one row per tick; leave this option out", param_hint="--interval"
        )
    if what is What.TIMELINE and kind is not None:
        raise typer.BadParameter(
            "a timeline has columns of its own; leave this option out", param_hint="--kind"
        )
    with errors_in_words("export"):
        directory = load_settings(state_dir=state_dir).state_dir
        now_s = SystemClock().now()
        span = since_epoch(from_s, now_s, float("-inf")), since_epoch(to_s, now_s, float("inf"))
        with JournalReader(directory) as reader:
            covered = reader.span(fleet)
            if covered is None:
                where = f"the journal in {directory}"
                raise JournalError(unknown_word(fleet, reader.fleets_ever(), "fleet", where))
            if covered[1] < span[0] or covered[0] >= span[1]:
                raise JournalError(
                    f"the journal in {directory} has nothing of fleet {fleet} in this time; it has {utc(covered[0])} to "
                    f"{utc(covered[1])}"
                )
            if what is What.DEMAND:
                check_out(out, force=force, manifest=manifest)
                form = interval_s, kind or "count"
                facts, notes = _demand(reader, fleet, out, span, form, force=force, manifest=manifest)
            else:
                facts, notes = _timeline(reader, fleet, out, span, force=force)
        if as_json:
            typer.echo(
                json.dumps(
                    {
                        "version": FORM,
                        "fleet": fleet,
                        "file": str(out),
                        "what": str(what),
                        **facts,
                        "notes": notes,
                    }
                )
            )
            return
        typer.echo(f"{out}: {facts['rows']:,} rows of fleet {fleet}, {facts['from']} to {facts['to']}")
        for note in notes:
            typer.echo(f"export: {note}", err=True)


def _demand(
    reader: JournalReader,
    fleet: str,
    out: Path,
    span: tuple[float, float],
    form: tuple[float | None, Literal["count", "gauge"]],
    *,
    force: bool,
    manifest: bool,
) -> tuple[dict[str, object], list[str]]:
    from autoscaler.simulator.replay.exporting import demand_trace
    from autoscaler.traces.manifest import note_in_manifest
    from autoscaler.traces.reading import manifest_entry
    from autoscaler.traces.trace import TraceKind
    from autoscaler.traces.writing import kind_note, write_trace

    found = demand_trace(fleet, reader.each_tick(fleet, *span), form[0], TraceKind(form[1]))
    write_trace(out, found.trace, overwrite=force)
    trace = found.trace
    # The manifest may describe an earlier file of this name, so an existing entry is replaced in any case.
    noted = manifest or manifest_entry(out) is not None
    if noted:
        note_in_manifest(out, trace)
    facts: dict[str, object] = {
        "rows": len(trace.values),
        "from": utc(trace.start_s),
        "to": utc(trace.end_s),
        "kind": str(trace.kind),
        "interval_s": trace.interval_s,
        "ticks": found.ticks,
        "unknown_ticks": found.unknown,
        "gap_intervals": trace.missing,
        "censored_rows": int(trace.censored.sum()),
        "digest": trace.digest,
    }
    return facts, [*found.notes, *([] if noted else [kind_note(out, trace)])]


def _timeline(
    reader: JournalReader,
    fleet: str,
    out: Path,
    span: tuple[float, float],
    *,
    force: bool,
) -> tuple[dict[str, object], list[str]]:
    from autoscaler.simulator.replay.exporting import export_timeline
    from autoscaler.simulator.replay.recording import each_row

    covered = reader.span(fleet) or span
    rows = export_timeline(out, each_row(reader, fleet, *span), overwrite=force)
    return {"rows": rows, "from": utc(max(span[0], covered[0])), "to": utc(min(span[1], covered[1]))}, []
