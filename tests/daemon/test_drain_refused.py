"""A change that a balancer refuses is requested again later, other VMs first, and reported once until its message changes."""

import asyncio
from dataclasses import replace

from autoscaler.daemon.vms.tracked import PROTECTED_TAG
from autoscaler.ports import Member, Rotation, Verb
from tests.daemon.builders import steady, virtual
from tests.daemon.test_drain import bench_of, verbs


@virtual
async def test_a_balancer_that_lets_no_vm_go_is_asked_for_one_a_minute_and_it_is_told_once():
    bench = bench_of(steady((0, 400), (20, 200)))
    bench.balancer.failures["cordon"] = "the socket is gone"
    asyncio.get_running_loop().call_later(
        145, lambda: bench.balancer.failures.update(cordon="permission denied")
    )
    asyncio.get_running_loop().call_later(205, bench.balancer.failures.clear)
    await bench.run(280)
    # Two are tried first, then the two others, then the first two again.
    assert verbs(bench) == [
        (20, Verb.DRAIN, 2),
        (80, Verb.DRAIN, 2),
        (140, Verb.DRAIN, 2),
        (200, Verb.DRAIN, 2),
        (260, Verb.DRAIN, 2),
        (280, Verb.STOP, 2),
    ]
    asked = [a.intent.vm_ids for a in bench.actions()]
    assert set(asked[0]) | set(asked[1]) == set(bench.ids)
    told = [(at, text.partition(": ")[2]) for at, kind, text in bench.events() if kind == "drain_failed"]
    assert told == [(20, "the socket is gone"), (200, "permission denied")]
    assert bench.rows()[4].sentence.startswith("no VM leaves for a minute, since the load balancer did not")


@virtual
async def test_one_vm_that_cannot_be_cordoned_holds_up_no_other():
    bench = bench_of(steady((0, 400), (20, 300)))
    bad, cordon = min(bench.ids), bench.balancer.cordon

    async def all_but_one(vms):
        view = await cordon([vm for vm in vms if vm.id != bad])
        return replace(view, members={**view.members, bad: Member(Rotation.IN, 1.0, "its entry is odd")})

    bench.balancer.cordon = all_but_one
    await bench.run(120)
    assert [(at, verb) for at, verb, _ in verbs(bench)] == [
        (20, Verb.DRAIN),
        (80, Verb.DRAIN),
        (100, Verb.STOP),
    ]
    assert [a.intent.vm_ids[0] == bad for a in bench.actions()] == [True, False, False]


@virtual
async def test_a_balancer_that_never_takes_back_is_told_of_once():
    bench = bench_of(steady((0, 400), (20, 200), (30, 400)), busy_s=1000)
    loop = asyncio.get_running_loop()
    loop.call_later(22, lambda: bench.balancer.failures.update(admit="the socket is gone"))
    await bench.run(300)
    assert len([verb for _, verb, _ in verbs(bench) if verb is Verb.RETURN]) == 5
    told = [(at, text) for at, kind, text in bench.events() if kind == "return_failed"]
    assert [at for at, _ in told] == [30]


@virtual
async def test_a_cordon_that_does_not_last_is_told_of_once():
    bench = bench_of(steady((0, 400), (20, 200)), drain={"timeout": "5m"})
    loop = asyncio.get_running_loop()
    for second in range(25, 300, 10):
        loop.call_later(second, bench.balancer._cordoned_at_s.clear)
    await bench.run(250)
    undone = [text.split()[0] for _, kind, text in bench.events() if kind == "drain_undone"]
    assert len(undone) == len(set(undone)) == 2


@virtual
async def test_a_protected_vm_that_the_balancer_does_not_take_back_is_asked_for_once_a_minute():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=1000, drain={"timeout": "30m"})

    def protect():
        bench.balancer.failures.update(admit="the socket is gone")
        bench.world.tag(bench.clock.now(), sorted(bench.balancer.cordoned), {PROTECTED_TAG: "alice"})

    asyncio.get_running_loop().call_later(45, protect)
    await bench.run(200)
    assert [(at, verb) for at, verb, _ in verbs(bench)][1:] == [(at, Verb.RETURN) for at in (50, 110, 170)]
    assert "StopInstances" not in [action for _, action, *_ in bench.changes()]
