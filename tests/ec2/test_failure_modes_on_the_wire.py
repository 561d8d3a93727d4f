"""The daemon through the SDK on bad days of the embedded endpoint: one bad VM, no room, starts that fall back."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from autoscaler.clock import ScaledClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import ClockSetup, CloudSetup, FleetSetup
from autoscaler.daemon import fleets
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal
from tests.daemon.builders import EXACT, ORIGIN_S, Demand, Log, policy

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
SPEED = 12.0
VMS, WANTED = 8, 5
FLEET = FleetSetup("web", VMS)
FIRST = min(view.id for view in CloudSetup(fleets=(FLEET,), zones="ab").world(0.0).views(0.0))
"""Id of the VM that is started first; the world makes the same ids for the same seed."""
FAULT_OF = {
    "one bad VM": Fault(FaultKind.NO_CAPACITY, code="InvalidParameterValue", vm_ids=(FIRST,)),
    "no room in a zone": Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"),
    "falls back": Fault(FaultKind.FALL_BACK, delay_s=5.0, code="Client.InternalError", vm_ids=(FIRST,)),
    "answers are lost": Fault(FaultKind.LOST_REPLY, actions=("StartInstances",), end_s=60.0),
}


async def lived(fault, for_s):
    """Run a daemon with a fleet that needs WANTED of VMS; return its rows, its events and the endpoint's count of calls."""
    clock = ScaledClock(ORIGIN_S, SPEED)
    setup = CloudSetup(
        fleets=(FLEET,),
        physics=EXACT,
        faults=(fault,),
        zones="ab",
        api_limits=False,
        clock=ClockSetup(SPEED, ORIGIN_S, clock.origin_monotonic_s),
    )
    async with EndpointProcess(setup) as process:
        async with await Ec2Provider.open(Ec2Settings("us-east-1", process.url, **KEYS), clock) as provider:
            journal = SqliteJournal(":memory:", inline=True)
            source = Demand(clock, 100.0 * WANTED, total=True)
            made = fleets.FleetSetup(
                policy(signal={"kind": "total", "max_age": "60s"}),
                provider,
                source,
                StatusCheckProbe(provider),
            )
            records = []
            daemon = Daemon(
                clock, [made], journal, Telemetry(log=Log()), LoopSettings(tick_s=10.0), records.append
            )
            asyncio.get_running_loop().call_later(for_s / SPEED, daemon.stop)
            await daemon.run()
            with journal.reader() as reader:
                events = [(e.kind, e.text) for e in reader.events(0, 1e12)]
                actions = reader.actions("web", 0, 1e12)
        async with aiohttp.ClientSession(process.url) as http:
            calls = await (await http.get("/_world/calls")).json()
            state = await (await http.get("/_world/state")).json()
    rows = [row for record in records for row in record.fleets]
    return rows, events, actions, calls, state


@pytest.mark.parametrize("name", FAULT_OF)
async def test_what_is_needed_serves_all_the_same_within_few_calls_and_none_is_started_twice(name):
    rows, events, actions, calls, state = await lived(FAULT_OF[name], 100)
    asked = Counter(vm_id for action in actions for vm_id in action.intent.vm_ids)
    assert set(asked.values()) == {1}
    told = [(kind, text) for kind, text in events if kind != "daemon_started"]
    refused = calls["refused"].get("StartInstances", {})
    serving = 4 if name == "no room in a zone" else WANTED
    assert rows[-1].in_service == serving
    assert len(state["serving"]) == state["counts"]["running"] == serving
    assert (FIRST in state["serving"]) is (name == "answers are lost")
    match name:
        case "one bad VM":
            # The batch of two in its zone, and each half: the good VM starts, and another one replaces the bad one.
            assert refused == {"InvalidParameterValue": 2}
            assert calls["vms"]["StartInstances"] == WANTED
            ((kind, text),) = told
            assert kind == "start_not_accepted"
            assert FIRST in text
        case "no room in a zone":
            # The batch and its halves, and no more calls while the zone is known to have no room.
            assert refused == {"InsufficientInstanceCapacity": 3}
            assert [kind for kind, _ in told] == ["start_not_accepted", "shortage_began"]
        case "falls back":
            assert (refused, calls["vms"]["StartInstances"]) == ({}, WANTED + 1)
            ((kind, text),) = told
            assert kind == "start_fell_back"
            assert f"{FIRST} fell back to stopped (Client.InternalError)" in text
        case _:
            # A call whose answer was lost is not repeated: the next listing shows the outcome.
            assert (refused, calls["vms"]["StartInstances"]) == ({}, WANTED)
            assert {str(o.kind) for action in actions for o in action.outcomes} == {"unknown"}
    assert calls["accepted"]["DescribeInstances"] <= len(rows)
