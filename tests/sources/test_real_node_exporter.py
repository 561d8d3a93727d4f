"""Scraping the real node_exporter: its CPU counters and a gauge, over loopback."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from autoscaler.clock import SystemClock
from autoscaler.core.types import Signal
from autoscaler.sources.exposition import Metric
from autoscaler.sources.fan_out import FanOut, Limits
from autoscaler.sources.probes import HttpProbe
from autoscaler.sources.scrape import MetricType, ScrapeSource
from tests.real import require_real
from tests.sources.doubles import vm

COMMAND = "prometheus-node-exporter"
URL = "http://{address}/metrics"


@pytest.fixture(name="address")
async def _address(unused_tcp_port):
    command = shutil.which(COMMAND)
    require_real(COMMAND, command is not None)
    address, clock = f"127.0.0.1:{unused_tcp_port}", SystemClock()
    process = await asyncio.create_subprocess_exec(
        command,
        f"--web.listen-address={address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    probe = FanOut(Limits(timeout_s=2.0))
    try:
        for _ in range(1000):
            if not (await probe.get_all({"": URL.replace("{address}", address)}, len))[""].error:
                break
            await clock.sleep_until(clock.monotonic() + 0.1)
        else:
            pytest.fail(f"{COMMAND} did not answer within 100 s")
        yield address
    finally:
        await probe.close()
        process.terminate()
        await asyncio.wait_for(process.wait(), 300)


def memory_of_this_machine():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemTotal")).split()[1]) * 1024


@pytest.mark.real
async def test_cpu_and_memory_of_this_machine(address):
    clock = SystemClock()
    machine, dead = vm("i-1", address), vm("i-2", "127.0.0.1:9")
    cpu = ScrapeSource(URL, None, MetricType.CPU, Signal.UTILISATION, clock)
    memory = ScrapeSource(
        URL, Metric("node_memory_MemTotal_bytes"), MetricType.GAUGE, Signal.THROUGHPUT, clock
    )
    try:
        assert (await cpu.read([machine, dead])).error.startswith(
            "1 of 2 gave no reading: connection refused"
        )
        until_s = clock.monotonic() + 0.5
        while clock.monotonic() < until_s:  # CPU seconds advance in steps of 10 ms, so keep the CPU busy
            await clock.sleep_until(clock.monotonic())
        found = await cpu.read([machine, dead])
        assert found.vm_ids == ("i-1",)
        assert 0.0 < found.values[0] <= 1.0
        assert "connection refused at 127.0.0.1:9" in found.error

        (total,) = (await memory.read([machine])).values
        assert total == memory_of_this_machine()
    finally:
        await cpu.close()
        await memory.close()


@pytest.mark.real
async def test_ready_once_it_answers(address):
    probe = HttpProbe(URL)
    assert await probe.ready([vm("i-1", address), vm("i-2", "127.0.0.1:9")]) == {"i-1"}
    await probe.close()
