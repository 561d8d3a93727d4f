"""Wakes the loop: at the next point of the grid, or early if something cannot wait.

What cannot wait (pushed samples beyond what is ordered, an operator's change) requests an early turn: a decision within a tick
that has already been decided. It covers only the fleets that asked, so that nothing happens twice in a tick for the others.

Rules of this file: time and counting only; `loop` defines what an early turn does. Early turns cost provider calls, so they
are limited by a token bucket: two at once, one more every half tick. Requests wait while the bucket is empty, and a regular
tick that begins meanwhile serves them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.core.queues import demand_if
from autoscaler.core.types import Signal
from autoscaler.daemon.acts.ladder import may_be_made
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.ports import Clock

EARLY_AT_ONCE = 2.0
EARLY_PER_TICK = 2.0


class Cause(StrEnum):
    """Why the loop is woken."""

    PUSH = "push"
    """Pushed samples need more VMs than are ordered."""
    OPERATOR = "operator"
    """An operator changed something."""
    HINT = "hint"
    """The cloud told news of a VM."""


@dataclass(frozen=True, slots=True)
class Early:
    """An early turn.

    Attributes:
        number: Of the early turns of this process, from 1; goes into client tokens.
        fleets: Those that are decided on; empty for all.
        cause: What asked; the one that needs more where several did.
    """

    number: int
    fleets: frozenset[str]
    cause: Cause

    @property
    def lists(self) -> bool:
        """Whether the VMs are listed anew. Pushed samples only scale out, which rests on the last listing and on
        the orders since: asking the provider first would cost the time that was to be saved.
        """
        return self.cause is not Cause.PUSH

    def has(self, fleet: str) -> bool:
        """Whether it decides on this fleet."""
        return not self.fleets or fleet in self.fleets


def needs_more(fleet: Fleet, pushed: float, vms: int, now_s: float) -> bool:
    """Whether pushed samples need more VMs than are ordered, and some can be had. A hint, made in a few steps.

    Args:
        fleet: Whose.
        pushed: Sum of its latest values.
        vms: How many VMs pushed them; any number where the value is the fleet's.
        now_s: The clock.
    """
    policy = fleet.policy
    counts = fleet.inventory.counts(now_s, fleet.minimum_on_time_s)
    ordered = counts.in_service + counts.starting
    if now_s < fleet.held_until_s or ordered >= policy.bounds.maximum:
        return False
    if not (counts.startable or may_be_made(fleet, now_s)):
        return False
    signal = Signal[policy.signal.kind.upper()]
    demand = pushed
    if signal is Signal.QUEUE:
        if fleet.queue is None:
            return False
        serving = counts.in_service * fleet.capacity_per_s
        demand = demand_if(fleet.queue, pushed, now_s, serving, policy.signal.drain_time_s)
    elif signal is not Signal.TOTAL:
        # As if all VMs that serve were like those that have pushed.
        demand *= max(len(fleet.inventory.in_phase(Phase.IN_SERVICE)) / max(vms, 1), 1.0)
    if signal is Signal.UTILISATION:
        if vms and pushed / vms >= policy.signal.saturation:
            return True
        demand *= policy.vm.capacity_per_s
    if signal is Signal.CONCURRENCY:
        demand *= policy.vm.capacity_per_s / (policy.signal.in_flight or 1.0)
    headroom = policy.reactive.headroom if policy.reactive else 0.0
    return demand * (1.0 + headroom) > ordered * policy.vm.capacity_per_s * (1.0 + 1e-9)


class Waking:
    """The sleep of one loop.

    Args:
        clock: Time.
        tick_s: Length of a tick.
    """

    def __init__(self, clock: Clock, tick_s: float) -> None:
        self._clock = clock
        self._jumps_to: Callable[[float], bool] = getattr(clock, "jumps_to", _waits)
        self._refill_s = tick_s / EARLY_PER_TICK
        self._allowed = EARLY_AT_ONCE
        self._counted_s: float | None = None
        self._asked: dict[Cause, set[str] | None] = {}
        """By cause, the fleets; None for all."""
        self._taken = 0
        self._asleep: asyncio.Task[object] | None = None
        self._woken = False
        self.stopping = False

    def ask(self, fleets: Iterable[str] | None, cause: Cause) -> None:
        """Decide on these fleets (None: on all) as soon as may be."""
        before = self._asked.get(cause, set())
        self._asked[cause] = None if fleets is None or before is None else before.union(fleets)
        self._wake()

    def take(self) -> Early | None:
        """The early turn that is due, which is then taken from the bucket; None where none is."""
        if not self._asked or self._wait_s() > 0.0:
            return None
        named = list(self._asked.values())
        fleets = [one for one in named if one is not None]
        everybody = len(fleets) < len(named)
        cause = next(one for one in (Cause.OPERATOR, Cause.HINT, Cause.PUSH) if one in self._asked)
        self._allowed -= 1.0
        self._taken += 1
        self._asked = {}
        return Early(self._taken, frozenset() if everybody else frozenset().union(*fleets), cause)

    def served(self) -> None:
        """A regular tick begins, which serves everybody who has asked so far."""
        self._asked = {}

    def stop(self) -> None:
        """End the sleep; there is none any more."""
        self.stopping = True
        self._wake()

    async def sleep_to(self, monotonic_s: float) -> None:
        """Return at that time, or as soon as an early turn is due or the loop is to stop."""
        task = asyncio.current_task()
        while not self.stopping and task is not None:
            until_s = monotonic_s
            if self._asked:
                until_s = min(until_s, self._clock.monotonic() + self._wait_s())
            if self._jumps_to(until_s) or not await self._slept(task, until_s):
                return
            if self._asked and self._wait_s() <= 0.0:
                return

    async def _slept(self, task: asyncio.Task[object], until_s: float) -> bool:
        """Sleep; whether somebody ended it early."""
        cancelled_before = task.cancelling()
        self._asleep, self._woken = task, False
        try:
            await self._clock.sleep_until(until_s)
        except asyncio.CancelledError:
            # Unless somebody else has cancelled the daemon as well.
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
        """Seconds until the bucket allows an early turn; 0 where it does."""
        now_s = self._clock.monotonic()
        passed_s = 0.0 if self._counted_s is None else max(now_s - self._counted_s, 0.0)
        self._counted_s = now_s
        self._allowed = min(self._allowed + passed_s / self._refill_s, EARLY_AT_ONCE)
        # A hair below a whole one must not make the loop sleep for no time at all.
        return 0.0 if self._allowed >= 1.0 - 1e-9 else (1.0 - self._allowed) * self._refill_s


def _waits(_: float) -> bool:
    """Of a clock that does not jump: whether the time has come without waiting for it."""
    return False
