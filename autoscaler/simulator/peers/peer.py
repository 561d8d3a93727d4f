"""What all peers share: autoscaling rules that others ship, as deciders that a policy has to beat.

A peer answers a Snapshot with a Decision, like the policy itself, so an engine runs it in the policy's place,
on the same plant, bounds and prices. It sees what the policy sees and no more: nothing here is given a trace.

Rules of this file: each class states whose rule it is, since when, and what it makes of ticks that are not
the vendor's own interval. Windows come in seconds and become ticks in the constructor, at least one. All
arrays are over L lanes, element-wise, so a lane never sees another; a knob is one number or one per lane: `utilisation` is
the share of a VM's capacity to aim at, `ahead_s` the time from an order to service. A peer
is plain data: a copy or a pickle of it goes on as it would. It is asked once per tick. Where demand is
unknown, the vendors' rules hold, and so do these.

Utilisation is demand over what the VMs in service can do at the objective, so it may exceed 1: the favourable
case, in which the peer is fed a request rate and not a saturating processor metric.

Not here: the rules themselves (the other modules of this room), and everything that takes hindsight
(`judging.clairvoyant`).
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
"""What peers aim at unless told otherwise: 30 % headroom, as the plain reactive policy has it."""

CLOCK_S = 60.0
"""Peers that act at times of the clock act at every whole one of these, or at parts of it."""

DAY_S = 86_400.0

ROUNDING = 1e-9
UNKNOWN = -1
_MOST_VMS = 1e9


class Peer(Protocol):
    """A decider: anything that answers what is known now with what to do."""

    def decide(self, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
        """Decide for every lane; the outlook may be ignored."""
        ...

    def sized(self, snapshot: Snapshot) -> Int:
        """Only the number of VMs wanted in service, before bounds: int64 (L,). Instead of `decide`, once a tick."""
        ...

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """All that its future depends on, before the tick at `now_s`: arrays (n, L), equal where the futures are.

        Moments are told as what is left of them, and windows from the oldest on, so that lanes that began at
        different times can be compared.
        """
        ...


def window_ticks(seconds: float, tick_s: float) -> int:
    """Ticks that cover a window: at least one, where a tick is longer than the window."""
    return max(1, math.ceil(seconds / tick_s - ROUNDING))


def ordered(snapshot: Snapshot) -> Int:
    """VMs in service or on their way there: int64 (L,)."""
    return (snapshot.in_service + snapshot.starting).astype(np.int64)


def vms_for(work_per_s: Float, per_vm: Float) -> Int:
    """Fewest VMs that can do the work: int64 (L,), 0 where it is unknown."""
    need = np.fmax(np.ceil(work_per_s / per_vm - ROUNDING), 0.0)
    return np.minimum(need, _MOST_VMS).astype(np.int64)


def answered(params: LaneParams, snapshot: Snapshot, wish: Int) -> Decision:
    """The Decision for a number of VMs wanted in service: within bounds, from what there is.

    It has no reasons of ours and no forecast. The warm target is what AWS documents as the default of its warm
    pools: everything up to the maximum that does not run.
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
    """Sum over rows, the oldest first whatever the number of lanes: float64 (L,)."""
    total: Float = np.add.accumulate(rows, axis=0, dtype=np.float64)[-1]
    return total


def over_lanes(value: float | Float, params: LaneParams) -> Float:
    """A knob as float64 (L,)."""
    return np.broadcast_to(np.asarray(value, np.float64), params.vm_capacity.shape).copy()


def measured_utilisation(params: LaneParams, snapshot: Snapshot) -> Float:
    """Demand over capacity in service: float64 (L,); NaN where either is unknown or nothing is in service."""
    capacity = snapshot.in_service * params.vm_capacity
    shares: Float = np.full(len(capacity), np.nan)
    np.divide(snapshot.demand, capacity, out=shares, where=capacity > 0)
    return shares


class RollingMaximum:
    """The highest of the last so many pushes, per lane; -1 where none was known.

    Args:
        length: Pushes that count.
        lanes: Number of lanes.
    """

    def __init__(self, length: int, lanes: int) -> None:
        self._ring: Int = np.full((length, lanes), UNKNOWN, np.int64)
        self._next = 0

    def push(self, value: Int, known: Bool) -> Int:
        """Note one value per lane, where known, and answer the highest: int64 (L,)."""
        self._ring[self._next] = np.where(known, value, UNKNOWN)
        self._next = (self._next + 1) % len(self._ring)
        highest: Int = np.maximum.reduce(self._ring, axis=0)
        return highest

    def memory(self) -> Int:
        """The pushes, the oldest first: int64 (length, L)."""
        return np.roll(self._ring, -self._next, axis=0)


class Sized(ABC):
    """A peer whose whole rule is a number of VMs: `sized` says it, `decide` makes a Decision of it.

    Args:
        params: The lanes.
    """

    def __init__(self, params: LaneParams) -> None:
        self._params = params

    @abstractmethod
    def sized(self, snapshot: Snapshot) -> Int:
        """VMs wanted per lane: int64 (L,)."""

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """As in `Peer`; a rule that remembers something says so itself."""
        del now_s
        return []

    def decide(self, snapshot: Snapshot, outlook: Outlook | None) -> Decision:
        """As in `Peer`."""
        del outlook
        return answered(self._params, snapshot, self.sized(snapshot))


def passes(every_s: float, now_s: float, tick_s: float) -> bool:
    """Whether the tick that ends now reaches a multiple of a time of the clock; every tick as long as it does."""
    return math.floor(now_s / every_s + ROUNDING) > math.floor((now_s - tick_s) / every_s + ROUNDING)


def params_of(params: LaneParams, lanes: slice) -> LaneParams:
    """Some lanes of the parameters."""
    values = {field.name: getattr(params, field.name) for field in fields(LaneParams)}
    parts: dict[str, Any] = {k: v[..., lanes] for k, v in values.items() if isinstance(v, np.ndarray)}
    return replace(params, **parts)
