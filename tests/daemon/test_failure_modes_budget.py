"""A pool and a burst in the same API budget, of two fleets: demand goes first."""

import pytest

from autoscaler.cloud.vms import LaunchData
from autoscaler.daemon.vms.pool_tags import POOL_TAG
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.memory import MemoryProvider
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import pool_policy

BURSTS, POOLS = 6, 6
TOTAL = {"kind": "total"}


class Noting(MemoryProvider):
    """The in-process provider, which notes the purpose of new VMs in the order of the calls."""

    def __init__(self, world, clock):
        super().__init__(world, clock)
        self._now_s = clock.now
        self.made = []

    async def provision(self, spec, count, token):
        what = "pool" if POOL_TAG in spec.tags else "demand"
        self.made.append((round(self._now_s() - ORIGIN_S, 1), what, spec.fleet))
        return await super().provision(spec, count, token)


@pytest.mark.parametrize("pools_first", [False, True])
def test_no_vm_is_made_for_a_pool_before_those_that_a_burst_needs(pools_first):
    @virtual
    async def run():
        bench = Bench(vms=0, zones="a")
        noting = Noting(bench.world, bench.clock)
        bench.provider = BudgetedProvider(noting, CallBudget(bench.clock), bench.clock, seed=1)
        template = LaunchData(image="ami-0000000a", vm_type="m7i.large")
        bursts = [f"burst-{number}" for number in range(BURSTS)]
        pools = [f"pool-{number}" for number in range(POOLS)]
        for fleet in (*bursts, *pools):
            bench.world.templates.create(bench.world.new_id("lt"), fleet, template, ORIGIN_S)
        for fleet in (*pools, *bursts) if pools_first else (*bursts, *pools):
            section = {"launch_template": fleet, "maximum": 4}
            if fleet in bursts:
                bench.add(policy(fleet, signal=TOTAL, provision=section), steady((0, 0), (60, 200)))
            else:
                # Calm since the beginning, so that all of them are filled at 60.
                own = pool_policy(fleet=fleet, provision=section)
                bench.add(own, 0)
        await bench.run(120)
        at_60 = [what for at, what, _ in noting.made if 60 <= at < 70]
        assert at_60.count("demand") == BURSTS
        assert at_60[:BURSTS] == ["demand"] * BURSTS
        # The pools are filled, too, with the rest of the budget.
        assert [what for _, what, _ in noting.made].count("pool") >= POOLS
        assert [call for call in bench.world.api.calls if call.code] == []

    run()
