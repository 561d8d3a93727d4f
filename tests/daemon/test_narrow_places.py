"""A place with room for some of the stopped VMs that are wanted, whose provider starts all VMs of a call or none."""

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from tests.daemon.builders import Bench, policy, steady, virtual

TOTAL = {"kind": "total"}
OWN, OTHER = "m7i.large", "m6i.large"
HERE, THERE = "us-east-1a", "us-east-1b"
WANTED = 50


def starts(bench, *, until_s):
    return [(at, vms, not code) for at, _, vms, code in bench.calls("StartInstances") if at < until_s]


@pytest.mark.parametrize("room", [24, 10])
def test_most_of_the_room_that_there_is_is_found_at_once(room):
    @virtual
    async def run():
        bench = Bench(vms=WANTED, zones="a", limits=None, capacity={(OWN, HERE): room})
        bench.add(policy(signal=TOTAL, bounds={"maximum": WANTED}), 100 * WANTED)
        await bench.run(80)
        assert bench.rows()[-1].in_service == room
        assert len(starts(bench, until_s=80)) <= 9

    run()


@virtual
async def test_a_place_without_any_room_costs_three_calls_more():
    bench = Bench(vms=WANTED, zones="a", limits=None, capacity={(OWN, HERE): 0})
    bench.add(policy(signal=TOTAL, bounds={"maximum": WANTED}), 100 * WANTED)
    await bench.run(170)
    asked = [vms for _, vms, _ in starts(bench, until_s=170)]
    assert asked == [50, 25, 25, 6, 3, 3]


@pytest.mark.parametrize("types", [(), (OWN, OTHER)])
def test_it_is_the_last_choice(types):
    @virtual
    async def run():
        bench = Bench(vms=40, zones="ab", limits=None, capacity={(OWN, HERE): 8})
        wanted = steady((0, 0), (20, 4000))
        bench.add(policy(signal=TOTAL, bounds={"maximum": 40}, vm={"types": list(types)}), wanted)
        await bench.run(60)
        at_once = [vms for at, vms, done in starts(bench, until_s=30) if done]
        # A quarter of the ten for which there was no room, and so on; as another type, all at once.
        assert at_once[:2] == ([20, 20] if types else [20, 2])
        assert bench.rows()[-1].in_service == (40 if types else 28)

    run()


@virtual
async def test_once_one_vm_has_found_room_the_others_follow_before_the_next_tick_in_all_fleets():
    bench = Bench(vms=3, zones="a", limits=None, tick_s=60.0)
    bench.place("api", 3)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=100))
    for name in ("web", "api"):
        bench.add(policy(name, signal={**TOTAL, "max_age": "2m"}), 300)
    await bench.run(260)
    assert starts(bench, until_s=170)[-1][2] is False
    found = [(at, vms) for at, vms, done in starts(bench, until_s=260) if done]
    assert found == [(180, 1), (180, 2), (180, 3)]
