"""New VMs take longer than starts, and are waited for as long as the policy plans, whatever starts take."""

import asyncio

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.config.patience import made_patience_s, start_patience_s
from autoscaler.daemon.vms.hedging import ENOUGH, PER_HEDGE_S
from autoscaler.daemon.vms.inventory import FleetInventory, Patience, Phase
from autoscaler.daemon.vms.tracked import MADE_BY_TAG
from autoscaler.ports import VmState
from tests.daemon.builders import Bench, listing, policy, reconcile, steady, virtual, vm
from tests.daemon.pools import chores, pool_bench, states

TOTAL = {"kind": "total"}
MADE = {"launch_template": "web", "maximum": 9}
SERVED = {"served": "99%", "provision_time": "60s"}


def made_in(pending_s, booting_s):
    """Durations like EXACT, except those of new VMs."""
    return Physics(
        start=Spread(16),
        boot=Spread(3),
        launch=Spread(pending_s),
        first_boot=Spread(booting_s),
        stop=Spread(25),
    )


def fleet_of(bench):
    return bench.daemon.fleets.all[0]


def made(bench):
    return [(at, vms) for at, _, vms, _ in bench.calls("RunInstances")]


def kinds(bench):
    return [kind for _, kind, _ in bench.events()]


@pytest.mark.parametrize(
    ("start_time", "objective", "start_s", "made_s"),
    [
        ("20s", None, 120.0, 600.0),
        ("45s", None, 225.0, 600.0),
        ("45s", SERVED, 225.0, 225.0),
        ("5s", SERVED, 120.0, 120.0),
        ("5s", {**SERVED, "provision_time": "20m"}, 120.0, 2400.0),
        ("10m", None, 3000.0, 3000.0),
    ],
)
def test_vms_made_from_nothing_are_counted_on_for_twice_what_is_planned_and_no_shorter_than_starts(
    start_time, objective, start_s, made_s
):
    fleet = policy(vm={"start_time": start_time}, objective=objective)
    assert (start_patience_s(fleet), made_patience_s(fleet)) == (start_s, made_s)


@pytest.mark.parametrize("parts", [(287, 3), (20, 270)])
@pytest.mark.parametrize("start_time", ["20s", "45s"])
def test_a_vm_that_takes_what_is_planned_is_made_once(start_time, parts):
    @virtual
    async def made_once():
        bench = Bench(vms=1, zones="a", limits=None, physics=made_in(*parts))
        bench.add(policy(signal=TOTAL, vm={"start_time": start_time}, provision=MADE), 300)
        await bench.run(1500)
        assert made(bench) == [(0, 2)]
        assert bench.calls("StopInstances") == []
        assert bench.column("in_service")[28:30] == [1, 3]
        assert set(bench.column("in_service")[29:]) == {3}
        assert kinds(bench) == ["pool_exhausted"]

    made_once()


@virtual
async def test_one_whose_making_was_not_answered_is_waited_for_as_long():
    fault = Fault(FaultKind.LOST_REPLY, end_s=5, actions=("RunInstances",))
    bench = Bench(vms=0, running=1, zones="a", limits=None, physics=made_in(20, 270), faults=(fault,))
    bench.add(policy(signal=TOTAL, provision=MADE), 200)
    await bench.run(400)
    assert len(made(bench)) == 1
    assert bench.calls("StopInstances") == []
    assert bench.column("in_service")[28:31] == [1, 2, 2]


@pytest.mark.parametrize("parts", [(287, 3), (20, 270)])
@pytest.mark.parametrize(("lag_s", "first_s"), [(0, 65), (12, 15)], ids=["listed", "not listed yet"])
def test_one_that_is_being_made_at_a_restart_is_waited_for_as_long(lag_s, first_s, parts):
    @virtual
    async def made_once():
        bench = Bench(vms=0, running=1, zones="a", limits=None, physics=made_in(*parts))
        if lag_s:
            bench.world.add_fault(Fault(FaultKind.LISTING_LAG, delay_s=lag_s, start_s=11, end_s=40))
        bench.add(policy(signal=TOTAL, provision=MADE), steady((0, 100), (10, 200)))
        await bench.run(first_s)
        await bench.run(400)
        assert made(bench) == [(10, 1)]
        assert bench.calls("StopInstances") == []
        assert bench.column("in_service")[-1] == 2

    made_once()


