"""Knative's autoscaler, as a peer (rules of these files: `peer`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    ROUNDING,
    UNKNOWN,
    Sized,
    ordered,
    over_lanes,
    summed,
    vms_for,
    window_ticks,
)

USUAL = 0.7
"""Knative's default share of a pod's capacity to aim at."""

_LONG_AGO_S = -1e18


class Knative(Sized):
    """The pod autoscaler of Knative Serving (KPA, 0.8 to 1.14), with its default settings.

    The size is the mean demand of a stable window of 60 s, divided by the target work of a VM and rounded up. The mean of a
    panic window of 6 s gives a size in the same way. If that size is at least twice the ready VMs, the autoscaler panics
    until this has not held for 60 s. While it panics, it keeps the highest size seen and never scales in. Scale-out is
    limited to 1,000 times the ready VMs and scale-in to half of them, per evaluation of 2 s. It scales to zero when the
    stable window is empty, after a further 30 s.

    **Ticks longer than 6 s blunt it.** Each window holds at least one tick, so with ticks of a minute or more both windows
    are the same sample. Panic then only keeps what would be taken back within the next minute, and so many evaluations fit
    into a tick that the limits do not bind.
    """

    _STABLE_S, _PANIC_S, _TURN_S, _GRACE_S = 60.0, 6.0, 2.0, 30.0
    _PANIC_AT, _MOST_OUT = 2.0, 1000

    def __init__(self, params: LaneParams, *, utilisation: float | Float = USUAL) -> None:
        super().__init__(params)
        lanes = len(params.vm_capacity)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._panic_ticks = window_ticks(self._PANIC_S, params.tick_s)
        self._past: Float = np.full((window_ticks(self._STABLE_S, params.tick_s), lanes), np.nan)
        self._turns = max(1, int(params.tick_s / self._TURN_S + ROUNDING))
        self._panicked_at_s: Float = np.full(lanes, _LONG_AGO_S)
        self._highest: Int = np.zeros(lanes, np.int64)
        self._empty_s: Float = np.full(lanes, np.nan)
        self._size: Int = np.full(lanes, UNKNOWN, np.int64)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        self._size = np.where(self._size == UNKNOWN, ordered(snapshot), self._size)
        # The newest row is the last; windows are short enough to be shifted.
        self._past[:-1] = self._past[1:]
        self._past[-1] = snapshot.demand
        stable, known = self._need(self._past)
        panic, fresh = self._need(self._past[-self._panic_ticks :])
        ready = np.maximum(snapshot.in_service.astype(np.int64), 1)
        crossed = fresh & (panic >= self._PANIC_AT * ready)
        now_s = snapshot.now_s
        self._panicked_at_s = np.where(crossed, now_s, self._panicked_at_s)
        panics = now_s - self._panicked_at_s < self._STABLE_S
        stable, panic = self._within(stable, ready), self._within(panic, ready)
        self._highest = np.where(panics, np.maximum(self._highest, np.maximum(panic, ordered(snapshot))), 0)
        size = np.where(panics, np.maximum(self._highest, stable), stable)
        size = self._down_to_zero(size, now_s, known)
        self._size = np.where(known, size, self._size)
        return self._size

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        panic_left_s = np.maximum(self._panicked_at_s + self._STABLE_S - now_s, 0.0)
        empty_s = np.minimum(now_s - self._empty_s, self._GRACE_S)
        return [self._past.copy(), np.stack([panic_left_s, empty_s]), np.stack([self._highest, self._size])]

    def _need(self, past: Float) -> tuple[Int, Bool]:
        """Return the VMs for the mean of the known part of a window, and whether any of it is known."""
        seen = ~np.isnan(past)
        count = summed(seen)
        return vms_for(summed(np.where(seen, past, 0.0)) / np.maximum(count, 1.0), self._usable), count > 0

    def _within(self, size: Int, ready: Int) -> Int:
        """Limit a size to what the evaluations of one tick can reach; each finds ready what the one before has set."""
        lowest = ready >> min(self._turns, 62)
        within: Int = np.minimum(np.maximum(size, lowest), ready * self._MOST_OUT)
        return within

    def _down_to_zero(self, size: Int, now_s: float, known: Bool) -> Int:
        """Hold one VM until demand has been zero for the time that Knative waits for late work."""
        empty = known & (size == 0)
        self._empty_s = np.where(empty, np.fmin(self._empty_s, now_s), np.nan)
        waits = empty & (now_s - self._empty_s < self._GRACE_S - ROUNDING)
        return np.where(waits, np.minimum(np.maximum(self._size, 0), 1), size)
