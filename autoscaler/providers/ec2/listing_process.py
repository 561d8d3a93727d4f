"""The parent's side of the listing process.

Why a process: reading a page of 1,000 instance records takes longer than the event loop may be blocked. Why
not a process pool: its processes outlive a killed parent, cannot be killed through its public interface when
they hang, and delay the interpreter's exit. A plain child with two pipes does none of this.

The exchange is one JSON document per line. Parent to child: first the settings, then `{"id", "token", "size"}`
per page. Child to parent: first `{"ready": true}` or `{"error"}`, then `{"id", "rows", "next", "problem"}`. By
its id, a late reply to an abandoned request is recognised and skipped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import structlog

from autoscaler.providers.ec2.listing import FULL_PAGE
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.wire import ReplyPage, VmRow

START_DEADLINE_S: Final = 30.0
"""Longest time for the child to start. Importing the SDK and its model takes about a second on an idle machine."""

CLOSE_DEADLINE_S: Final = 5.0

_LINE_LIMIT: Final = 256 * 2**20
"""Most bytes in one reply: 1,000 VMs with 50 tags of the greatest length are 64 MiB."""


class _DiedError(Exception):
    """The process has ended, or hung and was given up."""


class ListingProcess:
    """A child process that lists VMs. It is started on first use, and again after it has died.

    Args:
        settings: Settings that are passed to the child.
    """

    def __init__(self, settings: Ec2Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is no child."""
        return self._process.pid if self._process is not None else None

    async def pages(self, token: str | None) -> AsyncGenerator[ReplyPage, None]:
        """Yield the pages from `token` on (None: from the first), until the last page or the first that failed.

        If the child dies, it is replaced once per listing, the page is requested again, and a warning is logged. If the
        new child dies too, the last page carries the problem. Only one listing may be in progress at a time.
        """
        may_restart = True
        while True:
            try:
                page = await self._page(token)
            except _DiedError as death:
                await self._end()
                if not may_restart:
                    yield ReplyPage((), problem=f"the listing process died twice: {death}")
                    return
                may_restart = False
                structlog.get_logger().warning(
                    "listing_process_died", cause=str(death), action="restarted once"
                )
                continue
            yield page
            token = page.next_token
            if token is None:
                return

    async def close(self) -> None:
        """End the child, within CLOSE_DEADLINE_S."""
        await self._end()

    async def _page(self, token: str | None) -> ReplyPage:
        try:
            process = self._process or await self._start()
            self._last_id += 1
            await _write(process, {"id": self._last_id, "token": token, "size": FULL_PAGE})
            # The child bounds its own call, so a child that takes longer hangs.
            async with asyncio.timeout(self._settings.call_deadline_s + START_DEADLINE_S):
                while (reply := await _read(process)).get("id") != self._last_id:
                    pass
        except TimeoutError as error:
            raise _DiedError("it did not answer in time and was killed") from error
        rows = tuple(VmRow(*row) for row in reply["rows"])
        return ReplyPage(rows, reply["next"], reply["problem"])

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "autoscaler.providers.ec2.lister",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        self._process = process
        async with asyncio.timeout(START_DEADLINE_S):
            await _write(process, asdict(self._settings))
            greeting = await _read(process)
        if "error" in greeting:
            raise _DiedError(str(greeting["error"]))
        return process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with suppress(ProcessLookupError):
            process.kill()  # it holds nothing that needs an orderly end
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await process.wait()


async def _write(process: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise _DiedError("its input is closed") from error


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise _DiedError("it ended without an answer")
    reply: dict[str, Any] = json.loads(line)
    return reply
