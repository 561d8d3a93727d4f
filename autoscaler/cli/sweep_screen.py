"""Output of `sweep` and `recommend`: the conclusion, and the best variants, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import plain_table, print_whole
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.report.wording import Unit, money, share, shown
from autoscaler.simulator.search.landscape import COST, UNSERVED, Landscape
from autoscaler.simulator.search.recommending import Advice
from autoscaler.simulator.search.variants import PLANT
from autoscaler.simulator.search.worlds import WorldResult

MOST_ROWS = 15
_MOST_CANDIDATES = 6
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
    plant = "" if bool(found.same_plant.all()) else " with the same VMs and prices"
    say(
        f"{len(rows)} of {len(found.numbers)} variants are beaten by no other{plant} in cost and unserved work together"
        + ("; some of them:" if len(rows) > MOST_ROWS else ":")
    )
    print_whole(console, table(found, rows[:: -(-len(rows) // MOST_ROWS) or 1]))
    console.print()
    for note in document["details"]["notes"]:
        say(note, style="dim")


def print_advice(
    document: dict[str, Any], found: Landscape, advice: Advice, weathered: Sequence[WorldResult]
) -> None:
    """Print a recommendation for people: the verdict, the changes, the other candidates, the other worlds."""
    console = Console(highlight=False, markup=False)
    say = partial(console.print, soft_wrap=True)
    say(advice.headline, style="bold")
    changes = document["recommendation"]["changes"]
    if changes:
        console.print()
        console.print(_changes(changes))
        console.print()
    for sentence in document["conclusion"]["sentences"][1 if changes else 0 :]:
        say(sentence)
    for caution in document["details"]["cautions"]:
        say(str(caution), style="yellow")
    console.print()
    console.print(_candidates(found, advice))
    if weathered:
        console.print()
        console.print(_worlds(weathered, changed=advice.row != advice.current))
    console.print()
    for note in document["details"]["notes"]:
        say(note, style="dim")


def _changes(changes: dict[str, Any]) -> Table:
    made = plain_table(show_header=False)
    for path, change in changes.items():
        cost, unserved = change["cost_alone"], change["unserved_alone"]
        alone = "" if cost is None else f"alone: cost {cost:+.1%}, unserved {unserved * 100:+.3f} points"
        made.add_row(path, _value(change["now"]), "->", Text(_value(change["then"]), style="bold"), alone)
    return made


def _candidates(found: Landscape, advice: Advice) -> Table:
    """Return a table of the cheapest variants, each with the reason why it is not recommended."""
    made = plain_table()
    made.add_column("", no_wrap=True)
    for _, title, _ in _FIGURES[:2]:
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("")
    order = np.argsort(found.figures[COST], kind="stable").tolist()
    rows = [row for row in order if row not in (advice.row, advice.current)]
    # The recommended and the current variant come first, then the cheapest: a reader asks why those were not taken.
    for row in [*dict.fromkeys((advice.row, advice.current)), *rows[:_MOST_CANDIDATES]]:
        made.add_row(
            "now" if row == advice.current else "best" if row == advice.row else str(int(found.numbers[row])),
            *(shown(float(found.figures[key][row]), unit) for key, _, unit in _FIGURES[:2]),
            _because(found, advice, row),
            style="bold" if row == advice.row else None,
        )
    return made


def _because(found: Landscape, advice: Advice, row: int) -> str:
    why = advice.reasons[row]
    return why if row == advice.current else f"{found.named(row)}{f': {why}' if why else ''}"


def _worlds(weathered: Sequence[WorldResult], *, changed: bool) -> Table:
    """Return a table of cost, unserved work and regret in each world, for the current policy and the recommended variant."""
    made = plain_table()
    made.add_column("world", no_wrap=True)
    for name in ("cost", "unserved", "regret"):
        made.add_column(f"{name}, now -> best" if changed else name, justify="right", no_wrap=True)
    for world in weathered:
        cells = [
            " -> ".join(show(float(values[at])) for at in range(2 if changed else 1))
            for values, show in ((world.cost, money), (world.unserved, share), (world.regret, money))
        ]
        made.add_row(world.world, *cells)
    return made


def table(found: Landscape, rows: list[int]) -> Table:
    """Return a table of these variants, and of the current policy if it is not among them."""
    made = plain_table()
    made.add_column("", no_wrap=True)
    for path in found.parameters:
        name = path.rpartition(".")[2] if _clear(found) else path
        made.add_column(f"{name}{_unit(path)}", justify="right", overflow="fold")
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


def _unit(path: str) -> str:
    """Return the unit of a plant setting, for its column title; values of policies are written with their units."""
    first, _, name = path.partition(".")
    return ", s" if first == PLANT and isinstance(getattr(PlantSettings(), name, None), Duration) else ""


def _clear(found: Landscape) -> bool:
    """Return whether the last parts of the paths are all different."""
    ends = [path.rpartition(".")[2] for path in found.parameters]
    return len(set(ends)) == len(ends)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
