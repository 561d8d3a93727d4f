"""Scraping 10,000 VMs over HTTP: CPU of our process, how long a round takes, how long the event loop is held.

Each VM has a loopback address of its own, so that each has its own connection, and all are answered by one process
with what node_exporter shows (its size and number of lines; the metric wanted is in the middle of it).
"""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from multiprocessing import get_context

import numpy as np

from autoscaler.clock import SystemClock
from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import Policy, policy_from
from autoscaler.core.demand import fold
from autoscaler.core.types import Float, Readings, Signal
from autoscaler.ports import Vm, VmState
from autoscaler.sources.fan_out import Limits
from autoscaler.sources.scrape import MetricType, ScrapeSource
from benchmarks.calibration import Result, kernel_s, timed

VMS = 10_000
EVERY_S = 15.0
ROUNDS = 3
SERIES = 100_000
LINES = 1200
CPUS = 4


def run() -> list[Result]:
    return [*asyncio.run(_run()), *_fold()]


async def _run() -> list[Result]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listening = _listening()
    port = listening.getsockname()[1]
    process = get_context("fork").Process(target=_answer, args=(listening,), daemon=True)
    process.start()
    kernel = kernel_s()
    found = []
    try:
        for name, path in (("all of node_exporter", "all"), ("?collect[]=cpu", "cpu")):
            found += await _rounds(name, f"http://{{address}}:{port}/{path}", kernel)
    finally:
        process.kill()
        process.join(10)
        listening.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return found


async def _rounds(name: str, url: str, kernel: float) -> list[Result]:
    vms = [
        Vm(f"i-{n}", "web", VmState.RUNNING, "m", "a", f"127.1.{n // 250}.{n % 250 + 1}", 0.0, "")
        for n in range(VMS)
    ]
    limits = Limits(timeout_s=10.0, deadline_s=60.0)
    source = ScrapeSource(url, None, MetricType.CPU, Signal.UTILISATION, SystemClock(), limits)
    try:
        await source.read(vms)  # connections are made
        gc.collect()
        gc.freeze()
        cpu, seconds, stalls = [], [], [0.0]
        for _ in range(ROUNDS):
            began, before = time.perf_counter(), time.process_time()
            readings = await source.read(vms)
            cpu.append(time.process_time() - before)
            seconds.append(time.perf_counter() - began)
            assert len(readings.vm_ids) == VMS, readings.error
        ticker = asyncio.create_task(_tick(stalls))
        await source.read(vms)
        ticker.cancel()
    finally:
        gc.unfreeze()
        await source.close()
    share = 100.0 * max(cpu) / EVERY_S
    return [
        Result(
            f"{VMS:,} VMs every {EVERY_S:g} s, {name}",
            share,
            "% CPU",
            f"highest of {ROUNDS}; 60 is the limit",
        ),
        Result("  one VM", max(cpu) / VMS / kernel, "kernels", f"{max(cpu) / VMS * 1e6:.0f} µs of CPU"),
        Result("  a round", max(seconds), "s", "slowest; the answering process has a core to itself at best"),
        Result(
            "  longest turn of the loop meanwhile", max(stalls) * 1e3, "ms", "of CPU, in a round of its own"
        ),
    ]


def _fold() -> list[Result]:
    lanes = 500
    rng = np.random.default_rng(1)
    params = compile_params([_policy(f"f{n}") for n in range(lanes)], 15.0, 1000.0).fold
    readings = Readings(
        lane=np.sort(rng.integers(0, lanes, SERIES)),
        value=rng.random(SERIES),
        observed_at_s=np.full(SERIES, 995.0),
        capacity=np.full(SERIES, 100.0),
    )
    expected = np.bincount(readings.lane, minlength=lanes)
    able: Float = np.multiply(expected, 100.0, dtype=np.float64)
    seconds = min(timed(lambda: fold(params, readings, expected, able, 1000.0)) for _ in range(20))
    return [Result(f"{SERIES:,} series of {lanes} fleets folded", seconds * 1e3, "ms", "50 is the limit")]


def _policy(fleet: str) -> Policy:
    return policy_from(
        {
            "fleet": fleet,
            "signal": {"kind": "utilisation", "source": "scrape", "scrape": {"type": "cpu"}},
            "vm": {"capacity": "100/s", "start_time": "40s"},
            "bounds": {"minimum": 1, "maximum": 10},
        }
    )


async def _tick(stalls: list[float]) -> None:
    """CPU time between two turns: on a shared machine, wall time tells of the neighbours."""
    while True:
        before = time.process_time()
        await asyncio.sleep(0)
        stalls.append(time.process_time() - before)


# ── the VMs ─────────────────────────────────────────────────────────────────────────────────────────────


def _listening() -> socket.socket:
    """On every address of the loopback device and no other."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    made.bind(("0.0.0.0", 0))
    made.listen(4096)
    return made


class _Vm(asyncio.Protocol):
    """CPU counters that go on by a second per second."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        body = _cpu_text() if b"/cpu" in data[:12] else _BEFORE + _cpu_text() + _AFTER
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )


def _cpu_text() -> bytes:
    now = time.monotonic()
    modes = {
        "idle": 0.6,
        "iowait": 0.01,
        "irq": 0,
        "nice": 0,
        "softirq": 0.01,
        "steal": 0,
        "system": 0.1,
        "user": 0.28,
    }
    lines = [
        "# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.",
        "# TYPE node_cpu_seconds_total counter",
    ]
    lines += [
        f'node_cpu_seconds_total{{cpu="{cpu}",mode="{mode}"}} {now * share:.2f}'
        for cpu in range(CPUS)
        for mode, share in modes.items()
    ]
    return ("\n".join(lines) + "\n").encode()


def _other(first: int, count: int) -> bytes:
    return b"".join(
        b'node_some_other_metric_total{device="device-%d",instance="%d"} %d.5e+06\n' % (n % 40, n, n)
        for n in range(first, first + count)
    )


_BEFORE, _AFTER = _other(0, LINES // 3), _other(LINES // 3, 2 * LINES // 3)


def _answer(listening: socket.socket) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Vm, sock=listening, backlog=4096)
        await server.serve_forever()

    asyncio.run(serve())
