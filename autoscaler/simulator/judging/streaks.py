"""Counts runs of ticks and changes of direction as a run streams by.

A part of a run is at most `LONGEST_PART` consecutive ticks. A condition that holds in some of them is one word per lane, a
bit per tick. Runs and turns are then found in all ticks of a lane at once (Warren, Hacker's Delight, 2012, sections 5 and
6).

Rules of this file: the state carried from part to part makes the result independent of how ticks are cut. `followed_by`
joins two adjoining runs that were counted separately, exactly. All operations are element-wise over lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Bool, Int, SmallInt

LONGEST_PART = 64
"""Ticks in a part: the rows of a lane fit into one word."""

SUM_FITS = 2**31 // LONGEST_PART
"""Values below this can be summed over a part in 32 bits."""
SUM_FITS_NARROW = 2**15 // LONGEST_PART
"""Values below this can be summed over a part in 16 bits."""

_Bytes: TypeAlias = NDArray[np.uint8]
Vms: TypeAlias = NDArray[np.signedinteger[Any]]
Words: TypeAlias = NDArray[np.uint64]
"""One bit per row."""

_ONE = np.uint64(1)
_REACHES = tuple(np.uint64(2**step) for step in range(6))
_WEIGHTS: _Bytes = (1 << np.arange(8)).astype(np.uint8)[np.newaxis, :, np.newaxis]


def counted(flags: Bool) -> Int:
    """Return how many rows are True, int64 (L,), for at most 255 rows (n, L)."""
    total: Int = np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
    return total


def raised(highest: NDArray[Any], rows: NDArray[Any]) -> None:
    """Raise `highest`, in place, to the highest of itself and the rows (n, L), lane by lane."""
    np.maximum(highest, rows[0] if len(rows) == 1 else np.maximum.reduce(rows, axis=0), out=highest)


def summing_kind(rows: NDArray[Any], most: float) -> np.dtype[np.signedinteger[Any]]:
    """Return the narrowest integer type that holds the sum of such rows over a part, if none is higher than `most`."""
    if rows.dtype == np.int16 and most < SUM_FITS_NARROW:
        return np.dtype(np.int16)
    return np.dtype(np.int32 if most < SUM_FITS else np.int64)


class Bits:
    """Bits that say which conditions hold in each tick of a part.

    Args:
        kinds: Number of conditions.
        lanes: L.
        together: Most rows that are noted at once.
    """

    def __init__(self, kinds: int, lanes: int, together: int) -> None:
        self._bytes: _Bytes = np.zeros((kinds, 8, lanes), np.uint8)
        self._room: _Bytes = np.empty((together // 8, 8, lanes), np.uint8)
        self._row: _Bytes = np.empty(lanes, np.uint8)

    def begin(self) -> None:
        """Start a new part."""
        self._bytes.fill(0)

    def note(self, kind: int, first: int, flags: Bool) -> None:
        """Note in which rows and lanes a condition holds.

        Args:
            kind: Index of the condition.
            first: Position of the first of these rows in the part; a multiple of 8 if there are 8 rows or more.
            flags: bool (n, L).
        """
        rows, into = flags.view(np.uint8), self._bytes[kind]
        whole = len(rows) // 8
        if whole:
            eights = rows[: 8 * whole].reshape(whole, 8, -1)
            weighed = np.multiply(eights, _WEIGHTS, out=self._room[:whole])
            np.add.reduce(weighed, axis=1, dtype=np.uint8, out=into[first // 8 : first // 8 + whole])
        for at in range(8 * whole, len(rows)):
            byte, bit = divmod(first + at, 8)
            one = np.multiply(rows[at], _WEIGHTS[0, bit, 0], out=self._row)
            np.bitwise_or(into[byte], one, out=into[byte])

    def words(self) -> Words:
        """Return the part with row 0 in the lowest bit: uint64 (kinds, L)."""
        found = [np.ascontiguousarray(rows.T).view("<u8").reshape(-1) for rows in self._bytes]
        return np.stack(found).astype(np.uint64, copy=False)


def _leading(words: Words) -> Int:
    """Return how many rows are set from the first on without a gap: int64 (L,)."""
    return np.bitwise_count(words & ~(words + _ONE)).astype(np.int64)


def _filled_down(words: Words) -> Words:
    """Set every bit at or below the highest that is set."""
    for reach in _REACHES:
        words = words | (words >> reach)
    return words


def _trailing(words: Words, rows: int) -> Int:
    """Return how many of `rows` rows are set up to the last without a gap: int64 (L,)."""
    found = np.zeros(len(words), np.int64)
    # In most cases only few lanes have the last row set.
    some = (words >> np.uint64(rows - 1)).nonzero()[0]
    without = _filled_down(~(words.take(some) << np.uint64(LONGEST_PART - rows)))
    found[some] = LONGEST_PART - np.bitwise_count(without).astype(np.int64)
    return found


def _longest(words: Words) -> Int:
    """Return the length of the longest run of set rows, int64 (L,). If all 64 are set, the result is 63."""
    begins = [words]
    """Where runs of at least 1, 2, 4 ... 32 rows begin."""
    for reach in _REACHES[:-1]:
        begins.append(begins[-1] & (begins[-1] >> reach))
    length = np.zeros_like(words)
    here = ~length
    for reach, begin in zip(_REACHES[::-1], begins[::-1], strict=True):
        longer = here & (begin >> length)
        there = longer > 0
        here = np.where(there, longer, here)
        length += there * reach
    return length.astype(np.int64)


@dataclass(slots=True)
class Streaks:
    """Runs of consecutive ticks in which a condition holds. All are int64 (L,), lengths in ticks.

    Attributes:
        ticks: Ticks in which it held.
        runs: Number of runs.
        longest: Length of the longest run.
        head: Length of the run that began with the first tick; 0 if it did not hold then.
        tail: Length of the run that the last tick belongs to; 0 if it does not hold.
    """

    ticks: Int
    runs: Int
    longest: Int
    head: Int
    tail: Int

    @classmethod
    def empty(cls, lanes: int) -> Streaks:
        """Return streaks of no ticks."""
        return cls(*(np.zeros(lanes, np.int64) for _ in fields(cls)))

    def add(self, holds: Words, rows: int, seen: int) -> None:
        """Add a part.

        Args:
            holds: uint64 (L,), as `Bits` makes them; no bit beyond the rows is set.
            rows: Ticks of the part.
            seen: Ticks added before.
        """
        held = np.bitwise_count(holds)
        if not np.count_nonzero(held):
            self.tail = np.zeros_like(self.tail)
            return
        begins = holds & ~((holds << _ONE) | (self.tail > 0))
        self.ticks += held
        self.runs += np.bitwise_count(begins)
        leading = _leading(holds)
        carried = np.where(leading > 0, self.tail + leading, 0)
        np.maximum(self.longest, carried, out=self.longest)
        # No run is longer than the number of set rows. A run of all rows has already been counted as leading rows.
        some = (held > self.longest).nonzero()[0]
        if len(some):
            self.longest[some] = np.maximum(self.longest[some], _longest(holds[some]))
        self.head = np.where(self.head == seen, self.head + leading, self.head)
        self.tail = np.where(leading == rows, self.tail + rows, _trailing(holds, rows))

    def taken(self, lanes: Int | slice) -> Streaks:
        """Return the streaks of some of the lanes, in the order given."""
        return Streaks(*(getattr(self, field.name)[lanes].copy() for field in fields(self)))

    @classmethod
    def side_by_side(cls, parts: Sequence[Streaks]) -> Streaks:
        """Join the lanes of several, in order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def followed_by(self, second: Streaks, seen: int, seen_second: int) -> Streaks:
        """Return the streaks of this run followed by another.

        Args:
            second: Streaks of the ticks that follow directly.
            seen: Number of ticks of this one.
            seen_second: Number of ticks of the second.
        """
        joined = (self.tail > 0) & (second.head > 0)
        return Streaks(
            ticks=self.ticks + second.ticks,
            runs=self.runs + second.runs - joined,
            longest=np.maximum(np.maximum(self.longest, second.longest), self.tail + second.head),
            head=np.where(self.head == seen, seen + second.head, self.head),
            tail=np.where(second.tail == seen_second, self.tail + seen_second, second.tail),
        )


