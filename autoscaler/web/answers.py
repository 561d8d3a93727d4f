"""Bounds for expensive HTTP answers: how much loop time and memory they may take, however many clients ask.

Why: the status of 300 fleets takes the loop 0.3 s and has 0.9 MB. Twenty who ask for it again and again would leave the decisions no
time, and thousands who ask and never read would take gigabytes, each with a copy of its own that waits to be sent.

Rules of this file: nothing of what is in an answer. Times are of the event loop, on which answers are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

LONG_S: Final = 0.05
"""An answer that takes longer to make is not made anew at once."""
SPARED: Final = 3.0
"""For so many times as long as it took to make it is given to all who ask: it takes the loop a quarter of its time at most."""
MOST_UNREAD: Final = 64 << 20
"""Bytes that wait to be read by all who have asked."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SharedAnswer:
    """An answer that is made for all who ask in the same turn of the loop, and while it would take too much of it.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._kept: bytes | None = None

    def now(self) -> bytes:
        """The answer, at most a few times older than it takes to make one."""
        if self._kept is None:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            self._kept = self._make()
            took_s = loop.time() - began_s
            if took_s > LONG_S:
                loop.call_later(SPARED * took_s, self._forget)
            else:
                loop.call_soon(self._forget)
        return self._kept

    def _forget(self) -> None:
        self._kept = None


class Unread:
    """What waits to be read by those who have asked.

    Args:
        connections: All that are open.
        most: Bytes, from which on nothing large is answered.
    """

    def __init__(self, connections: Callable[[], Iterable[RequestHandler]], most: int = MOST_UNREAD) -> None:
        self._connections, self._most = connections, most

    @property
    def is_too_much(self) -> bool:
        """Whether further answers would have to wait for those."""
        waiting = 0
        for each in self._connections():
            # One whose connection is ending, but not yet ended, has none.
            if each.transport is not None and isinstance(each.transport, asyncio.WriteTransport):
                waiting += each.transport.get_write_buffer_size()
        return waiting > self._most

    def guarded(self, handler: Handler) -> Handler:
        """The handler, which is asked only while there is room for its answer."""

        async def guard(request: web.Request) -> web.StreamResponse:
            if self.is_too_much:
                return web.Response(
                    status=503,
                    headers={"Retry-After": "60"},
                    text=f"{self._most >> 20} MB of answers wait to be read; see who asks and does not read\n",
                )
            return await handler(request)

        return guard
