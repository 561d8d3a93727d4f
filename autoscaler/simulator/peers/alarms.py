"""AWS Auto Scaling's two alarm-based rules, as peers (rules of these files: `peer`).

Both read one-minute points: means of the utilisation over each minute of the clock. If a tick is longer than a minute, it is
one point that stands for all minutes it covers. Shorter ticks are averaged, and the rules act when a minute is full. An
unknown minute interrupts a row of points, because missing data triggers no alarm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    CLOCK_S,
    USUAL_UTILISATION,
    Sized,
    measured_utilisation,
    ordered,
    over_lanes,
    passes,
    window_ticks,
)

POINT_S = CLOCK_S
_ROUNDING = 1e-9
_LONG_AGO_S = -1e18


class Points:
    """Means of a metric over minutes of the clock.

    Args:
        params: The lanes.
    """

    def __init__(self, params: LaneParams) -> None:
        lanes = len(params.vm_capacity)
        self._tick_s = params.tick_s
        self.length_s = max(POINT_S, params.tick_s)
        """Seconds that one point stands for."""
        self._sum: Float = np.zeros(lanes)
        self._known: Int = np.zeros(lanes, np.int64)

    def add(self, now_s: float, value: Float) -> Float | None:
        """Add the value of the tick that ends now; returns float64 (L,) if a minute is full, NaN if unknown."""
        known = ~np.isnan(value)
        self._sum = self._sum + np.where(known, value, 0.0)
        self._known = self._known + known
        if not passes(POINT_S, now_s, self._tick_s):
            return None
        point = np.where(self._known > 0, self._sum / np.maximum(self._known, 1), np.nan)
        self._sum, self._known = np.zeros_like(self._sum), np.zeros_like(self._known)
        return point

    def memory(self) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        return [self._sum[np.newaxis], self._known[np.newaxis]]

    def in_row(self, minutes: float) -> int:
        """Return the number of points that cover this many minutes."""
        return window_ticks(minutes * POINT_S, self.length_s)


class Alarmed(Sized):
    """A group whose size changes if several points in a row have been above or below a threshold.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at: the target.
        least: The group's minimum size, if the lane's own is lower. Without a VM there is no metric, and the group cannot
            grow.
    """

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, least: int = 0
    ) -> None:
        lanes = len(params.vm_capacity)
        super().__init__(params)
        self._least = np.maximum(params.minimum, least)
        self._target = over_lanes(utilisation, params)
        self._points = Points(params)
        self._above: Int = np.zeros(lanes, np.int64)
        self._below: Int = np.zeros(lanes, np.int64)
        self._size: Int | None = None


class TargetTracking(Alarmed):
    """Target tracking of AWS Auto Scaling (2017; as documented in 2024).

    AWS creates two alarms: out when 3 of 3 one-minute points are above the target, in when 15 of 15 are more than 10 % below
    it. While an alarm holds, every minute the group is set to the size that brings the metric to the target: VMs in service
    times point over target, rounded up. Scale-out never takes back what was ordered. Scale-in waits until all ordered VMs
    are in service. AWS says that scale-in is gradual, but not how. Here it takes one step, which favours its cost. The group
    keeps its size, so a VM that fails to start is started again. Without a VM in service there is no metric, and the size
    stays.
    """

    _OUT_MINUTES, _IN_MINUTES = 3.0, 15.0
    _BAND = 0.9

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the group's size after this tick (see `Peer.sized`)."""
        size = ordered(snapshot) if self._size is None else self._size
        point = self._points.add(snapshot.now_s, measured_utilisation(self._params, snapshot))
        if point is not None:
            self._above = _in_row(self._above, point > self._target)
            self._below = _in_row(self._below, point < self._BAND * self._target)
            size = self._tracked(snapshot, point, size)
        self._size = np.minimum(np.maximum(size, self._least), self._params.maximum)
        return self._size

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`).

        Rows of points are cut to the number that triggers an alarm, because longer ones have the same effect.
        """
        del now_s
        above = np.minimum(self._above, self._points.in_row(self._OUT_MINUTES))
        below = np.minimum(self._below, self._points.in_row(self._IN_MINUTES))
        return [*self._points.memory(), np.stack([above, below, _known(self._size, above)])]

    def _tracked(self, snapshot: Snapshot, point: Float, size: Int) -> Int:
        """Return the size that brings the metric to the target, if an alarm holds."""
        scaled = np.ceil(snapshot.in_service * np.nan_to_num(point) / self._target - _ROUNDING)
        wanted = scaled.astype(np.int64)
        out = self._above >= self._points.in_row(self._OUT_MINUTES)
        low = (self._below >= self._points.in_row(self._IN_MINUTES)) & (snapshot.starting == 0)
        return np.where(out, np.maximum(size, wanted), np.where(low, np.minimum(size, wanted), size))


class StepScaling(Alarmed):
    """Step scaling of AWS Auto Scaling (2015; as documented in 2024), with the steps of the user guide's example.

    The guide keeps a metric near 50 %: at 60 % it adds 10 % and at 70 % 30 %, at 40 % it removes 10 % and at 30 % 30 %. The
    same multiples of the target utilisation are used here. An alarm goes off after two one-minute points in a row, and the
    last point determines the step. Percentages refer to the VMs that have warmed up (300 s after a scale-out). So within
    that time a higher step adds only the difference, and the same step adds nothing. Percentages are rounded towards zero,
    but to at least one VM. Scale-in waits for the warm-up and for 300 s after another scale-in.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at: the target.
        least: As in `Alarmed`.
    """

    _MINUTES = 2.0
    _OUT_STEPS, _IN_STEPS = ((1.2, 0.1), (1.4, 0.3)), ((0.8, -0.1), (0.6, -0.3))
    """Multiples of the target, the nearest first, and the change from there on as a share of VMs."""
    _PAUSE_S = 300.0
    """Warm-up time after scale-out, pause after scale-in."""

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, least: int = 0
    ) -> None:
        lanes = len(params.vm_capacity)
        super().__init__(params, utilisation=utilisation, least=least)
        self._warm: Int = np.zeros(lanes, np.int64)
        self._warm_at_s: Float = np.full(lanes, _LONG_AGO_S)
        self._in_again_s: Float = np.full(lanes, _LONG_AGO_S)

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the group's size after this tick (see `Peer.sized`)."""
        size = ordered(snapshot) if self._size is None else self._size
        point = self._points.add(snapshot.now_s, measured_utilisation(self._params, snapshot))
        if point is not None:
            size = self._stepped(snapshot, point / self._target, size)
        self._size = np.minimum(np.maximum(size, self._least), self._params.maximum)
        return self._size

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`).

        The number of warmed-up VMs is included only while other VMs warm up, because it has no effect otherwise.
        """
        enough = self._points.in_row(self._MINUTES)
        above, below = np.minimum(self._above, enough), np.minimum(self._below, enough)
        left_s = np.maximum(np.stack([self._warm_at_s, self._in_again_s]) - now_s, 0.0)
        warm = np.where(left_s[0] > 0, self._warm, 0)
        return [*self._points.memory(), np.stack([above, below, warm, _known(self._size, above)]), left_s]

    def _stepped(self, snapshot: Snapshot, ratio: Float, size: Int) -> Int:
        """Return the size after the step of the last point, if an alarm goes off."""
        now_s = snapshot.now_s
        warming = now_s < self._warm_at_s
        self._warm = np.where(warming, self._warm, snapshot.in_service)
        self._above = _in_row(self._above, ratio >= self._OUT_STEPS[0][0] - _ROUNDING)
        self._below = _in_row(self._below, ratio <= self._IN_STEPS[0][0] + _ROUNDING)
        enough = self._points.in_row(self._MINUTES)

        share = np.zeros_like(ratio)
        for at, change in self._OUT_STEPS:
            share = np.where(ratio >= at - _ROUNDING, change, share)
        for at, change in self._IN_STEPS:
            share = np.where(ratio <= at + _ROUNDING, change, share)
        wanted = self._warm + _part_of(self._warm, share)
        out = (self._above >= enough) & (wanted > size)
        low = (self._below >= enough) & ~warming & (now_s >= self._in_again_s) & (wanted < size)
        self._warm_at_s = np.where(out, now_s + self._PAUSE_S, self._warm_at_s)
        self._in_again_s = np.where(low, now_s + self._PAUSE_S, self._in_again_s)
        return np.where(out | low, wanted, size)


def _known(size: Int | None, like: Int) -> Int:
    return np.full_like(like, -1) if size is None else size


def _in_row(before: Int, holds: Bool) -> Int:
    return np.where(holds, before + 1, 0)


def _part_of(vms: Int, share: Float) -> Int:
    """Return a share of VMs, rounded as AWS does: towards zero, but to at least one VM unless the share is zero."""
    part = vms * share
    size = np.maximum(np.floor(np.abs(part) + _ROUNDING), 1.0)
    return np.where(part == 0.0, 0.0, np.copysign(size, part)).astype(np.int64)
