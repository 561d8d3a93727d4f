"""The economic stage: so many VMs as earn more than they cost, by the forecast and the prices.

Order up to `low` VMs, those worth starting by demand at the lead time, a start's price spread over the time it will be
of use; go down to `high`, those worth keeping by the highest demand until a stopped VM could be had back; in between
stay. This takes the place of target utilisation, cooldowns and stabilisation windows. Which forecast window keeps a VM,
and whether a plain rule would do better, is not known beforehand: models compete (`experts`).

Rules of this file: a stage as `rules` describes them. A lane without fresh data proposes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from autoscaler.core.alike import Alike, Number
from autoscaler.core.earlier import EarlierDay
from autoscaler.core.economics import Economics
from autoscaler.core.experts import Contest
from autoscaler.core.habits import (
    DAY_S,
    HOUR_S,
    WEEK_S,
    Habits,
    last_week,
    note,
    revise,
    slot_s,
    week_slot_s,
    yesterday,
)
from autoscaler.core.laws import Page, PagedLaws
from autoscaler.core.models import (
    AHEAD,
    CAREFUL,
    MODELS,
    PRICE_FACTORS,
    Kind,
    Model,
    Window,
    rows_of,
)
from autoscaler.core.objective import Dearness
from autoscaler.core.params import LaneParams
from autoscaler.core.rules import Rule, Seen, Why
from autoscaler.core.trial import Trial
from autoscaler.core.types import (
    Bool,
    CountType,
    Float,
    Horizon,
    Int,
    Laws,
    Reason,
    SmallInt,
    Snapshot,
)
from autoscaler.core.worth import Worth

_FACTORS = len(PRICE_FACTORS)
_REASON_OF = {
    Kind.WORTH: Reason.WORTH_START,
    Kind.DEMAND: Reason.MODEL_DEMAND,
    Kind.AMPLE: Reason.MODEL_DEMAND,
    Kind.FALLING: Reason.MODEL_DEMAND,
    Kind.USUAL: Reason.MODEL_USUAL,
    Kind.HOUR: Reason.MODEL_USUAL,
    Kind.EVER: Reason.MODEL_USUAL,
    Kind.YESTERDAY: Reason.MODEL_YESTERDAY,
    Kind.EITHER: Reason.MODEL_YESTERDAY,
    Kind.BOTH: Reason.MODEL_YESTERDAY,
}
_KEEPING = np.arange(len(Reason))
_KEEPING[[Reason.WORTH_START, Reason.MODEL_DEMAND]] = [Reason.WORTH_KEEP, Reason.MODEL_PEAK]
"""What a reason is called where VMs are kept, not started."""
_WORTH, _BOTH = rows_of(Kind.WORTH), rows_of(Kind.BOTH)
_USUAL = slice(rows_of(Kind.USUAL).start, rows_of(Kind.EVER).stop)
_YESTERDAY = slice(rows_of(Kind.YESTERDAY).start, rows_of(Kind.YESTERDAY).start + 3)
_NOW, _LONG = (MODELS.index(Model(Kind.WORTH, 0, window)) for window in (Window.NOW, Window.LONG))
_FORECASTS = slice(_NOW, _LONG + 1, _LONG - _NOW)
"""A slice, since numpy looks at a list of places far longer."""
_PARTINGS = 8
"""After so many ticks in which lanes parted none shares with another any more: each time costs a copy."""
_REASONS = np.array([_REASON_OF[model.kind] for model in MODELS], np.int64)


def economic(params: LaneParams, counts: CountType) -> Rule | None:
    """So many VMs as earn more than they cost, with a dead zone; None where no lane has an objective."""
    lanes = np.flatnonzero(params.economic)
    return Economy(params, counts, lanes).rule if len(lanes) else None


class Economy:
    """The stage compiled for the lanes that have an objective.

    Args:
        params: The policies, L lanes.
        counts: The type of the snapshots' counts.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, counts: CountType, lanes: Int) -> None:
        self._params, self._lanes, self._counts = params, lanes, counts
        self._everywhere = len(lanes) == len(params.series)
        # All at once are had far sooner than one by one.
        self._mine = slice(None) if self._everywhere else lanes
        self._dearness = Dearness(params, lanes)
        self._series = params.series[lanes]
        self._at_lead = self._series * len(Horizon) + int(Horizon.LEAD)
        asked = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
        self._shown = Worth(self._series, params.vm_capacity[lanes], asked)
        self._success = params.start_success[lanes]
        self._yes = np.ones(len(lanes), np.bool_)
        self._succeeds = bool((self._success == 1.0).all())
        self._least, self._most = params.minimum[lanes], params.maximum[lanes]
        self._columns: _Columns | None = None
        self._partings = 0

    def rule(self, seen: Seen, wish: Int) -> tuple[Int, Why]:
        """The stage's rule."""
        laws = None if seen.outlook is None else seen.outlook.laws
        if laws is None:
            raise ValueError("A lane has an objective, so `decide` needs an Outlook with whole laws.")
        lanes, mine = self._lanes, self._mine
        fresh: Bool = self._yes if seen.fresh is None else seen.fresh[mine]
        up_to, down_to, told = self._wanted(seen, laws, fresh)
        now = seen.ordered[mine].astype(np.int64)
        if self._succeeds:
            proposal = np.maximum(now, up_to)
            np.minimum(proposal, np.maximum(down_to, up_to), out=proposal)
        else:
            proposal = np.minimum(now, np.maximum(down_to, up_to))
            # Of those on their way some will not come; more are ordered in their place.
            coming = seen.snapshot.starting[mine] * self._success
            lacking = (up_to - seen.snapshot.in_service[mine] - coming) / self._success
            more = np.floor(np.maximum(lacking, 0.0) + 0.5).astype(np.int64)
            proposal = np.where(more > 0, now + more, proposal)
        if seen.fresh is not None:
            proposal *= fresh
        spread = proposal.astype(self._counts, copy=False)
        if not self._everywhere:
            own, spread = spread, np.zeros_like(wish)
            spread[lanes] = own
        value = np.maximum(wish, spread)

        def why() -> Int:
            everyone = np.zeros(len(wish), np.int64)
            reason = told()
            everyone[lanes] = np.where(up_to < now, _KEEPING.take(reason), reason)
            return everyone * (value > wish)

        return value, why

    def _wanted(self, seen: Seen, laws: Laws, fresh: Bool) -> tuple[Int, Int, Callable[[], Int]]:
        """Up to and down to how many VMs, int64 (n,) each, and what gives the reasons. Moves the models on by a tick."""
        view, trial = seen.snapshot, seen.state.trial
        demand = view.demand[self._mine]
        if seen.fresh is not None:
            demand = np.where(fresh, demand, np.nan)
        known = fresh if seen.censored is None else fresh & ~view.censored[self._mine]
        present = demand if seen.fresh is None else np.where(fresh, demand, 0.0)
        columns = self._columns_of(trial, present, known, fresh)
        serving = view.in_service[self._mine].astype(np.float64)
        price = self._dearness.step(
            seen.state.budget,
            view.tick,
            demand,
            known,
            serving,
            lambda share: columns.spread(columns.contest.price_for(trial, columns.first(share))),
        )
        first = columns.first
        own = columns.step(trial, view, laws, first(demand), first(known), first(fresh), first(price))
        model = columns.spread(own.model)
        up_to, down_to = (
            np.minimum(np.maximum(columns.spread(of), self._least), self._most) for of in (own.low, own.high)
        )
        seen.economics = Economics(
            lanes=self._lanes,
            model=model,
            price=price,
            low=up_to,
            high=down_to,
            worth=lambda vms: self._earned(laws, price, up_to, vms),
        )

        def told() -> Int:
            unknown = np.isnan(laws.level.reshape(-1).take(self._at_lead))
            return np.where(unknown, int(Reason.WORTH_UNKNOWN), _REASONS[model])

        return up_to, down_to, told

    def _columns_of(self, trial: Trial, present: Float, known: Bool, fresh: Bool) -> _Columns:
        """The columns of the state, each for lanes that see the same; who sees anything else parts from them first."""
        columns = self._columns
        if columns is None or columns.column is not trial.column:
            columns = self._columns = _Columns(self._params, self._lanes, trial.column)
        if columns.shared:
            apart = columns.alike.part(fresh, known, present)
            if np.count_nonzero(apart):
                self._partings += 1
                trial.part(apart if self._partings < _PARTINGS else np.ones_like(apart))
                columns = self._columns = _Columns(self._params, self._lanes, trial.column, columns.noted)
        return columns

    def _earned(self, laws: Laws, price: Float, up_to: Int, vms: Int) -> Float:
        """What the last of so many VMs and one more earn a tick: float64 (2, n), in VM-ticks.

        By demand at the lead time up to as many as are worth starting, else by the highest of the hold window.
        """
        last, following = np.maximum(vms, 1), np.maximum(vms, 0) + 1
        share = self._shown.share(laws, np.stack([last, following, last, following])) * price
        found: Float = np.where(vms <= up_to, share[:2], share[2:])
        return found


