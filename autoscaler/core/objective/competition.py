"""Competing models (`models`): the one that would recently have cost least drives.

Demand does not react to the size of a fleet, so the cost that each model would have had is known exactly. Every model runs in
shadow on the live demand, with VMs that take the lead time to arrive and are billed like real ones. Autopilot (Rzadca et al.
2020) chooses among its models in the same way.

The cost of a crowd that nobody has seen yet counts too. By the rule of succession, one such crowd is expected in a time as
long as all the time seen so far. How far it exceeds the highest demand ever is assumed to follow a Pareto law with
index 1, up to `CROWD` times. That is a guess, so it is tested against what happens, as forecasts are judged by what they said
before (Dawid 1984). Once the record shows that crowds come less often or less high, only as many are allowed for as may still
come. While little has been seen, a model must first prove itself before it may drive (`probation`).

Rules of this file: shadows affect a decision only through the choice of the driving model. No model is charged for ticks with
missing or censored demand. No reduction over lanes.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from autoscaler.core.column_groups import ColumnGroups, one_of
from autoscaler.core.objective.bands import Bands
from autoscaler.core.objective.charging import CHARGES, ShadowCharges
from autoscaler.core.objective.competition_state import ShadowType, Trial
from autoscaler.core.objective.demand_buffer import BUFFERED_DEMAND, DemandBuffer
from autoscaler.core.objective.earlier_days import Before
from autoscaler.core.objective.habits import CROWD, DAY_S, lasting_ticks
from autoscaler.core.objective.models import MODELS
from autoscaler.core.objective.plain_models import PLAIN, DemandAfterPage, Plain
from autoscaler.core.objective.probation import KNOWN_DAYS, change_driver, unproven
from autoscaler.core.objective.shadow_fleets import Cells, Shadows, crowd_left
from autoscaler.core.params import LaneParams
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallFloat, SmallInt

Rows: TypeAlias = "slice[int, int, None]"
"""Consecutive models."""
HALF_LIFE_S = 32 * 86400.0
"""Age at which a model's cost has half its weight."""
CHOICE_S = 300.0
"""How often, in seconds, the driver may change, if five ticks take at least that long."""
_CHOICES_S = (150.0, 100.0, 60.0)
"""If five ticks take less: the longest of these that they fill, or else the last. Until the next choice, a driver may let a
shortage last that others would have ended. All divide `CHOICE_S`, and so the hour of `bands`."""
HYSTERESIS, EARLY, MOST_HYSTERESIS = 0.02, 0.06, 0.1
"""A driver stays until another model would have saved a share of its avoidable cost: its cost beyond the least possible in
hindsight. The share is the first number plus the second divided by the days seen, because early differences are luck; at
most the third. It is not a share of the whole cost: with smooth demand that would be more than the best model can save."""
DOUBT_S, MOST_DOUBT = 600.0, 0.01
"""Unserved work at `charging.MORE` times the demand counts as if demand could have been that high for this long, unseen: by
its share of the time seen, at most `MOST_DOUBT`, and with a promised share at most the share that may stay unserved."""
MOST_SEEN_S = 5 * 86400.0
"""At most this much time counts as seen in the shares of unseen demand: demand changes, so doubt never goes away."""
MOST_FEAR = 0.001
"""The largest share of the time that a crowd which was never seen is assumed to take."""
LOWEST_PRICE, HIGHEST_PRICE = 1.5, 20_000.0
"""Bounds of a price of shortage that is found, in VM-ticks per VM-tick of unserved work."""
_HALVINGS = 9
"""Steps of bisection in `price_for`; they narrow the price down to 2 %."""
_MEAN_CROWD = math.log(CROWD)
"""Mean excess of an unseen crowd over the highest demand ever, as a multiple of that demand."""
_HEAVY = 1e9
# As arrays, because converting a plain number takes numpy a while, which matters if there are few columns.
_ONE, _THREE, _DOUBT_S, _MOST_SEEN_S, _MOST_FEAR = (
    np.array(number) for number in (1.0, 3.0, DOUBT_S, MOST_SEEN_S, MOST_FEAR)
)
_BLOCK = 25_000
"""Models are processed in blocks of at most this many numbers, so that the data stays in the cache."""
TRIAL_VM_TICKS = 20.0
"""VM-ticks by which another model must be cheaper on top of `HYSTERESIS`, so that a few early ticks decide nothing."""


def _count_type(most: int) -> ShadowType:
    """Return the narrowest integer type that holds twice this count."""
    for name in ("i1", "i2"):
        found: ShadowType = np.dtype(name)
        if 2 * most <= np.iinfo(found).max:
            return found
    return np.dtype("i4")


