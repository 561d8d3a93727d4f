"""Runs an operator's program once: without a shell, with a time limit, and with only the environment it needs.

Rules of this file: a run is killed, with all of its children, when its time is over. The program inherits only PATH,
HOME, LANG and TZ, so that no secret of the daemon reaches it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

from autoscaler.ports import Vm

SHOWN = 200
"""Characters of a program's output that are shown to people."""
_INHERITED = ("PATH", "HOME", "LANG", "TZ")
_LARGEST_OUTPUT = 64 * 1024


def inherited(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that a program may inherit, from `environment` or from this process."""
    given = os.environ if environment is None else environment
    return {name: given[name] for name in _INHERITED if name in given}


def of_vm(vm: Vm, action: str) -> dict[str, str]:
    """Return the variables that tell a program what to do with which VM."""
    return {
        "AUTOSCALER_ACTION": action,
        "AUTOSCALER_FLEET": vm.fleet,
        "AUTOSCALER_VM_ID": vm.id,
        "AUTOSCALER_VM_ADDRESS": vm.address or "",
        "AUTOSCALER_VM_PUBLIC_ADDRESS": vm.public_address or "",
    }


async def run_program(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str]:
    """Run a program and return its exit code and its output, with both streams together.

    Args:
        command: The program and its arguments.
        environment: All of its variables.
        timeout_s: Longest time, in seconds of the event loop.

    Raises:
        TimeoutError: The program did not end in time, and was killed.
        OSError: The program cannot be run.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(timeout_s):
            output = await _read_all(process.stdout)
            return await process.wait(), output
    finally:
        if process.returncode is None:
            _end(process.pid)
            # The signal is delivered; the process must be reaped even if this task is cancelled.
            await asyncio.shield(process.wait())


async def _read_all(stream: asyncio.StreamReader) -> str:
    """Read all output and return its beginning; the rest is dropped, so that the program never blocks on a full pipe."""
    kept = bytearray()
    while chunk := await stream.read(1 << 14):
        if len(kept) < _LARGEST_OUTPUT:
            kept += chunk
    return kept.decode(errors="replace")


def _end(pid: int) -> None:
    """Kill a program and all of its children, which are in its own process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
