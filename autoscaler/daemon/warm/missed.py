"""Missed warm starts: VMs made from nothing for demand because no stopped VM was available.

Each of them took as long as a new VM takes, which the warm pool is there to avoid. The first of a series is an event, which
says what was in the pool and what to do.

Rules of this file: counting and wording; times come in as arguments.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from autoscaler.daemon.vms.tracked import Phase
from autoscaler.ports import Note
from autoscaler.words import counted

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

DAY_S, MINUTE_S = 86400.0, 60.0
QUIET_S = 3600.0
"""Time without a missed warm start after which the next one is reported again, in seconds."""


class MissedStarts:
    """The missed warm starts of one fleet, by the minute, for a day."""

    def __init__(self) -> None:
        self._minutes: deque[tuple[float, int]] = deque()
        self._last_s: float | None = None

    def in_day(self, now_s: float) -> int:
        """Return how many VMs were missed in the last 24 hours."""
        self._forget(now_s)
        return sum(vms for _, vms in self._minutes)

    def made(self, fleet: Fleet, vms: int, now_s: float) -> list[Note]:
        """Count VMs that were made for demand, and return an event if this begins a series.

        A fleet whose policy wants no warm pool (`warm_pool.maximum: 0`) misses nothing.
        """
        if vms < 1 or fleet.policy.warm_pool.maximum == 0:
            return []
        self._forget(now_s)
        if self._minutes and abs(now_s - self._minutes[-1][0]) < MINUTE_S:
            at_s, before = self._minutes.pop()
            self._minutes.append((at_s, before + vms))
        else:
            self._minutes.append((now_s, vms))
        first = self._last_s is None or not 0.0 <= now_s - self._last_s < QUIET_S
        self._last_s = now_s
        return [Note("pool_exhausted", fleet.name, self._words(fleet, vms, now_s))] if first else []

    def _forget(self, now_s: float) -> None:
        while self._minutes and not 0.0 <= now_s - self._minutes[0][0] < DAY_S:
            self._minutes.popleft()

    def _words(self, fleet: Fleet, vms: int, now_s: float) -> str:
        text = f"{counted(vms, 'VM')} had to be made from nothing, since {_state(fleet, now_s)}"
        total = self.in_day(now_s)
        if total > vms:
            text += f"; {total} in the last 24 h"
        return f"{text}. {_advice(fleet, now_s)}"


def _state(fleet: Fleet, now_s: float) -> str:
    """Say what was in the warm pool."""
    stopped = fleet.inventory.in_phase(Phase.STOPPED)
    if not stopped:
        return "the warm pool was empty"
    held = sum(t.quarantined_until_s > now_s for t in stopped)
    dry = len(stopped) - held - len(fleet.inventory.startable(now_s))
    parts = [f"{held} in quarantine"] if held else []
    parts += [f"{dry} in places without room"] if dry > 0 else []
    return f"the warm pool had no VM to start: {len(stopped)} stopped, {' and '.join(parts) or 'none of them left'}"


def _advice(fleet: Fleet, now_s: float) -> str:
    """Say what a person can do about it."""
    pool, stopped = fleet.policy.warm_pool, fleet.inventory.in_phase(Phase.STOPPED)
    if any(t.quarantined_until_s > now_s for t in stopped):
        return f"See `autoscaler pool list --fleet {fleet.name}` for why, and release or evict them"
    if stopped:
        return "Spread the pool over more zones, or let VMs start as other types (vm.types)"
    if fleet.policy.refill is None:
        return "Nothing refills the pool: add `refill`, or provision more VMs by hand"
    if fleet.policy.refill.at_once * 4 < pool.minimum:
        return "Raise refill.at_once, so that the pool is full again sooner, or warm_pool.minimum"
    return f"Raise warm_pool.minimum ({pool.minimum} now) or warm_pool.spare ({pool.spare:.0%}), if it happens often"
