"""What all peers share: autoscaling rules that others ship, as deciders that a policy has to beat.

A peer answers a Snapshot with a Decision, like the policy itself. So an engine runs it in the policy's place, on the same
plant, bounds and prices. It sees what the policy sees and no more: no peer is given a trace.

Rules of this file: each class states whose rule it is, the versions or years that it describes, and how it treats ticks that
differ from the vendor's own interval. Windows are given in seconds and become ticks in the constructor, at least one. All
arrays are over L lanes, element-wise, so a lane never sees another. A setting is one number or one per lane: `utilisation`
is the share of a VM's capacity to aim at, `ahead_s` the time from an order to service. A peer is plain data: it can be
copied or pickled at any time and continued. It is asked once per tick. The vendors' rules for unknown demand are part of the
peers.

Utilisation is demand divided by what the VMs in service can do at the objective, so it may exceed 1. This is the most
favourable case: the peer is given a request rate and not a processor metric that saturates.

The rules themselves are in the other modules of this package, and everything that needs hindsight is in
`judging.clairvoyant`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import NO_CEILING, Bool, Decision, Float, Int, Outlook, Snapshot, Stage

USUAL_UTILISATION = 1.0 / 1.3
"""The share of a VM's capacity that peers aim at unless told otherwise: 30 % headroom, like the plain reactive policy."""

CLOCK_S = 60.0
"""Seconds; peers that act at times of the clock act at every multiple of this, or at fractions of it."""

DAY_S = 86_400.0

ROUNDING = 1e-9
UNKNOWN = -1
_MOST_VMS = 1e9


class Peer(Protocol):
    """A decider: an object that turns what is known now into a decision."""

    def decide(self, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
        """Decide for every lane; the outlook may be ignored."""
        ...

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted in service, before bounds: int64 (L,). To be called instead of `decide`, once a tick."""
        ...

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that the future depends on before the tick at `now_s`: arrays (n, L), equal where futures are equal.

        Moments are given as the time left until them, and windows from the oldest on, so that lanes that began at different
        times can be compared.
        """
        ...


def window_ticks(seconds: float, tick_s: float) -> int:
    """Return the number of ticks that cover a window: at least one, even if a tick is longer than the window."""
    return max(1, math.ceil(seconds / tick_s - ROUNDING))


def ordered(snapshot: Snapshot) -> Int:
    """Return the VMs in service or starting: int64 (L,)."""
    return (snapshot.in_service + snapshot.starting).astype(np.int64)


def vms_for(work_per_s: Float, per_vm: Float) -> Int:
    """Return the fewest VMs that can do the work: int64 (L,), 0 if the work is unknown."""
    need = np.fmax(np.ceil(work_per_s / per_vm - ROUNDING), 0.0)
    return np.minimum(need, _MOST_VMS).astype(np.int64)


def answered(params: LaneParams, snapshot: Snapshot, wish: Int) -> Decision:
    """Return the Decision for a number of VMs wanted in service, within the bounds and the VMs that exist.

    It has no reasons and no forecast. The warm target is what AWS documents as the default of its warm pools: all VMs up to
    the maximum that do not run.
    """
    counts = snapshot.in_service.dtype
    ceiling = np.where(snapshot.ceiling == NO_CEILING, params.maximum, snapshot.ceiling)
    floor = np.maximum(np.minimum(params.minimum, ceiling), snapshot.floor)
    desired = np.minimum(np.maximum(wish, floor), np.maximum(ceiling, snapshot.floor))
    lacking = np.maximum(desired - ordered(snapshot), 0)
    start = np.minimum(lacking, snapshot.stopped) * snapshot.may_start
    room = np.maximum(params.max_provisioned - snapshot.provisioned, 0)
    provision = np.minimum(lacking - start, room) * (params.provision & snapshot.may_provision)
    surplus = np.maximum(snapshot.in_service - desired, 0)
    stop = np.minimum(surplus, snapshot.stoppable) * snapshot.may_stop
    most = np.minimum(params.maximum, params.max_provisioned)
    unknown = np.broadcast_to(np.nan, desired.shape)
    desired = desired.astype(counts)
    return Decision(
        wish=wish.astype(counts),
        desired=desired,
        start=start.astype(counts),
        provision=provision.astype(counts),
        stop=stop.astype(counts),
        warm_target=np.maximum(most - desired, 0).astype(counts),
        forecast=unknown,
        forecast_hi=unknown,
        reason=np.broadcast_to(np.int64(0), (len(Stage), len(desired))),
        value=np.broadcast_to(desired, (len(Stage), len(desired))),
    )


def summed(rows: Float | Int | Bool) -> Float:
    """Return the sum over rows, added from the oldest on whatever the number of lanes: float64 (L,)."""
    total: Float = np.add.accumulate(rows, axis=0, dtype=np.float64)[-1]
    return total


def over_lanes(value: float | Float, params: LaneParams) -> Float:
    """Return a setting as float64 (L,)."""
    return np.broadcast_to(np.asarray(value, np.float64), params.vm_capacity.shape).copy()


def measured_utilisation(params: LaneParams, snapshot: Snapshot) -> Float:
    """Return demand over capacity in service: float64 (L,); NaN if either is unknown or nothing is in service."""
    capacity = snapshot.in_service * params.vm_capacity
    shares: Float = np.full(len(capacity), np.nan)
    np.divide(snapshot.demand, capacity, out=shares, where=capacity > 0)
    return shares


class RollingMaximum:
    """The highest of the last `length` pushed values, per lane; -1 if none was known.

    Args:
        length: Number of pushes that count.
        lanes: Number of lanes.
    """

    def __init__(self, length: int, lanes: int) -> None:
        self._ring: Int = np.full((length, lanes), UNKNOWN, np.int64)
        self._next = 0

    def push(self, value: Int, known: Bool) -> Int:
        """Push one value per lane, if known, and return the highest of the window: int64 (L,)."""
        self._ring[self._next] = np.where(known, value, UNKNOWN)
        self._next = (self._next + 1) % len(self._ring)
        highest: Int = np.maximum.reduce(self._ring, axis=0)
        return highest

    def memory(self) -> Int:
        """Return the pushed values, the oldest first: int64 (length, L)."""
        return np.roll(self._ring, -self._next, axis=0)


class Sized(ABC):
    """A peer whose whole rule is a number of VMs: `sized` returns it, `decide` turns it into a Decision.

    Args:
        params: The lanes.
    """

    def __init__(self, params: LaneParams) -> None:
        self._params = params

    @abstractmethod
    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted per lane: int64 (L,)."""

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return no memory (see `Peer.memory`); a rule that remembers something overrides this."""
        del now_s
        return []

    def decide(self, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
        """Decide from the number of VMs wanted (see `Peer.decide`)."""
        del outlook
        return answered(self._params, snapshot, self.sized(snapshot))


def passes(every_s: float, now_s: float, tick_s: float) -> bool:
    """Whether the clock has passed a multiple of `every_s` since the tick before; always, if a tick is at least as long."""
    return math.floor(now_s / every_s + ROUNDING) > math.floor((now_s - tick_s) / every_s + ROUNDING)


def params_of(params: LaneParams, lanes: slice) -> LaneParams:
    """Return the parameters of some lanes."""
    values = {field.name: getattr(params, field.name) for field in fields(LaneParams)}
    parts: dict[str, Any] = {k: v[..., lanes] for k, v in values.items() if isinstance(v, np.ndarray)}
    return replace(params, **parts)
