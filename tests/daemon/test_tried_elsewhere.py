"""A start that failed is tried elsewhere while the next tick begins: what has changed meanwhile counts."""

from autoscaler.cloud.faults import Fault, FaultKind
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual


class Meanwhile:
    """A journal during whose writes a listing takes a VM away: the one that is to be tried elsewhere."""

    def __init__(self, bench):
        self.bench, self.journal, self.gone = bench, bench.journal, ()

    def __getattr__(self, name):
        return getattr(self.journal, name)

    async def record_intents(self, tick, at_s, intents):
        ids = await self.journal.record_intents(tick, at_s, intents)
        if not self.gone:
            self.gone = intents[0].vm_ids
            del self.bench.daemon.fleets.by_name["web"].inventory.vms[self.gone[0]]
        return ids


@virtual
async def test_a_vm_that_goes_while_its_start_is_recorded_is_not_started_and_fails_nothing():
    bench = Bench(vms=2, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=5, vm_ids=(max(bench.ids),)))
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=5, vm_ids=(min(bench.ids),)))
    bench.journal = Meanwhile(bench)
    bench.add(policy(signal={"kind": "total"}), 100)
    await bench.run(60)
    assert bench.log.texts("act_failed") == []
    (unsent,) = [a for a in bench.actions() if a.intent.vm_ids == bench.journal.gone and a.at_s == ORIGIN_S]
    assert [outcome.code for outcome in unsent.outcomes] == ["NotSent"]
    assert bench.column("in_service")[-1] == 1


def bench_with_two_types(*faults):
    """A fleet of two VMs that start as another type at 0, and are stopped again at 100."""
    bench = Bench(vms=2, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type="m7i.large", end_s=100))
    for fault in faults:
        bench.world.add_fault(fault)
    types = {"types": ["m7i.large", "m6i.large"]}
    bench.add(policy(signal={"kind": "total"}, vm=types), steady((0, 200), (100, 0), (150, 200), (200, 0)))
    return bench


@virtual
async def test_a_type_that_cannot_be_changed_back_is_told_once_and_its_vm_may_be_started():
    denied = Fault(
        FaultKind.API_ERROR,
        start_s=100,
        end_s=500,
        code="UnauthorizedOperation",
        actions=("ModifyInstanceAttribute",),
    )
    bench = bench_with_two_types(denied)
    await bench.run(800)
    assert [at for at, *_ in bench.calls("StartInstances") if at] == [150]
    told = [(at, kind) for at, kind, _ in bench.events() if kind.startswith("type_")]
    assert [kind for _, kind in told] == ["type_not_restored"] * 2 + ["type_restored"] * 2
    tried = [at for at, *_ in bench.calls("ModifyInstanceAttribute") if at >= 100]
    assert tried == [130, 130, 310, 310, 490, 490, 670, 670]


@virtual
async def test_the_daemon_ends_without_a_wait_for_listings_of_what_was_changed_back():
    bench = bench_with_two_types()
    await bench.run(135)
    assert [at for at, *_ in bench.calls("ModifyInstanceAttribute") if at] == [130, 130]
    assert bench.clock.now() == ORIGIN_S + 135.5


@virtual
async def test_what_fails_after_the_fleet_was_decided_on_again_is_not_tried_elsewhere_for_the_decision_before():
    bench = Bench(vms=2, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=5))
    bench.world.add_fault(Fault(FaultKind.LATENCY, end_s=5, delay_s=12.0, actions=("StartInstances",)))
    bench.add(policy(signal={"kind": "total"}), steady((0, 100), (10, 0)))
    await bench.run(60)
    assert len(bench.actions()) == 1
    assert [outcome.kind for outcome in bench.actions()[0].outcomes] == ["no_capacity"]
