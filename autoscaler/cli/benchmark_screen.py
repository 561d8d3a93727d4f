"""What `benchmark` prints: regrets trace by trace, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from autoscaler.simulator.benchmark.bout import Bout
from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.entrants import Entrant
from autoscaler.simulator.benchmark.rivals import PEERS
from autoscaler.simulator.benchmark.verdict import Match, matches, summary

_NARROWEST = 116
"""Columns that the table takes; a narrower terminal wraps its lines, which is better than numbers cut short."""


def print_bouts(bouts: Sequence[Bout], entrants: Sequence[Entrant]) -> None:
    """Print what bouts came to, for people."""
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, _NARROWEST)
    say = partial(console.print, soft_wrap=True)
    for entrant in entrants:
        found = matches(bouts, entrant.key, PEERS)
        if not found:
            continue
        say(
            f"{entrant.name}: cost over the least possible, and the best peer's at its best setting",
            style="bold",
        )
        console.print(_table(found))
        for title, some in (
            ("traces with seven scored days or more", [m for m in found if m.long]),
            ("shorter traces", [m for m in found if not m.long]),
        ):
            if some:
                say(sentence_of(title, some))


def sentence_of(title: str, found: Sequence[Match]) -> str:
    """What matches come to, in a sentence."""
    told = summary(found)
    return (
        f"{title}: {told.matches} comparisons, {told.reached} reached, {told.won} better than every peer; ratio of regrets "
        f"{told.ratio:.3f} (geometric mean), {told.worst:.2f} at worst; starts {told.starts:.2f} times the clairvoyant's"
    )


def _table(found: Sequence[Match]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("trace", no_wrap=True)
    made.add_column("VMs", justify="right")
    for level in LEVELS:
        made.add_column(f"{level:.1%}".replace(".0%", "%"), justify="right", no_wrap=True)
        made.add_column("best peer", no_wrap=True)
        made.add_column("ratio", justify="right")
    rows: dict[tuple[str, int], list[Match]] = {}
    for match in found:
        rows.setdefault((match.trace, match.size), []).append(match)
    for (trace, size), row in rows.items():
        cells = [
            cell
            for match in row
            for cell in (
                percent(match.regret),
                f"{percent(match.best_regret)} {match.best}",
                ratio(match.ratio),
            )
        ]
        made.add_row(trace, str(size), *cells)
    return made


def percent(regret: float) -> str:
    """A regret for people; a dash where the level is not reached."""
    return f"{regret:.1%}" if math.isfinite(regret) else "-"


def ratio(value: float) -> str:
    """A ratio for people."""
    return f"{value:.2f}" if math.isfinite(value) else "-"
