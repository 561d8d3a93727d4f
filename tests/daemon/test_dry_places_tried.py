"""Several fleets and a place without room: one VM tries it for all fleets, whatever is needed, and then the rest follow."""

from dataclasses import replace

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import LaunchData
from autoscaler.daemon.vms.inventory import FleetInventory, Patience
from autoscaler.daemon.vms.quarantine import FailureCause
from autoscaler.daemon.warm.refill import batches
from autoscaler.ports import VmState
from tests.daemon.builders import ORIGIN_S, Bench, listing, policy, reconcile, steady, virtual, vm
from tests.daemon.pools import fleet_in_two_subnets, pool_bench
from tests.daemon.test_loop_bounds import Hung

TOTAL = {"kind": "total"}
OWN, OTHER = "m7i.large", "g6.xlarge"
SHORT = "InsufficientInstanceCapacity"
FLEETS = ("web", "api", "batch")


def made(bench):
    return bench.calls("RunInstances")


def with_new_vms(bench, **section):
    """Three fleets that need three VMs each and have none."""
    given = {"launch_template": "web", "vm_type": OWN, "maximum": 9, **section}
    for name in FLEETS:
        bench.place(name, 0)
        bench.add(policy(name, signal=TOTAL, provision=given), 300)


@virtual
async def test_a_dry_place_is_tried_by_one_new_vm_of_one_fleet_and_the_rest_follow_when_that_is_had():
    bench = Bench(vms=0, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=1500))
    with_new_vms(bench)
    await bench.run(1800)
    tried = [(at, vms, code) for at, _, vms, code in made(bench)]
    # All find it out at the same moment, independently.
    assert tried[:3] == [(0, 3, SHORT)] * 3
    assert tried[3:7] == [(180, 1, SHORT), (540, 1, SHORT), (1140, 1, SHORT), (1740, 1, "")]
    assert sorted(tried[7:]) == [(1740, 2, ""), (1740, 3, ""), (1740, 3, "")]
    assert [bench.column("in_service", name)[-1] for name in FLEETS] == [3, 3, 3]
    told = {row.sentence.partition(": ")[0] for name in FLEETS for row in bench.rows(name)}
    assert "one VM is provisioned, to see whether there is room again" in told
    assert "no VM is provisioned, since it failed recently" in told


NOT_SENT = {
    "throttled": lambda bench: bench.world.add_fault(
        Fault(FaultKind.THROTTLE, start_s=175, end_s=185, actions=("RunInstances", "StartInstances"))
    ),
    "not recorded": lambda bench: setattr(
        bench, "journal", Hung(bench.journal, bench.clock, 175, 187, "record_tick")
    ),
}


@pytest.mark.parametrize("way", NOT_SENT)
@pytest.mark.parametrize("made_anew", [True, False])
def test_a_try_that_was_never_sent_is_made_in_the_next_tick(way, made_anew):
    @virtual
    async def run():
        bench = Bench(vms=0, zones="a", limits=None)
        bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=175))
        NOT_SENT[way](bench)
        if made_anew:
            with_new_vms(bench)
        for name in () if made_anew else FLEETS:
            bench.place(name, 3)
            bench.add(policy(name, signal=TOTAL), 300)
        await bench.run(260)
        tried = [(at, code) for at, _, _, code in bench.calls("RunInstances", "StartInstances") if at > 170]
        refused = [(180, "RequestLimitExceeded")] if way == "throttled" else []
        assert tried == [*refused, *[(190, "")] * 4]

    run()


@pytest.mark.parametrize("code", ["InvalidParameterValue", "UnauthorizedOperation"])
@pytest.mark.parametrize("made_anew", [True, False])
def test_a_try_that_says_nothing_about_the_place_leaves_it_to_the_other_fleets(code, made_anew):
    @virtual
    async def run():
        bench = Bench(vms=0, zones="a", limits=None)
        bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=175))
        # The fleet that tries first is refused for a reason of its own.
        actions = ("RunInstances", "StartInstances")
        bench.world.add_fault(Fault(FaultKind.API_ERROR, 175, code=code, fleet="web", actions=actions))
        if made_anew:
            with_new_vms(bench)
        for name in () if made_anew else FLEETS:
            bench.place(name, 3)
            bench.add(policy(name, signal=TOTAL), 300)
        await bench.run(260)
        assert [bench.column("in_service", name)[-1] for name in FLEETS] == [0, 3, 3]

    run()


