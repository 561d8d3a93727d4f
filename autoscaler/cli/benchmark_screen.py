"""Output of `benchmark`: the regret per trace, and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from autoscaler.cli.output import plain_table, print_whole
from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.peer_entries import PEERS, RIVALS
from autoscaler.simulator.benchmark.tables import (
    coverage_sentence,
    percent,
    pool_sentence,
    promise_sentence,
    ratio,
    sentences,
)
from autoscaler.simulator.benchmark.trace_run import Bout
from autoscaler.simulator.benchmark.verdict import Match, by_fleet, geometric_mean, matches

_NARROWEST = 140
"""Columns that the table needs. A narrower terminal wraps its lines, which is better than cutting numbers."""


def print_bouts(bouts: Sequence[Bout], keys: Sequence[str]) -> None:
    """Print the results of bouts for people.

    Args:
        bouts: The bouts that were run.
        keys: Keys of the policies that took part; each is compared with the peers.
    """
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, _NARROWEST)
    say = partial(console.print, soft_wrap=True)
    for key in keys:
        found = matches(bouts, key, PEERS)
        if not found:
            continue
        say(f"{key}: cost over the least possible, and the best peer's at its best setting", style="bold")
        print_whole(console, _table(found))
        for sentence in sentences(found):
            say(sentence)
        console.print()
        for told in (promise_sentence, pool_sentence, coverage_sentence):
            if sentence := told(bouts, key):
                say(f"{sentence}\n")
    if bouts:
        say(
            "all rules: regret at each level (geometric mean of the fleets that it reaches), share of the room covered",
            style="bold",
        )
        print_whole(console, _rules(bouts, keys))


def _table(found: Sequence[Match]) -> Table:
    made = plain_table()
    made.add_column("trace", no_wrap=True)
    made.add_column("VMs", justify="right")
    for level in LEVELS:
        made.add_column(_head(level), justify="right", no_wrap=True)
        made.add_column("best peer", no_wrap=True)
        made.add_column("ratio", justify="right", no_wrap=True, min_width=5)
    for (trace, size), row in by_fleet(found).items():
        cells = [
            cell
            for match in row
            for cell in (
                percent(match.regret),
                f"{percent(match.best_regret)} {match.best}",
                ratio(match.ratio),
            )
        ]
        made.add_row(trace if row[0].long else f"{trace} *", str(size), *cells)
    return made


def _rules(bouts: Sequence[Bout], keys: Sequence[str]) -> Table:
    """Return a table of every policy and peer over all traces and fleet sizes."""
    made = plain_table()
    made.add_column("rule", no_wrap=True)
    for level in LEVELS:
        made.add_column(f"reached {_head(level)}", justify="right")
        made.add_column("1 + regret", justify="right")
    made.add_column("room", justify="right")
    fleets = [fleet for bout in bouts for fleet in bout.fleets]
    for key in (*keys, *(rival.key for rival in RIVALS)):
        own = [fleet for fleet in fleets if key in fleet.regrets]
        if not own:
            continue
        cells = []
        for at in range(len(LEVELS)):
            regrets = [fleet.regrets[key][at] for fleet in own]
            reached = [1.0 + regret for regret in regrets if regret < float("inf")]
            mean = f"{geometric_mean(reached):.3f}" if reached else "-"
            cells += [f"{len(reached)} of {len(own)}", mean]
        covered = sum(fleet.volumes[key] for fleet in own) / len(own)
        made.add_row(key, *cells, f"{covered:.0%}")
    return made


def _head(level: float) -> str:
    return f"{level:.1%}".replace(".0%", "%")
