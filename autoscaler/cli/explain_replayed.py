"""`explain` without a journal: from the timeline of a replay on lanes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from autoscaler.cli.output import forecast_words, print_json
from autoscaler.simulator.replay.timeline import REPORT_NAME, TIMELINE_NAME
from autoscaler.simulator.report.columns import NUMERIC, PARQUET_NAME, read_timeline
from autoscaler.simulator.report.folder import read_report
from autoscaler.simulator.report.wording import count, moment


def explain_replayed(directory: Path, fleet: str, at_s: float | None, *, as_json: bool) -> bool:
    """Explain the tick at a time, or the last one if the time is None; return False if the folder has no timeline of a replay.

    Raises:
        ConfigError: The replay is of another fleet or does not cover the time.
    """
    if not any((directory / name).is_file() for name in (TIMELINE_NAME, PARQUET_NAME)):
        return False
    row = _explained(directory, fleet, at_s)
    if as_json:
        print_json(row)
    else:
        _tell(row)
    return True


def _explained(directory: Path, fleet: str, at_s: float | None) -> dict[str, Any]:
    from autoscaler.errors import ConfigError

    # A comparison has one folder per policy for the timelines, and a single report above them.
    report = directory if (directory / REPORT_NAME).is_file() else directory.parent
    own = read_report(report).get("details", {}).get("fleet")
    if own != fleet:
        raise ConfigError(f"the replay in {directory} is of fleet {own}, not {fleet}")
    columns = read_timeline(directory)
    row = len(columns) - 1 if at_s is None else columns.row_at(at_s)
    if row is None:
        raise ConfigError(
            f"the replay in {directory} covers {moment(columns.stamps_s[0])} to {moment(columns.end_s)} UTC; "
            "give a time within it with --at"
        )
    return {
        "fleet": fleet,
        "at_s": float(columns.stamps_s[row]),
        **{name: float(columns[name][row]) for name in NUMERIC},
        "reason": columns.reasons[row],
        "before": columns.reasons[row - 1] if row else "",
    }


def _tell(row: dict[str, Any]) -> None:
    say = typer.echo
    say(f"{row['fleet']} at {moment(row['at_s'])} UTC (replayed)")
    say(f"  {row['reason']}")
    say("inputs")
    say(f"  demand    {count(row['demand'])}/s wanted in this tick")
    say(f"  forecast  {forecast_words(row['forecast'], row['forecast_hi'], count)}")
    say(
        f"  VMs       {count(row['in_service'])} in service, {count(row['starting'])} starting, "
        f"{count(row['stopped'])} stopped (wanted {count(row['warm_target'])})"
    )
    say("done")
    say(
        f"  wanted {count(row['desired'])} VMs: {count(row['starts'])} started, {count(row['stops'])} stopped, "
        f"{count(row['provisions'])} made from nothing"
    )
    say(
        f"  short by {count(row['shortage'])}/s of {count(row['capacity'])}/s, at a cost of {row['cost']:.4f}"
    )
    if row["before"]:
        say(f"the tick before\n  {row['before']}")
    say("Every stage's number is in the journal of a replay with --engine loop.")
