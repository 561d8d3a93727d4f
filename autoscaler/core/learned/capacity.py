"""Capacity of one VM, learned per fleet from the work and utilisation that VMs in service report.

For each band of utilisation, the median of work per utilisation is kept as a decaying histogram. A line through the bands' medians,
whose slope is the median of all pairwise slopes (Theil and Sen), gives what a VM would do at the allowed utilisation: neither bad
VMs nor the idle load of VMs distort it. If too few bands are known, the overall median is used instead.

Readings from saturated VMs are not used: their work is hidden by their own limit and is only a lower bound. The planned capacity
moves towards the learned one by a bounded share per day, within bounds around the policy's guess.

Rules of this file: lanes do not see each other; sorting is along bands only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autoscaler.core.learned.histograms import LogHistograms, evidence, quantile
from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Float, Int

BANDS = 9
LOWEST = 0.1
"""Lower utilisation says little about what a VM can do; above it, bands are a tenth wide each."""
BINS = 96
REACH = 16.0
"""Work per utilisation is resolved between 1/16 and 16 times the policy's guess when learning began."""
HALF_LIFE = 20_000.0
"""Number of readings of a band after which an older one has half its weight."""
BAND_KNOWN, ENOUGH = 30.0, 300.0
"""Effective numbers of readings that it takes for a band, and for a fleet, to be known."""
FEWEST_BANDS = 3
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class CapacityParams:
    """How capacities are learned, per lane.

    Attributes:
        guess: float64 (L,), work per second of one VM according to the policy.
        at: float64 (L,), utilisation up to which a VM meets its objective.
        saturation: float64 (L,), utilisation from which a VM's own limit hides its work.
        within: float64 (L,), the planned capacity stays within this factor of the guess.
        most_per_day: float64 (L,), share by which the planned capacity moves in a day at most.
    """

    guess: Float
    at: Float
    saturation: Float
    within: Float
    most_per_day: Float


