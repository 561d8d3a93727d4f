"""The columns in which models compete (`competition_state`): one for all lanes with the same past, advanced tick by tick.

If a replay knows demand in advance (`law_grid.LawPage`), what models want is computed for a page of ticks at once (`ahead`), by the same
rules, and each tick only advances its shadows.

Rules of this file: it collects what models want and passes it to the contest (`competition`). No reduction over lanes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import ColumnGroups, Number
from autoscaler.core.demand_falls import doubted
from autoscaler.core.law_grid import LawPage, PagedLaws
from autoscaler.core.objective.ahead import AHEAD, Ahead
from autoscaler.core.objective.charging import CHARGES
from autoscaler.core.objective.competition import ModelCompetition
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.daily_highs import EarlierDays
from autoscaler.core.objective.demand_buffer import BUFFERED_DEMAND, DemandBuffer
from autoscaler.core.objective.earlier_days import Before, EarlierDay
from autoscaler.core.objective.habits import (
    DAY_S,
    HOUR_S,
    WEEK_S,
    last_week,
    revise,
    slot_s,
    week_slot_s,
    yesterday,
)
from autoscaler.core.objective.models import AHEAD as WINDOWS
from autoscaler.core.objective.models import CAREFUL, MODELS, PRICE_FACTORS, Kind, Model, Window, rows_of
from autoscaler.core.objective.plain_models import PLAIN, USUAL, not_below
from autoscaler.core.objective.worth import Worth
from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Horizon, Int, Laws, SmallInt, Snapshot

_FACTORS = len(PRICE_FACTORS)
_WORTH, _BOTH = rows_of(Kind.WORTH), rows_of(Kind.BOTH)
_YESTERDAY = slice(rows_of(Kind.YESTERDAY).start, rows_of(Kind.YESTERDAY).start + 3)
_NOW, _LONG = (MODELS.index(Model(Kind.WORTH, 0, window)) for window in (Window.NOW, Window.LONG))
_FORECASTS = slice(_NOW, _LONG + 1, _LONG - _NOW)
"""The forecast models that BOTH combines with YESTERDAY. A slice, because indexing by a list takes numpy far longer."""
_LAWS_AT_ONCE = 48
"""Most laws of each horizon that are evaluated at once. After a price has changed it is an eighth of them, and while the
price stays the same the number doubles each time."""
_MOST_AHEAD, _FEWEST_AHEAD = 680_000, 4
"""At most `_MOST_AHEAD` numbers are computed ahead. If they cover fewer than `_FEWEST_AHEAD` ticks, going tick by tick is as
fast."""


def _unchanged(value: Int) -> Int:
    """Return the value itself."""
    return value


def _fill_both(want: SmallInt) -> None:
    """Fill in what BOTH models want from what YESTERDAY and WORTH models want, in the rows of (..., M, n)."""
    _fill_larger(want[..., _YESTERDAY, :], want[..., _FORECASTS, :], want[..., _BOTH, :])


def _fill_larger(days: SmallInt, forecasts: SmallInt, both: SmallInt) -> None:
    """Fill `both`, (..., d * f, n), with the larger of each of `days`, (..., d, n), and each of `forecasts`, (..., f, n)."""
    days, forecasts = days[..., np.newaxis, :], forecasts[..., np.newaxis, :, :]
    shape = *both.shape[:-2], days.shape[-3], forecasts.shape[-2], both.shape[-1]
    np.maximum(days, forecasts, out=both.reshape(shape))


class Wishes(NamedTuple):
    """What the driving models want in n columns.

    Attributes:
        low, high: int64 (n,), order up to `low` VMs, go down to `high`.
    """

    low: Int
    high: Int

    def within(self, least: Int, most: Int) -> Wishes:
        """Return the wishes clipped to the policies' minima and maxima of VMs, int64 (n,) each."""
        low, high = (np.minimum(np.maximum(of, least), most) for of in (self.low, self.high))
        return Wishes(low, high)


class _Paged(NamedTuple):
    """What the economic models want at the ticks of one part of a page.

    Attributes:
        page: The page.
        first: The page's row of the part's first tick.
        length: Ticks per part; the last part of a page may be shorter.
        price: float64 (n,), price of shortage.
        want: int (T, 2, m, n), the economic models' rows of `ModelCompetition.want`.
    """

    page: LawPage
    first: int
    length: int
    price: Float
    want: SmallInt


