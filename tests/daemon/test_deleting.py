"""What the daemon deletes by itself, and when it does not, because deletion is final."""

import asyncio

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.vms.pool_tags import MADE_AT_TAG, POOL_TAG, QUARANTINED_TAG
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, PROTECTED_TAG
from autoscaler.ports import Verb
from tests.control.builders import STOP, Commands, asked
from tests.daemon.builders import ORIGIN_S, steady, virtual
from tests.daemon.pools import PROVISION, chores, pool_bench, states

TRIMMED = {"warm_pool": {"minimum": 1}, "refill": {"trim_after": "1h", "trim_rate": {"vms": 1, "per": "10m"}}}
OURS = {MADE_BY_TAG: "x", MADE_AT_TAG: "5"}


def deleted(bench):
    return [at for at, *_ in chores(bench, Verb.TERMINATE)]


@virtual
async def test_nothing_is_trimmed_while_vms_cannot_be_listed():
    outage = Fault(
        FaultKind.API_ERROR, start_s=3600, end_s=5000, code="InternalError", actions=("DescribeInstances",)
    )
    bench = pool_bench(100, running=1, vms=0, faults=[outage], **TRIMMED)
    bench.world.provision(ORIGIN_S, "web", 3, tags=OURS)
    await bench.run(5200)
    # One VM is started by hand unnoticed: the daemon last saw it stopped, an hour ago.
    assert deleted(bench)[0] >= 5000


@virtual
async def test_nothing_is_trimmed_while_stops_are_paused():
    bench = pool_bench(100, running=1, vms=0, **TRIMMED)
    bench.world.provision(ORIGIN_S, "web", 3, tags=OURS)
    Commands(bench).at(3000, "pause", asked("web", reason="x", until_s=5000), STOP)
    await bench.run(5200)
    assert deleted(bench)[0] >= 5000


@pytest.mark.parametrize("paused", [STOP, (Verb.REFILL,)])
def test_nothing_out_of_date_is_deleted_while_stops_or_refills_are_paused(paused):
    @virtual
    async def live():
        bench = pool_bench(
            100,
            running=1,
            provision={**PROVISION, "maximum": 4},
            warm_pool={"minimum": 1, "spare": "300%"},
            freshness={"max_age": "1d", "refresh": {"share": "50%"}},
        )
        bench.world.provision(ORIGIN_S, "web", 3, tags=OURS)
        Commands(bench).at(5, "pause", asked("web", reason="x", until_s=1000), paused)
        await bench.run(1200)
        assert deleted(bench)[0] >= 1000

    live()


@virtual
async def test_what_is_late_in_getting_ready_is_not_deleted_while_stops_are_paused():
    bench = pool_bench(100, running=1, refill={"prepared_tag": True, "timeout": "2m"})
    Commands(bench).at(5, "pause", asked("web", reason="x", until_s=1000), STOP)
    await bench.run(900)
    assert deleted(bench) == []
    assert states(bench) == {"running": 3}


@virtual
async def test_what_was_never_ready_is_not_swept_while_an_operator_looks_at_it():
    bench = pool_bench(100, running=1, warm_pool={"minimum": 0})
    tags = {**OURS, POOL_TAG: "preparing", QUARANTINED_TAG: "alice: why did it not come up?"}
    bench.world.provision(ORIGIN_S, "web", 1, tags=tags)
    await bench.run(2000)
    assert deleted(bench) == []


@virtual
async def test_an_eviction_is_off_once_the_vm_is_protected():
    bench = pool_bench(100, running=1, vms=2, refill=None, warm_pool={"minimum": 0})
    vm_id = bench.ids[-1]
    await bench.provider.tag([vm_id], {PROTECTED_TAG: "true"})
    # Kept by an earlier run, while it could not be deleted.
    asyncio.get_running_loop().call_later(
        5, lambda: bench.daemon.warm_pools.by_name["web"].asked.evict.add(vm_id)
    )
    await bench.run(100)
    assert deleted(bench) == []
    assert bench.daemon.warm_pools.by_name["web"].asked.evict == set()


@virtual
async def test_nothing_is_trimmed_or_replaced_while_demand_is_not_known():
    bench = pool_bench(
        steady((0, 800), (100, 100)),
        running=8,
        warm_pool={"minimum": 0, "spare": "50%"},
        freshness={"max_age": "1d", "refresh": {"share": "50%"}},
        refill={"trim_after": "1h", "trim_rate": {"vms": 5, "per": "10m"}},
    )
    await bench.run(1000)
    assert bench.column("stopped")[-1] >= 7
    await bench.provider.tag(bench.ids, OURS)
    # By what is known without metrics after a restart, one would be enough.
    bench.setups[0].source.demand = None
    bench.records.clear()
    await bench.run(9000)
    assert bench.column("warm_target")[-1] == 1
    assert deleted(bench) == []
