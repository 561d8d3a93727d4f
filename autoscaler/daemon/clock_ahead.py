"""When the clock jumps ahead: shifts the times at which waits began, so that none ends early.

Why: all waits are noted by the clock. If an hour were added between two ticks, every drain would end although the VMs still
have work, every start would be abandoned, and VMs that are being prepared would be deleted.

Rules of this file: times at which something began move with the clock; times at which a hold ends stay, because ending
a hold early does no harm. Small corrections are treated like late ticks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.tracked import TrackedVm
from autoscaler.ports import Clock

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet
    from autoscaler.daemon.vms.leasing import Leasing
    from autoscaler.daemon.warm.warm_pool import WarmPool

LEAST_S = 30.0
"""Smallest jump of the clock that counts as setting it, in seconds."""


class ClockAdvance:
    """Notices that the clock was set ahead, and moves the beginnings of waits by as much.

    Args:
        clock: The clock that may be set.
        telemetry: Where the jump is reported.
        leasing: Leases, which wait too; None if there are none.
    """

    def __init__(self, clock: Clock, telemetry: Telemetry, leasing: Leasing | None = None) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._leasing = leasing
        self._ahead_s = clock.now() - clock.monotonic()

    def set_back_by_s(self) -> float:
        """Return by how many seconds the clock was set back since the last tick; 0 if it was not."""
        return max(self._ahead_s - (self._clock.now() - self._clock.monotonic()), 0.0)

    def within(self, tick: int, fleets: Iterable[Fleet], warm_pools: Mapping[str, WarmPool]) -> None:
        """Do as `follow` during a tick, which may wait for seconds; a clock that was set back is left to the next tick."""
        if not self.set_back_by_s():
            self.follow(tick, fleets, warm_pools)

    def follow(self, tick: int, fleets: Iterable[Fleet], warm_pools: Mapping[str, WarmPool]) -> None:
        """If the clock was set ahead since the last call, move the beginnings of all waits by as much."""
        ahead_s = self._clock.now() - self._clock.monotonic()
        by_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        if by_s < LEAST_S:
            return
        text = f"the clock was set ahead by about {by_s:.0f} s; waits last as long as before"
        self._telemetry.log.warning("clock_set_ahead", tick=tick, text=text)
        if self._leasing is not None:
            self._leasing.set_ahead_by(by_s)
        for fleet in fleets:
            _move(fleet, warm_pools.get(fleet.name), by_s)


def _move(fleet: Fleet, pool: WarmPool | None, by_s: float) -> None:
    for t in fleet.inventory.vms.values():
        move_vm(t, by_s)
    fleet.inventory.touch()
    for leaving in fleet.drains.leaving.values() if fleet.drains is not None else ():
        leaving.since_s += by_s
        leaving.looked_at_s += by_s
        leaving.cordoned_at_s = _later(leaving.cordoned_at_s, by_s)
    for each in pool.preparing.values() if pool is not None else ():
        each.since_s += by_s
        each.running_s = _later(each.running_s, by_s)


def move_vm(t: TrackedVm, by_s: float) -> None:
    """Move every time noted for a VM later by `by_s` seconds."""
    t.phase_since_s += by_s
    t.missing_since_s += by_s
    t.hands_off_until_s += by_s
    t.restore_from_s += by_s
    t.ordered_at_s = _later(t.ordered_at_s, by_s)
    t.pending_at_s = _later(t.pending_at_s, by_s)
    t.in_service_from_s = _later(t.in_service_from_s, by_s)
    t.stopping_from_s = _later(t.stopping_from_s, by_s)
    if t.order is not None:
        t.order.sent_at_s += by_s
        t.order.answered_at_s = _later(t.order.answered_at_s, by_s)


def _later(at_s: float | None, by_s: float) -> float | None:
    return None if at_s is None else at_s + by_s
