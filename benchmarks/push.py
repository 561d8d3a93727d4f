"""A pushed burst: from the first byte of the push to the first byte of StartInstances on the wire, 1,000 times.

Everything is real but the cloud: HTTP in, an early turn, the journal on the disk, aiobotocore, and a wire on loopback to
the embedded cloud in its own process. The fleet grows by one VM a burst, so the last ones are decided among a thousand.
The grid goes on meanwhile, and bursts that fall into one of its ticks wait for it. What early turns may cost a provider
is not measured here: the bucket is wide open.

The peer is a round trip on loopback, HTTP GET of the same site in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import numpy as np

from autoscaler.clock import SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.waking import LoopSleep
from autoscaler.ports import Clock
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.sources.push import PushedSamples
from autoscaler.sources.remote_write import RemoteWrite
from autoscaler.store import SqliteJournal, open_journal
from autoscaler.web.ingest import Ingest
from autoscaler.web.ingest_token import PushTokens
from autoscaler.web.site import Site
from autoscaler.wiring import wire
from autoscaler.wiring_sources import Sources
from benchmarks.calibration import Result
from benchmarks.quiet import Quiet

BURSTS = 1000
GOAL_MS = 200.0
TICK_S = 10.0
PER_VM = 100.0
PAUSES_S = (0.005, 0.04)
TOKEN = "0123456789abcdef0123456789abcdef"
KEY = "embedded"
POLICY = {
    "fleet": "web",
    "act": True,
    "signal": {"kind": "total", "source": "push", "max_age": "5m"},
    "vm": {"capacity": f"{PER_VM:.0f}/s", "start_time": "30s", "stop_time": "30s"},
    "readiness": {"probe": "status_checks"},
    "bounds": {"minimum": 0, "maximum": BURSTS},
    "reactive": {"headroom": "0%", "tolerance": "0%"},
    "guards": {"rate_out": {"vms": BURSTS, "per": "1s"}, "cooldown_out": "0s", "stabilisation": "1h"},
}


class Wire:
    """Passes bytes on to the cloud, and notes when a request to start VMs begins to come by."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self.starts: list[float] = []
        self.came = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for task in self._tasks:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(self._host, self._port)
        back = asyncio.create_task(self._pass_on(there, writer, notes=False))
        self._tasks.add(back)
        back.add_done_callback(self._tasks.discard)
        await self._pass_on(reader, to_there, notes=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, notes: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                if notes and b"Action=StartInstances" in part:
                    self.starts.append(time.perf_counter())
                    self.came.set()
                writer.write(part)
                await writer.drain()
        writer.close()


async def behind_a_wire(
    stack: contextlib.AsyncExitStack, clock: Clock, folder: Path, vms: int
) -> tuple[Wire, Ec2Provider, SqliteJournal]:
    """The wire to an embedded cloud in its own process, a provider over it, and a journal on the disk."""
    setup = CloudSetup(fleets=(FleetSetup("web", vms),), api_limits=False)
    cloud = await stack.enter_async_context(EndpointProcess(setup))
    cable = Wire(cloud.url)
    url = await stack.enter_async_context(cable)
    settings = Ec2Settings(setup.region, url, access_key_id=KEY, secret_access_key=KEY)
    provider = await stack.enter_async_context(await Ec2Provider.open(settings, clock))
    journal = open_journal(folder / "state", clock.now, print)
    stack.push_async_callback(journal.close)
    return cable, provider, journal


def run() -> list[Result]:
    return asyncio.run(_run())


async def _run() -> list[Result]:
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cable, provider, journal = await behind_a_wire(stack, clock, folder, BURSTS)
        pushed = PushedSamples(clock)
        wired = wire([policy_from(POLICY)], provider, clock, Sources(clock, folder, pushed).source_for)
        daemon = Daemon(clock, wired.setups, journal, Telemetry(log=Quiet()), LoopSettings(tick_s=TICK_S))
        daemon.waking = LoopSleep(clock, 0.001)
        tokens = folder / "tokens"
        tokens.write_text(TOKEN)
        tokens.chmod(0o600)
        ingest = Ingest(daemon, pushed, PushTokens(tokens, clock.now), RemoteWrite())
        site = await stack.enter_async_context(Site(daemon, "127.0.0.1", 0, ingest))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        running = asyncio.create_task(daemon.run())
        while daemon.last_record is None:
            await clock.sleep_until(clock.monotonic() + 0.05)
        trips = [await _round_trip(session, f"{site.url}/healthz") for _ in range(BURSTS)]
        taken, early = await _bursts(session, f"{site.url}/v1/samples", cable, daemon)
        daemon.stop()
        await running
    trip, burst = np.array(trips) * 1e3, np.array(taken) * 1e3
    p50, p99 = np.percentile(burst, [50, 99])
    trip_p50 = float(np.median(trip))
    return [
        Result("loopback round trip, p50", trip_p50, "ms", "the peer: GET of the same site"),
        Result("push to StartInstances on the wire, p50", p50, "ms", f"{p50 / trip_p50:.0f} round trips"),
        Result(
            "push to StartInstances on the wire, p99",
            p99,
            "ms",
            f"{p99 / trip_p50:.0f} round trips; goal {GOAL_MS:.0f} ms: {'met' if p99 <= GOAL_MS else 'MISSED'}",
        ),
        Result("the slowest", float(burst.max()), "ms", f"of {len(burst):,} bursts"),
        Result("early turns", early, "", "the other bursts fell into a tick of the grid"),
    ]


async def _round_trip(session: aiohttp.ClientSession, url: str) -> float:
    before = time.perf_counter()
    async with session.get(url) as answer:
        await answer.read()
    return time.perf_counter() - before


async def _bursts(
    session: aiohttp.ClientSession, url: str, cable: Wire, daemon: Daemon
) -> tuple[Sequence[float], float]:
    """Seconds of each burst, and how many had an early turn."""
    clock, draw = SystemClock(), np.random.default_rng(1)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    taken = []
    for number in range(BURSTS):
        await clock.sleep_until(clock.monotonic() + draw.uniform(*PAUSES_S))
        cable.came.clear()
        sample = {"fleet": "web", "value": PER_VM * (number + 1), "timestamp": clock.now()}
        before = time.perf_counter()
        async with asyncio.timeout(30.0), session.post(url, json=[sample], headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await cable.came.wait()
        taken.append(cable.starts[-1] - before)
        assert len(cable.starts) == number + 1
    early = daemon.telemetry.registry.get_sample_value("autoscaler_early_turns_total", {"cause": "push"})
    return taken, early or 0.0