@virtual
async def test_one_that_hangs_is_replaced_after_twice_what_is_planned():
    bench = Bench(vms=0, running=1, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, end_s=100))
    bench.add(policy(signal=TOTAL, provision=MADE), 200)
    await bench.run(700)
    assert made(bench) == [(0, 1), (610, 1)]
    assert bench.column("in_service")[-1] == 2
    assert kinds(bench) == ["pool_exhausted", "start_overdue"]


@virtual
async def test_one_that_never_becomes_ready_is_stopped_after_twice_that():
    bench = Bench(vms=0, running=1, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.UNREADY, end_s=100))
    bench.add(policy(signal=TOTAL, provision=MADE), 200)
    await bench.run(1400)
    assert [at for at, *_ in bench.calls("StopInstances")] == [1230]
    assert kinds(bench) == ["pool_exhausted", "start_overdue", "never_ready"]


@virtual
async def test_a_vm_that_was_made_is_started_again_like_any_other():
    bench = Bench(vms=0, running=1, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, start_s=100))
    bench.add(policy(signal=TOTAL, provision=MADE), steady((0, 200), (60, 100), (150, 200)))
    await bench.run(400)
    assert made(bench) == [(0, 1), (280, 1)]
    assert [at for at, *_ in bench.calls("StartInstances")] == [150]


def knows(bench, **times):
    """Make a fleet know start times, or making times, as after many of them and much service."""
    inventory = fleet_of(bench).inventory
    for name, seconds in times.items():
        for _ in range(ENOUGH):
            getattr(inventory.timers, name).add(seconds)
    inventory.hedges.saved_s = 20 * PER_HEDGE_S


async def run_knowing(bench, for_s, **times):
    asyncio.get_running_loop().call_later(0.5, lambda: knows(bench, **times))
    await bench.run(for_s)


@virtual
async def test_what_is_made_is_not_late_by_what_starts_take():
    bench = Bench(vms=1, zones="a", limits=None, physics=made_in(100, 60))
    bench.add(policy(signal=TOTAL, provision=MADE), steady((0, 0), (10, 200)))
    await run_knowing(bench, 300, pending=16.0, unready=3.0)
    assert made(bench) == [(10, 1)]
    assert kinds(bench) == ["pool_exhausted"]
    timers = fleet_of(bench).inventory.timers
    assert len(timers.pending.times_s) == len(timers.unready.times_s) == ENOUGH + 1
    assert list(timers.new_pending.times_s) == pytest.approx([100.0], abs=10.0)
    assert list(timers.new_unready.times_s) == pytest.approx([60.0], abs=10.0)


@virtual
async def test_what_is_made_is_late_by_what_making_takes():
    bench = Bench(vms=0, running=1, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, end_s=15))
    bench.add(policy(signal=TOTAL, provision=MADE), steady((0, 100), (10, 200)))
    await run_knowing(bench, 100, new_pending=20.0)
    # 1.25 times as long as the slowest, and five seconds.
    assert made(bench) == [(10, 1), (50, 1)]
    assert "start_late" in kinds(bench)


@pytest.mark.parametrize("parts", [(287, 3), (20, 270)])
def test_what_is_made_for_the_warm_pool_takes_its_time(parts):
    @virtual
    async def filled():
        bench = pool_bench(100, running=1, physics=made_in(*parts))
        await bench.run(1200)
        assert [(at, verb, count) for at, verb, count, _ in chores(bench)] == [
            (60, "refill", 2),
            (350, "store", 2),
        ]
        assert states(bench) == {"running": 1, "stopped": 2}

    filled()


