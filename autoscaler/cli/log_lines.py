"""The log's output stream: it may break, fill up or block without harm to the daemon.

A full disk behind the log, or a reader that is gone or hangs, must not end the daemon, and must not fail or delay a tick. Lines that
cannot be written are dropped, and counted until one can be written again.

Rules of this file: nothing raises. No line waits longer than `PATIENCE_S`, and lines in quick succession together no longer than
`TOGETHER_S`, because on a bad day a tick logs hundreds of lines, and its starts would wait for a slow reader.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Any, TextIO

from autoscaler.ports import Clock

PATIENCE_S = 0.1
"""Longest wait for a reader that reads nothing; while lines are being dropped, there is no wait."""
TOGETHER_S = 0.5
"""Longest wait of many lines together for a reader that reads slowly."""
_REGAINED = 0.05
"""Waiting time regained per second; after ten seconds it is all of `TOGETHER_S` again."""
_PIECE_BYTES = 4096
"""A pipe or socket that is writable accepts this many bytes without blocking."""


class LogLines:
    """A logger for structlog that writes finished lines.

    Args:
        stream: The output stream.
        log: Where the number of dropped lines is logged once a line could be written again.
        clock: Measures how long lines wait.
    """

    def __init__(self, stream: TextIO, log: Any, clock: Clock) -> None:
        self._stream, self.log, self._clock = stream, log, clock
        self._lost = 0
        self._left_s, self._at_s = TOGETHER_S, clock.monotonic()
        self._cut = False
        """True if the last line was only partly written."""

    def msg(self, line: str) -> None:
        """Write a line, or drop it."""
        if not self._write(f"{line}\n"):
            self._lost += 1
        elif self._lost:
            lost, self._lost = self._lost, 0
            text = f"{lost} lines before the last one could not be written"
            self.log.warning("log_lines_lost", text=text)

    debug = info = warning = error = critical = exception = msg

    def _write(self, text: str) -> bool:
        try:
            if self._has_a_reader():
                return self._in_pieces(text.encode("utf-8", "backslashreplace"))
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed stream is a ValueError
            return False
        return True

    def _has_a_reader(self) -> bool:
        """Return whether the stream is a pipe or a socket, whose other end may stop reading."""
        try:
            mode = os.fstat(self._stream.fileno()).st_mode
        except (OSError, ValueError):  # a stream without a file
            return False
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def _in_pieces(self, data: bytes) -> bool:
        self._stream.flush()
        number, data = self._stream.fileno(), b"\n" + data if self._cut else data
        room = select.poll()
        room.register(number, select.POLLOUT)
        for at in range(0, len(data), _PIECE_BYTES):
            if not (room.poll(0) or self._waited(room)):
                self._cut |= at > 0
                return False
            os.write(number, data[at : at + _PIECE_BYTES])
        self._cut = False
        return True

    def _waited(self, room: select.poll) -> bool:
        """Wait for a slow reader if there is waiting time left, and return whether there is room now."""
        now_s = self._clock.monotonic()
        left_s = min(self._left_s + _REGAINED * (now_s - self._at_s), TOGETHER_S)
        found = [] if self._lost else room.poll(int(1000 * min(left_s, PATIENCE_S)))
        self._at_s = self._clock.monotonic()
        self._left_s = max(left_s - (self._at_s - now_s), 0.0)
        return bool(found)
