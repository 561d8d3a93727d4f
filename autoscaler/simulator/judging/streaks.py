"""Runs of ticks and turns of direction, counted while a run streams by.

Rules of this file: a part is at most `LONGEST_PART` consecutive ticks, (n, L) arrays tick by tick; what is
carried from part to part makes the result independent of how ticks are cut; `followed_by` joins two adjoining
runs that were counted apart, exactly. Element-wise over lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Bool, Int, SmallInt

LONGEST_PART = 64
"""Row numbers and codes of a part fit into one byte, where numpy is fastest."""

_SUM_FITS = 2**31 // LONGEST_PART

_Bytes: TypeAlias = NDArray[np.uint8]


def counted(flags: Bool) -> Int:
    """How many rows are True: int64 (L,) of at most 255 rows (n, L)."""
    total: Int = np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
    return total


def summed(count: SmallInt) -> Int:
    """Sum over at most `LONGEST_PART` rows (n, L), exact: int64 (L,)."""
    # Adding in 32 bits takes a third of the time, and fits unless somebody has millions of VMs.
    small = np.maximum.reduce(count, axis=None) < _SUM_FITS
    total: Int = np.add.reduce(count, axis=0, dtype=np.int32 if small else np.int64).astype(np.int64)
    return total


def running_maximum(codes: _Bytes) -> None:
    """Every row becomes the highest of itself and the rows before it, in place."""
    # Doubling takes six operations on the whole part; numpy's accumulate, which walks down column by column,
    # takes ten times as long, and row by row one and a half times.
    reach = 1
    while reach < len(codes):
        np.maximum(codes[reach:], codes[:-reach], out=codes[reach:])
        reach *= 2


@dataclass(slots=True)
class Streaks:
    """Runs of consecutive ticks in which something holds. All int64 (L,), lengths in ticks.

    Attributes:
        ticks: Ticks in which it held.
        runs: Number of runs.
        longest: Length of the longest run.
        head: Length of the run that began with the first tick; 0 where it did not hold then.
        tail: Length of the run that the last tick belongs to; 0 where it does not hold.
    """

    ticks: Int
    runs: Int
    longest: Int
    head: Int
    tail: Int

    @classmethod
    def empty(cls, lanes: int) -> Streaks:
        """Nothing seen yet."""
        return cls(*(np.zeros(lanes, np.int64) for _ in fields(cls)))

    def add(self, holds: Bool, seen: int) -> None:
        """Add a part.

        Args:
            holds: bool (n, L), n at most `LONGEST_PART`.
            seen: Ticks added before.
        """
        if not holds.any():
            self.tail = np.zeros_like(self.tail)
            return
        rows = len(holds)
        number = np.arange(1, rows + 1, dtype=np.uint8)[:, np.newaxis]
        last_without: _Bytes = np.multiply(~holds, number, dtype=np.uint8)
        begins = np.empty_like(holds)
        np.greater(holds[0], self.tail > 0, out=begins[0])
        np.greater(holds[1:], holds[:-1], out=begins[1:])
        self.ticks = self.ticks + counted(holds)
        self.runs = self.runs + counted(begins)

        running_maximum(last_without)
        leading = counted(last_without == 0)
        reached = np.maximum.reduce(number - last_without, axis=0).astype(np.int64)
        carried = np.where(leading > 0, self.tail + leading, 0)
        self.longest = np.maximum(self.longest, np.maximum(reached, carried))
        self.head = np.where(self.head == seen, self.head + leading, self.head)
        self.tail = np.where(leading == rows, self.tail + rows, rows - last_without[-1].astype(np.int64))

    def taken(self, lanes: Int | slice) -> Streaks:
        """Those of some of the lanes, in the order given."""
        return Streaks(*(getattr(self, field.name)[lanes].copy() for field in fields(self)))

    @classmethod
    def side_by_side(cls, parts: Sequence[Streaks]) -> Streaks:
        """The lanes of several, one after the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def followed_by(self, second: Streaks, seen: int, seen_second: int) -> Streaks:
        """Both runs as one.

        Args:
            second: Of the ticks that follow at once.
            seen: Ticks of this one.
            seen_second: Ticks of the second.
        """
        joined = (self.tail > 0) & (second.head > 0)
        return Streaks(
            ticks=self.ticks + second.ticks,
            runs=self.runs + second.runs - joined,
            longest=np.maximum(np.maximum(self.longest, second.longest), self.tail + second.head),
            head=np.where(self.head == seen, seen + second.head, self.head),
            tail=np.where(second.tail == seen_second, self.tail + seen_second, second.tail),
        )


