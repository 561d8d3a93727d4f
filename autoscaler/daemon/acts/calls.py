"""Provider calls in flight: time limits, and no outcome is lost.

An exception while an outcome is handled is reported; a later listing shows what became of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine

from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import name_of


class TickWait:
    """The time that one tick waits for all its calls together; calls that outlast it are settled when they return.

    Args:
        seconds: How long, from now, in seconds of the event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._until_s = asyncio.get_running_loop().time() + seconds

    async def on(self, calls: Collection[asyncio.Task[None]]) -> None:
        """Wait for these calls as long as there is time left."""
        if calls:
            left_s = self._until_s - asyncio.get_running_loop().time()
            await asyncio.wait(calls, timeout=max(left_s, 0.0))


class Calls:
    """Keeps track of calls in flight.

    Args:
        telemetry: Where exceptions are reported.
        call_s: Longest time of one call, in seconds of the event loop.
    """

    def __init__(self, telemetry: Telemetry, call_s: float) -> None:
        self._telemetry = telemetry
        self._call_s = call_s
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a call and the handling of its outcome in a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self) -> None:
        """Wait for the calls in flight, no longer than one call may take."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._call_s)

    async def finish(self) -> None:
        """Wait for the calls in flight, then cancel the rest; the next run settles what is still open."""
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


def may_delay_tick(fleet: Fleet) -> bool:
    """Return whether the tick should not wait for calls of this fleet.

    If its provider does not list, its calls may hang, and the fleets of other providers would wait for them.
    """
    return bool(fleet.listing_error) and bool(name_of(fleet.provider))
