"""The highest demand around this time on each day of the last week (`habits`): averaged over days, and the maximum.

Scheduled jobs come every day at nearly the same time, and on some days later or higher. Looking at yesterday alone, to the minute,
misses those; odds by the hour take weeks to reveal a job that runs once within its hour. So the maximum of demand around this time is
taken for each day, and then a statistic over days: the simple form of a periodic quantile (Qian and others, RobustScaler, 2022),
with headroom in place of a quantile level.

Rules of this file: element-wise, days in order. It caches results, and keeps no other state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.objective.habits import DAY_S, Habits, week_slot_s
from autoscaler.core.types import Bool, Float, Int, SmallFloat

DAYS = 7
"""Number of earlier days."""
AROUND_S, WIDELY_S = 900.0, 1800.0
"""Seconds before and after this time of day that count as "around this time": for the maximum over days, and for the average
of the days' maxima."""


class EarlierDays:
    """Demand around this time of day on each of the last seven days.

    Args:
        ahead_s: Pairs of a time from an order until the tick after it serves, in seconds, and the columns with that time,
            bool (n,).
        tick_s: Length of a tick.
    """

    def __init__(self, ahead_s: Sequence[tuple[float, Bool]], tick_s: float) -> None:
        self._leads_s, self._tick_s, self._slot_s = ahead_s, tick_s, week_slot_s(tick_s)
        self._ring: SmallFloat | None = None
        # If a day is a whole number of slots, the slots to read change only when a boundary is crossed.
        self._day_is_whole_slots = DAY_S % self._slot_s == 0.0
        self._later_s = [lead_s + late_s for lead_s, _ in ahead_s for late_s in (AROUND_S, WIDELY_S)]
        self._bounds_key: list[float] = []
        self._read_bounds: Int = np.zeros(0, np.int64)
        self._bounds: Int = np.zeros(0, np.int64)
        self._found: Float = np.empty((2, len(ahead_s[0][1])))

    def at(self, habits: Habits, now_s: float) -> Float:
        """Return the average over days and the maximum over days, in VMs: float64 (2, n), which callers must not change.

        NaN where no day is known.

        Args:
            habits: Must have recorded all slots that are read (`is_complete`).
            now_s: Time of the tick.
        """
        bounds = self._slots_to_read(habits, now_s)
        if bounds is not self._read_bounds or habits.week is not self._ring:
            self._read_bounds, self._ring = bounds, habits.week
            self._found = self._read_slots(habits.week, bounds, None)[0]
        return self._found

    def is_complete(self, habits: Habits, now_s: float) -> bool:
        """Return whether all slots that `at` reads are complete."""
        return int(self._slots_to_read(habits, now_s)[..., -1].max()) <= habits.week_slot

    def page(self, habits: Habits, now_s: Sequence[float], alike: ColumnGroups) -> Float | None:
        """Return the results of `at` for several ticks, float64 (T, 2, n); None if they read slots that are not recorded yet.

        Args:
            habits: The state at the first tick.
            now_s: Times of the T ticks.
            alike: Groups of columns with the same lead time. If all columns of each group have recorded the same demand, the
                result is (T, 2, G), one column per group.
        """
        ring = habits.week
        bounds = self._slot_bounds(np.array(now_s), len(ring))
        if int(bounds[..., -1].max()) > habits.week_slot:
            return None
        new = np.ones(len(bounds), np.bool_)
        new[1:] = (bounds[1:] != bounds[:-1]).any(axis=(1, 2, 3))
        distinct = bounds[new]
        grouped = alike.hold_bits(ring.take(np.unique(_slots(distinct)[0] % len(ring)), axis=0))
        if grouped:
            ring = alike.of_first(ring)
        return self._read_slots(ring, distinct, alike if grouped else None).take(np.cumsum(new) - 1, axis=0)

    def _slots_to_read(self, habits: Habits, now_s: float) -> Int:
        """Return `_slot_bounds` for one time; the very same array as long as the same slots are read."""
        slot_s, key = self._slot_s, [now_s]
        if self._day_is_whole_slots:
            key = [(now_s - ago_s) // slot_s for ago_s in (self._tick_s, AROUND_S, WIDELY_S)]
            key += [math.ceil((now_s + later_s) / slot_s - 1e-9) for later_s in self._later_s]
        if key != self._bounds_key:
            self._bounds_key, self._bounds = key, self._slot_bounds(np.array([now_s]), len(habits.week))
        return self._bounds

    def _slot_bounds(self, now_s: Float, slots: int) -> Int:
        """Return the bounds of the slots to read: int64 (T, leads, DAYS, 4), counted from the epoch.

        The four are the first slot within `WIDELY_S`, the first within `AROUND_S`, the first after `AROUND_S` and the first
        after `WIDELY_S`.

        Args:
            now_s: float64 (T,), times of ticks.
            slots: Number of slots in the ring.
        """
        slot_s = self._slot_s
        then_s = now_s[:, np.newaxis, np.newaxis] - np.arange(1, DAYS + 1) * DAY_S
        ahead_s = np.array([ahead_s for ahead_s, _ in self._leads_s])[:, np.newaxis]
        found = np.empty((len(now_s), len(ahead_s), DAYS, 4), np.int64)
        for at, around_s in ((0, WIDELY_S), (1, AROUND_S)):
            found[..., at] = (then_s - around_s) // slot_s
            found[..., 3 - at] = np.ceil((then_s + ahead_s + around_s) / slot_s - 1e-9)
        # Slots that are not complete, or that the ring no longer holds, are left out.
        under_way = ((now_s - self._tick_s) // slot_s).astype(np.int64)[:, np.newaxis, np.newaxis, np.newaxis]
        np.maximum(found, under_way - slots + 1, out=found)
        return np.minimum(found, under_way, out=found)

    def _read_slots(self, ring: SmallFloat, bounds: Int, alike: ColumnGroups | None) -> Float:
        """Return average and maximum over days from the slots of `_slot_bounds`: float64 (T, 2, n), or (T, 2, G) for groups."""
        found = np.empty((len(bounds), 2, ring.shape[1]))
        for number, (_, columns) in enumerate(self._leads_s):
            statistics = _day_statistics(ring, bounds[:, number])
            if number:
                np.copyto(found, statistics, where=columns if alike is None else alike.of_first(columns))
            else:
                found = statistics
        return found


def _slots(bounds: Int) -> tuple[Int, Int, Int, Int, Int]:
    """Return the slots to read and their bounds.

    Returns:
        Every slot from the first on, int64 (..., DAYS, W), W being the widest range, and the four bounds of `bounds`, (...,
        DAYS, 1) each.
    """
    first, near, near_end, end = (bounds[..., at, np.newaxis] for at in range(4))
    return first + np.arange(max(int((end - first).max()), 1)), first, near, near_end, end


def _day_statistics(ring: SmallFloat, bounds: Int) -> Float:
    """Return the mean over days of each day's widest-range maximum, and the maximum over days of the narrow range.

    Args:
        ring: float32 (slots, n), demand in VMs.
        bounds: int64 (T, DAYS, 4), bounds of slots.

    Returns:
        float64 (T, 2, n); NaN where no day is known.
    """
    at, _, near, near_end, end = _slots(bounds)
    rows = ring.take(at % len(ring), axis=0)
    after = at >= end
    if np.count_nonzero(after):
        rows[after] = np.nan
    highest = np.fmax.reduce(rows, axis=2)
    rows[(at < near) | (at >= near_end)] = np.nan
    unknown = np.isnan(highest)
    highest[unknown] = 0.0
    found = np.zeros((len(bounds), 2, ring.shape[1]))
    known = np.zeros((len(bounds), ring.shape[1]), np.int64)
    for day in range(DAYS):
        found[:, 0] += highest[:, day]
        known += ~unknown[:, day]
    found[:, 0] /= np.maximum(known, 1)
    found[:, 0][known == 0] = np.nan
    found[:, 1] = np.fmax.reduce(np.fmax.reduce(rows, axis=2), axis=1)
    return found
