"""Whether the daemon is healthy: the one answer behind /healthz, the status and the watchdog."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.daemon.fleets import Fleet

STALE_AFTER_TICKS = 3
"""A fleet that has had no decision for so many ticks makes the daemon unhealthy."""


def stale(fleets: Iterable[Fleet], *, now_s: float, began_at_s: float, tick_s: float) -> list[str]:
    """For a person, one sentence per fleet that is not being decided on; empty when all is well.

    Args:
        fleets: Which.
        now_s: The clock.
        began_at_s: When the daemon began, from which a fleet without a decision counts.
        tick_s: Length of a tick.
    """
    limit_s = STALE_AFTER_TICKS * tick_s
    found = []
    for fleet in fleets:
        since_s = now_s - (fleet.evaluated_at_s if fleet.evaluated_at_s is not None else began_at_s)
        if since_s > limit_s:
            found.append(f"{fleet.name} has had no decision for {since_s:.0f} s (limit {limit_s:.0f} s)")
    return found
