"""Everything served over HTTP: /metrics, /healthz, /api/v1/status, and /v1/samples where samples may be pushed.

Monitoring that reads these cannot tell a site that has gone deaf from a daemon that has died. So the daemon asks its
own site now and then, and where nothing answers it says so and listens anew.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import DaemonError
from autoscaler.web.ingest import PATH as SAMPLES
from autoscaler.web.ingest import Ingest
from autoscaler.web.status import status, unhealthy

_DAEMON = web.AppKey("daemon", Daemon)
_INGEST: web.AppKey[Ingest | None] = web.AppKey("ingest")

PATHS = ("/metrics", "/healthz", "/api/v1/status")

ASK_EVERY_S = 30.0
ANSWER_WITHIN_S = 10.0
"""Of the event loop. A loop that is late is late for both ends, and is not the site's fault."""


class Site:
    """Serves a daemon's state while a context lasts.

    Args:
        daemon: Whose.
        host: Address to listen on.
        port: Port; 0 takes any free one.
        ingest: Takes pushed samples; None takes none.
    """

    def __init__(self, daemon: Daemon, host: str, port: int, ingest: Ingest | None = None) -> None:
        self._host, self._port = host, port
        self._daemon = daemon
        app = web.Application()
        app[_DAEMON] = daemon
        app.add_routes(
            [
                web.get("/", _index),
                web.get("/metrics", _metrics),
                web.get("/healthz", _healthz),
                web.get("/api/v1/status", _status),
            ]
        )
        self.paths = PATHS if ingest is None else (*PATHS, SAMPLES)
        app[_INGEST] = ingest
        if ingest is not None:
            app.add_routes(ingest.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        self.url = ""
        """Where it listens, while the context lasts."""

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            DaemonError: The address cannot be taken.
        """
        await self._runner.setup()
        try:
            await self._listen()
        except OSError as error:
            await self._runner.cleanup()
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            msg = (
                f"cannot listen on {self._host}:{self._port}: {why}; another daemon may be running, or choose "
                "another port (setting http_port, --http-port; 0 takes a free one)"
            )
            raise DaemonError(msg) from None
        return self

    async def watch(self) -> None:
        """Ask the site for ever whether it answers; where it does not, say so and listen anew."""
        clock, telemetry = self._daemon.clock, self._daemon.telemetry
        while True:
            await clock.sleep_until(clock.monotonic() + ASK_EVERY_S)
            if await self._answers():
                continue
            text = f"nothing answers at {self.url} any more; it listens anew"
            telemetry.log.error("site_silent", text=text)
            for site in tuple(self._runner.sites):
                with suppress(RuntimeError):  # it was stopped already
                    await site.stop()
            await self._listen()

    async def _listen(self) -> None:
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, self._port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    async def _answers(self) -> bool:
        """Whether a request from this machine gets any answer."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104  all addresses: any will do
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection(host, self._port)
                try:
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    return (await reader.readline()).startswith(b"HTTP/")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()


async def _index(request: web.Request) -> web.Response:
    del request
    return web.Response(text=f"autoscaler: {' '.join(PATHS)}\n")


async def _metrics(request: web.Request) -> web.Response:
    body = generate_latest(request.app[_DAEMON].telemetry.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(request: web.Request) -> web.Response:
    problems = unhealthy(request.app[_DAEMON])
    return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")


async def _status(request: web.Request) -> web.Response:
    ingest = request.app[_INGEST]
    push = {"push": ingest.status()} if ingest is not None else {}
    return web.json_response(status(request.app[_DAEMON]) | push)