TOKEN = {MADE_BY_TAG: "web-1"}


@pytest.mark.parametrize(
    ("tags", "launched", "overdue"),
    [(TOKEN, 995.0, False), (TOKEN, 395.0, True), ({}, 995.0, True)],
    ids=["made lately", "made by us, launched long ago", "made by somebody else"],
)
@pytest.mark.parametrize("state", [VmState.PENDING, VmState.RUNNING])
def test_a_vm_found_on_its_way_is_waited_for_as_new_where_it_may_be(state, tags, launched, overdue):
    inventory = FleetInventory("web", Patience(start_s=200.0, made_s=600.0))
    on_its_way = vm("i-1", state, launched=launched, tags=tags)
    for at in (1000.0, 1250.0):
        reconcile(inventory, listing(on_its_way, at=at), (on_its_way,), at)
    assert inventory.vms["i-1"].overdue == overdue


def test_a_vm_that_serves_is_not_new_any_more():
    inventory = FleetInventory("web", Patience())
    row = vm("i-1", VmState.RUNNING, launched=990.0, tags=TOKEN)
    reconcile(inventory, listing(row, at=1000.0), (row,), 1000.0)
    assert inventory.vms["i-1"].new
    inventory.mark_ready(["i-1"], 1000.0)
    assert not inventory.vms["i-1"].new


def test_a_vm_that_was_stopped_is_not_new_any_more():
    inventory = FleetInventory("web", Patience(start_s=200.0, made_s=600.0))
    for at, state in ((1000.0, VmState.RUNNING), (1100.0, VmState.STOPPED), (1200.0, VmState.PENDING)):
        row = vm("i-1", state, launched=min(at, 1200.0) - 1.0, tags=TOKEN)
        reconcile(inventory, listing(row, at=at), (row,), at)
    assert inventory.vms["i-1"].phase is Phase.STARTING
    reconcile(inventory, listing(row, at=1450.0), (row,), 1450.0)
    assert inventory.vms["i-1"].overdue


@virtual
async def test_one_that_takes_longer_than_is_planned_is_made_twice_once_and_then_waited_for_also_after_a_restart():
    # Running after 30 s and set up 12 min later; planned is nothing, so that ten minutes are waited.
    demand = steady((0, 100), (100, 300), (2000, 100), (4000, 300), (6000, 100))
    bench = pool_bench(
        demand, running=1, refill=None, warm_pool={"minimum": 0, "maximum": 0}, physics=made_in(30, 720)
    )
    await bench.run(3900)
    assert [vms for _, vms in made(bench)] == [2, 2]
    overdue = kinds(bench).count("start_overdue")
    assert overdue
    assert fleet_of(bench).inventory.patience.made_s == pytest.approx(1.5 * 760, rel=0.1)
    vms = bench.world.page(bench.clock.now()).vms
    bench.world.terminate(bench.clock.now(), [vm.id for vm in vms if vm.state == "stopped"])
    bench.records.clear()
    before = len(made(bench))
    await bench.run(1900)
    assert [vms for _, vms in made(bench)[before:]] == [2]
    assert kinds(bench).count("start_overdue") == overdue


@virtual
async def test_a_template_that_is_refused_is_tried_again_after_three_minutes():
    bench = Bench(vms=0, zones="a", limits=None)
    bench.place("web", 0)
    refused = "InvalidAMIID.NotFound"
    bench.world.add_fault(Fault(FaultKind.API_ERROR, end_s=300, code=refused, actions=("RunInstances",)))
    bench.add(policy(signal=TOTAL, provision=MADE), steady((0, 0), (10, 200)))
    await bench.run(420)
    made = [(at, vms, code) for at, _, vms, code in bench.calls("RunInstances")]
    assert made == [(10, 2, refused), (190, 2, refused), (370, 2, "")]
