"""The API budget that fleets share: demand goes before the pool, and the budget does not lie idle while VMs are wanted."""

from dataclasses import replace
from itertools import pairwise

import pytest

from autoscaler.cloud.buckets import PUBLISHED, Limit
from autoscaler.cloud.faults import Fault, FaultKind
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


SLOW_ONCE = Fault(FaultKind.LATENCY, actions=("DescribeInstances",), delay_s=4, start_s=55, end_s=65)


@pytest.mark.parametrize(
    ("tick_s", "faults", "turns"),
    [(10.0, (SLOW_ONCE,), 1), (30.0, (), 1), (60.0, (), 1), (10.0, (), 0)],
    ids=["a listing was slow", "ticks of 30 s", "ticks of 60 s", "ticks of 10 s"],
)
def test_vms_that_waited_for_the_budget_in_vain_are_asked_for_again_before_the_next_tick(
    tick_s, faults, turns
):
    """A call that waits past a decision is counted on by it; the budget must not lie idle until the one after that."""

    @virtual
    async def run():
        bench = Bench(vms=0, zones="a", limits=None, faults=faults, tick_s=tick_s)
        limits = replace(PUBLISHED, requests={**PUBLISHED.requests, "RunInstances": Limit(2, 0.5)})
        budget = CallBudget(bench.clock, limits)
        bench.provider = BudgetedProvider(bench.provider, budget, bench.clock, seed=1)
        for fleet in (f"fleet-{number}" for number in range(8)):
            bench.place(fleet, 0)
            section = {"launch_template": fleet, "maximum": 4}
            bench.add(policy(fleet, signal=TOTAL, provision=section), steady((0, 0), (60, 200)))
        await bench.run(150)
        made = [at for at, _, vms, _ in bench.calls("RunInstances") if vms == 2]
        assert len(made) == len(bench.calls("RunInstances")) == 8
        assert max(later - at for at, later in pairwise(made)) <= 2.2
        early = bench.telemetry.early_turns.labels("retry")._value.get()
        assert early == turns

    run()


@pytest.mark.parametrize("tick_s", [10.0, 60.0])
def test_vms_that_start_as_another_type_do_not_wait_for_the_last_one_to_be_changed(tick_s):
    """Types are changed one VM per call, 9 at once and 1.9 a second here: 48 VMs take 20 s."""

    @virtual
    async def run():
        dry = Fault(FaultKind.NO_CAPACITY, vm_type="m7i.large")
        bench = Bench(vms=48, zones="a", limits=None, faults=(dry,), tick_s=tick_s)
        budget = CallBudget(bench.clock, replace(PUBLISHED, other_changes=Limit(10, 2)))
        bench.provider = BudgetedProvider(bench.provider, budget, bench.clock, seed=1)
        types = {"types": ["m7i.large", "m6i.large"]}
        bench.add(policy(signal=TOTAL, bounds={"maximum": 60}, vm=types), steady((0, 0), (60, 4800)))
        await bench.run(130)
        started = [(at, vms) for at, _, vms, code in bench.calls("StartInstances") if not code]
        assert sum(vms for at, vms in started if at < 63) >= 9
        assert sum(vms for at, vms in started if at < 73) >= 24
        assert sum(vms for at, vms in started if at < 84) == 48
        # The own types are saved with one call for all, once for each time that the rest is requested.
        assert next(vms for _, _, vms, _ in bench.calls("CreateTags")) == 48
        assert len(bench.calls("CreateTags")) <= 3
        assert len(bench.calls("ModifyInstanceAttribute")) == 48

    run()
