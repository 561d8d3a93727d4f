"""Models that compete (`models`): the one that would lately have cost least drives.

Demand does not react to how a fleet is sized, so what each would have cost is known exactly: every model runs in shadow
on the live demand, with VMs that take the lead time to come and are billed as real ones are. Autopilot (Rzadca et al.
2020) chooses among its models in this way. What a model would cost in a crowd that nobody has seen yet counts, too: by
the rule of succession one comes once in all the time that was seen, and how much higher it is than the highest ever is
taken to be Pareto's with index 1, up to `CROWD` times. That is a guess, and is held against what came, as forecasts are judged by
what they said before (Dawid 1984): once it is told that so many crowds do not come, or not as high, as many as may yet come are
allowed for and no more. While little was seen, who drives must have proven itself (`proving`).

Rules of this file: shadows never touch a decision but by which model drives. Missing and censored demand costs
nobody anything. No reduction over lanes.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from autoscaler.core.alike import Alike, one_of
from autoscaler.core.objective.bands import Bands
from autoscaler.core.objective.charging import CHARGES, Charging
from autoscaler.core.objective.earlier_days import Before
from autoscaler.core.objective.habits import CROWD, DAY_S, lasting_ticks
from autoscaler.core.objective.models import MODELS
from autoscaler.core.objective.noting import NOTES, Notes
from autoscaler.core.objective.plain import PLAIN, Passed, Plain
from autoscaler.core.objective.proving import KNOWN_DAYS, ODDS, THREE, change_driver, unproven, untold
from autoscaler.core.objective.shadows import Cells, Shadows, crowd_left
from autoscaler.core.objective.trial import ShadowType, Trial
from autoscaler.core.params import LaneParams
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallFloat, SmallInt

Rows: TypeAlias = "slice[int, int, None]"
"""Models that follow each other."""
HALF_LIFE_S = 32 * 86400.0
"""What a model has cost counts half after this time."""
CHOICE_S = 300.0
"""How often the driver may change, where five ticks take that long."""
_CHOICES_S = (150.0, 100.0, 60.0)
"""Where they take less, how often: the longest of these that is no longer, or the last. Until then who drives may let a shortage
last that others would have ended. All go into the first, and so into an hour of `bands`."""
HYSTERESIS, EARLY, MOST_HYSTERESIS = 0.02, 0.06, 0.1
"""A driver stays until another would have saved this share of what it has cost beyond the least that anybody could pay: the first,
and the second over the days that were seen, since early differences are luck; at most the third. Of all that it has cost it would
be more, where demand is smooth, than the best model can save."""
DOUBT_S, MOST_DOUBT = 600.0, 0.01
"""For how long it may have been so unseen; that much of the time that was seen counts, at most this share, and where a
share of work is promised no more than may stay unserved."""
MOST_SEEN_S = 5 * 86400.0
"""No more time than this counts as seen there: demand changes its ways, so doubt does not go away."""
MOST_FEAR = 0.001
"""A crowd that was never seen takes at most this share of the time."""
LOWEST_PRICE, HIGHEST_PRICE = 1.5, 20_000.0
"""Bounds of a price that is found, in VM-ticks per VM-tick of unserved work."""
_HALVINGS = 9
_MEAN_CROWD = math.log(CROWD)
"""By how much demand is above the highest ever in a crowd that was never seen, on the average, over that."""
_HEAVY = 1e9
# As arrays, since numpy takes a while to make one of a plain number, which is much where columns are few.
_ONE, _THREE, _DOUBT_S, _MOST_SEEN_S, _MOST_FEAR = (
    np.array(number) for number in (1.0, THREE, DOUBT_S, MOST_SEEN_S, MOST_FEAR)
)
_BLOCK = 25_000
"""What is worked out of more numbers than these is worked out of some models at a time, so that it stays near."""
TRIAL_VM_TICKS = 20.0
"""And by so many VM-ticks more, so that a few early ticks decide nothing."""


def _count_type(most: int) -> ShadowType:
    """The narrowest type that holds the sum of two such counts."""
    for name in ("i1", "i2"):
        found: ShadowType = np.dtype(name)
        if 2 * most <= np.iinfo(found).max:
            return found
    return np.dtype("i4")


def _alike(ticks: Int, counts: ShadowType) -> list[tuple[int, SmallInt | None]]:
    """Each number of ticks, and 1 for the lanes that have it, 0 for others; None where all have it."""
    found = [(int(each), (ticks == each).astype(counts)) for each in np.unique(ticks)]
    return [(ticks, None) for ticks, _ in found] if len(found) == 1 else list(found)


def _clear(slot: SmallInt, mine: SmallInt | None) -> None:
    """Nothing of these lanes is left in a slot."""
    if mine is None:
        slot.fill(0)
    else:
        slot *= 1 - mine


def choice_s(tick_s: float) -> float:
    """How often the driver may change."""
    return next((each for each in (CHOICE_S, *_CHOICES_S) if each <= 5.0 * tick_s), _CHOICES_S[-1])


class Contest:
    """The models of the lanes that have an objective, compiled; n of the L lanes.

    Passes over (M, n) numbers are what a tick costs, so all are in place or into arrays that are kept. The higher of two
    arrays is found several times as fast as that of an array and one number: hence `max(a, b) - b` for what `a` is above `b`.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.

    Attributes:
        want: int32 (2, M, n), up to and down to how many VMs each model wants to go, in the order of `MODELS`: filled
            anew every tick, by whoever knows. int16 or int8, as all counts of shadows, where no policy
            allows more VMs.
        most: No lane may have more VMs; whoever fills in more fills in this.
        alike: Columns in groups of which plain models want the same, if they have seen the same.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._choice_s = choice_s(params.tick_s)
        self._lead_s = params.lead_ticks[lanes].astype(np.float64) * params.tick_s
        self._capacity = params.vm_capacity[lanes]
        self._lead_ticks = np.maximum(params.lead_ticks[lanes], 1)
        self._lead, self._billed = params.lead_ticks[lanes], params.billed_ticks[lanes]
        self._columns = np.arange(len(lanes))
        promised = params.unserved_target[lanes]
        self._most_doubt = np.where(promised > 0.0, np.minimum(promised, MOST_DOUBT), MOST_DOUBT)
        self._given = promised <= 0.0
        self._all_given = bool(self._given.all())
        self._beyond_of_one = np.minimum(self._lead_ticks, lasting_ticks(params.tick_s)) * _MEAN_CROWD
        least = np.minimum(params.minimum[lanes], MOST_VMS)
        most = np.maximum(np.minimum(params.maximum[lanes], MOST_VMS), least)
        self._bounds = least, most
        self.most = int(most.max())
        self.alike = Alike(params.series[lanes], self._capacity, self._lead)
        self._plain = Plain(self._capacity, self.alike, self.most, params.tick_s)
        shape = len(MODELS), len(lanes)
        start_cost = params.start_cost[lanes].astype(np.float32)
        each = max(1, _BLOCK // max(1, len(lanes)))
        self._blocks = [slice(at, min(at + each, len(MODELS))) for at in range(0, len(MODELS), each)]
        self._cost, self._shown = np.empty(shape), np.empty(shape)
        block = min(each, len(MODELS)), len(lanes)
        self._left, self._one = np.empty(block), np.ones(block, np.float32)
        self._vms, self._short = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.bands = Bands(most, start_cost, promised > 0.0, params.tick_s, len(MODELS))
        growth = 2.0 ** (params.tick_s / HALF_LIFE_S)
        self._charging = Charging(least, start_cost, growth, self.bands, self._vms, self._short)
        self._start_cost = start_cost
        self._shadows: Shadows | None = None
        self._count_in(_count_type(self.most))

    def _count_in(self, counts: ShadowType) -> None:
        """Make room for counts of this type."""
        self._counts = counts
        self._charging.count_in(counts)
        # As many as there are counts, since a row at a time takes longer.
        self._least, self._most = (
            np.broadcast_to(bound.astype(counts), self._cost.shape).copy() for bound in self._bounds
        )
        self._leads, self._bills = _alike(self._lead, counts), _alike(self._billed, counts)
        self._over, self._old = (np.zeros(self._cost.shape, counts) for _ in range(2))
        self.want = np.zeros((2, *self._cost.shape), counts)
        self._plain.count_in(counts)

    def fit(self, state: Trial) -> None:
        """Have the counts of the state and those of this in one type: ask for it before `want` is filled."""
        if state.serving.dtype == self._counts:
            return
        state.settle()
        # A policy may have allowed more until now.
        ordered = int((state.serving + state.coming).max(initial=0))
        if _count_type(ordered).itemsize > self._counts.itemsize:
            self._count_in(_count_type(ordered))
        state.count_in(self._counts)

    def plain(self, state: Trial, tick: int, demand: Float, before: Before) -> SmallInt:
        """What plain models want, by demand and by what was `before`, as in `Plain.fill`: their rows of `want`, int (2, m, n)."""
        self._plain.fill(state, tick, demand, before, self.want)
        return self.want[:, PLAIN]

    def plain_page(self, state: Trial, tick: int, demand: Float, before: Before, want: SmallInt) -> Passed:
        """The same of a page of ticks, as in `Plain.fill_page`."""
        return self._plain.fill_page(state, tick, demand, before, want)

    def shadows(self, state: Trial, before: Before) -> Shadows | None:
        """Shadows of this trial that go through ticks to come at once; None where columns do not see the same.

        Args:
            state: Owes its charges to them from now on.
            before: As in `plain_page`.
        """
        columns = len(self._columns)
        same = len(self.alike.first) == 1 and all((of == of[0]).all() for of in (self._lead, self._billed))
        if not same or self._lead[0] < 1 or not self._all_given:
            return None
        if columns > 1 and not (all(of.shape[-1] == 1 for of in before) and self._plain.same_past(state)):
            return None
        if self._shadows is None:
            least, most = self._bounds
            cells = Cells(least, most, self._start_cost)
            start_cost, promised = self._start_cost.take(cells.column), np.zeros(len(cells.column), np.bool_)
            bands = Bands(most.take(cells.column), start_cost, promised, self._tick_s, 1)
            lead, billed = int(self._lead[0]), int(self._billed[0])
            self._shadows = Shadows(cells, lead, billed, self._start_cost, self._charging, bands)
        return self._shadows if self._shadows.take_up(state) else None

    def step(
        self,
        state: Trial,
        tick: int,
        demand: Float,
        counts: Bool,
        want: SmallInt,
        price: Float,
    ) -> None:
        """Charge every shadow for the tick that is over, and let it order.

        Args:
            state: Updated in place; within a tick only the first call counts.
            tick: Now.
            demand: float64 (n,), of the tick that is over.
            counts: bool (n,), where it may be charged for.
            want: int32 (2, M, n), up to and down to how many VMs the models want to go; brought within the policy's bounds in
                place.
            price: float64 (n,), of a VM-tick of unserved work, in VM-ticks.
        """
        if tick <= state.last_tick:
            return
        everywhere = np.count_nonzero(counts) == len(counts)
        work = (demand if everywhere else np.where(counts, demand, 0.0)) / self._capacity
        self.bound(want)
        self.move(state, tick, work, counts, want, price)
        if self.chooses(tick, tick + 1):
            # The tick in which models are compared takes longest anyway.
            state.settle()

    def bound(self, want: SmallInt) -> None:
        """Bring what models want, int (..., 2, M, n), within the policy's bounds, in place."""
        np.maximum(want, self._least, out=want)
        np.minimum(want, self._most, out=want)
        low, high = want[..., 0, :, :], want[..., 1, :, :]
        np.maximum(high, low, out=high)

    def move(
        self, state: Trial, tick: int, work: Float, counts: Bool | None, want: SmallInt, price: Float
    ) -> None:
        """As `step`, later than the last, with wishes that are within bounds.

        Args:
            state: Updated in place.
            tick: Now.
            work: float64 (n,), VM-ticks of work of the tick that is over; 0 where it may not be charged for.
            counts: bool (n,), where it may; None for everywhere.
            want: int (2, M, n).
            price: float64 (n,).
        """
        if isinstance(state.owed.get(CHARGES), Shadows):
            state.settle(CHARGES)
        passed = tick - state.last_tick
        begins = state.last_tick < 0
        if passed == 1 and not begins:
            self._charging.charge(state, tick, work, counts, price)
        if passed > len(state.ordered):
            state.all_arrived()
        else:
            for each in range(tick - passed + 1, tick + 1):
                self._arrive(state, each)
                for lead, mine in self._leads:
                    _clear(state.ordered[(each + lead) % len(state.ordered)], mine)
        state.last_tick = tick
        low, high = want
        if begins:
            state.serving[:] = low
            return
        self._order(state, tick, low, high)
        if self.chooses(tick - passed, tick):
            self._choose(state, price, bands=self.bands.may_change(tick - passed, tick))

    def move_through(self, state: Trial, tick: int, shadows: Shadows, price: Float) -> None:
        """As `move`, by shadows that went through this tick at once."""
        shadows.move(state, tick)
        if self.chooses(tick - 1, tick):
            self._choose(state, price, bands=self.bands.may_change(tick - 1, tick), shadows=shadows)

    def chooses(self, before: int, tick: int) -> bool:
        """Whether models are compared after a tick and up to another."""
        return int(tick * self._tick_s // self._choice_s) != int(before * self._tick_s // self._choice_s)

    def _order(self, state: Trial, tick: int, low: SmallInt, high: SmallInt) -> None:
        """Let every shadow order and stop."""
        over = np.add(state.serving, state.coming, out=self._over)
        # Where all VMs take equally long, what is ordered goes straight to the tick at which it comes.
        rows, (lead, all_of_them) = len(state.ordered), self._leads[0]
        out = state.ordered[(tick + lead) % rows] if all_of_them is None else np.empty_like(low)
        np.maximum(low, over, out=out)
        out -= over
        np.maximum(over, high, out=over)
        over -= high
        old = np.subtract(state.serving, state.young, out=self._old)
        stop = np.minimum(over, old, out=over)
        state.serving -= stop
        state.coming += out
        for lead, mine in self._leads:
            if mine is not None:
                slot = state.ordered[(tick + lead) % rows]
                slot += np.multiply(out, mine, out=self._old)
        self._charging.charge_starts(state, tick, out)

    def _weigh(self, state: Trial, rows: Rows, weight: Float) -> None:
        """Weigh what the last minutes have cost some models, as their last tick."""
        sums = state.paid, state.unserved, state.nearly
        for of, lately in zip(sums, state.lately, strict=True):
            # Copied first, since numpy multiplies numbers of two widths in small pieces.
            weighed = self._left[: rows.stop - rows.start]
            weighed[...] = lately[rows]
            weighed *= weight
            of[rows] += weighed
            lately[rows] = 0.0

    def _arrive(self, state: Trial, tick: int) -> None:
        rows = len(state.ordered)
        came = state.ordered[tick % rows]
        state.serving += came
        state.coming -= came
        if self._billed.any():
            state.young += came
            for billed, mine in self._bills:
                settled = state.ordered[(tick - billed) % rows]
                if mine is not None:
                    settled = np.multiply(settled, mine, out=self._over)
                state.young -= settled

    def price_for(self, state: Trial, unserved: Float) -> Float:
        """The lowest price of shortage at which the cheapest model leaves at most this share of work: float64 (n,).

        Args:
            state: What models have cost.
            unserved: float64 (n,), the share.

        Returns:
            Between `LOWEST_PRICE` and `HIGHEST_PRICE`, to a few percent.
        """
        state.settle(CHARGES)
        # Twice the demand for as long as a start takes: a crowd of ten minutes would be insured at any price for days.
        paid, missed, nearly = (
            of + lately * state.weight
            for of, lately in zip((state.paid, state.unserved, state.nearly), state.lately, strict=True)
        )
        nearly *= np.minimum(self._lead_s / self._known_s(state.ticks / state.weight), self._most_doubt)
        missed += nearly
        allowed = unserved * state.wanted
        low, high = (np.full(len(unserved), np.log(end)) for end in (LOWEST_PRICE, HIGHEST_PRICE))
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            cost = np.multiply(missed, np.exp(middle), out=self._cost)
            cost += paid
            best = cost.argmin(axis=0)
            enough = missed[best, self._columns] <= allowed
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        found: Float = np.exp(high)
        return found

    def _avoidable(self, state: Trial, cost: Float) -> Float:
        """What of a cost exceeds the least that whoever knows what comes would have paid, starts aside: float64 (n,)."""
        found: Float = np.maximum(cost - state.needed, 0.0)
        return found

    def _known_s(self, seen: Float) -> Float:
        """The time of which, so many ticks seen, float64 (n,), a share may yet be otherwise: if it is so once, as long as that lasts."""
        found: Float = np.minimum(np.maximum(seen, _ONE) * self._tick_s, _MOST_SEEN_S)
        return found

    def _fear(self, state: Trial, rows: Rows, highest: SmallFloat, since: Float) -> None:
        """Charge some shadows for a crowd that was never seen, for so many ticks: what it would leave, at the VMs that they have now.

        That is in `_short` until the next tick is charged.
        """
        vms, left = self._vms[rows], self._short[rows]
        vms[...] = state.serving[rows]
        crowd_left(highest, vms, left, self._one[: len(vms)])
        weighed = self._left[: len(left)]
        weighed[...] = left
        weighed *= since
        state.crowd[rows] += weighed

    def _settle(self, state: Trial, shadows: Shadows | None) -> None:
        """Charge for all ticks that are over, and know the highest demand ever."""
        if shadows is None:
            state.settle(CHARGES)
        else:
            shadows.charge(state)
        notes = state.owed.get(NOTES)
        if isinstance(notes, Notes) and not notes.highest_known(state.habits):
            state.settle(NOTES)

    def _compare(
        self,
        state: Trial,
        price: Float,
        doubt: Float,
        fear: Float,
        shown: Float | None,
        shadows: Shadows | None,
    ) -> None:
        """Fill in what models have cost with all that was never seen, in `_cost`, and what they have cost so far, if asked."""
        if shadows is not None:
            shadows.compare(state, price, doubt, fear, self._cost, shown)
            return
        highest = one_of(state.habits.highest.astype(np.float32))
        weight, since, doubt, fear = map(one_of, (state.weight, state.ticks - state.asked, doubt, fear))
        for rows in self._blocks:
            self._weigh(state, rows, weight)
            self._fear(state, rows, highest, since)
            cost, unserved, paid = self._cost[rows], state.unserved[rows], state.paid[rows]
            np.multiply(state.nearly[rows], doubt, out=cost)
            cost += unserved
            cost += np.multiply(state.crowd[rows], fear, out=self._left[: len(cost)])
            cost *= price
            cost += paid
            if shown is not None:
                so_far = np.multiply(unserved, price, out=shown[rows])
                so_far += paid
        state.asked = state.ticks

    def _believed(self, state: Trial, fear: Float) -> Float:
        """Which share of the crowds that were allowed for may have been to come, by what came of them: float64 (n,).

        Three more than came, by the rule of three (`proving`), both counted in crowds as high as one is expected to be. What a
        fleet sees on its first day is new because the day is. All of them where a share is promised: at an unknown price less would
        be held for what was promised all the same.

        Args:
            state: Updated in place by what was allowed for since models were last compared.
            fear: float64 (n,), how much a crowd would count.
        """
        habits, lead = state.habits, self._lead_ticks
        habits.allowed += (state.ticks - state.asked) * fear / (state.weight * lead)
        first = state.ticks * self._tick_s < DAY_S * state.weight
        if np.count_nonzero(first):
            habits.allowed[first] = habits.beyond[first] = 0.0
        # Once it has lasted demand is the highest ever, and not beyond it any more.
        came = habits.beyond / self._beyond_of_one
        share: Float = np.minimum((came + _THREE) / np.maximum(habits.allowed, _THREE), _ONE)
        return share if self._all_given else np.where(self._given, share, 1.0)

    def _choose(self, state: Trial, shortage: Float, *, bands: bool, shadows: Shadows | None = None) -> None:
        """Say who drives."""
        self._settle(state, shadows)
        seen = state.ticks / state.weight
        known_s = self._known_s(seen)
        # The worst has seldom been seen: some minutes may yet be like the rest but higher.
        doubt = np.minimum(_DOUBT_S / known_s, self._most_doubt)
        # A crowd is alone with the VMs that it finds for as long as a start takes.
        fear = np.minimum(self._lead_s / known_s, _MOST_FEAR)
        fear *= self._believed(state, fear)
        days = np.maximum(seen * (self._tick_s / 86400.0), 1e-3)
        young = self._given & (days < KNOWN_DAYS)
        shown = self._shown if np.count_nonzero(young) else None
        cost = self._cost
        self._compare(state, shortage, doubt, fear, shown, shadows)
        now = cost[state.driver, self._columns]
        stays = np.minimum(HYSTERESIS + EARLY / days, MOST_HYSTERESIS) * self._avoidable(state, now)
        if shown is not None:
            # That is five times as fast as `copyto`.
            np.putmask(cost, unproven(state, shown, TRIAL_VM_TICKS, young), np.inf)
            now = cost[state.driver, self._columns]
        # Who drives already, until its price was raised, is compared as it is.
        untold_of = untold(seen, shortage, self._given)
        if untold_of is not None:
            np.putmask(cost[ODDS], untold_of, np.inf)
        least = np.minimum.reduce(cost, axis=0)
        better = np.flatnonzero(least + TRIAL_VM_TICKS * state.weight < now - stays)
        if len(better):
            driver = state.driver.copy()
            driver[better] = cost[:, better].argmin(axis=0)
            now[better] = least[better]
            if shadows is not None:
                shadows.show(state)
            change_driver(state, driver, shortage)
        if bands:
            left = self._short if shadows is None else shadows.show_bands(state)
            self.bands.compare(
                state,
                left,
                state.habits.highest.astype(np.float32),
                shortage=shortage,
                fear=fear,
                doubt=doubt,
                avoidable=self._avoidable(state, now),
                days=days,
            )
            if shadows is not None:
                shadows.see_bands(state)
        if np.maximum.reduce(state.weight) > _HEAVY:
            state.settle(CHARGES)
            state.lighten(np.where(state.weight > _HEAVY, state.weight, 1.0))
