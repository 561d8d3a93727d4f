"""Wakes the loop: at the next point of the grid, or early if something cannot wait.

What cannot wait (pushed samples beyond what is ordered, an operator's change, VMs that must be requested again) requests an
early turn: a decision within a tick that has already been decided. It covers only the fleets that asked, so that nothing happens
twice in a tick for the others.

Rules of this file: time and counting only; `loop` defines what an early turn does. Early turns cost provider calls, so they
are limited by a token bucket: two at once, one more every half tick. Requests wait while the bucket is empty, and a regular
tick that begins meanwhile serves them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.core.queues import demand_if
from autoscaler.core.types import Signal
from autoscaler.daemon.acts.fallbacks import provisionable_now
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.ports import Clock

EARLY_AT_ONCE = 2.0
EARLY_PER_TICK = 2.0
NEAR_S = 2.0
"""A tick that begins within this time is early enough for VMs that are requested again, in seconds."""


class Cause(StrEnum):
    """What wakes the loop early, the one that needs the most work first."""

    OPERATOR = "operator"
    """An operator changed something."""
    HINT = "hint"
    """The cloud announced something about a VM."""
    PUSH = "push"
    """Pushed samples need more VMs than are ordered."""
    RETRY = "retry"
    """VMs were left out because the API budget was spent, or failed after a decision had counted on them."""


@dataclass(frozen=True, slots=True)
class EarlyTurn:
    """An early turn.

    Attributes:
        number: Number of the early turn in this process, from 1; a part of client tokens.
        fleets: The fleets to decide on; empty means all.
        cause: What asked for the turn. If several causes did, the one that needs the most work.
    """

    number: int
    fleets: frozenset[str]
    cause: Cause

    @property
    def lists(self) -> bool:
        """Whether the turn lists the VMs again.

        Pushed samples can only scale out, and for that the last listing and the orders since are enough. Asking the
        provider first would cost the time that the early turn is meant to save. The same holds for VMs that are
        requested again.
        """
        return self.cause not in (Cause.PUSH, Cause.RETRY)

    def has(self, fleet: str) -> bool:
        """Return whether the turn decides on this fleet."""
        return not self.fleets or fleet in self.fleets


def needs_more(fleet: Fleet, pushed: float, vms: int, now_s: float) -> bool:
    """Return whether pushed samples need more VMs than are ordered, and more can be had.

    This is a cheap estimate that decides only whether to wake the loop.

    Args:
        fleet: The fleet of the samples.
        pushed: Sum of the latest value of each VM.
        vms: How many VMs pushed them; ignored if the value is that of the whole fleet.
        now_s: The current time.
    """
    policy = fleet.policy
    counts = fleet.inventory.counts(now_s, fleet.minimum_on_time_s)
    ordered = counts.in_service + counts.starting
    if now_s < fleet.held_until_s or ordered >= policy.bounds.maximum:
        return False
    if not (counts.startable or provisionable_now(fleet, now_s)):
        return False
    signal = Signal[policy.signal.kind.upper()]
    demand = pushed
    if signal is Signal.QUEUE:
        if fleet.queue is None:
            return False
        serving = counts.in_service * fleet.capacity_per_s
        demand = demand_if(fleet.queue, pushed, now_s, serving, policy.signal.drain_time_s)
    elif signal is not Signal.TOTAL:
        # Assume that all VMs in service are like those that have pushed.
        demand *= max(len(fleet.inventory.in_phase(Phase.IN_SERVICE)) / max(vms, 1), 1.0)
    if signal is Signal.UTILISATION:
        if vms and pushed / vms >= policy.signal.saturation:
            return True
        demand *= policy.vm.capacity_per_s
    if signal is Signal.CONCURRENCY:
        demand *= policy.vm.capacity_per_s / (policy.signal.in_flight or 1.0)
    headroom = policy.reactive.headroom if policy.reactive else 0.0
    return demand * (1.0 + headroom) > ordered * policy.vm.capacity_per_s * (1.0 + 1e-9)


class LoopSleep:
    """The sleep of the loop, which early turns and `stop` end.

    Args:
        clock: What the loop sleeps on.
        tick_s: Length of a tick, in seconds.
    """

    def __init__(self, clock: Clock, tick_s: float) -> None:
        self._clock = clock
        self._jumps_to: Callable[[float], bool] = getattr(clock, "jumps_to", _waits)
        self._refill_s = tick_s / EARLY_PER_TICK
        self._allowed = EARLY_AT_ONCE
        self._counted_s: float | None = None
        self._asked: dict[Cause, set[str] | None] = {}
        """By cause, the fleets that asked; None means all."""
        self._taken = 0
        self._until_s = -math.inf
        self._asleep: asyncio.Task[object] | None = None
        self._woken = False
        self.stopping = False

    def ask(self, fleets: Iterable[str] | None, cause: Cause) -> None:
        """Ask for an early turn for these fleets (None: for all) as soon as the token bucket allows it."""
        before = self._asked.get(cause, set())
        self._asked[cause] = None if fleets is None or before is None else before.union(fleets)
        self._wake()

    def ask_again(self, fleets: Iterable[str]) -> None:
        """Ask for an early turn for fleets whose VMs must be requested again, unless the next tick is near anyway.

        Otherwise, if a decision counted on these VMs, or if ticks are long, nothing would be done until the next tick, and
        the API budget would lie idle.
        """
        if self._asleep is None or self._until_s - self._clock.monotonic() >= NEAR_S:
            self.ask(fleets, Cause.RETRY)

    def take(self) -> EarlyTurn | None:
        """Return the early turn that is due and take its token from the bucket; None if none is due."""
        if not self._asked or self._wait_s() > 0.0:
            return None
        named = list(self._asked.values())
        fleets = [one for one in named if one is not None]
        everybody = len(fleets) < len(named)
        cause = next(one for one in Cause if one in self._asked)
        self._allowed -= 1.0
        self._taken += 1
        self._asked = {}
        return EarlyTurn(self._taken, frozenset() if everybody else frozenset().union(*fleets), cause)

    def served(self) -> None:
        """Drop all requests: the regular tick that begins now serves them."""
        self._asked = {}

    def stop(self) -> None:
        """End the sleep; later sleeps return at once."""
        self.stopping = True
        self._wake()

    async def sleep_to(self, monotonic_s: float) -> None:
        """Sleep until that time, or until an early turn is due or the loop is to stop."""
        task = asyncio.current_task()
        self._until_s = monotonic_s
        while not self.stopping and task is not None:
            until_s = monotonic_s
            if self._asked:
                until_s = min(until_s, self._clock.monotonic() + self._wait_s())
            if self._jumps_to(until_s) or not await self._slept(task, until_s):
                return
            if self._asked and self._wait_s() <= 0.0:
                return

    async def _slept(self, task: asyncio.Task[object], until_s: float) -> bool:
        """Sleep, and return whether the sleep was ended early by `_wake`."""
        cancelled_before = task.cancelling()
        self._asleep, self._woken = task, False
        try:
            await self._clock.sleep_until(until_s)
        except asyncio.CancelledError:
            # If the daemon was cancelled from outside as well, that cancellation must go on.
            if not (self._woken and task.uncancel() <= cancelled_before):
                raise
            return True
        finally:
            self._asleep = None
        return False

    def _wake(self) -> None:
        if self._asleep is not None and not self._woken:
            self._woken = True
            self._asleep.cancel()

    def _wait_s(self) -> float:
        """Return the seconds until the bucket allows an early turn; 0 if it does now."""
        now_s = self._clock.monotonic()
        passed_s = 0.0 if self._counted_s is None else max(now_s - self._counted_s, 0.0)
        self._counted_s = now_s
        self._allowed = min(self._allowed + passed_s / self._refill_s, EARLY_AT_ONCE)
        # Without the tolerance, rounding could make the loop sleep for no time at all.
        return 0.0 if self._allowed >= 1.0 - 1e-9 else (1.0 - self._allowed) * self._refill_s


def _waits(_: float) -> bool:
    """Stand in for `jumps_to` of clocks that cannot jump: no time passes without waiting."""
    return False
