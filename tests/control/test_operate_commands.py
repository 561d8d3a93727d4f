"""`pause`, `resume`, `override` and `operations` as an operator types them, against a daemon's real socket."""

from __future__ import annotations

import asyncio
import grp
import os
import re
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoscaler.cli.json_keys import JSON_OF
from autoscaler.web.control import Control
from tests.cli.conftest import _invoke, strict_json  # noqa: F401  a fixture
from tests.control.test_control_api import ME, Serving
from tests.real import require_real


@pytest.fixture(name="serving")
async def _serving(tmp_path):
    (tmp_path / "state").mkdir()
    made = Serving(tmp_path / "state" / "control.sock")
    async with Control(made.daemon, made.path):
        yield made
    await made.bench.journal.close()


@pytest.fixture(name="run")
def _run(invoke):
    async def run(*arguments):
        """What the command leaves, run beside the daemon: exit code, output, errors."""
        result = await asyncio.to_thread(invoke, *arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


async def test_pausing_looking_and_resuming(serving, run):
    code, out, err = await run("pause", "stop", "--fleet", "web", "--for", "2h", "--reason", "migration")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "Nothing is stopped in web until 2026-11-24T12:00:00Z; starts, provisioning and refills go on.",
        "It applies from the next decision on, within 10 s; calls in flight are not cancelled.",
    ]
    told = f"nothing is stopped in web until 2026-11-24T12:00:00Z ({ME}: migration)\n"
    assert await run("operations") == (0, told, "")
    code, out, err = await run("resume", "-f", "web", "-m", "over")
    assert (code, err) == (0, "")
    assert out.startswith("No longer paused: stops in web.\n")
    assert await run("operations") == (0, "nothing is paused or overridden\n", "")
    code, out, _ = await run("resume", "-f", "web", "-m", "over")
    assert (code, out) == (
        0,
        "Nothing to resume: starts, stops, provisioning and refills in web are not paused.\n",
    )


async def test_programs_read_json(serving, run):
    term = ("--until", "2026-11-24T18:00Z")
    _, out, _ = await run("override", "web", "--floor", 4, "--ceiling", 9, *term, "-m", "crowd", "--json")
    assert sorted(strict_json(out)) == sorted(JSON_OF["override"].keys)
    (change,) = strict_json(out)["changes"]
    assert (change["floor"], change["ceiling"], change["who"]) == (4, 9, ME)
    assert change["expires_at_s"] - change["at_s"] == 8 * 3600
    _, out, _ = await run("operations", "--json")
    assert sorted(strict_json(out)) == sorted(JSON_OF["operations"].keys)
    assert strict_json(out)["in_force"] == [change]
    _, out, _ = await run("override", "web", "--clear", "-m", "gone", "--json")
    assert strict_json(out)["in_force"] == []


