"""Bands of VMs in which a different model drives than for the fleet as a whole (`competition`).

The cost of a fleet is the sum of the costs of its VMs, first to last, and so is the cost in hindsight: the least cost of a fleet
separates by VM. The first VMs of a fleet serve the base load, the last ones rare crowds, and one model is seldom best for both. So
the cost of every model is also kept for the VMs up to each of `BAND_TOPS`. In a band, the cheapest model there drives if that saves
enough of the whole fleet's avoidable cost; otherwise the fleet's driving model does. With a promised share, one model drives all
bands: the price is found from what whole models would have left unserved (`objective`), and a mix would leave more.

Rules of this file: bands are charged on one tick in three minutes and compared about once an hour, because each band takes as many
passes as a whole fleet. Bounds are the same for all fleets and never move. No reduction over lanes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import one_of
from autoscaler.core.objective.competition_state import AS_THE_WHOLE, ShadowType, Trial
from autoscaler.core.objective.habits import CROWD
from autoscaler.core.objective.models import BAND_TOPS
from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

EVERY_S = 180.0
"""Length of a turn, in seconds. Bands are charged in one tick of each turn. Its place differs from turn to turn, so that
demand which comes at certain minutes counts for its share of the time."""
_TURN_STEP = math.sqrt(3.0)
"""The place of that tick in turn k is the fractional part of k times this number. Such fractions are evenly distributed for
an irrational number (Weyl 1916). For this one they are also even over the turns at the same minute of each hour, day or
week, which are 20, 480 and 3,360 turns apart."""
CHOICE_S = 3300.0
"""How often, in seconds, the drivers of bands may change: a multiple of `competition.CHOICE_S`, but not a whole hour. So the
changes fall on different minutes of the hour, because crowds come at certain ones."""
SAVED, EARLY_SAVED = 0.005, 0.5
"""A model drives in a band if it saves this share of the fleet's avoidable cost, which is the cost beyond the least possible
in hindsight: `SAVED` plus `EARLY_SAVED` divided by the square of the days seen, because a first crowd says little about
the next."""


class Drivers(NamedTuple):
    """The models that drive n columns in B bands.

    Attributes:
        whole: int64 (n,), the model that drives the fleet.
        bands: int64 (B, n), the model that drives in each band, or `AS_THE_WHOLE`.
        ends: int64 (B, n), the last VM of each band.
    """

    whole: Int
    bands: Int
    ends: Int

    def of(self, vms: Int, column: Int) -> Int:
        """Return the model that drives each of these VMs, counted from 1, in these columns: int64 (k,) from (k,) each."""
        band = np.minimum(np.count_nonzero(vms > self.ends.take(column, axis=1), axis=0), len(self.ends) - 1)
        found = self.bands[band, column]
        return np.where(found == AS_THE_WHOLE, self.whole.take(column), found)


class Bands:
    """The bands of n columns.

    Args:
        most: int64 (n,), the policies' maxima of VMs.
        start_cost: float32 (n,), price of one start, in VM-ticks.
        promised: bool (n,), whether a served share is promised; one model then drives all bands.
        tick_s: Length of a tick.
        models: Number of models.
    """

    def __init__(self, most: Int, start_cost: SmallFloat, promised: Bool, tick_s: float, models: int) -> None:
        tops, columns = np.array(BAND_TOPS)[:, np.newaxis], len(most)
        self._indices = np.arange(columns)
        self._bands_used = 1 + int(np.count_nonzero(tops < most.max()))
        # A column has no bands beyond its maximum: its last band has no upper end.
        self._tops = np.where(tops < most, tops, np.inf)[: self._bands_used].astype(np.float32)
        self._limits = one_of(self._tops)
        self._integer_tops: SmallInt = np.zeros(0, np.uint8)
        self._ends = np.minimum(self._tops, most).astype(np.int64)
        self._starts = np.concatenate([np.zeros_like(self._ends[:1]), self._ends[:-1]])
        self._start_cost, self._tick_s = start_cost, tick_s
        self._has_start_cost, self._unit_start_cost = bool(start_cost.any()), bool((start_cost == 1.0).all())
        self._promised = promised
        self._every_ticks = 0 if promised.all() else max(1, round(EVERY_S / tick_s))
        self._part, self._cost, self._under = (np.empty((models, columns), np.float32) for _ in range(3))
        self._zeros = np.zeros((models, columns), np.float32)

    def due(self, tick: int) -> bool:
        """Return whether bands are charged at this tick."""
        if not self._every_ticks:
            return False
        turn, place = divmod(tick, self._every_ticks)
        return place == int(turn * _TURN_STEP % 1.0 * self._every_ticks)

    def due_of(self, first_tick: int, ticks: int) -> Int:
        """Return the ticks at which bands are charged, of `ticks` ticks, as offsets from the first: int64 (k,)."""
        if not self._every_ticks:
            return np.zeros(0, np.int64)
        turn, place = np.divmod(first_tick + np.arange(ticks), self._every_ticks)
        found: Int = np.flatnonzero(place == (turn * _TURN_STEP % 1.0 * self._every_ticks).astype(np.int64))
        return found

    def may_change(self, before: int, tick: int) -> bool:
        """Return whether drivers of bands may change in the ticks after `before` up to and including `tick`."""
        return self._every_ticks > 0 and int(tick * self._tick_s // CHOICE_S) != int(
            before * self._tick_s // CHOICE_S
        )

    def charge(
        self,
        below: SmallFloat,
        vms: SmallFloat,
        needs: tuple[SmallFloat, SmallFloat],
        lacks: tuple[SmallFloat, SmallFloat],
    ) -> None:
        """Charge the bands for a tick that is over.

        Args:
            below: float32 (3, B, M, n), `Trial.below`, updated in place.
            vms: float32 (M, n), VMs that served; 0 in columns that are not charged.
            needs: float32 (n,) each, VM-ticks of work, and the same at `charging.MORE` times the demand; 0 in columns that
                are not charged. (1,) if all columns have the same.
            lacks: float32 (M, n) each, the parts of these two that found no VM.
        """
        last = self._bands_used - 1
        filled = self._filled_bands(vms)
        for band, paid in enumerate(below[0, : self._bands_used]):
            top = self._limits[band]
            # The last band has no upper end.
            held = vms if band == last else top if filled[band] else np.minimum(vms, top, out=self._part)
            np.add(paid, held, out=paid)
        for need, whole_lack, missed in zip(needs, lacks, below[1:], strict=True):
            missed[last] += whole_lack
            lack = whole_lack
            for band in range(last - 1, -1, -1):
                if filled[band]:
                    break
                top = self._limits[band]
                # If no need exceeds the band's top, the lack is the same as in the band above.
                if np.count_nonzero(need > top):
                    lack = np.maximum(np.minimum(need, top), vms, out=self._part)
                    lack -= vms
                missed[band] += lack

    def _filled_bands(self, vms: SmallFloat) -> list[bool]:
        """Return for each band whether all VM counts reach its top, so that no work up to it lacks a VM."""
        least = np.minimum.reduce(vms, axis=None, initial=np.float32(np.inf))
        found: list[bool] = np.logical_and.reduce(self._limits <= least, axis=1).tolist()
        return found

    def _tops_of(self, counts: ShadowType) -> SmallInt:
        """Return the tops of bands in the type of counts, int (bands, n); the type's maximum for bands without an upper end."""
        if self._integer_tops.dtype != counts:
            most = float(np.iinfo(counts).max)
            self._integer_tops = np.minimum(self._tops.astype(np.float64), most).astype(counts)
        return self._integer_tops

    def charge_page(
        self,
        below: SmallFloat,
        serving: SmallInt,
        needs: SmallFloat,
        ordered: SmallInt,
        held: SmallInt,
    ) -> None:
        """Charge the bands for D ticks and for the starts in them, by the same sums as `charge` and `charge_starts`.

        Args:
            below: float32 (3, B, n), the costs of one model's columns, updated in place.
            serving: int (D, n), VMs in service.
            needs: float32 (2, D, 1), VM-ticks of work, and the same at `charging.MORE` times the demand.
            ordered: int (D, n), VMs ordered in each tick.
            held: int (D, n), VMs in service or on their way after each tick.
        """
        ticks, last = len(serving), self._bands_used - 1
        vms, tops = serving.astype(np.float32), self._tops_of(serving.dtype)
        before, starts = held - ordered, self._has_start_cost and np.count_nonzero(ordered) > 0
        terms = np.empty((1 + ticks * (1 + starts), vms.shape[1]), np.float32)
        for band, paid in enumerate(below[0, : self._bands_used]):
            # Tops as whole numbers in full-size arrays, because numpy compares two integer arrays much faster than
            # other operands.
            terms[0], top = paid, tops[band]
            terms[1 :: 1 + starts] = vms if band == last else np.minimum(serving, top)
            if starts:
                more = ordered if band == last else np.minimum(held, top) - np.minimum(before, top)
                terms[2::2] = more if self._unit_start_cost else more * self._start_cost
            np.add.reduce(terms, axis=0, out=paid)
        lacks, filled = terms[: ticks + 1], self._filled_bands(vms)
        for need, missed in zip(needs, below[1:], strict=True):
            for band in range(last, -1, -1):
                if filled[band]:
                    break
                top = self._limits[band]
                # If no need exceeds the band's top, the lack is the same as in the band above.
                if band == last or np.count_nonzero(need > top):
                    lacks[1:] = need if band == last else np.minimum(need, top)
                    np.maximum(lacks[1:], vms, out=lacks[1:])
                    lacks[1:] -= vms
                lacks[0] = missed[band]
                np.add.reduce(lacks, axis=0, out=missed[band])

    def charge_starts(self, below: SmallFloat, ordered: SmallInt, held: SmallInt) -> None:
        """Charge the bands for the VMs that were ordered in a tick.

        Args:
            below: As in `charge`.
            ordered: int (M, n), VMs ordered.
            held: int (M, n), VMs in service or on their way afterwards.
        """
        # numpy finds the true values of a mask ten times as fast as the nonzero values of counts.
        at = np.flatnonzero(ordered != 0)
        lane = at % len(self._indices)
        after = held.take(at).astype(np.float32)
        before = after - ordered.take(at).astype(np.float32)
        tops = self._tops.take(lane, axis=1)
        more = np.minimum(after, tops)
        more -= np.minimum(before, tops)
        more *= self._start_cost.take(lane)
        bands = below[0].reshape(len(BAND_TOPS), -1)
        for paid, cost in zip(bands, more, strict=False):
            np.add.at(paid, at, cost)

    def compare(
        self,
        state: Trial,
        left: SmallFloat,
        highest: SmallFloat,
        *,
        shortage: Float,
        fear: Float,
        doubt: Float,
        avoidable: Float,
        days: Float,
    ) -> None:
        """Choose the model that drives in each band.

        Args:
            state: Updated in place. The driver of the whole fleet has been chosen already.
            left: float32 (M, n), VM-ticks of work per tick that an unseen crowd would leave unserved.
            highest: float32 (n,), the highest demand ever, in VMs.
            shortage: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
            fear: float64 (n,), share of the time that such a crowd is assumed to take.
            doubt: float64 (n,), weight of the work left unserved at `charging.MORE` times the demand.
            avoidable: float64 (n,), cost of the fleet under its driver beyond the least possible in hindsight, by weight.
            days: float64 (n,), days seen.
        """
        faded = (state.below_weight / state.weight).astype(np.float32)
        state.below[:, : self._bands_used] *= faded
        state.below_weight = state.weight.copy()
        since = state.ticks - state.below_ticks
        state.below_ticks = state.ticks.copy()
        self._charge_crowd(state, left, highest, since * fear / (doubt * state.weight * self._every_ticks))
        least = avoidable * (SAVED + EARLY_SAVED / days**2) / (state.weight * self._every_ticks)
        least[self._promised] = np.inf
        self._choose(state, shortage.astype(np.float32), doubt.astype(np.float32), least)

    def _charge_crowd(self, state: Trial, left: SmallFloat, highest: SmallFloat, ticks: Float) -> None:
        """Charge the bands for an unseen crowd that lasts this many ticks; the result is added to `nearly`.

        The part of the crowd's work above a band's top is taken off what the whole model would leave unserved
        (`shadow_fleets.crowd_left`).
        """
        part, share = self._part, ticks.astype(np.float32)
        for top, nearly in zip(self._tops, state.below[2], strict=False):
            above = np.maximum(np.maximum(top, highest), np.float32(1e-9))
            beyond = np.log(np.maximum(np.float32(CROWD) * highest / above, np.float32(1.0))) * highest
            beyond += np.maximum(highest - top, np.float32(0.0))
            np.subtract(left, beyond, out=part)
            np.maximum(part, self._zeros, out=part)
            np.add(nearly, np.multiply(part, share, out=part), out=nearly)

    def _choose(self, state: Trial, shortage: SmallFloat, doubt: SmallFloat, least: Float) -> None:
        """Choose drivers by the cost within each band, which is the cost up to its top minus the cost up to the band below."""
        # A later policy may allow more VMs. Its higher bands then begin with the costs of this one.
        state.below[:, self._bands_used :] = state.below[:, self._bands_used - 1 : self._bands_used]
        drivers = np.full_like(state.drivers, AS_THE_WHOLE)
        cost, under = self._cost, self._under
        under.fill(0.0)
        for band in range(self._bands_used):
            paid, missed, nearly = state.below[:, band]
            np.multiply(nearly, doubt, out=cost)
            cost += missed
            cost *= shortage
            cost += paid
            under -= cost
            best = under.argmax(axis=0)
            saved = under[best, self._indices] - under[state.driver, self._indices]
            drivers[band] = np.where(saved > least, best, AS_THE_WHOLE)
            under, cost = cost, under
        state.drivers = drivers

    def driving(self, state: Trial) -> Drivers:
        """Return the models that drive now; they remain what they are when others take over."""
        return Drivers(state.driver, state.drivers[: self._bands_used], self._ends)

    def wishes(self, state: Trial, want: SmallInt, cell: Int | None = None) -> Int:
        """Return what the driving models want together: each contributes the VMs within its bands.

        Args:
            state: Holds the drivers.
            want: int (..., 2, M, n), lower and upper numbers of VMs of each model, or (..., 2, C) by cells.
            cell: int64 (M * n,), the cell of each model and column (`shadow_fleets.Cells`); None if `want` has no cells.

        Returns:
            Lower and upper numbers of VMs, int64 (..., 2, n).
        """
        models = state.drivers[: self._bands_used]
        by_fleet = models == AS_THE_WHOLE
        if np.count_nonzero(by_fleet) == by_fleet.size:
            return self._wishes_of(want, state.driver, cell)
        models = np.where(by_fleet, state.driver, models)
        wanted = self._wishes_of(want, models, cell)
        np.minimum(wanted, self._ends, out=wanted)
        wanted -= self._starts
        np.maximum(wanted, 0, out=wanted)
        found: Int = np.add.reduce(wanted, axis=-2)
        return found

    def _wishes_of(self, want: SmallInt, models: Int, cell: Int | None) -> Int:
        """Return what the given models want in each column: int64 (..., 2, [bands,] n)."""
        place = models * len(self._indices)
        place += self._indices
        if cell is None:
            want = want.reshape(*want.shape[:-2], -1)
        else:
            place = cell.take(place)
        found: Int = want.take(place, axis=-1).astype(np.int64)
        return found
