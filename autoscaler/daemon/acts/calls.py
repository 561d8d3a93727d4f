"""Provider calls in flight: time limits, and no outcome is lost.

An exception while an outcome is handled is reported; a later listing shows what became of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass

from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import name_of


@dataclass(frozen=True, slots=True)
class ActWaits:
    """How long acting may take, in seconds of the event loop.

    Attributes:
        call_s: Longest wait for one provider call.
        tick_s: Longest time that a tick waits for its calls.
    """

    call_s: float
    tick_s: float


class Calls:
    """Those of one kind.

    Args:
        telemetry: Told of those that raise.
        call_s: Longest time that one may take.
    """

    def __init__(self, telemetry: Telemetry, call_s: float) -> None:
        self._telemetry = telemetry
        self._call_s = call_s
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Make a call, and settle it whenever it ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self) -> None:
        """Wait for what is under way, no longer than one call may take."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._call_s)

    async def finish(self) -> None:
        """Wait for what is under way; what is open after that is settled by the next run."""
        await self.wait()
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            text = (
                f"{type(error).__name__}: {error}; a listing will show what became of it; please report this"
            )
            self._telemetry.log.error("act_failed", text=text)


def may_keep_others(fleet: Fleet) -> bool:
    """Whether a call for this fleet is not worth waiting for: its provider does not list, and other providers' fleets would wait."""
    return bool(fleet.listing_error) and bool(name_of(fleet.provider))
