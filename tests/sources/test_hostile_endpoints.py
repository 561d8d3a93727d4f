"""VMs that expose what no exporter would: whatever one answers, the others are read and unaffected."""

from __future__ import annotations

import pytest
from aiohttp import web

from autoscaler.core.types import Signal
from autoscaler.sources.exposition import Metric
from autoscaler.sources.fan_out import FanOut, Limits
from autoscaler.sources.scrape import MetricType, ScrapeSource
from tests.sources.doubles import on

AT_ONCE = 2
LIMITS = Limits(timeout_s=10.0, deadline_s=60.0, at_once=AT_ONCE)
HUGE = 'n{x="1"} 1e308\nn{x="2"} 1e308\n'
HUGE_CPU = "".join(f'node_cpu_seconds_total{{cpu="{cpu}",mode="idle"}} 1e308\n' for cpu in range(2))


@pytest.fixture(name="make")
async def _make(web, clock):
    made = []

    def make(metric, kind, signal=Signal.THROUGHPUT):
        made.append(ScrapeSource(web.url, metric, kind, signal, clock, LIMITS))
        return made[-1]

    yield make
    for source in made:
        await source.close()


async def test_as_many_vms_as_are_asked_at_once_whose_numbers_have_no_sum_hide_nobody(web, make):
    bad = [f"bad{number}" for number in range(AT_ONCE)]
    web.texts = dict.fromkeys(bad, HUGE) | {"good": "n 5\n"}
    found = await make(Metric("n"), MetricType.GAUGE).read(on(*bad, "good"))
    assert (found.vm_ids, found.values.tolist()) == (("i-good",), [5.0])
    assert found.error.startswith("2 of 3 gave no reading: numbers too large to add up at bad0 and 1 more")


@pytest.mark.parametrize(
    ("metric", "kind", "signal", "first", "then", "good"),
    [
        (Metric("n"), MetricType.COUNTER, Signal.THROUGHPUT, 'n{x="1"} 0\nn{x="2"} 0\n', HUGE, ("n 0\n", "n 50\n")),
        (
            None,
            MetricType.CPU,
            Signal.UTILISATION,
            HUGE_CPU.replace("1e308", "0"),
            HUGE_CPU,
            (
                'node_cpu_seconds_total{mode="idle"} 0\nnode_cpu_seconds_total{mode="user"} 0\n',
                'node_cpu_seconds_total{mode="idle"} 5\nnode_cpu_seconds_total{mode="user"} 5\n',
            ),
        ),
    ],
    ids=["requests", "CPU"],
)  # fmt: skip
async def test_a_vm_whose_counters_grow_beyond_all_numbers_fails_alone(
    web, clock, make, metric, kind, signal, first, then, good
):
    source = make(metric, kind, signal)
    web.texts = {"bad": first, "good": good[0]}
    await source.read(on("bad", "good"))
    clock.at_s += 10.0
    web.texts = {"bad": then, "good": good[1]}
    found = await source.read(on("bad", "good"))
    assert found.vm_ids == ("i-good",)
    assert "numbers too large to add up at bad" in found.error


async def test_what_makes_of_a_body_what_nobody_foresaw_fails_alone():
    async with Answering({}) as server, FanOutAt(server) as (fan_out, url):

        def make(body):
            return 1 // len(body.replace(b"0", b""))

        urls = {f"bad{number}": f"{url}/0" for number in range(AT_ONCE)} | {"good": f"{url}/1"}
        found = await fan_out.get_all(urls, make)
    assert found["bad0"].error == "broken answer (ZeroDivisionError)"
    assert not found["bad0"].late
    assert found["good"].value == 1


async def test_what_one_wants_remembered_is_told_to_no_other():
    """VMs addressed by name share a domain: a cookie from one, of any size, would be sent to all."""
    cookie = {"Set-Cookie": f"a={'x' * 1000}; Domain=localhost; Path=/"}
    async with Answering(cookie) as server, FanOutAt(server) as (fan_out, url):
        for _ in range(2):
            assert (await fan_out.get_all({"vm": f"{url}/1"}, bytes))["vm"].value == b"1"
    assert [asked.headers.get("Cookie") for asked in server.asked] == [None, None]


class Answering:
    """Answers each request with the last part of its path and the given headers."""

    def __init__(self, headers):
        self.headers, self.asked = headers, []

    async def _answer(self, request):
        self.asked.append(request)
        return web.Response(text=request.path.rpartition("/")[2], headers=self.headers)

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/{what}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()


class FanOutAt:
    """A FanOut, and the address of that server by name."""

    def __init__(self, server):
        self.fan_out, self.url = FanOut(LIMITS), f"http://localhost:{server.port}"

    async def __aenter__(self):
        return self.fan_out, self.url

    async def __aexit__(self, *_):
        await self.fan_out.close()
