"""What plain models want: by demand and its highest of the past, and by what earlier days needed, each with headroom.

Where a replay foresees the demand of the ticks to come, a page of ticks is worked out at once, on a twin of what is remembered.

Rules of this file: element-wise. Lanes that read the same series with VMs of the same capacity want the same as long as they have
seen the same, which is asked of what they remember, and then worked out once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.earlier import WholeVms, whole, whole_page
from autoscaler.core.models import (
    AMPLE_HEADROOMS,
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
from autoscaler.core.trial import ShadowType, Trial
from autoscaler.core.types import MOST_VMS, Float, Int, SmallInt
from autoscaler.core.windows import RollingMax

_SCALE = 1024.0
"""Rolling maxima are of whole numbers: demand in 1024ths of a VM."""
_ROUNDING = 0.5e-9
"""Of a VM, and at most twice that with headroom."""
_DEMAND, _AMPLE, _FALLING, _YESTERDAY, _EITHER = map(
    rows_of, (Kind.DEMAND, Kind.AMPLE, Kind.FALLING, Kind.YESTERDAY, Kind.EITHER)
)
_HOUR = list(PAST_S).index(Window.LONG)
PLAIN = slice(_DEMAND.start, _EITHER.stop)
"""Their places among the models."""


class Passed(NamedTuple):
    """What is remembered of demand once a page of T ticks is over.

    Attributes:
        peaks: As `Trial.peaks`.
        falling: float64 (T, F, n), as `Trial.falling` after each tick.
        work: float64 (T, n), demand in VMs.
        parts: int (T, windows * n), what `Trial.peaks` notes.
    """

    peaks: RollingMax
    falling: Float
    work: Float
    parts: SmallInt


class Plain:
    """Plain models of n columns.

    Args:
        capacity: float64 (n,), work per second of one VM.
        series: int64 (n,), the series of each.
        most: No column may have more VMs.
        tick_s: Length of a tick.
    """

    def __init__(self, capacity: Float, series: Int, most: int, tick_s: float) -> None:
        columns = len(capacity)
        self._capacity, self._most = capacity, most
        self._headroom = (1.0 + np.array(HEADROOMS))[:, np.newaxis]
        self._each = self._headroom / capacity
        self._more = self._each[list(DEMAND_HEADROOMS), np.newaxis]
        self._ample = (1.0 + np.array(AMPLE_HEADROOMS))[:, np.newaxis] / capacity
        self._part = capacity / _SCALE
        self._rounding, self._highest = _ROUNDING * capacity, most * capacity
        self._falls = 0.5 ** (tick_s / np.array(list(FALLS_S.values())))[:, np.newaxis]
        self._falling_headroom = self._headroom[list(FALLING_HEADROOMS)]
        self._none, self._full = (np.full((2, columns), number) for number in (0.0, float(most)))
        self._days = tuple(
            WholeVms(self._headroom[:headrooms], columns, most)
            for headrooms in (len(HEADROOMS), EITHER_HEADROOMS)
        )
        self._past = np.empty((len(PAST_S), columns))
        self._need = np.empty((len(DEMAND_HEADROOMS), len(PAST_S), columns))
        self._need_now = np.empty_like(self._each)
        self._alike = Alike(series, capacity)
        self._few = (
            Plain(capacity[self._alike.first], series[self._alike.first], most, tick_s)
            if self._alike.few
            else None
        )
        self.count_in(np.dtype(np.int32))

    def count_in(self, counts: ShadowType) -> None:
        """Make room for counts of this type."""
        self._now = np.zeros(self._each.shape, counts)
        self._last_week = np.zeros((2, EITHER_HEADROOMS, len(self._capacity)), counts)

    def fill(
        self, state: Trial, tick: int, demand: Float, before: tuple[Float, Float], want: SmallInt
    ) -> None:
        """Fill in what plain models want.

        Args:
            state: Remembers the demand.
            tick: Now.
            demand: float64 (n,), NaN where unknown.
            before: float64 (2, n) each, the highest demand in VMs from this time of yesterday, and of the day a week ago,
                until a start would serve, and within the hold window; NaN where unknown.
            want: int (2, M, n), of which their rows are filled in.
        """
        now = self._by_demand(state, tick, demand, want)
        low, high = want[:, _FALLING]
        shape = len(FALLS_S), len(FALLING_HEADROOMS), len(demand)
        low.reshape(shape)[...] = now.take(FALLING_HEADROOMS, axis=0)
        whole(state.falling, self._falling_headroom, self._none, self._full, high.reshape(shape))
        vms, last_week = want[:, _YESTERDAY], self._last_week
        for day, of, to in zip(self._days, before, (vms, last_week), strict=True):
            day.fill(of, now, to)
        either = np.maximum(last_week, vms[:, :EITHER_HEADROOMS], out=want[:, _EITHER])
        np.maximum(either, now[:1], out=either)

    def _by_demand(self, state: Trial, tick: int, demand: Float, want: SmallInt) -> SmallInt:
        """Fill the rows of demand and its highest of the past, and what falls: VMs for it now, int32 (headrooms, n)."""
        windows = len(PAST_S)
        unknown, present, everywhere = np.isnan(demand), demand, None
        if np.count_nonzero(unknown):
            known = ~unknown
            present, everywhere = np.where(known, demand, 0.0), np.concatenate([known] * (windows - 1))
        work = present / self._capacity
        parts = np.minimum(np.ceil(work * _SCALE), MOST_VMS).astype(state.peaks.ring.dtype)
        highest = state.peaks.push_and_max(tick, np.concatenate([parts] * (windows - 1)), everywhere)
        past = self._past
        past[0] = present
        np.multiply(highest.reshape(windows - 1, -1), self._part, out=past[1:])
        np.maximum(past[1:], present, out=past[1:])
        # What would exceed whole VMs by rounding only, or all counts, is taken off before headrooms make more of it.
        past -= self._rounding
        np.minimum(past, self._highest, out=past)
        vms = want[1, _DEMAND].reshape(len(DEMAND_HEADROOMS), windows, -1)
        need = np.multiply(past, self._more, out=self._need)
        np.copyto(vms, np.ceil(need, out=need), casting="unsafe")
        ample = need[:2, : len(AMPLE_HEADROOMS)]
        np.multiply(past[: _HOUR + 1 : _HOUR, np.newaxis], self._ample, out=ample)
        np.minimum(ample, self._full[:, np.newaxis], out=ample)
        np.copyto(want[:, _AMPLE], np.ceil(ample, out=ample), casting="unsafe")
        now, need_now = self._now, np.multiply(past[0], self._each, out=self._need_now)
        np.copyto(now, np.ceil(need_now, out=need_now), casting="unsafe")
        want[0, _DEMAND].reshape(vms.shape)[...] = vms[:, :1]
        passed = tick - state.last_tick
        if passed > 0:
            state.falling *= self._falls if passed == 1 else self._falls ** min(passed, 1_000_000)
            np.maximum(state.falling, work, out=state.falling)
        return now

    def fill_page(
        self, state: Trial, tick: int, demand: Float, before: tuple[Float, Float], want: SmallInt
    ) -> Passed:
        """Fill in what plain models want at ticks that follow each other and the last one, T of them.

        Args:
            state: Is not changed.
            tick: The first of them.
            demand: float64 (T, n), all known.
            before: float64 (T, 2, n) each, as in `fill`.
            want: int (T, 2, M, n), of which their rows are filled in.

        Returns:
            What is to be remembered of them.
        """
        ticks, windows = len(demand), len(PAST_S)
        work = demand / self._capacity
        parts = np.minimum(np.ceil(work * _SCALE), MOST_VMS).astype(state.peaks.ring.dtype)
        peaks = state.peaks.twin()
        parts = np.concatenate([parts] * (windows - 1), axis=1)
        highest = peaks.push_page(tick, parts)
        highest = highest.reshape(ticks, windows - 1, -1)
        falling, now = np.empty((ticks, *state.falling.shape)), state.falling
        for at in range(ticks):
            now = np.multiply(now, self._falls, out=falling[at])
            np.maximum(now, work[at], out=now)
        bits = tuple(of.view(np.int64) for of in before)
        if self._few is not None and self._alike.hold(demand, highest, falling, *bits):
            first = self._alike.of_first
            rows = np.empty((ticks, 2, PLAIN.stop, len(self._alike.first)), want.dtype)
            few = (first(of) for of in before)
            self._few.wish(first(demand), first(highest), first(falling), tuple(few), rows)
            plain = rows[:, :, PLAIN]
            want[:, :, PLAIN] = plain if plain.shape[-1] == 1 else self._alike.spread(plain)
        else:
            self.wish(demand, highest, falling, before, want)
        return Passed(peaks, falling, work, parts)

    def wish(
        self, demand: Float, highest: SmallInt, falling: Float, before: tuple[Float, ...], want: SmallInt
    ) -> None:
        """Fill in what plain models want on a page, by what is remembered at its ticks.

        Args:
            demand: float64 (T, n).
            highest: int (T, windows, n), in 1024ths of a VM.
            falling: float64 (T, F, n).
            before: float64 (T, 2, n) each.
            want: int (T, 2, m, n), of which their rows are filled in.
        """
        ticks, columns = demand.shape
        past = np.empty((ticks, len(PAST_S), columns))
        past[:, 0] = demand
        np.multiply(highest, self._part, out=past[:, 1:])
        np.maximum(past[:, 1:], demand[:, np.newaxis], out=past[:, 1:])
        past -= self._rounding
        np.minimum(past, self._highest, out=past)
        need = past[:, np.newaxis] * self._more
        vms = want[:, 1, _DEMAND].reshape(need.shape)
        np.copyto(vms, np.ceil(need, out=need), casting="unsafe")
        want[:, 0, _DEMAND].reshape(need.shape)[...] = vms[:, :, :1]
        ample = past[:, : _HOUR + 1 : _HOUR, np.newaxis] * self._ample
        np.minimum(ample, self._full[:, np.newaxis], out=ample)
        np.copyto(want[:, :, _AMPLE], np.ceil(ample, out=ample), casting="unsafe")
        need_now = past[:, :1] * self._each
        now = np.ceil(need_now, out=need_now).astype(want.dtype)
        shape = ticks, len(FALLS_S), len(FALLING_HEADROOMS), columns
        want[:, 0, _FALLING].reshape(shape)[...] = now.take(FALLING_HEADROOMS, axis=1)[:, np.newaxis]
        whole_page(falling, self._falling_headroom, self._most, want[:, 1, _FALLING].reshape(shape))
        yesterday, last_week = (
            want[:, :, _YESTERDAY],
            np.empty((ticks, 2, EITHER_HEADROOMS, columns), want.dtype),
        )
        for day, of, to in zip(self._days, before, (yesterday, last_week), strict=True):
            day.fill_page(of, now, to)
        either = np.maximum(last_week, yesterday[:, :, :EITHER_HEADROOMS], out=want[:, :, _EITHER])
        np.maximum(either, now[:, np.newaxis, :1], out=either)