def _distinct_ticks(ticks: Int, counts: ShadowType) -> list[tuple[int, SmallInt | None]]:
    """Return each distinct number of ticks, with a mask of its lanes (1 or 0), or None if all lanes share it."""
    found = [(int(each), (ticks == each).astype(counts)) for each in np.unique(ticks)]
    return [(ticks, None) for ticks, _ in found] if len(found) == 1 else list(found)


def _clear(slot: SmallInt, mask: SmallInt | None) -> None:
    """Set a slot to 0 in the lanes of a mask, or in all lanes."""
    if mask is None:
        slot.fill(0)
    else:
        slot *= 1 - mask


def choice_s(tick_s: float) -> float:
    """Return how often, in seconds, the driver may change."""
    return next((each_s for each_s in (CHOICE_S, *_CHOICES_S) if each_s <= 5.0 * tick_s), _CHOICES_S[-1])


class ModelCompetition:
    """The models, compiled for the n of L lanes with an objective.

    A tick costs as much as its passes over (M, n) numbers, so all passes work in place or on arrays that are reused. numpy
    finds the maximum of two arrays several times as fast as that of an array and a number: hence `max(a, b) - b` for the
    excess of `a` over `b`.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), the lanes with an objective.

    Attributes:
        want: int32 (2, M, n), the lower and upper number of VMs that each model wants, in the order of `MODELS`; callers fill
            it every tick. Like all counts of shadows, it is int16 or int8 if no policy allows more VMs.
        most: The highest maximum of any lane; callers must not fill in more than this.
        alike: Groups of columns whose plain models want the same if they have seen the same.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._choice_s = choice_s(params.tick_s)
        self._lead_s = params.lead_ticks[lanes].astype(np.float64) * params.tick_s
        self._capacity = params.vm_capacity[lanes]
        self._lead_ticks = np.maximum(params.lead_ticks[lanes], 1)
        self._lead, self._billed = params.lead_ticks[lanes], params.billed_ticks[lanes]
        self._indices = np.arange(len(lanes))
        promised = params.unserved_target[lanes]
        self._most_doubt = np.where(promised > 0.0, np.minimum(promised, MOST_DOUBT), MOST_DOUBT)
        self._price_given = promised <= 0.0
        self._all_prices_given = bool(self._price_given.all())
        self._beyond_per_crowd = np.minimum(self._lead_ticks, lasting_ticks(params.tick_s)) * _MEAN_CROWD
        least = np.minimum(params.minimum[lanes], MOST_VMS)
        most = np.maximum(np.minimum(params.maximum[lanes], MOST_VMS), least)
        self._bounds = least, most
        self.most = int(most.max())
        self.alike = ColumnGroups(params.series[lanes], self._capacity, self._lead)
        self._plain = Plain(self._capacity, self.alike, self.most, params.tick_s)
        shape = len(MODELS), len(lanes)
        start_cost = params.start_cost[lanes].astype(np.float32)
        each = max(1, _BLOCK // max(1, len(lanes)))
        self._blocks = [slice(at, min(at + each, len(MODELS))) for at in range(0, len(MODELS), each)]
        self._cost, self._actual_cost = np.empty(shape), np.empty(shape)
        block = min(each, len(MODELS)), len(lanes)
        self._left, self._ones = np.empty(block), np.ones(block, np.float32)
        self._vms, self._short = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.bands = Bands(most, start_cost, promised > 0.0, params.tick_s, len(MODELS))
        growth = 2.0 ** (params.tick_s / HALF_LIFE_S)
        self._charging = ShadowCharges(least, start_cost, growth, self.bands, self._vms, self._short)
        self._start_cost = start_cost
        self._shadows: Shadows | None = None
        self._count_in(_count_type(self.most))

    def _count_in(self, counts: ShadowType) -> None:
        """Allocate arrays for counts of this type."""
        self._counts = counts
        self._charging.count_in(counts)
        # Full-size arrays, because broadcasting one row over all models takes longer.
        self._least, self._most = (
            np.broadcast_to(bound.astype(counts), self._cost.shape).copy() for bound in self._bounds
        )
        self._leads, self._bills = _distinct_ticks(self._lead, counts), _distinct_ticks(self._billed, counts)
        self._excess, self._stoppable = (np.zeros(self._cost.shape, counts) for _ in range(2))
        self.want = np.zeros((2, *self._cost.shape), counts)
        self._plain.count_in(counts)

    def fit(self, state: Trial) -> None:
        """Give the counts of the state and of this contest the same type. Call it before filling `want`."""
        if state.serving.dtype == self._counts:
            return
        state.settle()
        # An earlier policy may have allowed more VMs.
        most_vms = int((state.serving + state.coming).max(initial=0))
        if _count_type(most_vms).itemsize > self._counts.itemsize:
            self._count_in(_count_type(most_vms))
        state.count_in(self._counts)

    def plain(self, state: Trial, tick: int, demand: Float, before: Before) -> SmallInt:
        """Fill in what plain models want (`Plain.fill`), and return their rows of `want`: int (2, m, n)."""
        self._plain.fill(state, tick, demand, before, self.want)
        return self.want[:, PLAIN]

    def plain_page(
        self, state: Trial, tick: int, demand: Float, before: Before, want: SmallInt
    ) -> DemandAfterPage:
        """Fill in what plain models want on a page of ticks (`Plain.fill_page`)."""
        return self._plain.fill_page(state, tick, demand, before, want)

    def shadows(self, state: Trial, before: Before) -> Shadows | None:
        """Return shadows that go through many future ticks of this trial at once; None if its columns see different things.

        Args:
            state: From now on, the returned shadows settle its charges.
            before: Demand on earlier days, as in `plain_page`.
        """
        columns = len(self._indices)
        same = len(self.alike.first) == 1 and all((of == of[0]).all() for of in (self._lead, self._billed))
        if not same or self._lead[0] < 1 or not self._all_prices_given:
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
        """Charge every shadow for the tick that just ended, and let each order VMs.

        Args:
            state: Updated in place; within a tick only the first call counts.
            tick: The current tick.
            demand: float64 (n,), work per second of the tick that just ended.
            counts: bool (n,), whether that tick may be charged for.
            want: int32 (2, M, n), the models' lower and upper numbers of VMs; clipped to the policy's bounds in place.
            price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        """
        if tick <= state.last_tick:
            return
        everywhere = np.count_nonzero(counts) == len(counts)
        work = (demand if everywhere else np.where(counts, demand, 0.0)) / self._capacity
        self.bound(want)
        self.move(state, tick, work, counts, want, price)
        if self.chooses(tick, tick + 1):
            # Models are compared in the next tick, which takes longest anyway.
            state.settle()

    def bound(self, want: SmallInt) -> None:
        """Clip the models' wishes, int (..., 2, M, n), to the policy's bounds, in place."""
        np.maximum(want, self._least, out=want)
        np.minimum(want, self._most, out=want)
        low, high = want[..., 0, :, :], want[..., 1, :, :]
        np.maximum(high, low, out=high)

    def move(
        self, state: Trial, tick: int, work: Float, counts: Bool | None, want: SmallInt, price: Float
    ) -> None:
        """Do the work of `step` for a later tick than the last, given wishes that are already within bounds.

        Args:
            state: Updated in place.
            tick: The current tick.
            work: float64 (n,), VM-ticks of work of the tick that just ended; 0 where it may not be charged for.
            counts: bool (n,), whether it may be charged for; None if it may everywhere.
            want: int (2, M, n), lower and upper numbers of VMs.
            price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
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
                for lead, mask in self._leads:
                    _clear(state.ordered[(each + lead) % len(state.ordered)], mask)
        state.last_tick = tick
        low, high = want
        if begins:
            state.serving[:] = low
            return
        self._order(state, tick, low, high)
        if self.chooses(tick - passed, tick):
            self._choose(state, price, bands=self.bands.may_change(tick - passed, tick))

    def move_through(self, state: Trial, tick: int, shadows: Shadows, price: Float) -> None:
        """Do the work of `move` with shadows that have already gone through this tick."""
        shadows.move(state, tick)
        if self.chooses(tick - 1, tick):
            self._choose(state, price, bands=self.bands.may_change(tick - 1, tick), shadows=shadows)

    def chooses(self, before: int, tick: int) -> bool:
        """Return whether models are compared in the ticks after `before` up to and including `tick`."""
        return int(tick * self._tick_s // self._choice_s) != int(before * self._tick_s // self._choice_s)

    def _order(self, state: Trial, tick: int, low: SmallInt, high: SmallInt) -> None:
        """Let every shadow order VMs and stop VMs."""
        excess = np.add(state.serving, state.coming, out=self._excess)
        # If all VMs take equally long, orders go straight to the tick at which they arrive.
        rows, (lead, shared_mask) = len(state.ordered), self._leads[0]
        ordered = state.ordered[(tick + lead) % rows] if shared_mask is None else np.empty_like(low)
        np.maximum(low, excess, out=ordered)
        ordered -= excess
        np.maximum(excess, high, out=excess)
        excess -= high
        stoppable = np.subtract(state.serving, state.young, out=self._stoppable)
        stop = np.minimum(excess, stoppable, out=excess)
        state.serving -= stop
        state.coming += ordered
        for lead, mask in self._leads:
            if mask is not None:
                slot = state.ordered[(tick + lead) % rows]
                slot += np.multiply(ordered, mask, out=self._stoppable)
        self._charging.charge_starts(state, tick, ordered)

    def _add_weighted(self, state: Trial, rows: Rows, weight: Float) -> None:
        """Add the recent costs of some models to their sums, with the weight of the last tick."""
        sums = state.paid, state.unserved, state.nearly
        for of, lately in zip(sums, state.lately, strict=True):
            # Copied first, because numpy multiplies numbers of two widths in small pieces.
            weighed = self._left[: rows.stop - rows.start]
            weighed[...] = lately[rows]
            weighed *= weight
            of[rows] += weighed
            lately[rows] = 0.0

    def _arrive(self, state: Trial, tick: int) -> None:
        """Let the VMs due at a tick enter service, and note which are no longer billed in any case."""
        rows = len(state.ordered)
        arrived = state.ordered[tick % rows]
        state.serving += arrived
        state.coming -= arrived
        if self._billed.any():
            state.young += arrived
            for billed, mask in self._bills:
                settled = state.ordered[(tick - billed) % rows]
                if mask is not None:
                    settled = np.multiply(settled, mask, out=self._excess)
                state.young -= settled

    def price_for(self, state: Trial, unserved: Float) -> Float:
        """Return the lowest price of shortage at which the cheapest model leaves no more work unserved than allowed.

        Args:
            state: The models' costs.
            unserved: float64 (n,), the share of work that may stay unserved, 0..1.

        Returns:
            float64 (n,), between `LOWEST_PRICE` and `HIGHEST_PRICE`, accurate to a few per cent.
        """
        state.settle(CHARGES)
        # Doubled demand counts for as long as a start takes. Counted for ten minutes, it would be insured
        # against at any price for days.
        paid, missed, nearly = (
            of + lately * state.weight
            for of, lately in zip((state.paid, state.unserved, state.nearly), state.lately, strict=True)
        )
        nearly *= np.minimum(self._lead_s / self._seen_s(state.ticks / state.weight), self._most_doubt)
        missed += nearly
        allowed = unserved * state.wanted
        low, high = (np.full(len(unserved), np.log(end)) for end in (LOWEST_PRICE, HIGHEST_PRICE))
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            cost = np.multiply(missed, np.exp(middle), out=self._cost)
            cost += paid
            best = cost.argmin(axis=0)
            enough = missed[best, self._indices] <= allowed
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        found: Float = np.exp(high)
        return found

    def _avoidable_cost(self, state: Trial, cost: Float) -> Float:
        """Return the part of a cost beyond the least possible in hindsight, starts excluded: float64 (n,)."""
        found: Float = np.maximum(cost - state.needed, 0.0)
        return found

    def _seen_s(self, seen: Float) -> Float:
        """Return how many seconds count as seen after this many ticks, at most `MOST_SEEN_S`: float64 (n,)."""
        found: Float = np.minimum(np.maximum(seen, _ONE) * self._tick_s, _MOST_SEEN_S)
        return found

    def _charge_crowd(self, state: Trial, rows: Rows, highest: SmallFloat, since: Float) -> None:
        """Charge some shadows for an unseen crowd of this many ticks: the work that their present VMs would leave unserved.

        The work per tick stays in `_short` until the next tick is charged.
        """
        vms, left = self._vms[rows], self._short[rows]
        vms[...] = state.serving[rows]
        crowd_left(highest, vms, left, self._ones[: len(vms)])
        weighed = self._left[: len(left)]
        weighed[...] = left
        weighed *= since
        state.crowd[rows] += weighed

    def _settle(self, state: Trial, shadows: Shadows | None) -> None:
        """Apply all charges that are due, and bring the highest demand ever up to date."""
        if shadows is None:
            state.settle(CHARGES)
        else:
            shadows.charge(state)
        notes = state.owed.get(BUFFERED_DEMAND)
        if isinstance(notes, DemandBuffer) and not notes.highest_known(state.habits):
            state.settle(BUFFERED_DEMAND)

    def _compare(
        self,
        state: Trial,
        price: Float,
        doubt: Float,
        fear: Float,
        actual: Float | None,
        shadows: Shadows | None,
    ) -> None:
        """Fill `_cost` with the models' costs including unseen demand, and `actual`, if given, with their costs so far."""
        if shadows is not None:
            shadows.compare(state, price, doubt, fear, self._cost, actual)
            return
        highest = one_of(state.habits.highest.astype(np.float32))
        weight, since, doubt, fear = map(one_of, (state.weight, state.ticks - state.asked, doubt, fear))
        for rows in self._blocks:
            self._add_weighted(state, rows, weight)
            self._charge_crowd(state, rows, highest, since)
            cost, unserved, paid = self._cost[rows], state.unserved[rows], state.paid[rows]
            np.multiply(state.nearly[rows], doubt, out=cost)
            cost += unserved
            cost += np.multiply(state.crowd[rows], fear, out=self._left[: len(cost)])
            cost *= price
            cost += paid
            if actual is not None:
                so_far = np.multiply(unserved, price, out=actual[rows])
                so_far += paid
        state.asked = state.ticks

    def _credible_share(self, state: Trial, fear: Float) -> Float:
        """Return the share of the crowds allowed for that is still credible, given how many came: float64 (n,).

        Credible are three crowds more than came, in crowds of the expected height. This is the rule of three (Hanley and
        Lippman-Hand, 1983): at 95 % confidence, what never happened in n trials happens in fewer than 3 / n of them. A
        fleet's first day does not count, because everything is new then. With a promised share, the share is 1: the price is
        unknown, and the fleet would otherwise hold less for the same promise.

        Args:
            state: Updated in place with the crowds allowed for since models were last compared.
            fear: float64 (n,), share of the time that an unseen crowd is assumed to take.
        """
        habits, lead = state.habits, self._lead_ticks
        habits.allowed += (state.ticks - state.asked) * fear / (state.weight * lead)
        first = state.ticks * self._tick_s < DAY_S * state.weight
        if np.count_nonzero(first):
            habits.allowed[first] = habits.beyond[first] = 0.0
        # A crowd adds to `beyond` only until its demand has lasted, because from then on that is the highest ever.
        crowds = habits.beyond / self._beyond_per_crowd
        share: Float = np.minimum((crowds + _THREE) / np.maximum(habits.allowed, _THREE), _ONE)
        return share if self._all_prices_given else np.where(self._price_given, share, 1.0)

    def _choose(self, state: Trial, shortage: Float, *, bands: bool, shadows: Shadows | None = None) -> None:
        """Choose the driver."""
        self._settle(state, shadows)
        seen = state.ticks / state.weight
        seen_s = self._seen_s(seen)
        # Some unseen minutes may be like those seen, but with higher demand.
        doubt = np.minimum(_DOUBT_S / seen_s, self._most_doubt)
        # Only the VMs in service can do a crowd's work until a start serves.
        fear = np.minimum(self._lead_s / seen_s, _MOST_FEAR)
        fear *= self._credible_share(state, fear)
        days = np.maximum(seen * (self._tick_s / 86400.0), 1e-3)
        young = self._price_given & (days < KNOWN_DAYS)
        actual = self._actual_cost if np.count_nonzero(young) else None
        cost = self._cost
        self._compare(state, shortage, doubt, fear, actual, shadows)
        current = cost[state.driver, self._indices]
        margin = np.minimum(HYSTERESIS + EARLY / days, MOST_HYSTERESIS) * self._avoidable_cost(state, current)
        if actual is not None:
            # `putmask` is five times as fast as `copyto`.
            np.putmask(cost, unproven(state, actual, TRIAL_VM_TICKS, young), np.inf)
            current = cost[state.driver, self._indices]
        least = np.minimum.reduce(cost, axis=0)
        better = np.flatnonzero(least + TRIAL_VM_TICKS * state.weight < current - margin)
        if len(better):
            driver = state.driver.copy()
            driver[better] = cost[:, better].argmin(axis=0)
            current[better] = least[better]
            if shadows is not None:
                shadows.write_sums(state)
            change_driver(state, driver, shortage)
        if bands:
            left = self._short if shadows is None else shadows.write_bands(state)
            self.bands.compare(
                state,
                left,
                state.habits.highest.astype(np.float32),
                shortage=shortage,
                fear=fear,
                doubt=doubt,
                avoidable=self._avoidable_cost(state, current),
                days=days,
            )
            if shadows is not None:
                shadows.read_bands(state)
        if np.maximum.reduce(state.weight) > _HEAVY:
            state.settle(CHARGES)
            state.lighten(np.where(state.weight > _HEAVY, state.weight, 1.0))
