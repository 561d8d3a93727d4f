"""Predictive distributions prepared for questions: how much demand lies beyond a number, and how likely demand is to be higher.

The odds of a bin are the mean probability over the bin that demand is higher: the fall in expected excess over the bin, divided by its
width. They count at the bin's middle, and are linear from there to the next.

Rules of this file: element-wise, no state. Everything is in 32 bits, as distributions are stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.law_grid import EDGES, MOST_LOG
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Bool, Int, Laws, SmallFloat

HALVES = tuple(LAW_BINS >> shift for shift in range(1, LAW_BINS.bit_length()))
"""Steps of bisection over bins."""
BINS: Int = np.arange(LAW_BINS)[:, np.newaxis]
SPOTS: SmallFloat = EDGES.astype(np.float32)
"""Positions of the edges of bins, in spreads of the log ratio."""
_UPPER = SPOTS[1:]
_AROUND: Int = np.arange(-1, 3)
"""The edges of a bin, of the bin before it and of the next one, relative to the bin."""
_MANY = 64
"""Up to this many questions, evaluating all bins is faster than bisection."""
# As float32, because converting a plain number takes numpy a while if there are few lanes.
_FEWEST, _NONE, _HALF, _ONE = (np.float32(number) for number in (1e-30, 0.0, 0.5, 1.0))
_MOST_LOG, _LOW, _STEP = (np.float32(number) for number in (MOST_LOG, LAW_LOW, LAW_STEP))
_LAST_BIN = np.float32(LAW_BINS - 1.0)


class Law(NamedTuple):
    """Laws prepared for questions. `excess` is flat; the other arrays have any shape that broadcasts to the questions.

    Attributes:
        excess: float32 (S * H * (LAW_BINS + 1),), expected excess over the edges of all laws; (K * (LAW_BINS + 1),) in a
            table.
        base: int64, place of the first edge of each question's law in `excess`.
        unit: float32, level plus scale: demand plus scale is a multiple of this.
        scale, spread: float32, as in `Laws`.
        edged: float32 (K * (LAW_BINS + 1),), the edges of the laws in a table; None if there is no table.
    """

    excess: SmallFloat
    base: Int
    unit: SmallFloat
    scale: SmallFloat
    spread: SmallFloat
    edged: SmallFloat | None = None

    def edges(self, spots: SmallFloat) -> SmallFloat:
        """Return the demands at these positions, given in spreads of the log ratio."""
        found = spots * self.spread
        np.minimum(found, _MOST_LOG, out=found)
        np.exp(found, out=found)
        found *= self.unit
        found -= self.scale
        np.maximum(found, _NONE, out=found)
        return found

    def of_kinds(self, kinds: ColumnGroups) -> Law:
        """Return the laws of the lanes that stand for their kinds."""
        of = kinds.of_first
        return Law(self.excess, of(self.base), of(self.unit), of(self.scale), of(self.spread), self.edged)

    def beyond(self, demand: SmallFloat) -> SmallFloat:
        """Return E[max(D - demand, 0)] for each demand, in work per second, interpolated linearly between edges."""
        at = self._bin_of(demand)
        if self.edged is None:
            low, high = self.edges(SPOTS.take(at)), self.edges(_UPPER.take(at))
            at += self.base
        else:
            at += self.base
            low, high = self.edged.take(at), self.edged[1:].take(at)
        first = self.excess.take(at)
        at += 1
        found = np.subtract(self.excess.take(at), first)
        into = demand - low
        high -= low
        np.maximum(high, _FEWEST, out=high)
        into /= high
        np.minimum(into, _ONE, out=into)
        found *= into
        found += first
        under = demand < low
        if np.count_nonzero(under):
            # Below the first edge, any demand is certain to be exceeded.
            found[under] = first[under] + (low - demand)[under]
        return found

    def odds(self, demand: SmallFloat) -> SmallFloat:
        """Return the probability that demand is higher, for each demand: linear from the middle of one bin to that of the next."""
        at = self._bin_of(demand)
        around = at + _AROUND.reshape(-1, *np.ones(at.ndim, np.int64))
        np.maximum(around, 0, out=around)
        np.minimum(around, LAW_BINS, out=around)
        edges, excess = self.edges(SPOTS.take(around)), self.excess.take(around + self.base)
        width, odds = edges[1:] - edges[:-1], excess[:-1] - excess[1:]
        # Bins of demand below 0 have no width, and demand is certain to be higher; beyond the last bin there is none.
        certain = ~(width > _NONE)
        np.maximum(width, _FEWEST, out=width)
        odds /= width
        odds[certain] = _ONE
        odds[2][at == LAW_BINS - 1] = _NONE
        middle = (edges[1:] + edges[:-1]) * _HALF
        before = demand < middle[1]
        first, last = np.where(before, middle[:2], middle[1:])
        above, below = np.where(before, odds[:2], odds[1:])
        into = (demand - first) / np.maximum(last - first, _FEWEST)
        np.minimum(np.maximum(into, _NONE, out=into), _ONE, out=into)
        found: SmallFloat = above + (below - above) * into
        return found

    def _bin_of(self, demand: SmallFloat) -> Int:
        """Return the bin of each demand, int64."""
        place = demand + self.scale
        place /= self.unit
        np.log(place, out=place)
        place /= self.spread
        np.arcsinh(place, out=place)
        place -= _LOW
        place /= _STEP
        np.maximum(place, _NONE, out=place)
        np.minimum(place, _LAST_BIN, out=place)
        return place.astype(np.int64)

    def bins_over(self, share: SmallFloat) -> Int:
        """Return how many bins have at least these odds, int64 (k,): where bisection would end."""
        if len(share) > _MANY:
            return self.bisected(share)
        cell = BINS + self.base
        fall = self.excess.take(cell)
        cell += 1
        fall -= self.excess.take(cell)
        edges = self.edges(SPOTS[:, np.newaxis])
        width = edges[1:] - edges[:-1]
        width *= share
        enough = fall >= width
        # If the odds pass the share only once, bisection ends there.
        if np.count_nonzero(enough[1:] > enough[:-1]):
            return self.bisected(share)
        count: Int = np.add.reduce(enough, axis=0)
        return np.minimum(count, LAW_BINS - 1)

    def bisected(self, share: SmallFloat) -> Int:
        """Return the result of `bins_over` by bisection."""
        count = np.zeros(np.broadcast_shapes(share.shape, self.base.shape), np.int64)
        for half in HALVES:
            at = count + (half - 1)
            cell = at + self.base
            fall = self.excess.take(cell)
            cell += 1
            fall -= self.excess.take(cell)
            width = self.edges(_UPPER.take(at))
            width -= self.edges(SPOTS.take(at))
            width *= share
            count += half * (fall >= width)
        return count


def read(laws: Laws, series: Int, row: Int) -> tuple[SmallFloat, SmallFloat, SmallFloat, Bool]:
    """Read the parts of laws that questions about them need.

    Args:
        laws: As issued.
        series: int64 (n,), the series of the laws.
        row: int64 (..., n), places of the laws in a flat (S, H).

    Returns:
        `unit`, `scale` and `spread` of `Law`, float32 (..., n), (n,) and (..., n); bool (..., n), whether the law is unknown.
    """
    scale, unit = laws.scale.take(series), laws.level.reshape(-1).take(row)
    unknown = np.isnan(unit)
    if np.count_nonzero(unknown):
        unit[unknown] = 1.0
    unit += scale
    spread = laws.spread.reshape(-1).take(row)
    return unit.astype(np.float32), scale.astype(np.float32), spread.astype(np.float32), unknown
