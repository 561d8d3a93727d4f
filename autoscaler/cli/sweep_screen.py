"""What `sweep` and `recommend` print: the conclusion, and the variants worth looking at, at 80 columns."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoscaler.simulator.landscape import COST, UNSERVED, Landscape
from autoscaler.simulator.report.wording import Unit, shown

MOST_ROWS = 15
_FIGURES = (
    (COST, "cost", Unit.MONEY),
    (UNSERVED, "unserved", Unit.SHARE),
    ("shortage_s", "short for", Unit.SPAN),
    ("starts_per_day", "starts/d", Unit.PER_DAY),
)


def print_sweep(document: dict[str, Any], found: Landscape) -> None:
    """Print a sweep for people."""
    console = Console(highlight=False, markup=False)
    say = partial(console.print, soft_wrap=True)
    say(document["conclusion"]["headline"], style="bold")
    for sentence in document["conclusion"]["sentences"]:
        say(sentence)
    for caution in document["details"]["cautions"]:
        say(str(caution), style="yellow")
    console.print()
    on_front = np.flatnonzero(found.front)
    rows = [int(row) for row in on_front[np.argsort(found.figures[COST][on_front], kind="stable")]]
    plant = "" if bool(found.same_plant.all()) else " on the same plant"
    say(
        f"{len(rows)} of {len(found.numbers)} variants are beaten by no other{plant} in cost and unserved work together"
        + (f"; every {-(-len(rows) // MOST_ROWS)}th of them:" if len(rows) > MOST_ROWS else ":")
    )
    console.print(table(found, rows[:: -(-len(rows) // MOST_ROWS) or 1]))
    console.print()
    for note in document["details"]["notes"]:
        say(note, style="dim")


def table(found: Landscape, rows: list[int]) -> Table:
    """Variants by row, and the policy as it is where it is not among them."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("", no_wrap=True)
    for path in found.parameters:
        made.add_column(path.rpartition(".")[2] if _clear(found) else path, justify="right", overflow="fold")
    for _, title, _ in _FIGURES:
        made.add_column(title, justify="right", no_wrap=True)
    current = found.current
    for row in [*rows, *([] if current is None or current in rows else [current])]:
        made.add_row(
            Text("now" if row == current else str(int(found.numbers[row]))),
            *(_value(column[row]) for column in found.parameters.values()),
            *(shown(float(found.figures[key][row]), unit) for key, _, unit in _FIGURES),
            style="bold" if row == current else None,
        )
    return made


def _clear(found: Landscape) -> bool:
    """Whether the last parts of the paths tell them apart."""
    ends = [path.rpartition(".")[2] for path in found.parameters]
    return len(set(ends)) == len(ends)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
