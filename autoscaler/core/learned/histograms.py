"""Decaying log histograms: the distribution of a positive quantity, learned online in bounded memory.

Bins are even in the logarithm, so a quantile is as exact for seconds as for hours: to within the width of a bin. Every outcome
reduces the weight of older ones in its cell a little, so a cell with many outcomes forgets faster than one with few, which has
nothing else to go by.

Rules of this file: element-wise operations and accumulation along bins only; cells do not see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Float, Int


@dataclass(slots=True)
class LogHistograms(Remembered):
    """Decaying histograms of C cells with B bins each.

    Attributes:
        weight: float64 (B, C), outcomes in each bin; older ones count less.
        low, high: Range that the bins divide; an outcome beyond it counts in the first or last bin.
        half_life: Number of outcomes of a cell after which an older one has half its weight.
    """

    version: ClassVar[int] = 1
    weight: Float
    low: float
    high: float
    half_life: float

    @classmethod
    def empty(cls, cells: int, *, bins: int, low: float, high: float, half_life: float) -> LogHistograms:
        """Histograms without outcomes."""
        return cls(np.zeros((bins, cells)), low, high, half_life)

    def take(self, cell: Int, outcome: Float) -> None:
        """Add outcomes. All outcomes of one call are equally old, so their order does not matter.

        Args:
            cell: int64 (N,), the cell of each outcome.
            outcome: float64 (N,); values that are not positive and finite are ignored.
        """
        known = (outcome > 0.0) & (outcome < np.inf)
        if not np.count_nonzero(known):
            return
        cell, outcome = cell[known], outcome[known]
        bins, cells = self.weight.shape
        place = (np.log(outcome) - np.log(self.low)) / (np.log(self.high) - np.log(self.low)) * bins
        place = np.minimum(np.maximum(place, 0.0), bins - 1.0).astype(np.int64)
        # Update only the touched cells: the histograms of a thousand fleets are a million numbers.
        touched, count = np.unique(cell, return_counts=True)
        self.weight[:, touched] *= 0.5 ** (count / self.half_life)
        where, added = np.unique(place * cells + cell, return_counts=True)
        self.weight[where // cells, where % cells] += added

    def evidence(self) -> Float:
        """Effective number of outcomes behind each cell: float64 (C,)."""
        return evidence(self.weight)

    def quantile(self, level: float) -> Float:
        """The outcome that is not exceeded with probability `level`: float64 (C,), NaN for a cell without outcomes."""
        return quantile(self.weight, level, self.low, self.high)

    def carried_over(self, cells: Int) -> LogHistograms:
        """Return the histograms of other cells, each new or continuing one of these, which are not changed.

        Args:
            cells: int64 (N,), the cell that each continues; -1 for a new cell.
        """
        weight = np.zeros((len(self.weight), len(cells)))
        known = cells >= 0
        weight[:, known] = self.weight[:, cells[known]]
        return LogHistograms(weight, self.low, self.high, self.half_life)


def evidence(weight: Float) -> Float:
    """The sum of each cell's bins: float64 (C,) from (B, C)."""
    total: Float = np.add.accumulate(weight, axis=0)[-1]
    return total


def quantile(weight: Float, level: float, low: float, high: float) -> Float:
    """The quantile of each cell's histogram: float64 (C,) from (B, C), NaN if the cell is empty.

    Outcomes within a bin are assumed to be spread evenly in the logarithm.
    """
    bins, cells = weight.shape
    reached = np.add.accumulate(weight, axis=0)
    total = reached[-1]
    wanted = level * total
    # The first bin that reaches the wanted sum; rounding may leave the last bin just below it.
    at = np.minimum(np.count_nonzero(reached < wanted, axis=0), bins - 1)
    here = weight[at, np.arange(cells)]
    before = reached[at, np.arange(cells)] - here
    within = np.zeros(cells)
    np.divide(wanted - before, here, out=within, where=here > 0.0)
    within = np.minimum(np.maximum(within, 0.0), 1.0)
    value = low * np.exp((at + within) * (np.log(high / low) / bins))
    known: Float = np.where(total > 0.0, value, np.nan)
    return known
