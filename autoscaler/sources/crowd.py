"""What all requests to VMs share that are under way in one event loop: its turns.

Why: fifty fleets that are scraped begin thousands of requests at the same moment, and their answers come at the same
moment too. Each of them takes a tenth of a millisecond, and all of them in one turn would hold the loop for half a
second. How many are under way is not bounded here, or else a fleet whose VMs hang would hold up the others.

Rules of this file: first come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

BEGUN_PER_TURN = 16
"""Requests that begin in one turn of the loop: 2 to 4 ms of it."""


class Crowd:
    """The requests of one event loop; made within it."""

    def __init__(self) -> None:
        self._alone = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._left = BEGUN_PER_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renews = False

    async def may_begin(self) -> None:
        """Return when a request may begin."""
        if not self._renews:
            self._renews = True
            self._loop.call_soon(self._renew)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        await turn

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """For work on what came, or on what to ask for: one at a time, in a turn of its own."""
        async with self._alone:
            yield
            await next_turn()

    def _renew(self) -> None:
        """Another turn of the loop has begun."""
        self._left = BEGUN_PER_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may have been told to end
                turn.set_result(None)
                self._left -= 1
        self._renews = bool(self._waiting) or self._left < BEGUN_PER_TURN
        if self._renews:
            self._loop.call_soon(self._renew)


async def next_turn() -> None:
    """Let everything else that is ready in the loop go first."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()

    def take() -> None:
        if not turn.done():  # the round may have ended meanwhile
            turn.set_result(None)

    loop.call_soon(take)
    await turn


_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, Crowd] = WeakKeyDictionary()


def crowd() -> Crowd:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _OF.get(loop)
    if found is None:
        found = _OF[loop] = Crowd()
    return found
