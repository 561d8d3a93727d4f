"""The life of a daemon in a process: signals, housekeeping, and an end that leaves VMs as they are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import JournalError
from autoscaler.ports import Clock, Journal

PRUNE_EVERY_S = 3600.0
CLOSE_WITHIN_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    daemon: Daemon,
    adapters: Iterable[Closable],
    *,
    retention: Retention | None = None,
    for_s: float | None = None,
) -> None:
    """Run the daemon until a signal, an error, or the given time; then close everything, each within bounds.

    Args:
        daemon: Not yet running.
        adapters: Providers and sources, closed in this order; the journal is closed last.
        retention: How much the journal keeps; None keeps all.
        for_s: Seconds of the event loop after which to end; None means never.
    """
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, daemon.stop)
    timer = loop.call_later(for_s, daemon.stop) if for_s is not None else None
    housekeeping = asyncio.create_task(_housekeep(daemon, retention)) if retention else None
    try:
        await daemon.run()
    finally:
        if timer:
            timer.cancel()
        if housekeeping:
            housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await housekeeping
        for adapter in (*adapters, daemon.journal):
            await _close(daemon, adapter)
        for number in _SIGNALS:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)


async def _close(daemon: Daemon, adapter: Closable) -> None:
    name = type(adapter).__name__
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await adapter.close()
    except TimeoutError:
        daemon.telemetry.log.warning("close_failed", text=f"{name} did not close within {CLOSE_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001  the others must be closed too
        daemon.telemetry.log.warning("close_failed", text=f"{name}: {error}")


async def _housekeep(daemon: Daemon, retention: Retention) -> None:
    clock: Clock = daemon.clock
    journal: Journal = daemon.journal
    while True:
        await clock.sleep_until(clock.monotonic() + PRUNE_EVERY_S)
        try:
            await journal.prune(before_s=clock.now() - retention.seconds, max_bytes=retention.max_bytes)
        except JournalError as error:
            daemon.telemetry.log.warning("journal_failed", text=f"pruning: {error}")
