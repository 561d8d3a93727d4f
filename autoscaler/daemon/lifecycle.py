"""The daemon's life as a process: signals, background tasks that are restarted if they end, and a shutdown that leaves VMs as they are."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from autoscaler.daemon.closing import CLOSE_WITHIN_S, Closable, close
from autoscaler.daemon.garbage_collection import GarbageCollection
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.loop_errors import LoopErrors
from autoscaler.daemon.reloading import Reloads

PRUNE_FIRST_S = 60.0
"""Time from startup to the first housekeeping; short, so that the journal of a daemon that often restarts stays small."""
PRUNE_EVERY_S = 3600.0
PRUNE_WITHIN_S = 600.0
COLLECT_AT = 0.9
"""Fraction of a tick after which garbage is collected: by then the tick's work is over, unless it is late."""
COLLECT_EVERY_S = 5.0
"""Shortest time between two garbage collections outside of ticks, in seconds."""
COLLECT_YOUNG_EVERY_S = 0.05
"""Time between two small garbage collections while a tick is in progress, in seconds; each takes a few milliseconds."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Pauses before a background task that ended is restarted: they double, so that one that ends at once costs almost nothing."""
LIVED_S = 600.0
"""A task that ran for at least this many seconds counts as healthy: the pause after it is short again."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how large the journal may become.

    Attributes:
        seconds: Age after which records are deleted.
        max_bytes: Largest size of the journal.
    """

    seconds: float
    max_bytes: int


async def run_to_the_end(
    daemon: Daemon,
    *,
    retention: Retention | None = None,
    reloads: Reloads | None = None,
    beside: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
    for_s: float | None = None,
) -> None:
    """Run the daemon until a signal, an error, or the given time. Adapters stay open: their owner closes them.

    Args:
        daemon: A daemon that is not running yet.
        retention: How much the journal keeps; None keeps everything.
        reloads: Follows the policy folder, and reloads on SIGHUP; None does neither.
        beside: Further tasks to keep alive while the daemon runs, by name.
        for_s: Seconds of the event loop after which to end; None means never.
    """
    LoopErrors(daemon.telemetry).handle()
    with signal_handling(daemon, reloads):
        await _run(daemon, retention, reloads, beside, for_s)


@contextmanager
def signal_handling(daemon: Daemon, reloads: Reloads | None) -> Iterator[None]:
    """Handle signals in this context: SIGINT and SIGTERM stop the daemon in order, SIGHUP asks for a reload.

    Enter it before anything announces that the daemon is there, because a reader of the announcement may send a signal
    at once.
    """
    loop = asyncio.get_running_loop()
    handlers = dict.fromkeys(_SIGNALS, daemon.stop)
    if reloads is not None:
        handlers[signal.SIGHUP] = reloads.ask
    for number, handler in handlers.items():
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)


async def _run(
    daemon: Daemon,
    retention: Retention | None,
    reloads: Reloads | None,
    beside: Mapping[str, Callable[[], Awaitable[object]]] | None,
    for_s: float | None,
) -> None:
    loop = asyncio.get_running_loop()
    timer = loop.call_later(for_s, daemon.stop) if for_s is not None else None
    collecting = GarbageCollection()
    bodies = {**_background(daemon, retention, reloads, collecting), **(beside or {})}
    tasks = {asyncio.create_task(keep_alive(daemon, name, body), name=name) for name, body in bodies.items()}
    collecting.begin()
    try:
        await daemon.run()
    finally:
        collecting.end()
        if timer:
            timer.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S)


async def close_all(daemon: Daemon) -> None:
    """Close the sources and probes of the present fleets."""
    for fleet in daemon.fleets.all:
        for adapter in (fleet.source, fleet.probe):
            if isinstance(adapter, Closable):
                await close(adapter, daemon.telemetry)


def _background(
    daemon: Daemon, retention: Retention | None, reloads: Reloads | None, collecting: GarbageCollection
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the background tasks to run beside the loop, by name."""
    found: dict[str, Callable[[], Awaitable[object]]] = {}
    if retention is not None:
        found["housekeeping"] = partial(_housekeep, daemon, retention)
    found["memory"] = partial(_collect, daemon, collecting)
    if reloads is not None:
        found["policies"] = reloads.watch
    if daemon.notifier.watchdog_s is not None:
        found["watchdog"] = partial(_watch, daemon, daemon.notifier.watchdog_s / 2.0)
    return found


async def _housekeep(daemon: Daemon, retention: Retention) -> None:
    clock = daemon.clock
    wait_s = PRUNE_FIRST_S
    while True:
        await clock.sleep_until(clock.monotonic() + wait_s)
        wait_s = PRUNE_EVERY_S
        await daemon.recorder.prune(
            before_s=clock.now() - retention.seconds,
            max_bytes=retention.max_bytes,
            within_s=PRUNE_WITHIN_S,
        )


async def _collect(daemon: Daemon, collecting: GarbageCollection) -> None:
    """Collect garbage in small steps while a tick is in progress, and once shortly before a tick begins."""
    clock, tick_s = daemon.clock, daemon.settings.tick_s
    while True:
        now_s = clock.now()
        ticks = math.ceil((now_s + COLLECT_EVERY_S) / tick_s - COLLECT_AT)
        before_s = clock.monotonic() + (ticks + COLLECT_AT) * tick_s - now_s
        # Wake at the next tick first, if it comes before that time.
        await clock.sleep_until(min(clock.monotonic() + (1.0 - now_s / tick_s % 1.0) * tick_s, before_s))
        while daemon.is_ticking and clock.monotonic() < before_s:
            collecting.within_a_tick()
            await clock.sleep_until(clock.monotonic() + COLLECT_YOUNG_EVERY_S)
        await clock.sleep_until(before_s)
        collecting.between_ticks(clock.monotonic())


async def _watch(daemon: Daemon, every_s: float) -> None:
    """Report to the service manager's watchdog while every fleet is decided on; without reports it restarts the daemon."""
    clock = daemon.clock
    while True:
        if not daemon.unhealthy():
            daemon.notifier.alive()
        await clock.sleep_until(clock.monotonic() + every_s)


async def keep_alive(daemon: Daemon, name: str, body: Callable[[], Awaitable[object]]) -> NoReturn:
    """Run a background task that is meant to last for ever; whenever it ends, report and count that, and run it again.

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
