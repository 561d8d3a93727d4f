"""Everything served over HTTP: /metrics, /healthz, /api/v1/status."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import DaemonError
from autoscaler.web.status import status, unhealthy

_DAEMON = web.AppKey("daemon", Daemon)


class Site:
    """Serves a daemon's state while a context lasts.

    Args:
        daemon: Whose.
        host: Address to listen on.
        port: Port; 0 takes any free one.
    """

    def __init__(self, daemon: Daemon, host: str, port: int) -> None:
        self._host, self._port = host, port
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
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            msg = (
                f"cannot listen on {self._host}:{self._port}: {why}; another daemon may be running, or choose "
                "another port (setting http_port, --http-port; 0 takes a free one)"
            )
            raise DaemonError(msg) from None
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()


async def _index(request: web.Request) -> web.Response:
    del request
    return web.Response(text="autoscaler: /metrics /healthz /api/v1/status\n")


async def _metrics(request: web.Request) -> web.Response:
    body = generate_latest(request.app[_DAEMON].telemetry.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(request: web.Request) -> web.Response:
    problems = unhealthy(request.app[_DAEMON])
    return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")


async def _status(request: web.Request) -> web.Response:
    return web.json_response(status(request.app[_DAEMON]))
