"""Failing ticks: one full traceback per kind and place of error, then one line per repetition."""

from __future__ import annotations

import traceback
from collections import Counter

from autoscaler.daemon.telemetry import Telemetry


class FailedTicks:
    """Reports failing ticks, and counts repetitions.

    Args:
        telemetry: Where failures are logged and counted.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._failures: Counter[tuple[str, str, int]] = Counter()

    def tell(self, tick: int, error: Exception) -> None:
        """Report a tick that has failed."""
        self._telemetry.ticks_failed.inc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        key = type(error).__name__, place.filename, place.lineno or 0
        self._failures[key] += 1
        words = f"{type(error).__name__}: {error}"
        if self._failures[key] == 1:
            text = f"{words}; nothing is done, please report"
            self._telemetry.log.error("tick_failed", tick=tick, text=text, exc_info=error)
        else:
            text = f"{words}; nothing is done, {self._failures[key]} times so far"
            self._telemetry.log.error("tick_failed", tick=tick, text=text)
