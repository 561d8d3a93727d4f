"""The bin grid of a predictive distribution, for the modules that build one.

A predictive distribution is a histogram over positions `u = arsinh(log((demand + scale) / (level + scale)) / spread)`. Positions are
evenly spaced where outcomes are likely and grow exponentially in the tails, so 64 bins resolve a tenth of a spread near the level
and still cover a thousandfold jump; and the bin of any demand is a closed form, without a search.

Rules of this file: element-wise only, no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Float, Laws

PLACES: Float = (LAW_LOW + LAW_STEP * np.arange(LAW_BINS + 1)).astype(np.float64)
"""Positions `u` of the bin edges, (LAW_BINS + 1,)."""
EDGES: Float = np.sinh(PLACES)
"""The bin edges as log ratios in units of the spread."""
MOST_LOG = 60.0
"""Bound on log ratios, which no real one reaches; its exponential fits float32."""


class LawPage(NamedTuple):
    """The laws of T consecutive ticks, for S series.

    Attributes:
        laws: Laws over T * S series: those of the first tick, then those of the next, and so on.
        ticks: T.
        first_tick: Number of the first tick.
        demand: float64 (T, S), demand that lanes will probably see in these ticks, NaN where unknown; None if none is known.
    """

    laws: Laws
    ticks: int
    first_tick: int = -1
    demand: Float | None = None


@dataclass(frozen=True, slots=True)
class PagedLaws(Laws):
    """The laws of one tick, in a replay that has computed the laws of the ticks around it beforehand.

    With few laws, evaluating a whole page at once takes far less time than tick by tick. A page serves that purpose only: no
    result may depend on it.

    Attributes:
        page: The page that contains these laws.
        row: The position of this tick in it.
    """

    page: LawPage
    row: int
