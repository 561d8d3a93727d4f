"""Listings that lag behind accepted orders for longer than they usually do, up to a minute."""

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import State
from tests.daemon.builders import ORIGIN_S, Bench, Watched, policy, steady, virtual

TOTAL = {"kind": "total"}


def running(bench):
    views = bench.world.views(bench.clock.now())
    return sum(view.state in (State.PENDING, State.RUNNING) for view in views)


@pytest.mark.parametrize("lag_s", [35, 65, 150])
def test_vms_that_look_as_before_an_accepted_stop_are_not_taken_for_serving(lag_s):
    @virtual
    async def run():
        lag = Fault(FaultKind.LISTING_LAG, 190, delay_s=lag_s)
        bench = Bench(vms=0, running=10, zones="a", limits=None, faults=[lag])
        bench.add(policy(signal=TOTAL), steady((0, 1000), (200, 400)))
        fewest = []
        bench.records = Watched(lambda record: fewest.append(running(bench)))
        await bench.run(420)
        # What serves was stopped in place of what had long been stopped, down to the last VM.
        assert min(fewest) == 4
        assert bench.column("in_service")[-1] == 4
        kinds = {kind for _, kind, _ in bench.events()}
        # After so long the stops are not believed any more, and the same VMs are stopped again.
        assert kinds == ({"stop_not_taken"} if lag_s > 90 else set())

    run()


@pytest.mark.parametrize("lag_s", [35, 65])
def test_vms_that_look_as_before_an_accepted_start_have_not_failed(lag_s):
    @virtual
    async def run():
        lag = Fault(FaultKind.LISTING_LAG, 90, 250, delay_s=lag_s)
        bench = Bench(vms=12, running=2, zones="a", limits=None, faults=[lag])
        bench.add(policy(signal=TOTAL), steady((0, 200), (100, 800)))
        await bench.run(250)
        kinds = {kind for _, kind, _ in bench.events()}
        assert kinds.isdisjoint({"start_fell_back", "started_outside", "stopped_outside"})
        held = bench.daemon.fleets.all[0].inventory.vms.values()
        assert not [t.vm.id for t in held if t.quarantined_until_s > ORIGIN_S + 250]
        assert bench.column("in_service")[-1] >= 8

    run()
