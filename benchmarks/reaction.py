"""A burst that a monitoring system shows: from the moment it is visible to StartInstances on the wire.

Everything is real but the cloud and what is read: sources over HTTP on loopback, the journal on the disk, aiobotocore,
and a wire to the embedded cloud in its own process. A burst becomes visible at any moment between two ticks, so the
goal is one tick and half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaler.clock import SystemClock
from autoscaler.config.policy import policy_from
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.wiring import wire
from autoscaler.wiring_sources import Sources
from benchmarks.calibration import Result
from benchmarks.push import Wire, behind_a_wire

BURSTS = 30
TICK_S = 1.0
OVER_S = 0.5
PER_VM = 100.0


class Shown:
    """Demand as an exporter shows it and as a Prometheus answers it."""

    def __init__(self) -> None:
        self.demand = 0.0

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f"demand {self.demand}\n")

    async def query(self, _: web.Request) -> web.Response:
        result = [{"metric": {}, "value": [time.time(), repr(self.demand)]}]
        answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return web.Response(text=json.dumps(answer), content_type="application/json")


def run() -> list[Result]:
    return [one for source in ("scrape", "prometheus") for one in asyncio.run(_run(source))]


def _policy(source: str, url: str) -> dict[str, object]:
    section = {
        "scrape": {"url": f"{url}/metrics", "metric": "demand"},
        "prometheus": {"url": url, "query": "sum(rate(requests_total[1m]))"},
    }[source]
    return {
        "fleet": "web",
        "act": True,
        "signal": {"kind": "total", "source": source, source: section},
        "vm": {"capacity": f"{PER_VM:.0f}/s", "start_time": "30s", "stop_time": "30s"},
        "readiness": {"probe": "status_checks"},
        "bounds": {"minimum": 0, "maximum": BURSTS},
        "reactive": {"headroom": "0%", "tolerance": "0%"},
        "guards": {"rate_out": {"vms": BURSTS, "per": "1s"}, "cooldown_out": "0s", "stabilisation": "1h"},
    }


async def _run(source: str) -> list[Result]:
    clock, shown = SystemClock(), Shown()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        app = web.Application()
        app.router.add_get("/metrics", shown.metrics)
        app.router.add_post("/api/v1/query", shown.query)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        stack.push_async_callback(server.close)
        cable, provider, journal = await behind_a_wire(stack, clock, folder, BURSTS)
        policy = policy_from(_policy(source, f"http://127.0.0.1:{server.port}"))
        wired = wire([policy], provider, clock, Sources(clock, folder).source_for)
        for adapter in wired.closables:
            stack.push_async_callback(adapter.close)
        daemon = Daemon(clock, wired.setups, journal, Telemetry(), LoopSettings(tick_s=TICK_S))
        running = asyncio.create_task(daemon.run())
        while daemon.last_record is None:
            await clock.sleep_until(clock.monotonic() + 0.05)
        taken = [await _burst(number, shown, cable, clock) for number in range(BURSTS)]
        daemon.stop()
        await running
    found = np.array(taken)
    goal = "met" if found.max() <= TICK_S + OVER_S else "MISSED"
    return [
        Result(
            f"{source}: visible to StartInstances, p50",
            float(np.median(found)),
            "s",
            f"a tick is {TICK_S:g} s",
        ),
        Result(f"{source}: 99th percentile", float(np.percentile(found, 99)), "s"),
        Result(
            f"{source}: the slowest of {BURSTS}",
            float(found.max()),
            "s",
            f"goal {TICK_S + OVER_S:g} s: {goal}",
        ),
    ]


async def _burst(number: int, shown: Shown, cable: Wire, clock: SystemClock) -> float:
    await clock.sleep_until(clock.monotonic() + (0.37 * number) % TICK_S)
    cable.came.clear()
    shown.demand = PER_VM * (number + 1)
    before = time.perf_counter()
    async with asyncio.timeout(60.0):
        await cable.came.wait()
    return cable.starts[-1] - before
