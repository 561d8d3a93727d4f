"""The daemon's name, kept in its state directory so that it survives restarts.

Rules of this file: a name is made once. It contains the machine's name, for people, and is otherwise random.
"""

from __future__ import annotations

import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from autoscaler.errors import JournalError

FILE_NAME = "daemon-name"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST_LETTERS = 40


def daemon_name(state_dir: Path) -> str:
    """Return the name of the daemon with this state directory; makes one if there is none.

    Raises:
        JournalError: The name cannot be read or written.
    """
    path = state_dir / FILE_NAME
    try:
        with suppress(FileNotFoundError):
            found = path.read_text("utf-8", "replace").strip()
            if _NAME.fullmatch(found):
                return found
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:_HOST_LETTERS] or "daemon"
        name = f"{host}-{secrets.token_hex(4)}"
        _write(path, name)
    except OSError as error:
        raise JournalError(
            f"{path}: {error.strerror or error}; can the daemon write its state_dir?"
        ) from error
    return name


def keep_name(state_dir: Path, name: str) -> None:
    """Write the daemon's name again if its file is gone, so that after a restart its leases are still its own.

    A failure changes nothing: the next run then takes another name, and waits for leases of this one to end.
    """
    path = state_dir / FILE_NAME
    with suppress(OSError):
        if name and not path.exists():
            _write(path, name)


def _write(path: Path, name: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(f"{name}\n", "utf-8")
    draft.replace(path)


def run_name() -> str:
    """Make a random name for one run."""
    return secrets.token_hex(4)
