"""After each start, a command runs before the VM serves: once, with its new address, and again if it failed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from autoscaler.balancers.hooks import CommandHook
from autoscaler.clock import VirtualClock
from autoscaler.cloud.world import World
from autoscaler.daemon.acts.arrival_command import AGAIN_S, Arrivals
from autoscaler.ports import VmState
from autoscaler.ports.hooks import HookResult
from autoscaler.providers.memory import MemoryProvider
from autoscaler.wiring import Wiring
from autoscaler.wiring_balancers import real_arrivals
from tests.daemon.builders import ORIGIN_S, Bench, SimulatedHook, policy, steady, virtual, vm
from tests.daemon.pools import TOTAL

WELL = HookResult(well=True)
ONE = steady((0, 0), (30, 100))


def arriving_bench(demand, *, answer=lambda _: WELL, took_s=12.0, running=1, vms=2, **changes):
    bench = Bench(vms=0, zones="a")
    bench.world.provision(ORIGIN_S, "web", running, state="running", public=True)
    bench.stopped = bench.world.provision(ORIGIN_S, "web", vms, public=True)
    bench.add(policy(signal=TOTAL, **changes), demand)
    bench.hook = SimulatedHook(bench.clock, took_s=took_s, answer=answer)
    (setup,) = bench.setups
    bench.setups = [replace(setup, arrivals=Arrivals(bench.hook, bench.clock))]
    return bench


def event_texts(bench, *kinds):
    return [text for _, kind, text in bench.events() if kind in kinds]


def runs(bench, vm_id=None):
    return [round(at_s - ORIGIN_S) for at_s, who in bench.hook.runs if vm_id in (None, who)]


def served_from(bench, count):
    return next(
        round(record.at_s - ORIGIN_S) for record in bench.records if record.fleets[0].in_service >= count
    )


@virtual
async def test_a_vm_serves_once_its_command_has_been_run_and_it_is_run_once_per_start():
    bench = arriving_bench(steady((0, 0), (30, 200), (100, 0), (200, 200)), running=0, vms=2)
    await bench.run(300)
    # Ordered at 30, ready at 49, seen at 50; the command takes 12 s, which the tick at 70 sees.
    first, second = bench.stopped
    assert runs(bench, first) == runs(bench, second) == [50, 220]
    assert served_from(bench, 2) == 70
    assert bench.column("in_service")[-1] == 2
    assert event_texts(bench, "arrival_failed", "arrival_not_run") == []


@virtual
async def test_it_is_told_the_address_that_the_vm_has_now():
    seen = []

    def answer(row):
        seen.append((row.id, row.public_address))
        return WELL

    bench = arriving_bench(steady((0, 0), (30, 100), (100, 0), (200, 100)), answer=answer, running=0, vms=1)
    await bench.run(300)
    (first, then) = seen
    assert first[0] == then[0]
    assert None not in {first[1], then[1]}
    assert first[1] != then[1]


@virtual
async def test_a_command_that_fails_is_told_of_and_tried_again_until_it_succeeds():
    answers = [
        HookResult(well=False, message="no route yet"),
        HookResult(well=False, message="no route yet"),
        WELL,
    ]
    bench = arriving_bench(ONE, answer=lambda _: answers.pop(0), took_s=1.0, running=0, vms=1)
    await bench.run(200)
    began = runs(bench)
    assert len(began) == 3
    assert all(AGAIN_S <= later - earlier <= AGAIN_S + 20 for earlier, later in pairwise(began))
    assert bench.column("in_service")[-1] == 1
    texts = event_texts(bench, "arrival_failed")
    assert len(texts) == 2
    assert all("no route yet" in text for text in texts)


@virtual
async def test_one_that_never_succeeds_never_serves_and_is_stopped_like_any_that_is_never_ready():
    bench = arriving_bench(
        ONE, answer=lambda _: HookResult(well=False, message="bad"), took_s=1.0, running=0, vms=1
    )
    await bench.run(400)
    assert max(bench.column("in_service")) == 0
    assert len(event_texts(bench, "never_ready")) == 1
    assert bench.world.views(bench.clock.now())[0].state == "stopped"


@virtual
async def test_a_command_that_cannot_be_run_is_told_of_and_the_vm_serves():
    bench = arriving_bench(
        ONE, answer=lambda _: HookResult(well=None, message="/x cannot be run"), running=0, vms=1
    )
    await bench.run(150)
    assert bench.column("in_service")[-1] == 1
    (text,) = event_texts(bench, "arrival_not_run")
    assert "/x cannot be run" in text


@virtual
async def test_a_restart_does_not_run_it_again_for_vms_that_were_started_long_before():
    bench = arriving_bench(100)
    await bench.clock.sleep_until(bench.clock.monotonic() + 1000)
    (setup,) = bench.setups
    bench.setups = [replace(setup, arrivals=Arrivals(bench.hook, bench.clock))]
    await bench.run(50)
    assert bench.hook.runs == []
    assert bench.column("in_service")[0] == 1


@virtual
async def test_what_is_known_of_vms_that_are_gone_is_forgotten_and_their_commands_ended():
    clock = VirtualClock(ORIGIN_S)
    hook = SimulatedHook(clock, took_s=100.0)
    arrivals = Arrivals(hook, clock)
    rows = [vm(f"i-{number}", VmState.RUNNING, launched=ORIGIN_S) for number in range(3)]
    assert arrivals.arrived(rows, frozenset({"i-0", "i-1"})) == frozenset()
    assert set(arrivals._runs) == {"i-0", "i-1"}
    task = arrivals._runs["i-1"].task
    assert arrivals.arrived(rows[:1], frozenset({"i-0"})) == frozenset()
    assert set(arrivals._runs) == {"i-0"}
    await clock.sleep_until(clock.monotonic() + 1)
    assert task.cancelled()
    await arrivals.close()


@virtual
async def test_a_fleet_gets_what_its_policy_names_and_keeps_it_while_that_stays():
    clock = VirtualClock(0.0)
    own = policy(readiness={"after_start": {"run": ["/opt/arrived"], "timeout": "9s"}})
    wiring = Wiring(
        MemoryProvider(World(), clock),
        clock,
        lambda _: SimulatedHook(clock),
        arrivals_of=real_arrivals(clock),
    )
    before = wiring.wire([own])
    (setup,) = before.setups
    assert isinstance(setup.arrivals.hook, CommandHook)
    assert setup.arrivals.hook.timeout_s == 9.0
    assert setup.arrivals in before.closables
    (same,) = wiring.wire(
        [own.model_copy(update={"prices": policy(prices={"start": 9}).prices})], before.setups
    ).setups
    assert same.arrivals is setup.arrivals
    (shadow,) = wiring.wire([own.model_copy(update={"act": False})], before.setups).setups
    assert shadow.arrivals is None
