"""The daemon works with the system calls and memory that the unit allows."""

import ctypes.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment, strict_json
from tests.deploy.test_unit_file import analyze, settings
from tests.real import require_real

CONFINE = Path(__file__).with_name("confine.py")


def calls_of(group):
    """The system calls of one of systemd's groups, those of the groups within it too."""
    said = analyze("syscall-filter", group).stdout.splitlines()[1:]
    names = [line.strip() for line in said if line.strip() and not line.strip().startswith("#")]
    return {call for name in names for call in (calls_of(name) if name.startswith("@") else {name})}


@pytest.fixture(name="allowed", scope="module")
def _allowed():
    """The unit's list: the first line allows, those that begin with ~ take away."""
    first, *rest = settings()["SystemCallFilter"]
    allowed = {call for group in first.split() for call in calls_of(group)}
    for line in rest:
        assert line.startswith("~")
        allowed -= {call for group in line.removeprefix("~").split() for call in calls_of(group)}
    assert {"read", "socket", "futex"} <= allowed
    return ",".join(sorted(allowed))


def confined(allowed, *command, cwd):
    require_real("libseccomp", ctypes.util.find_library("seccomp") is not None)
    kernel = tuple(map(int, re.match(r"(\d+)\.(\d+)", platform.release()).groups()))
    if kernel < (6, 3):
        pytest.skip("the kernel is older than 6.3 and cannot refuse writable code on request")
    return subprocess.run(
        [sys.executable, CONFINE, allowed, "--", *map(str, command)],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_confinement_confines(allowed, tmp_path):
    result = confined(allowed, "refused", cwd=tmp_path)
    assert result.stderr == ""
    wanted = "writable code, priority, chroot" if os.geteuid() == 0 else "writable code, priority"
    assert result.stdout.strip().startswith(wanted)


BIND = """
import socket, sys
from pathlib import Path
from autoscaler.web.control_socket import bind, user_id
made = bind(Path(sys.argv[1]))
made.socket.listen()
with socket.socket(socket.AF_UNIX) as guest:
    guest.connect(sys.argv[1])
    with made.socket.accept()[0] as there:
        print(oct(made.path.stat().st_mode & 0o777), user_id(there))
made.remove()
"""


def test_the_control_socket_can_be_made_confined(allowed, tmp_path):
    result = confined(allowed, sys.executable, "-c", BIND, "c.sock", cwd=tmp_path)
    assert (result.stdout, result.stderr) == (f"0o660 {os.geteuid()}\n", "")


def test_the_daemon_runs_confined(allowed, tmp_path):
    """All of it but systemd: HTTP, listing process, SQLite, numpy, aiobotocore."""
    # Slow enough for a busy machine: two ticks in a good second.
    pace = ("--for", "8s", "--speed", "3", "--tick", "2s")
    result = confined(allowed, COMMAND, "demo", *pace, "--out", "out", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert strict_json(result.stdout)
    assert (tmp_path / "out" / "timeline.csv").read_text().count("\n") > 5
