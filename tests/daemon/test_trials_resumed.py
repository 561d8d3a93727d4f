"""A restart during an exercise: the VM does not serve before it has been found healthy."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.daemon.vms.pool_tags import EXERCISED_AT_TAG
from autoscaler.ports import Verb
from autoscaler.ports.hooks import HookResult
from tests.daemon.builders import ORIGIN_S, virtual
from tests.daemon.pools import chores, pool_bench


class Patching:
    """A slow hook."""

    timeout_s = 900.0

    def __init__(self, clock, *, well):
        self.clock, self.well = clock, well

    async def run(self, vm):
        await self.clock.sleep_until(self.clock.monotonic() + 300.0)
        return HookResult(well=self.well, message="as told")

    async def close(self):
        pass


def trying(*, well=True, hook=True):
    """A bench with three stopped VMs, the last of which is exercised from 120 on."""
    bench = pool_bench(100, running=1, vms=3, warm_pool={"minimum": 1}, refill=None, provision=None)
    if hook:
        bench.setups = [replace(bench.setups[0], hook=Patching(bench.clock, well=well))]
    tried = bench.ids[-1]
    asyncio.get_running_loop().call_later(
        65, lambda: bench.daemon.warm_pools.by_name["web"].asked.exercise.add(tried)
    )
    return bench, tried


def kinds(bench):
    return [kind for _, kind, _ in bench.events()]


@pytest.mark.parametrize("at_s", [121, 135, 200])
@pytest.mark.parametrize("well", [True, False])
def test_it_is_tried_on_and_gets_no_work_meanwhile(at_s, well):
    @virtual
    async def live():
        bench, tried = trying(well=well)
        await bench.run(at_s)
        assert [(at, verb) for at, verb, *_ in chores(bench)] == [(120, "exercise")]
        bench.records.clear()
        await bench.run(700)
        assert set(bench.column("in_service")) == {1}
        assert kinds(bench).count("exercise_resumed") == 1
        assert "started_outside" not in kinds(bench)
        (end,) = [a for a in bench.actions() if a.intent.verb in (Verb.STORE, Verb.STOP)]
        assert (end.intent.verb, end.intent.vm_ids) == (Verb.STORE if well else Verb.STOP, (tried,))
        assert kinds(bench).count("exercise_failed") == (not well)

    live()


@virtual
async def test_one_that_was_found_well_and_serves_since_serves_on():
    bench, tried = trying(hook=False)
    # Ready at 140, when all four are wanted.
    bench.setups[0].source.demand = lambda second: 400 if second >= 125 else 100
    await bench.run(300)
    assert bench.column("in_service")[-1] == 4
    (vm,) = [each for each in bench.world.page(bench.clock.now()).vms if each.id == tried]
    assert float(vm.tags[EXERCISED_AT_TAG]) >= ORIGIN_S + 120
    bench.records.clear()
    await bench.run(300)
    assert bench.column("in_service")[2:] == [4] * 29
    assert "exercise_resumed" not in kinds(bench)
    assert {verb for _, verb, *_ in chores(bench)} == {"exercise", "start"}
