"""VMs that a fleet wants and does not get: who is told, from when to when, and why."""

import pytest

from autoscaler.cli.status import status_lines
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.errors import ProviderError
from autoscaler.web.status import status
from tests.daemon.builders import Bench, Watched, policy, steady, virtual
from tests.daemon.pools import TOTAL

OWN = "m7i.large"
NEW = {"launch_template": "web", "vm_type": OWN, "maximum": 9}
NO_ROOM = "no room for m7i.large in the subnet of template web"


def shortages(bench):
    return [(at, kind, text) for at, kind, text in bench.events() if kind.startswith("shortage")]


def missing(bench, fleet="web"):
    return bench.telemetry.registry.get_sample_value("autoscaler_missing_vms", {"fleet": fleet})


@virtual
async def test_a_fleet_that_may_make_vms_and_finds_no_room_for_them_is_short():
    bench = Bench(vms=0, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=500))
    bench.place("web", 0)
    bench.add(policy(signal=TOTAL, provision=NEW), steady((0, 0), (50, 300)))
    seen = []

    def look(record):
        if bench.daemon.last_record is not None:
            line = status_lines(status(bench.daemon)).get("web not available", ("", ""))[1]
            seen.append((missing(bench), line))

    bench.records = Watched(look)
    await bench.run(900)
    assert shortages(bench) == [
        (50, "shortage_began", f"3 VMs not available now: {NO_ROOM}"),
        (650, "shortage_ended", "all wanted VMs are available again; up to 3 were missing for 540 s"),
    ]
    assert seen[20] == (3, f"web: not available: 3 VMs: {NO_ROOM}")
    assert seen[0] == seen[-1] == (0, "")


@virtual
async def test_room_that_other_fleets_lack_is_not_why_a_pool_is_too_small():
    bench = Bench(vms=2, zones="ab", limits=None)
    bench.place("api", 2)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type="c7i.large"))
    bench.place("batch", 0)
    template = {**NEW, "vm_type": "c7i.large"}
    bench.add(policy("web", signal=TOTAL), 500)
    bench.add(policy("batch", signal=TOTAL, provision=template), 100)
    await bench.run(100)
    assert {fleet for fleet in ("web", "batch") if missing(bench, fleet)} == {"batch"}
    assert [text for _, _, text in shortages(bench)] == [
        "1 VM not available now: no room for c7i.large in the subnet of template web"
    ]


@pytest.mark.parametrize("lasts_s", [15, 60])
def test_calls_that_are_throttled_for_longer_than_a_start_takes_are_a_shortage(lasts_s):
    @virtual
    async def run():
        bench = Bench(vms=3, zones="a", limits=None)
        bench.world.add_fault(Fault(FaultKind.THROTTLE, 45, 45 + lasts_s, actions=("StartInstances",)))
        bench.add(policy(signal=TOTAL), steady((0, 100), (50, 300)))
        await bench.run(200)
        if lasts_s < 20:
            assert shortages(bench) == []
            return
        began, ended = shortages(bench)
        assert began[:2] == (70, "shortage_began")
        assert began[2].startswith(
            "2 VMs not available now: the last request came to nothing: throttled RequestLimit"
        )
        assert ended[:2] == (160, "shortage_ended")

    run()


@virtual
async def test_while_another_daemon_acts_on_a_fleet_it_is_not_short_here():
    bench = Bench(vms=3, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY))
    bench.add(policy(signal=TOTAL), 300)

    def look(record):
        fleet = bench.daemon.fleets.by_name["web"]
        if len(bench.records) == 5:
            fleet.leased_to, fleet.held_until_s = "other", float("inf")

    bench.records = Watched(look)
    await bench.run(300)
    assert shortages(bench) == [
        (10, "shortage_began", "3 VMs not available now: no room for m7i.large in us-east-1a"),
        (50, "shortage_ended", "the daemon other acts on the fleet now; up to 3 were missing for 40 s"),
    ]
    assert missing(bench) == 0


SAID = {
    "VcpuLimitExceeded": "the account's quota of standard VMs is used up",
    "VolumeLimitExceeded": NO_ROOM,
    "InsufficientFreeAddressesInSubnet": NO_ROOM,
    "InvalidLaunchTemplateId.VersionNotFound": "provisioning failed recently: InvalidLaunchTemplateId.VersionNotFound words",
    "InvalidAMIID.NotFound": "provisioning failed recently: InvalidAMIID.NotFound words",
}
"""What is said of a fleet that makes its VMs, by the code of the refusal."""


@pytest.mark.parametrize("code", SAID)
def test_a_fleet_whose_vms_cannot_be_made_says_why_and_asks_rarely(code):
    @virtual
    async def run():
        bench = Bench(vms=0, zones="a", limits=None)
        bench.place("web", 0)
        bench.add(policy(signal=TOTAL, provision=NEW), 300)

        def refused(*_, **__):
            asked.append(bench.clock.now())
            raise ProviderError("words", code=code)

        asked = []
        bench.world.run = refused
        await bench.run(170)
        assert [text for _, _, text in shortages(bench)] == [f"3 VMs not available now: {SAID[code]}"]
        assert len(asked) == 1

    run()


@virtual
async def test_vms_whose_key_was_disabled_are_set_aside_with_what_to_do():
    code = "Client.InvalidKMSKey.InvalidState"
    bench = Bench(vms=3, zones="a", limits=None, faults=[Fault(FaultKind.FALL_BACK, code=code)])
    bench.add(policy(signal=TOTAL), 300)
    await bench.run(120)
    (told,) = [text for _, kind, text in bench.events() if kind == "start_fell_back"][:1]
    assert "enable it in KMS" in told
    assert [text for _, _, text in shortages(bench)] == ["3 VMs not available now: 3 in quarantine"]
    assert len(bench.calls("StartInstances")) == 1
