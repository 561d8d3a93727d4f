"""How many VMs should exist, stopped ones included: by how long levels of the fleet usually wait until they are wanted again.

Level k is VM k. A VM that waits stopped costs `stopped_cost` a tick. If it is wanted while it waits, it saves making it
anew, and the work that would find no VM until that one serves: together V. Whether it pays to wait on, after s ticks of
waiting, is the problem of renting skis with a known law of the season: hold iff the best time to give up is not now,

    W(s) = max(0, h(s) V - stopped_cost * ds + (1 - h(s)) W(s + ds)) > 0,

where h(s) is the share of waits as long as s that end within the next ds. The law is that of the fleet's own waits, for
groups of levels an octave wide, in bins of half an octave of time, forgotten slowly and with a word of all groups where a
group has seen little; waits that are not over count as such. A level that was given up is made anew before it is wanted
where that is worth what making costs. Keeping VMs by the law of idle times is what Shahrad et al.
(2020, "Serverless in the Wild") do for functions. Levels that were never wanted have no waits: while little was seen, half
as many again as ever are held, as long as one in all the time that was seen would pay. If nothing is held, a pool is not
worth its price.

Variants of a policy that have had the same past, and are given and want the same, are asked once, for as long as they do.

Rules of this file: element-wise, sums along bins in their order. Laws are worked out once an hour, VMs every five minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from autoscaler.core.alike import Alike, Number
from autoscaler.core.habits import BINS, EDGES, HOUR_S, PER_OCTAVE, bin_of
from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered, columns_before
from autoscaler.core.trial import contests
from autoscaler.core.types import MOST_VMS, Bool, Float, Int

HALF_LIFE_S = 14 * 86400.0
"""A wait counts half after this time."""
UNSEEN = 1.5
"""What has not been seen yet may need so many times as many VMs as ever."""
LOOK_S = 300.0
"""How often it is worked out what is worth holding."""
GROUPS, WAITS, PER_DOUBLING = BINS // PER_OCTAVE, 40, 2
"""Groups of levels, and bins of how long they wait, two for each doubling from one tick on."""
PRIOR_ENDS, PRIOR_WAITS, ALL_GROUPS = 0.3, 1.0, 2.0
"""Waits in each bin that one believes to have seen before any, how many of them ended; and what all groups count in one."""
USED = 0.5
"""The share of its work that a VM which is wanted has at first."""
_LENGTH: Float = np.diff(2.0 ** (np.arange(WAITS + 1) / PER_DOUBLING))
_LEVELS: Int = np.arange(BINS)[:, np.newaxis]
_LEVEL_OF: Int = bin_of(np.arange(EDGES[-1] + 1.0))
"""The highest level of so many VMs; more are in the last one, too."""
_PARTINGS = 32
"""After so many ticks in which lanes parted each is asked itself: each time they are put into groups again."""


_Some: TypeAlias = "Int | slice[None, None, None]"
"""Some columns, or all."""


@dataclass(slots=True)
class WarmPool(Remembered):
    """What is remembered of n lanes that have an objective.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        ended: float64 (GROUPS, WAITS, n), waits of levels that are over, by length, forgotten slowly.
        worth: bool (GROUPS, WAITS, n), whether a level that has waited so long is held on; as of the last hour.
        since: int64 (BINS, n), tick at which a level that is not wanted now was last wanted; -1 for never. Levels that are
            wanted are not kept up to date.
        highest: int64 (n,), most VMs ever wanted.
        ticks: float64 (n,), ticks that were seen, forgotten as waits are.
        wanted: int64 (n,), VMs that should exist; -1 before the first hour is over.
        level: int64 (n,), the highest level wanted at the last tick; -1 before the first.
        last_tick: That tick; -1 before the first.
    """

    version: ClassVar[int] = 2
    lanes: Int
    ended: Float
    worth: Bool
    since: Int
    highest: Int
    ticks: Float
    wanted: Int
    level: Int
    last_tick: int

    @classmethod
    def empty(cls, params: LaneParams) -> WarmPool:
        """Nothing seen yet."""
        lanes = np.flatnonzero(params.economic)
        count = len(lanes)
        unknown = np.full(count, -1)
        shape = (GROUPS, WAITS, count)
        return cls(
            lanes=lanes,
            ended=np.zeros(shape),
            worth=np.zeros(shape, np.bool_),
            since=np.full((BINS, count), -1),
            highest=np.zeros(count, np.int64),
            ticks=np.zeros(count),
            wanted=unknown,
            level=unknown.copy(),
            last_tick=-1,
        )

    def carried_over(self, after: LaneParams, lanes: Int) -> WarmPool:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        new = WarmPool.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        for name in ("ended", "worth", "since", "highest", "ticks", "wanted", "level"):
            getattr(new, name)[..., known] = getattr(self, name)[..., was[known]]
        new.last_tick = self.last_tick
        return new

    def pasts(self) -> Int:
        """Equal numbers for columns that remember the same: int64 (n,)."""
        parts = (self.ended, self.worth, self.since, self.highest, self.ticks, self.wanted, self.level)
        columns = [np.ascontiguousarray(part.reshape(-1, len(self.level)).T) for part in parts]
        known: dict[bytes, int] = {}
        pasts = (b"".join(row.tobytes() for row in rows) for rows in zip(*columns, strict=True))
        return np.array([known.setdefault(past, len(known)) for past in pasts], np.int64)


class Holding:
    """The rule, compiled for the lanes that have an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._stopped, self._made = params.stopped_cost[lanes], params.provision_cost[lanes]
        self._late = params.cold_ticks[lanes]
        self._success = params.start_success[lanes]
        self._decay = 0.5 ** (HOUR_S / HALF_LIFE_S)
        given = (contests(params, lanes).group, self._stopped, self._made, self._late, self._success)
        self._given, self._alike = given, Alike(*given)
        self._asked: WarmPool | None = None
        self._partings = 0

    def step(self, warm_pool: WarmPool, tick: int, desired: Int, price: Float) -> Int:
        """Take in what is wanted at a tick, and give how many VMs should exist: int64 (n,), not to be changed.

        Args:
            warm_pool: Updated in place; within a tick only the first call counts.
            tick: Now.
            desired: int (n,), VMs wanted in service.
            price: float64 (n,), of a VM-tick of unserved work.

        Returns:
            -1 where nothing is known yet.
        """
        if tick <= warm_pool.last_tick:
            return warm_pool.wanted
        last, warm_pool.last_tick = warm_pool.last_tick, tick
        now = desired.astype(np.int64)
        some = self._some(warm_pool, last, now, price)
        level = _LEVEL_OF.take(now, mode="clip")
        if last >= 0 and np.count_nonzero(level != warm_pool.level):
            self._note(warm_pool, tick, last, level)
        warm_pool.level = level
        warm_pool.highest = np.maximum(warm_pool.highest, now)
        warm_pool.ticks = warm_pool.ticks + 1.0
        hours = int(tick * self._tick_s // HOUR_S) - int(last * self._tick_s // HOUR_S)
        if last >= 0 and hours:
            forgotten = self._decay ** min(hours, 10_000)
            warm_pool.ended *= forgotten
            warm_pool.ticks *= forgotten
            warm_pool.worth = self._spread(self._worth(warm_pool, tick, price, some), some)
        looks = int(tick * self._tick_s // LOOK_S) != int(last * self._tick_s // LOOK_S)
        if last >= 0 and looks and (hours or (warm_pool.wanted >= 0).any()):
            warm_pool.wanted = self._spread(self._held(warm_pool, tick, now, price, some), some)
        return warm_pool.wanted

    def _some(self, warm_pool: WarmPool, last: int, now: Int, price: Float) -> _Some:
        """The columns to be asked: all, or one each of those that have all in common up to and with this tick."""
        if not self._alike.few:
            return slice(None)
        if self._asked is not warm_pool:
            self._asked = warm_pool
            self._alike = Alike(*self._given, *(() if last < 0 else (warm_pool.pasts(),)))
        if self._alike.few and np.count_nonzero(self._alike.part(now, price)):
            self._partings += 1
            own = np.arange(len(now)) if self._partings >= _PARTINGS else self._alike.group
            self._alike = Alike(own, now, price)
        return self._alike.first if self._alike.few else slice(None)

    def _spread(self, found: Number, some: _Some) -> Number:
        """What all columns have, of what was asked of some."""
        return found if isinstance(some, slice) else self._alike.spread(found)

    def _saved(self, price: Float, some: _Some) -> Float:
        """What a stopped VM saves that is wanted: float64 (k,), in VM-ticks."""
        saved: Float = self._success[some] * (self._made[some] + price[some] * self._late[some] * USED)
        return saved

    def _note(self, warm_pool: WarmPool, tick: int, last: int, level: Int) -> None:
        """Note the waits that are over where levels are wanted again, and when those that are wanted no more were last."""
        before = warm_pool.level
        rose, fell = np.flatnonzero((level > before) & (before >= 0)), np.flatnonzero(level < before)
        if len(fell):
            warm_pool.since[_between(level[fell], before[fell], fell)] = last
        if len(rose):
            at, lane = _between(before[rose], level[rose], rose)
            since = warm_pool.since[at, lane]
            known = since >= 0
            at, lane = at[known], lane[known]
            np.add.at(warm_pool.ended, (at // PER_OCTAVE, bin_of_wait(tick - since[known]), lane), 1.0)

    def _worth(self, warm_pool: WarmPool, tick: int, price: Float, some: _Some) -> Bool:
        """Which levels some columns hold on, by how long they have waited: (GROUPS, WAITS, k)."""
        # Groups that nobody was ever in are all alike, so one of them is worked out.
        groups = min(_rows(warm_pool) // PER_OCTAVE + 2, GROUPS)
        ended, since = warm_pool.ended[:groups, :, some], warm_pool.since[:, some]
        reached, open_waits = ended.copy(), np.zeros(ended.shape)
        waiting = np.flatnonzero((since >= 0) & (warm_pool.level[some] < _LEVELS))
        _, cell = _cells(waiting, tick - since.reshape(-1).take(waiting), ended.shape[2])
        np.add.at(open_waits.reshape(-1), cell, 1.0)
        # Row by row: numpy's accumulate walks down column by column.
        for wait in reversed(range(WAITS - 1)):
            for waits in (reached, open_waits):
                waits[:, wait] += waits[:, wait + 1]
        reached += open_waits
        prior = np.add.reduce(ended, axis=0) + PRIOR_ENDS
        prior /= np.add.reduce(reached, axis=0) + PRIOR_WAITS
        prior *= ALL_GROUPS
        ends = np.add(ended, prior, out=open_waits)
        reached += ALL_GROUPS
        ends /= reached
        saved, stopped, made = self._saved(price, some), self._stopped[some], self._made[some]
        kept = np.zeros((GROUPS, *ended.shape[1:]), np.bool_)
        later = np.zeros((groups, ended.shape[2]))
        for wait in reversed(range(WAITS)):
            odds = ends[:, wait]
            later *= 1.0 - odds
            later += odds * saved
            later -= stopped * _LENGTH[wait] * (1.0 - 0.5 * odds)
            reached[:, wait] = later
            np.maximum(later, 0.0, out=later)
        # Who was given up would have to be made anew, and is where that pays before it is wanted.
        gained, on = reached, np.ones(later.shape, np.bool_)
        for wait in range(WAITS):
            on &= gained[:, wait] > 0.0
            np.logical_or(on, gained[:, wait] > made, out=kept[:groups, wait])
        kept[groups:] = kept[groups - 1]
        return kept

    def _held(self, warm_pool: WarmPool, tick: int, now: Int, price: Float, some: _Some) -> Int:
        """How many VMs are worth holding in some columns: (k,)."""
        rows = _rows(warm_pool) + 1
        worth, since = warm_pool.worth[:, :, some], warm_pool.since[:rows, some]
        now, level, highest = now[some], warm_pool.level[some], warm_pool.highest[some]
        # Levels that are wanted count as if they had waited a tick, which is the same for all of a group.
        first = np.arange(0, rows, PER_OCTAVE)[:, np.newaxis]
        wanted = worth[: len(first), 0] & (first <= level)
        top = np.maximum.reduce(wanted * np.minimum(first + (PER_OCTAVE - 1), level), axis=0)
        waits = since >= 0
        waits &= _LEVELS[:rows] > level
        waiting = np.flatnonzero(waits)
        wait = np.maximum(tick - since.reshape(-1).take(waiting), 1)
        at, cell = _cells(waiting, wait, len(now))
        held = np.flatnonzero(worth.reshape(-1).take(cell))
        at = at.take(held)
        np.maximum.at(top, waiting.take(held) - at * len(now), at)
        vms = np.minimum(np.ceil(EDGES[top + 1] - 1e-9) - 1.0, highest)
        surprise = self._saved(price, some) / warm_pool.ticks[some] > self._stopped[some]
        vms = np.where(surprise, np.maximum(vms, np.ceil(UNSEEN * highest)), vms)
        vms = np.maximum(vms, now)
        found: Int = np.minimum(np.ceil(vms / self._success[some] - 1e-9), MOST_VMS).astype(np.int64)
        return found


def _cells(places: Int, ticks: Int, columns: int) -> tuple[Int, Int]:
    """The level of each of some places of (BINS, n), and its place in (GROUPS, WAITS, n), where it has waited so long."""
    at = places // columns
    cell = at // PER_OCTAVE
    cell *= WAITS
    cell += bin_of_wait(ticks)
    cell -= at
    cell *= columns
    cell += places
    return at, cell


def bin_of_wait(ticks: Int) -> Int:
    """The bin of a wait of so many ticks, at least 1; any shape."""
    if ticks.max(initial=1) < len(_BIN_OF):
        return _BIN_OF.take(ticks)
    return _bin_of_wait(ticks)


def _bin_of_wait(ticks: Int) -> Int:
    bins = np.log2(ticks.astype(np.float64))
    bins *= PER_DOUBLING
    bins += 1e-9
    return np.minimum(bins, WAITS - 1.0).astype(np.int64)


_BIN_OF: Int = _bin_of_wait(np.maximum(np.arange(2**15), 1))
"""Of waits of less than three weeks of minutes."""


def _rows(warm_pool: WarmPool) -> int:
    """The highest level that any lane ever wanted."""
    return int(bin_of(warm_pool.highest.max(initial=0, keepdims=True).astype(np.float64))[0])


def _between(low: Int, high: Int, lanes: Int) -> tuple[Int, Int]:
    """All levels above the first and up to the second, int64 (k,) each, and the lane of each level."""
    count = high - low
    ends = np.add.accumulate(count)
    level = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - count - low - 1, count)
    return level, np.repeat(lanes, count)
