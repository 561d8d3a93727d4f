"""What a fleet usually needs, overall and at this hour of the day: VM counts that ignore the last few minutes.

If demand jumps faster than a start takes, and nothing announces it, no forecast from the last samples beats the newsvendor who
knows the distribution of demand: hold VM k if p * P(it is needed) pays for it. Twenty-four histograms, one per hour of the day
(UTC), and one over all hours, each with exponential forgetting, estimate that distribution. Another one forgets so slowly that it
knows the crowds of months. Beyond the highest demand ever seen, a Pareto tail with index 1 is assumed: a tenth of the probability
corresponds to ten times the demand.

Rules of this file: element-wise, sums along bins in their order. Wishes are computed once an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from autoscaler.core.alike import one_of
from autoscaler.core.remembered import Dumped, Remembered, length_of, take_columns
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallFloat, SmallInt

HOURS = 24
BINS, PER_OCTAVE = 96, 8
"""Bins of demand in VMs, even in the logarithm of (1 + VMs): 9 % wide, up to 4,095 VMs."""
HALF_LIFE_S = 5 * 86400.0
"""Demand counts half after this time."""
EVER_HALF_LIFE_S = 60 * 86400.0
"""And this long in the histogram of what was ever needed."""
LASTING_S = 60.0
"""So long must demand be as high to be the highest ever."""
CROWD = 16.0
"""A crowd that was never seen is at most so many times as high as the highest ever."""
BORROWED = 0.25
"""What all hours count beside an hour's own, as a share of the weight that a day leaves in an hour."""
HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 7 * 86400.0
SLOT_S, WEEK_SLOT_S = 60.0, 300.0

EDGES: Float = (2.0 ** (np.arange(BINS + 1) / PER_OCTAVE) - 1.0).astype(np.float64)
"""float64 (BINS + 1,), edges of the bins in VMs."""
# As arrays, because numpy takes a while to convert a plain number, which matters if there are few columns.
_ONE, _PER_OCTAVE, _LITTLE, _LAST = (
    np.array(number) for number in (1.0, float(PER_OCTAVE), 1e-9, BINS - 1.0)
)
_MET = np.float32(1.0)
_FEWEST = 1e-9
"""VMs, by which may be divided."""
_MANY = 64
"""Columns from which on it takes less to go through rows one by one."""
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
_BELOW, _WIDTH = EDGES[:-1, np.newaxis], np.diff(EDGES)[:, np.newaxis]


