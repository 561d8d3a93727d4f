"""An operator's change does not wait for the next tick: it requests an early turn once it is on disk."""

import asyncio

import aiohttp
import pytest

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.waking import Cause
from autoscaler.web.control import Control
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy
from tests.sources.doubles import ManualClock

FOR_AN_HOUR = {"reason": "test", "for_s": 3600.0}


@pytest.fixture(name="bench")
async def _bench():
    bench = Bench(vms=6, clock=ManualClock(ORIGIN_S))
    bench.place("api", 2)
    for fleet in ("web", "api"):
        bench.add(policy(fleet, signal={"kind": "total"}), 0.0)
    bench.daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    yield bench
    await bench.journal.close()


async def post(path, what, **body):
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.post(f"http://localhost/v1/{what}", json=body) as answer,
    ):
        return answer.status


async def test_a_floor_starts_vms_in_an_early_turn_of_its_fleet(bench, tmp_path):
    daemon, path = bench.daemon, tmp_path / "control.sock"
    async with Control(daemon, path):
        await daemon.tick(TICK_0)
        assert await post(path, "override", fleet="web", floor=3, **FOR_AN_HOUR) == 200
        early = daemon.waking.take()
        assert (early.fleets, early.cause, early.lists) == ({"web"}, Cause.OPERATOR, True)
        record = await daemon.tick(TICK_0, early)
        assert [(row.fleet, row.start) for row in record.fleets] == [("web", 3)]
        assert [row.fleet for row in daemon.last_record.fleets] == ["web", "api"]


async def test_what_changes_nothing_wakes_nobody_and_all_fleets_are_all(bench, tmp_path):
    daemon, path = bench.daemon, tmp_path / "control.sock"
    async with Control(daemon, path):
        assert await post(path, "clear", fleet="web", reason="test") == 200
        assert await post(path, "override", fleet="wbe", floor=3, **FOR_AN_HOUR) == 409
        assert daemon.waking.take() is None
        assert await post(path, "pause", all_fleets=True, verbs=["stop"], **FOR_AN_HOUR) == 200
        early = daemon.waking.take()
        assert all(early.has(fleet) for fleet in ("web", "api"))


async def test_a_running_daemon_acts_on_it_within_its_tick(bench, tmp_path):
    daemon, path = bench.daemon, tmp_path / "control.sock"
    moved = asyncio.Event()

    class Waits(ManualClock):
        """It is never late: the next tick does not come."""

        async def sleep_until(self, monotonic_s):
            if monotonic_s > self.at_s:
                moved.set()
                await asyncio.Event().wait()

    daemon.clock = daemon.waking._clock = Waits(ORIGIN_S)
    async with Control(daemon, path):
        running = asyncio.create_task(daemon.run())
        await moved.wait()
        assert await post(path, "override", fleet="web", floor=2, **FOR_AN_HOUR) == 200
        moved.clear()
        await moved.wait()
        calls = bench.calls("StartInstances")
        assert (sum(vms for _, _, vms, _ in calls), {at for at, *_ in calls}) == (2, {0.0})
        daemon.stop()
        await running
