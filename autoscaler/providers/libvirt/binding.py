"""The only module that imports libvirt-python: loaded on first use, quiet, and with its event loop running.

Rules: nothing else in the program imports `libvirt`. What comes out is untyped, so that it stays within this package.
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
"""A remote libvirtd that leaves so many questions unanswered, so far apart, is taken to be gone: after 20 s."""


@cache
def binding() -> Any:
    """The module `libvirt`, ready for use.

    Raises:
        ConfigError: It is not installed; says what to install.
    """
    try:
        import libvirt
    except ImportError as error:
        raise ConfigError(f"{MISSING} ({error})") from None
    # Errors come as exceptions; without this libvirt writes each of them to standard error as well.
    libvirt.registerErrorHandler(_silent, None)
    # Keepalive, and noticing that a connection has ended, need an event loop of libvirt's own in a thread.
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, args=(libvirt,), name="libvirt-events", daemon=True).start()
    return libvirt


def connect(uri: str) -> Any:
    """Open a connection; blocks for as long as the host takes.

    Raises:
        Exception: What libvirt raises where it cannot (`libvirt.libvirtError`).
    """
    libvirt = binding()
    connection = libvirt.open(uri)
    # Drivers without a connection of their own, like the test driver, have nothing to keep alive.
    with suppress(libvirt.libvirtError):
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
    return connection


def error_of(error: BaseException) -> tuple[int, str] | None:
    """Code and words of an error of libvirt's own; None of any other."""
    code = getattr(error, "get_error_code", None)
    if code is None:
        return None
    return int(code() or 0), str(error.get_error_message() or error)  # type: ignore[attr-defined]


def _silent(_context: object, _error: object) -> None:
    """Nothing is said here; see `binding`."""


def _turn(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
