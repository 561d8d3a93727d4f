"""The daemon through the SDK on the embedded endpoint: VMs hibernate, are refused, and resume from their memory."""

import asyncio
from dataclasses import replace

import aiohttp
import pytest

from autoscaler.clock import ScaledClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Spread
from autoscaler.cloud.setup import ClockSetup, CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.core.learned.lead_time import Span, StartSource
from autoscaler.daemon import fleets
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import NO_HIBERNATION, VmState
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal
from tests.daemon.builders import EXACT, ORIGIN_S, Demand, Log, policy, steady

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
SPEED = 12.0
FLEETS = (
    FleetSetup("web", 2, State.RUNNING, hibernation=True),
    FleetSetup("web", 1, State.RUNNING),
)
ABLE, ODD, PLAIN = (view.id for view in CloudSetup(fleets=FLEETS).world(0.0).views(0.0))
"""Ids of VMs, the same for the same seed: one can hibernate, one is refused, one was not launched for hibernation."""
DEMAND = steady((0, 300), (25, 0), (95, 300))
LIVES_S = 140.0


async def test_the_one_that_can_hibernates_all_are_stopped_at_once_and_all_come_back():
    clock = ScaledClock(ORIGIN_S, SPEED)
    setup = CloudSetup(
        fleets=FLEETS,
        physics=replace(EXACT, hibernate=Spread(20), resume=Spread(9), wake=Spread(1)),
        faults=(Fault(FaultKind.NO_HIBERNATION, vm_ids=(ODD,)),),
        api_limits=False,
        clock=ClockSetup(SPEED, ORIGIN_S, clock.origin_monotonic_s),
    )
    asleep = {}
    async with EndpointProcess(setup) as process:
        async with await Ec2Provider.open(Ec2Settings("us-east-1", process.url, **KEYS), clock) as provider:
            journal = SqliteJournal(":memory:", inline=True)
            made = fleets.FleetSetup(
                policy(signal={"kind": "total", "max_age": "60s"}, warm_pool={"hibernate": {}}),
                provider,
                Demand(clock, DEMAND, total=True),
                StatusCheckProbe(provider),
            )

            def noted(record):
                vms = daemon.fleets.by_name["web"].inventory.vms.values()
                if all(t.vm.state is VmState.STOPPED for t in vms):
                    asleep.update({t.vm.id: t.vm.hibernates for t in vms})
                records.append(record)

            records = []
            daemon = Daemon(clock, [made], journal, Telemetry(log=Log()), LoopSettings(tick_s=10.0), noted)
            asyncio.get_running_loop().call_later(LIVES_S / SPEED, daemon.stop)
            await daemon.run()
            with journal.reader() as reader:
                refused = [e.text for e in reader.events(0, 1e12) if e.kind == "hibernate_refused"]
        async with aiohttp.ClientSession(process.url) as http:
            calls = await (await http.get("/_world/calls")).json()
    assert asleep == {ABLE: True, ODD: False, PLAIN: False}
    assert calls["refused"]["StopInstances"] == {NO_HIBERNATION: 1}
    assert calls["vms"]["StopInstances"] == 3
    (text,) = refused
    assert ODD in text
    assert records[-1].fleets[0].in_service == 3
    times = daemon.fleets.learning.lead_times
    assert times.evidence(Span.WHOLE, StartSource.HIBERNATED)[0] == pytest.approx(1, abs=0.05)
    assert times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == pytest.approx(2, abs=0.05)
