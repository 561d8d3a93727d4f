"""Changes by people and other owners are left alone for a while; VMs of an Auto Scaling group always are."""

from autoscaler.cloud.vms import State
from autoscaler.ports import Verb
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import TOTAL, chores, pool_bench


def by_hand(bench, demand, at_s, act):
    """A demand that changes the world at some second of the run."""
    done = []

    def at(second):
        if second >= at_s and not done:
            done.append(second)
            act(bench.clock.now())
        return demand(second) if callable(demand) else demand

    return at


@virtual
async def test_a_vm_that_a_person_started_serves_and_is_not_stopped_within_the_time():
    bench = Bench(vms=1, zones="a")
    (mine,) = bench.ids
    # The other VM may not be stopped instead.
    bench.world.provision(ORIGIN_S, "web", 1, tags={"autoscaler:protected": "true"}, state=State.RUNNING)
    bench.add(
        policy(signal=TOTAL, guards={"hands_off": "5m"}),
        by_hand(bench, 100, 30, lambda now_s: bench.world.start(now_s, [mine])),
    )
    await bench.run(600)
    (told,) = [text for _, kind, text in bench.events() if kind == "started_outside"]
    assert told == f"{mine} was started by somebody else; it is not stopped within 300 s"
    stops = [(at, vms) for at, action, vms, _ in bench.changes() if action == "StopInstances" and at > 30]
    # Seen at 40; one corrective action, after it.
    assert stops == [(340, 1)]


@virtual
async def test_a_vm_that_a_person_stopped_is_not_started_within_the_time_and_others_are():
    bench = Bench(running=2, vms=1, zones="a")
    mine, other = bench.ids[0], bench.ids[2]
    bench.add(
        policy(signal=TOTAL, guards={"hands_off": "5m"}),
        by_hand(bench, steady((0, 200), (100, 300)), 30, lambda now_s: bench.world.stop(now_s, [mine])),
    )
    await bench.run(600)
    started = [
        (round(a.at_s - ORIGIN_S), a.intent.vm_ids) for a in bench.actions() if a.intent.verb is Verb.START
    ]
    assert started[0][1] == (other,)
    assert [ids for at, ids in started if at < 340] == [(other,)]
    assert mine in {vm_id for at, ids in started if at >= 340 for vm_id in ids}
    (told,) = [text for _, kind, text in bench.events() if kind == "stopped_outside"]
    assert "Client.UserInitiatedShutdown" in told
    assert "not started within 300 s" in told


@virtual
async def test_vms_of_an_auto_scaling_group_are_neither_started_nor_stopped_and_it_is_said_once():
    tags = {"aws:autoscaling:groupName": "legacy"}
    bench = pool_bench(
        steady((0, 100), (60, 500), (120, 0)),
        running=1,
        refill="off",
        provision="off",
        warm_pool={"minimum": 0},
    )
    (serving,) = bench.world.provision(ORIGIN_S, "web", 1, tags=tags, state=State.RUNNING)
    (stopped,) = bench.world.provision(ORIGIN_S, "web", 1, tags=tags)
    await bench.run(300)
    assert not [ids for a in bench.actions() for ids in a.intent.vm_ids if ids in (serving, stopped)]
    told = [text for _, kind, text in bench.events() if kind == "vm_in_group"]
    assert len(told) == 2
    assert all("Auto Scaling group" in text for text in told)
    assert chores(bench, Verb.TERMINATE) == []
