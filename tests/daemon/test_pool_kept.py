"""VMs that people protect while they are made or exercised are not stopped, serve once they can, and hold nothing up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.daemon.vms.tracked import PROTECTED_TAG, Phase
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.ports import Verb
from autoscaler.ports.hooks import HookResult
from tests.daemon.builders import virtual
from tests.daemon.pools import chores, pool_bench, states
from tests.daemon.test_exercise_hooks import BALANCER, events_of, trial_bench

KEPT = {PROTECTED_TAG: "alice"}


def tag_at(bench, second, vm_id, tags):
    """Write tags on a VM as a person would; an empty value removes the protection."""

    def write():
        vm_ids = vm_id() if callable(vm_id) else [vm_id]
        bench.world.tag(bench.clock.now(), vm_ids, tags)

    asyncio.get_running_loop().call_later(second, write)


def release_at(bench, second, vm_id):
    def untag():
        (record,) = bench.world._lookup([vm_id])
        left = {key: value for key, value in record.view.tags.items() if key != PROTECTED_TAG}
        bench.world._vms._change(record, tags=left)

    asyncio.get_running_loop().call_later(second, untag)


@virtual
async def test_one_that_is_protected_while_it_is_tried_serves_once_it_is_found_well():
    bench = trial_bench(lambda _: HookResult(well=True), balancer=BALANCER)
    front = SimulatedBalancer(bench.clock)
    bench.setups = [replace(bench.setups[0], balancer=front)]
    (_, other) = bench.ids
    tag_at(bench, 3630, other, KEPT)
    await bench.run(4500)
    # Demand needs one VM, and the other one leaves.
    assert [a.intent.verb for a in bench.actions() if other in a.intent.vm_ids] == [Verb.EXERCISE]
    assert bench.daemon.fleets.by_name["web"].inventory.vms[other].phase is Phase.IN_SERVICE
    assert other not in front.cordoned
    assert [text.split(" is ")[0] for _, text in events_of(bench, "pool_kept")] == [other]
    # It was not ordered for demand, so the time of its exercise says nothing about starts.
    assert list(bench.daemon.fleets.by_name["web"].start_times_s) == []


@virtual
async def test_one_that_fails_runs_on_beside_while_it_is_protected_and_holds_up_no_other_trial():
    bench = trial_bench(lambda vm: HookResult(well=vm.id != bench.ids[1], message="disk is full"), vms=2)
    (_, bad, good) = bench.ids
    tag_at(bench, 3630, bad, KEPT)
    await bench.run(5000)
    assert states(bench) == {"running": 2, "stopped": 1}
    assert bench.column("in_service")[-1] == 1
    ((_, text),) = events_of(bench, "pool_kept")
    assert text.startswith(f"{bad} is protected")
    assert "disk is full" in text
    tried = [vm_id for a in bench.actions() if a.intent.verb is Verb.EXERCISE for vm_id in a.intent.vm_ids]
    assert tried == [bad, good]
    assert len(chores(bench, Verb.STORE)) == 1


@virtual
async def test_one_that_fails_is_stopped_once_its_protection_ends():
    bench = trial_bench(lambda _: HookResult(well=False, message="disk is full"))
    (_, bad) = bench.ids
    tag_at(bench, 3630, bad, KEPT)
    release_at(bench, 4000, bad)
    await bench.run(4100)
    assert [(s, verb) for s, verb, *_ in chores(bench)] == [(3600, "exercise"), (4000, "stop")]


@pytest.mark.parametrize("ready", [True, False])
def test_one_that_is_protected_while_it_is_made_is_neither_stored_nor_deleted_and_another_is_made(ready):
    @virtual
    async def lives():
        bench = pool_bench(100, running=1, warm_pool={"minimum": 1}, refill={"timeout": "5m"}, readiness={})
        if not ready:
            checked = bench.provider.checked

            async def only_first(ids):
                return await checked([i for i in ids if i in bench.ids])

            bench.provider.checked = only_first
        made = []

        def fresh():
            made.extend(t for t in bench.daemon.fleets.by_name["web"].inventory.in_phase(Phase.PREPARING))
            return [t.vm.id for t in made]

        tag_at(bench, 75, fresh, KEPT)
        await bench.run(900)
        (kept,) = {t.vm.id for t in made}
        inventory = bench.daemon.fleets.by_name["web"].inventory
        assert inventory.vms[kept].phase is (Phase.IN_SERVICE if ready else Phase.PREPARING)
        assert not [a for a in bench.actions() if kept in a.intent.vm_ids]
        ((_, text),) = events_of(bench, "pool_kept")
        assert text.startswith(f"{kept} is protected")
        assert len(chores(bench, Verb.REFILL)) >= 2

    lives()


@virtual
async def test_one_that_was_protected_already_when_it_was_tried_goes_back_into_the_pool():
    bench = trial_bench(lambda _: HookResult(well=True))
    (_, other) = bench.ids
    bench.world.tag(bench.clock.now(), [other], KEPT)
    await bench.run(4500)
    assert [verb for _, verb, *_ in chores(bench)] == ["exercise", "store"]
    assert states(bench) == {"running": 1, "stopped": 1}
    assert events_of(bench, "pool_kept") == []


@virtual
async def test_one_that_is_given_up_while_it_is_tried_stays_as_it_is():
    bench = trial_bench(lambda _: HookResult(well=True), took_s=8.0)
    (_, other) = bench.ids

    async def give_up():
        await bench.clock.sleep_until(3625)
        await PoolCommands(bench.daemon).disown(PoolCommand("web", (other,), "alice", "hers"))

    giving_up = asyncio.ensure_future(give_up())
    await bench.run(4500)
    await giving_up
    assert [verb for _, verb, *_ in chores(bench)] == ["exercise"]
    assert states(bench) == {"running": 2}
    assert events_of(bench, "pool_kept") == []


@virtual
async def test_demand_that_is_served_by_one_that_was_tried_teaches_no_start_time():
    bench = trial_bench(took_s=300.0, demand=lambda second: 100 if second < 3700 else 200)
    await bench.run(4000)
    assert bench.column("in_service")[-1] == 2
    assert list(bench.daemon.fleets.by_name["web"].start_times_s) == []


@virtual
async def test_what_operators_asked_for_outlives_a_clock_that_is_set_back():
    bench = trial_bench()
    await bench.run(10)
    warm_pools = bench.daemon.warm_pools
    warm_pools.by_name["web"].asked.evict.add(bench.ids[1])
    warm_pools.govern(bench.daemon.fleets.by_name, anew=True)
    assert warm_pools.by_name["web"].asked.evict == {bench.ids[1]}


@virtual
async def test_one_whose_hook_takes_long_is_not_said_to_be_late():
    bench = trial_bench(lambda _: HookResult(well=True), took_s=2400.0)
    tag_at(bench, 3630, bench.ids[1], KEPT)
    await bench.run(6200)
    ((_, text),) = events_of(bench, "pool_kept")
    assert "and ready: it serves" in text
