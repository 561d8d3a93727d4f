"""The HTTP site, with a clock that the test sets: health, metrics, status, a port that is taken."""

import asyncio
import contextlib
import json
import math
import resource
import socket
from contextlib import closing

import aiohttp
import pytest

from autoscaler.cli.status import status_lines
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.lifecycle import run_to_the_end
from autoscaler.daemon.loop import Daemon
from autoscaler.errors import DaemonError, ProviderError
from autoscaler.web.site import ASK_EVERY_S, MOST_CONNECTIONS, ConnectionLimits, Site
from autoscaler.web.status import status
from tests.cli.conftest import strict_json
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy, virtual
from tests.daemon.test_loop_acting import FailingJournal


class SetClock:
    """Time that a test sets; nothing here waits for it."""

    def __init__(self):
        self.at_s = 0.0

    def now(self):
        return ORIGIN_S + self.at_s

    def monotonic(self):
        return self.at_s

    async def sleep_until(self, monotonic_s):
        raise AssertionError("nothing here may wait")


@pytest.fixture(name="bench")
def _bench():
    bench = Bench(vms=4, running=2, clock=SetClock())
    bench.add(policy("web"), 150.0)
    return bench


@pytest.fixture(name="daemon")
async def _daemon(bench):
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    yield daemon
    await bench.journal.close()


