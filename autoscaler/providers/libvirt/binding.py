"""The only module that imports libvirt-python: loaded on first use, quiet, and with its event loop running.

Rules: nothing else in the program imports `libvirt`. The values it returns are untyped, so they stay within this package.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cache
from typing import Any, Final

from autoscaler.errors import ConfigError

MISSING: Final = (
    "libvirt_uris is set, and libvirt-python is not installed: it is compiled where it is installed, so first "
    "`apt-get install libvirt-dev pkg-config gcc python3-dev` (Debian), then `pip install 'vm-autoscaler[libvirt]'`"
)

KEEPALIVE_S: Final = 5
KEEPALIVE_COUNT: Final = 3
"""A remote libvirtd that leaves KEEPALIVE_COUNT probes in a row, KEEPALIVE_S apart, unanswered counts as gone: after 20 s."""


@cache
def binding() -> Any:
    """Import the module `libvirt` and prepare it for use.

    Raises:
        ConfigError: libvirt-python is not installed; the message says what to install.
    """
    try:
        import libvirt
    except ImportError as error:
        raise ConfigError(f"{MISSING} ({error})") from None
    # Errors come as exceptions; by default, libvirt would write each of them to standard error as well.
    libvirt.registerErrorHandler(_silent, None)
    # Keepalive and the detection of closed connections need libvirt's own event loop, which runs in a thread.
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, args=(libvirt,), name="libvirt-events", daemon=True).start()
    return libvirt


def connect(uri: str) -> Any:
    """Open a connection. Blocks for as long as the host takes.

    Raises:
        Exception: The error that libvirt raises if it cannot connect (`libvirt.libvirtError`).
    """
    libvirt = binding()
    connection = libvirt.open(uri)
    # Drivers without a network connection, like the test driver, have nothing to keep alive.
    with suppress(libvirt.libvirtError):
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
    return connection


def error_of(error: BaseException) -> tuple[int, str] | None:
    """Code and message of an error that libvirt raised; None for any other exception."""
    code = getattr(error, "get_error_code", None)
    if code is None:
        return None
    return int(code() or 0), str(error.get_error_message() or error)  # type: ignore[attr-defined]


def _silent(_context: object, _error: object) -> None:
    """Discard libvirt's error report; see `binding`."""


def _turn(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
