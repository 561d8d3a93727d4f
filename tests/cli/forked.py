"""Runs commands in processes forked from one that has imported the program, which saves most of a short command's time.

Such a process has its own arguments, folder, environment and streams, receives signals, and ends like any other. It does not
test how the program begins, so a test process runs the installed program the first time that it calls a command
(`conftest.as_installed`). Two forked processes also hash strings alike, which two programs do not.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import reduction
from multiprocessing.context import ForkServerContext
from pathlib import Path

import autoscaler


@functools.cache
def _context() -> ForkServerContext:
    """Return the context that forks processes. Modules that cannot be imported are skipped silently, and imported where needed."""
    modules = pkgutil.walk_packages(autoscaler.__path__, "autoscaler.")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*(module.name for module in modules), __name__])
    return context


class Forked:
    """A forked process that runs the program, with the methods of `subprocess.Popen`.

    Args:
        command: Program and arguments, as the program sees them.
        streams: Descriptors for its standard input, output and errors.
        cwd: Its folder.
        environment: Its environment.
        cloud: Whether to run the embedded cloud's endpoint instead of the command line.
    """

    def __init__(
        self,
        command: Sequence[str],
        streams: tuple[int, int, int],
        cwd: Path,
        environment: Mapping[str, str],
        *,
        cloud: bool = False,
    ) -> None:
        self.args = list(command)
        passed = tuple(_Passed(stream) for stream in streams)
        self._process = _context().Process(
            target=_become, args=(self.args, str(cwd), dict(environment), passed, cloud)
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            TimeoutExpired: The process took longer.
        """
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal if the process still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Passed:
    """A descriptor that is passed to a forked process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> object:
        return reduction.DupFd(self.number)

    def __setstate__(self, passed: object) -> None:
        self.number = passed.detach()


def call_forked(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end, like `subprocess.run` with captured output.

    Raises:
        TimeoutExpired: It took longer than `timeout_s`.
    """
    with (
        Path(os.devnull).open("rb") as nothing,
        tempfile.NamedTemporaryFile() as out,
        tempfile.NamedTemporaryFile() as err,
    ):
        process = Forked(command, (nothing.fileno(), out.fileno(), err.fileno()), cwd, environment)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            said = Path(out.name).read_bytes(), Path(err.name).read_bytes()
            raise subprocess.TimeoutExpired(process.args, timeout_s, *said) from None
        said = Path(out.name).read_bytes().decode(), Path(err.name).read_bytes().decode()
        return subprocess.CompletedProcess(process.args, code, *said)


def _become(
    command: list[str], cwd: str, environment: dict[str, str], streams: tuple[_Passed, ...], cloud: bool
) -> None:
    for number, passed in enumerate(streams):
        os.dup2(passed.number, number)
        os.close(passed.number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout.reconfigure(line_buffering=True)
    if cloud:
        from autoscaler.cloud import ec2_api

        sys.exit(asyncio.run(ec2_api._main()))
    from autoscaler.cli.main import main

    main()
