"""The HTTP site: status page, /metrics, /healthz, /api/v1, and /v1/samples if samples may be pushed.

Monitoring cannot tell a site that no longer answers from a daemon that has died. So the daemon requests its own site now and then;
if nothing answers, it reports that and opens the site again.

Rules of this file: a client costs the daemon little. The number of connections is limited, because they would use up the file
descriptors that calls to the cloud need. Connections that send nothing, or do not read their answer, are closed. Answers are
bounded in loop time and memory (`answers`); health is always answered. A site on a loopback address answers only requests to
addresses and local names. Otherwise a foreign page whose name resolves to this machine could read everything through an
operator's browser. Malformed requests get an answer, and are not logged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import resource
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import DaemonError
from autoscaler.ports.history import History
from autoscaler.web.answers import MOST_UNREAD, Handler, SharedAnswer, UnsentBytes
from autoscaler.web.ingest import PATH as SAMPLES
from autoscaler.web.ingest import Ingest
from autoscaler.web.pages import Pages
from autoscaler.web.status import status

_DAEMON = web.AppKey("daemon", Daemon)

PATHS = ("/metrics", "/healthz", "/api/v1/status")

ASK_EVERY_S = 30.0
ANSWER_WITHIN_S = 10.0
"""Seconds of the event loop to wait for the site's own answer. A late loop delays both ends, which is not the site's fault."""

BACKLOG = 32
"""Connections that asyncio accepts in one go, before they are counted."""
MOST_CONNECTIONS = 8192
"""Largest number of connections. Probes on thousands of VMs may each keep one open to push; each costs some kilobytes."""


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, max(files // 4, 8)) if files > 0 else MOST_CONNECTIONS


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of connections. Times are seconds of the event loop.

    Attributes:
        most: Connections at the same time; at most a quarter of the files that this process may open.
        silent_s: How long a connection may be without a request, including before the first one.
        longest_s: Age at which a connection takes no further request.
        ending_s: Time after `longest_s` until it is closed in any case.
        unread: Limit of unread bytes in answers, over all connections.
    """

    most: int = field(default_factory=_most_connections)
    silent_s: float = 75.0
    longest_s: float = 600.0
    ending_s: float = 60.0
    unread: int = MOST_UNREAD


