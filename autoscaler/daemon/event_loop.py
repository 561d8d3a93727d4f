"""The event loop of a live process: its turns stay short even when much arrives at once.

Why: one turn of asyncio's loop takes in everything that has arrived on all connections since the last one. If ten thousand
VMs are scraped, hundreds of answers wait, and nothing else runs until all have been taken in: no tick, and no answer to a
health check. Here a turn takes in a bounded number; the rest comes first in the next turn, which follows at once.

Rules of this file: public interfaces of the standard library only. Without epoll, the standard loop is used.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EVENTS_PER_TURN = 64
"""Most connections that one turn looks at; they take up to 8 ms."""

if hasattr(select, "epoll"):

    class _FewAtATime(selectors.EpollSelector):
        """Reports a limited number of ready files per call; the kernel takes turns among the others."""

        def __init__(self) -> None:
            super().__init__()
            self._polled = select.epoll.fromfd(os.dup(self.fileno()))

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait as `selectors` does; the timeout is rounded up to whole milliseconds."""
            wait_s = -1.0 if timeout is None else math.ceil(max(timeout, 0.0) * 1e3) * 1e-3
            try:
                found = self._polled.poll(wait_s, EVENTS_PER_TURN)
            except InterruptedError:
                return []
            keys = self.get_map()
            ready = []
            for fd, event in found:
                key = keys.get(fd)
                if key is not None:
                    written = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
                    read = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
                    ready.append((key, (read | written) & key.events))
            return ready

        def close(self) -> None:
            """Close as `selectors` does."""
            self._polled.close()
            super().close()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with short turns."""
    return asyncio.SelectorEventLoop(_FewAtATime()) if hasattr(select, "epoll") else asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run as `asyncio.run` does, on an event loop with short turns."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
