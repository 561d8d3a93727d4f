"""Notifies the service manager: systemd's notification protocol.

Rules of this file: notifying never blocks and never fails the daemon; without a socket every call does nothing. Nothing here
decides whether the daemon is healthy.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

_SOCKET = "NOTIFY_SOCKET"
_INTERVAL = "WATCHDOG_USEC"
_FOR_PROCESS = "WATCHDOG_PID"


class Notifier:
    """Tells a service manager.

    Args:
        address: Path of its datagram socket, or an abstract name with a leading `@`; empty for none.
        watchdog_s: It expects a sign of life at least so often; None where it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s
        self._ready = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """As the service manager has set it up for this process; one that does nothing without."""
        given = environment.get(_INTERVAL, "")
        meant = environment.get(_FOR_PROCESS, "") in ("", str(os.getpid()))
        watchdog_s = int(given) / 1e6 if given.isdecimal() and int(given) > 0 and meant else None
        return cls(environment.get(_SOCKET, ""), watchdog_s)

    def ticked(self, sentence: Callable[[], str]) -> None:
        """A tick is done: after the first one the service has started; the sentence says how it is."""
        if self.address:
            started = () if self._ready else ("READY=1",)
            self._ready |= self._send("STATUS=" + sentence().replace("\n", " "), *started)

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `reloaded` must follow."""
        # The stamp is the machine's monotonic clock, which is the clock of a real event loop.
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(asyncio.get_running_loop().time() * 1e6)}")

    def reloaded(self) -> None:
        """A reload has ended, well or not."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The daemon ends."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> bool:
        """Whether it went out."""
        if not self.address:
            return False
        # An abstract name begins with a zero byte, which is written as @ in the environment.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            # Nobody listens, or the queue is full: the manager's own timeouts tell it what it needs to know.
            return False
        return True
