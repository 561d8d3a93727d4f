"""Output of the demo: a live table in a terminal, otherwise one line per change; then the summary."""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoscaler.cli.demo_run import Finished, Prepared
from autoscaler.cli.demo_summary import ALWAYS_ON, OURS, REACTIVE, VIRTUAL
from autoscaler.cli.output import work
from autoscaler.daemon.loop import Daemon
from autoscaler.ports import FleetTick, TickRecord
from autoscaler.simulator.report.wording import share, span
from autoscaler.words import counted

_BARS = " ▁▂▃▄▅▆▇█"
_REASONS = 8


class Screen:
    """Shows the progress of a demo.

    Args:
        prepared: The demo's inputs.
        quiet: Show nothing, because a program reads the report.
    """

    def __init__(self, prepared: Prepared, *, quiet: bool) -> None:
        self._prepared = prepared
        self._console = Console(quiet=quiet, highlight=False)
        self._errors = Console(stderr=True, quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._history: deque[FleetTick] = deque(maxlen=max(self._console.width - 34, 20))
        self._reasons: deque[tuple[float, str]] = deque(maxlen=_REASONS)
        self._daemon: Daemon | None = None
        self._peak = prepared.trace.peak_per_s
        self._where = ""

    def progress(self, text: str) -> None:
        """Print the name of a step that takes a moment."""
        self._errors.print(text, style="dim")

    def begins(self) -> None:
        """Describe the demo while it is set up."""
        p = self._prepared
        lines = [
            f"A real daemon starts and stops the VMs of the fleet {p.policy.fleet} through the EC2 protocol, for {_traffic(p)}:",
            "ahead of demand, and no more than they are worth. At the end it is compared with simpler ways, in money.",
            "It remembers the week before, like any installation after a week; with --cold it is its first day."
            if p.learned
            else "It remembers nothing, as on its first day.",
            f"Policy: {p.policy_file}",
        ]
        self._console.print("\n".join(lines), soft_wrap=True)

    def begun(self, daemon: Daemon, url: str, endpoint: str, speed: float) -> None:
        """Show the addresses, and start the live table."""
        self._daemon = daemon
        p = self._prepared
        self._where = f"endpoint {endpoint}   page {url}/   metrics {url}/metrics"
        self._console.print(
            f"{p.options.vms} VMs wait stopped behind an EC2 endpoint on {endpoint} at {_clock(p.begin_s)}; {speed:g} times as "
            f"fast from there.\nIn a browser: {url}/ (metrics: {url}/metrics)\n",
            soft_wrap=True,
        )
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=False)
            self._live.start()

    def ticked(self, record: TickRecord) -> None:
        """Show a tick."""
        row = record.fleets[0]
        self._history.append(row)
        if row.start or row.stop or row.provision:
            self._reasons.append((record.at_s, row.sentence))
            if self._live is None:
                self._console.print(
                    f"{_clock(record.at_s)}  {self._numbers(row)}  {row.sentence}", soft_wrap=True
                )
        if self._live is not None:
            self._live.update(self._table(record, row))

    def ended(self) -> None:
        """Stop the live table and keep its last state on screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _numbers(self, row: FleetTick) -> str:
        return (
            f"demand {work(row.demand):>6}/s  desired {row.desired:>2}  in service {row.in_service:>2}  "
            f"starting {row.starting:>2}  warm {row.stopped:>2}  shortage {work(row.shortage):>5}/s  "
            f"cost {self._cost():.3f}"
        )

    def _cost(self) -> float:
        return self._daemon.fleets.all[0].meter.total.money if self._daemon else 0.0

    def _table(self, record: TickRecord, row: FleetTick) -> Group:
        numbers = Table(box=None, pad_edge=False)
        for name in ("time", "demand/s", "95 %/s", "desired", "serve", "start", "warm", "short/s", "cost"):
            numbers.add_column(name, justify="right", no_wrap=True)
        short = row.shortage > 0
        numbers.add_row(
            _clock(record.at_s),
            work(row.demand),
            work(row.forecast_hi),
            str(row.desired),
            str(row.in_service),
            str(row.starting),
            f"{row.stopped} of {row.warm_target}",
            Text(work(row.shortage), style="bold red" if short else ""),
            f"{self._cost():.3f}",
        )
        lines: list[Any] = [numbers, Text()]
        top = max(self._peak, 1.0)
        lines.append(Text.assemble("demand    ", (_bars([r.demand for r in self._history], top), "cyan")))
        lines.append(Text.assemble("capacity  ", (_bars([r.capacity for r in self._history], top), "green")))
        lines.append(Text())
        lines += [Text(f"{_clock(at_s)}  {text}", overflow="fold") for at_s, text in self._reasons]
        lines += [Text(), Text(f"{self._where}   Ctrl-C ends", style="dim")]
        return Group(*lines)


def print_summary(report: dict[str, Any], prepared: Prepared, finished: Finished) -> None:
    """Print the comparison of the run with its baselines, and the next commands to try."""
    console = Console(highlight=False)
    say = partial(console.print, soft_wrap=True)
    d = report["details"]
    if not report["baselines"]:
        say(f"\nShorter than the {d['not_scored_s']:.0f} s in which the fleet comes up; nothing to compare.")
        return
    say(
        f"\n{span(d['span_s'])} of {d['trace']} for {prepared.policy.fleet}, without the first {span(d['not_scored_s'])} in which the "
        "fleet comes up"
    )
    console.print(_comparison(report))
    for sentence in _verdict(report):
        say(sentence)
    say("The first row is the live run; the others are computed as if calls and this machine took no time.")
    calls, vms = d["calls"], d["vms_by_call"]
    say(
        f"Through the EC2 protocol: {vms.get('StartInstances', 0)} VMs started in {calls.get('StartInstances', 0)} "
        f"calls, {vms.get('StopInstances', 0)} stopped in {calls.get('StopInstances', 0)}, "
        f"{calls.get('DescribeInstances', 0)} listings."
    )
    off = d["bill_of_the_journal"] / d["bill_of_the_cloud"] - 1.0 if d["bill_of_the_cloud"] else math.nan
    say(
        f"The cloud's own bill: {d['bill_of_the_cloud']:.3f}; the journal's: {d['bill_of_the_journal']:.3f} "
        f"({off:+.2%})."
    )
    say(_recovered(d))
    if d["ticks_skipped"]:
        say(
            f"{counted(d['ticks_skipped'], 'tick was', 'ticks were')} skipped: this machine was too slow for that speed, which distorts the first row.",
            style="yellow",
        )
    if finished.state_dir is not None:
        where = finished.state_dir
        say(f"Written to {where}: timeline.csv, report.json, the journal. To see reasons, or to make a page:")
        say(f"  autoscaler explain {prepared.policy.fleet} --state-dir {where}")
        say(f"  autoscaler report {where}")
    else:
        say("With --out DIR it writes a journal for `autoscaler explain`, and numbers for a page.")


def _traffic(p: Prepared) -> str:
    if p.options.trace is not None:
        return p.trace.name
    return f"a generated day with a crowd at about ten (seed {p.options.seed})"


def _verdict(report: dict[str, Any]) -> list[str]:
    """Return sentences that sum up the comparison, whether good or bad. All rows compared here ran on virtual time."""
    d, rows = report["details"], report["baselines"]
    ours, other, total = rows[VIRTUAL], rows[REACTIVE], d["total_cost"]
    if total[OURS] is None:
        left = f"{share(ours['unserved_share'])} of the work unserved instead of {share(other['unserved_share'])}"
        return [
            f"On virtual time this policy ({d['policy_in_words']}) costs {_than(ours['cost'], other['cost'])} than plain reactive,",
            f"leaving {left}; and {_than(ours['cost'], rows[ALWAYS_ON]['cost'])} than always on at the peak, which had to know it.",
        ]
    less, beside = _than(total[VIRTUAL], total[REACTIVE]), _than(total[VIRTUAL], total[ALWAYS_ON])
    return [
        f"On virtual time, lost work included, this policy costs {less} than plain reactive",
        f"({d['reactive_in_words']}), and {beside} than always on at the peak, which had to know it.",
        f"Lost work is priced by the policy: {d['policy_in_words']}.",
    ]


def _than(ours: float, theirs: float) -> str:
    """Return the relative difference of two costs, such as "12% less"; the caller adds what it is compared with."""
    if not theirs > 0:
        return "no less"
    less = 1.0 - ours / theirs
    return f"{abs(less):.0%} {'less' if less >= 0 else 'more'}"


def _recovered(details: dict[str, Any]) -> str:
    found = details["recoveries"]
    count = counted(len(found), "shortage episode")
    if math.isnan(details["recovery_limit_s"]):
        return f"{count}; no measured start to compare them with."
    late = sum(not recovery["within_limit"] for recovery in found)
    return (
        f"{count}; {late} ended later than {details['recovery_limit_s']:.0f} s after the last rise (signal age "
        f"{details['signal_age_max_s']:.0f} s + start p95 {details['start_p95_s']:.0f} s + 2 ticks)."
    )


def _comparison(report: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    totals = report["details"]["total_cost"]
    priced = totals[OURS] is not None
    names = ("VMs cost", "lost work", "total") if priced else ("cost",)
    for name in (*names, "unserved", "short for", "starts"):
        table.add_column(name, justify="right", style="bold" if name == "total" else "")
    for name, t in ((OURS, report["totals"]), *report["baselines"].items()):
        money = (t["cost"], totals[name] - t["cost"], totals[name]) if priced else (t["cost"],)
        table.add_row(
            name,
            *(f"{each:.2f}" for each in money),
            share(t["unserved_share"]),
            span(t["shortage_s"]),
            f"{t['starts']:.0f}",
        )
    return table


def _bars(values: list[float], top: float) -> str:
    def bar(value: float) -> str:
        if math.isnan(value):
            return "?"
        return _BARS[min(round(value / top * (len(_BARS) - 1)), len(_BARS) - 1)]

    return "".join(bar(v) for v in values)


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%a %H:%M:%S")
