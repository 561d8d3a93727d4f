"""VMs that the provider will not stop or delete: protected ones, and kinds that cannot be."""

from itertools import pairwise

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.pool_tags import MADE_BY_TAG, POOL_TAG, READY
from autoscaler.ports import OutcomeKind, Verb
from autoscaler.providers.ec2.classify import outcomes_of
from autoscaler.providers.failing import Failure
from autoscaler.providers.memory import MemoryProvider
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import chores, pool_bench, states

TOTAL = {"kind": "total"}


def refusing(action, *vm_ids, code="OperationNotPermitted"):
    """A fault with which EC2 refuses calls that name one of these VMs."""
    return Fault(FaultKind.API_ERROR, code=code, vm_ids=vm_ids, actions=(action,))


@pytest.mark.parametrize("code", ["OperationNotPermitted", "UnsupportedOperation"])
def test_vms_that_cannot_be_stopped_keep_no_other_from_it_and_are_asked_ever_more_rarely(code):
    @virtual
    async def run():
        bench = Bench(vms=0, running=6, zones="a", limits=None)
        kept = sorted(bench.ids)[:2]
        bench.world.add_fault(refusing("StopInstances", *kept, code=code))
        bench.add(policy(signal=TOTAL), steady((0, 600), (50, 100)))
        await bench.run(4000)
        serving = bench.column("in_service")
        # One is wanted, and the two that cannot be stopped stay.
        assert serving[5:8] == [6, 3, 2]
        assert serving[-1] == 2
        asked = [
            a for a in bench.actions() if a.intent.verb is Verb.STOP and set(a.intent.vm_ids) & set(kept)
        ]
        gaps = [round(b.at_s - a.at_s) for a, b in pairwise(asked)]
        assert len(asked) <= 12
        assert max(gaps) >= 1900
        told = [text for _, kind, text in bench.events() if kind == "stop_not_accepted"]
        assert len(told) == len(asked)
        assert all("asked again later" in text for text in told)
        # They leave like any other VM once nothing prevents it.
        assert not {v.id for v in bench.world.views(bench.clock.now()) if v.state is State.RUNNING} - {*kept}

    run()


@virtual
async def test_a_vm_that_cannot_be_deleted_keeps_no_other_from_it_and_is_told_once_a_day():
    bench = pool_bench(
        100,
        running=1,
        refill={"trim_after": "1h", "trim_rate": {"vms": 2, "per": "10m"}},
        warm_pool={"minimum": 2, "maximum": 4},
    )
    made = bench.world.provision(
        ORIGIN_S - 7200, "web", 6, tags={MADE_BY_TAG: "a", POOL_TAG: READY}, state=State.STOPPED
    )
    kept = sorted(made)[:3]
    bench.world.add_fault(refusing("TerminateInstances", *kept))
    await bench.run(3 * 3600)
    # The wanted number stays, and includes those that cannot leave.
    assert states(bench) == {"running": 1, "stopped": 3}
    told = [text for _, kind, text in bench.events() if kind == "terminate_not_accepted"]
    assert sum(each in text for text in told for each in kept) == 3


@virtual
async def test_no_vm_is_made_in_the_place_of_one_that_is_out_of_date_and_cannot_be_deleted():
    bench = pool_bench(
        100,
        running=1,
        warm_pool={"minimum": 3},
        freshness={"refresh": {"share": "34%"}},
        bounds={"maximum": 3},
    )
    made = bench.world.provision(
        ORIGIN_S - 7200, "web", 3, tags={MADE_BY_TAG: "a", POOL_TAG: READY}, state=State.STOPPED
    )
    bench.world.add_fault(refusing("TerminateInstances", *made))
    await bench.run(2 * 3600)
    # Each was tried once, in whose place one was made before.
    assert states(bench)["stopped"] <= 6
    assert sum(count for _, _, count, _ in chores(bench, Verb.TERMINATE)) <= 6
    assert sum(count for _, _, count, _ in chores(bench, Verb.REFILL)) <= 3


# ── a permission that is missing ────────────────────────────────────────────────────────────────────────


@virtual
async def test_where_nothing_may_be_stopped_vms_are_started_all_the_same():
    bench = Bench(vms=6, running=6, zones="a", limits=None)
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, code="UnauthorizedOperation", actions=("StopInstances",))
    )
    bench.add(policy(signal=TOTAL), steady((0, 300), (70, 800)))
    await bench.run(100)
    assert bench.calls("StartInstances") == [(70, "StartInstances", 2, "")]
    assert bench.column("in_service")[-1] == 8
    told = bench.log.texts("acting_held")
    assert told
    assert all("check credentials and permissions" in text for text in told)


@virtual
async def test_what_cannot_be_marked_as_ready_runs_on_and_is_told_ever_more_rarely():
    bench = pool_bench(100, running=1, warm_pool={"minimum": 2}, refill={"calm": "20s", "timeout": "5m"})
    bench.world.add_fault(Fault(FaultKind.API_ERROR, code="UnauthorizedOperation", actions=("CreateTags",)))
    await bench.run(7200)
    told = [round(at) for at, kind, _ in bench.events() if kind == "stop_not_accepted"]
    assert len(told) <= 8
    assert all(after - before >= 59 for before, after in pairwise(told))
    assert states(bench) == {"running": 3}
    assert sum(count for _, _, count, _ in chores(bench, Verb.REFILL)) == 2


class Denied(MemoryProvider):
    """Denies the start of some VMs, and names the first of them as EC2 does; nothing of such a call is done."""

    def __init__(self, world, clock, ids):
        super().__init__(world, clock)
        self.ids, self.calls = ids, 0

    async def start(self, vm_ids):
        self.calls += 1
        named = next((i for i in vm_ids if i in self.ids), None)
        if named is None:
            return await super().start(vm_ids)
        words = f"You are not authorized to perform: ec2:StartInstances on resource: instance/{named}"
        return outcomes_of(Failure(OutcomeKind.DENIED, "UnauthorizedOperation", words), vm_ids)


@pytest.mark.parametrize("wanted", [1, 4])
def test_one_vm_that_we_may_not_start_keeps_no_other_from_it(wanted):
    @virtual
    async def run():
        bench = Bench(vms=8, zones="a", limits=None)
        bench.provider = Denied(bench.world, bench.clock, {min(bench.ids)})
        bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100 * wanted)))
        await bench.run(600)
        serving = bench.column("in_service")
        # Others start in the same tick, or, if it was the only VM in the call, after the minute for which a denial holds.
        first_s = next(10 * n for n, vms in enumerate(serving) if vms)
        assert first_s == (90 if wanted == 1 else 30)
        assert serving[-1] == wanted
        assert bench.provider.calls <= 4

    run()


@virtual
async def test_where_we_may_start_none_it_is_found_out_within_few_calls_a_minute():
    bench = Bench(vms=60, zones="a", limits=None)
    bench.provider = Denied(bench.world, bench.clock, set(bench.ids))
    bench.add(policy(signal=TOTAL, bounds={"maximum": 60}), steady((0, 0), (10, 5000)))
    await bench.run(600)
    assert bench.provider.calls <= 4 * 10
    assert len(bench.log.texts("acting_held")) == 10
    assert bench.column("in_service")[-1] == 0
