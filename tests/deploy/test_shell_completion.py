"""Completion in the shell, requested as the shell does."""

import os
import shutil
import subprocess

import pytest

from tests.cli.conftest import COMMAND
from tests.real import require_real


def ask(cwd, **environment):
    return subprocess.run(
        [COMMAND],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("autoscaler va", {"validate"}),
        ("autoscaler policy s", {"show", "schema"}),
        ("autoscaler run --reg", {"--region"}),
        ("autoscaler run --nothing-of-this-name", set()),
    ],
)
def test_bash_is_offered_commands_and_options(line, offered, tmp_path):
    words = line.split()
    answer = ask(
        tmp_path, _AUTOSCALER_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert set(answer.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_names_the_command(shell, tmp_path):
    answer = ask(tmp_path, _AUTOSCALER_COMPLETE=f"source_{shell}")
    assert answer.returncode == 0
    assert "_AUTOSCALER_COMPLETE=complete_" in answer.stdout


def test_bash_takes_the_script(tmp_path):
    require_real("bash", shutil.which("bash") is not None)
    (tmp_path / "completion").write_text(ask(tmp_path, _AUTOSCALER_COMPLETE="source_bash").stdout)
    script = (
        "source ./completion; COMP_WORDS=(autoscaler ver); COMP_CWORD=1;"
        f" _autoscaler_completion {COMMAND}; echo ${{COMPREPLY[@]}}; complete -p autoscaler"
    )
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "version"
    assert done.stdout.splitlines()[1].endswith("_autoscaler_completion autoscaler")