def _as_it_is(value: Int) -> Int:
    return value


class _Wishes(NamedTuple):
    """What the models that drive want, n columns.

    Attributes:
        model: int64 (n,), which.
        low, high: int64 (n,), up to and down to how many VMs.
    """

    model: Int
    low: Int
    high: Int


_FEW_TICKS = 4
"""Of so many ticks of a page it is asked what models want after a price has changed; where it stays, of twice as many each time."""


class _Paged(NamedTuple):
    """What economic models want at some ticks of a page.

    Attributes:
        page: Which.
        price: float64 (n,), of shortage.
        ticks: Which of them.
        want: int (T, 2, m, n), as their rows of `Contest.want`.
    """

    page: Page
    price: Float
    ticks: range
    want: SmallInt


class _Columns:
    """The models of the lanes that share a column of the state.

    Args:
        params: The policies, L lanes.
        lanes: int64 (k,), which have an objective.
        column: int64 (k,), the column of each, as in `Trial`.
        noted: The last tick that was taken in.
    """

    def __init__(self, params: LaneParams, lanes: Int, column: Int, noted: int = -1) -> None:
        self.column, self.alike, self.noted = column, Alike(column), noted
        self.shared = len(self.alike.first) < len(lanes)
        lanes = lanes[self.alike.first]
        self._at = np.arange(len(lanes))
        self.contest = Contest(params, lanes)
        self._series = params.series[lanes]
        self._at_lead = self._series * len(Horizon) + int(Horizon.LEAD)
        capacity = self._capacity = params.vm_capacity[lanes]
        self._tick_s = params.tick_s
        self._usual = np.ones(len(lanes)) / np.array(PRICE_FACTORS)[:, np.newaxis]
        self._ahead_s = params.tick_s * params.lead_ticks[lanes].astype(np.float64)
        self._ahead_of, self._hours = np.unique(self._ahead_s).tolist(), [-1.0]
        windows_s = [
            (
                (ahead_s + params.tick_s, ahead_s + params.tick_s + max(300.0, params.tick_s)),
                self._ahead_s == ahead_s,
            )
            for ahead_s in self._ahead_of
        ]
        tick_s = params.tick_s
        self._days = (
            EarlierDay(yesterday, DAY_S, slot_s(tick_s), windows_s, tick_s),
            EarlierDay(last_week, WEEK_S, week_slot_s(tick_s), windows_s, tick_s),
        )
        asked = tuple(of for of in (Horizon.LEAD, Horizon.KEEP, Horizon.HOLD) for _ in PRICE_FACTORS)
        # The share of its work that a VM must serve, at a price of 1: what it costs in a tick, a start included.
        cost = np.ones((len(asked), len(lanes)))
        cost[:_FACTORS] += params.start_cost[lanes] / params.hold_ticks[lanes]
        cost /= np.tile(PRICE_FACTORS, 3)[:, np.newaxis]
        self._cost: Float = cost
        # Prices that are found come apart with what fleets miss.
        found = np.where(params.unserved_target[lanes] > 0.0, 1 + self._at, 0)
        self._same = Alike(self._series, capacity, cost[0], params.shortage_price[lanes], found)
        some = self._same.first
        self._few_cost, self._few_worth = cost[:, some], Worth(self._series[some], capacity[some], asked)
        self._worth = Worth(self._series, capacity, asked)
        self._paged: _Paged | None = None

    def first(self, value: Number) -> Number:
        """What the columns have of what lanes have, (..., k)."""
        return self.alike.of_first(value) if self.shared else value

    def spread(self, value: Number) -> Number:
        """What lanes have of what the columns have, (..., n)."""
        return self.alike.spread(value) if self.shared else value

    def step(
        self, trial: Trial, view: Snapshot, laws: Laws, demand: Float, known: Bool, fresh: Bool, price: Float
    ) -> _Wishes:
        """Move the models on by a tick.

        Args:
            trial: Updated in place.
            view: The snapshot, for its time.
            laws: Of all series.
            demand: float64 (n,), NaN where it is not fresh.
            known: bool (n,), where it counts.
            fresh: bool (n,).
            price: float64 (n,), of shortage.
        """
        contest = self.contest
        contest.fit(trial)
        want = contest.want
        self._by_worth(laws, price)
        self._by_habit(trial.habits, view, demand, known, price)
        contest.plain(trial, view.tick, demand, self._before(trial.habits, view.now_s))
        days, forecasts = want[:, _YESTERDAY, np.newaxis], want[:, np.newaxis, _FORECASTS]
        both = want[:, _BOTH].reshape(2, days.shape[1], forecasts.shape[2], -1)
        np.maximum(days, forecasts, out=both)
        if np.count_nonzero(fresh) < len(fresh):
            blind = np.flatnonzero(~fresh)
            want[0][:, blind], want[1][:, blind] = 0, contest.most
        contest.step(trial, view.tick, demand, known, want, price)
        unknown = np.isnan(laws.level.reshape(-1).take(self._at_lead))
        model, (low, high) = contest.bands.wishes(trial, want)
        if np.count_nonzero(unknown):
            model = np.where(unknown, CAREFUL, model)
            low, high = np.where(unknown, want[:, CAREFUL], (low, high))
        return _Wishes(model, low, high)

    def _by_habit(self, habits: Habits, view: Snapshot, demand: Float, known: Bool, price: Float) -> None:
        """Fill in what is usually needed. Takes in a tick."""
        if view.tick > self.noted:
            note(habits, view.now_s - self._tick_s, demand / self._capacity, known, self._tick_s)
            self.noted = view.tick
        hours = [(view.now_s + ahead_s) // HOUR_S for ahead_s in self._ahead_of]
        if hours != self._hours:
            revise(habits, view.now_s, self._ahead_s, self._usual / price)
            self._hours = hours
        usual = np.minimum(habits.wanted, self.contest.most)
        self.contest.want[:, _USUAL].reshape(2, *usual.shape)[...] = usual

    def _before(self, habits: Habits, now_s: float) -> tuple[Float, Float]:
        """The highest demand of yesterday and of a week ago until a start would serve, and within the hold window: (2, n) each."""
        day, week = self._days
        return day.at(habits, habits.day, habits.slot, now_s), week.at(
            habits, habits.week, habits.week_slot, now_s
        )

    def _by_worth(self, laws: Laws, price: Float) -> None:
        """Fill in what the economic models want."""
        want, paged = self.contest.want[:, _WORTH], self._paged
        if not isinstance(laws, PagedLaws):
            self._ask(laws, price, want[np.newaxis])
            return
        page, row, many = laws.page, laws.row, _FEW_TICKS
        is_same = paged is not None and np.array_equal(paged.price, price)
        if paged is None or not is_same or paged.page is not page or row not in paged.ticks:
            if paged is not None and is_same:
                many = 2 * len(paged.ticks)
            many = min(many, page.ticks)
            first = row // many * many
            ticks = range(first, min(first + many, page.ticks))
            room = np.empty((len(ticks), *want.shape), want.dtype)
            paged = self._paged = _Paged(page, price.copy(), ticks, room)
            self._ask(page, price, room, first)
        want[...] = paged.want[row - paged.ticks.start]

    def _ask(self, laws: Laws | Page, price: Float, want: SmallInt, first: int = 0) -> None:
        """Fill in what they want at a tick, or at so many of a page from one on: (T, 2, m, n)."""
        same = self._same.hold(price)
        worth, cost, at = (
            (self._few_worth, self._few_cost, self._same.of_first(price))
            if same
            else (self._worth, self._cost, price)
        )
        share, ticks = cost / at, len(want)
        if isinstance(laws, Page):
            vms = worth.vms_of_page(laws, share, first, ticks)
        else:
            vms = worth.vms(laws, share)
        np.minimum(vms, self.contest.most, out=vms)
        low, keep, hold = vms.reshape(ticks, 3, _FACTORS, -1).swapaxes(0, 1)
        np.maximum(keep, low, out=keep)
        np.maximum(hold, low, out=hold)
        by_window = want.reshape(ticks, 2, _FACTORS, len(AHEAD), -1)
        spread = self._same.spread if same else _as_it_is
        by_window[:, 0] = spread(low)[:, :, np.newaxis]
        for window, of in enumerate((low, keep, hold)):
            by_window[:, 1, :, window] = spread(of)
