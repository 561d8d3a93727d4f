"""Recent history of fleets for the status page, read from the journal so that it survives restarts.

Rules of this file: the loop never waits for it. One reading at a time, in its own thread, of a bounded number of ticks; few requests
may wait, and if a reading hangs they are turned away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from autoscaler.errors import JournalError
from autoscaler.store.reader import EventFilter, JournalReader
from autoscaler.store.thread import OneThread

T = TypeVar("T")

MOST_TICKS: Final = 360
"""Most ticks of a fleet in one answer: one point per two or three pixels."""
MOST_EVENTS: Final = 50
MOST_ASKED: Final = 4
"""Most readings requested at the same time, including the one in progress."""
READ_WITHIN_S: Final = 10.0
_BUSY: Final = "the journal is being read, or does not answer; ask again later"
NUMBERS: Final = (
    "demand", "forecast_hi", "capacity", "shortage", "desired", "in_service", "starting", "stopped", "warm_target",
)  # fmt: skip
"""The fields of `FleetTick` that are returned for each tick."""


class JournalHistory:
    """Reads a journal while a daemon writes it.

    Args:
        state_dir: Directory of the journal.
        within_s: Longest wait for an answer, in seconds of the event loop.
    """

    def __init__(self, state_dir: Path, within_s: float = READ_WITHIN_S) -> None:
        self._state_dir, self._within_s = state_dir, within_s
        self._thread = OneThread("page")
        self._asked: list[Future[Any]] = []

    def close(self) -> None:
        """Stop reading, without waiting for a reading in progress."""
        self._thread.shutdown()

    async def ticks(self, fleet: str, until_s: float, hours: float) -> dict[str, Any]:
        """Return the last hours of a fleet as columns of equal length; unknown numbers are None, never zero.

        Args:
            fleet: Name of the fleet.
            until_s: End of the range, epoch seconds.
            hours: Length of the range.

        Raises:
            JournalError: The journal cannot be read, or not now.
        """
        start_s = until_s - 3600.0 * hours

        def read(journal: JournalReader) -> dict[str, Any]:
            rows, every = journal.sampled(fleet, start_s, math.nextafter(until_s, math.inf), MOST_TICKS)
            numbers = {name: [_known(getattr(row.recorded, name)) for row in rows] for name in NUMBERS}
            return {"fleet": fleet, "every": every, "at_s": [row.at_s for row in rows], **numbers}

        return await self._read(read)

    async def events(self, fleet: str | None) -> list[dict[str, Any]]:
        """Return the newest events, newest first: of `fleet` and of no single fleet, or all if `fleet` is None.

        Raises:
            JournalError: The journal cannot be read, or not now.
        """
        wanted = (None,) if fleet is None else (fleet, "")

        def read(journal: JournalReader) -> list[dict[str, Any]]:
            found = [
                each
                for name in wanted
                for each in journal.newest_events(EventFilter(fleet=name), MOST_EVENTS)[0]
            ]
            found.sort(key=lambda each: each.id, reverse=True)
            return [
                {"at_s": each.at_s, "kind": each.kind, "fleet": each.fleet or None, "text": each.text}
                for each in found[:MOST_EVENTS]
            ]

        return await self._read(read)

    async def _read(self, call: Callable[[JournalReader], T]) -> T:
        self._asked = [each for each in self._asked if not each.done()]
        if len(self._asked) >= MOST_ASKED:
            raise JournalError(_BUSY)

        def run() -> T:
            with JournalReader(self._state_dir) as journal:
                return call(journal)

        reading = self._thread.submit(run)
        self._asked.append(reading)
        answer = asyncio.wrap_future(reading)
        try:
            await asyncio.wait({answer}, timeout=self._within_s)
            if answer.done():
                return answer.result()
            raise JournalError(_BUSY)
        finally:
            # If the reading has not begun, it never will.
            answer.cancel()


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
