"""The log's output stream: it may break, fill up or block without harm to the daemon.

A full disk behind the log, or a reader that is gone or hangs, must not end the daemon, and must not fail or delay a tick. Lines that
cannot be written are dropped, and counted until one can be written again.

Rules of this file: nothing raises, and nothing waits longer than `PATIENCE_S`.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Any, TextIO

PATIENCE_S = 0.1
"""Longest wait for a reader that reads nothing; while lines are being dropped, there is no wait."""
_PIECE_BYTES = 4096
"""A pipe or socket that is writable accepts this many bytes without blocking."""


class LogLines:
    """A logger for structlog that writes finished lines.

    Args:
        stream: The output stream.
        log: Where the number of dropped lines is logged as soon as a line can be written again.
    """

    def __init__(self, stream: TextIO, log: Any) -> None:
        self._stream, self.log = stream, log
        self._lost = 0
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
        wait_ms = 0 if self._lost else int(PATIENCE_S * 1000)
        room = select.poll()
        room.register(number, select.POLLOUT)
        for at in range(0, len(data), _PIECE_BYTES):
            if not room.poll(wait_ms):
                self._cut |= at > 0
                return False
            os.write(number, data[at : at + _PIECE_BYTES])
        self._cut = False
        return True
