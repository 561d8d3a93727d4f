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

from autoscaler.at_once import Begun, CompletedCall

ASKED_ANEW_S = 60.0
"""Time after which a call that ignores its cancellation is left behind and the adapter is called again, in event-loop
seconds.
"""


@dataclass(slots=True)
class _Hung:
    """The last call of an adapter that hung."""

    adapter: object
    call: asyncio.Future[Any]
    began_s: float
    is_well: bool = False


class HangingSources:
    """Remembers which adapters hang.

    Adapters are keyed by fleet, or by whatever else they belong to. Times are seconds of the event loop.
    """

    def __init__(self) -> None:
        self._of: dict[Hashable, _Hung] = {}

    def __bool__(self) -> bool:
        """Return whether any adapter hung when it was last called."""
        return bool(self._of)

    def __contains__(self, key: Hashable) -> bool:
        """Return whether the adapter of this key hung when it was last called."""
        return key in self._of

    def look(self, key: Hashable, adapter: object, now_s: float) -> bool:
        """Return whether the adapter may be called now.

        If it answered in time again, or is a different adapter now, it no longer counts as hanging.
        """
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
        """Note whether a call that was waited for hangs; cancel it when its time is over.

        Args:
            key: The adapter's key.
            adapter: The adapter.
            call: The call; the caller has waited for it.
            began_s: When the call began.
            timeout_s: How long the call may take.
        """
        if isinstance(call, CompletedCall) or call.done():
            self._of.pop(key, None)
            return
        loop = asyncio.get_running_loop()
        hung = self._of[key] = _Hung(adapter, call, began_s)
        timer = loop.call_later(max(began_s + timeout_s - loop.time(), 0.0), call.cancel)

        def ended(call: asyncio.Future[Any]) -> None:
            timer.cancel()
            # Any answer in time, even an error, shows that the adapter works. An error must be retrieved, or the
            # event loop logs it.
            hung.is_well = not call.cancelled() and loop.time() < began_s + timeout_s
            if not call.cancelled():
                call.exception()

        call.add_done_callback(ended)

    def keep(self, keys: Container[Hashable]) -> None:
        """Forget all keys but these."""
        if self._of:
            self._of = {key: hung for key, hung in self._of.items() if key in keys}
