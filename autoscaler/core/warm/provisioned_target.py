"""How many VMs should exist, including stopped ones, by how likely each level of the fleet is to be wanted again.

Level k is VM k. A VM that waits stopped costs `stopped_cost` per tick. If it is wanted while it waits, it saves the cost of making a
new one, and the work that would find no VM until the new one serves: together V. The odds that it is wanted within an hour follow from
how long it has waited, and from whether it was wanted at that time of day before (`returns`). So the choice to hold it, to give it
up, or to make it again before it is wanted depends on what the next hours are expected to bring. That is worked out backwards, hour
by hour. It is the ski-rental problem, with a season that depends on the hour and with skis that can be bought again:

    having(h) = -stopped_cost * E[wait] + (1 - odds(h)) max(having(h + 1), none(h + 1))
    none(h) = -V * odds(h) + (1 - odds(h)) max(none(h + 1), having(h + 1) - made)

A VM that exists is held as long as having it is worth no less than having none. A VM that does not exist is made if having it is
worth more than making it costs. Levels are wanted from the lowest up, so no level is held above one that is not held. Shahrad et al.
(2020, "Serverless in the Wild") keep functions by the law of idle times in the same way. Levels that were never wanted never wait.
So while little has been seen, the pool holds a quarter more VMs than were ever wanted, up to the policy's maximum, as long as one
use in all the time seen would pay for a VM. If nothing is held, a pool is not worth its price.

Variants of a policy with the same past, settings and wishes are kept and evaluated once, for as long as they stay the same
(`waits.GroupedPoolState`): a column here stands for all of them.

Rules of this file: element-wise, sums along bins in their order. Once an hour all waiting levels are evaluated, from the lowest up to
the first that is not held. Every five minutes the levels that have waited for less than an hour are evaluated. Their waits in later
hours do not depend on the minute, so the worth of those hours is computed once an hour.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.objective.competition_state import competition_groups
from autoscaler.core.objective.habits import HOUR_S
from autoscaler.core.params import LaneParams
from autoscaler.core.rules import is_fixed
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallInt
from autoscaler.core.warm.returns import (
    FRESH,
    GROUP,
    HITS,
    HOURS,
    LAST_VM,
    RUNGS,
    UNKNOWN,
    due_by_wait,
    kinds_of,
    rung_of,
    rungs_between,
    worth_having,
)
from autoscaler.core.warm.wait_endings import ROWS, START, Endings
from autoscaler.core.warm.wait_odds import FEW, Law
from autoscaler.core.warm.waits import GroupedPoolState, WarmPool

HALF_LIFE_S = 14 * 86400.0
"""Age at which a wait has half its weight."""
UNSEEN = 1.25
"""What has not been seen yet may need this many times the VMs ever wanted."""
LOOK_S = 300.0
"""How often levels that have waited for less than an hour are evaluated."""
AHEAD_H = 6
"""Number of future hours that are weighed."""
USED = 1.0
"""The share of its work that a wanted VM is assumed to have at first. It really has less, so a missed start counts for more than it
costs; preventing missed starts is what a pool is for."""
LATER: Int = FRESH + np.log2(np.arange(1, AHEAD_H)).astype(np.int64)[:, np.newaxis]
"""The bins of a wait of less than an hour, after one more hour, two more and so on."""
_MORE = 4
"""Number of rungs above a held one that are evaluated together."""
_ROUNDING_SHARE = 1e-9
"""A difference above this share of what is at stake in an hour does not come from rounding."""
_EMPTY: Int = np.zeros(0, np.int64)
_MOST_REGROUPINGS = 32
"""After this many ticks in which lanes diverged, each is evaluated by itself, because each divergence means regrouping."""


class ProvisionedTarget:
    """Computes how many VMs should exist, compiled for the lanes with an objective.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), the lanes with an objective.
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
        self._stopped_cost, self._provision_cost, self._cold_ticks, self._start_success = self._terms
        self._maxima = self._maximum = params.maximum[lanes]
        self._stopped_cost_per_h = self._stopped_cost * self._hour_ticks
        self._succeeds = False
        self._decay = 0.5 ** (HOUR_S / HALF_LIFE_S)
        self._group_keys = (competition_groups(params, lanes).group, *self._terms)
        self._column_groups = ColumnGroups(*self._group_keys)
        self._regroupings = 0
        self._endings = Endings(params.tick_s)
        self._wait_of = self._endings.wait_of
        self._ahead_ticks = np.array([[int(ahead * self._hour_ticks)] for ahead in range(AHEAD_H)], np.int64)
        self._due_by_wait = due_by_wait(self._wait_of, self._hour_ticks, math.ceil(LOOK_S / params.tick_s))
        self._last_pool: WarmPool | None = None
        self._law: Law | None = None
        self._grouped: GroupedPoolState | None = None
        self._fixed: Int | None = None
        self._desired: Int | None = None
        self._price: Float | None = None
        self._wanted_now: Int = np.zeros(0, np.int64)
        self._saving: Float = np.zeros(0)
        self._rounding_margin: Float = np.zeros(0)
        self._provisioning_costs = False
        self._kinds: SmallInt | None = None
        self._kinds_from = 0
        self._later_known: Bool = np.zeros(0, np.bool_)
        self._later: Float = np.zeros((2, 0))

    def step(self, warm_pool: WarmPool, tick: int, desired: Int, price: Float) -> Int:
        """Take in the VMs wanted at a tick, and return how many VMs should exist: int64 (n,), not to be changed.

        Args:
            warm_pool: Updated in place; within a tick only the first call counts.
            tick: The current tick.
            desired: int (n,), VMs wanted in service.
            price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks. Not to be changed.

        Returns:
            The number of VMs, -1 if nothing is known yet; the same array object while nothing has changed.
        """
        if tick <= warm_pool.last_tick:
            return warm_pool.wanted
        last, warm_pool.last_tick = warm_pool.last_tick, tick
        moved = self._separate_columns(warm_pool, last, desired, price)
        same = moved is not None and not len(moved)
        grouped = self._grouped
        state = warm_pool if grouped is None else grouped.state
        before = state.wanted
        if not same:
            self._rise_and_fall(state, tick, last, moved)
        state.ticks += 1.0
        hour, hour_before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
        if last >= 0 and hour != hour_before:
            self._end_hour(state, hour_before, hour)
            self._evaluate_all(state, tick, hour)
            self._set_wanted(state, whole=True)
        elif last >= 0 and int(tick * self._tick_s // LOOK_S) != int(last * self._tick_s // LOOK_S):
            self._evaluate_recent(state, tick, hour)
            self._set_wanted(state, whole=False)
        elif not same:
            self._raise_wanted(state)
        if grouped is not None and state.wanted is not before:
            warm_pool.wanted = grouped.groups.spread(state.wanted)
        return warm_pool.wanted

    def _separate_columns(self, warm_pool: WarmPool, last: int, desired: Int, price: Float) -> Int | None:
        """Separate columns that differ in this tick from the group they were evaluated with.

        Returns:
            int64 (m,), the columns that want another number of VMs than before; None if not known.
        """
        grouped = warm_pool.together
        state = warm_pool if grouped is None else grouped.state
        if (
            self._last_pool is not warm_pool
            or self._grouped is not grouped
            or self._law is not state.known_law
        ):
            self._change_state(warm_pool, last)
        moved: Int | None = None
        # An unchangeable array that is the same object has the same values.
        if self._fixed is desired:
            moved = _EMPTY
        elif self._desired is not None:
            moved = (desired != self._desired).nonzero()[0]
        same = moved is not None and not len(moved)
        known = self._price
        cheap = price is known or (known is not None and not np.count_nonzero(price != known))
        if same and cheap:
            return moved
        groups = self._column_groups
        if groups.few:
            moved = _EMPTY if same else None
        # Only what has changed can tell the columns of a group apart.
        changed = (desired,) if cheap else (price,) if same else (desired, price)
        if groups.few and np.count_nonzero(groups.part(*changed)):
            self._regroupings += 1
            keys = np.arange(len(desired)) if self._regroupings >= _MOST_REGROUPINGS else groups.group
            groups = self._column_groups = ColumnGroups(keys, desired, price)
            self._gather_columns(warm_pool)
            cheap = False
        fixed = is_fixed(desired)
        self._fixed = desired if fixed else None
        self._desired, self._price = desired if fixed else desired.copy(), price
        self._wanted_now = (groups.of_first(desired) if groups.few else desired).astype(np.int64)
        if not cheap:
            of_columns = groups.of_first(price) if groups.few else price
            self._saving = self._start_success * (self._provision_cost + of_columns * self._cold_ticks * USED)
            self._rounding_margin = _ROUNDING_SHARE * (self._saving + self._stopped_cost_per_h)
            self._later_known.fill(False)
        return moved

    def _change_state(self, warm_pool: WarmPool, last: int) -> None:
        """Start with a state other than the one that this object evaluated last."""
        self._last_pool, self._fixed, self._desired, self._price = warm_pool, None, None, None
        if self._column_groups.few:
            self._column_groups = ColumnGroups(*self._group_keys, *(() if last < 0 else (warm_pool.pasts(),)))
        self._gather_columns(warm_pool)

    def _gather_columns(self, warm_pool: WarmPool) -> None:
        """Keep one column for each group of equal columns, and choose the terms to match."""
        groups, terms = self._column_groups, self._terms
        if groups.few:
            self._grouped = warm_pool.gather(groups)
            stopped, made, late, success = map(groups.of_first, terms)
            terms = stopped, made, late, success
        else:
            warm_pool.settle()
            self._grouped = warm_pool.together = None
        self._stopped_cost, self._provision_cost, self._cold_ticks, self._start_success = terms
        self._maximum = groups.of_first(self._maxima) if groups.few else self._maxima
        self._stopped_cost_per_h = self._stopped_cost * self._hour_ticks
        self._succeeds = bool((self._start_success == 1.0).all())
        self._provisioning_costs = bool(np.count_nonzero(self._provision_cost))
        self._law = (warm_pool if self._grouped is None else self._grouped.state).law
        self._kinds = None
        cells = RUNGS * len(self._provision_cost)
        self._later_known, self._later = np.zeros(cells, np.bool_), np.empty((2, cells))

    def _rise_and_fall(self, warm_pool: WarmPool, tick: int, last: int, moved: Int | None) -> None:
        """Note the VMs wanted now; only the columns `moved`, int64 (m,), can have changed, or all if it is None."""
        now, moved = self._wanted_now, None if last < 0 else moved
        np.maximum(warm_pool.highest, now, out=warm_pool.highest)
        level = rung_of(now if moved is None else now.take(moved))
        if last < 0:
            warm_pool.peak = warm_pool.held = warm_pool.level = level
            return
        changed = (level != (warm_pool.level if moved is None else warm_pool.level.take(moved))).nonzero()[0]
        if not len(changed):
            return
        lanes, new_level = changed if moved is None else moved.take(changed), level.take(changed)
        hour, before = int(tick * self._tick_s // HOUR_S), int(last * self._tick_s // HOUR_S)
        self._endings.note(warm_pool, tick, last, lanes, new_level, timely=hour <= before + 1)
        # Not in place, because `held` and `peak` may be this very array.
        level = warm_pool.level.copy()
        level[lanes] = new_level
        warm_pool.level = level
        warm_pool.peak = np.maximum(warm_pool.peak, level)
        warm_pool.held = np.maximum(warm_pool.held, level)

    def _end_hour(self, warm_pool: WarmPool, before: int, hour: int) -> None:
        """End an hour: let earlier counts fade, and note the highest rung that was wanted in it."""
        forgotten = self._decay ** min(hour - before, 10_000)
        warm_pool.law.begin_hour(forgotten, self._groups(warm_pool))
        warm_pool.ticks *= forgotten
        warm_pool.hours[before % HOURS] = warm_pool.peak
        for skipped in range(max(before + 1, hour - HOURS), hour):
            warm_pool.hours[skipped % HOURS] = UNKNOWN
        warm_pool.peak = warm_pool.level
        self._later_known.fill(False)

    @staticmethod
    def _groups(warm_pool: WarmPool) -> range:
        """The groups of the rungs from the lowest that ever waited up to the highest that was ever wanted."""
        top = max(int(rung_of(np.maximum.reduce(warm_pool.highest, keepdims=True))[0]), 0)
        rung = 0
        while rung < top and not np.count_nonzero(warm_pool.since[rung] > -1):
            rung += 1
        return range(int(GROUP[rung]), int(GROUP[top]) + 1)

    def _evaluate_all(self, warm_pool: WarmPool, tick: int, hour: int) -> None:
        """At the beginning of an hour, determine which waiting rungs are held, and count the current waits."""
        top = rung_of(warm_pool.highest)
        rows = int(np.maximum.reduce(top)) + 1
        kinds = self._kinds_now(warm_pool, hour, rows)
        self._set_held(warm_pool, tick, kinds, top)
        self._endings.count(warm_pool, tick, kinds[0, :rows])

    def _set_held(self, warm_pool: WarmPool, tick: int, kinds: SmallInt, top: Int) -> None:
        """Determine which rungs are held: in each lane, from the lowest up to the first that is not worth holding.

        Args:
            warm_pool: Updated in place.
            tick: Now.
            kinds: int8 (AHEAD_H, r, k), the kinds of time of the coming hours.
            top: int64 (k,), the highest rung ever wanted.
        """
        lanes, below, held = np.arange(len(top)), warm_pool.level, warm_pool.held
        # Most lanes hold what they held, so only one rung more is evaluated at first.
        upper = np.maximum(top if len(top) < FEW else np.minimum(held + 1, top), below)
        found = upper.copy()
        while len(lanes):
            rung, lane = rungs_between(below, upper, lanes)
            rejected = self._not_held(warm_pool, tick, kinds, rung, lane) if len(rung) else rung
            np.minimum.at(found, lane[rejected], rung[rejected] - 1)
            more = ((found.take(lanes) == upper) & (upper < top.take(lanes))).nonzero()[0]
            lanes, below = lanes.take(more), upper.take(more)
            upper = found[lanes] = np.minimum(below + _MORE, top.take(lanes))
        warm_pool.held = found

    def _not_held(self, warm_pool: WarmPool, tick: int, kinds: SmallInt, rung: Int, lane: Int) -> Int:
        """Return which of these rungs above the level, int64 (m,), in these columns, int64 (m,), are not worth holding."""
        columns, law = len(warm_pool.level), warm_pool.law
        place = rung * columns
        place += lane
        since = warm_pool.since.reshape(-1).take(place)
        waited = tick - since
        gain, doubtful = self._gain_within_hour(
            law, self._cells(law, kinds[:1], place, rung, lane, waited)[0], lane
        )
        rejected = gain < 0.0
        if self._provisioning_costs:
            doubtful |= rung > warm_pool.held.take(lane)
        open_at = doubtful.nonzero()[0]
        if len(open_at):
            worth = self._worth_of(lane.take(open_at))
            cells = self._cells(law, kinds, *(each.take(open_at) for each in (place, rung, lane, waited)))
            having, none = worth_having(law.odds, law.lasts, cells, *worth)
            holds = rung.take(open_at) <= warm_pool.held.take(lane.take(open_at))
            rejected[open_at] = ~(having - none >= np.where(holds, 0.0, worth[-1]))
        rejected |= since < 0
        return rejected.nonzero()[0]

    def _gain_within_hour(self, law: Law, cell: Int, lane: Int) -> tuple[Float, Bool]:
        """Return what a waiting VM gains in the next hour, net of its cost, and where that does not settle whether to hold it.

        After the hour, every choice that exists without a VM also exists with one. So if the hour is expected to gain at
        least what it costs, holding is worth it; rounding cannot change that, because it keeps order. If VMs are never made,
        or are made at no cost, the later hours are worth the same with and without a VM; the hour then settles everything
        but near ties, which rounding might decide.

        Args:
            law: The law of this hour, with all these cells known.
            cell: int64 (m,), the cell of this hour in the law, flat.
            lane: int64 (m,), the columns.

        Returns:
            float64 (m,), the gain, with the right sign; and bool (m,), where it does not settle the question.
        """
        gain = law.odds.take(cell).astype(np.float64)
        gain *= self._saving.take(lane)
        gain -= law.lasts.take(cell) * self._stopped_cost_per_h.take(lane)
        doubtful: Bool = gain < 0.0
        if not self._provisioning_costs and np.count_nonzero(doubtful):
            doubtful &= gain >= -self._rounding_margin.take(lane)
        return gain, doubtful

    def _evaluate_recent(self, warm_pool: WarmPool, tick: int, hour: int) -> None:
        """Determine which of the held rungs that have waited for less than an hour stay held."""
        level, held, columns = warm_pool.level, warm_pool.held, len(warm_pool.level)
        low, high = int(np.minimum.reduce(level)) + 1, int(np.maximum.reduce(held)) + 1
        if high <= low:
            return
        waits = ROWS[low:high] > level.astype(np.int8)
        waits &= ROWS[low:high] <= held.astype(np.int8)
        # Rungs with a cell had already waited for an hour when this hour began.
        waits &= warm_pool.cell[low:high] < 0
        place = waits.reshape(-1).nonzero()[0]
        place += low * columns
        waited = tick - warm_pool.since.reshape(-1).take(place)
        due = self._due_by_wait.take(waited, mode="clip").nonzero()[0]
        if not len(due):
            return
        place, waited = place.take(due), waited.take(due)
        kinds = self._kinds_now(warm_pool, hour, high)
        rung = place // columns
        lane = place - rung * columns
        law = warm_pool.law
        cell = self._wait_of.take(waited) * np.int64(HITS)
        cell += kinds[0].reshape(-1).take(place)
        _locate_cells(law, cell, rung, lane, columns)
        gain, doubtful = self._gain_within_hour(law, cell, lane)
        open_at = doubtful.nonzero()[0]
        if len(open_at):
            open_lanes, open_cells = lane.take(open_at), cell.take(open_at)
            after = self._later_hours(law, kinds, place.take(open_at))
            having, none = worth_having(
                law.odds, law.lasts, open_cells[np.newaxis], *self._worth_of(open_lanes), after
            )
            gain[open_at] = having - none
        rejected = (gain < 0.0).nonzero()[0]
        if len(rejected):
            warm_pool.held = held.copy()
            np.minimum.at(warm_pool.held, lane[rejected], rung[rejected] - 1)

    def _kinds_now(self, warm_pool: WarmPool, hour: int, rows: int) -> SmallInt:
        """The kinds of time of the coming hours: int8 (AHEAD_H, r, k), for at least `rows` rungs."""
        kinds, passed = self._kinds, hour - self._kinds_from
        if kinds is None or kinds.shape[1] < rows or passed > 1:
            kinds = kinds_of(warm_pool.hours, hour, AHEAD_H, min(rows + _MORE, RUNGS))
        elif passed:
            # The kind of a coming hour depends only on earlier days, so it stays valid.
            last = kinds_of(warm_pool.hours, hour + AHEAD_H - 1, 1, kinds.shape[1])
            kinds = np.concatenate((kinds[1:], last))
        self._kinds, self._kinds_from = kinds, hour
        return kinds

    def _later_hours(self, law: Law, kinds: SmallInt, place: Int) -> tuple[Float, Float]:
        """Return what it is worth, from the next hour on, to have a VM that has waited for less than an hour, and to have none.

        Args:
            law: The law of this hour.
            kinds: int8 (AHEAD_H, r, k), the kinds of time of the coming hours.
            place: int64 (m,), cells of rungs and columns, flat.

        Returns:
            float64 (m,) each.
        """
        new = (~self._later_known.take(place)).nonzero()[0]
        if len(new):
            _, rows, columns = kinds.shape
            some = np.arange(rows * columns) if columns < FEW else place[new]
            rung = some // columns
            lane = some - rung * columns
            cells = kinds.reshape(AHEAD_H, -1)[1:].take(some, axis=1) + LATER * HITS
            _locate_cells(law, cells, rung, lane, columns)
            self._later[:, some] = worth_having(law.odds, law.lasts, cells, *self._worth_of(lane))
            self._later_known[some] = True
        having, none = self._later
        return having.take(place), none.take(place)

    def _worth_of(self, lane: Int) -> tuple[Float, Float, Float]:
        """What a VM saves, costs per hour, and costs to make, in some columns: float64 (m,) each."""
        return self._saving.take(lane), self._stopped_cost_per_h.take(lane), self._provision_cost.take(lane)

    def _cells(self, law: Law, kinds: SmallInt, place: Int, rung: Int, lane: Int, waited: Int) -> Int:
        """The cells of these waits in the law, for as many coming hours as `kinds` has: int64 (H, m)."""
        hours, _, columns = kinds.shape
        cells = self._wait_of.take(waited + self._ahead_ticks[:hours], mode="clip").astype(np.int64)
        cells *= HITS
        cells += kinds.reshape(hours, -1).take(place, axis=1)
        _locate_cells(law, cells, rung, lane, columns)
        return cells

    def _set_wanted(self, warm_pool: WarmPool, *, whole: bool) -> None:
        """Derive from the held rungs how many VMs should exist."""
        now, highest = self._wanted_now, warm_pool.highest
        vms: Int | Float = np.minimum(LAST_VM.take(warm_pool.held), highest)
        surprise = self._saving / warm_pool.ticks > self._stopped_cost
        if np.count_nonzero(surprise):
            unseen = np.minimum(np.ceil(UNSEEN * highest), self._maximum)
            vms = np.maximum(vms, np.where(surprise, unseen, now))
        wanted = self._vms_for(np.maximum(vms, now))
        if not whole and np.minimum.reduce(warm_pool.wanted, initial=0) < 0:
            wanted = np.where(warm_pool.wanted >= 0, wanted, -1)
        # An unchanged result stays the same array object, so nothing that depends on it is recomputed.
        if np.count_nonzero(wanted != warm_pool.wanted):
            warm_pool.wanted = wanted

    def _raise_wanted(self, warm_pool: WarmPool) -> None:
        """Raise the number of VMs that should exist to what is wanted now."""
        needed, wanted = self._vms_for(self._wanted_now), warm_pool.wanted
        if np.count_nonzero(needed > wanted):
            warm_pool.wanted = np.maximum(wanted, np.where(wanted >= 0, needed, -1))

    def _vms_for(self, vms: Int | Float) -> Int:
        """How many VMs must exist for this many starts to succeed: int64 (k,)."""
        if not self._succeeds:
            vms = np.ceil(vms / self._start_success - 1e-9)
        found: Int = np.minimum(vms, MOST_VMS).astype(np.int64, copy=False)
        return found


def _locate_cells(law: Law, cells: Int, rung: Int, lane: Int, columns: int) -> None:
    """Make the law of some waits known, and turn their bins in (WAITS, HITS) into flat cells of the law, in place.

    Args:
        law: The law of this hour.
        cells: int64 (..., m), the bins; updated.
        rung: int64 (m,), the rung of each wait.
        lane: int64 (m,), the column of each wait.
        columns: Number of columns.
    """
    cells += START.take(rung)
    law.ensure_known(cells)
    cells *= columns
    cells += lane
