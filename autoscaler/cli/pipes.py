"""Handles a standard output that accepts no more: a reader that has gone, or a full disk.

`autoscaler events | head -1` ends as any tool in a pipe does, and `> FILE` on a full disk says so and ends with 1.

Rules of this file: what was under way is left in order (contexts end, processes of ours with them) before this process ends by
SIGPIPE, which a shell shows as 141 and does not speak of. The signal is ignored until then: a daemon writes to sockets whose
other ends go, and must not end by that. A reader that goes when all has been written changes nothing.
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
"""Of a write: what commands write into files of their own is told by them, with its name."""


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """End this process by SIGPIPE where something written to standard output found no reader.

    Whoever wrote may have swallowed the error: click ends with 1 then and silences the stream, and rich puts /dev/null in the
    place of the pipe. So it is looked up at the end.
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
        # Whoever found no reader has put something else there.
        silenced = sys.stdout is not stream or not _is_pipe()
        if piped and (gone or silenced or _breaks(stream)):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)


def speak_any_encoding() -> None:
    """Write what a terminal's encoding lacks as `?` instead of ending in an error; UTF-8 has everything."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def _is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return False


def _writing_fails(stream: TextIO) -> OSError | None:
    """Why what is still to be written cannot be, where its reader has not just gone."""
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
    """End this process with 1 and a sentence. What is left in the stream goes nowhere, or it would be tried again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stderr.write(
        f"autoscaler: what it says cannot be written to standard output: {error.strerror or error}\n"
    )
    raise SystemExit(1)


def _reader_has_gone() -> bool:
    """Whether a pipe that was written to has no reader; the error may have been that of a socket."""
    poll = select.poll()
    poll.register(1, select.POLLERR)
    return bool(poll.poll(0))


def _breaks(stream: TextIO) -> bool:
    """Whether what is still to be written finds no reader."""
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    except (OSError, ValueError):
        pass  # a full disk is told by whoever wrote
    return False
