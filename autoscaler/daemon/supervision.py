"""Supervises background tasks: a task that ends is reported, counted, and restarted after a pause.

Rules of this file: the loop never waits for a background task. Pauses double from `FIRST_PAUSE_S` to `LONGEST_PAUSE_S`, so
that a task that ends at once costs almost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from autoscaler.daemon.loop import Daemon

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
LIVED_S = 600.0
"""A task that ran for at least this many seconds counts as healthy: the pause after it is short again."""


async def keep_alive(daemon: Daemon, name: str, body: Callable[[], Awaitable[object]]) -> NoReturn:
    """Run a task that is meant to last for ever, and run it again whenever it ends.

    Args:
        daemon: The daemon, for its clock, log, metrics and journal.
        name: Name of the task, for people and as a metric label; one of a closed set.
        body: Makes the awaitable; called again for each run.

    Raises:
        asyncio.CancelledError: The supervising task itself was cancelled.
    """
    clock = daemon.clock
    counted = daemon.telemetry.task_restarts.labels(name)
    pause_s = FIRST_PAUSE_S
    while True:
        began_s = clock.monotonic()
        why = await _why_it_ended(body)
        if clock.monotonic() - began_s >= LIVED_S:
            pause_s = FIRST_PAUSE_S
        counted.inc()
        text = f"{name}: {why}; it is restarted in {pause_s:g} s"
        daemon.telemetry.log.error("task_failed", task=name, text=text)
        await daemon.recorder.event("task_failed", text, clock.now())
        await clock.sleep_until(clock.monotonic() + pause_s)
        pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)


async def _why_it_ended(body: Callable[[], Awaitable[object]]) -> str:
    try:
        await body()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return "it was cancelled from within"
    except Exception as error:  # noqa: BLE001  whatever it is, it is reported and the task restarted
        return f"{type(error).__name__}: {error}"
    return "it ended by itself"
