"""Ports on which nothing listens, and which no other test gets in the meantime.

Tests run side by side, so a port that was chosen and released may be taken before it is used. Here a socket that is
bound but does not listen reserves the port: connections to it are refused, the kernel gives the port to no one who asks
for any free one, and the test that reserved it may listen on it with SO_REUSEADDR, as servers do.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack


class Ports(ExitStack):
    """Gives out ports and reserves them for as long as its context lasts."""

    def one(self) -> int:
        """Reserve a port that is free on all loopback addresses, and return it."""
        kept = self.enter_context(socket.socket())
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        return kept.getsockname()[1]
