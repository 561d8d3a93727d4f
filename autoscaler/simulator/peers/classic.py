"""Autoscalers from the research literature, as peers (rules of these files: `peer`).

Four of the five that later studies compare; the fifth, ConPaaS, is in `regression`. They were published for steps of about a
minute, and here a tick is a step. Their own factors stay as published. In addition, `utilisation` sets the share of a VM's
capacity that they count on: need is demand divided by that share of the capacity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    DAY_S,
    ROUNDING,
    Sized,
    ordered,
    over_lanes,
    summed,
    vms_for,
)

_HOUR_S = 3600.0


class Needing(Sized):
    """A peer that computes need: demand divided by the usable capacity of a VM."""

    def __init__(self, params: LaneParams, *, utilisation: float | Float = 1.0) -> None:
        super().__init__(params)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity

    def _sees(self, snapshot: Snapshot) -> tuple[Float, Int, Int, Bool]:
        """Return need as float64 (0 if unknown) and in VMs, the VMs ordered, and whether need is known: all (L,)."""
        known = ~np.isnan(snapshot.demand)
        exact = np.where(known, snapshot.demand, 0.0) / self._usable
        return exact, vms_for(snapshot.demand, self._usable), ordered(snapshot), known


class React(Needing):
    """React (Chieu, Mohindra, Karve, Segal 2009), as in the comparison of Papadopoulos, Ali-Eldin et al. 2016.

    If need is above the VMs ordered, 1.2 times the missing VMs are added, rounded down. If 1.1 times the need is below the
    VMs ordered, 1.2 times the need is kept. Otherwise nothing changes.
    """

    _OUT, _BAND, _KEPT = 1.2, 1.1, 1.2

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        exact, need, size, known = self._sees(snapshot)
        lacking = np.floor((need - size) * self._OUT + ROUNDING).astype(np.int64)
        kept = np.minimum(np.ceil(need * self._KEPT - ROUNDING).astype(np.int64), size)
        wish = np.where(need > size, size + lacking, np.where(exact * self._BAND < size, kept, size))
        return np.where(known, wish, size)


class Adapt(Needing):
    """Adapt (Ali-Eldin, Tordsson, Elmroth 2012), with the estimator and the controller of its published code.

    The gain is the number of missing VMs, multiplied by the VMs of the last step over their mean since the beginning, and by
    a quarter if there are too many VMs. Gains add up, and whole VMs of the sum are added or removed, but never to below the
    need. If need is above the VMs ordered, what is missing to 1.1 times the need is added as well. The step that scales in
    sees no more than any other peer does.
    """

    _SLOW_IN, _OUT = 0.25, 1.1

    def __init__(self, params: LaneParams, *, utilisation: float | Float = 1.0) -> None:
        super().__init__(params, utilisation=utilisation)
        lanes = len(params.vm_capacity)
        self._owed: Float = np.zeros(lanes)
        self._total: Float = np.zeros(lanes)
        self._steps = 0

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        _, need, size, known = self._sees(snapshot)
        self._steps += 1
        self._total = self._total + size
        usual = self._total / self._steps
        gain = np.where(usual > 0, size / np.where(usual > 0, usual, 1.0), 1.0) * (need - size)
        owed = self._owed + np.where(known, np.where(gain < 0, gain * self._SLOW_IN, gain), 0.0)
        whole = np.trunc(owed).astype(np.int64)
        short = need > size
        fewer = np.maximum(size + whole, np.minimum(need, size))
        more = size + np.maximum(whole, 0)
        wish = np.where(whole < 0, fewer, more)
        wish = np.where(short, wish + np.ceil(self._OUT * need - ROUNDING).astype(np.int64) - size, wish)
        self._owed = np.where(known, owed - whole, self._owed)
        return np.where(known, wish, size)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`); the mean since the beginning never forgets."""
        del now_s
        return [np.stack([self._owed, self._total])]


class Hist(Needing):
    """Hist (Urgaonkar, Shenoy, Chandra, Goyal, Wood 2008): a histogram of need for each hour of the day.

    At each hour it wants the 0.9 quantile of what the same hour of earlier days needed, corrected by the mean error of the
    last 5 ticks. If more than 5 of the last 10 ticks were short, it wants 1.05 times the present need instead. An hour keeps
    its last 730 needs. Before an hour has been seen, it follows the present need.
    """

    _LEVEL, _KEPT, _ERRORS, _TOLD, _SHORT, _OUT = 0.9, 730, 5, 10, 5, 1.05

    def __init__(self, params: LaneParams, *, utilisation: float | Float = 1.0) -> None:
        super().__init__(params, utilisation=utilisation)
        lanes = len(params.vm_capacity)
        hours = round(DAY_S / _HOUR_S)
        # One ring per hour, in which the oldest value is overwritten first.
        self._past: Float = np.full((hours, self._KEPT, lanes), np.nan)
        self._next: Int = np.zeros(hours, np.int64)
        self._hour = -1
        self._expected: Float = np.full(lanes, np.nan)
        self._errors: Float = np.full((self._ERRORS, lanes), np.nan)
        self._was_short: Bool = np.zeros((self._TOLD, lanes), np.bool_)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        exact, need, size, known = self._sees(snapshot)
        self._learn(snapshot, exact, known)
        hour = int(snapshot.now_s // _HOUR_S) % len(self._next)
        if hour != self._hour:
            self._hour = hour
            self._expected = quantile_of(self._past[hour], self._LEVEL)
        seen = ~np.isnan(self._errors)
        error = summed(np.where(seen, self._errors, 0.0)) / np.maximum(summed(seen), 1.0)
        corrected = self._expected - error
        planned = np.maximum(np.ceil(np.nan_to_num(corrected) - ROUNDING), 0.0).astype(np.int64)
        often = summed(self._was_short)
        reactive = np.ceil(self._OUT * exact - ROUNDING).astype(np.int64)
        wish = np.where(np.isnan(self._expected), need, planned)
        wish = np.where((often > self._SHORT) & known, reactive, wish)
        blind = np.isnan(self._expected) & ~known
        return np.where(blind, size, wish)

    def _learn(self, snapshot: Snapshot, exact: Float, known: Bool) -> None:
        """Learn from the tick that ended; its need belongs to the hour in which it began."""
        hour = int((snapshot.now_s - self._params.tick_s) // _HOUR_S) % len(self._next)
        self._past[hour, self._next[hour] % self._KEPT] = np.where(known, exact, np.nan)
        self._next[hour] += 1
        self._errors[:-1] = self._errors[1:]
        self._errors[-1] = np.where(known, self._expected - exact, np.nan)
        self._was_short[:-1] = self._was_short[1:]
        self._was_short[-1] = known & (exact > snapshot.in_service + ROUNDING)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        past = [
            np.roll(ring, -int(at) % self._KEPT, axis=0)
            for ring, at in zip(self._past, self._next, strict=True)
        ]
        return [*past, self._expected[np.newaxis], self._errors.copy(), self._was_short.copy()]


def quantile_of(values: Float, level: float | Float) -> Float:
    """Return a quantile of each column's known values, interpolated between neighbours: (L,); NaN if there are none."""
    ranked = np.sort(values, axis=0)
    count = summed(~np.isnan(values)).astype(np.int64)
    place = level * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    lanes = np.arange(values.shape[1])
    below, above = ranked[low, lanes], ranked[high, lanes]
    return np.where(count > 0, below + (place - low) * (above - below), np.nan)