class VmMovement:
    """How a number of VMs changes in a part, added a few rows at a time.

    Arrays are int (L,) of the rows' type, unless the values may not fit.

    Args:
        first: int (L,), the number at the first tick of the part.
        before: int64 (L,), the number at the tick before.
        most: An upper bound on the number.

    Attributes:
        first: As given.
        row: The number at the last tick.
        lowest, highest: Extremes.
        moved: Total movement; int64 if millions of VMs may move.
    """

    __slots__ = ("first", "highest", "lowest", "moved", "row")

    def __init__(self, first: SmallInt, before: Int, most: float) -> None:
        self.first = first
        self.row: SmallInt = before.astype(first.dtype)
        self.lowest, self.highest = first.copy(), first.copy()
        self.moved: Vms = np.zeros(len(first), summing_kind(first, most))

    def steps(self, value: SmallInt, out: SmallInt) -> SmallInt:
        """Write the steps into each of some rows, (n, L), to `out`; `value` must not change until the part is over."""
        np.subtract(value[0], self.row, out=out[0])
        if len(value) > 1:
            np.subtract(value[1:], value[:-1], out=out[1:])
        self.row = value[-1]
        return out

    def see(self, value: SmallInt, steps: SmallInt) -> None:
        """Add the extremes and movement of some rows; may be skipped for rows in which nothing moved.

        Args:
            value: int (n, L).
            steps: The steps into each row; overwritten.
        """
        raised(self.highest, value)
        lowest = value[0] if len(value) == 1 else np.minimum.reduce(value, axis=0)
        np.minimum(self.lowest, lowest, out=self.lowest)
        np.abs(steps, out=steps)
        moved = steps[0] if len(steps) == 1 else np.add.reduce(steps, axis=0, dtype=self.moved.dtype)
        np.add(self.moved, moved, out=self.moved)


