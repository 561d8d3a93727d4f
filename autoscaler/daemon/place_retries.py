"""Retries places that could not be used at startup, in the background and with growing pauses.

Rules of this file: only timing and wording. Whatever a place lacks, its fleets are held by what its listings say; nothing here
touches them.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn, Protocol

from autoscaler.daemon.loop import Daemon

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""First and longest pause between two attempts, in seconds of the clock; pauses double."""


class Openable(Protocol):
    """A place that is not open yet."""

    @property
    def trouble(self) -> str:
        """For people, why it is not open; empty once it is."""
        ...

    async def open(self) -> bool:
        """Try to open it, and return whether it is open now. Never raises."""
        ...


class PlaceOpener:
    """Keeps trying to open one place.

    Args:
        daemon: The daemon, for its clock, log, metrics and journal.
        name: The place's name in the settings.
        place: The place.
    """

    def __init__(self, daemon: Daemon, name: str, place: Openable) -> None:
        self._daemon = daemon
        self._name = name
        self._place = place
        self._said = ""
        self._is_open = asyncio.Event()

    async def opened(self) -> None:
        """Wait until the place is open."""
        await self._is_open.wait()

    async def watch(self) -> NoReturn:
        """Try until the place is open, and then wait for ever."""
        clock, pause_s = self._daemon.clock, FIRST_PAUSE_S
        await self._tell()
        while not self._is_open.is_set():
            await clock.sleep_until(clock.monotonic() + pause_s)
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
            if await self._place.open():
                self._is_open.set()
            await self._tell()
        while True:
            await asyncio.get_running_loop().create_future()

    async def _tell(self) -> None:
        """Report a change of the place's state in log, metric and journal."""
        telemetry, trouble = self._daemon.telemetry, self._place.trouble
        telemetry.provider_usable.labels(self._name).set(not trouble)
        if trouble == self._said:
            return
        self._said, now_s = trouble, self._daemon.clock.now()
        if trouble:
            text = f"{self._name} cannot be used, so its fleets are held; it is being retried: {trouble}"
            telemetry.log.error("provider_failed", text=text)
            await self._daemon.recorder.event("provider_failed", text, now_s)
        else:
            text = f"{self._name} can be used now"
            telemetry.log.info("provider_recovered", text=text)
            await self._daemon.recorder.event("provider_recovered", text, now_s)
