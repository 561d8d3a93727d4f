"""Errors that reach the event loop are log lines, few and in words."""

import asyncio
import errno

import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.daemon.loop_errors import LoopErrors
from autoscaler.daemon.telemetry import Telemetry


class Log:
    """Keeps what is logged."""

    def __init__(self):
        self.lines = []

    def error(self, event, text):
        self.lines.append((event, text))


def heard(error, times, apart_s):
    log = Log()

    def fail():
        raise error

    async def main():
        loop, clock = asyncio.get_running_loop(), VirtualClock()
        LoopErrors(Telemetry(log)).handle()
        for number in range(1, times + 1):
            loop.call_soon(fail)
            await clock.sleep_until(number * apart_s)

    run_virtual(main)
    assert {event for event, _ in log.lines} == {"loop_error"}
    return [text for _, text in log.lines]


def test_hundreds_a_second_are_one_line_a_minute():
    told = heard(OSError(errno.EMFILE, "Too many open files"), 3000, 0.05)
    assert len(told) == 3
    assert told[0].startswith("too many open files: connections are neither accepted")
    assert "LimitNOFILE=" in told[0]


def test_another_error_names_itself_and_its_place():
    (told,) = heard(KeyError("odd\nkey"), 3, 1.0)
    assert "KeyError" in told
    assert "\n" not in told
    assert "test_loop_errors.py" in told


@pytest.mark.parametrize("context", [{}, {"message": "socket.send() raised exception."}])
def test_any_context_will_do(context):
    log = Log()

    async def main():
        loop = asyncio.get_running_loop()
        LoopErrors(Telemetry(log))(loop, context)

    run_virtual(main)
    assert len(log.lines) == 1
