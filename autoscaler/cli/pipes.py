"""Handles a standard output that accepts no more: a reader that has gone, or a full disk.

`autoscaler events | head -1` ends as other tools in a pipe do. With `> FILE` on a full disk, a message says so and the exit code
is 1.

Rules of this file: work in progress is ended in order (contexts exit, and child processes with them) before this process ends by
SIGPIPE. A shell shows that as 141, without a message. The signal is ignored until then, because a daemon writes to sockets
whose peers may close, and that must not end it. A reader that leaves after everything was written has no effect.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors after which standard output accepts no more. An OSError with a file name concerns another file, which its command reports."""


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """Context that ends this process by SIGPIPE if the reader of standard output has gone, and with 1 if the disk is full.

    The code inside may have swallowed the error: click exits with 1 and silences the stream, and rich replaces the pipe by /dev/null.
    So the stream is examined again at the end.
    """
    piped, stream = _is_pipe(), sys.stdout
    gone = False
    try:
        yield
    except BrokenPipeError:
        gone = _reader_has_gone()
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _end_unwritten(error)
    except SystemExit:
        if left := _writing_fails(stream):
            _end_unwritten(left)
        raise
    finally:
        # Code that met the closed pipe has replaced the stream or the pipe.
        silenced = sys.stdout is not stream or not _is_pipe()
        if piped and (gone or silenced or _breaks(stream)):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)


def speak_any_encoding() -> None:
    """Replace characters that the terminal's encoding lacks by `?` instead of failing; UTF-8 has all of them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def _is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return False


def _writing_fails(stream: TextIO) -> OSError | None:
    """Return the error of flushing the stream; None if it succeeds, or if only its reader has gone."""
    try:
        stream.flush()
    except BrokenPipeError:
        return None
    except OSError as error:
        return error
    except ValueError:
        return None
    return None


def _end_unwritten(error: OSError) -> NoReturn:
    """End this process with 1 and a message. The rest of the stream is discarded, or it would be written again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stderr.write(
        f"autoscaler: what it says cannot be written to standard output: {error.strerror or error}\n"
    )
    raise SystemExit(1)


def _reader_has_gone() -> bool:
    """Return whether standard output is a pipe without a reader; the error may have come from a socket instead."""
    poll = select.poll()
    poll.register(1, select.POLLERR)
    return bool(poll.poll(0))


def _breaks(stream: TextIO) -> bool:
    """Return whether flushing the stream finds no reader."""
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    except (OSError, ValueError):
        pass  # a full disk is reported elsewhere
    return False
