"""Output of `replay` and `compare`: the conclusion, the score card at 80 columns, and the options chosen."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import plain_table, print_whole
from autoscaler.simulator.report.card import Card
from autoscaler.simulator.report.conclusion import conclude
from autoscaler.simulator.report.wording import DOES_NOT_APPLY

_COLUMNS = (
    ("cost", "cost"),
    ("vm_hours", "VM-hours"),
    ("unserved_share", "unserved"),
    ("shortage_s", "short for"),
    ("episodes", "times"),
    ("starts_per_day", "starts/d"),
)


def print_run(document: dict[str, Any], card: Card) -> None:
    """Print a run for people."""
    console = Console(highlight=False, markup=False)
    say = partial(console.print, soft_wrap=True)
    conclusion = conclude(card, document["details"])
    say(f"{conclusion.headline}.", style="bold")
    for sentence in conclusion.sentences:
        say(sentence)
    for caution in conclusion.cautions:
        say(caution, style="yellow")
    console.print()
    print_whole(console, table(card))
    console.print()
    for sentence in document.get("differences", {}).get("sentences", ()):
        say(sentence)
    for note in document["details"]["notes"]:
        say(note, style="dim")


def table(card: Card) -> Table:
    """Return the score card as a table, one row per entry."""
    known = {figure.key: figure for figure in card.figures}
    made = plain_table()
    made.add_column("", no_wrap=True)
    for key, title in _COLUMNS:
        if key in known:
            made.add_column(title, justify="right", no_wrap=True)
    for entry in card.entries:
        # A terminal that cannot show the long dash would print a question mark, which has another meaning here.
        cells = (
            entry.formatted(known[key]).replace(DOES_NOT_APPLY, "-") for key, _ in _COLUMNS if key in known
        )
        made.add_row(Text(entry.name), *cells, style="bold" if entry.judged else None)
    return made
