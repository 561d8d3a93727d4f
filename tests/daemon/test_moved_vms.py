"""VMs that are tagged for another fleet belong to it at once, whatever is in progress, unless all VMs of a fleet are."""

import asyncio
from collections import Counter

import pytest

from autoscaler.cloud.vms import State
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import pool_bench, states

TOTAL = {"kind": "total"}


def later(second, change):
    """Change the world in the middle of the run."""
    asyncio.get_running_loop().call_later(second, change)


@virtual
async def test_a_vm_that_is_tagged_for_another_fleet_is_that_fleets_from_the_next_listing_on():
    bench = Bench(vms=4, running=4, zones="a", limits=None)
    moved = sorted(bench.ids[:4])[:3]
    bench.add(policy(signal=TOTAL), steady((0, 400), (60, 100)))
    bench.add(policy("api", signal=TOTAL), 300)
    later(55, lambda: bench.world.tag(bench.clock.now(), moved, {"autoscaler:fleet": "api"}))
    await bench.run(300)
    assert bench.calls("StopInstances", "StartInstances") == []
    assert (bench.column("in_service")[6:], bench.column("in_service", "api")[6:]) == ([1] * 25, [3] * 25)
    told = [(at, kind) for at, kind, _ in bench.events()]
    assert told == [(60, "vm_moved")] * 3


@pytest.mark.parametrize("at_s", [10.4, 12, 20, 25])
def test_a_vm_that_is_tagged_for_another_fleet_while_it_starts_is_made_up_for_and_stopped_by_that_one(at_s):
    @virtual
    async def run():
        bench = Bench(vms=3, zones="a", limits=None)
        bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100)))
        bench.add(policy("api", signal=TOTAL), 0)

        def move():
            (starting,) = [v.id for v in bench.world.views(bench.clock.now()) if v.state is not State.STOPPED]
            bench.world.tag(bench.clock.now(), [starting], {"autoscaler:fleet": "api"})

        later(at_s, move)
        await bench.run(300)
        assert (bench.column("in_service")[-1], bench.column("in_service", "api")[-1]) == (1, 0)
        assert states(bench) == {"running": 1, "stopped": 2}
        assert Counter(kind for _, kind, _ in bench.events())["vm_moved"] == 1
        assert [bench.log.texts(event) for event in ("tick_failed", "act_failed")] == [[], []]

    run()


@virtual
async def test_where_all_vms_of_a_fleet_are_tagged_for_another_they_are_not_made_anew_at_once():
    bench = pool_bench(400, running=4, warm_pool={"minimum": 0}, refill="off")
    ids = [view.id for view in bench.world.views(ORIGIN_S)]
    later(55, lambda: bench.world.tag(bench.clock.now(), ids, {"autoscaler:fleet": "wbe"}))
    later(300, lambda: bench.world.tag(bench.clock.now(), ids, {"autoscaler:fleet": "web"}))
    await bench.run(900)
    assert bench.calls("RunInstances", "StopInstances", "TerminateInstances") == []
    assert bench.column("in_service")[-1] == 4
    assert [kind for _, kind, _ in bench.events()] == ["vms_unlisted", "vms_listed"]
