"""The parent's side of the listing process.

Why a process: reading a page of 1,000 instance records takes longer than the event loop may be held. Why
not a pool: a pool's process outlives a killed parent, cannot be killed by its public interface when it
hangs, and holds up the interpreter's exit; a plain child with two pipes does none of this.

The exchange is one JSON document a line. Parent to child: first the settings, then
`{"id", "token", "size"}` per page. Child to parent: first `{"ready": true}` or `{"error"}`, then
`{"id", "rows", "next", "problem"}`. Ids let a reply that nobody waits for any more be told apart.
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
from autoscaler.providers.ec2.wire import Page, Row

START_DEADLINE_S: Final = 30.0
"""Importing the SDK and loading its model takes about a second on an idle machine."""

CLOSE_DEADLINE_S: Final = 5.0

_LINE_LIMIT: Final = 256 * 2**20
"""Bytes of one reply: 1,000 VMs with 50 tags of the longest kind are 64 MiB."""


class _DiedError(Exception):
    """The process is gone, or as good as."""


class ListingProcess:
    """One child process, started on first use and again after it died.

    Args:
        settings: Passed on to the child.
    """

    def __init__(self, settings: Ec2Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def pages(self, token: str | None) -> AsyncGenerator[Page, None]:
        """Yield the pages from `token` on (None: the first) until the end or the first failed page.

        A process that dies is replaced once per listing and the page asked for again, with a warning in the
        log; when the new one dies too, the last page carries the problem. One listing at a time.
        """
        may_restart = True
        while True:
            try:
                page = await self._page(token)
            except _DiedError as death:
                await self._end()
                if not may_restart:
                    yield Page((), problem=f"the listing process died twice: {death}")
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

    async def _page(self, token: str | None) -> Page:
        try:
            process = self._process or await self._start()
            self._last_id += 1
            await _write(process, {"id": self._last_id, "token": token, "size": FULL_PAGE})
            # The child bounds its own call; what exceeds that is a child that hangs.
            async with asyncio.timeout(self._settings.call_deadline_s + START_DEADLINE_S):
                while (reply := await _read(process)).get("id") != self._last_id:
                    pass
        except TimeoutError as error:
            raise _DiedError("it did not answer in time and was killed") from error
        rows = tuple(Row(*row) for row in reply["rows"])
        return Page(rows, reply["next"], reply["problem"])

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
