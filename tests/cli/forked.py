"""Runs commands in processes forked from one that has imported the program, which saves most of a short command's time.

Such a process has its own arguments, folder, environment and streams, and ends like any other. It does not test how the
program begins, so a test process runs the installed program the first time that it calls a command (`conftest.call`).
Two forked processes also hash strings alike, which two programs do not.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import autoscaler

_CONTEXT = multiprocessing.get_context("forkserver")
# Modules that cannot be imported are skipped silently, and imported where they are needed.
_CONTEXT.set_forkserver_preload(
    [module.name for module in pkgutil.walk_packages(autoscaler.__path__, "autoscaler.")]
)


def call_forked(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end, like `subprocess.run` with captured output.

    Raises:
        TimeoutExpired: It took longer than `timeout_s`.
    """
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        process = _CONTEXT.Process(
            target=_become, args=(list(command), str(cwd), dict(environment), out.name, err.name)
        )
        process.start()
        process.join(timeout_s)
        try:
            if process.exitcode is None:
                process.kill()
                process.join()
                raise subprocess.TimeoutExpired(list(command), timeout_s, out.read(), err.read())
            return subprocess.CompletedProcess(
                list(command), process.exitcode, out.read().decode(), err.read().decode()
            )
        finally:
            process.close()


def _become(command: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    from autoscaler.cli.main import main

    main()