async def asked(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_journal_that_cannot_be_written_is_told_until_it_can(bench):
    bench.journal = FailingJournal(bench.journal)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    bench.journal.broken = True
    await daemon.tick(TICK_0)
    found = status(daemon)
    assert found["journal"]["error"] == "the disk is full"
    assert "nothing is started or stopped until it can be written: the disk is full" in str(
        status_lines(found)
    )
    bench.journal.broken = False
    await daemon.tick(TICK_0 + 1)
    assert status(daemon)["journal"]["error"] == ""
    assert "journal" not in str(status_lines(status(daemon)))
    await bench.journal.close()


async def test_health_turns_when_a_fleet_has_not_been_decided_on_for_three_ticks(bench, daemon):
    async with Site(daemon, "127.0.0.1", 0) as site:
        assert await asked(f"{site.url}/healthz") == (200, "ok\n")
        bench.clock.at_s = 31.0
        code, text = await asked(f"{site.url}/healthz")
        assert (code, text) == (503, "web has had no decision for 31 s (limit 30 s)\n")
        await daemon.tick(TICK_0 + 3)
        assert await asked(f"{site.url}/healthz") == (200, "ok\n")
        bench.clock.at_s = 61.0
        assert (await asked(f"{site.url}/healthz"))[0] == 200
        bench.clock.at_s = 63.0
        assert (await asked(f"{site.url}/healthz"))[0] == 503
        served = strict_json((await asked(f"{site.url}/api/v1/status"))[1])
        assert served["healthy"] is False
        assert served["problems"] == ["web has had no decision for 32 s (limit 30 s)"]


async def test_status_is_strict_json_before_and_after_the_first_tick(bench, daemon):
    before = strict_json(json.dumps(status(daemon)))
    assert (before["tick"], before["fleets"][0]["decision"]) == (None, None)
    await daemon.tick(TICK_0)
    bench.clock.at_s = 10.0
    await daemon.tick(TICK_0 + 1)
    found = strict_json(json.dumps(status(daemon)))
    (fleet,) = found["fleets"]
    assert (found["tick"], found["healthy"], fleet["fleet"], fleet["act"]) == (TICK_0 + 1, True, "web", True)
    assert fleet["vms"]["in_service"] == 2
    assert fleet["vms"]["stopped"] == 4
    assert fleet["decision"]["demand"] == pytest.approx(150.0)
    assert fleet["decision"]["capacity"] == 200.0
    assert [stage["stage"] for stage in fleet["decision"]["stages"]][-1] == "supply"
    assert fleet["start_time"] == {"count": 0, "p50_s": None, "p95_s": None}


async def test_the_status_says_of_each_place_when_it_was_last_listed_and_that_it_is_old(bench, daemon):
    await daemon.tick(TICK_0)
    (place,) = status(daemon)["providers"]
    assert place == {"provider": "", "listed_at_s": bench.clock.now(), "error": "", "sentence": ""}
    bench.setups[0].provider.list_vms = failing_listing
    for second in (10.0, 70.0):
        bench.clock.at_s = second
        await daemon.tick(TICK_0 + int(second // 10))
        (place,) = strict_json(json.dumps(status(daemon)))["providers"]
        assert place["error"] == "the endpoint is gone"
        old = "no complete list of VMs for 70 s: the endpoint is gone" if second > 60 else ""
        assert place["sentence"] == old


async def failing_listing():
    raise ProviderError("the endpoint is gone")


async def test_what_is_not_known_is_null(bench, daemon):
    bench.setups[0].source.demand = math.nan
    await daemon.tick(TICK_0)
    bench.clock.at_s = 10.0
    await daemon.tick(TICK_0 + 1)
    decision = strict_json(json.dumps(status(daemon)))["fleets"][0]["decision"]
    assert decision["freshness"] == "invalid"
    assert (decision["demand"], decision["shortage"], decision["forecast_hi"]) == (None, None, None)


async def test_a_taken_address_is_an_error_that_says_what_to_do(daemon):
    async with Site(daemon, "127.0.0.1", 0) as site:
        port = int(site.url.rpartition(":")[2])
        with pytest.raises(DaemonError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            async with Site(daemon, "127.0.0.1", port):
                pass
    with pytest.raises(aiohttp.ClientConnectorError):
        await asked(f"http://127.0.0.1:{port}/healthz")


async def test_a_name_that_is_no_address_is_an_error_in_words(daemon):
    with pytest.raises(DaemonError, match=r"cannot listen on nowhere\.invalid:0: ") as failed:
        async with Site(daemon, "nowhere.invalid", 0):
            pass
    assert "unknown error" not in str(failed.value)


# ── guests ──────────────────────────────────────────────────────────────────────────────────────────────


ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.asynccontextmanager
async def guest(site):
    """A connection that is ended with the context, whatever is left to be sent."""
    reader, writer = await asyncio.open_connection(*site._listening.sockets[0].getsockname()[:2])
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def raw(site, sent):
    """The beginning of the answer; nothing where it was hung up."""
    async with guest(site) as (reader, writer):
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(200), 60)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\x00\xff\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no HTTP", "a long header", "chunks that are none"],
)
async def test_garbage_is_answered_and_nothing_is_logged_of_it(daemon, sent, caplog):
    async with Site(daemon, "127.0.0.1", 0) as site:
        assert (await raw(site, sent)).startswith(b"HTTP/1.")
        assert (await asked(f"{site.url}/healthz"))[0] == 200
    assert caplog.records == []


async def test_one_who_says_nothing_or_half_a_request_is_cut_off(daemon):
    async with Site(daemon, "127.0.0.1", 0, guests=ConnectionLimits(silent_s=0.2)) as site:
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost"):
            assert await raw(site, sent) == b""


async def test_many_who_stay_do_not_keep_the_daemon_from_its_own_files(daemon):
    """Those beyond the bound are hung up on; once there is room, others are served."""
    async with (
        Site(daemon, "127.0.0.1", 0, guests=ConnectionLimits(most=8)) as site,
        contextlib.AsyncExitStack() as stay,
    ):
        for _ in range(8):
            reader, writer = await stay.enter_async_context(guest(site))
            writer.write(ASK)
            assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 200")
        for _ in range(50):
            assert await raw(site, ASK) == b""
        assert len(site._runner.server.connections) == 8
        await stay.aclose()
        answers = [await raw(site, ASK) for _ in range(20)]
        assert answers[-1].startswith(b"HTTP/1.1 200")


def test_connections_take_a_quarter_of_the_files_at_most():
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 8 <= ConnectionLimits().most <= max(8, min(MOST_CONNECTIONS, files // 4))


class Turns(SetClock):
    """Time that goes on by being waited for, and stands still once the test has seen enough."""

    def __init__(self, turns):
        super().__init__()
        self.turns, self.enough = turns, asyncio.Event()

    async def sleep_until(self, monotonic_s):
        self.at_s = monotonic_s
        self.turns -= 1
        if self.turns < 0:
            self.enough.set()
            await asyncio.Event().wait()


async def test_one_who_never_reads_his_answers_is_ended(bench):
    bench.clock = Turns(1)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    async with (
        Site(daemon, "127.0.0.1", 0, guests=ConnectionLimits(longest_s=0.0, ending_s=0.0)) as site,
        guest(site) as (_, writer),
    ):

        async def ask_without_end():
            while True:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
                await asyncio.wait_for(writer.drain(), 0.5)

        with pytest.raises(TimeoutError):  # both directions are full
            await ask_without_end()
        assert len(site._runner.server.connections) == 1
        watch = asyncio.create_task(site.watch())
        await asyncio.wait_for(bench.clock.enough.wait(), 60)
        assert site._runner.server.connections == []
        assert bench.log.texts("site_silent") == []
        watch.cancel()
        await asyncio.wait({watch})


async def watched(bench, turns, spoil):
    """A site that watches itself for so many turns, after something was done to it; and where it was before."""
    bench.clock = Turns(turns)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    async with Site(daemon, "127.0.0.1", 0) as site:
        before = site.url
        await spoil(site)
        watch = asyncio.create_task(site.watch())
        await asyncio.wait(
            {watch, asyncio.ensure_future(bench.clock.enough.wait())}, return_when="FIRST_COMPLETED"
        )
        answer, _ = await asked(site.url)
        watch.cancel()
        await asyncio.wait({watch})
        return answer, before, site.url


async def test_a_site_that_answers_is_left_alone(bench):
    async def nothing(_site):
        pass

    answer, before, after = await watched(bench, 3, nothing)
    assert (answer, before) == (200, after)
    assert bench.log.texts("site_silent") == []
    assert bench.clock.at_s == 4 * ASK_EVERY_S


async def test_a_site_that_has_gone_deaf_is_said_and_listens_anew_at_the_same_address(bench):
    async def deafen(site):
        site._listening.close()

    answer, before, after = await watched(bench, 3, deafen)
    assert (answer, before) == (200, after)
    assert bench.log.texts("site_silent") == [f"nothing answers at {before} any more; it is being restarted"]


async def test_a_site_that_is_full_is_said_once_and_is_not_deaf(bench):
    bench.clock = Turns(3)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    async with (
        Site(daemon, "127.0.0.1", 0, guests=ConnectionLimits(most=1)) as site,
        guest(site) as (reader, writer),
    ):
        writer.write(ASK)
        await asyncio.wait_for(reader.readline(), 60)
        before = site._listening
        watch = asyncio.create_task(site.watch())
        await asyncio.wait_for(bench.clock.enough.wait(), 60)
        (said,) = bench.log.texts("site_silent")
        assert said.startswith("1 connections to http://127.0.0.1:")
        assert site._listening is before
        watch.cancel()
        await asyncio.wait({watch})


async def test_an_address_that_was_taken_meanwhile_ends_the_watch_which_is_then_kept_alive(bench):
    taken = socket.socket()

    async def take(site):
        site._listening.close()
        taken.bind(("127.0.0.1", int(site.url.rpartition(":")[2])))

    with closing(taken):
        bench.clock = Turns(3)
        daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        async with Site(daemon, "127.0.0.1", 0) as site:
            await take(site)
            with pytest.raises(OSError, match="address already in use"):
                await site.watch()


@virtual
async def test_what_runs_beside_the_daemon_is_kept_alive():
    bench = Bench(running=1)
    bench.add(policy(), 50)
    began = []

    async def body():
        began.append(bench.clock.monotonic())
        raise OSError("address already in use")

    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    await run_to_the_end(daemon, beside={"site": body}, for_s=4.0)
    assert began == [0, 1, 3]
    assert (
        bench.log.texts("task_failed")[0] == "site: OSError: address already in use; it is restarted in 1 s"
    )


@virtual
async def test_calls_of_unknown_outcome_are_in_the_status_until_a_listing_tells():
    bench = Bench(vms=2, zones="a")
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, end_s=5, code="Unavailable", actions=("StartInstances",))
    )
    bench.add(policy(signal={"kind": "total"}), 100)
    await bench.run(20)
    assert status(bench.daemon)["fleets"][0]["unsettled_actions"] == [bench.actions()[0].id]
    settled = Bench(vms=2, zones="a")
    settled.add(policy(signal={"kind": "total"}), 100)
    await settled.run(20)
    assert status(settled.daemon)["fleets"][0]["unsettled_actions"] == []
