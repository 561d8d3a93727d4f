"""Histograms of outcomes relative to forecasts, and how a predictive distribution is read from them.

Each series has one row of bins per cell, over positions of the log ratio of outcome to level in spreads (`core.laws`). A cell is
what was known when the forecast was issued: the regime, and within it the burst hazard and how high demand is. A small cell borrows
from its parent, the parent from all outcomes, and these from a prior with a power-law tail: a parent's weight is a number of
pseudo-counts, so a cell with enough evidence dominates. The first bin is for no demand at all, wherever that is.

Forgetting is by weight: each tick a new outcome weighs more than the earlier ones by a constant factor, so one number is added
instead of multiplying a whole histogram. Weights are scaled down before they overflow.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.law_grid import EDGES
from autoscaler.core.types import LAW_BINS, Bool, Float, Int, SmallFloat

REGIMES = 6
"""No burst, and five ages of a burst."""
LEVELS, GROWTHS, HAZARDS = 4, 3, 3
"""Classes of the level relative to usual demand without a burst, of growth within a burst, and of the hazard of a burst."""
CELLS = LEVELS * HAZARDS + (REGIMES - 1) * GROWTHS
PARENTS = HAZARDS + REGIMES - 1
ROWS = CELLS + PARENTS + 1
"""Rows per series: all cells, their parents, and one row for all outcomes."""
PARENT_WEIGHT, WHOLE_WEIGHT, PRIOR_WEIGHT = 8.0, 4.0, 3.0
"""Pseudo-counts that a cell borrows from its parent, from all outcomes, and from the prior."""

PARENT_OF: Int = np.array(
    [*(cell // LEVELS for cell in range(LEVELS * HAZARDS))]
    + [HAZARDS + regime for regime in range(REGIMES - 1) for _ in range(GROWTHS)]
)
"""int64 (CELLS,), the parent of each cell: its hazard class without a burst, else its regime."""
ROWS_OF: Int = np.stack([np.arange(CELLS), CELLS + PARENT_OF, np.full(CELLS, ROWS - 1)], axis=1)
"""int64 (CELLS, 3), the rows of each cell: its own, its parent's, and that of all outcomes."""
REGIME_OF: Int = np.maximum(PARENT_OF - (HAZARDS - 1), 0)
"""int64 (CELLS,), the regime of each cell."""


def _prior() -> SmallFloat:
    """Return the prior's bins, float32 (LAW_BINS,), with a sum of `PRIOR_WEIGHT`.

    The log ratio is symmetric around 0 and exceeds s spreads with probability 0.45 exp(-s) + 0.05 / (1 + s / 2)^2: a Laplace
    distribution with a tail that falls as a power.
    """
    size = np.abs(EDGES)
    beyond = 0.5 * (0.9 * np.exp(-size) + 0.1 / (1.0 + size / 2.0) ** 2)
    below = np.where(EDGES < 0.0, beyond, 1.0 - beyond)
    below[0], below[1], below[-1] = 0.0, 0.0, 1.0
    return (PRIOR_WEIGHT * np.diff(below)).astype(np.float32)


PRIOR: SmallFloat = _prior()
"""The bins of the prior."""


