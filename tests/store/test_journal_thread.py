"""A journal whose disk hangs: neither the loop nor the end of the process waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from autoscaler.daemon.closing import close
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import Note
from autoscaler.store import JournalReader, SqliteJournal
from autoscaler.store.thread import OneThread
from tests.daemon.builders import Log

HANGS = """
import asyncio, pathlib, sys
from autoscaler.ports import Note
from autoscaler.store import SqliteJournal

async def main():
    journal = SqliteJournal(pathlib.Path(sys.argv[1]))
    await journal.record_events(1.0, [Note("note", "", "before")])
    print("ready", flush=True)
    sys.stdin.readline()
    writing = asyncio.ensure_future(journal.record_events(2.0, [Note("note", "", "while hung")]))
    await asyncio.wait({writing}, timeout=0.1)
    closing = asyncio.ensure_future(journal.close())
    await asyncio.wait({closing}, timeout=0.1)
    print("closed", closing.done(), flush=True)

asyncio.run(main())
print("ended", flush=True)
"""


def held(state_dir):
    """Another program in the middle of a write, which makes ours wait for it as a hung disk does."""
    other = sqlite3.connect(state_dir / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return closing(other)


async def test_closing_gives_up_and_the_loop_goes_on_meanwhile(tmp_path) -> None:
    journal = SqliteJournal(tmp_path)
    log = Log()
    with held(tmp_path):
        writing = asyncio.ensure_future(journal.record_events(1.0, [Note("note", "", "hung")]))
        turns = 0
        closing_it = asyncio.ensure_future(close(journal, Telemetry(log=log)))
        while not closing_it.done():
            await asyncio.wait({closing_it}, timeout=0.05)
            turns += 1
        assert not writing.done()
    assert turns > 10
    assert log.texts("close_failed") == ["SqliteJournal did not close within 5 s"]
    await writing


def test_the_process_ends_while_a_write_hangs(tmp_path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with held(tmp_path):
            said, errors = process.communicate("go\n", timeout=300)
    # Had the process waited, the write would have been told that the lock did not come, or have come through.
    assert (process.returncode, said, errors) == (0, "closed False\nended\n", "")
    with JournalReader(tmp_path) as reader:
        assert [event.text for event in reader.events(0.0, 9.0)] == ["before"]


def test_calls_are_made_in_order_and_errors_belong_to_the_caller() -> None:
    thread = OneThread("test")
    made: list[int] = []
    futures = [thread.submit(made.append, number) for number in range(100)]
    broken = thread.submit(lambda: 1 / 0)
    after = thread.submit(lambda: "still here")
    thread.shutdown()
    with pytest.raises(ZeroDivisionError):
        broken.result(10)
    assert after.result(10) == "still here"
    assert all(future.done() for future in futures)
    assert made == list(range(100))
