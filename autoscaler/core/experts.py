"""Models that compete: each says between how many VMs a fleet should be, and the one that would lately have cost least
drives.

A model is an order-up-to rule with a dead zone: below `low` VMs go up to it, above `high` come down to it. Economic
models read the forecast by the prices (`worth`); plain ones take demand, or its highest of the last minutes, plus
headroom, which is what the autoscalers of Kubernetes and Google do, with break-even timers between the two. Demand does
not react to how a fleet is sized, so what each would have cost is known exactly: every model runs in shadow on the
live demand, with VMs that take the lead time to come and are billed as real ones are. Autopilot (Rzadca et al. 2020)
chooses among its models in this way.

Rules of this file: shadows never touch a decision but by which model drives. Missing and censored demand costs
nobody anything. No reduction over lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np

from autoscaler.core.habits import Habits
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
LOWEST_PRICE, HIGHEST_PRICE = 1.5, 20_000.0
"""Bounds of a price that is found, in VM-ticks per VM-tick of unserved work."""
_HALVINGS = 9
_HEAVY = 1e9
TRIAL_VM_TICKS = 20.0
"""And by so many VM-ticks more, so that a few early ticks decide nothing."""


class Kind(IntEnum):
    """How a model comes to its numbers."""

    WORTH = 0
    """What earns more than it costs, by the forecast."""
    DEMAND = 1
    """Demand plus headroom; down only to its highest of a window."""
    USUAL = 2
    """What is usually needed, by all hours."""
    HOUR = 3
    """What is usually needed at this hour."""
    YESTERDAY = 4
    """What was needed at this time yesterday, plus headroom."""
    LATEST = 5
    """The same, and demand without headroom where that is more."""
    BOTH = 6
    """What was needed at this time yesterday, plus headroom, and what the forecast is worth where that is more."""


class Window(IntEnum):
    """What keeps a VM: a window of the forecast for WORTH, of the past for DEMAND and PEAK."""

    NOW = 0
    SHORT = 1
    MIDDLE = 2
    LONG = 3
    DAILY = 4


PAST_S: tuple[float, ...] = (0.0, 120.0, 600.0, 3600.0, 86400.0)
"""Windows of the past in seconds, by `Window`."""
PRICE_FACTORS: tuple[float, ...] = (1.0, 2.0)
"""Prices of shortage at which forecasts and habits are tried, in prices of shortage."""
HEADROOMS: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Headrooms that are tried."""
AHEAD = (Window.NOW, Window.SHORT, Window.MIDDLE, Window.LONG)
"""Windows of the forecast."""


_LEAST = {Kind.YESTERDAY: "", Kind.LATEST: ", at least demand", Kind.BOTH: ", at least by the forecast"}


class Model(NamedTuple):
    """One model: its kind, which of the factors or headrooms, and its window."""

    kind: Kind
    knob: int
    window: Window = Window.NOW

    def __str__(self) -> str:
        """In a few words."""
        if self.kind in (Kind.USUAL, Kind.HOUR):
            hours = "all hours" if self.kind is Kind.USUAL else "this hour"
            return f"usual of {hours}, shortage at {PRICE_FACTORS[self.knob]:g} of its price"
        if self.kind is Kind.WORTH:
            kept = ("at the lead time", "until a stopped VM is back", "in between", "within the hold window")
            return f"forecast {kept[self.window]}, shortage at {PRICE_FACTORS[self.knob]:g} of its price"
        if self.kind in _LEAST:
            least = _LEAST[self.kind]
            longer = ", longer" if self.window is Window.LONG else ""
            return f"this time yesterday + {HEADROOMS[self.knob]:.0%}{least}{longer}"
        return f"demand + {HEADROOMS[self.knob]:.0%}, {PAST_S[self.window] / 60.0:g} min"


MODELS: tuple[Model, ...] = (
    *(Model(Kind.WORTH, knob, window) for knob in range(len(PRICE_FACTORS)) for window in AHEAD),
    *(Model(kind, knob) for kind in (Kind.USUAL, Kind.HOUR) for knob in range(len(PRICE_FACTORS))),
    *(Model(Kind.DEMAND, knob, window) for knob in range(len(HEADROOMS)) for window in Window),
    *(Model(kind, knob) for kind in (Kind.YESTERDAY, Kind.LATEST) for knob in range(len(HEADROOMS))),
    *(Model(Kind.BOTH, knob, window) for knob in range(3) for window in (Window.NOW, Window.LONG)),
)
"""All of them, M; the number of a model is its place."""
FIRST = MODELS.index(Model(Kind.WORTH, 0, Window.LONG))
"""The model that drives until there is a reason for another."""
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
        serving: int32 (M, n), VMs in service in each model's shadow.
        coming: int32 (M, n), ordered and not yet in service.
        young: int32 (M, n), in service and billed anyway.
        ordered: int32 (R, M, n), those that come at a tick, by tick modulo R.
        weight: float64 (n,), of a tick now: it grows, so that all that was before fades.
        paid: float64 (M, n), VM-ticks and starts by weight.
        unserved: float64 (M, n), VM-ticks of work that found no VM, likewise.
        nearly: float64 (M, n), the same, had demand been `MORE` times as high.
        ticks: float64 (n,), ticks that were charged, likewise.
        wanted: float64 (n,), VM-ticks of work, likewise.
        driver: int64 (n,), the model that drives.
        last_tick: The tick of the last step; -1 before the first.
    """

    version: ClassVar[int] = 1
    lanes: Int
    lead_ticks: Int
    billed_ticks: Int
    peaks: RollingMax
    habits: Habits
    serving: SmallInt
    coming: SmallInt
    young: SmallInt
    ordered: SmallInt
    weight: Float
    paid: Float
    unserved: Float
    nearly: Float
    ticks: Float
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
            serving=np.zeros(shape, np.int32),
            coming=np.zeros(shape, np.int32),
            young=np.zeros(shape, np.int32),
            ordered=np.zeros((rows, *shape), np.int32),
            weight=np.ones(len(lanes)),
            paid=np.zeros(shape),
            unserved=np.zeros(shape),
            nearly=np.zeros(shape),
            ticks=np.zeros(len(lanes)),
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
        for name in ("serving", "paid", "unserved", "nearly"):
            getattr(new, name)[:, known] = getattr(self, name)[:, old]
        for name in ("weight", "ticks", "wanted", "driver"):
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
        low = [np.repeat(now, windows, axis=0), early, np.maximum(early, least)]
        high = [vms.reshape(-1, lanes), late, np.maximum(late, least)]
        return np.concatenate(low), np.concatenate(high)

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

    def _missed(self, state: Trial) -> Float:
        # The worst has seldom been seen: some minutes may yet be like the rest but higher.
        seen_s = np.maximum(state.ticks / state.weight, 1.0) * self._tick_s
        missed = state.nearly * np.minimum(DOUBT_S / seen_s, MOST_DOUBT)
        missed += state.unserved
        return missed

    def _choose(self, state: Trial, shortage: Float) -> None:
        cost = self._missed(state)
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
            for sums in (state.paid, state.unserved, state.nearly, state.ticks, state.wanted, state.weight):
                np.divide(sums, lighter, out=sums)