def survival(tables: SmallFloat, whole: SmallFloat, totals: Float, rows: Int, weight: Float) -> SmallFloat:
    """Return the probability of an outcome above each lower edge: float32 (LAW_BINS, S, H).

    The mass of a bin is the cell's own, counted in present outcomes, plus `PARENT_WEIGHT` times the parent's share,
    `WHOLE_WEIGHT` times the share of all outcomes, and the prior. The probability falls along the first axis, which is that
    of bins so that work bin by bin covers all series at once. The first two are equal: the first bin counts outcomes without
    any demand, which lie above no edge.

    Args:
        tables: float32 (S * ROWS, H, LAW_BINS), the histograms.
        whole: float32 (S, H, LAW_BINS), the rows of all outcomes among them.
        totals: float64 (S * ROWS, H), sums of the bins.
        rows: int64 (S, 3), flat rows of each series' cell, its parent and all outcomes.
        weight: float64 (S,), weight of a present outcome.
    """
    of = totals.take(rows, axis=0)
    np.maximum(of, _LEAST_TOTAL, out=of)
    of[:, 0] = weight[:, np.newaxis]
    share = np.divide(_WEIGHTS, of, out=of).astype(np.float32)[..., np.newaxis]
    series, horizons, bins = whole.shape
    beyond = np.empty((bins, series, horizons), np.float32)
    if series <= _FEW:
        found = tables.take(rows, axis=0)
        found *= share
        mass = found[:, 0]
        mass += found[:, 1]
        mass += found[:, 2]
        beyond[:] = mass.transpose(2, 0, 1)
    else:
        # The same in blocks of series, so that the data stays in the cache.
        room = np.empty((2, _AT_ONCE, horizons, bins), np.float32)
        for first in range(0, series, _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            mine, part = rows[some], share[some]
            mass, borrowed = room[:, : len(mine)]
            tables.take(mine[:, 0], axis=0, out=mass, mode="clip")
            mass *= part[:, 0]
            tables.take(mine[:, 1], axis=0, out=borrowed, mode="clip")
            borrowed *= part[:, 1]
            mass += borrowed
            mass += np.multiply(whole[some], part[:, 2], out=borrowed)
            _bins_first(mass, beyond[:, some])
    flat = beyond.reshape(bins, -1)
    flat += _PRIOR
    sum_up(flat)
    flat /= flat[0].copy()
    flat[0] = flat[1]
    return beyond


_LEAST_TOTAL = np.array(1e-30)
_WEIGHTS: Float = np.array([1.0, PARENT_WEIGHT, WHOLE_WEIGHT])[:, np.newaxis]
_PRIOR = PRIOR[:, np.newaxis]


def _bins_first(mass: SmallFloat, found: SmallFloat) -> None:
    """Copy from (S, H, LAW_BINS) into (LAW_BINS, S, H), in blocks."""
    horizons = mass.shape[1]
    # In blocks of rows, because one bin of all rows would not fit the nearest cache.
    length = max(1, _TURNED // horizons)
    for first in range(0, len(mass), length):
        some = slice(first, first + length)
        found[:, some] = mass[some].transpose(2, 0, 1)


def sum_up(values: SmallFloat) -> None:
    """Replace each value along the first axis by the sum of itself and all after it, added from the last to the first."""
    if values.size <= _FEW * len(values):
        backwards = values[::-1]
        np.add.accumulate(backwards, axis=0, out=backwards)
        return
    # The same sums with longer inner loops.
    rows = list(values)
    after = rows.pop()
    while rows:
        here = rows.pop()
        here += after
        after = here


_FEW, _TURNED, _AT_ONCE = 64, 125, 125
"""Up to `_FEW` series or columns, one numpy call for all is faster. `_TURNED` rows are transposed at a time, and the rows of
`_AT_ONCE` series are read together."""


def flat(totals: Int, place: Float, none: Bool) -> Int:
    """Return the places in flat tables at which outcomes are counted: int64 (N, 3).

    Args:
        totals: int64 (N, 3), the places of their rows in the flat sums.
        place: float64 (N,), positions in bins; clipped into range, and overwritten.
        none: bool (N,), whether there was no demand.
    """
    np.maximum(place, _FIRST_BIN, out=place)
    np.minimum(place, _LAST_BIN, out=place)
    if np.count_nonzero(none):
        np.copyto(place, _NONE_BIN, where=none)
    bins = np.empty(totals.shape, np.int64)
    bins[:] = place.astype(np.int64)[:, np.newaxis]
    found: Int = totals * _BINS
    found += bins
    return found


_BINS = np.array(LAW_BINS)
_NONE_BIN, _FIRST_BIN, _LAST_BIN = np.array(0.0), np.array(1.0), np.array(LAW_BINS - 1.0)
