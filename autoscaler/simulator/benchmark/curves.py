"""Cost against unserved work over the settings of one rule, and how such a curve is read.

A rule is judged at its best setting in hindsight: on the lower convex hull of what its settings came to, since two
settings may be mixed in time. A hull is read at a level of unserved work; what it cannot reach is infinitely dear.

Rules of this file: arrays in, arrays out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.core.types import Float, Int

LEVELS = (0.01, 0.003, 0.001)
"""Shares of unserved work at which everybody is compared."""

VOLUME_SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Shares of unserved work at which a front is held against the clairvoyant's."""
_VOLUME_REFERENCE = 2.0
"""A front counts up to this multiple of the clairvoyant's cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """All settings of one rule on one fleet. Arrays over its N settings.

    Attributes:
        key: Of the rule.
        knob: What was varied, for people.
        values: Its values, for people.
        unserved: float64, share of the scored work that was left.
        cost: float64, VM-hours billed in the scored time.
        starts, turns: int64, starts, and how often the wanted number turned from rising to falling or back.
        late_unserved: float64, `unserved` of the time after the first week only; NaN where there is none.
    """

    key: str
    knob: str
    values: tuple[str, ...]
    unserved: Float
    cost: Float
    starts: Int
    turns: Int
    late_unserved: Float

    def hull(self) -> Hull:
        """The lower convex hull."""
        return hull_of(self.unserved, self.cost)


@dataclass(frozen=True, slots=True, eq=False)
class Hull:
    """A lower convex hull, from the least unserved to the cheapest.

    Attributes:
        settings: int64 (H,), which settings are its corners.
        unserved, cost: float64 (H,), ascending and descending.
    """

    settings: Int
    unserved: Float
    cost: Float

    def cost_at(self, unserved: float) -> float:
        """The least cost of leaving at most this share; infinite where no setting leaves as little."""
        if not len(self.unserved) or unserved < self.unserved[0]:
            return math.inf
        return float(np.interp(unserved, self.unserved, self.cost))

    def mixed_at(self, unserved: float, figures: Float | Int) -> float:
        """A figure of the settings that are mixed to leave this share; NaN where that cannot be reached."""
        if not len(self.unserved) or unserved < self.unserved[0]:
            return math.nan
        return float(np.interp(unserved, self.unserved, np.asarray(figures, np.float64)[self.settings]))


def hull_of(unserved: Float, cost: Float) -> Hull:
    """The lower convex hull of points, as far as it falls: who leaves more and costs more is on none."""
    usable = np.flatnonzero(np.isfinite(unserved) & np.isfinite(cost))
    order = usable[np.lexsort((cost[usable], unserved[usable]))]
    corners: list[int] = []
    for at in order.tolist():
        if corners and cost[at] >= cost[corners[-1]]:
            continue
        while len(corners) > 1 and _above(corners[-2], corners[-1], at, unserved, cost):
            corners.pop()
        corners.append(at)
    settings = np.array(corners, np.int64)
    return Hull(settings, unserved[settings], cost[settings])


def _above(first: int, middle: int, last: int, unserved: Float, cost: Float) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    run, whole = unserved[middle] - unserved[first], unserved[last] - unserved[first]
    rise, all_of_it = cost[middle] - cost[first], cost[last] - cost[first]
    return bool(rise * whole >= all_of_it * run)


def volume(hull: Hull, least: Sequence[float]) -> float:
    """How much of the clairvoyant's room a front covers, 0 to 1.

    The area between the front and twice the clairvoyant's cost, over the logarithm of unserved work from 0.01 % to 10 %
    and in units of that cost; 1 is the clairvoyant itself, 0 never better than twice its cost.

    Args:
        hull: The front.
        least: The clairvoyant's cost at `VOLUME_SHARES`, above 0.
    """
    costs = np.array([hull.cost_at(share) for share in VOLUME_SHARES])
    heights = np.maximum(_VOLUME_REFERENCE - costs / np.array(least), 0.0) / (_VOLUME_REFERENCE - 1.0)
    logs = np.log(np.array(VOLUME_SHARES))
    return float(np.trapezoid(heights, logs) / (logs[-1] - logs[0]))
