"""How many VMs should exist, stopped ones included: by how often levels of the fleet come back after such a wait, at such a time.

Level k is VM k. A VM that waits stopped costs `stopped_cost` a tick. If it is wanted while it waits, it saves making it
anew, and the work that would find no VM until that one serves: together V. How likely it is wanted within an hour follows
from how long it has waited and from whether it was wanted at that time of the day before (`returns`). So whether to hold it, to give it
up, or to make it anew before it is wanted is a question of what the next hours are expected to bring, worked out backwards hour by
hour: the problem of renting skis, with a season that depends on the hour and with skis that can be bought again,

    having(h) = -stopped_cost * E[wait] + (1 - odds(h)) max(having(h + 1), none(h + 1))
    none(h) = -V * odds(h) + (1 - odds(h)) max(none(h + 1), having(h + 1) - made)

Who is there is held as long as having is worth no less than having none; who is not there is made where having is worth
more than making costs. Levels are wanted from below, so none is held above one that is not. Keeping VMs by the law of idle
times is what Shahrad et al. (2020, "Serverless in the Wild") do for functions. Levels that were never wanted never wait: while
little was seen, a quarter as many again as ever are held, as long as one in all the time that was seen would pay. If nothing
is held, a pool is not worth its price.

Variants of a policy that have had the same past, and are given and want the same, are asked once, for as long as they do.

Rules of this file: element-wise, sums along bins in their order. Once an hour all that waits is asked; every five minutes
what has waited for less than an hour.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from autoscaler.core.alike import Alike, Number
from autoscaler.core.habits import HOUR_S
from autoscaler.core.params import LaneParams
from autoscaler.core.returns import (
    FRESH,
    GROUP,
    GROUPS,
    HITS,
    HOURS,
    LAST_VM,
    RUNGS,
    UNKNOWN,
    WAITS,
    kinds_of,
    rows_up_to,
    rung_of,
    waits_by_ticks,
    work_out,
    worth_having,
)
from autoscaler.core.trial import contests
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallInt
from autoscaler.core.waits import Law, WarmPool

HALF_LIFE_S = 14 * 86400.0
"""A wait counts half after this time."""
UNSEEN = 1.25
"""What has not been seen yet may need so many times as many VMs as ever."""
LOOK_S = 300.0
"""How often what has waited for less than an hour is asked."""
AHEAD_H = 6
"""So many hours to come are weighed."""
USED = 1.0
"""The share of its work that a VM which is wanted is taken to have at first. It has less, so a start that is missed counts for
more than it costs: that is what a pool is there to prevent."""
_RUNGS: Int = np.arange(RUNGS)[:, np.newaxis]
_START: Int = GROUP * (WAITS * HITS)
"""Where the group of each rung begins in what is counted."""
_ONE = np.float32(1.0)
_PARTINGS = 32
"""After so many ticks in which lanes parted each is asked itself: each time they are put into groups again."""


_Some: TypeAlias = "Int | slice[None, None, None]"
"""Some columns, or all."""


class Holding:
    """The rule, compiled for the lanes that have an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._hour_ticks = HOUR_S / params.tick_s
        self._stopped, self._made = params.stopped_cost[lanes], params.provision_cost[lanes]
        self._late = params.cold_ticks[lanes]
        self._success = params.start_success[lanes]
        self._decay = 0.5 ** (HOUR_S / HALF_LIFE_S)
        given = (contests(params, lanes).group, self._stopped, self._made, self._late, self._success)
        self._given, self._alike = given, Alike(*given)
        self._asked: WarmPool | None = None
        self._partings = 0
        self._wait_of = waits_by_ticks(params.tick_s)
        self._look_ticks = math.ceil(LOOK_S / params.tick_s)
        self._now: Int | None = None
        self._kinds: SmallInt | None = None

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
        same = self._now is not None and not np.count_nonzero(now != self._now)
        level = warm_pool.level if same else rung_of(now)
        self._now = now
        hour, before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
        if last < 0:
            warm_pool.peak = warm_pool.held = level
        elif not same and np.count_nonzero(level != warm_pool.level):
            self._note(warm_pool, tick, last, level, timely=hour <= before + 1)
            warm_pool.peak = np.maximum(warm_pool.peak, level)
            warm_pool.held = np.maximum(warm_pool.held, level)
        if not same:
            warm_pool.level = level
            warm_pool.highest = np.maximum(warm_pool.highest, now)
        warm_pool.ticks = warm_pool.ticks + 1.0
        if last >= 0 and hour != before:
            self._turn(warm_pool, before, hour)
            self._decide(warm_pool, tick, hour, now, price, some, whole=True)
        elif last >= 0 and int(tick * self._tick_s // LOOK_S) != int(last * self._tick_s // LOOK_S):
            self._decide(warm_pool, tick, hour, now, price, some, whole=False)
        elif not same and np.count_nonzero(now > warm_pool.wanted):
            more = np.where(warm_pool.wanted >= 0, self._there(now, slice(None)), -1)
            warm_pool.wanted = np.maximum(warm_pool.wanted, more)
        return warm_pool.wanted

    def _some(self, warm_pool: WarmPool, last: int, now: Int, price: Float) -> _Some:
        """The columns to be asked: all, or one each of those that have all in common up to and with this tick."""
        if self._asked is not warm_pool:
            self._kinds = self._now = None
            warm_pool.settle()
        if not self._alike.few:
            self._asked = warm_pool
            return slice(None)
        if self._asked is not warm_pool:
            self._asked = warm_pool
            self._alike = Alike(*self._given, *(() if last < 0 else (warm_pool.pasts(),)))
        if self._alike.few and np.count_nonzero(self._alike.part(now, price)):
            self._partings += 1
            warm_pool.settle()
            own = np.arange(len(now)) if self._partings >= _PARTINGS else self._alike.group
            self._alike, self._kinds = Alike(own, now, price), None
        return self._alike.first if self._alike.few else slice(None)

    def _spread(self, found: Number, some: _Some) -> Number:
        """What all columns have, of what was asked of some."""
        return found if isinstance(some, slice) else self._alike.spread(found)

    def _saved(self, price: Float, some: _Some) -> Float:
        """What a stopped VM saves that is wanted: float64 (k,), in VM-ticks."""
        saved: Float = self._success[some] * (self._made[some] + price[some] * self._late[some] * USED)
        return saved

    def _there(self, vms: Int | Float, some: _Some) -> Int:
        """How many VMs must exist for so many to start: int64 (k,)."""
        found: Int = np.minimum(np.ceil(vms / self._success[some] - 1e-9), MOST_VMS).astype(np.int64)
        return found

    def _note(self, warm_pool: WarmPool, tick: int, last: int, level: Int, *, timely: bool) -> None:
        """Note the waits that are over where rungs are wanted again, and when those that are wanted no more were last."""
        before, columns = warm_pool.level, len(level)
        rose, fell = np.flatnonzero(level > before), np.flatnonzero(level < before)
        if len(fell):
            warm_pool.since[_between(level[fell], before[fell], fell)] = last
        if not len(rose):
            return
        rung, lane = _between(before[rose], level[rose], rose)
        place = rung * columns
        place += lane
        since = warm_pool.since.reshape(-1).take(place)
        if len(unknown := np.flatnonzero(since < 0)):
            rung, lane, place, since = (np.delete(each, unknown) for each in (rung, lane, place, since))
        cells, ended = warm_pool.cell.reshape(-1), warm_pool.ended.reshape(-1)
        cell = cells.take(place).astype(np.int64)
        wait = self._wait_of.take(tick - since, mode="clip")
        here = wait * np.int64(HITS)
        here -= cell
        here -= 1
        counted = np.flatnonzero(cell >= 0)
        if len(counted):
            then = cell[counted]
            cells[place[counted]] = -1 - then % HITS
            here[counted] = then
        start = _START.take(rung)
        here += start
        here *= columns
        here += lane
        if timely:
            np.add.at(ended, here, _ONE)
        else:
            np.add.at(ended, here[wait < FRESH], _ONE)
        # Who was not counted yet when the hour began has outlasted one since then.
        late = np.flatnonzero((wait >= FRESH) & (cell < 0))
        if timely and len(late):
            asked = warm_pool.asked.reshape(-1)
            part = np.minimum((tick - since[late]) / self._hour_ticks - 1.0, 1.0).astype(np.float32)
            np.add.at(asked, here[late], part)
            outlasted = start[late] + (FRESH - 1) * HITS - 1 - cell[late]
            np.add.at(asked, outlasted * columns + lane[late], _ONE)

    def _count(self, warm_pool: WarmPool, tick: int) -> None:
        """Count the waits that are under way as an hour begins."""
        columns = len(warm_pool.lanes)
        place = np.flatnonzero(warm_pool.cell >= 0)
        rung = place // columns
        lane = place - rung * columns
        start = _START.take(rung)
        cell = warm_pool.cell.reshape(-1).take(place)
        waited_h = (tick - warm_pool.since.reshape(-1).take(place)) / self._hour_ticks
        new = waited_h < 2.0
        asked = warm_pool.asked.reshape(-1)
        np.add.at(asked, (start + cell) * columns + lane, np.where(new, waited_h, 1.0).astype(np.float32))
        outlasted = (start + (FRESH - 1) * HITS + cell % HITS) * columns + lane
        np.add.at(asked, outlasted[new], _ONE)

    def _turn(self, warm_pool: WarmPool, before: int, hour: int) -> None:
        """Forget an hour's worth, and note what was wanted in the one that is over."""
        groups = self._groups(warm_pool)
        forgotten = self._decay ** min(hour - before, 10_000)
        warm_pool.ended[:groups] *= np.float32(forgotten)
        warm_pool.asked[:groups] *= np.float32(forgotten)
        warm_pool.ticks *= forgotten
        warm_pool.hours[before % HOURS] = warm_pool.peak
        for skipped in range(max(before + 1, hour - HOURS), hour):
            warm_pool.hours[skipped % HOURS] = UNKNOWN
        warm_pool.peak = warm_pool.level
        self._kinds = None

    @staticmethod
    def _groups(warm_pool: WarmPool) -> int:
        """So many groups have a rung that was ever wanted; at least 1."""
        top = int(rung_of(warm_pool.highest.max(initial=0, keepdims=True))[0])
        return int(GROUP[max(top, 0)]) + 1

    def _decide(
        self, warm_pool: WarmPool, tick: int, hour: int, now: Int, price: Float, some: _Some, *, whole: bool
    ) -> None:
        """Work out which rungs are held: of all that wait, or of those that have waited for less than an hour."""
        level, held = warm_pool.level[some], warm_pool.held[some]
        top = rung_of(warm_pool.highest[some])
        rows = int(top.max(initial=-1)) + 1
        since, rungs = warm_pool.since[:rows, some], _RUNGS[:rows]
        waits = since > (-1 if whole else max(tick - self._hour_ticks, -1))
        waits &= rungs > level
        waits &= rungs <= (top if whole else held)
        place = np.flatnonzero(waits)
        rung = place // len(level)
        lane = place - rung * len(level)
        waited = tick - since.reshape(-1).take(place)
        if not whole:
            # Where a wait is of the same bin as when it was last looked at, so is the answer.
            bins = self._wait_of.take(waited, mode="clip")
            other = bins != self._wait_of.take(np.maximum(waited - self._look_ticks, 0), mode="clip")
            other |= waited <= self._look_ticks
            rung, lane, waited = rung[other], lane[other], waited[other]
        if whole or len(rung):
            if whole:
                self._work_out(warm_pool, some)
            kinds = self._kinds_now(warm_pool, hour, some, rows)
            made = self._made[some].take(lane)
            law = warm_pool.law
            odds, lasts = (warm_pool.odds, warm_pool.lasts) if law is None else (law.odds, law.lasts)
            column = lane if law is not None or isinstance(some, slice) else some.take(lane)
            gained = worth_having(
                odds,
                lasts,
                self._cells(kinds, rung, lane, waited, column, odds.shape[-1]),
                self._saved(price, some).take(lane),
                self._stopped[some].take(lane) * self._hour_ticks,
                made,
            )
            good = gained >= np.where(rung <= held.take(lane), 0.0, made)
            warm_pool.held = self._spread(_held(level, held, rows, rung, lane, good, whole=whole), some)
            if whole:
                cell: SmallInt = np.full((RUNGS, len(level)), -1, np.int16)
                cell[:rows] -= kinds[0]
                wait = self._wait_of.take(waited, mode="clip")
                old = wait >= FRESH
                rung, lane = rung[old], lane[old]
                cell[rung, lane] = wait[old] * np.int16(HITS) + kinds[0, rung, lane]
                warm_pool.cell = self._spread(cell, some)
                self._count(warm_pool, tick)
        self._want(warm_pool, now, price, some, whole=whole)

    def _work_out(self, warm_pool: WarmPool, some: _Some) -> None:
        """The law of the hour that begins."""
        # Groups that nobody was ever in are all alike, so one of them is worked out.
        groups = min(self._groups(warm_pool) + 1, GROUPS)
        ended, asked = warm_pool.ended[:groups], warm_pool.asked[:groups]
        odds, lasts = warm_pool.odds, warm_pool.lasts
        if not isinstance(some, slice):
            # What all columns have is brought up to it when somebody asks for that.
            ended, asked = ended.take(some, axis=-1), asked.take(some, axis=-1)
            odds, lasts = np.empty((2, *odds.shape[:-1], len(some)), np.float32)
            warm_pool.law = Law(odds, lasts, self._alike)
        work_out(ended, asked, odds[:groups], lasts[:groups])
        for known in (odds, lasts):
            known[groups:] = known[groups - 1]

    def _kinds_now(self, warm_pool: WarmPool, hour: int, some: _Some, rows: int) -> SmallInt:
        """What kinds of times the hours to come are, of some columns."""
        if self._kinds is None or self._kinds.shape[1] < rows:
            self._kinds = kinds_of(warm_pool.hours[:, some], hour, AHEAD_H, rows)
        return self._kinds

    def _cells(self, kinds: SmallInt, rung: Int, lane: Int, waited: Int, column: Int, columns: int) -> Int:
        """Where the law of what waits is in the hours to come: (AHEAD_H, m), of lanes of `kinds` that are columns of the law."""
        place, start = rung * kinds.shape[2] + lane, _START.take(rung)
        cells = np.empty((AHEAD_H, len(rung)), np.int64)
        for ahead in range(AHEAD_H):
            cell = cells[ahead]
            np.multiply(
                self._wait_of.take(waited + int(ahead * self._hour_ticks), mode="clip"), HITS, out=cell
            )
            cell += kinds[ahead].reshape(-1).take(place)
            cell += start
            cell *= columns
            cell += column
        return cells

    def _want(self, warm_pool: WarmPool, now: Int, price: Float, some: _Some, *, whole: bool) -> None:
        """How many VMs should exist, by the rungs that are held."""
        highest = warm_pool.highest[some]
        vms = np.minimum(LAST_VM.take(warm_pool.held[some]), highest)
        surprise = self._saved(price, some) / warm_pool.ticks[some] > self._stopped[some]
        least = np.where(surprise, np.ceil(UNSEEN * highest), now[some])
        wanted = self._there(np.maximum(np.maximum(vms, least), now[some]), some)
        if not whole:
            wanted = np.where(warm_pool.wanted[some] >= 0, wanted, -1)
        warm_pool.wanted = self._spread(wanted, some)


def _held(level: Int, held: Int, rows: int, rung: Int, lane: Int, good: Bool, *, whole: bool) -> Int:
    """The highest rung that is held, if some that wait are good to hold and others not: int64 (k,)."""
    if whole:
        fine = np.zeros((rows, len(level)), np.bool_)
        fine[rung, lane] = good
        return rows_up_to(level, fine) - 1
    found = held.copy()
    np.minimum.at(found, lane[~good], rung[~good] - 1)
    return found


def _between(low: Int, high: Int, lanes: Int) -> tuple[Int, Int]:
    """All rungs above the first and up to the second, int64 (k,) each, and the lane of each rung."""
    count = high - low
    ends = np.add.accumulate(count)
    level = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - count - low - 1, count)
    return level, np.repeat(lanes, count)