@virtual
async def test_what_one_template_lacks_does_not_hold_up_those_made_from_another():
    bench = Bench(vms=0, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OTHER))
    for name, vm_type in (("web", OTHER), ("api", OWN)):
        template = LaunchData(image="ami-0000000a", vm_type=vm_type)
        bench.world.templates.create(bench.world.new_id("lt"), f"{name}-template", template, ORIGIN_S)
        section = {"launch_template": f"{name}-template", "maximum": 9}
        bench.add(
            policy(name, signal=TOTAL, provision=section), steady((0, 300 if name == "web" else 0), (30, 300))
        )
    await bench.run(80)
    assert bench.column("in_service", "api")[-1] == 3
    assert {code for *_, code in made(bench) if code} == {SHORT}


@virtual
async def test_a_refill_that_was_throttled_leaves_a_place_to_whoever_tries_it_next():
    faults = (
        Fault(FaultKind.NO_CAPACITY, end_s=100),
        Fault(FaultKind.THROTTLE, start_s=200, end_s=300, actions=("RunInstances",)),
    )
    bench = pool_bench(100, running=1, faults=faults, warm_pool={"minimum": 1})
    await bench.run(400)
    # After the second failure in a row nothing is made for two minutes; the place is dry for three where it was tried.
    assert [(at, code) for at, _, _, code in made(bench)] == [
        (60, SHORT),
        (240, "RequestLimitExceeded"),
        (360, ""),
    ]


@virtual
async def test_what_one_vm_tries_in_a_dry_place_the_others_are_made_elsewhere_meanwhile():
    bench = Bench(vms=0, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"))
    near, far = sorted(bench.world.places.subnets, key=bench.world.places.subnets.get)
    bench.place("web", 0)
    section = {"launch_template": "web", "vm_type": OWN, "subnet": near, "subnets": [far], "maximum": 9}
    bench.add(policy(signal=TOTAL, provision=section), lambda second: 200 if second < 175 else 600)
    await bench.run(260)
    tried = [(at, vms, code) for at, _, vms, code in made(bench)]
    assert tried[:2] == [(0, 2, SHORT), (0, 2, "")]
    # One of the four that are missing tries; when it fails it is made elsewhere too.
    assert sorted(tried[2:]) == [(180, 1, ""), (180, 1, SHORT), (180, 3, "")]
    assert bench.column("in_service")[-1] == 6
    tokens = [a.intent.token for a in bench.actions() if a.intent.token]
    assert len(set(tokens)) == len(tokens)


def test_refills_try_a_dry_place_with_one_vm_and_leave_it_to_one_fleet():
    one, other = fleet_in_two_subnets(), fleet_in_two_subnets()
    places = other.inventory.places = one.inventory.places
    for subnet in ("subnet-a", "subnet-b"):
        places.found_dry(*replace(one.spec, subnet=subnet).place, ORIGIN_S)

    def counts(fleet, at_s):
        return [(b.spec.subnet, b.intent.count) for b in batches(fleet, 4, "x", 1, ORIGIN_S + at_s)]

    assert counts(one, 10) == []
    assert counts(one, 180) == [("subnet-a", 1), ("subnet-b", 1)]
    assert counts(other, 180) == []
    places.found_room(*replace(one.spec, subnet="subnet-b").place)
    assert counts(other, 181) == [("subnet-b", 4)]


@pytest.mark.parametrize("types", [(OWN, OWN), (OWN, "c7i.large")])
def test_a_quota_is_tried_by_one_vm_whatever_its_type_and_zone(types):
    vms = [vm(f"i-{n}", VmState.STOPPED, zone="ab"[n], vm_type=types[n]) for n in range(2)]
    vms.append(vm("i-g", VmState.STOPPED, zone="a", vm_type=OTHER))
    inventory = FleetInventory("web", Patience())
    reconcile(inventory, listing(*vms, at=0), tuple(vms), 0)
    inventory.places.found_dry(OWN, "a", 0.0, FailureCause.QUOTA)
    assert {t.vm.id for t in inventory.startable(10.0)} == {"i-g"}
    tried = {t.vm.id for t in inventory.startable(180.0)}
    assert len(tried & {"i-0", "i-1"}) == 1
    assert "i-g" in tried
    assert inventory.counts(180.0, 0.0).startable == 2
