"""The daemon's log: a full disk, a reader that has gone and one that hangs neither end nor delay anything."""

import fcntl
import io
import os
import threading

import pytest

from autoscaler.cli.log_lines import TOGETHER_S, LogLines
from autoscaler.clock import SystemClock
from tests.daemon.builders import Log


class Full(io.StringIO):
    """A stream that takes nothing while it is full."""

    full = True

    def write(self, text):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture(name="pipe")
def _pipe():
    """A stream into a small pipe, and its other end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", buffering=0) as reader:
        yield stream, reader


def lines_into(stream):
    log = Log()
    return LogLines(stream, log, SystemClock()), log


def lost_lines(log):
    return log.texts("log_lines_lost")


def left_out(lines):
    return [f"{lines} lines before the last one could not be written"]


def test_what_a_full_disk_did_not_take_is_counted_once_there_is_room():
    stream = Full()
    lines, log = lines_into(stream)
    for number in range(3):
        lines.info(f"line {number}")
    assert lost_lines(log) == []
    stream.full = False
    lines.warning("line 3")
    lines.error("line 4")
    assert stream.getvalue() == "line 3\nline 4\n"
    assert lost_lines(log) == left_out(3)


def test_a_closed_stream_is_nobodys_trouble():
    stream = io.StringIO()
    stream.close()
    lines, log = lines_into(stream)
    lines.info("line")
    assert lost_lines(log) == []


def test_a_reader_that_went_is_nobodys_trouble(pipe):
    stream, reader = pipe
    lines, log = lines_into(stream)
    lines.info("first")
    assert reader.read(100) == b"first\n"
    reader.close()
    for _ in range(3):
        lines.info("more")
    assert lost_lines(log) == []


def test_a_reader_that_hangs_is_waited_for_once_and_then_left_out(pipe):
    stream, reader = pipe
    lines, log = lines_into(stream)
    long = "x" * 9000
    for _ in range(6):
        lines.info(long)
    assert lost_lines(log) == []
    got = reader.read(65_536)
    # One whole line, and the next as far as it went: what follows begins a line of its own.
    assert got.startswith(f"{long}\n".encode())
    lines.info("again")
    assert lost_lines(log) == left_out(5)
    assert reader.read(65_536) == b"\nagain\n"


def test_a_line_longer_than_a_pipe_takes_at_once_comes_whole(pipe):
    stream, reader = pipe
    lines, log = lines_into(stream)
    lines.info("y" * 8000 + "\udc80")
    assert reader.read(65_536) == b"y" * 8000 + b"\\udc80\n"
    assert lost_lines(log) == []


def test_many_lines_together_wait_for_a_slow_reader_as_long_as_they_may_and_no_longer(pipe):
    stream, reader = pipe
    lines, log = lines_into(stream)
    clock = SystemClock()
    done = threading.Event()

    def read_slowly():
        while not done.wait(0.02):
            reader.read(4096)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    began_s = clock.monotonic()
    for _ in range(2000):
        lines.info("x" * 1000)
    took_s = clock.monotonic() - began_s
    done.set()
    thread.join()
    # At the reader's pace it would be ten seconds.
    assert took_s < 4.0 * TOGETHER_S
    reader.read(65_536)
    lines.info("again")
    assert lost_lines(log)
