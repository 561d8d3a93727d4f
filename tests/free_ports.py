"""Ports on which nothing listens, and which nobody else is given meanwhile.

A port that was chosen and let go may be anybody's by the time it is used: tests run side by side. Here a socket that is
bound and does not listen keeps it. Who connects is refused; the kernel gives the port to nobody who asks for any; and
the one for whom it is kept may listen on it, as servers do, with SO_REUSEADDR.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack


class Ports(ExitStack):
    """Gives out ports and keeps them for as long as its context lasts."""

    def one(self) -> int:
        """A port that is free on all addresses of the loopback device, and stays so for who was given it."""
        kept = self.enter_context(socket.socket())
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        return kept.getsockname()[1]