@dataclass(slots=True)
class Habits(Remembered):
    """What is remembered of n lanes.

    Attributes:
        seen: float32 (HOURS + 1, BINS, n), ticks of demand by hour of the day, and over all, forgotten exponentially.
        ever: float32 (BINS, n), ticks of demand, forgotten slowly.
        highest: float64 (n,), the highest demand in VMs that lasted for `LASTING_S`, forgotten as slowly.
        above: int64 (n,), for how many ticks demand has been above that.
        lasting: float64 (n,), the lowest demand of these ticks.
        beyond: float64 (n,), by how much demand was above the highest ever, over that, at most `CROWD`: the sum of ticks, forgotten
            as slowly.
        allowed: float64 (n,), how many crowds above the highest ever were allowed for (`experts`), likewise.
        wanted: int32 (3, T, n), VMs wanted by all hours, by this hour, and by what was ever needed, at T prices; as of the
            last hour.
        hour: int64 (n,), the hour for which `wanted` is, since the epoch; -1 before the first.
        day: float32 (slots, n), highest demand in VMs of each slot of the last day, by slot modulo their number; NaN where
            unknown.
        slot: The slot under way, since the epoch; -1 before the first.
        week, week_slot: The same of the last week, in slots that are longer.
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
        """As of every state: version 5 did not count crowds; none were allowed for, as on a first day."""
        columns = length_of(before["highest"])
        return {"beyond": np.zeros(columns), "allowed": np.zeros(columns)}

    @classmethod
    def empty(cls, lanes: int, prices: int, tick_s: float) -> Habits:
        """Nothing seen yet."""
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
        """The same for other columns, int64 (N,): which each was, -1 for a new one; this one is not changed."""
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
        """The same for columns that are all known, int64 (N,): which each was; this one is not changed."""
        return replace(self, **{name: getattr(self, name).take(columns, axis=-1) for name in _ARRAYS})

    def take_in(self, mine: Int, other: Habits, theirs: Int) -> None:
        """Know some columns, int64 (k,) both, as another does, which has noted the same last tick."""
        take_columns(self, mine, other, theirs, _ARRAYS, when=("slot", "week_slot"))


def slot_s(tick_s: float) -> float:
    """Length of a slot of the last day: a minute, or a tick where ticks are longer."""
    return max(SLOT_S, tick_s)


def week_slot_s(tick_s: float) -> float:
    """Length of a slot of the last week: five minutes, or a tick where ticks are longer."""
    return max(WEEK_SLOT_S, tick_s)


def yesterday(habits: Habits, now_s: float, ahead_s: tuple[float, float], tick_s: float) -> Float:
    """The highest demand of yesterday in two windows that begin at this time of the day: float64 (2, n), in VMs.

    Args:
        habits: Of which `note` has noted the last tick.
        now_s: Time of the tick.
        ahead_s: Lengths of the windows, ascending.
        tick_s: Length of a tick.

    Returns:
        NaN where yesterday is unknown.
    """
    return _then(habits.day, now_s - DAY_S, ahead_s, slot_s(tick_s))


def last_week(habits: Habits, now_s: float, ahead_s: tuple[float, float], tick_s: float) -> Float:
    """The same of the day a week ago, to five minutes."""
    return _then(habits.week, now_s - WEEK_S, ahead_s, week_slot_s(tick_s))


def slots_of(then_s: float, ahead_s: tuple[float, float], length_s: float, slots: int) -> tuple[int, ...]:
    """The first slot of windows that begin at a time, and for each, ascending, the one behind it, since the epoch."""
    first = int(then_s // length_s)
    # A window that reaches all round would come to what is not over yet.
    return first, *(
        min(math.ceil((then_s + window_s) / length_s - 1e-9), first + slots - 1) for window_s in ahead_s
    )


def slots_of_page(then_s: Float, ahead_s: tuple[float, float], length_s: float, slots: int) -> Int:
    """The same of windows that begin at some times, float64 (T,): int64 (T, 1 + windows)."""
    first = np.floor_divide(then_s, length_s)
    ends = [np.ceil((then_s + window_s) / length_s - 1e-9) for window_s in ahead_s]
    found: Int = np.stack([first, *(np.minimum(end, first + (slots - 1)) for end in ends)], axis=1)
    return found.astype(np.int64)


def _then(ring: SmallFloat, then_s: float, ahead_s: tuple[float, float], length_s: float) -> Float:
    slots = len(ring)
    done, *ends = slots_of(then_s, ahead_s, length_s, slots)
    found = np.empty((len(ahead_s), ring.shape[1]))
    found[0], before = np.nan, 0
    for window, end in enumerate(ends):
        # The longer window goes on from where the shorter one ends.
        found[window] = found[before]
        while done < end:
            at = done % slots
            rows = ring[at : at + end - done]
            np.fmax(found[window], np.fmax.reduce(rows, axis=0), out=found[window])
            done += len(rows)
        before = window
    return found


def bin_of(need: Float) -> Int:
    """The bin of so many VMs, any shape."""
    bins: Float = need + _ONE
    np.log2(bins, out=bins)
    bins *= _PER_OCTAVE
    bins += _LITTLE
    np.minimum(bins, _LAST, out=bins)
    return bins.astype(np.int64)


def note(habits: Habits, now_s: float, need: Float, counts: Bool, tick_s: float) -> None:
    """Count a tick of demand.

    Args:
        habits: Updated in place.
        now_s: Time of the tick.
        need: float64 (n,), demand in VMs.
        counts: bool (n,), where it is known.
        tick_s: Length of a tick.
    """
    lanes = len(need)
    everywhere = np.count_nonzero(counts) == lanes
    cell = bin_of(need if everywhere else np.where(counts, need, 0.0))
    cell *= lanes
    cell += np.arange(lanes)
    met, hour = _MET if everywhere else counts.astype(np.float32), int(now_s // HOUR_S) % HOURS
    for table in (habits.seen[hour], habits.seen[HOURS], habits.ever):
        np.add.at(table.reshape(-1), cell, met)
    _note_highest(habits, need, counts, lasting_ticks(tick_s))
    known = (need if everywhere else np.where(counts, need, np.nan)).astype(np.float32)
    habits.slot = _note_slot(habits.day, habits.slot, int(now_s // slot_s(tick_s)), known)
    habits.week_slot = _note_slot(habits.week, habits.week_slot, int(now_s // week_slot_s(tick_s)), known)


def note_page(habits: Habits, now_s: Sequence[float], need: Float, tick_s: float) -> None:
    """Count ticks of one hour in which demand is known everywhere, as `note` does one by one.

    Args:
        habits: Updated in place.
        now_s: Times of the ticks, T of them.
        need: float64 (T, n), demand in VMs.
        tick_s: Length of a tick.
    """
    cell = bin_of(need)
    cell *= need.shape[1]
    cell += np.arange(need.shape[1])
    for table in (habits.seen[int(now_s[0] // HOUR_S) % HOURS], habits.seen[HOURS], habits.ever):
        # One after the other, since a bin may be met twice.
        np.add.at(table.reshape(-1), cell, _MET)
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
    """For how many ticks demand must be as high to be the highest ever."""
    return max(1, math.ceil(LASTING_S / tick_s - 1e-9))


def _note_slot(ring: SmallFloat, before: int, slot: int, need: SmallFloat) -> int:
    """Take a tick into its slot; the slot. What was last there is forgotten."""
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
    return [int(at_s // each_s) for at_s in now_s]


def _note_slots(ring: SmallFloat, before: int, slots: list[int], need: SmallFloat) -> int:
    """Take ticks that follow each other into their slots, float32 (T, n) and known everywhere; the last slot."""
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
    """Take in a tick: what is higher than ever must last, since a single reading may be wrong."""
    over = counts & (need > habits.highest)
    if not (np.count_nonzero(over) or np.count_nonzero(habits.above)):
        return
    above = np.where(over, need, 0.0) - habits.highest
    above /= np.maximum(habits.highest, _FEWEST)
    habits.beyond = habits.beyond + np.minimum(np.maximum(above, 0.0), CROWD)
    habits.above = np.where(counts, (habits.above + 1) * over, habits.above)
    lasting = np.where(habits.above > 1, np.minimum(habits.lasting, need), need)
    habits.lasting = np.where(over, lasting, habits.lasting)
    lasted = habits.above >= ticks
    habits.highest = np.where(lasted, habits.lasting, habits.highest)
    habits.above = habits.above * ~lasted


def revise(habits: Habits, now_s: float, ahead_s: Float, share: Float) -> None:
    """Forget an hour's worth, and work out what is wanted; does nothing within the hour.

    Args:
        habits: Updated in place.
        now_s: Time of the tick.
        ahead_s: float64 (n,), how far ahead what is wanted serves.
        share: float64 (T, n), of how many ticks a VM must be needed to be held.
    """
    hour = ((now_s + ahead_s) // HOUR_S).astype(np.int64)
    late = np.flatnonzero(hour != habits.hour)
    for due in np.unique(hour[late]).tolist() if len(late) else ():
        _revise(habits, late[hour[late] == due], due, share)


def _revise(habits: Habits, some: Int, hour: int, share: Float) -> None:
    """Work out what some columns want in an hour."""
    everyone = len(some) == len(habits.hour)
    at: Int | slice[None, None, None] = slice(None) if everyone else some
    passed = np.where(habits.hour[at] >= 0, hour - habits.hour[at], 0)
    slept_s = np.minimum(passed, 10_000) * HOUR_S
    # Nothing was seen in higher bins, of which there are many.
    lately, ever_bins = _bins_of(habits.seen[HOURS]), _bins_of(habits.ever)
    for array, half_life_s in (
        (habits.seen[:, :lately], HALF_LIFE_S),
        (habits.ever[:ever_bins], EVER_HALF_LIFE_S),
        (habits.highest, EVER_HALF_LIFE_S),
        (habits.beyond, EVER_HALF_LIFE_S),
        (habits.allowed, EVER_HALF_LIFE_S),
    ):
        left: Float = 0.5 ** (slept_s / half_life_s)
        # By one number far sooner than by as many as there are columns.
        array[..., at] *= (left[:1] if (left == left[0]).all() else left).astype(array.dtype)
    habits.hour[at] = hour
    everything = habits.seen[HOURS][:lately, at].astype(np.float64)
    mine = habits.seen[hour % HOURS][:lately, at].astype(np.float64)
    mine += everything * (BORROWED / HOURS)
    share, highest = share[:, at], habits.highest[at]
    for row, table in enumerate((everything, mine)):
        habits.wanted[row][:, at] = _wanted(table, share)
    ever = habits.ever[:, at].astype(np.float64)
    rarity = np.maximum(np.add.reduce(ever, axis=0) * share, 1.0 / CROWD)
    beyond = np.ceil(np.minimum(highest / rarity, MOST_VMS) - 1e-9)
    seen = np.minimum(_wanted(ever[:ever_bins], share), np.ceil(highest))
    habits.wanted[2][:, at] = np.where(rarity < 1.0, beyond, seen)


def _bins_of(table: SmallFloat) -> int:
    """How many bins there are up to the highest in which anything is, of (BINS, n); at least one."""
    used = np.flatnonzero(np.maximum.reduce(table, axis=1) > 0.0)
    return int(used[-1]) + 1 if len(used) else 1


def _summed_up(table: Float) -> Float:
    """Each row as the sum of itself and all after it, from the last to the first; of many columns in place."""
    if table.shape[1] < _MANY:
        return np.add.accumulate(table[::-1], axis=0)[::-1]
    # numpy's accumulate walks down column by column.
    for row in range(len(table) - 2, -1, -1):
        table[row] += table[row + 1]
    return table


def _wanted(table: Float, share: Float) -> SmallInt:
    """VMs that are needed in at least these shares of the ticks, all above 0: int32 (T, n).

    Args:
        table: float64 (bins, n), up to the highest in which anything is; is used up.
        share: float64 (T, n).
    """
    beyond = _summed_up(one_of(table))
    total = np.maximum(beyond[0], 1e-9)
    # The probability that demand is above a bin's lower edge falls evenly over the bin.
    above = beyond / total
    after = np.concatenate([above[1:], np.zeros_like(above[:1])])
    enough = above[np.newaxis] >= share[:, np.newaxis]
    reached = np.add.reduce(enough.view(np.uint8), axis=1, dtype=np.uint8).astype(np.int64)
    at = np.maximum(reached - 1, 0)
    lanes = np.arange(above.shape[1])
    first, last = above[at, lanes], after[at, lanes]
    into = np.minimum(np.maximum((first - share) / np.maximum(first - last, 1e-12), 0.0), 1.0)
    vms = _BELOW[at, 0] + into * _WIDTH[at, 0]
    # A VM is worth it when it is needed at half of its work, on the average over its work.
    whole: Float = np.floor(vms + 0.5) * (reached > 0)
    return whole.astype(np.int32)
