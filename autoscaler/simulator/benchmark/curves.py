"""Cost against unserved work over the settings of one rule, and how such a curve is read.

A rule is judged at its best setting in hindsight, on the lower convex hull of the points of its settings, because two
settings may be mixed over time. A hull is read at a level of unserved work. A level that the hull does not reach costs
infinity.

Rules of this file: arrays in, arrays out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.core.types import Float, Int

LEVELS = (0.01, 0.003, 0.001)
"""Shares of unserved work at which all rules are compared."""

VOLUME_SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Shares of unserved work at which a front is compared with the clairvoyant's."""
_VOLUME_REFERENCE = 2.0
"""A front counts towards the volume up to this multiple of the clairvoyant's cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The results of one rule on one fleet, over its N settings.

    Attributes:
        key: Key of the rule.
        knob: The parameter that was varied, as text for people.
        values: Its values, as text for people.
        unserved: float64 (N,), share of the scored work that stayed unserved.
        cost: float64 (N,), VM-hours billed in the scored time.
        starts: int64 (N,), number of starts.
        turns: int64 (N,), how often the desired number of VMs turned from rising to falling or back.
        late_unserved: float64 (N,), `unserved` after the first week only. NaN if there is no such time.
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
        """Return the lower convex hull of cost against unserved work."""
        return hull_of(self.unserved, self.cost)


@dataclass(frozen=True, slots=True, eq=False)
class Hull:
    """A lower convex hull, from the least unserved work to the least cost.

    Attributes:
        settings: int64 (H,), the settings that are its corners.
        unserved: float64 (H,), ascending.
        cost: float64 (H,), descending.
    """

    settings: Int
    unserved: Float
    cost: Float

    def cost_at(self, unserved: float) -> float:
        """Return the least cost of leaving at most this share unserved. Infinite if no setting reaches it."""
        if not len(self.unserved) or unserved < self.unserved[0]:
            return math.inf
        return float(np.interp(unserved, self.unserved, self.cost))

    def mixed_at(self, unserved: float, figures: Float | Int) -> float:
        """Interpolate a figure of the settings at a share of unserved work. NaN if no setting reaches the share.

        Args:
            unserved: The share.
            figures: (N,), the figure of each setting of the rule.
        """
        if not len(self.unserved) or unserved < self.unserved[0]:
            return math.nan
        return float(np.interp(unserved, self.unserved, np.asarray(figures, np.float64)[self.settings]))


def hull_of(unserved: Float, cost: Float) -> Hull:
    """Return the falling part of the lower convex hull of points. Points that are not finite are ignored."""
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
    """Return whether the middle point lies on or above the line through the other two."""
    run, whole = unserved[middle] - unserved[first], unserved[last] - unserved[first]
    rise, all_of_it = cost[middle] - cost[first], cost[last] - cost[first]
    return bool(rise * whole >= all_of_it * run)


def volume(hull: Hull, least: Sequence[float]) -> float:
    """Return how much of the room above the clairvoyant's front a front covers, 0 to 1.

    This is the area between the front and twice the clairvoyant's cost, in units of the clairvoyant's cost and over the
    logarithm of unserved work from 0.01 % to 10 %. It is 1 for the clairvoyant itself, and 0 for a front that is never below
    twice its cost.

    Args:
        hull: The front.
        least: The clairvoyant's cost at `VOLUME_SHARES`, above 0.
    """
    costs = np.array([hull.cost_at(share) for share in VOLUME_SHARES])
    heights = np.maximum(_VOLUME_REFERENCE - costs / np.array(least), 0.0) / (_VOLUME_REFERENCE - 1.0)
    logs = np.log(np.array(VOLUME_SHARES))
    return float(np.trapezoid(heights, logs) / (logs[-1] - logs[0]))
