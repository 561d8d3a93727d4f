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
    """Sends notifications to the service manager.

    Args:
        address: Path of the manager's datagram socket, or an abstract name with a leading `@`; empty for no socket.
        watchdog_s: Longest time between two signs of life that the watchdog accepts; None if there is no watchdog.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s
        self._ready = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """Return a notifier for the socket and watchdog that the service manager set up for this process, if any."""
        given = environment.get(_INTERVAL, "")
        meant = environment.get(_FOR_PROCESS, "") in ("", str(os.getpid()))
        watchdog_s = int(given) / 1e6 if given.isdecimal() and int(given) > 0 and meant else None
        return cls(environment.get(_SOCKET, ""), watchdog_s)

    def ticked(self, sentence: Callable[[], str]) -> None:
        """Report a completed tick, with a sentence as status. The first one also reports that the service has started."""
        if self.address:
            started = () if self._ready else ("READY=1",)
            self._ready |= self._send("STATUS=" + sentence().replace("\n", " "), *started)

    def alive(self) -> None:
        """Send a sign of life to the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that a reload begins; `reloaded` must follow."""
        # systemd expects the machine's monotonic clock, which is the clock of a real event loop.
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(asyncio.get_running_loop().time() * 1e6)}")

    def reloaded(self) -> None:
        """Report that a reload has ended, successfully or not."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the daemon is stopping."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> bool:
        """Send the lines in one datagram, and return whether it was sent."""
        if not self.address:
            return False
        # An abstract name begins with a zero byte, which the environment writes as @.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            # No reader, or a full queue: the manager has timeouts of its own for that.
            return False
        return True
