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

from autoscaler.core.remembered import Remembered
from autoscaler.core.types import Float, Int


@dataclass(slots=True)
class LogHistograms(Remembered):
    """Histograms of C cells with B bins each.

    Attributes:
        weight: float64 (B, C), outcomes within each bin, older ones counted less.
        low, high: Outcomes from `low` to `high` have bins of their own; what is beyond counts in the last one.
        half_life: After so many outcomes of a cell an older one weighs half.
    """

    version: ClassVar[int] = 1
    weight: Float
    low: float
    high: float
    half_life: float

    @classmethod
    def empty(cls, cells: int, *, bins: int, low: float, high: float, half_life: float) -> LogHistograms:
        """Nothing is known."""
        return cls(np.zeros((bins, cells)), low, high, half_life)

    def take(self, cell: Int, outcome: Float) -> None:
        """Learn outcomes; those of one call are as old as each other, so their order does not matter.

        Args:
            cell: int64 (N,).
            outcome: float64 (N,); what is no positive number is left out.
        """
        known = (outcome > 0.0) & (outcome < np.inf)
        if not np.count_nonzero(known):
            return
        cell, outcome = cell[known], outcome[known]
        bins, cells = self.weight.shape
        place = (np.log(outcome) - np.log(self.low)) / (np.log(self.high) - np.log(self.low)) * bins
        place = np.minimum(np.maximum(place, 0.0), bins - 1.0).astype(np.int64)
        # Only what is touched is looked at: the histograms of a thousand fleets are a million numbers.
        touched, count = np.unique(cell, return_counts=True)
        self.weight[:, touched] *= 0.5 ** (count / self.half_life)
        where, added = np.unique(place * cells + cell, return_counts=True)
        self.weight[where // cells, where % cells] += added

    def evidence(self) -> Float:
        """Effective number of outcomes behind each cell: float64 (C,)."""
        return evidence(self.weight)

    def quantile(self, level: float) -> Float:
        """The outcome that is not exceeded with this probability: float64 (C,), NaN where nothing is known."""
        return quantile(self.weight, level, self.low, self.high)

    def carried_over(self, cells: Int) -> LogHistograms:
        """The histograms for other cells, each of which may have been one of these; these are not changed.

        Args:
            cells: int64 (N,), the cell that each was; -1 for a new one.
        """
        weight = np.zeros((len(self.weight), len(cells)))
        known = cells >= 0
        weight[:, known] = self.weight[:, cells[known]]
        return LogHistograms(weight, self.low, self.high, self.half_life)


def evidence(weight: Float) -> Float:
    """Sum of the bins of each cell: float64 (C,) of (B, C)."""
    total: Float = np.add.accumulate(weight, axis=0)[-1]
    return total


def quantile(weight: Float, level: float, low: float, high: float) -> Float:
    """The quantile of each cell's histogram: float64 (C,) of (B, C), NaN where a cell is empty.

    Within a bin the outcomes are taken to lie evenly in the logarithm.
    """
    bins, cells = weight.shape
    reached = np.add.accumulate(weight, axis=0)
    total = reached[-1]
    wanted = level * total
    # The first bin that reaches what is wanted; rounding may leave the last one a hair below it.
    at = np.minimum(np.count_nonzero(reached < wanted, axis=0), bins - 1)
    here = weight[at, np.arange(cells)]
    before = reached[at, np.arange(cells)] - here
    within = np.zeros(cells)
    np.divide(wanted - before, here, out=within, where=here > 0.0)
    within = np.minimum(np.maximum(within, 0.0), 1.0)
    value = low * np.exp((at + within) * (np.log(high / low) / bins))
    known: Float = np.where(total > 0.0, value, np.nan)
    return known
