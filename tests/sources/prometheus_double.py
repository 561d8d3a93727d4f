"""Prometheus' HTTP API on loopback: vectors by query, and every way in which an answer can fail."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaler.clock import SystemClock

HTML = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"
BOMB = gzip.compress(bytes(64 << 20), 1)


@dataclass
class PrometheusOverHttp:
    """Answers instant queries from `vectors`; `mood` names a way to fail.

    Attributes:
        clock: Clock that stamps answers, unless `at_s` is given.
        vectors: By query, its series as (labels, value).
        asked: (path, form, headers) of each request.
    """

    clock: object
    vectors: dict = field(default_factory=dict)
    at_s: float | None = None
    mood: str = ""
    warnings: tuple = ()
    headers: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/api/v1/{path}", self._answer)
        self._server = TestServer(app, host="127.0.0.1")
        await self._server.start_server()
        self.url = f"http://127.0.0.1:{self._server.port}"
        return self

    async def __aexit__(self, *_):
        await self._server.close()

    @property
    def queries(self):
        return [form["query"] for _, form, _ in self.asked]

    async def _answer(self, request):
        form = dict(await request.post())
        self.asked.append((request.match_info["path"], form, dict(request.headers)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._respond(request, form)
        finally:
            self.under_way -= 1

    async def _respond(self, request, form):
        match self.mood:
            case "hang":
                clock = SystemClock()
                await clock.sleep_until(clock.monotonic() + 30.0)
            case "html":
                return web.Response(text=HTML, content_type="text/html")
            case "garbage":
                return web.Response(body=bytes(range(256)) * 1000)
            case "deep":
                return web.Response(body=b"[" * 1_000_000)
            case "huge":
                return web.Response(body=b'{"status":"success","data":"' + b"x" * (10 << 20))
            case "bomb":
                return web.Response(body=BOMB, headers={"Content-Encoding": "gzip"})
            case "cut" | "half" | "reset" | "reset once":
                return await self._broken(request)
            case "moved":
                return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})
            case "partial":
                return _json(
                    {"status": "success", "isPartial": True, "data": {"resultType": "vector", "result": []}}
                )
            case "shape":
                return _json(
                    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}
                )
            case "beyond":
                value = {"metric": {}, "value": [10**400, "5"]}
                return _json({"status": "success", "data": {"resultType": "vector", "result": [value]}})
            case "matrix":
                return _json({"status": "success", "data": {"resultType": "matrix", "result": []}})
            case "bad query":
                return _json(
                    {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected )"}, 400
                )
            case mood if mood.isdecimal():
                return web.Response(status=int(mood), text="no", headers=self.headers)
        return self._vector(form["query"])

    async def _broken(self, request):
        if self.mood.startswith("reset"):
            self.mood = self.mood.removesuffix("reset once")
            # With this, closing sends RST, as a process does that ends with unread data.
            at_once = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, at_once
            )
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Length": "1000"} if self.mood == "cut" else {})
        await response.prepare(request)
        await response.write(b'{"status":"success"')
        if self.mood == "cut":
            request.transport.close()
        return response

    def _vector(self, query):
        at_s = self.clock.now() if self.at_s is None else self.at_s
        result = [
            {"metric": labels, "value": [at_s, value if isinstance(value, str) else repr(float(value))]}
            for labels, value in self.vectors.get(query, [])
        ]
        told = {"warnings": list(self.warnings)} if self.warnings else {}
        return _json({"status": "success", "data": {"resultType": "vector", "result": result}, **told})


def _json(data, status=200):
    return web.Response(status=status, text=json.dumps(data), content_type="application/json")
