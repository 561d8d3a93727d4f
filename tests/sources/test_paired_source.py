"""Work combined with utilisation: joined by VM, and never failed or delayed by the utilisation."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from autoscaler.config.policy import policy_from
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import FleetReadings
from autoscaler.ports.sources import HistorySource
from autoscaler.sources.exposition import Metric
from autoscaler.sources.paired import PairedSource
from autoscaler.sources.scrape import MetricType, ScrapeSource
from autoscaler.wiring import simulated
from autoscaler.wiring_sources import source_for
from tests.sources.doubles import ManualClock, VmsOverHttp, vm


class Scripted:
    """A scripted source: its answers are readings by VM, errors to raise, or events to wait for."""

    def __init__(self, **of):
        self.of, self.error, self.wait, self.asked, self.closed = of, None, None, 0, False

    async def read(self, vms):
        self.asked += 1
        if self.wait is not None:
            await self.wait.wait()
        if self.error is not None:
            raise self.error
        ids = tuple(one.id for one in vms if one.id in self.of)
        return FleetReadings(ids, np.array([self.of[i] for i in ids], np.float64), np.full(len(ids), 5.0))

    async def close(self):
        self.closed = True


VMS = [vm(f"vm{number}", f"vm{number}") for number in (1, 2, 3)]
IDS = [one.id for one in VMS]


def pair():
    work = Scripted(**dict(zip(IDS, (10.0, 20.0, 30.0), strict=True)))
    busy = Scripted(**{IDS[0]: 0.1, IDS[2]: 0.3})
    return work, busy, PairedSource(work, busy)


async def test_they_are_joined_by_vm():
    _, _, source = pair()
    got = await source.read(VMS)
    assert got.vm_ids == tuple(IDS)
    assert got.values.tolist() == [10.0, 20.0, 30.0]
    np.testing.assert_array_equal(got.utilisation, [0.1, np.nan, 0.3])
    assert got.error == ""


async def test_what_fails_beside_is_said_and_fails_nothing():
    _, busy, source = pair()
    busy.error = SourceError("no exporter answers")
    got = await source.read(VMS)
    assert got.values.tolist() == [10.0, 20.0, 30.0]
    assert np.isnan(got.utilisation).all()
    assert got.error == "utilisation: no exporter answers"


async def test_what_is_wrong_beside_is_asked_to_be_reported_and_fails_nothing_and_heals():
    _, busy, source = pair()
    busy.error = KeyError("a bug")
    got = await source.read(VMS)
    assert got.values.tolist() == [10.0, 20.0, 30.0]
    assert got.error == "utilisation: unexpected KeyError: 'a bug'; please report"
    busy.error = None
    assert (await source.read(VMS)).error == ""


async def test_work_that_fails_fails_as_alone():
    work, _, source = pair()
    work.error = SourceError("nobody answers")
    with pytest.raises(SourceError, match=r"^nobody answers$"):
        await source.read(VMS)
    work.error = None
    assert (await source.read(VMS)).utilisation[0] == 0.1


async def test_what_hangs_beside_is_asked_once_and_not_waited_for():
    _, busy, source = pair()
    busy.wait = asyncio.Event()
    for _ in range(3):
        assert (await source.read(VMS)).utilisation is None
    assert busy.asked == 1
    busy.wait.set()
    assert (await source.read(VMS)).utilisation[0] == 0.1


async def test_closing_ends_a_round_under_way_and_both_sources():
    work, busy, source = pair()
    busy.wait = asyncio.Event()
    await source.read(VMS)
    await source.close()
    assert (work.closed, busy.closed) == (True, True)


async def test_requests_and_cpu_of_real_endpoints_give_pairs():
    clock = ManualClock()
    async with VmsOverHttp() as web:
        work = ScrapeSource(web.url, Metric("rps"), MetricType.GAUGE, Signal.THROUGHPUT, clock)
        busy = ScrapeSource(web.url, None, MetricType.CPU, Signal.UTILISATION, clock)
        source = PairedSource(work, busy)
        for idle, user in ((100.0, 100.0), (106.0, 104.0)):
            cpu = f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {idle}\n'
            cpu += f'node_cpu_seconds_total{{cpu="0",mode="user"}} {user}\n'
            web.texts = {one.address: f"rps 44\n{cpu}" for one in VMS}
            clock.at_s += 10.0
            got = await source.read(VMS)
        await source.close()
    assert got.values.tolist() == [44.0] * 3
    assert got.utilisation == pytest.approx([0.4] * 3)


def learning(**signal):
    return policy_from(
        {
            "fleet": "web",
            "signal": {"kind": "throughput", **signal},
            "vm": {"capacity": "100/s", "learn_capacity": {}},
            "bounds": {"maximum": 5},
        }
    )


async def test_a_policy_that_learns_capacity_gets_both_and_keeps_what_tells_of_the_past(tmp_path):
    scraped = learning(source="scrape", scrape={"metric": "rps"})
    asked = learning(source="prometheus", prometheus={"url": "http://p:9090", "query": "rps"})
    for policy, tells in ((scraped, False), (asked, True)):
        source = source_for(policy, ManualClock(), tmp_path)
        assert isinstance(source, PairedSource)
        assert isinstance(source, HistorySource) is tells
        await source.close()
    assert simulated(scraped).vm.learn_capacity is None
