"""Exercise hooks: run beside the loop once a VM is ready. VMs that fail are set aside; those that could not be tested are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.balancers.hooks import CommandHook
from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import VirtualClock
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.world import World
from autoscaler.config.vms import BoundsSection
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.vms.pool_tags import EXERCISED_AT_TAG, QUARANTINED_TAG
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.ports import Verb
from autoscaler.ports.hooks import HookResult
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.ssm import SsmHook
from autoscaler.providers.memory import MemoryProvider
from autoscaler.wiring import Wiring
from autoscaler.wiring_balancers import real_hook
from tests.control.builders import STOP, Commands, asked
from tests.daemon.builders import ORIGIN_S, OwnTime, SimulatedHook, steady, virtual
from tests.daemon.pools import chores, pool_bench, pool_policy, states
from tests.daemon.test_loop_time import SetClock

BOUNDS = BoundsSection(minimum=0, maximum=9)


def trial_bench(answer=None, *, took_s=45.0, vms=1, demand=100, **changes):
    """A bench in which one VM serves, and others wait stopped and are exercised once an hour."""
    bench = pool_bench(
        demand,
        running=1,
        vms=vms,
        **{
            "refill": "off",
            "provision": "off",
            "warm_pool": {"minimum": 0},
            "freshness": {"exercise": {"every": "1h"}},
            **changes,
        },
    )
    bench.hook = SimulatedHook(bench.clock, took_s=took_s, answer=answer)
    (setup,) = bench.setups
    bench.setups = [replace(setup, hook=bench.hook)]
    assert isinstance(bench.setups[0], FleetSetup)
    return bench


def events_of(bench, *kinds):
    return [(kind, text) for _, kind, text in bench.events() if kind in kinds]


def tags(bench, vm_id):
    return next(vm.tags for vm in bench.world.page(bench.clock.now()).vms if vm.id == vm_id)


@virtual
async def test_it_runs_once_the_vm_is_ready_and_the_vm_goes_back_into_the_pool():
    bench = trial_bench(lambda _: HookResult(well=True, message="3 packages"))
    (_, other) = bench.ids
    await bench.run(4500)
    began = [s for s, verb, *_ in chores(bench, Verb.EXERCISE)]
    ((at_s, vm_id),) = [(at - bench.daemon.began_at_s, i) for at, i in bench.hook.runs]
    assert (began, vm_id) == ([3600], other)
    assert at_s == 3620  # it runs after 16 s and is ready after 19
    ((store_s, *_),) = chores(bench, Verb.STORE)
    assert store_s == 3670  # 45 s later it has ended, which the next tick sees
    ((_, text),) = events_of(bench, "pool_ready")
    assert "it said: 3 packages" in text
    assert EXERCISED_AT_TAG in tags(bench, other)
    assert QUARANTINED_TAG not in tags(bench, other)


@virtual
async def test_a_vm_that_fails_is_stopped_and_kept_from_starting_over_a_restart_until_released():
    def answer(_):
        return HookResult(well=False, message="code 3: disk is full")

    bench = trial_bench(answer, demand=lambda second: 100 if second < 4000 else 300)
    (_, other) = bench.ids
    await bench.run(4300)
    assert states(bench) == {"running": 1, "stopped": 1}
    assert chores(bench, Verb.STORE) == []
    ((_, text),) = events_of(bench, "exercise_failed")
    assert "code 3: disk is full" in text
    assert f"autoscaler pool release web {other}" in text
    assert tags(bench, other)[QUARANTINED_TAG] == "its exercise: code 3: disk is full"
    await bench.run(200)  # a daemon that remembers nothing
    assert states(bench) == {"running": 1, "stopped": 1}
    (row,) = [r for r in PoolCommands(bench.daemon).shown("web") if r["vm"] == other]
    assert row["quarantine"] == "quarantined by its exercise: code 3: disk is full"
    await PoolCommands(bench.daemon).release(PoolCommand("web", (other,), "alice", "cleaned"))
    await bench.run(200)
    assert states(bench)["running"] == 2


@virtual
async def test_a_hook_that_cannot_be_run_is_told_of_and_blames_no_vm():
    bench = trial_bench(lambda _: HookResult(well=None, message="/opt/patch cannot be run: no such file"))
    await bench.run(4500)
    assert len(chores(bench, Verb.STORE)) == 1
    ((_, text),) = events_of(bench, "exercise_not_run")
    assert "no such file" in text
    assert events_of(bench, "exercise_failed") == []


@virtual
async def test_a_hook_that_breaks_its_word_is_told_of_and_blames_no_vm():
    def answer(_):
        raise KeyError("oops")

    bench = trial_bench(answer)
    await bench.run(4500)
    assert len(chores(bench, Verb.STORE)) == 1
    ((_, text),) = events_of(bench, "exercise_not_run")
    assert "KeyError" in text


@virtual
async def test_demand_does_not_wait_for_a_hook():
    bench = trial_bench(took_s=600.0, vms=2, demand=lambda second: 100 if second < 3700 else 200)
    await bench.run(4000)
    assert len(bench.hook.runs) == 1
    # The other one was started at once.
    assert [s for s, _, vms, _ in bench.calls("StartInstances")] == [3600, 3700]
    assert bench.column("in_service")[-1] == 2


@virtual
async def test_a_long_hook_is_not_cut_short_by_the_time_of_preparing():
    bench = trial_bench(took_s=2400.0)
    await bench.run(6400)
    ((store_s, *_),) = chores(bench, Verb.STORE)
    assert store_s >= 3600 + 2400
    assert events_of(bench, "exercise_failed", "exercise_not_run") == []


@virtual
async def test_where_the_tag_cannot_be_written_that_is_said():
    bench = trial_bench(lambda _: HookResult(well=False, message="bad"))
    bench.world.add_fault(Fault(FaultKind.API_ERROR, actions=("CreateTags",), code="UnauthorizedOperation"))
    await bench.run(4500)
    ((_, text),) = events_of(bench, "exercise_failed")
    assert "a restart forgets it: UnauthorizedOperation" in text
    assert bench.daemon.fleets.by_name["web"].inventory.startable(bench.clock.now()) == []


@virtual
async def test_vms_made_for_the_pool_are_not_tried():
    bench = trial_bench(
        provision={"launch_template": "web", "maximum": 4},
        refill={"calm": "60s"},
        warm_pool={"minimum": 2},
        freshness={"exercise": {"every": "59d"}},
    )
    await bench.run(600)
    assert states(bench) == {"running": 1, "stopped": 2}
    assert bench.hook.runs == []


def test_a_fleet_gets_what_its_policy_names_and_keeps_it_while_that_stays(tmp_path):
    clock = VirtualClock(0.0)
    bench_policy = pool_policy(
        freshness={"exercise": {"command": {"run": [str(tmp_path / "patch")], "timeout": "9s"}}}
    )
    wiring = Wiring(
        MemoryProvider(World(), clock),
        clock,
        lambda _: SimulatedHook(clock),
        None,
        real_hook(clock, lambda _: None),
    )
    before = wiring.wire([bench_policy])
    (setup,) = before.setups
    assert isinstance(setup.hook, CommandHook)
    assert setup.hook.timeout_s == 9.0
    assert setup.hook in before.closables
    (same,) = wiring.wire([bench_policy.model_copy(update={"bounds": BOUNDS})], before.setups).setups
    assert same.hook is setup.hook
    other = pool_policy(freshness={"exercise": {"every": "7d"}})
    after = wiring.wire([other], before.setups)
    assert setup.hook in after.retired
    # Hooks do not run on the VMs of a fleet that does not act.
    (shadow,) = wiring.wire([bench_policy.model_copy(update={"act": False})], before.setups).setups
    assert shadow.hook is None


def test_systems_manager_is_asked_where_the_policy_says_so():
    settings = Ec2Settings("eu-central-1", access_key_id="a", secret_access_key="b")
    own = pool_policy(
        freshness={"exercise": {"ssm": {"parameters": [{"name": "commands", "values": ["true"]}]}}}
    )
    hook = real_hook(VirtualClock(0.0), lambda _: settings)(own)
    assert isinstance(hook, SsmHook)
    assert hook.timeout_s == 600.0


@pytest.mark.parametrize("code", ["TagLimitExceeded", "UnauthorizedOperation"])
def test_one_that_was_tried_goes_back_into_the_pool_though_it_cannot_be_marked(code):
    @virtual
    async def lives():
        bench = trial_bench(lambda _: HookResult(well=True))
        bench.world.add_fault(Fault(FaultKind.API_ERROR, actions=("CreateTags",), code=code))
        await bench.run(7000)
        assert [(s, verb) for s, verb, *_ in chores(bench)] == [(3600, "exercise"), (3670, "store")]
        assert states(bench) == {"running": 1, "stopped": 1}

    lives()


@virtual
async def test_one_that_is_ready_to_go_back_serves_and_none_is_made_in_its_place():
    bench = trial_bench(
        demand=steady((0, 100), (3690, 200)), provision={"launch_template": "web", "maximum": 9}
    )
    # A VM that is ready is not stopped into the pool in the meantime.
    Commands(bench).at(3640, "pause", asked(until_s=9000), STOP)
    await bench.run(3900)
    assert bench.column("in_service")[-1] == 2
    assert [a.intent.verb for a in bench.actions()] == [Verb.EXERCISE]
    assert states(bench) == {"running": 2}


BALANCER = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}


@virtual
async def test_one_that_is_tried_gets_no_work_from_the_balancer_meanwhile():
    bench = trial_bench(lambda _: HookResult(well=True), balancer=BALANCER)
    front = SimulatedBalancer(bench.clock)
    bench.setups = [replace(bench.setups[0], balancer=front)]
    (_, other) = bench.ids
    await bench.run(3640)
    assert [s for s, verb, *_ in chores(bench)] == [3600]
    # It was stopped by others, and its entry gives it work as soon as it answers.
    assert set(front.cordoned) == {other}


@pytest.mark.parametrize("silent", [False, True])
def test_one_that_would_get_work_all_the_same_or_may_is_not_tried(silent):
    @virtual
    async def lives():
        bench = trial_bench(lambda _: HookResult(well=True), balancer=BALANCER)
        front = SimulatedBalancer(bench.clock)
        if silent:
            front.failures["cordon"] = "the program ended with code 3"
        else:
            front.cordon = front.look
        bench.setups = [replace(bench.setups[0], balancer=front)]
        await bench.run(5000)
        # This is checked every ten minutes, not every tick.
        assert [s for s, verb, *_ in chores(bench)] == [3600, 4200, 4800]
        assert bench.calls("StartInstances") == []
        assert states(bench) == {"running": 1, "stopped": 1}
        # It is not at fault, so demand may start it.
        assert len(bench.daemon.fleets.by_name["web"].inventory.startable(bench.clock.now())) == 1

    lives()


@virtual
async def test_a_clock_that_is_set_back_gives_no_work_to_one_that_is_tried_and_runs_no_hook_twice():
    truth = VirtualClock(ORIGIN_S)
    bench = trial_bench(lambda _: HookResult(well=True), took_s=400.0, demand=steady((0, 100), (3150, 200)))
    bench.clock = SetClock((0, 600), (3105, 0))
    bench.provider._clock = truth
    (setup,) = bench.setups
    setup.source.clock = truth
    bench.hook._clock = truth
    read = setup.source.read

    async def as_of_now(vms):
        found = await read(vms)
        return replace(found, observed_at_s=np.full(len(found.vm_ids), bench.clock.now()))

    setup.source.read = as_of_now
    bench.setups = [replace(setup, provider=OwnTime(bench.provider, bench.clock))]
    await bench.run(3300)
    assert bench.log.events().count("clock_set_back") == 1
    assert max(bench.column("in_service")) == 1
    assert len(bench.hook.runs) == 1
    assert events_of(bench, "exercise_resumed")
