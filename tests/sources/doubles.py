"""Shared by the tests of sources: a clock that stands still, VMs, and the VMs' HTTP endpoints."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaler.clock import SystemClock
from autoscaler.ports import Vm, VmState


@dataclass
class ManualClock:
    """A clock for code that only asks for the time."""

    at_s: float = 1_000_000.0

    def now(self) -> float:
        return self.at_s

    def monotonic(self) -> float:
        return self.at_s

    async def sleep_until(self, monotonic_s: float) -> None:
        self.at_s = max(self.at_s, monotonic_s)


def vm(vm_id, address=None, launched_at_s=0.0) -> Vm:
    return Vm(vm_id, "web", VmState.RUNNING, "m7i.large", "az1", address, launched_at_s, "img")


def on(*addresses):
    return [vm(f"i-{address}", address) for address in addresses]


BOMB = gzip.compress(bytes(8 << 20), 1)
HTML = "<!DOCTYPE html><html><body>Welcome to nginx! requests_total 5</body></html>"


@dataclass
class VmsOverHttp:
    """Many VMs behind one loopback port. The first part of the path is the VM's address, whose name decides its behaviour."""

    texts: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/{address}/metrics", self._answer)
        self._server = TestServer(app, host="127.0.0.1")
        await self._server.start_server()
        self.url = f"http://127.0.0.1:{self._server.port}/{{address}}/metrics"
        return self

    async def __aexit__(self, *_):
        await self._server.close()

    async def _answer(self, request):
        address = request.match_info["address"]
        self.seen.append(address)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._wait(0.005)  # long enough for requests to overlap
            return await self._respond(request, address)
        finally:
            self.under_way -= 1

    async def _wait(self, seconds):
        clock = SystemClock()
        await clock.sleep_until(clock.monotonic() + seconds)

    async def _respond(self, request, address):
        if address in self.texts:
            return web.Response(text=self.texts[address])
        match address.rstrip("0123456789"):
            case "html":
                return web.Response(text=HTML, content_type="text/html")
            case "garbage":
                return web.Response(body=bytes(range(256)) * 100)
            case "huge":
                return web.Response(body=b"x" * (10 << 20))
            case "bomb":
                return web.Response(body=BOMB, headers={"Content-Encoding": "gzip"})
            case "broken-gzip":
                return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})
            case "cut":
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"requests_total 5\n")
                request.transport.close()
                return response
            case "hang":
                await self._wait(30.0)
                return web.Response(text="too late")
            case "status":
                return web.Response(status=int(address.removeprefix("status")), text="requests_total 5\n")
            case "moved":
                raise web.HTTPFound("/ok/metrics")
        return web.Response(status=500, text="requests_total 5\n")
