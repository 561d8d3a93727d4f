"""Bounds for expensive HTTP answers: how much loop time and memory they may take, however many clients ask.

Why: building the status of 300 fleets takes 0.3 s of loop time, and the answer has 0.9 MB. Twenty clients that poll without a pause
would leave no time for decisions. Thousands that ask and never read would take gigabytes, since each has its own copy waiting to be sent.

Rules of this file: nothing here depends on the content of an answer. Times are those of the event loop, on which answers are built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

LONG_S: Final = 0.05
"""An answer that took longer than this to build is kept for a while."""
SPARED: Final = 3.0
"""How long such an answer is kept, as a multiple of the time to build it: building takes at most a quarter of the loop's time."""
MOST_UNREAD: Final = 64 << 20
"""Limit of unread bytes, over all clients."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SharedAnswer:
    """An answer shared by all clients that ask in the same turn of the loop, and for longer if it is slow to build.

    Args:
        make: Builds the answer.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._kept: bytes | None = None

    def now(self) -> bytes:
        """Return the current answer. A slow one may be older, by at most a few times the time it took to build."""
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


class UnsentBytes:
    """The bytes of answers that clients have not read yet.

    Args:
        connections: All open connections.
        most: Bytes above which large answers are refused.
    """

    def __init__(self, connections: Callable[[], Iterable[RequestHandler]], most: int = MOST_UNREAD) -> None:
        self._connections, self._most = connections, most

    @property
    def is_too_much(self) -> bool:
        """True if so much is unread that large answers are refused."""
        waiting = 0
        for each in self._connections():
            # A connection that is closing has no transport.
            if each.transport is not None and isinstance(each.transport, asyncio.WriteTransport):
                waiting += each.transport.get_write_buffer_size()
        return waiting > self._most

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler that calls this one only while there is room for its answer, and answers 503 otherwise."""

        async def guard(request: web.Request) -> web.StreamResponse:
            if self.is_too_much:
                return web.Response(
                    status=503,
                    headers={"Retry-After": "60"},
                    text=f"{self._most >> 20} MB of answers are waiting to be read; check which client does not read\n",
                )
            return await handler(request)

        return guard
