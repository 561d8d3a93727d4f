"""Models that compete (`models`): the one that would lately have cost least drives.

Demand does not react to how a fleet is sized, so what each would have cost is known exactly: every model runs in shadow
on the live demand, with VMs that take the lead time to come and are billed as real ones are. Autopilot (Rzadca et al.
2020) chooses among its models in this way. What a model would cost in a crowd that nobody has seen yet counts, too: by
the rule of succession one comes once in all the time that was seen, and how much higher it is than the highest ever is
taken to be Pareto's with index 1, up to `CROWD` times.

Rules of this file: shadows never touch a decision but by which model drives. Missing and censored demand costs
nobody anything. No reduction over lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from autoscaler.core.habits import CROWD, Habits
from autoscaler.core.models import FALLING_HEADROOMS, FALLS_S, FIRST, HEADROOMS, MODELS, PAST_S, PRICE_FACTORS
from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered, columns_before
from autoscaler.core.types import MOST_VMS, Bool, Float, Int, SmallInt
from autoscaler.core.windows import RollingMax

HALF_LIFE_S = 4 * 86400.0
"""What a model has cost counts half after this time."""
CHOICE_S = 300.0
"""How often the driver may change."""
HYSTERESIS, EARLY, MOST_HYSTERESIS = 0.02, 0.06, 0.1
"""A driver stays until another would have cost less by this share: the first, and the second over the days that were
seen, since early differences are luck; at most the third."""
MORE = 2.0
"""What has not been seen yet may be so many times as high: a model that would have failed then is in doubt."""
DOUBT_S, MOST_DOUBT = 600.0, 0.01
"""For how long it may have been so unseen; that much of the time that was seen counts, at most this share."""
MOST_FEAR = 0.001
"""A crowd that was never seen takes at most this share of the time."""
LOWEST_PRICE, HIGHEST_PRICE = 1.5, 20_000.0
"""Bounds of a price that is found, in VM-ticks per VM-tick of unserved work."""
_HALVINGS = 9
_HEAVY = 1e9
TRIAL_VM_TICKS = 20.0
"""And by so many VM-ticks more, so that a few early ticks decide nothing."""


_SCALE = 1024.0
"""Rolling maxima are of whole numbers: demand in 1024ths of a VM."""


def _all_arrived(state: Trial) -> None:
    """After a gap that is longer than any start takes."""
    state.serving += state.coming
    for part in (state.coming, state.young, state.ordered):
        part.fill(0)


class Prices(NamedTuple):
    """What shadows are charged, n lanes, in VM-ticks: per start, and per VM-tick of unserved work."""

    start: Float
    shortage: Float


@dataclass(slots=True)
class Trial(Remembered):
    """What is remembered of n lanes whose models compete.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        lead_ticks, billed_ticks: int64 (n,), as in `LaneParams`.
        peaks: Rolling maxima of demand in 1024ths of a VM, of (window, n) in one row.
        habits: What is usually needed.
        falling: float64 (F, n), the highest demand in VMs, falling by half in each of `FALLS_S`.
        serving: int32 (M, n), VMs in service in each model's shadow.
        coming: int32 (M, n), ordered and not yet in service.
        young: int32 (M, n), in service and billed anyway.
        ordered: int32 (R, M, n), those that come at a tick, by tick modulo R.
        weight: float64 (n,), of a tick now: it grows, so that all that was before fades.
        paid: float64 (M, n), VM-ticks and starts by weight.
        unserved: float64 (M, n), VM-ticks of work that found no VM, likewise.
        nearly: float64 (M, n), the same, had demand been `MORE` times as high.
        crowd: float64 (M, n), the same, had a crowd come that was never seen.
        ticks: float64 (n,), ticks that were charged, likewise.
        asked: float64 (n,), of these, those that are in `crowd`.
        wanted: float64 (n,), VM-ticks of work, likewise.
        driver: int64 (n,), the model that drives.
        last_tick: The tick of the last step; -1 before the first.
    """

    version: ClassVar[int] = 2
    lanes: Int
    lead_ticks: Int
    billed_ticks: Int
    peaks: RollingMax
    habits: Habits
    falling: Float
    serving: SmallInt
    coming: SmallInt
    young: SmallInt
    ordered: SmallInt
    weight: Float
    paid: Float
    unserved: Float
    nearly: Float
    crowd: Float
    ticks: Float
    asked: Float
    wanted: Float
    driver: Int
    last_tick: int

    @classmethod
    def empty(cls, params: LaneParams) -> Trial:
        """A state without history for the lanes that have an objective."""
        lanes = np.flatnonzero(params.economic)
        shape = (len(MODELS), len(lanes))
        lead, billed = params.lead_ticks[lanes], params.billed_ticks[lanes]
        rows = int((lead + billed).max(initial=0)) + 1
        return cls(
            lanes=lanes,
            lead_ticks=lead,
            billed_ticks=billed,
            peaks=RollingMax.empty(_windows(params.tick_s, len(lanes))),
            habits=Habits.empty(len(lanes), len(PRICE_FACTORS), params.tick_s),
            falling=np.zeros((len(FALLS_S), len(lanes))),
            serving=np.zeros(shape, np.int32),
            coming=np.zeros(shape, np.int32),
            young=np.zeros(shape, np.int32),
            ordered=np.zeros((rows, *shape), np.int32),
            weight=np.ones(len(lanes)),
            paid=np.zeros(shape),
            unserved=np.zeros(shape),
            nearly=np.zeros(shape),
            crowd=np.zeros(shape),
            ticks=np.zeros(len(lanes)),
            asked=np.zeros(len(lanes)),
            wanted=np.zeros(len(lanes)),
            driver=np.full(len(lanes), FIRST),
            last_tick=-1,
        )

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {"peaks": RollingMax, "habits": Habits}

    def carried_over(self, after: LaneParams, lanes: Int) -> Trial:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        What models have cost is kept, shadows of VMs under way are not where the times of a start have changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        new = Trial.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        new.last_tick = self.last_tick
        new.peaks = self.peaks.carried_over(
            _windows(after.tick_s, len(new.lanes)), _tiled(was, len(self.lanes))
        )
        new.habits = self.habits.carried_over(was, after.tick_s)
        known = was >= 0
        old = was[known]
        for name in ("serving", "paid", "unserved", "nearly", "crowd", "falling"):
            getattr(new, name)[:, known] = getattr(self, name)[:, old]
        for name in ("weight", "ticks", "asked", "wanted", "driver"):
            getattr(new, name)[known] = getattr(self, name)[old]
        same = np.zeros(len(was), np.bool_)
        same[known] = (new.lead_ticks[known] == self.lead_ticks[old]) & (
            new.billed_ticks[known] == self.billed_ticks[old]
        )
        old = was[same]
        for name in ("coming", "young"):
            getattr(new, name)[:, same] = getattr(self, name)[:, old]
        span = new.lead_ticks + new.billed_ticks
        for to, at in zip(np.flatnonzero(same).tolist(), old.tolist(), strict=True):
            first = self.last_tick - int(new.billed_ticks[to])
            for tick in range(first, first + int(span[to]) + 1):
                new.ordered[tick % len(new.ordered), :, to] = self.ordered[tick % len(self.ordered), :, at]
        return new


def _whole(need: Float) -> SmallInt:
    """Whole VMs, 0 where unknown."""
    need = need - 1e-9
    np.ceil(need, out=need)
    np.fmax(need, 0.0, out=need)
    return np.minimum(need, MOST_VMS).astype(np.int32)


def _windows(tick_s: float, lanes: int) -> Int:
    ticks = [max(1, int(np.ceil(past_s / tick_s - 1e-9)) + 1) for past_s in PAST_S[1:]]
    return np.repeat(np.array(ticks, np.int64), lanes)


def _tiled(was: Int, before: int) -> Int:
    return np.concatenate(
        [np.where(was >= 0, was + window * before, -1) for window in range(len(PAST_S) - 1)]
    )


class Contest:
    """The models of the lanes that have an objective, compiled; n of the L lanes.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), which have one.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._tick_s = params.tick_s
        self._lead_s = params.lead_ticks[lanes].astype(np.float64) * params.tick_s
        self._capacity = params.vm_capacity[lanes]
        self._lead, self._billed = params.lead_ticks[lanes], params.billed_ticks[lanes]
        self._one_lead = len(set(self._lead.tolist())) == 1
        self._one_billed = len(set(self._billed.tolist())) == 1
        self._columns = np.arange(len(lanes))
        self._growth = 2.0 ** (params.tick_s / HALF_LIFE_S)
        self._least = np.minimum(params.minimum[lanes], MOST_VMS).astype(np.int32)
        self._most = np.maximum(np.minimum(params.maximum[lanes], MOST_VMS).astype(np.int32), self._least)
        self._headroom = (1.0 + np.array(HEADROOMS))[:, np.newaxis]
        self._more = self._headroom[:, np.newaxis] / self._capacity
        self._falls = 0.5 ** (params.tick_s / np.array(list(FALLS_S.values())))[:, np.newaxis]
        self._falling_headroom = self._headroom[list(FALLING_HEADROOMS)]

    def plain(
        self, state: Trial, tick: int, demand: Float, before: tuple[Float, Float]
    ) -> tuple[SmallInt, SmallInt]:
        """What plain models want, low and high: int32 (m, n) each, in the order of `MODELS`.

        Args:
            state: Remembers the demand.
            tick: Now.
            demand: float64 (n,), NaN where unknown.
            before: float64 (n,) each, the highest demand in VMs from this time of yesterday until a start would serve, and
                within the hold window; NaN where unknown.
        """
        windows = len(PAST_S)
        known = ~np.isnan(demand)
        parts = np.where(known, demand, 0.0) / self._capacity
        parts *= _SCALE
        parts = np.minimum(np.ceil(parts), MOST_VMS)
        noted = np.concatenate([parts.astype(np.int64)] * (windows - 1))
        highest = state.peaks.push_and_max(tick, noted, np.concatenate([known] * (windows - 1)))
        past = np.empty((windows, len(demand)))
        past[0] = np.where(known, demand, 0.0)
        past[1:] = highest.reshape(windows - 1, -1) * (self._capacity / _SCALE)
        np.maximum(past[1:], past[0], out=past[1:])
        vms = _whole(past * self._more)
        lanes = vms.shape[2]
        now = vms[:, 0]
        early, late = (np.where(np.isnan(of), now, _whole(of * self._headroom)) for of in before)
        late = np.maximum(early, late)
        least = now[:1]
        falling, falling_low = self._fallen(state, tick, past[0]), now[list(FALLING_HEADROOMS)]
        low = [
            np.repeat(now, windows, axis=0),
            *[falling_low] * len(falling),
            early,
            np.maximum(early, least),
        ]
        high = [vms.reshape(-1, lanes), *falling, late, np.maximum(late, least)]
        return np.concatenate(low), np.concatenate(high)

    def _fallen(self, state: Trial, tick: int, demand: Float) -> SmallInt:
        """Down to how many VMs models may go whose highest demand falls: int32 (F, headrooms, n)."""
        passed = tick - state.last_tick
        if passed > 0:
            state.falling *= self._falls if passed == 1 else self._falls ** min(passed, 1_000_000)
            np.maximum(state.falling, demand / self._capacity, out=state.falling)
        return _whole(state.falling[:, np.newaxis] * self._falling_headroom)

    def step(
        self,
        state: Trial,
        tick: int,
        demand: Float,
        counts: Bool,
        low: SmallInt,
        high: SmallInt,
        price: Prices,
    ) -> None:
        """Charge every shadow for the tick that is over, and let it order.

        Args:
            state: Updated in place; within a tick only the first call counts.
            tick: Now.
            demand: float64 (n,), of the tick that is over.
            counts: bool (n,), where it may be charged for.
            low: int32 (M, n), up to how many VMs the models want to go.
            high: int32 (M, n), down to how many.
            price: What shadows are charged.
        """
        if tick <= state.last_tick:
            return
        passed = tick - state.last_tick
        begins = state.last_tick < 0
        if passed == 1 and not begins:
            self._charge(state, demand, counts)
        if passed > len(state.ordered):
            _all_arrived(state)
        else:
            for each in range(tick - passed + 1, tick + 1):
                self._arrive(state, each)
                self._put(state, each, None)
        state.last_tick = tick
        low = np.minimum(np.maximum(low, self._least), self._most)
        high = np.minimum(np.maximum(high, low), self._most)
        if begins:
            state.serving[:] = low
            return
        x = state.serving + state.coming
        out = np.maximum(low - x, 0)
        stop = np.minimum(np.maximum(x - high, 0), state.serving - state.young)
        state.serving -= stop
        state.coming += out
        self._put(state, tick, out)
        if np.count_nonzero(out):
            state.paid += out * (price.start * state.weight)
        if int(tick * self._tick_s // CHOICE_S) != int((tick - passed) * self._tick_s // CHOICE_S):
            self._fear(state)
            self._choose(state, price.shortage)

    def _charge(self, state: Trial, demand: Float, counts: Bool) -> None:
        if np.count_nonzero(counts) < len(counts):
            work = np.where(counts, demand, 0.0) / self._capacity
            state.weight = np.where(counts, state.weight * self._growth, state.weight)
            weight = state.weight * counts
        else:
            work = demand / self._capacity
            weight = state.weight = state.weight * self._growth
        state.paid += state.serving * weight
        for missed, more in ((state.unserved, 1.0), (state.nearly, MORE)):
            left = more * work - state.serving
            np.maximum(left, 0.0, out=left)
            left *= weight
            np.add(missed, left, out=missed)
        state.wanted = state.wanted + work * weight
        state.ticks = state.ticks + weight

    def _arrive(self, state: Trial, tick: int) -> None:
        rows = len(state.ordered)
        if self._one_lead and self._one_billed:
            came = state.ordered[tick % rows]
            settled = state.ordered[(tick - int(self._billed[0])) % rows]
        else:
            came = state.ordered[tick % rows]
            settled = state.ordered[(tick - self._billed) % rows, :, self._columns].T
        state.serving += came
        state.coming -= came
        if self._billed.any():
            state.young += came
            state.young -= settled

    def _put(self, state: Trial, tick: int, out: SmallInt | None) -> None:
        """Note what is ordered at a tick; None clears what an older one has left in its place."""
        rows = len(state.ordered)
        if self._one_lead:
            state.ordered[(tick + int(self._lead[0])) % rows] = 0 if out is None else out
        else:
            state.ordered[(tick + self._lead) % rows, :, self._columns] = 0 if out is None else out.T

    def price_for(self, state: Trial, unserved: Float) -> Float:
        """The lowest price of shortage at which the cheapest model leaves at most this share of work: float64 (n,).

        Args:
            state: What models have cost.
            unserved: float64 (n,), the share.

        Returns:
            Between `LOWEST_PRICE` and `HIGHEST_PRICE`, to a few percent.
        """
        missed = self._missed(state)
        allowed = unserved * state.wanted
        low, high = (np.full(len(unserved), np.log(end)) for end in (LOWEST_PRICE, HIGHEST_PRICE))
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            best = (missed * np.exp(middle) + state.paid).argmin(axis=0)
            enough = missed[best, self._columns] <= allowed
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        found: Float = np.exp(high)
        return found

    def _doubt(self, state: Trial, lasts_s: Float | float, most: float) -> Float:
        """The share of the time that may yet be otherwise, if it is otherwise once and for so long: float64 (n,)."""
        seen_s = np.maximum(state.ticks / state.weight, 1.0) * self._tick_s
        doubt: Float = np.minimum(lasts_s / seen_s, most)
        return doubt

    def _missed(self, state: Trial) -> Float:
        # The worst has seldom been seen: some minutes may yet be like the rest but higher.
        missed = state.nearly * self._doubt(state, DOUBT_S, MOST_DOUBT)
        missed += state.unserved
        return missed

    def _fear(self, state: Trial) -> None:
        """Charge every shadow for a crowd that was never seen: what it would leave, at the VMs that it has now."""
        highest = state.habits.highest
        serving = np.maximum(state.serving, highest)
        # E[(X - x)+] of X = H Y, P(Y > y) = 1 / y from 1 to CROWD: H log(CROWD H / x) for x above H.
        left = np.log(np.maximum(CROWD * highest / np.maximum(serving, 1e-9), 1.0))
        left *= highest
        left += serving - state.serving
        left *= state.ticks - state.asked
        state.crowd += left
        state.asked = state.ticks

    def _choose(self, state: Trial, shortage: Float) -> None:
        cost = self._missed(state)
        # A crowd is alone with the VMs that it finds for as long as a start takes.
        cost += state.crowd * self._doubt(state, self._lead_s, MOST_FEAR)
        cost *= shortage
        cost += state.paid
        best = cost.argmin(axis=0)
        least = cost[best, self._columns]
        now = cost[state.driver, self._columns]
        days = np.maximum(state.ticks / state.weight * (self._tick_s / 86400.0), 1e-3)
        less = 1.0 - np.minimum(HYSTERESIS + EARLY / days, MOST_HYSTERESIS)
        better = least + TRIAL_VM_TICKS * state.weight < less * now
        state.driver = np.where(better, best, state.driver)
        if (state.weight > _HEAVY).any():
            lighter = np.where(state.weight > _HEAVY, state.weight, 1.0)
            sums = (
                state.paid,
                state.unserved,
                state.nearly,
                state.crowd,
                state.ticks,
                state.wanted,
                state.weight,
            )
            for each in sums:
                np.divide(each, lighter, out=each)
            state.asked = state.ticks
