"""Hosts with libvirt and an EC2 endpoint in one daemon: if one fails, the fleet on the other goes on."""

import pytest
import pytest_asyncio

from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.vms import State
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.store import SqliteJournal
from autoscaler.wiring import Wiring
from tests.daemon.builders import Demand, Log, policy
from tests.libvirt.troubles import libvirt_error

PROBED = {"probe": "status_checks"}


class Both:
    """A daemon with both providers, whose ticks are run by hand; a fleet with two VMs on each."""

    def __init__(self, hosts, cloud, aws):
        self.hosts, self.cloud, self.log, self.demand = hosts, cloud, Log(), 200
        for on in ("hv1", "hv2"):
            hosts.define(on, "rack", state="running")
        wiring = Wiring(
            {"aws": aws, "hosts": hosts.provider},
            hosts.clock,
            lambda _: Demand(hosts.clock, lambda _: self.demand),
        )
        policies = [
            policy("cloud", provider="aws", readiness=PROBED),
            policy("rack", provider="hosts", readiness=PROBED),
        ]
        journal = SqliteJournal(":memory:", inline=True)
        setups = wiring.wire(policies).setups
        self.daemon = Daemon(hosts.clock, setups, journal, Telemetry(log=self.log), LoopSettings())
        self.ticks = 0

    async def tick(self):
        self.ticks += 1
        return {row.fleet: row for row in (await self.daemon.tick(self.ticks)).fleets}

    async def serve(self):
        """Tick until both VMs of both fleets serve."""

        async def served():
            rows = await self.tick()
            return {fleet: row.in_service for fleet, row in rows.items()} == {"cloud": 2, "rack": 2}

        await self.hosts.until(served)


@pytest_asyncio.fixture(name="both")
async def _both(hosts):
    async with EndpointProcess(CloudSetup(fleets=(WorldFleet("cloud", 2, State.RUNNING),))) as cloud:
        settings = Ec2Settings("us-east-1", cloud.url, access_key_id="any", secret_access_key="any")
        async with await Ec2Provider.open(settings, hosts.clock) as aws:
            yield Both(hosts, cloud, aws)


async def test_the_hosts_are_gone(both):
    await both.serve()
    for name in ("hv1", "hv2"):
        both.hosts.alive[name] = False
        both.hosts.refusing[name] = libvirt_error(38, "Connection refused")
    both.demand = 100
    rows = await both.tick()
    assert (rows["cloud"].stop, rows["rack"].stop) == (1, 0)
    assert rows["rack"].sentence.endswith("the list lacks hv1, hv2")
    (told,) = both.log.texts("listing_failed")
    assert told.startswith("hosts: hv1: ")
    await both.daemon.acting.finish()


async def test_the_region_is_gone(both):
    await both.serve()
    await both.cloud.__aexit__(None, None, None)
    both.demand = 100
    rows = await both.tick()
    assert (rows["cloud"].stop, rows["rack"].stop) == (0, 1)
    assert "the list of VMs is incomplete" in rows["cloud"].sentence
    (told,) = both.log.texts("listing_failed")
    assert told.startswith("aws: ")
    await both.daemon.acting.finish()


@pytest.mark.parametrize("fleet", ["cloud", "rack"])
async def test_both_are_well(both, fleet):
    await both.serve()
    both.demand = 100
    rows = await both.tick()
    assert rows[fleet].stop == 1
    await both.daemon.acting.finish()
    assert [fleet.listing_error for fleet in both.daemon.fleets.all] == ["", ""]
