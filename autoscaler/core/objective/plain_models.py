"""What plain models want: current demand, its recent maximum, or the need of earlier days, each with headroom.

If a replay knows the demand of future ticks, a page of ticks is computed at once, on a copy of the state.

Rules of this file: element-wise. Lanes that read the same series with VMs of the same capacity want the same as long as they have seen
the same; this is checked on their state, and the result is then computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.objective.competition_state import ShadowType, Trial
from autoscaler.core.objective.earlier_days import Before, WholeVms, whole, whole_page
from autoscaler.core.objective.models import (
    AMPLE_HEADROOMS,
    ANY_DAY_HEADROOMS,
    AVERAGE_DAY_HEADROOMS,
    DEMAND_HEADROOMS,
    EITHER_HEADROOMS,
    FALLING_HEADROOMS,
    FALLS_S,
    HEADROOMS,
    PAST_S,
    Kind,
    Window,
    rows_of,
)
from autoscaler.core.types import MOST_VMS, Float, Int, SmallInt
from autoscaler.core.windows import Cut, RollingMax

_SHIFT = 10
_SCALE, _HALF = float(1 << _SHIFT), 1 << (_SHIFT - 1)
"""Rolling maxima are of integers: demand in 1024ths of a VM."""
_ROUNDING = 0.5e-9
"""VMs that are taken off demand, so that rounding errors do not raise the number of whole VMs."""
_DEMAND, _AMPLE, _FALLING, _YESTERDAY, _EITHER = map(
    rows_of, (Kind.DEMAND, Kind.AMPLE, Kind.FALLING, Kind.YESTERDAY, Kind.EITHER)
)
_HOUR = list(PAST_S).index(Window.LONG)
_DAYS = slice(rows_of(Kind.AVERAGE_DAY).start, rows_of(Kind.ANY_DAY).stop)
_DAYS_HEADROOMS = AVERAGE_DAY_HEADROOMS, ANY_DAY_HEADROOMS
_ALL_DAYS_HEADROOMS = sum(_DAYS_HEADROOMS, ())
"""Places in `HEADROOMS` that are tried for AVERAGE_DAY, then those for ANY_DAY."""
PLAIN = slice(_DEMAND.start, _DAYS.stop)
"""Places of the plain models in `MODELS`."""
USUAL = slice(rows_of(Kind.USUAL).start, rows_of(Kind.EVER).stop)
"""Places in `MODELS` of the models based on habits: USUAL, HOUR and EVER."""


class DemandAfterPage(NamedTuple):
    """What is to be remembered of demand after a page of T ticks, for n columns or for G of them that stand for all.

    Attributes:
        peaks, lows: As in `Trial`, after the page.
        falling: float64 (T, F, n or G), `Trial.falling` after each tick.
        parts: int (T, windows * n or G), the values that go into `Trial.peaks`.
        lacks: int (T, n or G), the values that go into `Trial.lows`.
        lasted: int (T, n or G), VMs that demand has needed for as long as a start takes.
        of: int64 (n,), the one of the G columns that stands for each column; None if there are all n columns.
    """

    peaks: RollingMax
    lows: RollingMax
    falling: Float
    parts: SmallInt
    lacks: SmallInt
    lasted: SmallInt
    of: Int | None

    def remember(self, trial: Trial, first_tick: int, ticks: int) -> None:
        """Record the first `ticks` ticks in a trial, at least one."""
        falling, of = self.falling[ticks - 1], self.of
        trial.falling = falling.copy() if of is None else falling.take(of, axis=-1)
        lanes = None if of is None else lanes_of(of, falling.shape[-1])
        if ticks < len(self.parts):
            parts, lacks = self.parts[:ticks], self.lacks[:ticks]
            trial.peaks.push_page(first_tick, parts if lanes is None else parts.take(lanes, axis=1))
            trial.lows.push_page(first_tick, lacks if of is None else lacks.take(of, axis=1))
        else:
            trial.peaks = self.peaks if lanes is None else self.peaks.of_lanes(lanes, trial.peaks.cut)
            trial.lows = self.lows if of is None else self.lows.of_lanes(of, trial.lows.cut)


def lanes_of(columns: Int, each: int) -> Int:
    """Return the places in `Trial.peaks` of some columns, int64 (windows * n,).

    Args:
        columns: int64 (n,), the columns.
        each: Number of columns per window in `Trial.peaks`.
    """
    windows = np.arange(len(PAST_S) - 1)[:, np.newaxis] * each
    found: Int = (windows + columns).reshape(-1)
    return found


class Plain:
    """The plain models of n columns.

    Args:
        capacity: float64 (n,), work per second of one VM.
        alike: Groups of columns that read the same series, with the same lead time and VMs of the same capacity.
        most: The highest maximum of VMs of any column.
        tick_s: Length of a tick.
    """

    def __init__(self, capacity: Float, alike: ColumnGroups, most: int, tick_s: float) -> None:
        columns = len(capacity)
        self._capacity, self._most = capacity, most
        self._headroom = (1.0 + np.array(HEADROOMS))[:, np.newaxis]
        self._vms_per_work = self._headroom / capacity
        self._demand_factors = self._vms_per_work[list(DEMAND_HEADROOMS), np.newaxis]
        self._ample_factors = (1.0 + np.array(AMPLE_HEADROOMS))[:, np.newaxis] / capacity
        self._work_per_part = capacity / _SCALE
        self._rounding, self._highest = _ROUNDING * capacity, most * capacity
        self._falls = 0.5 ** (tick_s / np.array(list(FALLS_S.values())))[:, np.newaxis]
        self._falling_headroom = self._headroom[list(FALLING_HEADROOMS)]
        self._zeros, self._maxima = (np.full((2, columns), number) for number in (0.0, float(most)))
        self._days = tuple(
            WholeVms(self._headroom[:headrooms], columns, most)
            for headrooms in (len(HEADROOMS), EITHER_HEADROOMS)
        )
        self._days_headroom = np.stack([self._headroom[list(headrooms)] for headrooms in _DAYS_HEADROOMS])
        self._days_bits: Int = np.zeros((2, columns), np.int64)
        self._past = np.empty((len(PAST_S), columns))
        self._need = np.empty((len(DEMAND_HEADROOMS), len(PAST_S), columns))
        self._need_now = np.empty_like(self._vms_per_work)
        self._alike = alike
        self._cuts: tuple[Cut, Cut] | None = None
        self._low_cuts: tuple[Cut, Cut] | None = None
        groups = np.arange(len(alike.first))
        self._grouped = (
            Plain(alike.of_first(capacity), ColumnGroups(groups), most, tick_s) if alike.few else None
        )
        self.count_in(np.dtype(np.int32))

    def count_in(self, counts: ShadowType) -> None:
        """Allocate arrays for counts of this type."""
        self._now = np.zeros(self._vms_per_work.shape, counts)
        self._last_week = np.zeros((2, EITHER_HEADROOMS, len(self._capacity)), counts)
        self._whole_by_days = np.zeros((len(_ALL_DAYS_HEADROOMS), len(self._capacity)), counts)
        self._days_bits = np.zeros_like(self._days_bits)

    def fill(self, state: Trial, tick: int, demand: Float, before: Before, want: SmallInt) -> None:
        """Fill in what plain models want, and raise models based on habits to the demand that has lasted as long as a start.

        Args:
            state: Updated in place with the demand.
            tick: The current tick.
            demand: float64 (n,), work per second; NaN if unknown.
            before: Demand on earlier days, float64 (2, n) each.
            want: int (2, M, n), of which the rows of these models are updated.
        """
        now, lasted = self._fill_demand(state, tick, demand, want)
        low, high = want[:, _FALLING]
        shape = len(FALLS_S), len(FALLING_HEADROOMS), len(demand)
        low.reshape(shape)[...] = now.take(FALLING_HEADROOMS, axis=0)
        whole(state.falling, self._falling_headroom, self._zeros, self._maxima, high.reshape(shape))
        vms, last_week = want[:, _YESTERDAY], self._last_week
        for day, of, to in zip(self._days, before[:2], (vms, last_week), strict=True):
            day.fill(of, now, to)
        np.maximum(vms, lasted, out=vms)
        not_below(want, lasted)
        either = np.maximum(last_week, vms[:, :EITHER_HEADROOMS], out=want[:, _EITHER])
        np.maximum(either, now[:1], out=either)
        self._fill_days(before.days, now, want)

    def _fill_days(self, days: Float, now: SmallInt, want: SmallInt) -> None:
        """Fill the rows of AVERAGE_DAY and ANY_DAY. Their demand changes only every few minutes, so whole VMs are kept."""
        bits = days.view(np.int64)
        if np.count_nonzero(bits != self._days_bits):
            self._days_bits = bits.copy()
            shape = 2, -1, days.shape[-1]
            whole(days, self._days_headroom, self._zeros, self._maxima, self._whole_by_days.reshape(shape))
        low, high = want[:, _DAYS]
        np.maximum(self._whole_by_days, now.take(_ALL_DAYS_HEADROOMS, axis=0), out=low)
        high[...] = low

    def _fill_demand(
        self, state: Trial, tick: int, demand: Float, want: SmallInt
    ) -> tuple[SmallInt, SmallInt]:
        """Fill the rows of DEMAND and AMPLE, and update the decaying maxima.

        Returns:
            VMs for current demand, int (headrooms, n), and VMs that demand has needed for as long as a start takes, int (n,).
        """
        windows = len(PAST_S)
        unknown, present, everywhere = np.isnan(demand), demand, None
        if np.count_nonzero(unknown):
            known = ~unknown
            present, everywhere = np.where(known, demand, 0.0), np.concatenate([known] * (windows - 1))
        work = present / self._capacity
        parts = np.minimum(np.ceil(work * _SCALE), MOST_VMS).astype(state.peaks.ring.dtype)
        highest = state.peaks.push_and_max(tick, np.concatenate([parts] * (windows - 1)), everywhere)
        # Unknown demand counts as 0 here. Censored demand was at least what is seen of it.
        lasted = _lasted(state.lows.push_and_max(tick, MOST_VMS - parts), self._most)
        past = self._past
        past[0] = present
        np.multiply(highest.reshape(windows - 1, -1), self._work_per_part, out=past[1:])
        np.maximum(past[1:], present, out=past[1:])
        # Rounding errors and demand beyond the maximum are cut off before headroom multiplies them.
        past -= self._rounding
        np.minimum(past, self._highest, out=past)
        vms = want[1, _DEMAND].reshape(len(DEMAND_HEADROOMS), windows, -1)
        need = np.multiply(past, self._demand_factors, out=self._need)
        np.copyto(vms, np.ceil(need, out=need), casting="unsafe")
        ample = need[:2, : len(AMPLE_HEADROOMS)]
        np.multiply(past[: _HOUR + 1 : _HOUR, np.newaxis], self._ample_factors, out=ample)
        np.minimum(ample, self._maxima[:, np.newaxis], out=ample)
        np.copyto(want[:, _AMPLE], np.ceil(ample, out=ample), casting="unsafe")
        now, need_now = self._now, np.multiply(past[0], self._vms_per_work, out=self._need_now)
        np.copyto(now, np.ceil(need_now, out=need_now), casting="unsafe")
        want[0, _DEMAND].reshape(vms.shape)[...] = vms[:, :1]
        passed = tick - state.last_tick
        if passed > 0:
            state.falling *= self._falls if passed == 1 else self._falls ** min(passed, 1_000_000)
            np.maximum(state.falling, work, out=state.falling)
        return now, lasted

    def fill_page(
        self, state: Trial, tick: int, demand: Float, before: Before, want: SmallInt
    ) -> DemandAfterPage:
        """Fill in what plain models want at T consecutive ticks that follow the last one.

        Args:
            state: Not changed.
            tick: The first of the ticks.
            demand: float64 (T, n), work per second, all known; equal within each group of `alike`.
            before: Demand on earlier days, float64 (T, 2, n) each; (T, 2, G) if it is equal within each of the G groups.
            want: int (T, 2, M, n), filled in.

        Returns:
            What is to be remembered of the ticks.
        """
        alike, grouped = self._alike, self._grouped
        of_groups = [of.shape[-1] < demand.shape[-1] for of in before]
        if grouped is None or not all(of_groups) or not self.same_past(state):
            each = [
                alike.spread(of) if grouped else of for of, grouped in zip(before, of_groups, strict=True)
            ]
            found = self.follow(
                state.peaks.twin(), state.lows.twin(), state.falling, tick, demand, Before(*each), want
            )
            return DemandAfterPage(*found, None)
        lanes = lanes_of(alike.first, demand.shape[-1])
        if self._cuts is None or self._cuts[0] is not state.peaks.cut:
            self._cuts = state.peaks.cut, state.peaks.of_lanes(lanes).cut
        if self._low_cuts is None or self._low_cuts[0] is not state.lows.cut:
            self._low_cuts = state.lows.cut, state.lows.of_lanes(alike.first).cut
        peaks = state.peaks.of_lanes(lanes, self._cuts[1])
        lows = state.lows.of_lanes(alike.first, self._low_cuts[1])
        rows = np.empty((len(demand), 2, PLAIN.stop, len(alike.first)), want.dtype)
        first = alike.of_first
        found = grouped.follow(peaks, lows, first(state.falling), tick, first(demand), before, rows)
        plain = rows[:, :, PLAIN]
        want[:, :, PLAIN] = plain if plain.shape[-1] == 1 else alike.spread(plain)
        return DemandAfterPage(*found, alike.group)

    def same_past(self, state: Trial) -> bool:
        """Return whether the columns of each group remember the same demand."""
        alike = self._alike
        first = alike.first.take(alike.group)
        lanes = lanes_of(first, len(alike.group))
        return alike.hold(state.falling) and state.peaks.alike(lanes) and state.lows.alike(first)

    def follow(
        self,
        peaks: RollingMax,
        lows: RollingMax,
        now: Float,
        tick: int,
        demand: Float,
        before: Before,
        want: SmallInt,
    ) -> tuple[RollingMax, RollingMax, Float, SmallInt, SmallInt, SmallInt]:
        """Do the work of `fill_page` without using groups.

        Args:
            peaks: As `Trial.peaks`; updated in place.
            lows: As `Trial.lows`; updated in place.
            now: float64 (F, n), as `Trial.falling`.
            tick: The first of the ticks.
            demand: float64 (T, n), work per second, all known.
            before: Demand on earlier days, float64 (T, 2, n) each.
            want: int (T, 2, M, n), filled in.

        Returns:
            The fields of `DemandAfterPage` except the last.
        """
        ticks, windows = len(demand), len(PAST_S)
        work = demand / self._capacity
        parts = np.minimum(np.ceil(work * _SCALE), MOST_VMS).astype(peaks.ring.dtype)
        lacks = MOST_VMS - parts
        parts = np.concatenate([parts] * (windows - 1), axis=1)
        highest = peaks.push_page(tick, parts).reshape(ticks, windows - 1, -1)
        lasted = _lasted(lows.push_page(tick, lacks), self._most)
        falling = _falling(now, self._falls, work)
        self._fill_wishes(demand, highest, falling, before, lasted, want)
        return peaks, lows, falling, parts, lacks, lasted

    def _fill_wishes(
        self,
        demand: Float,
        highest: SmallInt,
        falling: Float,
        before: Before,
        lasted: SmallInt,
        want: SmallInt,
    ) -> None:
        """Fill in what plain models want on a page, from what is remembered at each of its ticks.

        Args:
            demand: float64 (T, n), work per second.
            highest: int (T, windows, n), rolling maxima of demand in 1024ths of a VM.
            falling: float64 (T, F, n), decaying maxima of demand in VMs.
            before: Demand on earlier days, float64 (T, 2, n) each.
            lasted: int (T, n), VMs that demand has needed for as long as a start takes.
            want: int (T, 2, m, n), filled in.
        """
        ticks, columns = demand.shape
        past = np.empty((ticks, len(PAST_S), columns))
        past[:, 0] = demand
        np.multiply(highest, self._work_per_part, out=past[:, 1:])
        np.maximum(past[:, 1:], demand[:, np.newaxis], out=past[:, 1:])
        past -= self._rounding
        np.minimum(past, self._highest, out=past)
        need = past[:, np.newaxis] * self._demand_factors
        vms = want[:, 1, _DEMAND].reshape(need.shape)
        np.copyto(vms, np.ceil(need, out=need), casting="unsafe")
        want[:, 0, _DEMAND].reshape(need.shape)[...] = vms[:, :, :1]
        ample = past[:, : _HOUR + 1 : _HOUR, np.newaxis] * self._ample_factors
        np.minimum(ample, self._maxima[:, np.newaxis], out=ample)
        np.copyto(want[:, :, _AMPLE], np.ceil(ample, out=ample), casting="unsafe")
        need_now = past[:, :1] * self._vms_per_work
        now = np.ceil(need_now, out=need_now).astype(want.dtype)
        shape = ticks, len(FALLS_S), len(FALLING_HEADROOMS), columns
        want[:, 0, _FALLING].reshape(shape)[...] = now.take(FALLING_HEADROOMS, axis=1)[:, np.newaxis]
        whole_page(falling, self._falling_headroom, self._most, want[:, 1, _FALLING].reshape(shape))
        yesterday, last_week = (
            want[:, :, _YESTERDAY],
            np.empty((ticks, 2, EITHER_HEADROOMS, columns), want.dtype),
        )
        for day, of, to in zip(self._days, before[:2], (yesterday, last_week), strict=True):
            day.fill_page(of, now, to)
        np.maximum(yesterday, lasted[:, np.newaxis, np.newaxis], out=yesterday)
        either = np.maximum(last_week, yesterday[:, :, :EITHER_HEADROOMS], out=want[:, :, _EITHER])
        np.maximum(either, now[:, np.newaxis, :1], out=either)
        low = want[:, 0, _DAYS]
        whole_page(before.days, self._days_headroom, self._most, low.reshape(ticks, 2, -1, columns))
        np.maximum(low, now.take(_ALL_DAYS_HEADROOMS, axis=1), out=low)
        want[:, 1, _DAYS] = low


def not_below(want: SmallInt, lasted: SmallInt) -> None:
    """Raise the models based on habits, rows of (..., M, n), to the VMs for demand that has lasted as long as a start takes."""
    usual = want[..., USUAL, :]
    np.maximum(usual, lasted, out=usual)


def _lasted(lacks: SmallInt, most: int) -> SmallInt:
    """Return the VMs that had at least half of their work all the time, at most `most`.

    Args:
        lacks: int (..., n), the maximum of `MOST_VMS` minus demand in 1024ths of a VM.
        most: The most VMs.
    """
    found: SmallInt = np.minimum((MOST_VMS + _HALF - lacks) >> _SHIFT, most)
    return found


def _falling(now: Float, falls: Float, work: Float) -> Float:
    """Return the decaying maxima after each of T ticks: float64 (T, F, n).

    Args:
        now: float64 (F, n), the maxima before the first tick.
        falls: float64 (F, 1), factor by which each decays in a tick.
        work: float64 (T, n), demand in VMs; the maxima never fall below it.
    """
    found = np.empty((len(work), *now.shape))
    if work.shape[1] == 1:
        # Plain Python, because numpy calls take far longer for so few numbers.
        for row, (value, fall) in enumerate(zip(now[:, 0].tolist(), falls[:, 0].tolist(), strict=True)):
            values = [value]
            for least in work[:, 0].tolist():
                values.append(max(values[-1] * fall, least))
            found[:, row, 0] = values[1:]
        return found
    for at, demand in enumerate(work):
        now = np.multiply(now, falls, out=found[at])
        np.maximum(now, demand, out=now)
    return found
