"""Peers that expect the past to repeat one period later (rules of these files: `peer`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.alarms import TargetTracking
from autoscaler.simulator.peers.classic import quantile_of
from autoscaler.simulator.peers.peer import (
    DAY_S,
    ROUNDING,
    USUAL_UTILISATION,
    Sized,
    ordered,
    over_lanes,
    summed,
    vms_for,
    window_ticks,
)


class SameTimeBefore(Sized):
    """Wants as many VMs as the same time one period ago needed: a schedule that writes itself.

    Seasonal naive, the rule of time-of-day schedules (React and similar; as a forecast the standard of comparison of Hyndman
    and Athanasopoulos 2021). It takes the highest demand of the past period's stretch from now until a start ordered now
    would serve. If that past is unknown, as in the first period, it follows the present demand. A period that is not a whole
    number of ticks is rounded to one.
    """

    def __init__(
        self,
        params: LaneParams,
        *,
        utilisation: float | Float = USUAL_UTILISATION,
        period_s: float = DAY_S,
        ahead_s: float,
    ) -> None:
        super().__init__(params)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._ahead = window_ticks(ahead_s, params.tick_s) + 1
        period = max(round(period_s / params.tick_s), self._ahead + 1)
        self._past: Float = np.full((period, len(params.vm_capacity)), np.nan)
        self._next = 0

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        past = self._past
        past[self._next] = snapshot.demand
        # This value is a period old when the ring comes round to its place; the places after it hold older values.
        self._next = (self._next + 1) % len(past)
        then = past.take(range(self._next, self._next + self._ahead), axis=0, mode="wrap")
        wanted = np.fmax.reduce(then, axis=0)
        wanted = np.where(np.isnan(wanted), snapshot.demand, wanted)
        known = ~np.isnan(wanted)
        return np.where(known, vms_for(wanted, self._usable), ordered(snapshot))

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [np.roll(self._past, -self._next, axis=0)]


class PredictiveScaling(TargetTracking):
    """Predictive scaling of AWS Auto Scaling (2021; as documented in 2024), in scale-out mode together with target tracking.

    Each hour is forecast from up to 14 days. From 5 minutes before the hour on, the group's minimum is the number of VMs
    that the hour's forecast load needs at the target; target tracking works above it. AWS does not say how it forecasts: **a
    proxy is used here**, the mean of the same hour of the days before, from the second day on. It cannot see what happens
    within an hour, like the product.
    """

    _DAYS, _BUFFER_S = 14, 300.0

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, least: int = 0
    ) -> None:
        super().__init__(params, utilisation=utilisation, least=least)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._hours = Slots(params, slot_s=3600.0, days=self._DAYS)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        self._hours.add(snapshot)
        reactive = super().sized(snapshot)
        now_s = snapshot.now_s
        ahead = self._hours.mean_at(now_s + self._BUFFER_S)
        load = np.fmax(self._hours.mean_at(now_s), ahead)
        self._size = np.minimum(np.maximum(reactive, vms_for(load, self._usable)), self._params.maximum)
        return self._size

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        return [*super().memory(now_s), *self._hours.memory()]


class PeriodicQuantile(Sized):
    """Wants as many VMs as a quantile of demand at this time of the day needs, from the last 14 days.

    After RobustScaler (Qian, Wen, Sun and others 2022), which starts VMs by a quantile of a periodic intensity. RobustScaler
    fits the intensity of arrivals and takes arrivals as Poisson. Recorded demand varies more than that, so here **the
    quantile is taken of observed demand**: means over 5 minutes of the day and the two slots next to them, one lead time
    ahead. On the first day it follows the present demand.
    """

    _DAYS, _SLOT_S = 14, 300.0

    def __init__(self, params: LaneParams, *, level: float | Float, ahead_s: float) -> None:
        super().__init__(params)
        self._level = over_lanes(level, params)
        self._ahead_s = max(ahead_s, params.tick_s)
        self._slots = Slots(params, slot_s=self._SLOT_S, days=self._DAYS)
        self._at = -1
        self._expected: Float = np.full(len(self._level), np.nan)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        self._slots.add(snapshot)
        slot = self._slots.number(snapshot.now_s + self._ahead_s)
        if slot != self._at:
            self._at = slot
            near = [self._slots.past(slot + beside) for beside in (-1, 0, 1)]
            self._expected = quantile_of(np.concatenate(near), self._level)
        wanted = np.where(np.isnan(self._expected), snapshot.demand, self._expected)
        need = vms_for(wanted, self._params.vm_capacity)
        return np.where(np.isnan(wanted), ordered(snapshot), need)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [*self._slots.memory(), self._expected[np.newaxis]]


class Slots:
    """Mean demand over each slot of the day, for some days.

    Args:
        params: The lanes.
        slot_s: Length of a slot, a whole fraction of a day; at least a tick.
        days: Number of days that are kept.
    """

    def __init__(self, params: LaneParams, *, slot_s: float, days: int) -> None:
        self._tick_s = params.tick_s
        self._slot_s = max(slot_s, params.tick_s)
        self._per_day = max(round(DAY_S / self._slot_s), 1)
        lanes = len(params.vm_capacity)
        self._means: Float = np.full((self._per_day, days, lanes), np.nan)
        self._open: int | None = None
        self._sum: Float = np.zeros(lanes)
        self._known: Int = np.zeros(lanes, np.int64)

    def number(self, at_s: float) -> int:
        """Return the number of the slot that contains a time, counted from 1970."""
        return math.floor(at_s / self._slot_s + ROUNDING)

    def add(self, snapshot: Snapshot) -> None:
        """Add the tick that ended, which belongs to the slot in which it began."""
        slot = self.number(snapshot.now_s - self._tick_s)
        if self._open is not None and slot != self._open:
            self._close(self._open)
        self._open = slot
        seen = ~np.isnan(snapshot.demand)
        self._sum = self._sum + np.where(seen, snapshot.demand, 0.0)
        self._known = self._known + seen
        # A slot is closed with its last tick.
        if self.number(snapshot.now_s) != slot:
            self._close(slot)
            self._open = None

    def _close(self, slot: int) -> None:
        mean = np.where(self._known > 0, self._sum / np.maximum(self._known, 1), np.nan)
        day = slot // self._per_day % self._means.shape[1]
        self._means[slot % self._per_day, day] = mean
        self._sum, self._known = np.zeros_like(self._sum), np.zeros_like(self._known)

    def past(self, slot: int) -> Float:
        """Return the means of this slot of the day on the days that are kept: (days, L), NaN if unknown."""
        means: Float = self._means[slot % self._per_day]
        return means

    def mean_at(self, at_s: float) -> Float:
        """Return the mean of the slot at this time of day over the days that are kept: (L,), NaN if none is known."""
        past = self.past(self.number(at_s))
        seen = ~np.isnan(past)
        count = summed(seen)
        total = summed(np.where(seen, past, 0.0))
        return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)

    def memory(self) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        return [*self._means.copy(), np.stack([self._sum, self._known])]
