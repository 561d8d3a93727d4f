"""How many VMs earn more than they cost: a predictive law read as a number of VMs.

The k-th VM of capacity c serves `W_k = (E[(D - (k-1)c)+] - E[(D - kc)+]) / c` of a VM's work, so at a price p of
unserved work it is worth p * W_k VM-ticks a tick. W falls in k, so the VMs that earn more than a price are
counted, not searched for: the newsvendor's rule for whole VMs, which loses nothing to rounding in small fleets.

Rules of this file: element-wise only, no state. A law is unknown where its level is NaN; nothing is worth a VM there.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.laws import EDGES, MOST_LOG
from autoscaler.core.rules import ROUNDING
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, MOST_VMS, Float, Horizon, Int, Laws, SmallFloat

_HALVES = tuple(LAW_BINS >> shift for shift in range(1, LAW_BINS.bit_length()))
_FEWEST = 1e-300


class Worth:
    """What VMs are worth under some laws, for lanes that read them.

    Args:
        series: int64 (L,), the series of each lane.
        capacity: float64 (L,), work per second of one VM.
        horizons: (Q,), the law of each question; several questions may be about one law.
    """

    def __init__(self, series: Int, capacity: Float, horizons: tuple[Horizon, ...]) -> None:
        self._series = series
        self._capacity = capacity
        self._row = series * len(Horizon) + np.array(horizons, np.int64)[:, np.newaxis]
        self._base = self._row * (LAW_BINS + 1)

    def vms(self, laws: Laws, share: Float) -> Int:
        """Of how many VMs each serves at least this share of its work: int64 (Q, L).

        Args:
            laws: As issued.
            share: float64 (Q, L), 0..1; above 1 for no VM.
        """
        scale = laws.scale.take(self._series)
        unit = laws.level.reshape(-1).take(self._row)
        unknown = np.isnan(unit)
        unit = np.where(unknown, 1.0, unit)
        unit += scale
        spread = laws.spread.reshape(-1).take(self._row)
        excess = laws.excess.reshape(-1)

        def edge(at: Int) -> Float:
            found: Float = spread * EDGES.take(at)
            np.minimum(found, MOST_LOG, out=found)
            np.exp(found, out=found)
            found *= unit
            found -= scale
            return np.maximum(found, 0.0, out=found)

        # Bins whose outcomes are exceeded with at least this probability.
        count = np.zeros(self._row.shape, np.int64)
        for half in _HALVES:
            at = count + (half - 1)
            fall = self._fall(excess, at)
            width = edge(at + 1)
            width -= edge(at)
            width *= share
            count += half * (fall >= width)
        # Within the bins around, the probability falls evenly from middle to middle.
        upper = np.minimum(count, LAW_BINS - 1)
        lower = np.maximum(upper - 1, 0)
        middle = edge(upper)
        first, last = edge(lower), edge(upper + 1)
        # Bins below no demand have no width, and an outcome beyond them is certain.
        above = self._fall(excess, lower) / np.maximum(middle - first, _FEWEST)
        above = np.where(middle > first, above, 1.0)
        below = self._fall(excess, upper) / np.maximum(last - middle, _FEWEST)
        into = (above - share) / np.maximum(above - below, _FEWEST)
        into = np.minimum(np.maximum(into, 0.0), 1.0)
        reached = 0.5 * (first + middle) + into * 0.5 * (last - first)
        reached = np.where(count > 0, reached, first)
        surely = np.floor(reached / self._capacity + ROUNDING)
        np.minimum(surely, MOST_VMS - 1.0, out=surely)
        # One VM more reaches over that point, and is worth it or not by all that it would serve.
        low = self._beyond(excess, surely * self._capacity, unit, scale, spread)
        low -= self._beyond(excess, (surely + 1.0) * self._capacity, unit, scale, spread)
        surely += low >= share * self._capacity
        surely *= ~unknown
        return surely.astype(np.int64)

    def share(self, laws: Laws, vms: Int) -> Float:
        """What the last of so many VMs serves of its work: float64 (Q, L); NaN where the law is unknown.

        Args:
            laws: As issued.
            vms: int (Q, L), at least 1.
        """
        scale = laws.scale.take(self._series)
        unit = laws.level.reshape(-1).take(self._row)
        unknown = np.isnan(unit)
        unit = np.where(unknown, 1.0, unit) + scale
        spread = laws.spread.reshape(-1).take(self._row)
        excess = laws.excess.reshape(-1)
        served = self._beyond(excess, (vms - 1.0) * self._capacity, unit, scale, spread)
        served -= self._beyond(excess, vms * self._capacity, unit, scale, spread)
        served /= self._capacity
        return np.where(unknown, np.nan, served)

    def _fall(self, excess: SmallFloat, at: Int) -> Float:
        """How much less is expected beyond the next edge."""
        cell = at + self._base
        return excess.take(cell).astype(np.float64) - excess.take(cell + 1)

    def _beyond(self, excess: SmallFloat, demand: Float, unit: Float, scale: Float, spread: Float) -> Float:
        """Expected work per second beyond a demand, straight from edge to edge."""
        place = np.log((demand + scale) / unit)
        place /= spread
        np.arcsinh(place, out=place)
        place -= LAW_LOW
        place /= LAW_STEP
        at = np.minimum(np.maximum(place, 0.0), LAW_BINS - 1.0).astype(np.int64)
        low = np.exp(np.minimum(spread * EDGES.take(at), MOST_LOG)) * unit - scale
        np.maximum(low, 0.0, out=low)
        high = np.exp(np.minimum(spread * EDGES.take(at + 1), MOST_LOG)) * unit - scale
        np.maximum(high, 0.0, out=high)
        cell = at + self._base
        first, last = excess.take(cell).astype(np.float64), excess.take(cell + 1)
        into = (demand - low) / np.maximum(high - low, _FEWEST)
        found = first + np.minimum(into, 1.0) * (last - first)
        # Below the first edge an outcome is certain.
        return np.where(demand < low, first + (low - demand), found)
