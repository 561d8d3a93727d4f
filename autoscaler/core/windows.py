"""Rolling maximum per lane, each lane with its own window length.

Exact windows would need a ring buffer as long as the longest window. Here each lane divides its window into at most `SLOTS` buckets:
windows of up to SLOTS ticks are exact; longer ones cover at least the window and at most one bucket more, which is the safe side for
a maximum that delays scale-in.

Buckets lie on the absolute grid of ticks, so all lanes with buckets of one length begin them at the same tick. Such lanes form a
`Group`, whose columns are adjacent. Between two beginnings, a tick costs two maxima: that of the current bucket, and that with the
maximum of the earlier buckets, which is computed once when a bucket begins.

If the windows of a group have equally many buckets, that takes two more maxima, whatever the window: time is cut into blocks of as many
buckets as a window has, so a window is the end of one block and the beginning of the next. When a block is full, its rows are replaced
by the maxima from each row to the end, in one pass (van Herk 1992; Gil and Werman 1993). If windows differ, the rows of all are
scanned, with masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np

from autoscaler.core.state_base import Dumped, Remembered
from autoscaler.core.types import Bool, Int, SmallInt

SLOTS = 32
Kind: TypeAlias = np.dtype[np.int32]
"""Dtype of the values: int32, or int16 if a simulation knows that its counts fit."""
INT32: Kind = np.dtype(np.int32)
_WIDE = 64
"""From this many lanes on, one numpy call per row is faster than `accumulate`."""
_MOVED = ("ring", "under_way", "block", "before")
"""The arrays that change in place from tick to tick."""


def _backwards(ring: SmallInt) -> None:
    """Replace every row, in place, by the maximum of itself and all later rows."""
    if ring.shape[1] < _WIDE:
        backwards = ring[::-1]
        np.maximum.accumulate(backwards, axis=0, out=backwards)
        return
    # numpy accumulates column by column, which takes thirty times as long for thousands of columns.
    for row in range(len(ring) - 2, -1, -1):
        np.maximum(ring[row], ring[row + 1], out=ring[row])


def _forwards(first: SmallInt, rows: SmallInt, out: SmallInt) -> None:
    """Write to each row of `out` the maximum of `first` and of all `rows` up to that one."""
    np.maximum(first, rows[0], out=out[0])
    if rows.shape[1] < _WIDE:
        out[1:] = rows[1:]
        np.maximum.accumulate(out, axis=0, out=out)
        return
    for row in range(1, len(rows)):
        np.maximum(out[row - 1], rows[row], out=out[row])


@dataclass(frozen=True, slots=True)
class Group:
    """Lanes whose buckets are equally long.

    Attributes:
        per_bucket: Ticks per bucket.
        first, end: The group's columns in the ring, half open.
        slots: Buckets of the group's longest window, including the current bucket.
        kept: int (2 * slots, lanes), if windows have different numbers of buckets: while slot s is current, rows slots - s
            to 2 * slots - s are the mask of the slots that count. None if all windows have equally many buckets.
    """

    per_bucket: int
    first: int
    end: int
    slots: int
    kept: SmallInt | None

    def begin(
        self, bucket: int, ring: SmallInt, under_way: SmallInt, block: SmallInt, before: SmallInt
    ) -> None:
        """Begin the next bucket; the arrays are these lanes' columns of the arrays in `RollingMax`, updated in place."""
        slots = self.slots
        slot = bucket % slots
        ring[slot - 1] = under_way
        if self.kept is not None:
            # This slot holds the bucket that leaves the window.
            ring[slot] = 0
            counted = np.minimum(ring, self.kept[slots - slot : 2 * slots - slot])
            np.maximum.reduce(counted, axis=0, out=before)
        else:
            np.maximum(block, under_way, out=block)
            if slot == 0:
                _backwards(ring)
                block.fill(0)
            if slot + 1 < slots:
                np.maximum(ring[slot + 1], block, out=before)
            else:
                before[:] = block
        under_way.fill(0)

    def taken_over(self, bucket: int, ring: SmallInt, block: SmallInt) -> None:
        """Convert a ring whose rows hold single buckets to the form that `begin` maintains, while `bucket` is current."""
        slot = bucket % self.slots
        if self.kept is None:
            later = ring[:slot:-1]
            np.maximum.accumulate(later, axis=0, out=later)
            np.maximum.reduce(ring[:slot], axis=0, initial=0, out=block)


