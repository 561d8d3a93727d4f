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

Variants of a policy that have had the same past, and are given and want the same, are kept and asked once, for as long as they
do (`waits.Together`): what is called a column here stands for all of them.

Rules of this file: element-wise, sums along bins in their order. Once an hour all that waits is asked; every five minutes
what has waited for less than an hour. What has not waited for an hour will wait for as long in the hours to come, whenever it
is asked, so the worth of those hours is worked out once in an hour for all rungs.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.alike import Alike
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
from autoscaler.core.waits import Together, WarmPool

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
_RUNGS: SmallInt = np.array([[rung] for rung in range(RUNGS)], np.int8)
_START: Int = GROUP * (WAITS * HITS)
"""Where the group of each rung begins in what is counted."""
LATER: Int = FRESH + np.log2(np.arange(1, AHEAD_H)).astype(np.int64)[:, np.newaxis, np.newaxis]
"""The bins of a wait of less than an hour after one hour, two and so on."""
_MORE = 4
"""So many rungs above those that are asked are worked out with them, since somebody will soon ask."""
_ONE = np.float32(1.0)
_PARTINGS = 32
"""After so many ticks in which lanes parted each is asked itself: each time they are put into groups again."""


class Holding:
    """The rule, compiled for the lanes that have an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._hour_ticks = HOUR_S / params.tick_s
        self._terms = (
            params.stopped_cost[lanes],
            params.provision_cost[lanes],
            params.cold_ticks[lanes],
            params.start_success[lanes],
        )
        self._stopped, self._made, self._late, self._success = self._terms
        self._hourly = self._stopped * self._hour_ticks
        self._decay = 0.5 ** (HOUR_S / HALF_LIFE_S)
        self._given = (contests(params, lanes).group, *self._terms)
        self._alike = Alike(*self._given)
        self._partings = 0
        self._wait_of = waits_by_ticks(params.tick_s)
        self._ahead_ticks = np.array([[int(ahead * self._hour_ticks)] for ahead in range(AHEAD_H)], np.int64)
        self._asks = _asked_after(self._wait_of, self._hour_ticks, math.ceil(LOOK_S / params.tick_s))
        self._asked: WarmPool | None = None
        self._together: Together | None = None
        self._desired: Int | None = None
        self._price: Float | None = None
        self._now: Int = np.zeros(0, np.int64)
        self._saved: Float = np.zeros(0)
        self._kinds: SmallInt | None = None
        self._later: tuple[Float, Float] | None = None

    def step(self, warm_pool: WarmPool, tick: int, desired: Int, price: Float) -> Int:
        """Take in what is wanted at a tick, and give how many VMs should exist: int64 (n,), not to be changed.

        Args:
            warm_pool: Updated in place; within a tick only the first call counts.
            tick: Now.
            desired: int (n,), VMs wanted in service.
            price: float64 (n,), of a VM-tick of unserved work. Not to be changed.

        Returns:
            -1 where nothing is known yet. The same array while nothing has changed.
        """
        if tick <= warm_pool.last_tick:
            return warm_pool.wanted
        last, warm_pool.last_tick = warm_pool.last_tick, tick
        same = self._see(warm_pool, last, desired, price)
        together = self._together
        kept = warm_pool if together is None else together.kept
        now, before = self._now, kept.wanted
        if not same:
            self._rise_and_fall(kept, tick, last)
        kept.ticks = kept.ticks + 1.0
        hour, hour_before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
        if last >= 0 and hour != hour_before:
            self._turn(kept, hour_before, hour)
            self._decide(kept, tick, hour)
            self._want(kept, whole=True)
        elif last >= 0 and int(tick * self._tick_s // LOOK_S) != int(last * self._tick_s // LOOK_S):
            self._look(kept, tick, hour)
            self._want(kept, whole=False)
        elif not same and np.count_nonzero(now > kept.wanted):
            kept.wanted = np.maximum(kept.wanted, np.where(kept.wanted >= 0, self._there(now), -1))
        if together is not None and kept.wanted is not before:
            warm_pool.wanted = together.alike.spread(kept.wanted)
        return warm_pool.wanted

    def _see(self, warm_pool: WarmPool, last: int, desired: Int, price: Float) -> bool:
        """Part columns that have no more all in common, up to and with this tick, and say whether all want what they wanted."""
        if self._asked is not warm_pool or self._together is not warm_pool.together:
            self._begin(warm_pool, last)
        same = self._desired is not None and not np.count_nonzero(desired != self._desired)
        known = self._price
        cheap = price is known or (known is not None and not np.count_nonzero(price != known))
        if same and cheap:
            return True
        alike = self._alike
        # What is as it was parts nobody.
        other = (desired,) if cheap else (price,) if same else (desired, price)
        if alike.few and np.count_nonzero(alike.part(*other)):
            self._partings += 1
            own = np.arange(len(desired)) if self._partings >= _PARTINGS else alike.group
            alike = self._alike = Alike(own, desired, price)
            self._keep(warm_pool)
            cheap = False
        self._desired, self._price = desired.copy(), price
        self._now = (alike.of_first(desired) if alike.few else desired).astype(np.int64)
        if not cheap:
            of_columns = alike.of_first(price) if alike.few else price
            self._saved = self._success * (self._made + of_columns * self._late * USED)
            self._later = None
        return same

    def _begin(self, warm_pool: WarmPool, last: int) -> None:
        """Go on with what somebody else has left, or nobody."""
        self._asked, self._desired, self._price = warm_pool, None, None
        if self._alike.few:
            self._alike = Alike(*self._given, *(() if last < 0 else (warm_pool.pasts(),)))
        self._keep(warm_pool)

    def _keep(self, warm_pool: WarmPool) -> None:
        """Have the columns kept as they are alike."""
        alike, terms = self._alike, self._terms
        if alike.few:
            self._together = warm_pool.gather(alike)
            stopped, made, late, success = map(alike.of_first, terms)
            terms = stopped, made, late, success
        else:
            warm_pool.settle()
            self._together = warm_pool.together = None
        self._stopped, self._made, self._late, self._success = terms
        self._hourly = self._stopped * self._hour_ticks
        self._kinds = self._later = None

    def _there(self, vms: Int | Float) -> Int:
        """How many VMs must exist for so many to start: int64 (k,)."""
        found: Int = np.minimum(np.ceil(vms / self._success - 1e-9), MOST_VMS).astype(np.int64)
        return found

    def _rise_and_fall(self, warm_pool: WarmPool, tick: int, last: int) -> None:
        """Take in what is wanted now."""
        level = rung_of(self._now)
        if last < 0:
            warm_pool.peak = warm_pool.held = level
        elif np.count_nonzero(level != warm_pool.level):
            hour, before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
            self._note(warm_pool, tick, last, level, timely=hour <= before + 1)
            warm_pool.peak = np.maximum(warm_pool.peak, level)
            warm_pool.held = np.maximum(warm_pool.held, level)
        warm_pool.level = level
        warm_pool.highest = np.maximum(warm_pool.highest, self._now)

    def _note(self, warm_pool: WarmPool, tick: int, last: int, level: Int, *, timely: bool) -> None:
        """Note the waits that are over where rungs are wanted again, and when those that are wanted no more were last."""
        before, columns = warm_pool.level, len(level)
        rose, fell = (level > before).nonzero()[0], (level < before).nonzero()[0]
        if len(fell):
            rung, lane = _between(level[fell], before[fell], fell)
            warm_pool.since.reshape(-1)[rung * columns + lane] = last
        if not len(rose):
            return
        rung, lane = _between(before[rose], level[rose], rose)
        place = rung * columns
        place += lane
        since = warm_pool.since.reshape(-1).take(place)
        known = since >= 0
        if np.count_nonzero(known) < len(known):
            rung, lane, place, since = (each[known] for each in (rung, lane, place, since))
        cells, ended = warm_pool.cell.reshape(-1), warm_pool.ended.reshape(-1)
        cell = cells.take(place).astype(np.int64)
        wait = self._wait_of.take(tick - since, mode="clip")
        here = wait * np.int64(HITS)
        here -= cell
        here -= 1
        old = (wait >= FRESH).nonzero()[0]
        # Only who had waited for an hour was counted when this one began.
        counted = old[cell[old] >= 0]
        if len(counted):
            then = cell[counted]
            cells[place[counted]] = -1 - then % HITS
            here[counted] = then
        start = _START.take(rung)
        here += start
        here *= columns
        here += lane
        if timely or not len(old):
            np.add.at(ended, here, _ONE)
        else:
            np.add.at(ended, here[wait < FRESH], _ONE)
        # Who was not counted yet when the hour began has outlasted one since then.
        late = old[cell[old] < 0]
        if timely and len(late):
            asked = warm_pool.asked.reshape(-1)
            part = np.minimum((tick - since[late]) / self._hour_ticks - 1.0, 1.0).astype(np.float32)
            np.add.at(asked, here[late], part)
            outlasted = start[late] + (FRESH - 1) * HITS - 1 - cell[late]
            np.add.at(asked, outlasted * columns + lane[late], _ONE)

    def _count(self, warm_pool: WarmPool, tick: int) -> None:
        """Count the waits that are under way as an hour begins."""
        columns = len(warm_pool.level)
        place = (warm_pool.cell.reshape(-1) >= 0).nonzero()[0]
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
        self._kinds = self._later = None

    @staticmethod
    def _groups(warm_pool: WarmPool) -> int:
        """So many groups have a rung that was ever wanted; at least 1."""
        top = int(rung_of(np.maximum.reduce(warm_pool.highest, keepdims=True))[0])
        return int(GROUP[max(top, 0)]) + 1

    def _decide(self, warm_pool: WarmPool, tick: int, hour: int) -> None:
        """Work out which rungs are held, of all that wait, as an hour begins."""
        level, held = warm_pool.level, warm_pool.held
        top = rung_of(warm_pool.highest)
        rows = int(np.maximum.reduce(top)) + 1
        waits = warm_pool.since[:rows] > -1
        waits &= _RUNGS[:rows] > level
        waits &= _RUNGS[:rows] <= top
        place = waits.reshape(-1).nonzero()[0]
        rung = place // len(level)
        lane = place - rung * len(level)
        waited = tick - warm_pool.since.reshape(-1).take(place)
        self._work_out(warm_pool)
        kinds = self._kinds_now(warm_pool, hour, min(rows + _MORE, RUNGS))
        made = self._made.take(lane)
        having, none = worth_having(
            warm_pool.odds,
            warm_pool.lasts,
            self._cells(kinds, rung, lane, waited),
            self._saved.take(lane),
            self._hourly.take(lane),
            made,
        )
        good = having - none >= np.where(rung <= held.take(lane), 0.0, made)
        fine = np.zeros((rows, len(level)), np.bool_)
        fine[rung, lane] = good
        warm_pool.held = rows_up_to(level, fine) - 1
        cell: SmallInt = np.full((RUNGS, len(level)), -1, np.int16)
        cell[:rows] -= kinds[0, :rows]
        wait = self._wait_of.take(waited, mode="clip")
        old = wait >= FRESH
        rung, lane = rung[old], lane[old]
        cell[rung, lane] = wait[old] * np.int16(HITS) + kinds[0, rung, lane]
        warm_pool.cell = cell
        self._count(warm_pool, tick)

    def _look(self, warm_pool: WarmPool, tick: int, hour: int) -> None:
        """Work out which rungs are held on, of those that have waited for less than an hour."""
        level, held, columns = warm_pool.level, warm_pool.held, len(warm_pool.level)
        low, high = int(np.minimum.reduce(level)) + 1, int(np.maximum.reduce(held)) + 1
        if high <= low:
            return
        waits = _RUNGS[low:high] > level.astype(np.int8)
        waits &= _RUNGS[low:high] <= held.astype(np.int8)
        place = waits.reshape(-1).nonzero()[0]
        place += low * columns
        waited = tick - warm_pool.since.reshape(-1).take(place)
        asked = self._asks.take(waited, mode="clip").nonzero()[0]
        if not len(asked):
            return
        place, waited = place.take(asked), waited.take(asked)
        kinds, (having, none) = self._later_hours(warm_pool, hour, high)
        rung = place // columns
        lane = place - rung * columns
        cell = self._wait_of.take(waited) * np.int64(HITS)
        cell += kinds[0].reshape(-1).take(place)
        cell += _START.take(rung)
        cell *= columns
        cell += lane
        having, none = worth_having(
            warm_pool.odds,
            warm_pool.lasts,
            cell[np.newaxis],
            self._saved.take(lane),
            self._hourly.take(lane),
            self._made.take(lane),
            (having.reshape(-1).take(place), none.reshape(-1).take(place)),
        )
        bad = (having - none < 0.0).nonzero()[0]
        if len(bad):
            warm_pool.held = held.copy()
            np.minimum.at(warm_pool.held, lane[bad], rung[bad] - 1)

    def _work_out(self, warm_pool: WarmPool) -> None:
        """The law of the hour that begins."""
        # Groups that nobody was ever in are all alike, so one of them is worked out.
        groups = min(self._groups(warm_pool) + 1, GROUPS)
        work_out(
            warm_pool.ended[:groups],
            warm_pool.asked[:groups],
            warm_pool.odds[:groups],
            warm_pool.lasts[:groups],
        )
        for known in (warm_pool.odds, warm_pool.lasts):
            known[groups:] = known[groups - 1]

    def _kinds_now(self, warm_pool: WarmPool, hour: int, rows: int) -> SmallInt:
        """What kinds of times the hours to come are."""
        if self._kinds is None or self._kinds.shape[1] < rows:
            self._kinds = kinds_of(warm_pool.hours, hour, AHEAD_H, rows)
        return self._kinds

    def _later_hours(self, warm_pool: WarmPool, hour: int, rows: int) -> tuple[SmallInt, tuple[Float, Float]]:
        """Kinds of times, and what it is worth from the next hour on to have what has waited for less than one, and to have none.

        Returns:
            int8 (AHEAD_H, r, k), and float64 (r', k) each, of at least so many rungs.
        """
        if self._later is None or len(self._later[0]) < rows:
            rows = min(rows + _MORE, RUNGS)
            kinds = self._kinds_now(warm_pool, hour, rows)
            cells = kinds[1:, :rows] + LATER * HITS
            cells += _START[:rows, np.newaxis]
            cells *= kinds.shape[2]
            cells += np.arange(kinds.shape[2])
            terms = self._saved, self._hourly, self._made
            self._later = worth_having(warm_pool.odds, warm_pool.lasts, cells, *terms)
        return self._kinds_now(warm_pool, hour, rows), self._later

    def _cells(self, kinds: SmallInt, rung: Int, lane: Int, waited: Int) -> Int:
        """Where the law of what waits is in the hours to come: (AHEAD_H, m)."""
        columns = kinds.shape[2]
        cells = self._wait_of.take(waited + self._ahead_ticks, mode="clip").astype(np.int64)
        cells *= HITS
        cells += kinds.reshape(AHEAD_H, -1).take(rung * columns + lane, axis=1)
        cells += _START.take(rung)
        cells *= columns
        cells += lane
        return cells

    def _want(self, warm_pool: WarmPool, *, whole: bool) -> None:
        """How many VMs should exist, by the rungs that are held."""
        now, highest = self._now, warm_pool.highest
        vms = np.minimum(LAST_VM.take(warm_pool.held), highest)
        surprise = self._saved / warm_pool.ticks > self._stopped
        least = np.where(surprise, np.ceil(UNSEEN * highest), now)
        wanted = self._there(np.maximum(np.maximum(vms, least), now))
        if not whole:
            wanted = np.where(warm_pool.wanted >= 0, wanted, -1)
        # Where it is what it was it is the same array, of which nothing has to be worked out anew.
        if np.count_nonzero(wanted != warm_pool.wanted):
            warm_pool.wanted = wanted


def _asked_after(wait_of: SmallInt, hour_ticks: float, look_ticks: int) -> Bool:
    """After which waits of less than an hour a look asks, by their ticks: bool (N,), of which the last is for all longer ones.

    Where a wait is of the same bin as when it was last looked at, so is the answer.
    """
    waited = np.arange(math.ceil(hour_ticks) + 1)
    asks = wait_of.take(waited) != wait_of.take(np.maximum(waited - look_ticks, 0))
    asks |= waited <= look_ticks
    found: Bool = asks & (waited < hour_ticks)
    return found


def _between(low: Int, high: Int, lanes: Int) -> tuple[Int, Int]:
    """All rungs above the first and up to the second, int64 (k,) each, and the lane of each rung."""
    count = high - low
    ends = np.add.accumulate(count)
    which = np.arange(len(count)).repeat(count)
    level = np.arange(len(which)) - (ends - count - low - 1).take(which)
    return level, lanes.take(which)
