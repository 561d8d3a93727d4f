"""Errors that reach the event loop because nobody else handles them: one log line for each in a minute, instead of tracebacks.

Why: a process without free file descriptors cannot accept connections, and the loop tries again without end. Each attempt is an error with
a traceback on standard error, hundreds per second, among log lines that should be JSON.

Rules of this file: never raises. Nothing is decided here: what failed is restarted, or reported, where it belongs.
"""

from __future__ import annotations

import asyncio
import errno
import traceback
from typing import Any

from autoscaler.daemon.telemetry import Telemetry

AGAIN_S = 60.0
"""Shortest time from one line to the next about the same error, in seconds of the event loop."""
_MOST_KINDS = 1000


class LoopErrors:
    """An exception handler of an event loop.

    Args:
        telemetry: Where the lines go.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._said_s: dict[str, float] = {}

    def handle(self) -> None:
        """Handle the errors of the running event loop from now on."""
        asyncio.get_running_loop().set_exception_handler(self)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that the loop reports, unless it was logged just now."""
        text = _words(context)
        now_s = loop.time()
        if now_s - self._said_s.get(text, -AGAIN_S) < AGAIN_S:
            return
        if len(self._said_s) >= _MOST_KINDS:
            self._said_s.clear()
        self._said_s[text] = now_s
        self._telemetry.log.error("loop_error", text=text)


def _words(context: dict[str, Any]) -> str:
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "too many open files: connections are neither accepted nor made, and files are not read; raise "
            "LimitNOFILE= of the unit (ulimit -n)"
        )
    what = str(context.get("message") or "an error outside of any task")
    if error is None:
        return what
    told = f"{what}: {type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"{' '.join(told.split())}{where}; please report"