class Site:
    """Serves a daemon's state over HTTP while its context is open.

    Args:
        daemon: The daemon to serve.
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        ingest: Receives pushed samples; None accepts none.
        guests: Limits of connections.
        history: Reads the past for the page; without it the page starts empty and shows only what happens while it is open.
    """

    def __init__(
        self,
        daemon: Daemon,
        host: str,
        port: int,
        ingest: Ingest | None = None,
        guests: ConnectionLimits | None = None,
        history: History | None = None,
    ) -> None:
        self._guests = guests or ConnectionLimits()
        self._host, self._port = host, port
        self._daemon = daemon
        app = web.Application()
        app[_DAEMON] = daemon
        self._unread = UnsentBytes(self._connections, self._guests.unread)
        self._metrics = SharedAnswer(lambda: generate_latest(daemon.telemetry.registry))
        self._status = SharedAnswer(lambda: _status(daemon, ingest))
        large = [
            *Pages(daemon, history).routes(),
            web.get("/metrics", self._tell_metrics),
            web.get("/api/v1/status", self._tell_status),
        ]
        for each in large:
            told = self._unread.guarded(each.handler)
            app.router.add_get(each.path, _by_local_name(told) if _is_loopback(host) else told)
        app.add_routes([web.get("/healthz", _healthz)])
        app.on_response_prepare.append(_set_safe_headers)
        self.paths = PATHS if ingest is None else (*PATHS, SAMPLES)
        if ingest is not None:
            app.add_routes(ingest.routes())
        # aiohttp would log a traceback for every malformed line that a client sends.
        quiet = logging.Logger("site")  # noqa: LOG001  must stand outside the hierarchy of loggers
        quiet.addHandler(logging.NullHandler())
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=quiet,
            shutdown_timeout=2.0,
            keepalive_timeout=self._guests.silent_s,
            # aiohttp would decompress any body, from any sender, to up to a thousand times its size, even if no handler reads it.
            auto_decompress=False,
        )
        self._listening: asyncio.Server | None = None
        self._since_s: dict[RequestHandler, float] = {}
        self._said_trouble = False
        self.url = ""
        """The site's address while the context is open."""

    async def __aenter__(self) -> Self:
        """Start to listen.

        Raises:
            DaemonError: The address cannot be used.
        """
        await self._runner.setup()
        try:
            await self._listen()
        except OSError as error:
            await self._runner.cleanup()
            # Errors of name resolution have negative numbers, which `strerror` does not know.
            number = error.errno or 0
            why = os.strerror(number).lower() if number > 0 else error.strerror or str(error)
            msg = (
                f"cannot listen on {self._host}:{self._port}: {why}; another daemon may be running, or choose "
                "another port (setting http_port, --http-port; 0 takes a free one)"
            )
            raise DaemonError(msg) from None
        return self

    async def watch(self) -> None:
        """Check repeatedly that the site answers; report and reopen it if it does not. Also close connections that are too old."""
        clock, telemetry = self._daemon.clock, self._daemon.telemetry
        while True:
            await clock.sleep_until(clock.monotonic() + ASK_EVERY_S)
            self._end_old()
            trouble = self._trouble()
            if trouble:
                if not self._said_trouble:
                    telemetry.log.error("site_silent", text=trouble)
                self._said_trouble = True
                continue
            self._said_trouble = False
            if await self._answers():
                continue
            text = f"nothing answers at {self.url} any more; it is being restarted"
            telemetry.log.error("site_silent", text=text)
            self._stop_listening()
            await self._listen()

    def _trouble(self) -> str:
        """Return why requests are refused, as a sentence; empty if none are."""
        if self._is_full():
            return f"{self._guests.most} connections to {self.url} are open, so further ones are refused; check who leaves them open"
        if self._unread.is_too_much:
            return (
                f"{self._guests.unread >> 20} MB of answers of {self.url} are waiting to be read, so status and metrics are refused; "
                "check which client does not read"
            )
        return ""

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._connected, self._host, self._port, backlog=BACKLOG)
        host, self._port = self._listening.sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def _stop_listening(self) -> None:
        """Stop listening; requests in progress are still answered."""
        if self._listening is not None:
            self._listening.close()
        self._listening = None

    def _connected(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        protocol = self._runner.server()
        if self._is_full():
            asyncio.get_running_loop().call_later(0.0, protocol.force_close)
        return protocol

    def _connections(self) -> list[RequestHandler]:
        return [] if self._runner.server is None else self._runner.server.connections

    def _is_full(self) -> bool:
        return len(self._connections()) >= self._guests.most

    def _end_old(self) -> None:
        """Close connections that are too old: a client that never reads its answer would keep the answer and its place for ever."""
        assert self._runner.server is not None
        now_s, longest_s = asyncio.get_running_loop().time(), self._guests.longest_s
        self._since_s = {each: self._since_s.get(each, now_s) for each in self._runner.server.connections}
        for each, since_s in self._since_s.items():
            if now_s - since_s >= longest_s + self._guests.ending_s:
                transport = each.transport
                each.force_close()
                if transport is not None:
                    transport.abort()  # closing would wait until the client has read the rest
            elif now_s - since_s >= longest_s:
                each.close()

    async def _answers(self) -> bool:
        """Return whether a request from this machine gets any answer."""
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

    async def _tell_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.now(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _tell_status(self, _: web.Request) -> web.Response:
        return web.Response(body=self._status.now(), content_type="application/json", charset="utf-8")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._stop_listening()
        await self._runner.cleanup()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _by_local_name(handler: Handler) -> Handler:
    """Return a handler that accepts only requests to an address, or to a name that no other host can have."""

    async def guard(request: web.Request) -> web.StreamResponse:
        name = _name_asked(request.host)
        if name:
            text = f"this site serves only this machine: request it (or let your proxy request it) as localhost, not as {name}\n"
            return web.Response(status=421, text=text)
        return await handler(request)

    return guard


def _name_asked(host: str) -> str:
    """Return the name in a Host header if it may belong to another host; empty if not."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ascii(host[:200])
    if "." not in name or name.endswith(".localhost"):
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return ascii(name[:200])
    return ""


async def _healthz(request: web.Request) -> web.Response:
    problems = request.app[_DAEMON].unhealthy()
    return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")


def _status(daemon: Daemon, ingest: Ingest | None) -> bytes:
    push = {} if ingest is None else {"push": ingest.status()}
    return json.dumps(status(daemon) | push).encode()


async def _set_safe_headers(_: web.Request, answer: web.StreamResponse) -> None:
    """Set headers for text from outside: browsers must not interpret it as a page, and pages of other sites must not load it."""
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
