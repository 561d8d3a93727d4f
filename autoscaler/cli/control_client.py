"""Client of the daemon's control socket, with explanations if there is no answer."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from autoscaler.cli.output import on_screen
from autoscaler.errors import DaemonError

PATIENCE_S = 25.0
"""Seconds to wait for an answer; longer than the daemon keeps a connection open."""


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket instead of a network address."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def control_path(socket: Path | None) -> Path:
    """Return the path of the daemon's control socket: the given one, or the one of the settings."""
    from autoscaler.settings import load_settings

    return load_settings(control_socket=socket).control_path


def ask(path: Path, what: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to the daemon and return its answer.

    Args:
        path: The control socket.
        what: Name of a resource in version 1 of the API.
        change: Body to POST; None sends a GET.

    Raises:
        DaemonError: There is no daemon, access is denied, or the daemon refuses; a refusal has the daemon's own words.
    """
    connection = _UnixConnection(path)
    try:
        if change is None:
            connection.request("GET", f"/v1/{what}")
        else:
            body = json.dumps(change).encode()
            connection.request("POST", f"/v1/{what}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found: Any = on_screen(json.loads(answer.read()))
    except (OSError, HTTPException, ValueError) as error:
        raise DaemonError(_why(path, error, changing=change is not None)) from None
    finally:
        connection.close()
    if not isinstance(found, dict) or found.get("version") != 1:
        raise DaemonError(_why(path, ValueError(), changing=False))
    if "error" in found:
        raise DaemonError(str(found["error"]))
    return found


def _why(path: Path, error: Exception, *, changing: bool) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no daemon answers at {path}; start it with `autoscaler run`, or give the state_dir that yours was started "
            "with (AUTOSCALER_STATE_DIR), or name its socket (--socket)"
        )
    if isinstance(error, PermissionError):
        return (
            f"you may not use {path}; ask to be added to the group that it belongs to "
            f"({_group_of(path)}), or use sudo"
        )
    if isinstance(error, TimeoutError | ConnectionError | HTTPException) and changing:
        return f"the daemon at {path} did not answer, so it is not known whether it was done; see `autoscaler operations`"
    if isinstance(error, OSError):
        return f"the daemon at {path} does not answer: {(error.strerror or str(error)).lower()}"
    return f"what answers at {path} is not an autoscaler of this version; name the socket of yours (--socket)"


def _group_of(path: Path) -> str:
    try:
        return path.group()
    except (OSError, KeyError):
        return "see its folder"
