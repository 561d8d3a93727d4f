"""`kill -9` of the real program with a real state directory, while the cloud lives on in a process of its own."""

from __future__ import annotations

import select
import signal
import sqlite3
import threading
from contextlib import closing
from functools import partial

import numpy as np

from autoscaler.cli.control_client import ask
from autoscaler.errors import DaemonError
from autoscaler.store import JournalReader
from tests.cli.conftest import (
    TWO_FLEETS,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    strict_json,
    wait_for,
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
                wait_for(partial(has_more_than, state, ticks), alive=program.process)
                select.select([], [], [], float(rng.uniform(0.0, 1.2)))
                program.process.send_signal(signal.SIGKILL)
                program.process.wait()
            now, _, ordered = recorded(state)
            assert now > ticks, "what was recorded stays"
            assert len(ordered) == len(set(ordered)), "no VM is started twice"
            ticks = now
            assert "journal_recovered" not in program.output()
            assert "Traceback" not in program.output()
    with closing(sqlite3.connect(state / "journal.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


REASONS = 400


def keep_asking(socket, answered):
    """Pauses and overrides without end, one after the other, until nobody answers; what was answered."""
    for number in range(REASONS):
        term = {"reason": f"change {number}", "no_expiry": True}
        bodies = (
            ("pause", {"verbs": ["stop"], "fleets": ["web"], **term}),
            ("override", {"fleet": "web", "floor": number % 5 + 1, **term}),
        )
        what, body = bodies[number % 2]
        try:
            answered += ask(socket, what, body)["changes"]
        except DaemonError:
            return


def test_a_daemon_killed_while_operators_command_it_keeps_all_that_it_answered(tmp_path):
    rng = np.random.default_rng(1)
    state = tmp_path / "state"
    write_policies(tmp_path / "policies")
    answered = []
    with embedded_cloud(*TWO_FLEETS) as url:
        settings = daemon_settings(url, state)
        for _ in range(KILLS):
            before = len(answered)
            with Program("run", cwd=tmp_path, **settings) as program:
                program.hears("control.sock")
                asking = threading.Thread(target=keep_asking, args=(state / "control.sock", answered))
                asking.start()
                wait_for(lambda n=before: len(answered) > n + 4, alive=program.process)
                select.select([], [], [], float(rng.uniform(0.0, 0.3)))
                program.process.send_signal(signal.SIGKILL)
                program.process.wait()
                asking.join()
            assert "Traceback" not in program.output()
        with Program("run", cwd=tmp_path, **settings) as program:
            program.hears("control.sock")
            found = ask(state / "control.sock", "operations")["in_force"]
            by_command = strict_json(call("operations", "--json", cwd=tmp_path, **settings).stdout)[
                "in_force"
            ]
            assert by_command == found
            assert "journal_recovered" not in program.output()
    with closing(sqlite3.connect(state / "journal.sqlite")) as connection:
        rows = connection.execute("SELECT id, kind, reason FROM operator_changes ORDER BY id").fetchall()
    kept = {(number, kind, reason) for number, kind, reason in rows}
    assert {(c["id"], c["change"], c["reason"]) for c in answered} <= kept, "what was answered is not lost"
    latest = {kind: number for number, kind, _ in rows}
    assert {c["change"]: c["id"] for c in found} == latest, "the last of each is in force"
    assert len(rows) - len(answered) <= KILLS, "at most the one under way at each kill was not answered"
