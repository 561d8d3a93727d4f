"""What a fleet usually needs, overall and at this hour of the day: VM counts that ignore the last few minutes.

If demand jumps faster than a start takes, and nothing announces it, no forecast from the last samples beats the newsvendor who
knows the distribution of demand: hold VM k if p * P(it is needed) pays for it. Twenty-four histograms, one per hour of the day
(UTC), and one over all hours, each with exponential forgetting, estimate that distribution. Another one forgets so slowly that it
knows the crowds of months. Beyond the highest demand ever seen, a Pareto tail with index 1 is assumed: a tenth of the probability
corresponds to ten times the demand.

Rules of this file: element-wise, sums along bins in order. What models want is computed once an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from autoscaler.core.column_groups import one_of
from autoscaler.core.state_base import Dumped, Remembered, length_of, take_columns
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallFloat, SmallInt

HOURS = 24
BINS, PER_OCTAVE = 96, 8
"""Number of bins of demand in VMs, evenly spaced in the logarithm of (1 + VMs), and bins per doubling: each is 9 % wide, up
to 4,095 VMs."""
HALF_LIFE_S = 5 * 86400.0
"""Age in seconds at which demand has half its weight in the hourly histograms."""
EVER_HALF_LIFE_S = 60 * 86400.0
"""Half-life in seconds of the histogram of all demand ever seen, and of the highest demand ever."""
LASTING_S = 60.0
"""Seconds that demand must stay above the highest demand ever to become the new highest."""
CROWD = 16.0
"""A crowd that was never seen is assumed to be at most this many times as high as the highest demand ever."""
BORROWED = 0.25
"""Weight of all hours in the histogram of one hour of the day, relative to the average weight of an hour."""
HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 7 * 86400.0
SLOT_S, WEEK_SLOT_S = 60.0, 300.0
"""Shortest slots of the last day and of the last week, in seconds."""

EDGES: Float = (2.0 ** (np.arange(BINS + 1) / PER_OCTAVE) - 1.0).astype(np.float64)
"""float64 (BINS + 1,), edges of the bins in VMs."""
# As arrays, because converting a plain number takes numpy a while, which matters if there are few columns.
_ONE, _PER_OCTAVE, _LITTLE, _LAST = (
    np.array(number) for number in (1.0, float(PER_OCTAVE), 1e-9, BINS - 1.0)
)
_ONE_TICK = np.float32(1.0)
_FEWEST = 1e-9
"""VMs that replace 0 in divisors."""
_MANY = 64
"""From this many columns on, adding row by row is faster than `np.add.accumulate`."""
_ARRAYS = (
    "seen",
    "ever",
    "highest",
    "above",
    "lasting",
    "beyond",
    "allowed",
    "wanted",
    "hour",
    "day",
    "week",
)
"""Fields with a column along the last axis."""
_BELOW, _WIDTH = EDGES[:-1, np.newaxis], np.diff(EDGES)[:, np.newaxis]


@dataclass(slots=True)
class Habits(Remembered):
    """What is remembered of demand in n columns.

    Attributes:
        seen: float32 (HOURS + 1, BINS, n), ticks of demand by hour of the day (UTC), and over all hours, forgotten with
            `HALF_LIFE_S`.
        ever: float32 (BINS, n), ticks of demand, forgotten with `EVER_HALF_LIFE_S`.
        highest: float64 (n,), the highest demand in VMs that lasted for `LASTING_S`, fading with `EVER_HALF_LIFE_S`.
        above: int64 (n,), ticks for which demand has now been above `highest`.
        lasting: float64 (n,), the lowest demand of these ticks.
        beyond: float64 (n,), sum over ticks of (demand - highest) / highest, at most `CROWD` in each tick, fading with
            `EVER_HALF_LIFE_S`.
        allowed: float64 (n,), number of crowds beyond `highest` that were allowed for (`competition`), fading likewise.
        wanted: int32 (3, T, n), VMs wanted by all hours, by this hour, and by all demand ever seen, at T prices; as last
            computed.
        hour: int64 (n,), the hour since the epoch for which `wanted` was computed; -1 before the first.
        day: float32 (slots, n), highest demand in VMs in each slot of the last day, by slot modulo their number; NaN if
            unknown.
        slot: The present slot, counted from the epoch; -1 before the first.
        week, week_slot: As `day` and `slot` for the last week, in longer slots.
    """

    version: ClassVar[int] = 6
    seen: SmallFloat
    ever: SmallFloat
    highest: Float
    above: Int
    lasting: Float
    beyond: Float
    allowed: Float
    wanted: SmallInt
    hour: Int
    day: SmallFloat
    slot: int
    week: SmallFloat
    week_slot: int

    @classmethod
    def added(cls, before: Dumped) -> Dumped:
        """Supply what version 5 lacks: no crowds came and none were allowed for, as on a first day."""
        columns = length_of(before["highest"])
        return {"beyond": np.zeros(columns), "allowed": np.zeros(columns)}

    @classmethod
    def empty(cls, lanes: int, prices: int, tick_s: float) -> Habits:
        """Return a state in which nothing has been seen yet."""
        seen = np.zeros((HOURS + 1, BINS, lanes), np.float32)
        day, week = (
            np.full((int(all_s // each_s) + 1, lanes), np.nan, np.float32)
            for all_s, each_s in ((DAY_S, slot_s(tick_s)), (WEEK_S, week_slot_s(tick_s)))
        )
        ever, highest = np.zeros((BINS, lanes), np.float32), np.zeros(lanes)
        above, lasting = np.zeros(lanes, np.int64), np.zeros(lanes)
        beyond, allowed = np.zeros(lanes), np.zeros(lanes)
        wanted, hour = np.zeros((3, prices, lanes), np.int32), np.full(lanes, -1)
        return cls(seen, ever, highest, above, lasting, beyond, allowed, wanted, hour, day, -1, week, -1)

    def carried_over(self, columns: Int, tick_s: float) -> Habits:
        """Return the state for other columns, each of which may continue one of these; this state is not changed.

        Args:
            columns: int64 (N,), the earlier column that each one continues; -1 for a new one.
            tick_s: Length of the new ticks. Slots of another length are not carried over.
        """
        new = Habits.empty(len(columns), self.wanted.shape[1], tick_s)
        known = columns >= 0
        new.seen[:, :, known] = self.seen[:, :, columns[known]]
        new.ever[:, known] = self.ever[:, columns[known]]
        for name in ("highest", "above", "lasting", "beyond", "allowed", "hour"):
            getattr(new, name)[known] = getattr(self, name)[columns[known]]
        new.wanted[:, :, known] = self.wanted[:, :, columns[known]]
        if len(new.day) == len(self.day):
            new.day[:, known] = self.day[:, columns[known]]
            new.slot = self.slot
        if len(new.week) == len(self.week):
            new.week[:, known] = self.week[:, columns[known]]
            new.week_slot = self.week_slot
        return new

    def of_columns(self, columns: Int) -> Habits:
        """Return the state for a selection of these columns, int64 (N,); this state is not changed."""
        return replace(self, **{name: getattr(self, name).take(columns, axis=-1) for name in _ARRAYS})

    def take_in(self, mine: Int, other: Habits, theirs: Int) -> None:
        """Copy columns `theirs` of another state at the same tick to columns `mine`, int64 (k,) each."""
        take_columns(self, mine, other, theirs, _ARRAYS, when=("slot", "week_slot"))


def slot_s(tick_s: float) -> float:
    """Return the length of a slot of the last day: a minute, or a tick if ticks are longer."""
    return max(SLOT_S, tick_s)


def week_slot_s(tick_s: float) -> float:
    """Return the length of a slot of the last week: five minutes, or a tick if ticks are longer."""
    return max(WEEK_SLOT_S, tick_s)


def yesterday(habits: Habits, now_s: float, ahead_s: tuple[float, float], tick_s: float) -> Float:
    """Return yesterday's highest demand in two windows that begin at this time of day.

    Args:
        habits: The last tick must have been recorded.
        now_s: Time of the tick.
        ahead_s: Lengths of the windows in seconds, ascending.
        tick_s: Length of a tick.

    Returns:
        float64 (2, n), in VMs; NaN where yesterday is unknown.
    """
    return _highest_in_windows(habits.day, now_s - DAY_S, ahead_s, slot_s(tick_s))


def last_week(habits: Habits, now_s: float, ahead_s: tuple[float, float], tick_s: float) -> Float:
    """Return the highest demand of the same day a week ago, in slots of five minutes; otherwise as `yesterday`."""
    return _highest_in_windows(habits.week, now_s - WEEK_S, ahead_s, week_slot_s(tick_s))


def slots_of(then_s: float, ahead_s: tuple[float, float], length_s: float, slots: int) -> tuple[int, ...]:
    """Return the first slot of windows that begin at a time, and for each window the first slot after it.

    Args:
        then_s: When the windows begin, in seconds since the epoch.
        ahead_s: Lengths of the windows, ascending.
        length_s: Length of a slot.
        slots: Number of slots in the ring. A window is cut so that it does not reach round to the present slot.

    Returns:
        Slots, counted from the epoch.
    """
    first = int(then_s // length_s)
    return first, *(
        min(math.ceil((then_s + window_s) / length_s - 1e-9), first + slots - 1) for window_s in ahead_s
    )


def slots_of_page(then_s: Float, ahead_s: tuple[float, float], length_s: float, slots: int) -> Int:
    """Return the results of `slots_of` for several beginnings, float64 (T,): int64 (T, 1 + windows)."""
    first = np.floor_divide(then_s, length_s)
    ends = [np.ceil((then_s + window_s) / length_s - 1e-9) for window_s in ahead_s]
    found: Int = np.stack([first, *(np.minimum(end, first + (slots - 1)) for end in ends)], axis=1)
    return found.astype(np.int64)


def _highest_in_windows(
    ring: SmallFloat, then_s: float, ahead_s: tuple[float, float], length_s: float
) -> Float:
    """Return the highest demand of each window, float64 (windows, n); NaN if unknown."""
    slots = len(ring)
    done, *ends = slots_of(then_s, ahead_s, length_s, slots)
    found = np.empty((len(ahead_s), ring.shape[1]))
    found[0], before = np.nan, 0
    for window, end in enumerate(ends):
        # The longer window continues where the shorter one ends.
        found[window] = found[before]
        while done < end:
            at = done % slots
            rows = ring[at : at + end - done]
            np.fmax(found[window], np.fmax.reduce(rows, axis=0), out=found[window])
            done += len(rows)
        before = window
    return found


def bin_of(need: Float) -> Int:
    """Return the bins of numbers of VMs, int64 of the same shape."""
    bins: Float = need + _ONE
    np.log2(bins, out=bins)
    bins *= _PER_OCTAVE
    bins += _LITTLE
    np.minimum(bins, _LAST, out=bins)
    return bins.astype(np.int64)


def note(habits: Habits, now_s: float, need: Float, counts: Bool, tick_s: float) -> None:
    """Record a tick of demand.

    Args:
        habits: Updated in place.
        now_s: Time of the tick.
        need: float64 (n,), demand in VMs.
        counts: bool (n,), whether it is known.
        tick_s: Length of a tick.
    """
    lanes = len(need)
    everywhere = np.count_nonzero(counts) == lanes
    cell = bin_of(need if everywhere else np.where(counts, need, 0.0))
    cell *= lanes
    cell += np.arange(lanes)
    ticks, hour = _ONE_TICK if everywhere else counts.astype(np.float32), int(now_s // HOUR_S) % HOURS
    for table in (habits.seen[hour], habits.seen[HOURS], habits.ever):
        np.add.at(table.reshape(-1), cell, ticks)
    _note_highest(habits, need, counts, lasting_ticks(tick_s))
    known = (need if everywhere else np.where(counts, need, np.nan)).astype(np.float32)
    habits.slot = _note_slot(habits.day, habits.slot, int(now_s // slot_s(tick_s)), known)
    habits.week_slot = _note_slot(habits.week, habits.week_slot, int(now_s // week_slot_s(tick_s)), known)


def note_page(habits: Habits, now_s: Sequence[float], need: Float, tick_s: float) -> None:
    """Record consecutive ticks within one hour in which demand is known everywhere; the result is that of `note` for each.

    Args:
        habits: Updated in place.
        now_s: Times of the T ticks.
        need: float64 (T, n), demand in VMs.
        tick_s: Length of a tick.
    """
    cell = bin_of(need)
    cell *= need.shape[1]
    cell += np.arange(need.shape[1])
    for table in (habits.seen[int(now_s[0] // HOUR_S) % HOURS], habits.seen[HOURS], habits.ever):
        # `np.add.at` handles bins that occur more than once.
        np.add.at(table.reshape(-1), cell, _ONE_TICK)
    if np.count_nonzero(habits.above) or np.count_nonzero(np.maximum.reduce(need, axis=0) > habits.highest):
        everywhere, ticks = np.ones(need.shape[1], np.bool_), lasting_ticks(tick_s)
        for each in need:
            _note_highest(habits, each, everywhere, ticks)
    known = need.astype(np.float32)
    habits.slot = _note_slots(habits.day, habits.slot, _slots_at(now_s, slot_s(tick_s)), known)
    habits.week_slot = _note_slots(
        habits.week, habits.week_slot, _slots_at(now_s, week_slot_s(tick_s)), known
    )


def lasting_ticks(tick_s: float) -> int:
    """Return `LASTING_S` in ticks, at least 1."""
    return max(1, math.ceil(LASTING_S / tick_s - 1e-9))


def _note_slot(ring: SmallFloat, before: int, slot: int, need: SmallFloat) -> int:
    """Record a tick in its slot of a ring, and return the slot. Slots that were skipped become unknown."""
    slots = len(ring)
    row = ring[slot % slots]
    if slot <= before:
        np.fmax(row, need, out=row)
        return slot
    first = slot - slots + 1 if before < 0 else max(before + 1, slot - slots + 1)
    for skipped in range(first, slot):
        ring[skipped % slots] = np.nan
    row[...] = need
    return slot


def _slots_at(now_s: Sequence[float], each_s: float) -> list[int]:
    """Return the slots of some times, counted from the epoch."""
    return [int(at_s // each_s) for at_s in now_s]


def _note_slots(ring: SmallFloat, before: int, slots: list[int], need: SmallFloat) -> int:
    """Record consecutive ticks in their slots of a ring, float32 (T, n) and known everywhere; return the last slot."""
    first, last = slots[0], slots[-1]
    begins = [at for at, slot in enumerate(slots) if at == 0 or slot != slots[at - 1]]
    if not before <= first <= before + 1 or last - first + 1 != len(begins) or len(begins) > len(ring):
        for slot, each in zip(slots, need, strict=True):
            before = _note_slot(ring, before, slot, each)
        return before
    highest = need if len(begins) == len(slots) else np.fmax.reduceat(need, begins, axis=0)
    at = np.arange(first, last + 1) % len(ring)
    if first == before:
        np.fmax(ring[at[0]], highest[0], out=ring[at[0]])
        at, highest = at[1:], highest[1:]
    ring[at] = highest
    return last


def _note_highest(habits: Habits, need: Float, counts: Bool, ticks: int) -> None:
    """Update the highest demand ever. Demand above it must last, because a single reading may be wrong."""
    exceeds = counts & (need > habits.highest)
    if not (np.count_nonzero(exceeds) or np.count_nonzero(habits.above)):
        return
    above = np.where(exceeds, need, 0.0) - habits.highest
    above /= np.maximum(habits.highest, _FEWEST)
    habits.beyond = habits.beyond + np.minimum(np.maximum(above, 0.0), CROWD)
    habits.above = np.where(counts, (habits.above + 1) * exceeds, habits.above)
    lasting = np.where(habits.above > 1, np.minimum(habits.lasting, need), need)
    habits.lasting = np.where(exceeds, lasting, habits.lasting)
    lasted = habits.above >= ticks
    habits.highest = np.where(lasted, habits.lasting, habits.highest)
    habits.above = habits.above * ~lasted


def revise(habits: Habits, now_s: float, ahead_s: Float, share: Float) -> None:
    """Forget for the hours that have passed, and compute what is wanted. Does nothing within an hour.

    Args:
        habits: Updated in place.
        now_s: Time of the tick.
        ahead_s: float64 (n,), seconds from an order until it serves.
        share: float64 (T, n), share of ticks in which a VM must be needed to be worth holding.
    """
    hour = ((now_s + ahead_s) // HOUR_S).astype(np.int64)
    late = np.flatnonzero(hour != habits.hour)
    for due in np.unique(hour[late]).tolist() if len(late) else ():
        _revise(habits, late[hour[late] == due], due, share)


def _revise(habits: Habits, columns: Int, hour: int, share: Float) -> None:
    """Compute what some columns want in an hour, int64 (k,), after forgetting."""
    all_columns = len(columns) == len(habits.hour)
    at: Int | slice[None, None, None] = slice(None) if all_columns else columns
    passed = np.where(habits.hour[at] >= 0, hour - habits.hour[at], 0)
    elapsed_s = np.minimum(passed, 10_000) * HOUR_S
    # Higher bins, of which there are many, are empty.
    used_bins, ever_bins = _bins_of(habits.seen[HOURS]), _bins_of(habits.ever)
    for array, half_life_s in (
        (habits.seen[:, :used_bins], HALF_LIFE_S),
        (habits.ever[:ever_bins], EVER_HALF_LIFE_S),
        (habits.highest, EVER_HALF_LIFE_S),
        (habits.beyond, EVER_HALF_LIFE_S),
        (habits.allowed, EVER_HALF_LIFE_S),
    ):
        left: Float = 0.5 ** (elapsed_s / half_life_s)
        # numpy multiplies by one number much faster than by one per column.
        array[..., at] *= (left[:1] if (left == left[0]).all() else left).astype(array.dtype)
    habits.hour[at] = hour
    all_hours = habits.seen[HOURS][:used_bins, at].astype(np.float64)
    this_hour = habits.seen[hour % HOURS][:used_bins, at].astype(np.float64)
    this_hour += all_hours * (BORROWED / HOURS)
    share, highest = share[:, at], habits.highest[at]
    for row, table in enumerate((all_hours, this_hour)):
        habits.wanted[row][:, at] = _wanted(table, share)
    ever = habits.ever[:, at].astype(np.float64)
    # The Pareto tail, if the highest demand H was exceeded in one of the N ticks seen: P(demand > x H) = 1 / (N x).
    rarity = np.maximum(np.add.reduce(ever, axis=0) * share, 1.0 / CROWD)
    beyond = np.ceil(np.minimum(highest / rarity, MOST_VMS) - 1e-9)
    seen = np.minimum(_wanted(ever[:ever_bins], share), np.ceil(highest))
    habits.wanted[2][:, at] = np.where(rarity < 1.0, beyond, seen)


def _bins_of(table: SmallFloat) -> int:
    """Return the number of bins up to the highest that is not empty in any column of (BINS, n); at least 1."""
    used = np.flatnonzero(np.maximum.reduce(table, axis=1) > 0.0)
    return int(used[-1]) + 1 if len(used) else 1


def _summed_up(table: Float) -> Float:
    """Return the sums from each row to the last one, added from the last row up. May work in place."""
    if table.shape[1] < _MANY:
        return np.add.accumulate(table[::-1], axis=0)[::-1]
    # numpy's accumulate goes through the rows column by column.
    for row in range(len(table) - 2, -1, -1):
        table[row] += table[row + 1]
    return table


def _wanted(table: Float, share: Float) -> SmallInt:
    """Return how many VMs are needed in at least these shares of the ticks: int32 (T, n).

    Args:
        table: float64 (bins, n), ticks by bin of demand, up to the highest bin that is not empty; overwritten.
        share: float64 (T, n), all above 0.
    """
    beyond = _summed_up(one_of(table))
    total = np.maximum(beyond[0], 1e-9)
    # Within a bin, the probability of more demand is interpolated linearly.
    above = beyond / total
    after = np.concatenate([above[1:], np.zeros_like(above[:1])])
    enough = above[np.newaxis] >= share[:, np.newaxis]
    reached = np.add.reduce(enough.view(np.uint8), axis=1, dtype=np.uint8).astype(np.int64)
    at = np.maximum(reached - 1, 0)
    lanes = np.arange(above.shape[1])
    first, last = above[at, lanes], after[at, lanes]
    into = np.minimum(np.maximum((first - share) / np.maximum(first - last, 1e-12), 0.0), 1.0)
    vms = _BELOW[at, 0] + into * _WIDTH[at, 0]
    # A VM counts if half of its work is needed often enough: that stands for the average over its work.
    whole: Float = np.floor(vms + 0.5) * (reached > 0)
    return whole.astype(np.int32)
