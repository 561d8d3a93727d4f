"""A real daemon, real commands and a real socket: from `autoscaler pause` to VMs that are not changed, and back."""

from __future__ import annotations

import os
import pwd
import re

import pytest

from autoscaler.store import JournalReader
from tests.cli.conftest import (
    TERMINATE,
    TWO_FLEETS,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    get,
    strict_json,
    wait_for,
    write_policies,
)

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(name="cloud", scope="module")
def _cloud():
    with embedded_cloud(*TWO_FLEETS) as url:
        yield url


def last(state):
    if not (state / "journal.sqlite").exists():
        return None
    with JournalReader(state) as reader:
        return reader.last("web")


def first(state, wanted):
    with JournalReader(state) as reader:
        rows = (row.recorded for row in reader.ticks("web", 0.0, 1e12))
        return next((row for row in rows if wanted(row)), None)


def test_an_override_and_a_pause_from_the_shell_to_the_journal(tmp_path, cloud):
    state = tmp_path / "state"
    write_policies(tmp_path / "policies")
    settings = daemon_settings(cloud, state)
    with Program("run", cwd=tmp_path, **settings) as program:
        url = program.listens()
        program.hears(r"control\.sock \(pause, resume, override\)")
        wait_for(lambda: last(state), alive=program.process)
        paused = call(
            "pause", "stop", "-f", "web", "--no-expiry", "-m", "night shift", cwd=tmp_path, **settings
        )
        assert (paused.returncode, paused.stderr) == (0, "")
        assert paused.stdout.startswith("Nothing is stopped in web until an operator ends it; starts, ")
        moved = call("override", "web", "--floor", 5, "--for", "1h", "-m", "drill", cwd=tmp_path, **settings)
        assert moved.returncode == 0
        assert "instead of the policy's 3 to 6." in moved.stdout
        # The first row with the floor: once five are on their way, other guards may be what holds them.
        row = wait_for(lambda: first(state, lambda row: row.floor == 5), alive=program.process)
        assert (row.may_stop, row.may_start, row.desired) == (False, True, 5)
        assert "an operator's floor is 5" in row.sentence
        shown = call("status", "--url", url, cwd=tmp_path, **settings)
        told = f"operators: nothing is stopped in web until an operator ends it ({ME}: night shift)"
        assert told in " ".join(shown.stdout.split())
        why = call("explain", "web", cwd=tmp_path, **settings).stdout
        assert "  operators stops paused, floor 5\n" in why
        samples = get(f"{url}/metrics")[1]
        assert 'autoscaler_paused{fleet="web",verb="stop"} 1.0' in samples
        assert 'autoscaler_paused{fleet="api",verb="stop"} 0.0' in samples
        assert 'autoscaler_override_floor_vms{fleet="web"} 5.0' in samples
        assert 'override_floor_vms{fleet="api"' not in samples
        assert program.end(TERMINATE) == 0
    assert not (state / "control.sock").exists()
    with Program("run", cwd=tmp_path, **settings) as program:
        program.hears(r"control\.sock \(")
        found = strict_json(call("operations", "--json", cwd=tmp_path, **settings).stdout)["in_force"]
        assert [(c["change"], c["who"], c["reason"]) for c in found] == [
            ("paused", ME, "night shift"),
            ("overridden", ME, "drill"),
        ]
        for given in (("resume", "-f", "web"), ("override", "web", "--clear")):
            assert call(*given, "-m", "morning", cwd=tmp_path, **settings).returncode == 0
        assert program.end(TERMINATE) == 0
    with JournalReader(state) as reader:
        told = [(event.kind, event.text) for event in reader.events(0.0, 1e12, "web")]
    assert [kind for kind, _ in told if re.match("paus|resum|overr", kind)] == [
        "paused", "overridden", "resumed", "override_cleared",
    ]  # fmt: skip
    assert ("resumed", f"{ME} resumed stops in web (morning)") in told


def test_a_socket_in_use_keeps_a_second_daemon_from_starting_and_harms_none(tmp_path, cloud):
    write_policies(tmp_path / "policies")
    path = tmp_path / "shared.sock"
    one = daemon_settings(cloud, tmp_path / "one", control_socket=path)
    with Program("run", cwd=tmp_path, **one) as program:
        program.hears(r"shared\.sock \(")
        second = call("run", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "two", control_socket=path))
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1] == (
            f"run: another daemon listens on the control socket {path}; stop that one first, or give this one a path "
            "of its own (setting control_socket)"
        )
        assert "Traceback" not in second.stderr
        assert call("operations", cwd=tmp_path, **one).returncode == 0
        assert program.end(TERMINATE) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.parent.chmod(0o777), "everybody may write to it"),
        (
            lambda path: path.write_text("notes"),
            "exists where the control socket should be and is not a socket",
        ),
        (lambda path: path.parent.rmdir(), "cannot be made, since its folder does not exist"),
    ],
    ids=["open to all", "no socket", "no folder"],
)
def test_a_socket_that_cannot_be_made_is_one_sentence(tmp_path, cloud, change, words):
    write_policies(tmp_path / "policies")
    path = tmp_path / "folder" / "c.sock"
    path.parent.mkdir()
    change(path)
    result = call("run", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "state", control_socket=path))
    assert result.returncode == 1
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
