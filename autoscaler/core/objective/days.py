"""What was needed at about this time on the days of the last week (`habits`): on the average, and on any of them.

Jobs on a clock come every day at nearly the same time, and some days late or higher. Whoever looks at yesterday alone, to the
minute, misses those; odds by the hour take weeks until they tell what comes once in one. So the highest demand around this
time is taken of each day, and then over days: the plain form of a periodic quantile (Qian and others, RobustScaler, 2022), with
headroom in place of a level.

Rules of this file: element-wise, days in their order. Nothing is kept that does not follow from what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.objective.habits import DAY_S, Habits, week_slot_s
from autoscaler.core.types import Bool, Float, SmallFloat

DAYS = 7
AROUND_S, WIDELY_S = 900.0, 1800.0
"""How much earlier and later is about this time: for the highest of all days, and for the average of them."""

_Looks: TypeAlias = tuple[tuple[int, ...], ...]
"""For each day: the first slot, the first near one, the slot behind the last near one, and the one behind the last."""


class EarlierDays:
    """The last week's days at about this time.

    Args:
        ahead_s: From an order until a tick after it serves, and which columns that is so for, bool (n,).
        tick_s: Length of a tick.
    """

    def __init__(self, ahead_s: Sequence[tuple[float, Bool]], tick_s: float) -> None:
        self._ahead_s, self._tick_s, self._slot_s = ahead_s, tick_s, week_slot_s(tick_s)
        self._ring: SmallFloat | None = None
        self._looked: list[_Looks] = []
        self._found: Float = np.empty((2, len(ahead_s[0][1])))

    def at(self, habits: Habits, now_s: float) -> Float:
        """In VMs, on the average and at most: float64 (2, n), NaN where no day is known; not to be changed.

        Args:
            habits: Of which all that is looked at is over (`is_over`).
            now_s: Time of the tick.
        """
        looked = self._looks(now_s, len(habits.week))
        if looked != self._looked or habits.week is not self._ring:
            self._looked, self._ring = looked, habits.week
            self._found = self._of_looks(habits.week, looked)
        return self._found

    def is_over(self, habits: Habits, now_s: float) -> bool:
        """Whether all that `at` looks at is over in the slot under way."""
        return _end(self._looks(now_s, len(habits.week))) <= habits.week_slot

    def page(self, habits: Habits, now_s: Sequence[float], alike: Alike) -> Float | None:
        """The same at some ticks, float64 (T, 2, n); None where they look at what is not noted yet.

        Args:
            habits: As of the first of them.
            now_s: Times of the ticks, T of them.
            alike: Columns in groups with the same lead time. Where those of each have noted the same, (T, 2, G) of them.
        """
        ring = habits.week
        looks = [self._looks(at_s, len(ring)) for at_s in now_s]
        if max(map(_end, looks)) > habits.week_slot:
            return None
        few = alike.hold_bits(ring)
        if few:
            ring = alike.of_first(ring)
        found = np.empty((len(now_s), 2, ring.shape[1]))
        for tick, looked in enumerate(looks):
            if tick and looked == looks[tick - 1]:
                found[tick] = found[tick - 1]
            else:
                found[tick] = self._of_looks(ring, looked, alike if few else None)
        return found

    def _looks(self, now_s: float, slots: int) -> list[_Looks]:
        """For each lead time the slots of each day."""
        under_way = int((now_s - self._tick_s) // self._slot_s)
        oldest, found = under_way - slots + 1, []
        for ahead_s, _ in self._ahead_s:
            days = []
            for day in range(1, DAYS + 1):
                then_s = now_s - day * DAY_S
                firsts = [int((then_s - early_s) // self._slot_s) for early_s in (WIDELY_S, AROUND_S)]
                ends = [
                    math.ceil((then_s + ahead_s + late_s) / self._slot_s - 1e-9)
                    for late_s in (AROUND_S, WIDELY_S)
                ]
                # What is not over yet is no earlier day; what was a week ago may be forgotten.
                days.append(tuple(min(max(slot, oldest), under_way) for slot in (*firsts, *ends)))
            found.append(tuple(days))
        return found

    def _of_looks(self, ring: SmallFloat, looked: list[_Looks], alike: Alike | None = None) -> Float:
        found = np.empty((2, ring.shape[1]))
        for number, (days, (_, mine)) in enumerate(zip(looked, self._ahead_s, strict=True)):
            average, highest = _of_days(ring, days)
            if number:
                where = mine if alike is None else alike.of_first(mine)
                np.copyto(found[0], average, where=where)
                np.copyto(found[1], highest, where=where)
            else:
                found[0], found[1] = average, highest
        return found


def _end(looked: list[_Looks]) -> int:
    """The slot behind all that are looked at."""
    return max(days[0][-1] for days in looked)


def _of_days(ring: SmallFloat, days: _Looks) -> tuple[Float, Float]:
    """The mean over days of the highest widely around this time, and the highest of any day around it: float64 (n,) both."""
    total, known = np.zeros(ring.shape[1]), np.zeros(ring.shape[1], np.int64)
    highest = np.full(ring.shape[1], np.nan, ring.dtype)
    for first, near, near_end, end in days:
        if first >= end:
            continue
        rows = ring.take(np.arange(first, end) % len(ring), axis=0)
        widely = np.fmax.reduce(rows, axis=0)
        there = ~np.isnan(widely)
        total += np.where(there, widely, 0.0)
        known += there
        if near < near_end:
            np.fmax(highest, np.fmax.reduce(rows[near - first : near_end - first], axis=0), out=highest)
    average: Float = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    return average, highest.astype(np.float64)
