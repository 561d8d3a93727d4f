"""A daemon on two hosts, one of which is away: fleets on the other go on, the one with VMs on it holds."""

import asyncio

import pytest

from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal
from tests.daemon.builders import Demand, Log, policy
from tests.libvirt.conftest import WAITS
from tests.libvirt.troubles import libvirt_error

FLEETS = {"api": ("hv1", "hv1"), "web": ("hv1", "hv2")}
"""By fleet, the hosts of its VMs, all of which run."""


@pytest.fixture(name="waits")
def _waits():
    return WAITS | {"listing_s": 0.6}


def daemon_on(hosts, demand):
    provider, log = hosts.provider, Log()
    setups = []
    for fleet, on in FLEETS.items():
        for each in on:
            hosts.define(each, fleet, state="running")
        source = Demand(hosts.clock, lambda _: demand[0])
        setups.append(FleetSetup(policy(fleet), provider, source, StatusCheckProbe(provider)))
    journal = SqliteJournal(":memory:", inline=True)
    return Daemon(hosts.clock, setups, journal, Telemetry(log=log), LoopSettings()), log


def gone(hosts):
    hosts.alive["hv2"] = False
    hosts.refusing["hv2"] = libvirt_error(
        38, "unable to connect to server at 'hv2:16509': Connection refused"
    )


def back_again(hosts):
    del hosts.refusing["hv2"]


def hanging(hosts):
    hosts.hang("hv2", "getAllDomainStats")


def released(hosts):
    hosts.scripts["hv2"].pop("getAllDomainStats").released.set()


@pytest.mark.parametrize(("away", "back"), [(gone, back_again), (hanging, released)])
async def test_the_fleet_with_vms_on_it_holds_and_the_other_scales_in(hosts, away, back):
    demand = [200]
    daemon, log = daemon_on(hosts, demand)

    async def ticked(number):
        return {row.fleet: row for row in (await daemon.tick(number)).fleets}

    rows = await ticked(1)
    assert {fleet: row.in_service for fleet, row in rows.items()} == {"api": 2, "web": 2}
    away(hosts)
    demand[0] = 100
    rows = await ticked(2)
    assert {fleet: row.stop for fleet, row in rows.items()} == {"api": 1, "web": 0}
    assert rows["web"].sentence.endswith("the list lacks hv2")
    assert [fleet.listing_error[:3] for fleet in daemon.fleets.all] == ["", "hv2"]
    assert log.events().count("listing_failed") == 1
    back(hosts)

    async def whole():
        return (await hosts.provider.list_vms()).complete

    await hosts.until(whole)
    rows = await ticked(3)
    assert {fleet: row.stop for fleet, row in rows.items()} == {"api": 0, "web": 1}
    await daemon.acting.finish()
    assert await asyncio.to_thread(on, hosts) == {"api": 1, "web": 1}


def on(hosts):
    """Number of running VMs by fleet."""
    running = [
        domain
        for host in hosts.of.values()
        for domain in host.connection.listAllDomains(1)
        if domain.isPersistent()
    ]
    return {fleet: sum(f">{fleet}<" in domain.XMLDesc(0) for domain in running) for fleet in FLEETS}
