"""Output into a pipe whose reader has gone: no traceback, and the usual exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, environment

ROOT = Path(__file__).parents[2]
MODES = [sys.executable, "-m", "tests.failure_modes"]


def ended(command, cwd, *, read):
    """Exit code and standard error where somebody reads so many bytes and goes; a signal's number is negative."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*map(str, command)], cwd=cwd, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        left = read
        while left and (got := os.read(reader, left)):
            left -= len(got)
        os.close(reader)
        _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def nobody_reads(command, cwd):
    """The same where the reader has gone before anything is written."""
    return ended(command, cwd, read=0)


@pytest.fixture(name="trace")
def _trace(tmp_path):
    rows = "".join(f"2026-03-02T12:{m:02}:00Z,{60 + m}\n" for m in range(60))
    (tmp_path / "day.csv").write_text("timestamp,value\n" + rows)
    return tmp_path / "day.csv"


@pytest.mark.parametrize(
    "arguments",
    [
        ("version",),
        ("version", "--json"),
        ("--help",),
        ("policy", "schema"),
        ("trace", "info", "day.csv", "--kind", "count"),
        ("replay", "{policy}", "day.csv", "--kind", "count", "--json"),
    ],
    ids=" ".join,
)
def test_a_command_without_a_reader_ends_by_the_signal_and_says_nothing(tmp_path, trace, arguments):
    command = [COMMAND, *(argument.format(policy=ROOT / "policies/web.yaml") for argument in arguments)]
    assert nobody_reads(command, tmp_path) == (-signal.SIGPIPE, "")


def test_the_list_of_failure_modes_ends_likewise():
    assert ended(MODES, ROOT, read=20) == (-signal.SIGPIPE, "")


def test_a_reader_that_takes_all_before_it_goes_changes_nothing(tmp_path):
    whole = subprocess.run(
        [COMMAND, "version"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert ended([COMMAND, "version"], tmp_path, read=len(whole.stdout)) == (0, "")


def test_what_could_not_be_done_is_still_told_where_there_is_no_reader(tmp_path):
    code, said = nobody_reads([COMMAND, "trace", "info", "none.csv"], tmp_path)
    assert (code, "none.csv" in said) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("version",),
        ("--help",),
        ("trace", "info", "day.csv", "--kind", "count"),
        ("replay", "{policy}", "day.csv", "--kind", "count"),
    ],
    ids=" ".join,
)
def test_where_a_disk_is_full_it_says_so_and_ends_with_1(tmp_path, trace, arguments):
    command = [COMMAND, *(argument.format(policy=ROOT / "policies/web.yaml") for argument in arguments)]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    said = "autoscaler: what it says cannot be written to standard output: No space left on device\n"
    assert (told.returncode, told.stderr) == (1, said)
