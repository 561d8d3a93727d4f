"""libvirt's domain events (started, stopped, crashed, paused), over the connections that exist anyway.

Rules: the callback runs in the thread of libvirt's event loop, which may hold locks: it only hands the event on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from autoscaler.ports import Clock
from autoscaler.ports.hints import Hint, HintKind
from autoscaler.providers.libvirt.binding import error_of

_LIFECYCLE: Final = 0
_EVENTS: Final = {
    2: "started",
    3: "paused",
    4: "resumed",
    5: "stopped",
    6: "shut down",
    7: "suspended",
    8: "crashed",
}
WAIT_S: Final = 20.0
_MOST_KEPT: Final = 10_000


class LifecycleHints:
    """A `HintSource` for all hosts of one provider.

    Args:
        clock: Clock for the times of hints.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard: dict[str, Hint] = {}
        self._news = asyncio.Event()

    def listen(self, connection: Any) -> Callable[[], None]:
        """Subscribe to a connection's domain events, in its thread. Call the returned function before closing the connection."""
        try:
            number = connection.domainEventRegisterAny(None, _LIFECYCLE, self._told, None)
        except Exception as error:
            if error_of(error) is None:
                raise
            return lambda: None
        return lambda: _forget(connection, number)

    async def next(self) -> tuple[Hint, ...]:
        """Wait for events, for WAIT_S at most, and return the latest of each domain."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._news.wait()
        self._news.clear()
        heard, self._heard = self._heard, {}
        return tuple(heard.values())

    async def close(self) -> None:
        """Do nothing: the connections belong to the hosts."""

    def _told(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: object) -> None:
        what, loop = _EVENTS.get(event), self._loop
        if what is None or loop is None:
            return
        hint = Hint(HintKind.STATE, domain.UUIDString(), what, self._clock.now())
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._hear, hint)

    def _hear(self, hint: Hint) -> None:
        if len(self._heard) < _MOST_KEPT:
            self._heard[hint.vm_id] = hint
        self._news.set()


def _forget(connection: Any, number: int) -> None:
    try:
        connection.domainEventDeregisterAny(number)
    except Exception as error:
        if error_of(error) is None:
            raise
