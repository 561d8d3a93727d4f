"""How certain the difference between two runs on the same traffic is: intervals of its mean, from one hour to the next.

Rules of this file: runs are paired tick by tick, so that what both have in common cancels. Traffic of another time differs
from that of the run, and the intervals say by how much that may move the difference. Other luck with starts is not in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float
from autoscaler.simulator.replay.timeline import TimelineRow, column
from autoscaler.simulator.report.wording import money, share, span
from autoscaler.simulator.search.intervals import FEWEST, LEVEL, Interval, interval_of

_DAY_S = 86_400.0
_HOUR_S = 3600.0
_MOST_CELLS = 1000
"""Number of cells above which they become longer than an hour, so that the intervals of a year take no minute."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """How far the difference between a second run and a first one may be off.

    Attributes:
        cost_per_day: Money per day that the second costs more.
        unserved_share: Share of the work that the second leaves unserved in addition.
        cell_s: Seconds that one value of the resampled series covers.
    """

    cost_per_day: Interval
    unserved_share: Interval
    cell_s: float


def certainty(
    first: Sequence[TimelineRow], second: Sequence[TimelineRow], tick_s: float, seed: int
) -> Certainty:
    """Compare the ticks that two runs have in common and in which cost and shortage of both are known.

    Args:
        first: Timeline in time order.
        second: The same of the other run.
        tick_s: Length of a tick in seconds.
        seed: Seed of the resampling.
    """
    other = {row.timestamp_s: row for row in second}
    pairs = [(row, other[row.timestamp_s]) for row in first if row.timestamp_s in other]
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    cost = column(two, "cost") - column(one, "cost")
    short = column(two, "shortage") - column(one, "shortage")
    demand = column(one, "demand")
    covered_s = len(pairs) * tick_s
    cell_s = max(_HOUR_S, tick_s, covered_s / _MOST_CELLS)
    cells = (np.arange(len(pairs)) * tick_s // cell_s).astype(np.int64)
    mean_demand = float(np.nanmean(demand)) if np.isfinite(demand).any() else 0.0
    return Certainty(
        interval_of(_means(cost * (_DAY_S / tick_s), cells), cell_s, seed),
        interval_of(_means(short / (mean_demand or math.nan), cells), cell_s, seed),
        cell_s,
    )


def _means(values: Float, cells: NDArray[np.int64]) -> Float:
    """Return the mean of the known values of each cell, without cells in which nothing is known."""
    known = np.isfinite(values)
    number = np.bincount(cells[known])
    return np.bincount(cells[known], values[known])[number > 0] / number[number > 0]


def certainty_json(found: Certainty) -> dict[str, Any]:
    """Return the intervals as values for programs. Ends that are not known are NaN."""
    return asdict(found)


def in_words(found: Certainty, name: str, reference: str) -> str:
    """Say how large the mean difference is, how far that may be off, and whether it may be luck.

    Empty if there is no difference, or if the cost is not known.
    """
    cost, lost = found.cost_per_day, found.unserved_share
    if not cost.count or cost.mean == lost.mean == 0:
        return ""
    if math.isnan(cost.low):
        least = span(FEWEST * found.cell_s)
        return f"How much of the difference is luck cannot be said: that takes at least {least} of traffic, better several days."
    told = f"{name} minus {reference}, per day: cost {_ranged(cost, _money, what=f'{LEVEL:.0%} interval ')}"
    if lost.count:
        told += f"; work unserved {_ranged(lost, _points, ' points')}"
    return f"{told}.{_luck(cost, lost)}"


def _luck(cost: Interval, lost: Interval) -> str:
    doubted = [
        what
        for what, each in (("cost", cost), ("unserved work", lost))
        if each.low <= 0 <= each.high and each.low < each.high
    ]
    if len(doubted) > 1:
        return " Both differences may be luck."
    return f" The difference in {doubted[0]} may be luck." if doubted else ""


def _ranged(interval: Interval, form: Callable[[float], str], unit: str = "", what: str = "") -> str:
    if interval.low == interval.high == 0:
        return "the same"
    if math.isnan(interval.low):
        return f"{form(interval.mean)}{unit}"
    return f"{form(interval.mean)}{unit} ({what}{form(interval.low)} to {form(interval.high)})"


def _money(value: float) -> str:
    return f"{_sign(value)}{money(abs(value))}"


def _points(value: float) -> str:
    return f"{_sign(value)}{share(abs(value)).removesuffix('%')}"


def _sign(value: float) -> str:
    return "+" if value > 0 else "−" if value < 0 else ""