async def test_all_fleets_and_everything(serving, run):
    code, out, _ = await run("pause", "--all-fleets", "--no-expiry", "-m", "incident 17")
    assert code == 0
    assert out.startswith(
        "Nothing is started, stopped, provisioned or made for the warm pool in any fleet until an operator ends it.\n"
    )
    code, out, err = await run("resume", "-f", "web", "-m", "mine")
    assert (code, out) == (1, "")
    assert err.startswith(
        "resume: nothing is started, stopped, provisioned or made for the warm pool in any fleet until an operator ends it"
    )
    assert err.endswith("web among them; end that with --all-fleets\n")
    assert (await run("resume", "--all-fleets", "-m", "over"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("pause", "-f", "wbe", "--for", "1h"),
            "pause: no policy in use is for a fleet wbe; did you mean web?",
        ),
        (
            ("override", "wbe", "--floor", 1, "--for", "1h"),
            "override: no policy in use is for a fleet wbe; did",
        ),
        (("override", "wbe", "--clear"), "override: no policy in use is for a fleet wbe; did you mean web?"),
        (
            ("override", "web", "--floor", 9, "--ceiling", 5, "--for", "1h"),
            "override: the floor 9 is above the",
        ),
        (
            ("pause", "-f", "web", "--until", "2020-01-01"),
            "pause: it would end at 2020-01-01T00:00:00Z, and it is",
        ),
    ],
    ids=str,
)
async def test_what_the_daemon_refuses_is_one_sentence_and_1(serving, run, arguments, words):
    code, out, err = await run(*arguments, "-m", "because")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "-f", "web", "--for", "1h"), "--reason"),
        (("pause", "-f", "web", "-m", "x"), "say until when"),
        (("pause", "-f", "web", "--for", "1h", "--no-expiry", "-m", "x"), "say until when"),
        (("pause", "--for", "1h", "-m", "x"), "--all-fleets"),
        (("pause", "-f", "web", "--all-fleets", "--for", "1h", "-m", "x"), "--all-fleets"),
        (("pause", "drain", "-f", "web", "--for", "1h", "-m", "x"), "drain"),
        (("pause", "-f", "web", "--for", "soon", "-m", "x"), "duration"),
        (("resume", "-m", "x"), "--all-fleets"),
        (("override", "web", "--for", "1h", "-m", "x"), "--ceiling"),
        (("override", "web", "--floor", "0", "--for", "1h", "-m", "x"), "it must be at least 1"),
        (("override", "web", "--floor", "few", "--for", "1h", "-m", "x"), "not a whole number"),
        (("override", "web", "--clear", "--floor", "2", "-m", "x"), "--clear ends an override"),
        (("override", "--floor", "2", "--for", "1h", "-m", "x"), "fleet"),
    ],
    ids=str,
)
def test_wrong_usage_is_2_and_asks_nobody(invoke, arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


COMMANDS = (
    ("pause", "-f", "web", "--for", "1h", "-m", "x"),
    ("resume", "-f", "web", "-m", "x"),
    ("override", "web", "--floor", "2", "--for", "1h", "-m", "x"),
    ("operations",),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("left", [False, True], ids=["none", "left by a dead one"])
def test_without_a_daemon_it_is_one_sentence(invoke, tmp_path, arguments, left):
    path = tmp_path / "c.sock"
    if left:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    result = invoke(*arguments, "--socket", path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"{arguments[0]}: no daemon answers at {path}; start it with `autoscaler run`, or give the state_dir that yours "
        "was started with (AUTOSCALER_STATE_DIR), or name its socket (--socket)\n"
    )


def test_the_socket_is_found_by_the_settings(invoke, tmp_path, monkeypatch):
    assert "no daemon answers at state/control.sock;" in invoke("operations").stderr
    monkeypatch.setenv("AUTOSCALER_STATE_DIR", "/var/lib/x")
    assert "no daemon answers at /var/lib/x/control.sock;" in invoke("operations").stderr
    (tmp_path / "autoscaler.toml").write_text('control_socket = "/run/x/c.sock"\n')
    assert "no daemon answers at /run/x/c.sock;" in invoke("operations").stderr


def test_without_permission_it_is_one_sentence(invoke, monkeypatch):
    require_real("root, to act as another user", os.geteuid() == 0)
    with tempfile.TemporaryDirectory(prefix="control-") as name, socket.socket(socket.AF_UNIX) as there:
        path = Path(name) / "c.sock"
        Path(name).chmod(0o755)
        monkeypatch.chdir(name)
        there.bind(str(path))
        there.listen()
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            result = invoke("operations", "--socket", path)
        finally:
            os.seteuid(0)
    assert result.exit_code == 1
    group = grp.getgrgid(os.getegid()).gr_name
    assert result.stderr == (
        f"operations: you may not use {path}; ask to be added to the group that it belongs to ({group}), or use sudo\n"
    )


@contextmanager
def answering(path, answer):
    """Somebody who gives this answer to whatever is asked."""

    def serve():
        with there.accept()[0] as guest:
            # A request left unread would be cut off instead of answered.
            asked = b""
            while not asked.endswith(b"}"):
                asked += guest.recv(65536)
            guest.sendall(answer)

    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


STRANGERS = {
    "another protocol": (b"SSH-2.0-x\r\n", "pause: the daemon at .* did not answer, so it is not known"),
    "nothing": (
        b"",
        "pause: the daemon at .* did not answer, so it is not known whether it was done; see `autoscaler op",
    ),
    "another program": (
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        "pause: what answers at .* is not an autoscaler of this",
    ),
    "another version": (
        b'HTTP/1.1 200 OK\r\n\r\n{"version": 2}',
        "pause: what answers at .* is not an autoscaler",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_answers_strangely_is_one_sentence(invoke, tmp_path, name):
    answer, words = STRANGERS[name]
    with answering(tmp_path / "c.sock", answer):
        result = invoke(*COMMANDS[0], "--socket", tmp_path / "c.sock")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert re.match(words, result.stderr), result.stderr
