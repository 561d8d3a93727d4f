"""The life of a daemon in a process: signals, background tasks, and an end that leaves VMs as they are."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from autoscaler.daemon.bounded import within
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.supervision import keep_alive
from autoscaler.daemon.telemetry import Telemetry

PRUNE_FIRST_S = 60.0
"""Housekeeping begins this soon, so that a daemon that is restarted often still keeps its journal small."""
PRUNE_EVERY_S = 3600.0
PRUNE_WITHIN_S = 600.0
CLOSE_WITHIN_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@runtime_checkable
class Closable(Protocol):
    """What is closed at the end."""

    async def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How much the journal keeps."""

    seconds: float
    max_bytes: int


async def run_to_the_end(
    daemon: Daemon, *, retention: Retention | None = None, for_s: float | None = None
) -> None:
    """Run the daemon until a signal, an error, or the given time. What it uses is closed by who opened it.

    Args:
        daemon: Not yet running.
        retention: How much the journal keeps; None keeps all.
        for_s: Seconds of the event loop after which to end; None means never.
    """
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, daemon.stop)
    timer = loop.call_later(for_s, daemon.stop) if for_s is not None else None
    tasks = {
        asyncio.create_task(keep_alive(daemon, name, body), name=name)
        for name, body in _background(daemon, retention).items()
    }
    # What was imported stays for good: out of the collector's sight, or each full collection stalls the loop
    # for 80 to 180 ms while a large listing is read (measured at 20,000 VMs).
    gc.collect()
    gc.freeze()
    try:
        await daemon.run()
    finally:
        gc.unfreeze()
        if timer:
            timer.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S)
        for number in _SIGNALS:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)


async def close(adapter: Closable, telemetry: Telemetry) -> None:
    """Close an adapter within a bound; a failure is logged, since the others must be closed too."""
    name = type(adapter).__name__
    try:
        await within(adapter.close, CLOSE_WITHIN_S)
    except TimeoutError:
        telemetry.log.warning("close_failed", text=f"{name} did not close within {CLOSE_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001  as the docstring says
        telemetry.log.warning("close_failed", text=f"{name}: {error}")


def _background(daemon: Daemon, retention: Retention | None) -> dict[str, Callable[[], Awaitable[object]]]:
    """What runs beside the loop, by name."""
    found: dict[str, Callable[[], Awaitable[object]]] = {}
    if retention is not None:
        found["housekeeping"] = partial(_housekeep, daemon, retention)
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


async def _watch(daemon: Daemon, every_s: float) -> None:
    """Signs of life while every fleet is decided on; none otherwise, and the service manager restarts us."""
    clock = daemon.clock
    while True:
        if not daemon.unhealthy():
            daemon.notifier.alive()
        await clock.sleep_until(clock.monotonic() + every_s)
