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
"""Places of the edges, (LAW_BINS + 1,)."""
EDGES: Float = np.sinh(PLACES)
"""The same in spreads of the log ratio."""
MOST_LOG = 60.0
"""Log ratios beyond this are never reached; exp of it fits 32 bits."""


class Page(NamedTuple):
    """The laws of some ticks that follow each other, T of S series.

    Attributes:
        laws: Of T * S series: those of the first tick, then those of the next.
        ticks: How many.
        first_tick: The first of them.
        demand: float64 (T, S), of which lanes will probably see at these ticks; NaN where unknown. None where nobody knows.
    """

    laws: Laws
    ticks: int
    first_tick: int = -1
    demand: Float | None = None


@dataclass(frozen=True, slots=True)
class PagedLaws(Laws):
    """Laws of a tick in a replay that made those of the ticks around it beforehand.

    What is asked of laws in the same way tick by tick takes far less asked of a whole page, where laws are few. That is all
    that a page is for: no answer may depend on it.

    Attributes:
        page: In which they are.
        row: At which of its ticks.
    """

    page: Page
    row: int
