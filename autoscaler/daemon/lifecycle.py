"""The life of a daemon in a process: signals, housekeeping, and an end that leaves VMs as they are."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import JournalError
from autoscaler.ports import Clock, Journal

PRUNE_FIRST_S = 60.0
"""Housekeeping begins this soon, so that a daemon that is restarted often still keeps its journal small."""
PRUNE_EVERY_S = 3600.0
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
    housekeeping = asyncio.create_task(_housekeep(daemon, retention)) if retention else None
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
        if housekeeping:
            housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await housekeeping
        for number in _SIGNALS:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)


async def close(adapter: Closable, telemetry: Telemetry) -> None:
    """Close an adapter within a bound; a failure is logged, since the others must be closed too."""
    name = type(adapter).__name__
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await adapter.close()
    except TimeoutError:
        telemetry.log.warning("close_failed", text=f"{name} did not close within {CLOSE_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001  as the docstring says
        telemetry.log.warning("close_failed", text=f"{name}: {error}")


async def _housekeep(daemon: Daemon, retention: Retention) -> None:
    clock: Clock = daemon.clock
    journal: Journal = daemon.journal
    wait_s = PRUNE_FIRST_S
    while True:
        await clock.sleep_until(clock.monotonic() + wait_s)
        wait_s = PRUNE_EVERY_S
        try:
            await journal.prune(before_s=clock.now() - retention.seconds, max_bytes=retention.max_bytes)
        except JournalError as error:
            daemon.telemetry.log.warning("journal_failed", text=f"pruning: {error}")
