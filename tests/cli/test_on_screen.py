"""Texts from VMs, metrics and clouds are shown on an operator's terminal without being obeyed by it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

import pytest
import structlog

from autoscaler.cli.control_client import ask
from autoscaler.cli.doctor import print_findings
from autoscaler.cli.output import errors_in_words, set_up_logging
from autoscaler.core.types import Freshness
from autoscaler.errors import SourceError
from autoscaler.ports import Note, Outcome, OutcomeKind, Settled, TickRecord
from autoscaler.ports.findings import Finding, Level
from autoscaler.store import SqliteJournal
from autoscaler.words import printable
from tests.cli.conftest import call
from tests.cli.test_cli_watch import Daemon, answer
from tests.contracts.test_journal_contract import START, fleet_tick

AT_S = 1_772_323_200.0  # 2026-03-01T00:00:00Z
EVIL = "label \x1b]0;owned\x07\x1b[2Jgone\x9b31m\u202e\r"
SHOWN = "label \ufffd]0;owned\ufffd\ufffd[2Jgone\ufffd31m\ufffd\ufffd"


def test_what_a_terminal_would_obey_is_replaced_and_all_else_stays():
    assert printable(EVIL) == SHOWN
    for text in ("", "größer als 95 % …", "two\n\tlines"):
        assert printable(text) == text


@pytest.mark.parametrize(
    "command", [("explain", "web"), ("explain", "web", "--since", "2026-01-01"), ("events", "--fleet", "web")]
)
def test_what_the_journal_keeps_word_for_word_is_shown_without_it(invoke, tmp_path, command):
    async def write():
        journal = SqliteJournal(tmp_path / "state", inline=True)
        row = fleet_tick(sentence=EVIL, source_error=EVIL, freshness=int(Freshness.ABSENT))
        (action,) = await journal.record_tick(TickRecord(1, AT_S, (row,)), (START,))
        outcome = Outcome(START.vm_ids[0], OutcomeKind.REFUSED, "X", EVIL)
        await journal.record_outcomes([Settled(action, AT_S + 0.5, (outcome,))])
        await journal.record_events(AT_S, [Note("note", "web", EVIL)])
        await journal.close()

    asyncio.run(write())
    found = invoke(*command, "--state-dir", tmp_path / "state")
    assert found.exit_code == 0, found.stderr
    assert "\ufffd]0;owned\ufffd\ufffd[2Jgone\ufffd31m" in found.stdout
    assert set("\x1b\x07\x9b\u202e").isdisjoint(found.stdout)


async def test_the_status_shows_none_of_it(tmp_path, free_port):
    daemon = Daemon(free_port)
    daemon.says = answer(1, error=EVIL)
    await daemon.begin()
    shown = await asyncio.to_thread(call, "status", cwd=tmp_path, http_port=free_port)
    await daemon.end()
    assert SHOWN in shown.stdout
    assert "\x1b" not in shown.stdout


def test_what_a_daemon_says_of_its_vms_holds_none_of_it(tmp_path):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"version": 1, "vms": [{"version": "7\\u001b[2J", "warm": true}]}')

        def address_string(self):
            return ""

        def log_message(self, *_):
            """Nothing."""

    path = tmp_path / "control.sock"
    with UnixStreamServer(str(path), Answers) as server:
        threading.Thread(target=server.handle_request).start()
        assert ask(path, "pool")["vms"] == [{"version": "7\ufffd[2J", "warm": True}]


def test_the_doctor_shows_none_of_it_and_takes_no_bracket_for_a_colour(capsys):
    text = f"[providers.rack] and [/bold] {EVIL}"
    print_findings([Finding("metrics", Level.PROBLEM, text, "see [red]", "web")], everything=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[providers.rack]" in said
    assert "[/bold]" in said
    assert "see [red]" in said


def test_an_error_in_words_holds_none_of_it(capsys):
    with contextlib.suppress(BaseException), errors_in_words("trace"):
        raise SourceError(EVIL)
    assert capsys.readouterr().err == f"trace: {SHOWN}\n"


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_line_of_the_log_holds_none_of_it(capsys, style):
    try:
        set_up_logging(style, "info")
        structlog.get_logger().info("source_failed", text=EVIL)
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert "owned" in said
    assert said.rstrip("\n").isprintable()
