"""VMs of different sizes: readings count by their weights, decisions use the fleet's mean."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import State
from autoscaler.ports import FleetReadings
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual

WEIGHTS = {"capacity": "100/s", "weights": [{"type": "m7i.xlarge", "weight": 2.0}]}


class Shared:
    """Demand shared by weight, as each VM's utilisation or work; some VMs may be silent."""

    def __init__(self, bench, demand, *, busy=True, silent=()):
        self.bench, self.demand, self.busy, self.silent = bench, demand, busy, silent

    async def read(self, vms):
        vms = [vm for vm in vms if vm.id not in self.silent]
        weight = np.array([2.0 if vm.vm_type == "m7i.xlarge" else 1.0 for vm in vms])
        work = self.demand * weight / max(weight.sum(), 1.0)
        value = work / (100.0 * weight) if self.busy else work
        return FleetReadings(tuple(vm.id for vm in vms), value, np.full(len(vms), self.bench.clock.now()))

    async def close(self):
        pass


def mixed(small, large, *, stopped_large=0, **tick):
    bench = Bench(vms=0, **tick)
    bench.ids = ()
    for count, kind, state in (
        (small, "m7i.large", State.RUNNING),
        (large, "m7i.xlarge", State.RUNNING),
        (stopped_large, "m7i.xlarge", State.STOPPED),
    ):
        if count:
            setup = WorldFleet("web", count, state=state, vm_type=kind)
            bench.ids += place_fleet(bench.world, ORIGIN_S, setup)
    return bench


@pytest.mark.parametrize("kind", ["utilisation", "throughput"])
def test_work_and_capacity_count_with_the_weights(kind):
    @virtual
    async def scenario():
        bench = mixed(2, 2)
        bench.add(policy(signal={"kind": kind}, vm=WEIGHTS), Shared(bench, 500.0, busy=kind == "utilisation"))
        await bench.run(60)
        row = bench.rows()[-1]
        # Two of 100/s and two of 200/s: four VMs with a mean of 150/s.
        assert row.demand == pytest.approx(500.0)
        assert (row.in_service, row.desired, row.capacity) == (4, 4, 600.0)
        assert row.shortage == 0.0

    scenario()


@virtual
async def test_a_silent_large_vm_is_filled_in_by_who_reported():
    bench = mixed(2, 2)
    source = Shared(bench, 450.0)
    bench.add(policy(signal={"kind": "utilisation"}, vm=WEIGHTS), source)
    await bench.run(30)
    source.silent = (bench.ids[3],)
    await bench.run(60)
    # 450/s seen of three VMs with weights 1, 1 and 2: the fourth is taken to be like their mean.
    assert bench.rows()[-1].demand == pytest.approx(450.0 * 4 / 3)


@virtual
async def test_a_fleet_that_is_made_of_others_is_planned_anew_and_keeps_its_guards():
    bench = mixed(3, 0, stopped_large=3)
    bench.add(policy(signal={"kind": "utilisation"}, vm=WEIGHTS), Shared(bench, 240.0))
    await bench.run(90)
    # Three of weight 1 and three of weight 2 exist: 150/s in the mean, so two of them would do.
    assert bench.daemon.fleets.all[0].capacity_per_s == 150.0
    assert bench.rows()[-1].desired == 2


@virtual
async def test_without_weights_nothing_differs():
    bench = mixed(2, 2)
    bench.add(policy(signal={"kind": "throughput"}), Shared(bench, 360.0, busy=False))
    await bench.run(60)
    row = bench.rows()[-1]
    assert (row.demand, row.capacity, row.desired) == (360.0, 400.0, 4)
