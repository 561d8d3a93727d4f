"""Adapters that hang: a tick waits for one in full only once, then not until it answers in time again.

Why: all fleets are decided on together once everything was observed, so a hanging source, provider or probe would cost all of
them its full time limit, tick after tick. It is still called in every tick. An answer that comes too late is not used, but
shows that the adapter works again, and the next tick waits for it.

Rules of this file: at most one call of a kind is in flight, unless one does not end even when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Hashable
from dataclasses import dataclass
from typing import Any

from autoscaler.at_once import Answered, Begun

ASKED_ANEW_S = 60.0
"""A question that does not end although it was told to is left behind after so long."""


@dataclass(slots=True)
class _Hung:
    """The last question to an adapter that hung."""

    adapter: object
    call: asyncio.Future[Any]
    began_s: float
    is_well: bool = False


class Hanging:
    """Which adapters hang, by fleet or what else they are of; times are seconds of the event loop."""

    def __init__(self) -> None:
        self._of: dict[Hashable, _Hung] = {}

    def __bool__(self) -> bool:
        """Whether any of them hung the last time."""
        return bool(self._of)

    def __contains__(self, key: Hashable) -> bool:
        """Whether it hung the last time."""
        return key in self._of

    def look(self, key: Hashable, adapter: object, now_s: float) -> bool:
        """Whether the adapter may be asked now; forgets that it hung where it is well again or another one."""
        hung = self._of.get(key)
        if hung is None:
            return True
        if hung.adapter is not adapter or hung.is_well:
            del self._of[key]
            return True
        return hung.call.done() or now_s - hung.began_s >= ASKED_ANEW_S

    def heard(
        self, key: Hashable, adapter: object, call: Begun[Any], began_s: float, timeout_s: float
    ) -> None:
        """Note of a question that was waited for whether it hangs; one that was not is ended in time.

        Args:
            key: Whose.
            adapter: Was asked.
            call: The question; the caller has waited for it.
            began_s: When it was asked.
            timeout_s: How long it may take.
        """
        if isinstance(call, Answered) or call.done():
            self._of.pop(key, None)
            return
        loop = asyncio.get_running_loop()
        hung = self._of[key] = _Hung(adapter, call, began_s)
        timer = loop.call_later(max(began_s + timeout_s - loop.time(), 0.0), call.cancel)

        def ended(call: asyncio.Future[Any]) -> None:
            timer.cancel()
            # Whoever answers, were it with an error, does not hang; an error is fetched, or else the loop complains.
            hung.is_well = not call.cancelled() and loop.time() < began_s + timeout_s
            if not call.cancelled():
                call.exception()

        call.add_done_callback(ended)

    def keep(self, keys: Container[Hashable]) -> None:
        """Forget all others."""
        if self._of:
            self._of = {key: hung for key, hung in self._of.items() if key in keys}