class Columns:
    """Computes what the models of each column of the state want, and advances their contest.

    Lanes with the same past share a column. Arrays of n are by column, arrays of k by lane.

    Args:
        params: The policies, L lanes.
        lanes: int64 (k,), the lanes with an objective.
        column: int64 (k,), the column of each lane, as in `Trial`.
        noted: The last tick whose demand was recorded.
    """

    def __init__(self, params: LaneParams, lanes: Int, column: Int, recorded_tick: int = -1) -> None:
        self.column, self.alike, self.recorded_tick = column, ColumnGroups(column), recorded_tick
        self.shared = len(self.alike.first) < len(lanes)
        self._all_series = params.series[lanes]
        lanes = lanes[self.alike.first]
        self._indices = np.arange(len(lanes))
        self._minimum, self._maximum = params.minimum[lanes], params.maximum[lanes]
        self.contest = ModelCompetition(params, lanes)
        self._series = params.series[lanes]
        self._at_lead = self._series * len(Horizon) + int(Horizon.LEAD)
        capacity = self._capacity = params.vm_capacity[lanes]
        self._tick_s = params.tick_s
        self._lead_ticks = params.lead_ticks[lanes].astype(np.float64)
        self._demand_buffer = DemandBuffer(len(lanes), params.tick_s)
        self._usual_shares = np.ones(len(lanes)) / np.array(PRICE_FACTORS)[:, np.newaxis]
        self._lead_s = params.tick_s * params.lead_ticks[lanes].astype(np.float64)
        self._distinct_leads_s, self._hours = np.unique(self._lead_s).tolist(), [-1.0]
        windows_s = [
            (
                (lead_s + params.tick_s, lead_s + params.tick_s + max(300.0, params.tick_s)),
                self._lead_s == lead_s,
            )
            for lead_s in self._distinct_leads_s
        ]
        tick_s = params.tick_s
        self._days = (
            EarlierDay(yesterday, DAY_S, slot_s(tick_s), windows_s, tick_s),
            EarlierDay(last_week, WEEK_S, week_slot_s(tick_s), windows_s, tick_s),
        )
        leads_s = [(pair_s[0], mine) for pair_s, mine in windows_s]
        self._all_days = EarlierDays(leads_s, tick_s)
        asked = tuple(of for of in (Horizon.LEAD, Horizon.KEEP, Horizon.HOLD) for _ in PRICE_FACTORS)
        # The share of its work that a VM must serve at a price of shortage of 1: its cost per tick, with a share of its
        # start.
        cost = np.ones((len(asked), len(lanes)))
        cost[:_FACTORS] += params.start_cost[lanes] / params.hold_ticks[lanes]
        cost /= np.tile(PRICE_FACTORS, 3)[:, np.newaxis]
        self._cost: Float = cost
        # Prices that are found differ as soon as fleets miss different work, so such columns are never grouped.
        found_price = np.where(params.unserved_target[lanes] > 0.0, 1 + self._indices, 0)
        self._price_groups = ColumnGroups(
            self._series, capacity, cost[0], params.shortage_price[lanes], found_price
        )
        first = self._price_groups.first
        self._group_cost, self._group_worth = (
            cost[:, first],
            Worth(self._series[first], capacity[first], asked),
        )
        self._worth = Worth(self._series, capacity, asked)
        self._paged: _Paged | None = None
        self._ahead: Ahead | None = None
        self._abandoned_page: LawPage | None = None
        self._cached_wishes: tuple[int, Int] = (0, self._indices)
        self._price, self._lane_price = self._lead_s, np.zeros(0)

    def first(self, value: Number) -> Number:
        """Return the values of the columns, (..., n), from those of the lanes, (..., k)."""
        return self.alike.of_first(value) if self.shared else value

    def spread(self, value: Number) -> Number:
        """Return the values of the lanes, (..., k), from those of the columns, (..., n)."""
        return self.alike.spread(value) if self.shared else value

    def step(
        self, trial: Trial, view: Snapshot, laws: Laws, demand: Float, known: Bool, fresh: Bool, price: Float
    ) -> Wishes:
        """Advance the models by a tick, and return what the driving ones want.

        Args:
            trial: Updated in place.
            view: The snapshot, for its time.
            laws: The laws of all series.
            demand: float64 (n,), NaN where it is not fresh.
            known: bool (n,), whether demand is fresh and not censored.
            fresh: bool (n,), whether demand is fresh.
            price: float64 (n,), price of shortage.
        """
        contest = self.contest
        # Columns of policies as they were compiled before may have put it off.
        if self._ahead is not None or AHEAD in trial.owed:
            trial.settle(AHEAD)
            self._ahead = None
            # This page was wrong once, so it is not computed ahead again.
            self._abandoned_page = laws.page if isinstance(laws, PagedLaws) else None
        contest.fit(trial)
        want = contest.want
        self._fill_worth(laws, price, want)
        self._record_demand(trial, view, demand / self._capacity, known)
        self._fill_usual(trial, view.now_s, price, want)
        contest.plain(trial, view.tick, demand, self._earlier_demand(trial, view.now_s))
        _fill_both(want)
        if np.count_nonzero(fresh) < len(fresh):
            blind = np.flatnonzero(~fresh)
            want[0][:, blind], want[1][:, blind] = 0, contest.most
        contest.step(trial, view.tick, demand, known, want, price)
        unknown = np.isnan(laws.level.reshape(-1).take(self._at_lead))
        low, high = contest.bands.wishes(trial, want)
        if np.count_nonzero(unknown):
            low, high = np.where(unknown, want[:, CAREFUL], (low, high))
        return Wishes(low, high)

    def doubted(self, trial: Trial, tick: int, demand: Float, known: Bool, price: Float) -> Int | None:
        """Return the VMs that stay although demand has fallen (`demand_falls`): int64 (k,); None if there are none.

        Args:
            trial: Updated in place.
            tick: The current tick.
            demand: float64 (k,), of all lanes.
            known: bool (k,), whether it is fresh and not censored.
            price: float64 (k,), price of shortage.
        """
        work = self.first(demand) / self._capacity
        if np.count_nonzero(known) < len(known):
            work = np.where(self.first(known), work, np.nan)
        held = doubted(trial.falls, tick, self._tick_s, work, self._lead_ticks, self.first(price))
        return None if held is None else self.spread(held)

    def doubted_ahead(self, trial: Trial) -> Int | None:
        """Return the result of `doubted` for the tick that `step_ahead` has just used."""
        assert self._ahead is not None
        held = self._ahead.doubted(trial.falls, self._tick_s, self._lead_ticks, self._price)
        return None if held is None else self.spread(held)

    def _record_demand(self, trial: Trial, view: Snapshot, need: Float, known: Bool) -> None:
        """Record a tick of demand, float64 (n,) in VMs, where it is known."""
        if view.tick > self.recorded_tick:
            self._demand_buffer.keep(trial, view.now_s - self._tick_s, need, known)
            self.recorded_tick = view.tick

    def _fill_usual(self, trial: Trial, now_s: float, price: Float, want: SmallInt) -> None:
        """Fill in what is usually needed, in the rows of (..., M, n); computed once an hour."""
        hours = self._hours_of(now_s)
        if hours != self._hours:
            trial.settle(BUFFERED_DEMAND)
            revise(trial.habits, now_s, self._lead_s, self._usual_shares / price)
            self._hours = hours
        usual = np.minimum(trial.habits.wanted, self.contest.most)
        rows = want[..., USUAL, :]
        rows[...] = usual.reshape(rows.shape[-2:])

    def _hours_of(self, now_s: float) -> list[float]:
        """Return the hours since the epoch in which a start ordered now serves, one for each lead time."""
        return [(now_s + lead_s) // HOUR_S for lead_s in self._distinct_leads_s]

    def _earlier_demand(self, trial: Trial, now_s: float) -> Before:
        """Return the demand around this time on earlier days."""
        (day, week), days, habits = self._days, self._all_days, trial.habits
        if not (
            day.is_complete(habits.day, habits.slot, now_s)
            and week.is_complete(habits.week, habits.week_slot, now_s)
            and days.is_complete(habits, now_s)
        ):
            trial.settle(BUFFERED_DEMAND)
        return Before(
            day.at(habits, habits.day, habits.slot, now_s),
            week.at(habits, habits.week, habits.week_slot, now_s),
            days.at(habits, now_s),
        )

    def _fill_worth(self, laws: Laws, price: Float, want: SmallInt) -> None:
        """Fill in what the economic models want, in their rows of (2, M, n)."""
        mine = want[:, _WORTH]
        if isinstance(laws, PagedLaws):
            first, vms = self._page_part(laws.page, laws.row, price)
            mine[...] = vms[laws.row - first]
        else:
            self._evaluate_laws(laws, price, mine[np.newaxis])

    def _page_part(self, page: LawPage, row: int, price: Float) -> tuple[int, SmallInt]:
        """Return the economic models' wishes in the part of a page that contains a row: its first row, and int (T, 2, m, n)."""
        paged, kind = self._paged, self.contest.want.dtype
        same = paged is not None and paged.want.dtype == kind and np.array_equal(paged.price, price)
        if (
            paged is None
            or not same
            or paged.page is not page
            or not 0 <= row - paged.first < len(paged.want)
        ):
            most = max(1, _LAWS_AT_ONCE * page.ticks // len(page.laws.scale))
            length = min(2 * paged.length, most) if same and paged is not None else max(1, most // 8)
            first = row - row % length
            want = np.empty(
                (min(length, page.ticks - first), 2, _WORTH.stop - _WORTH.start, len(price)), kind
            )
            paged = self._paged = _Paged(page, first, length, price.copy(), want)
            self._evaluate_laws(page, price, want, first)
        return paged.first, paged.want

    def foreseen(self, laws: Laws, tick: int, demand: Float) -> PagedLaws | None:
        """Return the laws if their page foresaw the demand of all lanes, float64 (k,), at this tick; else None."""
        if not isinstance(laws, PagedLaws):
            return None
        page = laws.page
        if page.demand is None or page.first_tick + laws.row != tick:
            return None
        expected = page.demand[laws.row]
        if len(expected) > 1:
            expected = expected.take(self._all_series)
        return laws if np.count_nonzero(demand == expected) == len(demand) else None

    def step_ahead(
        self, trial: Trial, view: Snapshot, laws: PagedLaws, demand: Float, price: Float
    ) -> Wishes | None:
        """Advance the models by a tick that was computed in advance, or compute the next ticks of the page first.

        Args:
            trial: Updated in place.
            view: The snapshot, for its time.
            laws: Laws of a page that foresaw the demand.
            demand: float64 (k,), of all lanes, all known.
            price: float64 (k,), price of shortage.

        Returns:
            The wishes of all lanes, within the policies' bounds; None if the tick cannot be computed in advance.
        """
        if price is not self._lane_price:
            self._lane_price, self._price = price, self.first(price)
        price, tick, page = self._price, view.tick, laws.page
        ahead = self._ahead
        if ahead is None or not (
            ahead.goes_on(page, laws.row, view.now_s, price)
            and (ahead.shadows is None or trial.owed.get(CHARGES) is ahead.shadows)
        ):
            if page is self._abandoned_page or trial.last_tick != tick - 1 or tick <= self.recorded_tick:
                return None
            self._demand_buffer.keep(
                trial, view.now_s - self._tick_s, self.first(demand) / self._capacity, None
            )
            self.recorded_tick = tick
            ahead = self._ahead = self._compute_ahead(trial, view, laws, price)
            if ahead is None:
                self._abandoned_page = page
                return None
        else:
            self._demand_buffer.keep_next(trial)
            self.recorded_tick = tick
        at = ahead.next()
        if ahead.shadows is None:
            self.contest.move(trial, tick, ahead.work[at], None, ahead.want[at], price)
        else:
            self.contest.move_through(trial, tick, ahead.shadows, price)
        first, wished = self._cached_wishes
        if not first <= at < first + len(wished):
            first, wished = self._cached_wishes = at, self._wishes_from(trial, ahead, at, tick)
        low, high = wished[at - first]
        return Wishes(low, high)

    def _wishes_from(self, trial: Trial, ahead: Ahead, at: int, tick: int) -> Int:
        """Return lower and upper numbers of VMs of all lanes from a tick on until drivers may change: int64 (T, 2, k)."""
        end = at + 1
        while end < len(ahead.want) and not self.contest.chooses(tick, tick + end - at):
            end += 1
        cell = None if ahead.shadows is None else ahead.shadows.cells.cell
        wished = self.contest.bands.wishes(trial, ahead.want[at:end], cell)
        np.maximum(wished, self._minimum, out=wished)
        np.minimum(wished, self._maximum, out=wished)
        return self.spread(wished)

    def _compute_ahead(self, trial: Trial, view: Snapshot, laws: PagedLaws, price: Float) -> Ahead | None:
        """Compute what all models want until the page or the hour ends; None if something it depends on is not known yet."""
        page, row, contest = laws.page, laws.row, self.contest
        trial.settle(AHEAD)
        most = _MOST_AHEAD // contest.want.size
        level = page.laws.level.reshape(page.ticks, -1)[row : row + most].take(self._at_lead, axis=1)
        if page.demand is None or most < _FEWEST_AHEAD or np.count_nonzero(np.isnan(level)):
            return None
        contest.fit(trial)
        hours, now_s = self._hours_of(view.now_s), [view.now_s]
        for ahead in range(1, min(page.ticks - row, most)):
            later_s = view.now_s + ahead * self._tick_s
            if self._hours_of(later_s) != hours:
                break
            now_s.append(later_s)
        ticks = len(now_s)
        demand = page.demand[row : row + ticks].take(self._series, axis=1)
        before = self._earlier_demand_of_page(trial, now_s)
        if before is None or np.count_nonzero(np.isnan(demand)):
            return None
        shadows = contest.shadows(trial, before)
        if shadows is None:
            want = np.empty((ticks, *contest.want.shape), contest.want.dtype)
            self._fill_worth_page(page, row, price, want)
            self._fill_usual(trial, view.now_s, price, want)
            passed = contest.plain_page(trial, view.tick, demand, before, want)
            lasted = passed.lasted if passed.of is None else passed.lasted.take(passed.of, axis=-1)
            not_below(want, lasted[:, np.newaxis, np.newaxis])
            _fill_both(want)
            contest.bound(want)
        else:
            want = np.empty((ticks, 2, len(shadows.cells.first)), contest.want.dtype)
            odds, plain, both = shadows.cells.parts(want)
            self._fill_worth_page(page, row, price, odds)
            self._fill_usual(trial, view.now_s, price, odds)
            groups = shadows.cells.alike
            rows = np.empty((ticks, 2, PLAIN.stop, len(groups.first)), want.dtype)
            passed = contest.plain_page(trial, view.tick, demand, before, rows)
            plain[...] = rows[:, :, PLAIN]
            not_below(odds, passed.lasted[:, np.newaxis, np.newaxis])
            _fill_larger(groups.spread(rows[:, :, _YESTERDAY]), odds[:, :, _FORECASTS], both)
            shadows.cells.bound(want)
        self._cached_wishes = 0, self._indices[:0]
        work = demand / self._capacity
        if shadows is not None:
            shadows.go_through(trial, want, work, price)
        self._demand_buffer.foresee(trial, [later_s - self._tick_s for later_s in now_s[1:]], work[1:])
        found = trial.owed[AHEAD] = Ahead(page, row, now_s, price, want, work, passed, shadows)
        return found

    def _fill_worth_page(self, page: LawPage, row: int, price: Float, want: SmallInt) -> None:
        """Fill in what the economic models want on consecutive ticks of a page, in their rows of (T, 2, ..., n)."""
        at = 0
        while at < len(want):
            first, vms = self._page_part(page, row + at, price)
            some = vms[row + at - first :][: len(want) - at]
            want[at : at + len(some), :, _WORTH] = some
            at += len(some)

    def _earlier_demand_of_page(self, trial: Trial, now_s: list[float]) -> Before | None:
        """Return the demand on earlier days for several ticks, (T, 2, n) each, or (T, 2, G) for groups of equal columns.

        None if it depends on ticks that are not over yet.
        """
        (day, week), habits, alike = self._days, trial.habits, self.contest.alike
        for _ in range(2):
            yesterday = day.page(habits.day, habits.slot, now_s, alike)
            last_week = week.page(habits.week, habits.week_slot, now_s, alike)
            days = self._all_days.page(habits, now_s, alike)
            if yesterday is not None and last_week is not None and days is not None:
                return Before(yesterday, last_week, days)
            trial.settle(BUFFERED_DEMAND)
        return None

    def _evaluate_laws(self, laws: Laws | LawPage, price: Float, want: SmallInt, first: int = 0) -> None:
        """Fill in what the economic models want at one tick, or at consecutive ticks of a page from `first` on: (T, 2, m, n)."""
        grouped = self._price_groups.hold(price)
        worth, cost, at = (
            (self._group_worth, self._group_cost, self._price_groups.of_first(price))
            if grouped
            else (self._worth, self._cost, price)
        )
        share, ticks = cost / at, len(want)
        if isinstance(laws, LawPage):
            vms = worth.vms_of_page(laws, share, first, ticks)
        else:
            vms = worth.vms(laws, share)
        np.minimum(vms, self.contest.most, out=vms)
        low, keep, hold = vms.reshape(ticks, 3, _FACTORS, -1).swapaxes(0, 1)
        np.maximum(keep, low, out=keep)
        np.maximum(hold, low, out=hold)
        by_window = want.reshape(ticks, 2, _FACTORS, len(WINDOWS), -1)
        spread = self._price_groups.spread if grouped else _unchanged
        by_window[:, 0] = spread(low)[:, :, np.newaxis]
        for window, of in enumerate((low, keep, hold)):
            by_window[:, 1, :, window] = spread(of)
