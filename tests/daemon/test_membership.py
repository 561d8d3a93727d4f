"""A balancer without any of a fleet's VMs: absence does not count as drained, it is reported, and the doubt ends."""

import asyncio

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.cli.status import status_lines
from autoscaler.ports import Verb
from autoscaler.web.status import status
from tests.daemon.builders import steady, virtual
from tests.daemon.test_drain import bench_of, put, verbs

KINDS = ("balancer_lacks_vms", "balancer_has_vms", "balancer_believed")


def other_at(bench, second, demand, lacks):
    """Change the policy at this second to another balancer, which does not have these VMs."""
    other = SimulatedBalancer(bench.clock)
    other.lacks = set(lacks)

    async def change():
        bench.balancer = other
        put(bench, demand)
        await bench.daemon.take_over(bench.setups)

    asyncio.get_running_loop().call_later(second, lambda: asyncio.ensure_future(change()))
    return other


def events_of_kinds(bench):
    return [(round(at), kind) for at, kind, _ in bench.events() if kind in KINDS]


@virtual
async def test_another_balancer_that_has_none_of_the_vms_stops_none_and_it_is_told_once():
    demand = steady((0, 400), (30, 200), (200, 500), (300, 200))
    bench = bench_of(demand, vms=2)
    other = other_at(bench, 15, demand, bench.ids[:4])
    await bench.run(290)
    assert verbs(bench) == [(200, Verb.START, 1)]
    assert bench.column("in_service")[-1] == 5
    assert events_of_kinds(bench) == [(20, "balancer_lacks_vms")]
    (text,) = {text for _, kind, text in bench.events() if kind == "balancer_lacks_vms"}
    assert text.startswith("the load balancer has 0 of the 4 VMs in service; check `balancer` in the policy")
    shown = status_lines(status(bench.daemon))["web load balancer"][1]
    assert "the load balancer has 1 of the 5 VMs in service" in shown
    assert bench.rows()[5].sentence.startswith("no VM leaves, since the load balancer has too few of them: ")
    assert other.lacks == set(bench.ids[:4])


@virtual
async def test_vms_leave_as_usual_once_they_are_entered_there_and_are_admitted():
    demand = steady((0, 400), (30, 200))
    bench = bench_of(demand)
    other = other_at(bench, 15, demand, bench.ids)

    def entered():
        other.lacks.clear()
        # Like an entry that is configured with `disabled`.
        other._cordoned_at_s = dict.fromkeys(bench.ids, bench.clock.now())

    asyncio.get_running_loop().call_later(101, entered)
    await bench.run(240)
    assert events_of_kinds(bench) == [(20, "balancer_lacks_vms"), (140, "balancer_has_vms")]
    assert verbs(bench) == [(140, Verb.DRAIN, 2), (160, Verb.STOP, 2)]
    # The VMs in service have been admitted.
    assert len(other.cordoned) == 2


@virtual
async def test_another_balancer_that_has_them_admits_them_at_once():
    demand = steady((0, 400))
    bench = bench_of(demand)
    other = other_at(bench, 15, demand, ())
    other._cordoned_at_s = dict.fromkeys(bench.ids, bench.clock.now())
    await bench.run(30)
    assert other.cordoned == {}
    assert events_of_kinds(bench) == []


@virtual
async def test_after_an_hour_it_is_believed_so_that_nothing_stays_for_ever():
    demand = steady((0, 400), (30, 200))
    bench = bench_of(demand)
    other_at(bench, 15, demand, bench.ids)
    await bench.run(3800)
    assert [kind for _, kind in events_of_kinds(bench)] == ["balancer_lacks_vms", "balancer_believed"]
    (believed,) = [at for at, kind in events_of_kinds(bench) if kind == "balancer_believed"]
    assert 3600 <= believed <= 3700
    assert [verb for _, verb, _ in verbs(bench)] == [Verb.DRAIN, Verb.STOP]
    assert bench.column("in_service")[-1] == 2


@virtual
async def test_entries_that_vanish_all_at_once_are_noticed_when_a_vm_leaves():
    demand = steady((0, 400), (30, 200))
    bench = bench_of(demand)
    asyncio.get_running_loop().call_later(15, lambda: bench.balancer.lacks.update(bench.ids))
    await bench.run(200)
    assert verbs(bench) == [(30, Verb.DRAIN, 2)]
    assert events_of_kinds(bench) == [(40, "balancer_lacks_vms")]
    assert bench.column("in_service")[-1] == 4
    assert bench.changes() == []


@virtual
async def test_a_vm_that_an_operator_took_out_leaves_at_once():
    demand = steady((0, 400), (30, 300))
    bench = bench_of(demand)
    asyncio.get_running_loop().call_later(15, lambda: bench.balancer.lacks.add(min(bench.ids)))
    await bench.run(100)
    (drain, stop) = bench.actions()
    assert drain.intent.vm_ids == stop.intent.vm_ids == (min(bench.ids),)
    assert verbs(bench) == [(30, Verb.DRAIN, 1), (50, Verb.STOP, 1)]
    assert events_of_kinds(bench) == []


@virtual
async def test_the_last_one_leaves_where_the_balancer_had_it():
    demand = steady((0, 100), (30, 0))
    bench = bench_of(demand, running=1)
    asyncio.get_running_loop().call_later(15, lambda: bench.balancer.lacks.update(bench.ids))
    await bench.run(100)
    assert [verb for _, verb, _ in verbs(bench)] == [Verb.DRAIN, Verb.STOP]


@virtual
async def test_the_last_one_stays_where_the_balancer_never_had_it():
    demand = steady((0, 100), (30, 0))
    bench = bench_of(demand, running=1)
    other_at(bench, 15, demand, bench.ids)
    await bench.run(100)
    assert verbs(bench) == []
    assert events_of_kinds(bench) == [(20, "balancer_lacks_vms")]


@virtual
async def test_what_was_draining_is_cordoned_by_another_balancer_too():
    demand = steady((0, 400), (20, 200))
    bench = bench_of(demand, busy_s=1000)
    other = other_at(bench, 35, demand, ())
    await bench.run(100)
    assert verbs(bench) == [(20, Verb.DRAIN, 2), (60, Verb.STOP, 2)]
    assert len(other.cordoned) == 2


@virtual
async def test_a_balancer_that_cannot_be_asked_about_the_others_has_not_said_that_a_vm_is_drained():
    demand = steady((0, 400), (30, 300))
    bench = bench_of(demand)

    def trouble():
        bench.balancer.lacks.add(min(bench.ids))
        bench.balancer.failures["look"] = "the socket is gone"

    asyncio.get_running_loop().call_later(15, trouble)
    await bench.run(60)
    assert bench.column("in_service")[-1] == 4
    assert bench.changes() == []
    assert events_of_kinds(bench) == []
