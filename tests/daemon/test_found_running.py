"""VMs that are running when a daemon begins: they may serve, even if a failing probe says otherwise."""

import pytest

from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.pool_tags import POOL_TAG, PREPARING, READY
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, PROTECTED_TAG
from tests.daemon.builders import Bench, policy, virtual
from tests.daemon.pools import chores, pool_bench

TOTAL = {"kind": "total"}


class Says:
    """A probe that reports these VMs as not ready for some time."""

    def __init__(self, bench, vm_ids, until_s=float("inf")):
        self.clock, self.vm_ids, self.until_s = bench.clock, frozenset(vm_ids), bench.clock.now() + until_s

    async def ready(self, vms):
        wrong = self.vm_ids if self.clock.now() < self.until_s else frozenset()
        return frozenset(vm.id for vm in vms) - wrong


def found(running, unready, until_s=float("inf"), **plan):
    bench = Bench(vms=0, running=running, zones="a", limits=None)
    bench.add(policy(signal=TOTAL, **plan), 100.0 * running, probe=Says(bench, bench.ids[:unready], until_s))
    return bench


def stopped(bench):
    return sorted(vm_id for a in bench.actions() if a.intent.verb == "stop" for vm_id in a.intent.vm_ids)


@pytest.mark.parametrize(("running", "unready"), [(4, 4), (4, 2), (1, 1)])
def test_where_half_or_more_are_not_ready_the_probe_is_doubted_and_nothing_is_stopped(running, unready):
    @virtual
    async def live():
        bench = found(running, unready, until_s=1500)
        await bench.run(1600)
        assert stopped(bench) == []
        assert bench.column("in_service")[-1] == running
        assert [kind for _, kind, _ in bench.events()].count("not_ready") == unready

    live()


@virtual
async def test_one_of_many_that_is_not_ready_is_stopped_as_after_a_start():
    bench = found(4, 1)
    await bench.run(800)
    assert stopped(bench) == [bench.ids[0]]
    assert [kind for _, kind, _ in bench.events()][:2] == ["start_overdue", "never_ready"]


@virtual
async def test_one_that_is_protected_is_not_stopped():
    bench = found(4, 1)
    await bench.provider.tag([bench.ids[0]], {PROTECTED_TAG: "true"})
    await bench.run(1600)
    assert stopped(bench) == []
    assert bench.daemon.fleets.all[0].inventory.vms[bench.ids[0]].phase is Phase.RUNNING


@virtual
async def test_those_that_an_earlier_run_made_minutes_ago_may_serve_too():
    bench = pool_bench(300, running=1, refill=None, warm_pool={"minimum": 0})
    await bench.run(100)
    assert bench.column("in_service")[-1] == 3
    setup = bench.setups[0]
    ids = [vm.id for vm in bench.world.page(bench.clock.now()).vms]
    bench.setups = [FleetSetup(setup.policy, setup.provider, setup.source, Says(bench, ids))]
    await bench.run(1600)
    assert stopped(bench) == []


SERVED = {POOL_TAG: PREPARING, MADE_BY_TAG: "web-r1"}


@virtual
async def test_one_whose_tag_says_preparing_and_that_ran_for_longer_than_that_takes_has_served():
    bench = pool_bench(300, running=3, warm_pool={"minimum": 0}, refill={"timeout": "60s"})
    await bench.provider.tag(bench.ids, SERVED)
    await bench.clock.sleep_until(bench.clock.monotonic() + 100)
    await bench.run(60)
    assert bench.column("in_service") == [3] * 7
    assert chores(bench) == []
    tags = [vm.tags for vm in bench.world.page(bench.clock.now()).vms]
    assert {each[POOL_TAG] for each in tags} == {READY}


@virtual
async def test_one_that_may_be_preparing_still_does_not_serve():
    bench = pool_bench(100, running=3, warm_pool={"minimum": 0}, refill={"timeout": "60s"})
    await bench.provider.tag(bench.ids[:2], SERVED)
    await bench.run(40)
    assert max(bench.column("in_service")) == 1
    assert [verb for _, verb, _, _ in chores(bench)] == ["store"]


@virtual
async def test_one_whose_image_has_not_said_that_it_is_done_does_not_serve():
    bench = pool_bench(
        100, running=3, warm_pool={"minimum": 0}, refill={"timeout": "60s", "prepared_tag": True}
    )
    await bench.provider.tag(bench.ids[:2], SERVED)
    await bench.clock.sleep_until(bench.clock.monotonic() + 100)
    await bench.run(40)
    assert bench.column("in_service") == [1] * 5
