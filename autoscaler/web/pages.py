"""The status page: what `status` and `events` print, and a chart of the last hours, for a browser.

Rules of this file: read only. The page makes requests only to this site and runs only its own script; its content security policy
makes browsers enforce that. Everything it shows is inserted as text, never as markup. Requests cost the loop little, because the
journal is read in another thread (`history`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from aiohttp import hdrs, web

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import JournalError
from autoscaler.ports.history import History

_FILES = {"status.html": "text/html", "status.css": "text/css", "status.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LONGEST_H = 168.0
_AS_TEXT = "autoscaler: /metrics /healthz /api/v1/status, and this page for browsers\n"


class Pages:
    """Serves the status page and the data it requests besides the status.

    Args:
        daemon: The daemon to show.
        history: Reads its journal; None if it cannot be read.
    """

    def __init__(self, daemon: Daemon, history: History | None) -> None:
        self._daemon, self._history = daemon, history
        self._found = {name: (files(__package__) / "page" / name).read_bytes() for name in _FILES}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the page, its files and its data."""
        return [
            web.get("/", self._index),
            *(web.get(f"/{name}", self._file) for name in _FILES),
            web.get("/api/v1/history", self._ticks),
            web.get("/api/v1/events", self._events),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        # Clients that do not accept HTML get a line of text.
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            return web.Response(text=_AS_TEXT)
        return self._page("status.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._page(request.path.removeprefix("/"))

    def _page(self, name: str) -> web.Response:
        return web.Response(
            body=self._found[name], content_type=_FILES[name], charset="utf-8", headers=_HEADERS
        )

    async def _ticks(self, request: web.Request) -> web.Response:
        fleet, hours = request.query.get("fleet", ""), hours_in(request.query.get("hours", "1"))
        if fleet not in self._daemon.fleets.by_name:
            return _error(404, f"there is no fleet {fleet!r}; name one as fleet=NAME")
        if hours is None:
            return _error(
                400, f"hours must be a number above 0 and at most {LONGEST_H:g}, for example hours=6"
            )
        return await _read(
            self._history, lambda journal: journal.ticks(fleet, self._daemon.clock.now(), hours)
        )

    async def _events(self, request: web.Request) -> web.Response:
        fleet = request.query.get("fleet") or None

        async def told(journal: History) -> dict[str, Any]:
            return {"events": await journal.events(fleet)}

        return await _read(self._history, told)


async def _read(
    history: History | None, call: Callable[[History], Awaitable[dict[str, Any]]]
) -> web.Response:
    if history is None:
        return _error(404, "this daemon keeps no journal that can be read")
    try:
        return web.json_response(await call(history))
    except JournalError as error:
        return _error(503, str(error))


def hours_in(text: str) -> float | None:
    """Parse a number of hours; None if it is not one, or out of range."""
    try:
        hours = float(text)
    except ValueError:
        return None
    return hours if 0.0 < hours <= LONGEST_H else None


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
