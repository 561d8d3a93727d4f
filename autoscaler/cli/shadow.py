"""`shadow report`: what fleets in shadow would have saved or missed, with the conclusion first.

Exit codes: 0 shown (also if there is too little to conclude), 1 no journal, an unknown fleet, or no fleet in shadow in
that time, 2 wrong usage.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoscaler.cli.options import JSON, STATE_DIR, UNTIL
from autoscaler.cli.output import errors_in_words, moment_or_ago, print_json, since_epoch, unknown_word, utc
from autoscaler.words import counted

if TYPE_CHECKING:
    from autoscaler.simulator.replay.shadow_report import ShadowComparison, ShadowReport, Side
    from autoscaler.simulator.replay.timeline import Episode
    from autoscaler.store import JournalReader

_WEEK_S = 7 * 86_400.0


def shadow_report(
    fleet: Annotated[str | None, typer.Argument(help="Name of the fleet (default: all in shadow).")] = None,
    since_s: Annotated[
        float | None,
        typer.Option(
            "--since",
            parser=moment_or_ago,
            help="Start: 7d (ago) or a time (default: 7d).",
            metavar="TIME",
        ),
    ] = None,
    until_s: UNTIL = None,
    state_dir: STATE_DIR = None,
    as_json: JSON = False,
) -> None:
    """Show what fleets in shadow would have cost and missed under their policies, compared with what really ran."""
    from autoscaler.clock import SystemClock
    from autoscaler.settings import load_settings
    from autoscaler.store import JournalReader

    with errors_in_words("shadow report"):
        directory = load_settings(state_dir=state_dir).state_dir
        now_s = SystemClock().now()
        span = since_epoch(since_s, now_s, now_s - _WEEK_S), since_epoch(until_s, now_s, float("inf"))
        with JournalReader(directory) as reader:
            reports = _reports(reader, fleet, span, directory)
    if as_json:
        print_json([_document(report) for report in reports])
        return
    for number, report in enumerate(reports):
        if number:
            typer.echo()
        _tell(report)


def _reports(
    reader: JournalReader, fleet: str | None, span: tuple[float, float], directory: Path
) -> list[ShadowReport]:
    from autoscaler.errors import JournalError
    from autoscaler.simulator.replay import shadow_report as comparing

    known = reader.fleets_ever()
    if fleet is not None and fleet not in known:
        raise JournalError(unknown_word(fleet, known, "fleet", f"the journal in {directory}"))
    starts_s = [event.at_s for event in reader.events(*span) if event.kind == "daemon_started"]
    asked = [fleet] if fleet else list(known)
    made = [
        comparing.shadow_report(name, reader.each_tick(name, *span), reader.actions(name, *span), starts_s)
        for name in asked
    ]
    reports = [report for report in made if report is not None]
    if not reports:
        raise JournalError(_none(reader, fleet, span, directory))
    return reports


def _none(reader: JournalReader, fleet: str | None, span: tuple[float, float], directory: Path) -> str:
    covered = [times for name in ([fleet] if fleet else reader.fleets_ever()) if (times := reader.span(name))]
    if not covered:
        return f"the journal in {directory} has no tick yet"
    first_s, last_s = min(t[0] for t in covered), max(t[1] for t in covered)
    if last_s < span[0] or first_s >= span[1]:
        return f"the journal in {directory} has nothing of this time; it has {utc(first_s)} to {utc(last_s)}"
    who = f"fleet {fleet} was not" if fleet else "no fleet was"
    return (
        f"{who} in shadow for two ticks in a row in this time; a fleet is in shadow while its policy does not say "
        "`act: true`, and its VMs must have been listed"
    )


# ── for programs ────────────────────────────────────────────────────────────────────────────────────────


def _document(report: ShadowReport) -> dict[str, Any]:
    def compared(c: ShadowComparison) -> dict[str, Any]:
        shares = {"real": c.missed_share(c.real), "policy": c.missed_share(c.policy)}
        return {**asdict(c), "missed_share": shares}

    return {
        **asdict(report),
        "total": compared(report.total),
        "days": [compared(day) for day in report.days],
        "conclusive": report.conclusive,
        "conclusion": conclusion(report),
        "caveats": caveats(report),
    }


# ── for people ──────────────────────────────────────────────────────────────────────────────────────────


def conclusion(report: ShadowReport) -> str:
    """Return what the comparison shows, in a few sentences."""
    t = report.total
    if report.conclusive:
        begin = f"Over {_span(t.span_s)} the policy would have"
    else:
        begin = (
            f"Too little to conclude: only {_span(t.known_s)} with known demand; let it run for a week, at least a "
            "day. So far the policy would have"
        )
    if report.priced:
        money = f"cost {t.policy.cost:,.2f} instead of {t.real.cost:,.2f}{_less(t.policy.cost, t.real.cost)}"
    else:
        money = (
            f"run {t.policy.vm_hours:,.1f} VM-hours instead of {t.real.vm_hours:,.1f}"
            f"{_less(t.policy.vm_hours, t.real.vm_hours)}"
        )
    if t.known_s == 0:
        return f"{begin} {money}. Demand was never known, so neither is what it would have missed."
    return f"{begin} {money} and would have missed {_misses(report)}"


def _misses(report: ShadowReport) -> str:
    t, longest = report.total, report.longest
    real = t.missed_share(t.real)
    beside = "" if math.isnan(real) else f" What really ran missed {share_text(real)}."
    if longest is None:
        return f"no work.{beside}"
    many = counted(report.episodes, "episode")
    lasted = (
        f"the longest of {_span(longest.end_s - longest.start_s)}" if report.episodes > 1 else "it lasted"
    )
    when = (
        f"on {utc(longest.start_s)}"
        if report.episodes > 1
        else f"{_span(longest.end_s - longest.start_s)} from {utc(longest.start_s)}"
    )
    return (
        f"{share_text(t.missed_share(t.policy))} of the work in {many}; {lasted} {when}, short by up to "
        f"{_amount(longest.worst_per_s)}/s.{beside}"
    )


def caveats(report: ShadowReport) -> list[str]:
    """Return what the numbers do not cover, in sentences."""
    t = report.total
    said = [
        "Demand is what the VMs that really run measured: work that never reached them does not show.",
        "A VM that really runs counts as serving at once; a VM that the policy would have started counts after its start time.",
    ]
    unknown_s = t.span_s - t.known_s
    if unknown_s >= 1:
        said.append(f"Demand is unknown for {_span(unknown_s)}, which is left out of what was missed.")
    if report.left_out_s > 1:
        said.append(
            f"For {_span(report.left_out_s)} nothing was recorded or the fleet was not in shadow; both sides leave it out."
        )
    if report.censored_s > 0:
        said.append(
            f"In {_span(report.censored_s)} VMs were saturated, so demand was at least what is counted: more may have "
            "been missed on both sides."
        )
    if report.capacity_unknown_s > 0:
        said.append(
            f"What a VM can do is not known for {_span(report.capacity_unknown_s)}, which is left out of what really was "
            "missed."
        )
    if report.restarts:
        times = "once" if report.restarts == 1 else f"{report.restarts} times"
        said.append(
            f"The daemon began {times} in that time; the policy's side then starts from what really ran."
        )
    if not report.priced:
        said.append("The policy has no prices; write them under `prices` to see money.")
    return said


def _tell(report: ShadowReport) -> None:
    from rich.console import Console
    from rich.table import Table

    say = typer.echo
    say(f"{report.fleet}: {conclusion(report)}")
    say()
    table = Table("day (UTC)", box=None, pad_edge=False)
    for what in ("cost", "VM-h", "missed"):
        for side in ("real", "policy"):
            table.add_column(f"{what}\n{side}", justify="right", no_wrap=True)
    for verb in ("starts", "stops"):
        table.add_column(f"{verb}\npolicy", justify="right", no_wrap=True)
    for row in (*report.days, report.total):
        table.add_row(
            row.name,
            f"{row.real.cost:,.2f}",
            f"{row.policy.cost:,.2f}",
            f"{row.real.vm_hours:,.1f}",
            f"{row.policy.vm_hours:,.1f}",
            _missed(row, row.real),
            _missed(row, row.policy),
            str(row.starts + row.provisions),
            str(row.stops),
        )
    Console(highlight=False).print(table)
    if report.worst:
        say("worst episodes, had the policy acted")
    for episode in report.worst:
        say(f"  {_episode(episode)}")
    say("to be borne in mind")
    for caveat in caveats(report):
        say(f"  {caveat}")


def _episode(e: Episode) -> str:
    return (
        f"{utc(e.start_s)}  {_span(e.end_s - e.start_s):>8}  short by up to {_amount(e.worst_per_s)}/s, "
        f"{_amount(e.unserved_work)} of work in all"
    )


def _missed(row: ShadowComparison, side: Side) -> str:
    share = row.missed_share(side)
    return "?" if math.isnan(share) else share_text(share)


def share_text(share: float) -> str:
    """Return a share as a percentage with two digits: `0.12 %`."""
    percent = 100.0 * share
    if percent == 0:
        return "0 %"
    if percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent >= 0.01 else "<0.01 %"


def _less(policy: float, real: float) -> str:
    if real <= 0:
        return ""
    change = (policy - real) / real
    if abs(change) < 0.005:
        return " (the same)"
    return f" ({abs(change):.0%} {'less' if change < 0 else 'more'})".replace("%", " %")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _span(seconds: float) -> str:
    """Return a length of time in at most two units: 6 d 4 h, 3 min, 40 s."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 and hours < 10 else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"
