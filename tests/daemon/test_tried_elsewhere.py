"""A start that failed is tried elsewhere while the next tick begins: what has changed meanwhile counts."""

from autoscaler.cloud.faults import Fault, FaultKind
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual


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
