"""`kill -9` of the real program on a real state directory, while the cloud lives on in a process of its own."""

from __future__ import annotations

import select
import signal
import sqlite3
from contextlib import closing
from functools import partial

import numpy as np

from autoscaler.store import JournalReader
from tests.cli.conftest import (
    TWO_FLEETS,
    Program,
    daemon_settings,
    embedded_cloud,
    until,
    write_policies,
)

KILLS = 4


def recorded(state):
    """(ticks, open actions, VMs ordered to start) of the journal, without a daemon or beside one."""
    with JournalReader(state) as reader:
        actions = reader.actions("web", 0.0, 1e12)
        ordered = [i for a in actions if a.intent.verb == "start" for i in a.intent.vm_ids]
        (ticks,) = reader._connection.execute("SELECT count(*) FROM ticks").fetchone()
        return ticks, len(reader.open_actions()), ordered


def has_more_than(state, ticks):
    return (state / "journal.sqlite").exists() and recorded(state)[0] > ticks


def test_a_daemon_killed_again_and_again_starts_no_vm_twice(tmp_path):
    rng = np.random.default_rng(0)
    state = tmp_path / "state"
    write_policies(tmp_path / "policies")
    ticks = 0
    with embedded_cloud(*TWO_FLEETS) as url:
        for _ in range(KILLS):
            with Program("run", cwd=tmp_path, **daemon_settings(url, state)) as program:
                program.listens()
                # Around its first tick, where it starts a VM the first time, and within the ones after.
                until(partial(has_more_than, state, ticks), alive=program.process)
                select.select([], [], [], float(rng.uniform(0.0, 1.2)))
                program.process.send_signal(signal.SIGKILL)
                program.process.wait()
            now, _, ordered = recorded(state)
            assert now > ticks, "what was recorded stays"
            assert len(ordered) == len(set(ordered)), "no VM is started twice"
            ticks = now
            assert "journal_recovered" not in program.said()
            assert "Traceback" not in program.said()
    with closing(sqlite3.connect(state / "journal.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
