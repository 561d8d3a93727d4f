"""Whether the daemon is healthy: the one answer behind /healthz, the status and the watchdog."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.daemon.fleets import Fleet

STALE_AFTER_TICKS = 3
"""Ticks without a decision for a fleet after which the daemon is unhealthy."""


def stale(fleets: Iterable[Fleet], *, now_s: float, began_at_s: float, tick_s: float) -> list[str]:
    """Return one sentence, for people, per fleet that is not being decided on; empty if every fleet is.

    Args:
        fleets: The fleets.
        now_s: The current time.
        began_at_s: When the daemon started; counts as the last decision of fleets that have had none.
        tick_s: Length of a tick, in seconds.
    """
    limit_s = STALE_AFTER_TICKS * tick_s
    found = []
    for fleet in fleets:
        since_s = now_s - (fleet.evaluated_at_s if fleet.evaluated_at_s is not None else began_at_s)
        if since_s > limit_s:
            found.append(f"{fleet.name} has had no decision for {since_s:.0f} s (limit {limit_s:.0f} s)")
    return found
