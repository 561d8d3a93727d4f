"""VMs that shut themselves down: once may be chance, but soon after each start it is a fault of the VM."""

from itertools import pairwise

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.ports import Verb, VmState
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual
from tests.daemon.one_vm import in_service

OWN = "Client.InstanceInitiatedShutdown"


@pytest.mark.parametrize(("every_s", "left_alone"), [(60, True), (180, False)])
def test_one_that_is_soon_after_each_start_is_started_ever_more_rarely(every_s, left_alone):
    @virtual
    async def run():
        bench = Bench(vms=2, zones="a", limits=None)
        bad = min(bench.ids)
        for at_s in range(every_s, 4000, every_s):
            bench.world.add_fault(Fault(FaultKind.HOST_STOP, at_s, at_s + 1, code=OWN, vm_ids=(bad,)))
        # Both are needed.
        bench.add(policy(signal={"kind": "total"}), 200)
        await bench.run(4000)
        starts = [round(a.at_s - ORIGIN_S) for a in bench.actions() if a.intent.verb is Verb.START]
        told = [text for _, kind, text in bench.events() if kind == "stopped_outside"]
        assert all(text.startswith(f"{bad} was shut down from within") for text in told)
        gaps = [after - before for before, after in pairwise(starts)]
        if left_alone:
            # Twice at once, then each time after twice as long.
            assert [gap > 600 for gap in gaps] == [False, True, True]
            assert gaps[2] - gaps[1] >= 590
        else:
            # It serves for minutes in between, and is worth its starts.
            assert max(gaps) <= every_s + 40
            assert bench.column("in_service").count(2) > 200
        assert min(bench.column("in_service")[3:]) == 1

    run()


def test_one_that_shuts_itself_down_soon_after_two_starts_says_why_it_is_left_alone():
    fleet = in_service(at=100)
    for at, why in ((110, ""), (210, "it was shut down from inside soon after 2 starts in a row")):
        assert fleet.see(VmState.STOPPED, at, reason=OWN) == ["stopped_outside"]
        assert fleet.vm.quarantine_reason == why
        fleet.order(Verb.START, at + 60)
        fleet.see(VmState.RUNNING, at + 80, launched=at + 60)
        fleet.ready(at + 81)
