"""Expensive answers: made once for all callers, and not at all while too much waits to be read."""

import asyncio
import gzip
import json

import aiohttp
import pytest
from aiohttp import web

from autoscaler.daemon.loop import Daemon
from autoscaler.web.answers import LONG_S, SharedAnswer
from autoscaler.web.site import ConnectionLimits, Site
from tests.daemon.builders import TICK_0, Bench, policy
from tests.web.test_web_site import SetClock, Turns, asked, guest


async def turns(count):
    for _ in range(count):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


class Making:
    """Counts how often it makes something, each taking so many seconds of the loop."""

    def __init__(self, takes_s=0.0):
        self.takes_s, self.made = takes_s, 0

    def __call__(self):
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.takes_s
        while loop.time() < end_s:
            pass
        self.made += 1
        return str(self.made).encode()


async def test_an_answer_is_made_once_a_turn_and_is_new_in_the_next():
    make = Making()
    answer = SharedAnswer(make)
    assert {answer.now() for _ in range(5)} == {b"1"}
    await turns(2)
    assert {answer.now() for _ in range(5)} == {b"2"}


async def test_one_that_takes_long_leaves_the_loop_time_for_decisions():
    make = Making(2 * LONG_S)
    answer = SharedAnswer(make)
    assert answer.now() == b"1"
    await turns(20)
    assert answer.now() == b"1"
    async with asyncio.timeout(60):
        while answer.now() == b"1":
            await turns(1)
    assert make.made == 2


@pytest.fixture(name="bench")
async def _bench():
    bench = Bench(vms=4, running=2, clock=Turns(2))
    bench.add(policy("web"), 150.0)
    yield bench
    await bench.journal.close()


async def never_reading(site, writer):
    """Ask until neither side takes any more."""

    async def ask_without_end():
        while True:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            await asyncio.wait_for(writer.drain(), 0.5)

    with pytest.raises(TimeoutError):
        await ask_without_end()


async def test_while_too_much_waits_to_be_read_no_more_is_told_but_whether_all_is_well(bench):
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    async with Site(daemon, "127.0.0.1", 0, guests=ConnectionLimits(unread=1000)) as site:
        async with guest(site) as (_, writer):
            await never_reading(site, writer)
            for path in ("/metrics", "/api/v1/status", "/status.js", "/"):
                code, text = await asked(f"{site.url}{path}")
                assert (code, "answers are waiting to be read" in text) == (503, True)
            assert await asked(f"{site.url}/healthz") == (200, "ok\n")
            watch = asyncio.create_task(site.watch())
            await asyncio.wait_for(bench.clock.enough.wait(), 60)
            (said,) = bench.log.texts("site_silent")
            assert "MB of answers of http://127.0.0.1:" in said
            watch.cancel()
            await asyncio.wait({watch})
        async with asyncio.timeout(60):
            while (await asked(f"{site.url}/metrics"))[0] != 200:
                await turns(1)


class Hearing:
    """In the place of what takes samples: keeps the bodies as they come."""

    def __init__(self):
        self.bodies = []

    def routes(self):
        return [web.post("/heard", self.hear)]

    async def hear(self, request):
        self.bodies.append(await request.read())
        return web.Response()


async def test_a_body_is_not_unpacked_before_somebody_wants_it():
    """Of a hundred kilobytes by gzip come a hundred megabytes: most of a second of the loop, whoever sends them."""
    bench = Bench(vms=4, running=2, clock=SetClock())
    bench.add(policy("web"), 150.0)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    packed, hearing = gzip.compress(bytes(8 << 20)), Hearing()
    async with Site(daemon, "127.0.0.1", 0, hearing) as site, aiohttp.ClientSession() as session:
        headers = {"Content-Encoding": "gzip"}
        async with session.post(f"{site.url}/heard", data=packed, headers=headers) as answer:
            assert answer.status == 200
    assert hearing.bodies == [packed]
    await bench.journal.close()


async def test_no_browser_takes_what_is_told_for_something_else():
    bench = Bench(vms=4, running=2, clock=SetClock())
    bench.add(policy("web"), 150.0)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    await daemon.tick(TICK_0)
    async with Site(daemon, "127.0.0.1", 0) as site, aiohttp.ClientSession() as session:
        for path in ("/", "/metrics", "/healthz", "/api/v1/status", "/api/v1/history?fleet=<b>", "/nothing"):
            async with session.get(f"{site.url}{path}") as answer:
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        async with session.get(f"{site.url}/api/v1/status") as answer:
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert json.loads(await answer.text())["fleets"][0]["fleet"] == "web"
    await bench.journal.close()


@pytest.mark.parametrize(
    ("asked_as", "code"),
    [
        ("127.0.0.1:9412", 200),
        ("localhost:9412", 200),
        ("[::1]:9412", 200),
        ("10.1.2.3", 200),
        ("management", 200),
        ("autoscaler.localhost", 200),
        ("evil.example", 421),
        ("evil.example.:9412", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
    ],
)
async def test_a_page_of_elsewhere_whose_name_leads_to_this_machine_reads_nothing(asked_as, code):
    """By DNS rebinding; programs that ask for nothing but whether it is well are let be."""
    bench = Bench(vms=4, running=2, clock=SetClock())
    bench.add(policy("web"), 150.0)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    async with Site(daemon, "127.0.0.1", 0) as site, aiohttp.ClientSession() as session:
        for path in ("/", "/metrics", "/api/v1/status", "/status.js"):
            async with session.get(f"{site.url}{path}", headers={"Host": asked_as}) as answer:
                assert answer.status == code
        async with session.get(f"{site.url}/healthz", headers={"Host": asked_as}) as answer:
            assert answer.status == 200
    async with Site(daemon, "0.0.0.0", 0) as site, aiohttp.ClientSession() as session:
        url = site.url.replace("0.0.0.0", "127.0.0.1")
        async with session.get(f"{url}/metrics", headers={"Host": asked_as}) as answer:
            assert answer.status == 200
    await bench.journal.close()