@dataclass(frozen=True, slots=True)
class Cut:
    """How the windows of all lanes are divided into buckets.

    Attributes:
        groups: All lanes, grouped by the length of their buckets.
        order: int64 (L,), the lane of each column; None if columns are in the order of lanes.
        column: int64 (L,), the column of each lane; None if columns are in the order of lanes.
        per_bucket, buckets: int64 (L,), ticks per bucket and number of buckets, by lane.
        remembers: int (L,), 0 for lanes whose window is only the present tick, else 1; None if all are 1.
    """

    groups: tuple[Group, ...]
    order: Int | None
    column: Int | None
    per_bucket: Int
    buckets: Int
    remembers: SmallInt | None

    @classmethod
    def of(cls, window_ticks: Int, kind: Kind) -> Cut:
        """The division of windows of these lengths, int64 (L,), for values of dtype `kind`."""
        length = np.maximum(window_ticks, 1)
        long = length > SLOTS
        per_bucket = np.where(long, -(-length // (SLOTS - 1)), 1)
        buckets = np.where(long, -(-length // per_bucket) + 1, length)
        order = np.argsort(per_bucket, kind="stable").astype(np.int64)
        firsts = np.flatnonzero(np.diff(per_bucket[order], prepend=-1))
        groups = tuple(
            _group(int(per_bucket[order[first]]), int(first), int(end), buckets[order[first:end]], kind)
            for first, end in zip(firsts, [*firsts[1:], len(length)][: len(firsts)], strict=True)
        )
        remembers = None if (length > 1).all() else (length > 1).astype(kind)
        if (order == np.arange(len(order))).all():
            return cls(groups, None, None, per_bucket, buckets, remembers)
        return cls(groups, order, np.argsort(order).astype(np.int64), per_bucket, buckets, remembers)

    def column_of(self, lane: int) -> tuple[int, Group]:
        """The column of a lane, and the group that the column belongs to."""
        column = lane if self.column is None else int(self.column[lane])
        return column, next(group for group in self.groups if column < group.end)


def _group(per_bucket: int, first: int, end: int, buckets: Int, kind: Kind) -> Group:
    slots = int(buckets.max())
    if (buckets == slots).all():
        return Group(per_bucket, first, end, slots, None)
    # Row r is `slots - r` buckets before the current one, and again one turn of the ring later.
    age = (slots - np.arange(2 * slots)) % slots
    counts = (age[:, np.newaxis] > 0) & (age[:, np.newaxis] < buckets)
    return Group(per_bucket, first, end, slots, np.where(counts, np.iinfo(kind).max, 0).astype(kind))


@dataclass(slots=True)
class RollingMax(Remembered):
    """The highest value noted within each lane's window. Columns are in the order of `Cut`.

    Values are kept as int32, or as int16 if a simulation that knows that they fit asks for it.

    Attributes:
        window_ticks: int64 (L,), the windows, by lane.
        ring: int (slots, L), the maximum of each bucket before the current one, by bucket modulo the group's slots; in a
            full block, the maximum from each bucket to the end of the block. The largest array that a decision reads, so
            its dtype is as narrow as counts allow.
        under_way: int (L,), the maximum of the current bucket; 0 if nothing was noted in it.
        block: int (L,), the maximum of the completed buckets of the current block.
        before: int (L,), the maximum of the window's other buckets.
        tick: The last tick; -1 before the first.
        cut: How the windows are divided.
    """

    version: ClassVar[int] = 1
    window_ticks: Int
    ring: SmallInt
    under_way: SmallInt
    block: SmallInt
    before: SmallInt
    tick: int
    cut: Cut = field(init=False, compare=False, repr=False)
    _noted: SmallInt | None = field(init=False, default=None, compare=False, repr=False)
    _highest: SmallInt | None = field(init=False, default=None, compare=False, repr=False)
    _held_to: int = field(init=False, default=-1, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.cut = Cut.of(self.window_ticks, self.ring.dtype)

    @classmethod
    def empty(cls, window_ticks: Int, kind: Kind = INT32) -> RollingMax:
        """A state in which nothing has been noted.

        Args:
            window_ticks: int64 (L,), the windows in ticks; 0 and 1 mean the present value only.
            kind: Dtype of the values.
        """
        lanes = len(window_ticks)
        slots = max((group.slots for group in Cut.of(window_ticks, kind).groups), default=0)
        none = np.zeros(lanes, kind)
        ring = np.zeros((slots, lanes), kind)
        return cls(window_ticks.copy(), ring, none, none.copy(), none.copy(), -1)

    def push_and_max(self, tick: int, value: Int | SmallInt, known: Bool | None = None) -> SmallInt:
        """Note `value` in the lanes where `known`, and return the highest value noted within each window up to now.

        Args:
            tick: Now, on the absolute grid; may skip forward. A repeated or earlier tick adds its values to the
                current bucket.
            value: Integers (L,), from 0 to a thousand million.
            known: bool (L,), lanes that have a value to note; None for all lanes.

        Returns:
            int (L,) of the kept dtype, which the caller must not change; 0 if nothing was noted within the window.
        """
        if self._held_to >= 0:
            self._catch_up()
        present = value.astype(self.ring.dtype, copy=False)
        return self._note(tick, present if known is None else present * known)

    def again(self, tick: int) -> SmallInt:
        """Note the last values again, as `push_and_max` would; returns the last result itself if it cannot have changed.

        Raises:
            ValueError: Nothing has been noted yet.
        """
        if self._noted is None or self._highest is None:
            raise ValueError("Nothing has been noted that could be noted again.")
        if tick <= self.tick or not self._begin_buckets(tick):
            return self._highest
        return self._note(tick, self._noted)

    def push_again(self, tick: int, value: Int) -> SmallInt:
        """Note `value`, which must equal the last values if any were noted; the result is that of `push_and_max`."""
        return self.push_and_max(tick, value) if self._highest is None else self.again(tick)

    def hold(self, tick: int) -> None:
        """Note the last values again, without computing the maximum.

        The work is done when something else is asked for, and then for no more ticks than a window has.
        """
        last = max(self.tick, self._held_to)
        if tick > last + 1:
            # Skipped ticks note nothing.
            self._catch_up()
            self.again(tick)
        else:
            self._held_to = max(tick, last)

    def _catch_up(self) -> None:
        """Note the values that `hold` has put off."""
        to, self._held_to = self._held_to, -1
        if to <= self.tick:
            return
        lengths = [(group.per_bucket, group.slots) for group in self.cut.groups]
        # After two turns of every ring, nothing of earlier values is left.
        turns = 2 * max((per_bucket * slots for per_bucket, slots in lengths), default=1)
        step = min((per_bucket for per_bucket, _ in lengths), default=1)
        for tick in range(max(self.tick + 1, to - turns), to, step):
            self.again(tick)
        self.again(to)

    def dump(self) -> Dumped:
        """Return all fields, as `Remembered.dump` does, after doing what `hold` has put off."""
        self._catch_up()
        return Remembered.dump(self)

    def _note(self, tick: int, present: SmallInt) -> SmallInt:
        cut, noted = self.cut, present
        if cut.remembers is not None:
            noted = noted * cut.remembers
        if cut.order is not None:
            noted = noted.take(cut.order)
        if tick > self.tick:
            self._begin_buckets(tick)
        under_way = np.maximum(self.under_way, noted, out=self.under_way)
        highest: SmallInt = np.maximum(under_way, self.before)
        if cut.column is not None:
            highest = highest.take(cut.column)
        if cut.remembers is not None:
            highest = np.maximum(highest, present)
        self._noted, self._highest = present, highest
        return highest

    def _begin_buckets(self, tick: int) -> bool:
        """Move on to the buckets that contain `tick`; return whether any of them begins."""
        last, self.tick = self.tick, tick
        begun = False
        for group in self.cut.groups:
            begun |= self._begin_of(group, last, tick)
        return begun

    def _begin_of(self, group: Group, last: int, tick: int) -> bool:
        """Move a group from tick `last` on to the bucket that contains `tick`; return whether a bucket begins."""
        bucket, was = tick // group.per_bucket, last // group.per_bucket
        if bucket == was:
            return False
        columns = slice(group.first, group.end)
        under_way = self.under_way[columns]
        if group.slots == 1:
            under_way.fill(0)
            return True
        ring, block, before = self.ring[: group.slots, columns], self.block[columns], self.before[columns]
        if bucket - was >= group.slots:
            # All earlier values have left the window.
            for part in (ring, under_way, block, before):
                part.fill(0)
            return True
        for number in range(was + 1, bucket + 1):
            group.begin(number, ring, under_way, block, before)
        return True

    def push_page(self, tick: int, values: Int | SmallInt) -> SmallInt:
        """Note the values of consecutive ticks; equivalent to calling `push_and_max` for each.

        Args:
            tick: The first tick, later than the last one noted.
            values: Integers (T, L), as for `push_and_max`.

        Returns:
            int (T, L) of the kept dtype: the highest value at each tick.
        """
        if self._held_to >= 0:
            self._catch_up()
        cut, present = self.cut, values.astype(self.ring.dtype, copy=False)
        noted = present if cut.remembers is None else present * cut.remembers
        if cut.order is not None:
            noted = noted.take(cut.order, axis=1)
        highest = np.empty_like(noted)
        for group in cut.groups:
            short = group.per_bucket == 1 < group.slots and group.kept is None
            push = self._push_short if short and 4 * group.slots <= len(noted) else self._push_group
            push(group, tick, noted, highest)
        self.tick = tick + len(values) - 1
        if cut.column is not None:
            highest = highest.take(cut.column, axis=1)
        if cut.remembers is not None:
            np.maximum(highest, present, out=highest)
        self._noted, self._highest = present[-1], highest[-1]
        return highest

    def _push_short(self, group: Group, tick: int, noted: SmallInt, highest: SmallInt) -> None:
        """Note a page much longer than windows with one-tick buckets: the state follows from its last two windows."""
        columns, slots = slice(group.first, group.end), group.slots
        self._push_group(group, tick, noted[:slots], highest)
        rows, ends = highest[slots:, columns], len(noted)
        rows[...] = noted[slots:, columns]
        for ago in range(1, slots):
            np.maximum(rows, noted[slots - ago : ends - ago, columns], out=rows)
        tail = noted[-2 * slots :]
        self._push_group(group, tick + ends - 2 * slots, tail, np.empty_like(tail), anew=True)

    def _push_group(
        self, group: Group, tick: int, noted: SmallInt, highest: SmallInt, *, anew: bool = False
    ) -> None:
        """Note a page in a group's columns, by bucket or by all whole buckets of a block; `anew` ignores earlier values."""
        columns = slice(group.first, group.end)
        under_way, before = self.under_way[columns], self.before[columns]
        last, at = tick - group.slots if anew else self.tick, 0
        while at < len(noted):
            now = tick + at
            self._begin_of(group, last, now)
            left = group.per_bucket - now % group.per_bucket
            whole = (len(noted) - at - left) // group.per_bucket
            end = min(len(noted), at + left)
            rows = highest[at:end, columns]
            _forwards(under_way, noted[at:end, columns], rows)
            under_way[...] = rows[-1]
            np.maximum(rows, before, out=rows)
            last, at = tick + end - 1, end
            slot = now // group.per_bucket % group.slots
            buckets = min(whole, group.slots - 1 - slot)
            if group.kept is None and buckets > 1:
                end = at + buckets * group.per_bucket
                self._push_block(group, slot, noted[at:end, columns], highest[at:end, columns])
                last, at = tick + end - 1, end

    def _push_block(self, group: Group, slot: int, noted: SmallInt, highest: SmallInt) -> None:
        """Note whole buckets that follow a completed bucket in slot `slot`, all within one block."""
        columns, buckets = slice(group.first, group.end), len(noted) // group.per_bucket
        ring, block = self.ring[: group.slots, columns], self.block[columns]
        under_way, before = self.under_way[columns], self.before[columns]
        each = noted.reshape(buckets, group.per_bucket, -1)
        rows = each.copy()
        for row in range(1, group.per_bucket):
            np.maximum(rows[:, row - 1], rows[:, row], out=rows[:, row])
        over = np.concatenate([under_way[np.newaxis], rows[:, -1]])
        under_way[...] = over[-1]
        # The maximum of this block's completed buckets, at the beginning of each further bucket.
        blocks = np.empty_like(over[:-1])
        _forwards(block, over[:-1], blocks)
        block[...] = blocks[-1]
        befores, earlier = blocks, ring[slot + 2 : slot + 2 + buckets]
        np.maximum(befores[: len(earlier)], earlier, out=befores[: len(earlier)])
        ring[slot : slot + buckets] = over[:-1]
        before[...] = befores[-1]
        np.maximum(rows, befores[:, np.newaxis], out=highest.reshape(rows.shape))

    def twin(self) -> RollingMax:
        """Return an independent copy, much faster than `copy`; the two share what never changes."""
        self._catch_up()
        new = RollingMax.__new__(RollingMax)
        for name in _MOVED:
            setattr(new, name, getattr(self, name).copy())
        for name in ("window_ticks", "tick", "cut", "_noted", "_highest", "_held_to"):
            setattr(new, name, getattr(self, name))
        return new

    def alike(self, lanes: Int) -> bool:
        """Whether each lane i has noted the same values as lane `lanes[i]`, int64 (L,), which has the same window."""
        self._catch_up()
        cut = self.cut
        at = lanes if cut.column is None or cut.order is None else cut.column.take(lanes.take(cut.order))
        moved = (getattr(self, name) for name in _MOVED)
        return all(np.count_nonzero(part != part.take(at, axis=-1)) == 0 for part in moved)

    def of_lanes(self, lanes: Int, cut: Cut | None = None) -> RollingMax:
        """Return the state of some lanes, int64 (N,), each once or more, covering all windows; `cut` is theirs, if known."""
        self._catch_up()
        new = RollingMax.__new__(RollingMax)
        new.window_ticks = self.window_ticks.take(lanes)
        new.cut = cut = cut or Cut.of(new.window_ticks, self.ring.dtype)
        at = lanes if cut.order is None else lanes.take(cut.order)
        if self.cut.column is not None:
            at = self.cut.column.take(at)
        for name in _MOVED:
            setattr(new, name, getattr(self, name).take(at, axis=-1))
        for name in ("_noted", "_highest"):
            noted = getattr(self, name)
            setattr(new, name, None if noted is None else noted.take(lanes))
        for name in ("tick", "_held_to"):
            setattr(new, name, getattr(self, name))
        return new

    def carried_over(self, window_ticks: Int, lanes: Int) -> RollingMax:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        A lane whose window keeps its length continues unchanged. A lane whose window changes keeps the highest
        value of the old window for the whole of the new one.

        Args:
            window_ticks: int64 (N,), the windows of the other lanes.
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        self._catch_up()
        new = RollingMax.empty(window_ticks, self.ring.dtype)
        new.tick = self.tick
        for lane in np.flatnonzero(lanes >= 0).tolist():
            was = int(lanes[lane])
            at, group = self.cut.column_of(was)
            to, new_group = new.cut.column_of(lane)
            if self.window_ticks[was] == window_ticks[lane]:
                new.under_way[to], new.before[to] = self.under_way[at], self.before[at]
                bucket = self.tick // group.per_bucket
                for earlier in range(bucket - int(self.cut.buckets[was]) + 1, bucket):
                    new.ring[earlier % new_group.slots, to] = self.ring[earlier % group.slots, at]
            else:
                new.under_way[to] = max(self.under_way[at], self.before[at])
        for group in new.cut.groups:
            columns = slice(group.first, group.end)
            group.taken_over(
                self.tick // group.per_bucket, new.ring[: group.slots, columns], new.block[columns]
            )
        return new

    def take_in(self, mine: Int, other: RollingMax, theirs: Int) -> None:
        """Replace the values of some lanes by those of lanes of another state, whose windows must have the same length.

        Args:
            mine: int64 (n,), the lanes to replace.
            other: The other state; not changed.
            theirs: int64 (n,), the lane of `other` to copy for each lane of `mine`.

        Raises:
            ValueError: The other state is at another tick, or a window has another length.
        """
        self._catch_up()
        found = other.carried_over(self.window_ticks, _placed(len(self.window_ticks), mine, theirs))
        if found.tick != self.tick or (other.window_ticks[theirs] != self.window_ticks[mine]).any():
            raise ValueError(f"windows at tick {found.tick} do not fit those at tick {self.tick}")
        at = mine if self.cut.column is None else self.cut.column[mine]
        for name in _MOVED:
            getattr(self, name)[..., at] = getattr(found, name)[..., at]
        self._noted = self._highest = None


def _placed(lanes: int, mine: Int, theirs: Int) -> Int:
    """The lane of the other state for each lane of this one: int64 (L,), -1 for none."""
    placed = np.full(lanes, -1)
    placed[mine] = theirs
    return placed