@dataclass(slots=True)
class Movement:
    """How a number of VMs moved. All arrays are int64 (L,).

    Thrash is movement against the trend: within each window of `window_ticks` (about an hour), the smaller of all moves up
    and all moves down, because the larger one is the trend. A daily cycle has none, and a controller that flaps has much.
    The idea comes from the trend-discounting total variation by which the allocation simulator of CockroachDB judges its
    trajectories.

    Attributes:
        window_ticks: int, ticks of a thrash window, counted from the first tick.
        first, last: The number at the first and at the last tick.
        lowest, highest: Extremes.
        moved: Total movement, VMs.
        turns: How often it turned from rising to falling or back, however long it rested in between.
        first_way, last_way: The first and the last direction: 1 up, -1 down, 0 if it never moved.
        against: Movement against the trend in all finished windows, VMs.
        up, down: Movement in the current window, VMs, both as positive numbers.
        head_up, head_down: Movement in the first window, VMs, both as positive numbers.
    """

    window_ticks: int
    first: Int
    last: Int
    lowest: Int
    highest: Int
    moved: Int
    turns: Int
    first_way: Int
    last_way: Int
    against: Int
    up: Int
    down: Int
    head_up: Int
    head_down: Int

    @classmethod
    def empty(cls, lanes: int, window_ticks: int) -> Movement:
        """Return the movement of no ticks."""
        return cls(window_ticks, *(np.zeros(lanes, np.int64) for _ in fields(cls)[1:]))

    def add(self, part: VmMovement, stirs: Words, ups: Words, rows: int, seen: int) -> None:
        """Add a part that lies within one window.

        Args:
            part: The change of the number in the part.
            stirs: uint64 (L,), bits of the rows in which it moved (see `Bits`).
            ups: uint64 (L,), bits of the rows in which it rose.
            rows: Ticks of the part.
            seen: Ticks added before.
        """
        last, moved = part.row.astype(np.int64), part.moved.astype(np.int64)
        if seen == 0:
            for ends in (self.first, self.last, self.lowest, self.highest):
                ends[:] = part.first
        np.minimum(self.lowest, part.lowest, out=self.lowest)
        np.maximum(self.highest, part.highest, out=self.highest)
        if stirs.any():
            net = last - self.last
            self.moved += moved
            self.up += (moved + net) >> 1
            self.down += (moved - net) >> 1
            self._turn(stirs, ups)
        self.last = last
        if seen < self.window_ticks:
            self.head_up[:], self.head_down[:] = self.up, self.down
        if (seen + rows) % self.window_ticks == 0:
            self.against += np.minimum(self.up, self.down)
            self.up.fill(0)
            self.down.fill(0)

    def _turn(self, stirs: Words, ups: Words) -> None:
        """Count the turns of a part and update the directions."""
        if not self.first_way.all():
            lowest = stirs & (~stirs + _ONE)
            way = np.where(stirs == 0, 0, np.where(ups & lowest, 1, -1))
            self.first_way = np.where(self.first_way == 0, way, self.first_way)
        # The direction of the last move before each row, filled upwards from rows in which it is known.
        known = (stirs << _ONE) | (self.last_way != 0)
        rising = (ups << _ONE) | (self.last_way > 0)
        for reach in _REACHES:
            rising |= (rising << reach) & ~known
            known |= known << reach
        self.turns += np.bitwise_count(stirs & known & (rising ^ ups))
        filled = _filled_down(stirs)
        highest = filled ^ (filled >> _ONE)
        self.last_way = np.where(stirs == 0, self.last_way, np.where(ups & highest, 1, -1))

    def against_trend(self) -> Int:
        """Return the movement against the trend in VMs, including the current window: int64 (L,)."""
        return self.against + np.minimum(self.up, self.down)

    def taken(self, lanes: Int | slice) -> Movement:
        """Return the movement of some of the lanes, in the order given."""
        return Movement(
            self.window_ticks, *(getattr(self, field.name)[lanes].copy() for field in fields(self)[1:])
        )

    @classmethod
    def side_by_side(cls, parts: Sequence[Movement]) -> Movement:
        """Join the lanes of several with the same window, in order."""
        columns = (np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)[1:])
        return cls(parts[0].window_ticks, *columns)

    def followed_by(self, second: Movement, seen_second: int) -> Movement:
        """Return the movement of this run followed by another; this one must end with a window.

        Args:
            second: Movement over the ticks that follow directly.
            seen_second: Number of its ticks, at least one.
        """
        seam = second.first - self.last
        seam_way = np.sign(seam)
        at_seam = np.where(seam_way == 0, self.last_way, seam_way)
        turns = self.turns + second.turns
        turns = turns + (self.last_way * seam_way < 0) + (at_seam * second.first_way < 0)
        # The step over the seam belongs to the first window of the second run.
        head_up = second.head_up + np.maximum(seam, 0)
        head_down = second.head_down + np.maximum(-seam, 0)
        open_window = seen_second < self.window_ticks
        was, now = np.minimum(second.head_up, second.head_down), np.minimum(head_up, head_down)
        return Movement(
            window_ticks=self.window_ticks,
            first=self.first,
            last=second.last,
            lowest=np.minimum(self.lowest, second.lowest),
            highest=np.maximum(self.highest, second.highest),
            moved=self.moved + second.moved + np.abs(seam),
            turns=turns,
            first_way=_first_given(self.first_way, seam_way, second.first_way),
            last_way=_first_given(second.last_way, at_seam),
            against=self.against + second.against + (0 if open_window else now - was),
            up=head_up if open_window else second.up,
            down=head_down if open_window else second.down,
            head_up=self.head_up,
            head_down=self.head_down,
        )


def _first_given(*ways: Int) -> Int:
    """Return, lane by lane, the first direction that is not 0."""
    found = ways[0]
    for way in ways[1:]:
        found = np.where(found == 0, way, found)
    return found
