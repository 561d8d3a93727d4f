"""Bands of VMs in which another model drives than for the fleet as a whole (`experts`).

What a fleet costs is the sum of what each VM costs that it holds, first to last, and so is what hindsight would have paid:
the least cost of a fleet separates by VM. The first VMs of a fleet are for what is always there, the last for rare crowds,
and seldom does one model know both best. So what every model would have cost is kept for the VMs up to each of
`BAND_TOPS`, too. In a band the model that is cheapest there drives, if that saves enough of what the whole fleet
costs; else the one that drives all of it.

Rules of this file: bands are weighed on one tick of each minute, since each takes as many passes as a whole fleet. Bounds are
the same for all fleets and never move. No reduction over lanes.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.habits import CROWD
from autoscaler.core.models import BAND_TOPS
from autoscaler.core.trial import Trial
from autoscaler.core.types import Float, Int, SmallFloat, SmallInt

EVERY_S = 60.0
"""How often bands are weighed."""
SAVED, EARLY_SAVED = 0.005, 0.02
"""A model drives in a band if it saves this share of what the fleet costs: the first, and the second over the days that
were seen."""


class Bands:
    """The bands of n columns.

    Args:
        most: int64 (n,), no column may have more VMs.
        start_cost: float32 (n,), of one start.
        tick_s: Length of a tick.
        models: How many.
    """

    def __init__(self, most: Int, start_cost: SmallFloat, tick_s: float, models: int) -> None:
        tops, columns = np.array(BAND_TOPS)[:, np.newaxis], len(most)
        self._columns = np.arange(columns)
        self._used = 1 + int(np.count_nonzero(tops < most.max()))
        # What a column can never have is no band of its own: its last one goes on for ever.
        self._tops = np.where(tops < most, tops, np.inf)[: self._used]
        self._small = self._tops.astype(np.float32)
        self._ends = np.minimum(self._tops, most).astype(np.int64)
        self._starts = np.concatenate([np.zeros_like(self._ends[:1]), self._ends[:-1]])
        self._start_cost = start_cost
        self._every = max(1, round(EVERY_S / tick_s))
        self._part = np.empty((models, columns), np.float32)
        self._under, self._cost = np.empty((models, columns)), np.empty((models, columns))

    def due(self, tick: int) -> bool:
        """Whether bands are weighed at this tick."""
        return tick % self._every == 0

    def charge(self, state: Trial, vms: SmallFloat, works: tuple[Float, Float]) -> None:
        """Charge the bands for a tick that is over.

        Args:
            state: Updated in place.
            vms: float32 (M, n), VMs that served; 0 in columns that are not charged.
            works: float64 (n,) each, VM-ticks of work, and had demand been more; 0 likewise.
        """
        part, few = self._part, tuple(work.astype(np.float32) for work in works)
        for top, paid, *lacking in zip(self._small, *state.below_lately, strict=False):
            np.add(paid, np.minimum(vms, top, out=part), out=paid)
            for work, missed in zip(few, lacking, strict=True):
                np.subtract(np.minimum(work, top), vms, out=part)
                np.maximum(part, 0.0, out=part)
                np.add(missed, part, out=missed)

    def charge_starts(self, state: Trial, ordered: SmallInt) -> None:
        """Charge the bands for what was ordered just now, int32 (M, n)."""
        at, lane = np.nonzero(ordered)
        after = (state.serving[at, lane] + state.coming[at, lane]).astype(np.float32)
        before = after - ordered[at, lane]
        for top, paid in zip(self._small[:, lane], state.below_lately[0], strict=False):
            paid[at, lane] += (np.minimum(after, top) - np.minimum(before, top)) * self._start_cost[lane]

    def settle(self, state: Trial) -> None:
        """Weigh what the last minutes have cost, as their last tick."""
        weight, scratch = state.weight * self._every, self._cost
        for of, lately in zip(state.below, state.below_lately, strict=True):
            for band in range(self._used):
                scratch[...] = lately[band]
                scratch *= weight
                of[band] += scratch
        state.below_lately.fill(0.0)

    def fear(self, state: Trial, left: SmallFloat, highest: SmallFloat, share: Float) -> None:
        """Charge the bands for a crowd that was never seen.

        Args:
            state: Updated in place.
            left: float32 (M, n), what it would leave.
            highest: float32 (n,), the highest demand ever.
            share: float64 (n,), for how many ticks, by weight, as if it were demand that has nearly been.
        """
        part = self._part
        for top, nearly in zip(self._small, state.below[2], strict=False):
            above = np.maximum(np.maximum(top, highest), np.float32(1e-9))
            beyond = np.log(np.maximum(np.float32(CROWD) * highest / above, 1.0)) * highest
            beyond += np.maximum(highest - top, 0.0)
            np.subtract(left, beyond, out=part)
            np.maximum(part, 0.0, out=part)
            scratch = self._cost
            scratch[...] = part
            scratch *= share
            np.add(nearly, scratch, out=nearly)

    def choose(self, state: Trial, shortage: Float, doubt: Float, whole: Float, days: Float) -> None:
        """Say who drives in each band.

        Args:
            state: Updated in place; who drives the whole was chosen before.
            shortage: float64 (n,), the price of shortage.
            doubt: float64 (n,), how much what has nearly been counts.
            whole: float64 (n,), what the fleet would have cost by that model.
            days: float64 (n,), that were seen.
        """
        least = whole * (SAVED + EARLY_SAVED / days)
        # Who is allowed more from now on has had no band above this one.
        state.below[:, self._used :] = state.below[:, self._used - 1 : self._used]
        state.drivers = np.tile(state.driver, (len(BAND_TOPS), 1))
        cost, under = self._cost, self._under
        under.fill(0.0)
        for band in range(self._used):
            paid, missed, nearly = state.below[:, band]
            np.multiply(nearly, doubt, out=cost)
            cost += missed
            cost *= shortage
            cost += paid
            under -= cost
            best = under.argmax(axis=0)
            saved = under[best, self._columns] - under[state.driver, self._columns]
            state.drivers[band] = np.where(saved > least, best, state.driver)
            under[...] = cost

    def wishes(self, state: Trial, want: SmallInt) -> Int:
        """Up to and down to how many VMs, by who drives in each band: int64 (2, n).

        Args:
            state: Who drives.
            want: int32 (2, M, n), what each model wants.
        """
        wanted = want[:, state.drivers[: self._used], self._columns].astype(np.int64)
        np.minimum(wanted, self._ends, out=wanted)
        wanted -= self._starts
        np.maximum(wanted, 0, out=wanted)
        found: Int = np.add.reduce(wanted, axis=1)
        return found
