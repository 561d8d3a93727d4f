"""A real HAProxy on loopback, in front of VMs that can be kept busy. It is ended by its process id."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from autoscaler.balancers.haproxy_socket import HaproxyError, HaproxySocket
from autoscaler.clock import SystemClock
from tests.free_ports import Ports
from tests.real import require_real

PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"
BACKEND = "web"


class Vms:
    """VMs that answer HTTP on 127.0.1.1, 127.0.1.2, … at one port. While `free` is clear, requests wait."""

    def __init__(self, count):
        self.addresses = [f"127.0.1.{number + 1}" for number in range(count)]
        self._ports = Ports()
        self.port = self._ports.one()
        self.seen: list[str] = []
        self.free = asyncio.Event()
        self.free.set()
        self._listening = []

    async def __aenter__(self):
        for address in self.addresses:
            self._listening.append(await asyncio.start_server(self._serve(address), address, self.port))
        return self

    async def __aexit__(self, *_):
        self.free.set()
        for each in self._listening:
            each.close()
        self._ports.close()

    def _serve(self, address):
        async def serve(reader, writer):
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                self.seen.append(address)
                await self.free.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                await writer.drain()
            await closed(writer)

        return serve


class Haproxy:
    """HAProxy in front of such VMs; its entries are named like VM ids."""

    def __init__(self, folder: Path, vms: Vms, *, tcp=False, maxconn=0, level="admin", mode="http", check=""):
        require_real("haproxy", Path(PROGRAM).exists())
        self._ports = Ports()
        self.port = self._ports.one()
        self.place = f"127.0.0.1:{self._ports.one()}" if tcp else str(folder / "haproxy.sock")
        bind = f"ipv4@{self.place}" if tcp else f"{self.place} mode 600"
        limit = f" maxconn {maxconn}" if maxconn else ""
        entries = "\n".join(
            f"  server i-{number} {address}:{vms.port}{limit}{check}"
            for number, address in enumerate(vms.addresses)
        )
        self._leaving = None
        self.config = folder / "haproxy.cfg"
        self.config.write_text(
            f"global\n  stats socket {bind} level {level}\n"
            f"defaults\n  mode {mode}\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n"
            f"  timeout queue 20s\nfrontend front\n  bind 127.0.0.1:{self.port}\n  default_backend {BACKEND}\n"
            f"backend {BACKEND}\n{entries}\nbackend other\n"
        )

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, "-f", str(self.config), "-db",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        # It listens before it can answer. A connection to the frontend as a test would be counted as a request.
        await wait_for(self._may_be_asked)
        return self

    async def _may_be_asked(self):
        try:
            return await HaproxySocket(self.place, 5.0).ask(["show version"])
        except HaproxyError:
            return False

    async def __aexit__(self, *_):
        for process in filter(None, (self._process, self._leaving)):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._ports.close()

    async def reload(self):
        """Start a second process, which takes over while the first serves its sessions to their end."""
        place, first = HaproxySocket(self.place, 5.0), self._process
        before = (await place.counters(BACKEND)).process
        self._leaving = first
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, "-f", str(self.config), "-db", "-sf", str(first.pid),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

        async def answers():
            with suppress(HaproxyError):
                return (await place.counters(BACKEND)).process.follows(before)

        await wait_for(answers)

    async def request(self):
        """Send a request through HAProxy and return its status line."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        await closed(writer)
        return answer.split(b"\r\n")[0].decode()


async def closed(writer):
    """Close a connection completely, so that no test leaves a half-open socket."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def wait_for(condition, within_s=60.0):
    """Poll until a condition holds."""
    clock = SystemClock()
    end_s = clock.monotonic() + within_s
    while True:
        holds = condition()
        if asyncio.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert clock.monotonic() < end_s, "it does not come true"
        await clock.sleep_until(clock.monotonic() + 0.01)


class Script:
    """A program other than HAProxy on a Unix socket: it answers with given bytes, or hangs."""

    def __init__(self, path: Path, answer: bytes | None):
        self.path, self.answer = path, answer
        self.asked = lambda: None
        """Called before each answer."""

    async def __aenter__(self):
        async def serve(reader, writer):
            await reader.readline()
            self.asked()
            if self.answer is None:
                await reader.read()
            with suppress(ConnectionError):
                writer.write(self.answer or b"")
                await writer.drain()
            await closed(writer)

        self._listening = await asyncio.start_unix_server(serve, str(self.path))
        return self

    async def __aexit__(self, *_):
        self._listening.close()