@dataclass(slots=True)
class Movement:
    """How a number of VMs moved. All int64 (L,).

    Thrash is movement against the trend: within each window of `window_ticks` (about an hour), the smaller of
    all moves up and all moves down, since the larger one is the trend. A daily cycle has none, a controller
    that flaps has much. After the idea of the trend-discounting total variation by which the allocation
    simulator of CockroachDB judges its trajectories.

    Attributes:
        window_ticks: int, ticks of a thrash window, counted from the first tick.
        first, last: The number at the first and at the last tick.
        lowest, highest: Extremes.
        moved: Total movement, VMs.
        turns: How often it turned from rising to falling or back, however long it rested in between.
        first_way, last_way: The first and the last direction: 1 up, -1 down, 0 where it never moved.
        against: Movement against the trend in all finished windows, VMs.
        up, down: Movement in the window under way, VMs, both as positive numbers.
        head_up, head_down: Movement in the first window, likewise.
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
        """Nothing seen yet."""
        return cls(window_ticks, *(np.zeros(lanes, np.int64) for _ in fields(cls)[1:]))

    def add(self, value: SmallInt, seen: int, room: SmallInt) -> None:
        """Add a part that lies within one window.

        Args:
            value: int32 (n, L), n at most `LONGEST_PART`.
            seen: Ticks added before.
            room: int32 (n, L), overwritten.
        """
        if seen == 0:
            self.first = value[0].astype(np.int64)
            self.last, self.lowest, self.highest = self.first, self.first, self.first
        self.lowest = np.minimum(self.lowest, np.minimum.reduce(value, axis=0))
        self.highest = np.maximum(self.highest, np.maximum.reduce(value, axis=0))

        steps = room
        np.subtract(value[0], self.last, out=steps[0], casting="unsafe")
        np.subtract(value[1:], value[:-1], out=steps[1:])
        last = value[-1].astype(np.int64)
        if steps.any():
            self._move(steps, last)
        self.last = last
        if seen < self.window_ticks:
            self.head_up, self.head_down = self.up, self.down
        if (seen + len(value)) % self.window_ticks == 0:
            self.against = self.against + np.minimum(self.up, self.down)
            self.up, self.down = np.zeros_like(self.up), np.zeros_like(self.down)

    def _move(self, steps: SmallInt, last: Int) -> None:
        net = last - self.last
        ups = steps > 0
        stirs = steps != 0
        moved = summed(np.abs(steps, out=steps))
        self.moved = self.moved + moved
        self.up = self.up + (moved + net) // 2
        self.down = self.down + (moved - net) // 2

        # Row number and direction in one byte, so that the highest so far is the latest move.
        rows = len(steps)
        codes = np.empty((rows + 1, steps.shape[1]), np.uint8)
        codes[0] = np.where(self.last_way == 0, 0, np.where(self.last_way > 0, 3, 2))
        number = np.arange(4, 2 * rows + 4, 2, dtype=np.uint8)[:, np.newaxis]
        np.add(ups.view(np.uint8), number, out=codes[1:])
        np.multiply(codes[1:], stirs.view(np.uint8), out=codes[1:])
        if not self.first_way.all():
            first = np.minimum.reduce(np.where(stirs, codes[1:], np.uint8(255)), axis=0)
            way = np.where(first == 255, 0, np.where(first & 1, 1, -1))
            self.first_way = np.where(self.first_way == 0, way, self.first_way)
        running_maximum(codes)
        before = codes[:-1]
        turned = ((before & 1) != ups.view(np.uint8)) & (before > 1) & stirs
        self.turns = self.turns + counted(turned)
        final = codes[-1]
        self.last_way = np.where(final == 0, 0, np.where(final & 1, 1, -1))

    def against_trend(self) -> Int:
        """Movement against the trend, the window under way included, VMs: int64 (L,)."""
        return self.against + np.minimum(self.up, self.down)

    def taken(self, lanes: Int | slice) -> Movement:
        """That of some of the lanes, in the order given."""
        return Movement(
            self.window_ticks, *(getattr(self, field.name)[lanes].copy() for field in fields(self)[1:])
        )

    @classmethod
    def side_by_side(cls, parts: Sequence[Movement]) -> Movement:
        """The lanes of several with the same window, one after the other."""
        columns = (np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)[1:])
        return cls(parts[0].window_ticks, *columns)

    def followed_by(self, second: Movement, seen_second: int) -> Movement:
        """Both as one; this one must end with a window.

        Args:
            second: Of the ticks that follow at once.
            seen_second: Its number of ticks, at least one.
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
    found = ways[0]
    for way in ways[1:]:
        found = np.where(found == 0, way, found)
    return found
