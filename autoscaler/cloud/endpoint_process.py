"""Runs the EC2 endpoint as a child process for the lifetime of a context.

Rules: the child reads its set-up from standard input and writes its address to standard output. It ends when the
context ends (SIGTERM, then a bounded wait, then SIGKILL). It also ends when this process dies, because that closes its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType
from typing import Self

from autoscaler.cloud.setup import CloudSetup
from autoscaler.errors import DaemonError

START_WITHIN_S = 30.0
STOP_WITHIN_S = 5.0


class EndpointProcess:
    """An embedded cloud behind an EC2 endpoint on loopback, as an async context manager."""

    def __init__(self, setup: CloudSetup) -> None:
        self.setup = setup
        self._process: Process | None = None
        self.url = ""
        """URL of the endpoint, while the context is active."""

    @property
    def pid(self) -> int:
        """Process id of the child."""
        if self._process is None:
            raise DaemonError("the embedded cloud has not been started")
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Start the child, and return once it listens.

        Raises:
            DaemonError: It did not start; the message says why.
        """
        command = (sys.executable, "-m", "autoscaler.cloud.ec2_api")
        # In its own session: Ctrl-C in a terminal reaches all processes of the foreground group, but the cloud must
        # outlive the daemon, which is still shutting down in order.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        try:
            async with asyncio.timeout(START_WITHIN_S):
                answer = await self._introduce(self._process)
        except TimeoutError:
            await self._end()
            raise DaemonError(f"the embedded cloud did not start within {START_WITHIN_S:g} s") from None
        except BaseException:
            await self._end()
            raise
        if "url" not in answer:
            await self._end()
            raise DaemonError(f"the embedded cloud did not start: {answer.get('error', 'it ended at once')}")
        self.url = answer["url"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child."""
        await self._end()

    async def _introduce(self, process: Process) -> dict[str, str]:
        if process.stdin is None or process.stdout is None:
            raise DaemonError("the embedded cloud was started without pipes")
        process.stdin.write(self.setup.dump().encode() + b"\n")
        try:
            await process.stdin.drain()
        except ConnectionError:
            return {}
        line = await process.stdout.readline()
        answer: dict[str, str] = json.loads(line) if line else {}
        return answer

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._process = None
