"""What was needed at the same time of an earlier day (`habits`): in VMs, and in whole VMs with headroom.

The result changes with slots of minutes and not with ticks. So it is computed again only when other slots are read, which affects
nothing but the time taken.

Rules of this file: element-wise only. It caches results, and keeps no other state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.objective.habits import Habits, slots_of, slots_of_page
from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

_LITTLE: Float = np.array(1e-9)
"""Taken off before rounding up. An array, because converting a plain number takes numpy a while if there are few lanes."""


class Before(NamedTuple):
    """Demand around this time on earlier days, in VMs: float64 (..., 2, n) each, NaN if unknown.

    Attributes:
        yesterday, last_week: Highest demand of yesterday, and of the day a week ago, in two windows that begin at this time
            of day: until the tick after a start would serve, and for five minutes (or a tick) longer.
        days: Demand around this time on the last seven days: the average of the days, and the maximum (`daily_highs`).
    """

    yesterday: Float
    last_week: Float
    days: Float


class EarlierDay:
    """Highest demand of one earlier day, in two windows that begin at this time of that day.

    Args:
        then: `habits.yesterday` or `habits.last_week`, which return that demand.
        ago_s: How long ago the day is, in seconds.
        slot_s: Length of its slots.
        windows_s: Pairs of two windows in seconds and the columns that they apply to, bool (n,).
        tick_s: Length of a tick.
    """

    def __init__(
        self,
        read_day: Callable[[Habits, float, tuple[float, float], float], Float],
        ago_s: float,
        slot_s: float,
        windows_s: Sequence[tuple[tuple[float, float], Bool]],
        tick_s: float,
    ) -> None:
        self._read_day, self._ago_s, self._slot_s, self._tick_s = read_day, ago_s, slot_s, tick_s
        self._windows_s = windows_s
        self._ring: SmallFloat | None = None
        self._read_bounds: tuple[tuple[int, ...], ...] = ()
        self._bounds: tuple[tuple[int, ...], ...] = ()
        self._bounds_now_s = math.nan
        self._found: Float = np.empty((2, len(windows_s[0][1])))

    def at(self, habits: Habits, ring: SmallFloat, slot: int, now_s: float) -> Float:
        """Return the highest demand in both windows, in VMs: float64 (2, n), which callers must not change.

        Args:
            habits: The last tick must have been recorded.
            ring: The field of `habits` with that day's slots.
            slot: The present slot.
            now_s: Time of the tick.
        """
        bounds = self._slots_to_read(ring, now_s)
        # Slots that are complete do not change any more.
        complete = all(ends[-1] <= slot for ends in bounds)
        if bounds != self._read_bounds or ring is not self._ring or not complete:
            self._read_bounds, self._ring = bounds, ring
            for number, (pair_s, columns) in enumerate(self._windows_s):
                found = self._read_day(habits, now_s, pair_s, self._tick_s)
                if number:
                    found = np.where(columns, found, self._found)
                self._found = found
        return self._found

    def is_complete(self, ring: SmallFloat, slot: int, now_s: float) -> bool:
        """Return whether all slots that `at` reads are complete."""
        return all(ends[-1] <= slot for ends in self._slots_to_read(ring, now_s))

    def _slots_to_read(self, ring: SmallFloat, now_s: float) -> tuple[tuple[int, ...], ...]:
        """Return the first slot and the first slots after each window, for each pair of windows."""
        if now_s != self._bounds_now_s:
            then_s, slots = now_s - self._ago_s, len(ring)
            self._bounds_now_s = now_s
            self._bounds = tuple(
                slots_of(then_s, pair_s, self._slot_s, slots) for pair_s, _ in self._windows_s
            )
        return self._bounds

    def page(self, ring: SmallFloat, slot: int, now_s: Sequence[float], alike: ColumnGroups) -> Float | None:
        """Return the results of `at` for several ticks, float64 (T, 2, n); None if they read slots that are not recorded yet.

        Args:
            ring: The slots of that day.
            slot: The present slot at the first tick.
            now_s: Times of the T ticks.
            alike: Groups of columns with the same windows. If all columns of each group have recorded the same demand, the
                result is (T, 2, G), one column per group.
        """
        slots, then_s = len(ring), np.array(now_s) - self._ago_s
        bounds = [slots_of_page(then_s, pair_s, self._slot_s, slots) for pair_s, _ in self._windows_s]
        first, end = min(int(each[0, 0]) for each in bounds), max(int(each[-1, -1]) for each in bounds)
        if end > slot:
            return None
        rows = ring.take(np.arange(first, end) % slots, axis=0)
        grouped = alike.hold_bits(rows)
        if grouped:
            rows = alike.of_first(rows)
        found = np.empty((len(now_s), 2, rows.shape[1]))
        for number, (window_bounds, (_, columns)) in enumerate(zip(bounds, self._windows_s, strict=True)):
            highest = _highest(rows, window_bounds - first)
            if number:
                np.copyto(found, highest, where=alike.of_first(columns) if grouped else columns)
            else:
                found[...] = highest
        return found


def _highest(ring: SmallFloat, bounds: Int) -> SmallFloat:
    """Return the highest demand in both windows at each tick: float32 (T, 2, n).

    Args:
        ring: float32 (rows, n), demand of consecutive slots.
        bounds: int64 (T, 3), the first row of the windows, and the first row after each.
    """
    if len(bounds) > 1 and (bounds == bounds[0]).all():
        return _highest(ring, bounds[:1])
    first, ends = bounds[:, 0], bounds[:, 1:]
    found = np.full((len(bounds), 2, ring.shape[1]), np.nan, np.float32)
    for ahead in range(int((ends[:, 1] - first).max())):
        at = first + ahead
        rows = ring.take(at, axis=0, mode="clip")
        for window in range(2):
            within = at < ends[:, window]
            if within.all():
                np.fmax(found[:, window], rows, out=found[:, window])
            elif within.any():
                np.fmax(found[:, window], rows, out=found[:, window], where=within[:, np.newaxis])
    return found


class WholeVms:
    """Converts demand of an earlier day into whole VMs with headroom; where it is unknown, current demand is used.

    Args:
        headroom: float64 (h, 1), factors on demand.
        columns: Number of columns.
        most: The highest maximum of VMs of any column.
    """

    def __init__(self, headroom: Float, columns: int, most: int) -> None:
        self._headroom = headroom
        self._zeros, self._most = (np.full((2, columns), number) for number in (0.0, float(most)))
        self._demand_bits: Int = np.zeros((2, columns), np.int64)
        self._whole: SmallInt = np.zeros(0, np.int32)
        self._unknown: Bool | None = None
        self._all_unknown = False

    def fill(self, vms: Float, now: SmallInt, out: SmallInt) -> None:
        """Fill in whole VMs, with the second window needing no fewer than the first.

        Args:
            vms: float64 (2, n), demand of the earlier day in VMs, NaN if unknown.
            now: int (h or more, n), VMs for current demand with these headrooms.
            out: int (2, h, n), filled in.
        """
        # Compared as bits, because NaN is not equal to itself.
        bits = vms.view(np.int64)
        if (
            self._whole.dtype != out.dtype
            or self._whole.shape != out.shape
            or np.count_nonzero(bits != self._demand_bits)
        ):
            self._compute(vms, out)
        now = now[: out.shape[1]]
        if self._all_unknown:
            out[...] = now
            return
        out[...] = self._whole
        if self._unknown is not None:
            np.copyto(out, now, where=self._unknown)
            np.maximum(out[0], out[1], out=out[1])

    def fill_page(self, vms: Float, now: SmallInt, out: SmallInt) -> None:
        """Do the work of `fill` for T ticks: arrays of (T, 2, n), (T, h or more, n) and (T, 2, h, n)."""
        whole_page(vms, self._headroom, float(self._most[0, 0]), out)
        unknown = np.isnan(vms)
        if np.count_nonzero(unknown):
            np.copyto(out, now[:, np.newaxis, : out.shape[2]], where=unknown[:, :, np.newaxis])
        np.maximum(out[:, 0], out[:, 1], out=out[:, 1])

    def _compute(self, vms: Float, like: SmallInt) -> None:
        """Compute and keep the whole VMs for `vms`."""
        self._demand_bits = vms.view(np.int64).copy()
        self._whole = np.empty_like(like)
        whole(vms, self._headroom, self._zeros, self._most, self._whole)
        unknown = np.isnan(vms)
        count = np.count_nonzero(unknown)
        self._all_unknown = count == unknown.size
        self._unknown = unknown[:, np.newaxis] if count else None
        if not count:
            np.maximum(self._whole[0], self._whole[1], out=self._whole[1])


def whole(vms: Float, headroom: Float, zeros: Float, most: Float, out: SmallInt) -> None:
    """Fill in whole VMs with headroom, rounded up: 0 where unknown, and for no more demand than `most`.

    Args:
        vms: float64 (a, n), demand in VMs, NaN if unknown.
        headroom: float64 (h, 1), factors on demand.
        zeros: float64 (a, n), zeros.
        most: float64 (a, n), upper bounds of demand.
        out: int (a, h, n), filled in.
    """
    known = np.fmax(vms, zeros)
    np.minimum(known, most, out=known)
    need = known[:, np.newaxis] * headroom
    need -= _LITTLE
    np.copyto(out, np.ceil(need, out=need), casting="unsafe")


def whole_page(vms: Float, headroom: Float, most: float, out: SmallInt) -> None:
    """Do the work of `whole` for T ticks, (T, a, n) to (T, a, h, n), with one bound for all columns."""
    known = np.fmax(vms, 0.0)
    np.minimum(known, most, out=known)
    need = known[:, :, np.newaxis] * headroom
    need -= _LITTLE
    np.copyto(out, np.ceil(need, out=need), casting="unsafe")
