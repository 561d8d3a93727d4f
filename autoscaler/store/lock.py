"""The lock that allows one writer per state directory.

Rules of this file: the lock is a `flock` on a file that also names its holder, so it ends with the process in any case, and
a second daemon can name the first. The file is never removed, since that would race with the next process that opens it.
Other users may not open it: whoever can read a file can lock it, and so keep the daemon from starting. So the state
directory is created for the daemon's user and group only.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

from autoscaler.errors import JournalError

LOCK_NAME = "lock"
"""Name of the lock file in the state directory."""
MODE = 0o600


class StateLock:
    """Holds the state directory until `release`, or the end of the process.

    Args:
        state_dir: An existing directory.

    Raises:
        JournalError: Another process (or this one) holds the directory, or the lock file cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._fd = _taken(state_dir)
        self._held = True
        # A forked helper process shares the lock and would hold it after the daemon's death.
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _release(own()))

    def hold(self) -> None:
        """Take the directory again if the lock file, or the whole directory, was removed or replaced.

        Otherwise another daemon could take it meanwhile, and both would write.

        Raises:
            JournalError: Another process holds the directory now, or the lock file cannot be written.
        """
        own = os.fstat(self._fd)
        with suppress(OSError):
            there = (self._state_dir / LOCK_NAME).stat()
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return
        taken = _taken(self._state_dir)
        os.close(self._fd)
        self._fd = taken

    def release(self) -> None:
        """Release the directory; further calls do nothing."""
        if self._held:
            self._held = False
            os.close(self._fd)


def _taken(state_dir: Path) -> int:
    """Lock the directory, and return the lock file's descriptor."""
    try:
        fd = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, MODE)
    except FileNotFoundError as error:
        raise JournalError(
            f"The state directory {state_dir} is not there any more. Make it again, with the owner and mode that it had, or "
            "mount its disk; a running daemon then continues by itself."
        ) from error
    except OSError as error:
        raise JournalError(
            f"The state directory {state_dir} cannot be written to: {error.strerror}. "
            "Check its owner and mode, or give another one."
        ) from error
    with suppress(OSError):  # an earlier version may have created it with another mode
        os.fchmod(fd, MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise JournalError(
            f"The state directory {state_dir} is in use by process {holder}. "
            "Stop that daemon first, or give this one a state directory of its own."
        ) from error
    # The number only appears in messages of other processes; if the disk is full, the journal will say so.
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
    return fd


def _release(lock: StateLock | None) -> None:
    if lock is not None:
        lock.release()
