"""Rules that others ship, as deciders: what a policy must beat to be worth its while.

A peer answers a Snapshot with a Decision, like the policy itself, so an engine runs it in the policy's place,
on the same plant, bounds and prices. It sees what the policy sees and no more: nothing here is given a trace.

Rules of this file: each class states whose rule it is, since when, and what it makes of ticks that are not
the vendor's own interval. Windows come in seconds and become ticks in the constructor, at least one. All
arrays are over L lanes, element-wise, so a lane never sees another; a knob is one number or one per lane. A peer
is plain data: a copy or a pickle of it goes on as it would. It is asked once per tick. Where demand is
unknown, the vendors' rules hold, and so do these.

Utilisation is demand over what the VMs in service can do at the objective, so it may exceed 1: the favourable
case, in which the peer is fed a request rate and not a saturating processor metric.

Not here: the AWS rules (`alarms`), the peak of a trace and everything else that takes hindsight (`clairvoyant`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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

_ROUNDING = 1e-9
_UNKNOWN = -1
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
    return max(1, math.ceil(seconds / tick_s - _ROUNDING))


def ordered(snapshot: Snapshot) -> Int:
    """VMs in service or on their way there: int64 (L,)."""
    return (snapshot.in_service + snapshot.starting).astype(np.int64)


def vms_for(work_per_s: Float, per_vm: Float) -> Int:
    """Fewest VMs that can do the work: int64 (L,), 0 where it is unknown."""
    need = np.fmax(np.ceil(work_per_s / per_vm - _ROUNDING), 0.0)
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
        self._ring: Int = np.full((length, lanes), _UNKNOWN, np.int64)
        self._next = 0

    def push(self, value: Int, known: Bool) -> Int:
        """Note one value per lane, where known, and answer the highest: int64 (L,)."""
        self._ring[self._next] = np.where(known, value, _UNKNOWN)
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


class StaticPeak(Sized):
    """A fixed number of VMs in service, as a fleet sized by hand has it: no rule at all.

    Args:
        params: The lanes.
        vms: int64 (L,) or one number. Whoever takes it from the trace that is then played gives the peer hindsight:
            the most favourable sizing by hand, to be called that.
    """

    def __init__(self, params: LaneParams, vms: int | Int) -> None:
        super().__init__(params)
        self._vms: Int = np.broadcast_to(np.asarray(vms, np.int64), params.vm_capacity.shape).copy()

    def sized(self, snapshot: Snapshot) -> Int:
        """As in `Peer`."""
        del snapshot
        return self._vms


class RecentPeak(Sized):
    """As many VMs as the highest demand of a window needs.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        window_s: How long a demand counts after it was seen; longer ticks than that leave the last one.
    """

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, window_s: float
    ) -> None:
        super().__init__(params)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._recent = RollingMaximum(window_ticks(window_s, params.tick_s), len(params.vm_capacity))

    def sized(self, snapshot: Snapshot) -> Int:
        """As in `Peer`."""
        highest = self._recent.push(vms_for(snapshot.demand, self._usable), ~np.isnan(snapshot.demand))
        return np.where(highest == _UNKNOWN, ordered(snapshot), highest)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """As in `Peer`."""
        del now_s
        return [self._recent.memory()]


class Google(RecentPeak):
    """The autoscaler of Google Compute Engine's instance groups (documented since 2014; as of 2024).

    The recommended size is what the peak of the last 10 minutes needs at the wanted utilisation; scale-out
    happens at once, scale-in once the peak is 10 minutes old. Scale-in controls and the predictive mode are off, as
    they are by default. Any tick up to 10 minutes gives the same rule.
    """

    def __init__(self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION) -> None:
        super().__init__(params, utilisation=utilisation, window_s=600.0)


class DelayedOff(RecentPeak):
    """Ski rental: keep a VM until its idling has cost what a start costs.

    Per level of the fleet the deterministic break-even rule, at most twice the cost of knowing the future where all
    demand must be served (Karlin, Manasse, Rudolph, Sleator 1988), called DELAYEDOFF for servers (Gandhi, Gupta,
    Harchol-Balter, Kozuch 2010). All levels keep equally long, so the fleet is the peak of that window. Scale-out
    is at once. A break-even time shorter than a tick keeps nothing.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        break_even_s: Cost of a start over the price of a second in service: `break_even_s`.
    """

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, break_even_s: float
    ) -> None:
        # The tick in which the demand was seen is no idling yet.
        super().__init__(params, utilisation=utilisation, window_s=params.tick_s + break_even_s)


class Kubernetes(Sized):
    """The horizontal pod autoscaler, version 2 (Kubernetes 1.18 to 1.33), with its default behaviour.

    Every 15 s the ratio of measured to wanted utilisation is taken over what is in service. Within 10 % of 1
    nothing moves; else the wish is what is in service times the ratio, rounded up. For a rise, what is still
    starting counts as idle, and nothing moves if that brings the ratio back. Scale-out is limited to the larger of
    doubling and 4 more in 15 s; scale-in goes to the highest wish of the last 300 s. It holds on to the number it
    has set, as a Deployment does, so what fails to start is started again. Nothing in service, no metric:
    it does not come from zero by itself.

    Ticks shorter than 15 s decide at every 15 s of the clock that has passed. Longer ticks see one measurement, and
    the growth that as many turns of 15 s allow.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        tolerance: Relative difference that moves nothing.
        stabilisation_s: How long a wish holds back scale-in.
    """

    _SYNC_S = 15.0
    _MORE = 4

    def __init__(
        self,
        params: LaneParams,
        *,
        utilisation: float | Float = USUAL_UTILISATION,
        tolerance: float | Float = 0.1,
        stabilisation_s: float = 300.0,
    ) -> None:
        lanes = len(params.vm_capacity)
        super().__init__(params)
        self._wanted = over_lanes(utilisation, params)
        self._tolerance = over_lanes(tolerance, params)
        self._syncs = max(1, int(params.tick_s / self._SYNC_S + _ROUNDING))
        turns = window_ticks(stabilisation_s, max(params.tick_s, self._SYNC_S))
        self._recent = RollingMaximum(turns, lanes)
        self._replicas: Int = np.full(lanes, _UNKNOWN, np.int64)

    def sized(self, snapshot: Snapshot) -> Int:
        """As in `Peer`."""
        if (self._replicas == _UNKNOWN).any():
            self._replicas = ordered(snapshot)
            self._recent.push(self._replicas, self._replicas >= 0)
        if passes(self._SYNC_S, snapshot.now_s, self._params.tick_s):
            self._turn(snapshot)
        return self._replicas

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """As in `Peer`."""
        del now_s
        return [self._recent.memory(), self._replicas[np.newaxis]]

    def _turn(self, snapshot: Snapshot) -> None:
        current = self._replicas
        ratio = measured_utilisation(self._params, snapshot) / self._wanted
        known = ~np.isnan(ratio)
        ratio = np.where(known, ratio, 1.0)
        wish = np.where(known, self._wish(snapshot, ratio), current)
        highest = self._recent.push(wish, known)
        steady = np.minimum(np.maximum(current, wish), np.maximum(highest, wish))
        most = current
        for _ in range(self._syncs):
            most = np.maximum(2 * most, most + self._MORE)
        allowed = np.minimum(np.where(known, steady, current), most)
        self._replicas = np.minimum(np.maximum(allowed, self._params.minimum), self._params.maximum)

    def _wish(self, snapshot: Snapshot, ratio: Float) -> Int:
        current, ready = self._replicas, snapshot.in_service
        pending = np.maximum(current - ready, 0)
        rising = (ratio > 1.0) & (pending > 0)
        diluted = np.where(rising, ratio * ready / np.maximum(ready + pending, 1), ratio)
        counted = np.where(rising, ready + pending, ready)
        wish = np.ceil(diluted * counted - _ROUNDING).astype(np.int64)
        held = np.abs(diluted - 1.0) <= self._tolerance + _ROUNDING
        held |= rising & ((diluted < 1.0) | (wish < current))
        return np.where(held, current, wish)


class SameTimeBefore(Sized):
    """A schedule that writes itself: as many VMs as the same time one period ago needed.

    Seasonal naive, the rule of time-of-day schedules (React and its like; as a forecast the standard of comparison
    of Hyndman and Athanasopoulos 2021). It covers the past from now until a start ordered now would serve.
    Where that past is unknown, as in the first period, it follows the demand of now. A period that is no
    whole number of ticks is rounded to one.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        period_s: A day, or a week.
        ahead_s: From an order to service: the lead time.
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
        """As in `Peer`."""
        past = self._past
        past[self._next] = snapshot.demand
        # What was seen now is a period old when this place comes round again; the places after it are older.
        self._next = (self._next + 1) % len(past)
        then = past.take(range(self._next, self._next + self._ahead), axis=0, mode="wrap")
        wanted = np.fmax.reduce(then, axis=0)
        wanted = np.where(np.isnan(wanted), snapshot.demand, wanted)
        known = ~np.isnan(wanted)
        return np.where(known, vms_for(wanted, self._usable), ordered(snapshot))

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """As in `Peer`."""
        del now_s
        return [np.roll(self._past, -self._next, axis=0)]


def break_even_s(*, per_start: float, in_service_per_h: float) -> float:
    """How long a VM may idle for what a start costs: the window of `DelayedOff`.

    Args:
        per_start: Money per start, what is billed before the VM serves included.
        in_service_per_h: Money per VM-hour in service; where it is free, everything may be kept for a day.
    """
    return per_start / in_service_per_h * 3600.0 if in_service_per_h > 0 else DAY_S


def passes(every_s: float, now_s: float, tick_s: float) -> bool:
    """Whether the tick that ends now reaches a multiple of a time of the clock; every tick as long as it does."""
    return math.floor(now_s / every_s + _ROUNDING) > math.floor((now_s - tick_s) / every_s + _ROUNDING)
