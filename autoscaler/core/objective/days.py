"""The highest demand around this time on each day of the last week (`habits`): averaged over days, and the maximum.

Scheduled jobs come every day at nearly the same time, and on some days later or higher. Looking at yesterday alone, to the minute,
misses those; odds by the hour take weeks to reveal a job that runs once within its hour. So the maximum of demand around this time is
taken for each day, and then a statistic over days: the simple form of a periodic quantile (Qian and others, RobustScaler, 2022),
with headroom in place of a quantile level.

Rules of this file: element-wise, days in their order. Nothing is kept that does not follow from the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.objective.habits import DAY_S, Habits, week_slot_s
from autoscaler.core.types import Bool, Float, Int, SmallFloat

DAYS = 7
AROUND_S, WIDELY_S = 900.0, 1800.0
"""How much earlier and later is about this time: for the highest of all days, and for the average of them."""


class EarlierDays:
    """The last week's days at about this time.

    Args:
        ahead_s: From an order until a tick after it serves, and which columns that is so for, bool (n,).
        tick_s: Length of a tick.
    """

    def __init__(self, ahead_s: Sequence[tuple[float, Bool]], tick_s: float) -> None:
        self._ahead_s, self._tick_s, self._slot_s = ahead_s, tick_s, week_slot_s(tick_s)
        self._ring: SmallFloat | None = None
        # Each day begins with a slot where a whole number of slots is a day.
        self._of_a_day = DAY_S % self._slot_s == 0.0
        self._later_s = [lead_s + late_s for lead_s, _ in ahead_s for late_s in (AROUND_S, WIDELY_S)]
        self._asked: list[float] = []
        self._looked: Int = np.zeros(0, np.int64)
        self._looks: Int = np.zeros(0, np.int64)
        self._found: Float = np.empty((2, len(ahead_s[0][1])))

    def at(self, habits: Habits, now_s: float) -> Float:
        """In VMs, on the average and at most: float64 (2, n), NaN where no day is known; not to be changed.

        Args:
            habits: Of which all that is looked at is over (`is_over`).
            now_s: Time of the tick.
        """
        looks = self._looks_at(habits, now_s)
        if looks is not self._looked or habits.week is not self._ring:
            self._looked, self._ring = looks, habits.week
            self._found = self._of_looks(habits.week, looks, None)[0]
        return self._found

    def is_over(self, habits: Habits, now_s: float) -> bool:
        """Whether all that `at` looks at is over in the slot under way."""
        return int(self._looks_at(habits, now_s)[..., -1].max()) <= habits.week_slot

    def page(self, habits: Habits, now_s: Sequence[float], alike: Alike) -> Float | None:
        """The same at some ticks, float64 (T, 2, n); None where they look at what is not noted yet.

        Args:
            habits: As of the first of them.
            now_s: Times of the ticks, T of them.
            alike: Columns in groups with the same lead time. Where those of each have noted the same, (T, 2, G) of them.
        """
        ring = habits.week
        looks = self._looks_of(np.array(now_s), len(ring))
        if int(looks[..., -1].max()) > habits.week_slot:
            return None
        new = np.ones(len(looks), np.bool_)
        new[1:] = (looks[1:] != looks[:-1]).any(axis=(1, 2, 3))
        some = looks[new]
        few = alike.hold_bits(ring.take(np.unique(_slots(some)[0] % len(ring)), axis=0))
        if few:
            ring = alike.of_first(ring)
        return self._of_looks(ring, some, alike if few else None).take(np.cumsum(new) - 1, axis=0)

    def _looks_at(self, habits: Habits, now_s: float) -> Int:
        """As `_looks_of` one time; the very same array for as long as the same slots are looked at."""
        each_s, asked = self._slot_s, [now_s]
        if self._of_a_day:
            asked = [(now_s - ago_s) // each_s for ago_s in (self._tick_s, AROUND_S, WIDELY_S)]
            asked += [math.ceil((now_s + later_s) / each_s - 1e-9) for later_s in self._later_s]
        if asked != self._asked:
            self._asked, self._looks = asked, self._looks_of(np.array([now_s]), len(habits.week))
        return self._looks

    def _looks_of(self, now_s: Float, slots: int) -> Int:
        """Which slots are looked at, since the epoch, of a ring of so many: int64 (T, leads, DAYS, 4) at (T,) times.

        The four are the first, the first near one, the one behind the last near one, and the one behind the last.
        """
        each_s = self._slot_s
        then_s = now_s[:, np.newaxis, np.newaxis] - np.arange(1, DAYS + 1) * DAY_S
        ahead_s = np.array([ahead_s for ahead_s, _ in self._ahead_s])[:, np.newaxis]
        found = np.empty((len(now_s), len(ahead_s), DAYS, 4), np.int64)
        for at, around_s in ((0, WIDELY_S), (1, AROUND_S)):
            found[..., at] = (then_s - around_s) // each_s
            found[..., 3 - at] = np.ceil((then_s + ahead_s + around_s) / each_s - 1e-9)
        # What is not over yet is no earlier day; what was a week ago may be forgotten.
        under_way = ((now_s - self._tick_s) // each_s).astype(np.int64)[:, np.newaxis, np.newaxis, np.newaxis]
        np.maximum(found, under_way - slots + 1, out=found)
        return np.minimum(found, under_way, out=found)

    def _of_looks(self, ring: SmallFloat, looks: Int, alike: Alike | None) -> Float:
        """What those slots say: float64 (T, 2, n), or (T, 2, G) of the columns that stand for their groups."""
        found = np.empty((len(looks), 2, ring.shape[1]))
        for number, (_, mine) in enumerate(self._ahead_s):
            of_days = _of_days(ring, looks[:, number])
            if number:
                np.copyto(found, of_days, where=mine if alike is None else alike.of_first(mine))
            else:
                found = of_days
        return found


def _slots(looks: Int) -> tuple[Int, Int, Int, Int, Int]:
    """Every slot from the first on for as long as the longest takes, (..., DAYS, W), and the four of `looks`, (..., DAYS, 1)."""
    first, near, near_end, end = (looks[..., at, np.newaxis] for at in range(4))
    return first + np.arange(max(int((end - first).max()), 1)), first, near, near_end, end


def _of_days(ring: SmallFloat, looks: Int) -> Float:
    """The mean over days of the highest widely around a time, and the highest of any day around it: float64 (T, 2, n).

    Args:
        ring: float32 (slots, n).
        looks: int64 (T, DAYS, 4).
    """
    at, _, near, near_end, end = _slots(looks)
    rows = ring.take(at % len(ring), axis=0)
    beyond = at >= end
    if np.count_nonzero(beyond):
        rows[beyond] = np.nan
    widely = np.fmax.reduce(rows, axis=2)
    rows[(at < near) | (at >= near_end)] = np.nan
    unknown = np.isnan(widely)
    widely[unknown] = 0.0
    found = np.zeros((len(looks), 2, ring.shape[1]))
    known = np.zeros((len(looks), ring.shape[1]), np.int64)
    for day in range(DAYS):
        found[:, 0] += widely[:, day]
        known += ~unknown[:, day]
    found[:, 0] /= np.maximum(known, 1)
    found[:, 0][known == 0] = np.nan
    found[:, 1] = np.fmax.reduce(np.fmax.reduce(rows, axis=2), axis=1)
    return found
