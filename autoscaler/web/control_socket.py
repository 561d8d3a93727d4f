"""Creates the operators' Unix socket: only permitted users can connect, and a socket in use is never replaced.

Rules of this file: a socket on which another process listens is left alone; one left by a dead daemon is replaced; anything that
is not a socket is never removed. The folder is locked between this check and the creation of the socket, so that no other daemon
can do the same in between. The file gets its mode before any client can connect.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autoscaler.errors import DaemonError

MODE = 0o660
LONGEST_PATH = 107
"""Largest length of a socket's path in Linux, bytes."""
_SETTING = "(setting control_socket)"


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A socket of this daemon, bound but not yet listening.

    Attributes:
        socket: The socket to listen on.
        path: Its file.
        inode: Inode of the file, to recognise a file that another daemon has put in its place.
    """

    socket: socket.socket
    path: Path
    inode: int

    @property
    def is_in_place(self) -> bool:
        """True if the file at the path is still this socket."""
        try:
            return self.path.lstat().st_ino == self.inode
        except OSError:
            return False

    def remove(self) -> None:
        """Close the socket, and remove its file if it is still in place."""
        self.socket.close()
        if self.is_in_place:
            with suppress(OSError):
                self.path.unlink()


def bind(path: Path, group: str = "") -> BoundSocket:
    """Create the socket and bind it.

    Args:
        path: Its path; the folder exists.
        group: Group that may use it besides the daemon's own user; empty for the daemon's own group.

    Raises:
        DaemonError: It cannot be made there, or another daemon listens there.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise DaemonError(
            f"the path of the control socket {path} is longer than {LONGEST_PATH} bytes, the most that Linux allows; give a shorter one {_SETTING}"
        )
    group_id = _group_id(group)
    try:
        with _alone_in(path.parent):
            _make_room(path)
            return _bound(path, group, group_id)
    except FileNotFoundError:
        raise DaemonError(
            f"the control socket {path} cannot be made, since its folder does not exist; make the folder (systemd "
            f"does by RuntimeDirectory= of the unit), or give another path {_SETTING}"
        ) from None
    except OSError as error:
        raise DaemonError(
            f"the control socket {path} cannot be made: {_reason(error)}; check owner and mode of its folder, or "
            f"give another path {_SETTING}"
        ) from None


def user_id(connection: socket.socket) -> int:
    """Return the id of the user at the other end, as the kernel recorded it when they connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_mode & stat.S_IWOTH:
            raise DaemonError(
                f"the control socket cannot be made in {folder}: everybody may write to it, so anybody could replace the socket; give a folder that only the daemon may write to {_SETTING}"
            )
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DaemonError(
                f"another daemon is making its control socket right now in {folder}; give each daemon a state directory "
                "of its own"
            ) from None
        yield
    finally:
        os.close(opened)


def _make_room(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise DaemonError(
            f"{path} exists where the control socket should be and is not a socket; move it away, or give another path {_SETTING}"
        )
    if _is_alive(path):
        raise DaemonError(
            f"another daemon listens on the control socket {path}; stop that one first, or give this one a path of "
            f"its own {_SETTING}"
        )
    path.unlink()


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # A process listens, but its queue of connections is full.
            return True
    return True


def _bound(path: Path, group: str, group_id: int) -> BoundSocket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The file inherits the socket's mode, 0 here, so nobody can connect before the group is set.
        os.fchmod(made.fileno(), 0)
        made.bind(str(path))
        bound = BoundSocket(made, path, path.lstat().st_ino)
    except BaseException:
        made.close()
        raise
    try:
        if group:
            _give_to(path, group, group_id)
        path.chmod(MODE)
    except BaseException:
        bound.remove()
        raise
    return bound


def _group_id(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise DaemonError(
            f"there is no group {group} on this machine (setting control_group); make it with `groupadd`, or leave "
            "the setting out"
        ) from None


def _give_to(path: Path, group: str, group_id: int) -> None:
    try:
        os.chown(path, -1, group_id)
    except PermissionError:
        raise DaemonError(
            f"the control socket cannot be given to the group {group} (setting control_group), since the daemon's "
            "user is not in it; add that user to the group and start the daemon again (a systemd unit may forbid the "
            "change altogether: then leave the setting out and name the group as Group= of the unit)"
        ) from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
