"""Failing sources: log lines when a failure begins, when its reason changes, hourly, and when it ends.

A source that is down for a night fails at every tick, often alternating between two reasons (it hangs; it reports that it had no
answer). The metric counts every failure; the log reports it once.

Rules of this file: wording and times only; the clock comes in as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Container

from autoscaler.daemon.failed_listings import AGAIN_S
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.telemetry import Telemetry

_NUMBER = re.compile(r"\d+(\.\d+)?")


class FailedSources:
    """Reports failing sources.

    Args:
        telemetry: Where failures are reported.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._said_s: dict[str, dict[str, float]] = {}
        """By fleet and reason (without its numbers), when it was last reported; only while the source fails."""

    def follow(self, fleet: Fleet, error: str, now_s: float) -> None:
        """Report what is new about a fleet's source, and keep the error on the fleet.

        Args:
            fleet: The fleet.
            error: For people, what is wrong with the source; empty if nothing is.
            now_s: The current time.
        """
        if error:
            reason, said_s = _NUMBER.sub("0", error), self._said_s.setdefault(fleet.name, {})
            # A time ahead of a clock that was set back would suppress the log until the clock reaches it.
            if not 0.0 <= now_s - said_s.get(reason, now_s - AGAIN_S) < AGAIN_S:
                said_s[reason] = now_s
                self._telemetry.log.warning("source_failed", fleet=fleet.name, text=error)
        elif fleet.source_error:
            self._said_s.pop(fleet.name, None)
            self._telemetry.log.info("source_recovered", fleet=fleet.name, text="metrics are read again")
        fleet.source_error = error

    def keep(self, fleets: Container[str]) -> None:
        """Forget all fleets but these."""
        self._said_s = {name: said_s for name, said_s in self._said_s.items() if name in fleets}