@dataclass(slots=True)
class Capacities(Remembered):
    """What was learned about the VMs of L lanes.

    Attributes:
        ratio: Work per utilisation over `unit`; cells are bands × lanes, the lanes fastest.
        unit: float64 (L,), the guess when learning began; NaN before that.
        planned: float64 (L,), planned capacity of one VM, work per second; NaN before it first moved.
        hidden, read: float64 (L,), fading counts of readings of saturated VMs and of all readings.
    """

    version: ClassVar[int] = 1
    ratio: LogHistograms
    unit: Float
    planned: Float
    hidden: Float
    read: Float

    @classmethod
    def empty(cls, lanes: int) -> Capacities:
        """A state in which nothing is known."""
        ratio = LogHistograms.empty(
            BANDS * lanes, bins=BINS, low=1.0 / REACH, high=REACH, half_life=HALF_LIFE
        )
        return cls(ratio, np.full(lanes, np.nan), np.full(lanes, np.nan), np.zeros(lanes), np.zeros(lanes))

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {"ratio": LogHistograms}

    def take(self, params: CapacityParams, lane: Int, work: Float, utilisation: Float) -> None:
        """Learn from the readings of one moment.

        Args:
            params: Settings of L lanes.
            lane: int64 (N,), lane of each reading.
            work: float64 (N,), work per second of one VM.
            utilisation: float64 (N,), utilisation of that VM at the same time; NaN if not known.
        """
        lanes = len(self.unit)
        possible = (work > 0.0) & (work < np.inf) & (utilisation >= LOWEST) & (utilisation < np.inf)
        lane, work, utilisation = lane[possible], work[possible], utilisation[possible]
        hidden = utilisation >= params.saturation.take(lane)
        read = np.bincount(lane, minlength=lanes)
        fade = 0.5 ** (read / (HALF_LIFE * BANDS))
        self.read = self.read * fade + read
        self.hidden = self.hidden * fade + np.bincount(lane[hidden], minlength=lanes)
        seen = read > 0
        self.unit = np.where(np.isnan(self.unit) & seen, params.guess, self.unit)
        lane, work, utilisation = lane[~hidden], work[~hidden], utilisation[~hidden]
        band = np.minimum(((utilisation - LOWEST) / 0.1 + 1e-9).astype(np.int64), BANDS - 1)
        self.ratio.take(band * lanes + lane, work / utilisation / self.unit.take(lane))

    def evidence(self) -> Float:
        """Effective number of readings behind each lane: float64 (L,)."""
        return evidence(self._pooled())

    def hidden_share(self) -> Float:
        """Share of the readings in which a VM was saturated: float64 (L,), 0 without readings."""
        return self.hidden / np.maximum(self.read, 1.0)

    def spread(self) -> Float:
        """Half the interquartile range of work per utilisation, relative to its median: float64 (L,), NaN without readings."""
        pooled = self._pooled()
        low, high = (quantile(pooled, level, 1.0 / REACH, REACH) for level in (0.25, 0.75))
        half: Float = 0.5 * (high - low) / quantile(pooled, 0.5, 1.0 / REACH, REACH)
        return half

    def learned(self, params: CapacityParams) -> Float:
        """Work per second of one VM at the allowed utilisation: float64 (L,), NaN until there are enough readings."""
        lanes = len(self.unit)
        bands = self.ratio.evidence().reshape(BANDS, lanes)
        middle = (LOWEST + 0.1 * (np.arange(BANDS) + 0.5))[:, np.newaxis]
        work = np.where(bands >= BAND_KNOWN, self.ratio.quantile(0.5).reshape(BANDS, lanes) * middle, np.nan)
        first, second = np.triu_indices(BANDS, 1)
        slope = _median((work[second] - work[first]) / (middle[second] - middle[first]))
        on_line = _median(work - slope * middle) + slope * params.at
        plain = quantile(self._pooled(), 0.5, 1.0 / REACH, REACH) * params.at
        lined = (
            (np.count_nonzero(bands >= BAND_KNOWN, axis=0) >= FEWEST_BANDS) & (slope > 0.0) & (on_line > 0.0)
        )
        enough = self.evidence() >= ENOUGH
        found: Float = np.where(enough, np.where(lined, on_line, plain) * self.unit, np.nan)
        return found

    def move(self, params: CapacityParams, elapsed_s: Float) -> Float:
        """Move the planned capacity towards the learned one, and return it: float64 (L,), the guess at first.

        Args:
            params: Settings of L lanes.
            elapsed_s: float64 (L,), time since the last move, as far as it should count.
        """
        now = np.where(np.isnan(self.planned), params.guess, self.planned)
        step = (1.0 + params.most_per_day) ** (np.maximum(elapsed_s, 0.0) / DAY_S)
        learned = self.learned(params)
        towards = np.where(np.isnan(learned), now, np.minimum(np.maximum(learned, now / step), now * step))
        low, high = params.guess / params.within, params.guess * params.within
        # A new guess takes effect at once if the planned capacity is beyond its bounds.
        self.planned = np.minimum(np.maximum(towards, low), high)
        return self.planned

    def carried_over(self, lanes: Int) -> Capacities:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        new = Capacities.empty(len(lanes))
        bands = np.arange(BANDS, dtype=np.int64)[:, np.newaxis]
        cells = np.where(lanes >= 0, bands * len(self.unit) + lanes, -1)
        new.ratio = self.ratio.carried_over(cells.ravel())
        known = lanes >= 0
        for name in ("unit", "planned", "hidden", "read"):
            getattr(new, name)[known] = getattr(self, name)[lanes[known]]
        return new

    def of_lane(self, lane: int) -> Float:
        """Everything learned about one lane: float64 (BINS * BANDS + 4,), a copy."""
        own = [self.unit[lane], self.planned[lane], self.hidden[lane], self.read[lane]]
        return np.concatenate([self.ratio.weight[:, lane :: len(self.unit)].ravel(), own])

    def put_lane(self, lane: int, learned: Float) -> None:
        """Restore what `of_lane` returned."""
        self.ratio.weight[:, lane :: len(self.unit)] = learned[:-4].reshape(BINS, BANDS)
        self.unit[lane], self.planned[lane], self.hidden[lane], self.read[lane] = learned[-4:].tolist()

    def _pooled(self) -> Float:
        """Histograms of each lane over all its bands: float64 (BINS, L)."""
        lanes = len(self.unit)
        total = self.ratio.weight[:, :lanes]
        for band in range(1, BANDS):
            total = total + self.ratio.weight[:, band * lanes : (band + 1) * lanes]
        return total


def _median(rows: Float) -> Float:
    """The median along the first axis, ignoring NaN: float64 (L,), NaN if all values are NaN."""
    ordered = np.sort(rows, axis=0)
    count = np.count_nonzero(~np.isnan(rows), axis=0)
    lanes = np.arange(rows.shape[1])
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    middle = 0.5 * (ordered[low, lanes] + ordered[np.minimum(high, len(rows) - 1), lanes])
    median: Float = np.where(count > 0, middle, np.nan)
    return median
