"""Selects fewer ticks for a page without losing an extreme.

Rules of this file: the result is a subset of the real ticks, never a mean. If a run is too long to be shown completely,
every bucket keeps the ticks with the lowest and the highest value of each drawn series, after Jugel, Jerzak, Hackenbroich
and Markl, "M4: A Visualization-Oriented Time Series Data Aggregation" (2014). Ticks that a reader will look at one by one
are all kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float

Rows: TypeAlias = NDArray[np.int64]

_OVERVIEW = 0.7
"""Share of the rows that extremes may take. The rest is for windows that are kept whole."""


def extremes(series: Sequence[Float], buckets: int) -> Rows:
    """Return the rows at which a series is lowest or highest within its bucket, and the first and the last row.

    Args:
        series: float64 (n,) each, NaN where unknown. The first unknown row of a bucket is kept too, so that a gap stays
            visible.
        buckets: Number of equally long parts to divide the n rows into, at least 1.

    Returns:
        int64, ascending, at most `buckets` x 3 x `len(series)` + 2 rows.
    """
    n = len(series[0])
    if n == 0:
        return np.empty(0, np.int64)
    edges = np.unique(np.linspace(0, n, min(buckets, n) + 1).round().astype(np.int64))
    kept = {0, n - 1}
    for values in series:
        unknown = np.isnan(values)
        low, high = np.where(unknown, np.inf, values), np.where(unknown, -np.inf, values)
        for begin, end in pairwise(edges.tolist()):
            kept.add(begin + int(np.argmin(low[begin:end])))
            kept.add(begin + int(np.argmax(high[begin:end])))
            if unknown[begin:end].any():
                kept.add(begin + int(np.argmax(unknown[begin:end])))
    return np.array(sorted(kept), np.int64)


def chosen_rows(series: Sequence[Float], windows: Sequence[tuple[int, int]], most: int) -> Rows:
    """Return the rows that a page shows: all rows if they fit, otherwise the extremes and as many whole windows as fit.

    Args:
        series: float64 (n,) each, whose extremes are kept.
        windows: Row ranges [begin, end) to keep whole, the most important first. Windows that no longer fit are left out.
        most: Number of rows that fit.

    Returns:
        int64, ascending.
    """
    n = len(series[0])
    if n <= most:
        return np.arange(n, dtype=np.int64)
    buckets = max(most // 2, 1)
    while len(rows := extremes(series, buckets)) > _OVERVIEW * most and buckets > 1:
        buckets //= 2
    kept = np.zeros(n, bool)
    kept[rows] = True
    room = most - int(kept.sum())
    for begin, end in windows:
        more = int((~kept[begin:end]).sum())
        if more <= room:
            kept[begin:end] = True
            room -= more
    return np.flatnonzero(kept)
