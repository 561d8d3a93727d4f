"""The start path on bad days: failed starts are retried elsewhere at once, late ones are overtaken, and all of them end."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import State
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.daemon.vms.hedging import PER_HEDGE_S
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.lateness import NOT_NEEDED
from autoscaler.daemon.vms.places import Places
from autoscaler.ports import Listing, RotationView, Verb
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import pool_bench

TOTAL = {"kind": "total"}
BALANCER = {"haproxy": {"sockets": ["/run/h.sock"], "backend": "web"}}
OWN, OTHER = "m7i.large", "m6i.large"


def starts(bench, *, code=""):
    return [(at, vms) for at, _, vms, found in bench.calls("StartInstances") if found == code]


def kinds(bench):
    return [kind for _, kind, _ in bench.events()]


def refuses(bench, *vm_ids, code="InvalidParameterValue"):
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_ids=tuple(vm_ids), code=code))


def inventory(bench):
    return bench.daemon.fleets.all[0].inventory


@virtual
async def test_one_bad_vm_is_found_and_replaced_within_the_tick():
    bench = Bench(vms=40, zones="a", limits=None)
    bad = sorted(bench.ids)[5]
    refuses(bench, bad)
    bench.add(policy(signal=TOTAL, bounds={"maximum": 40}), 3000)
    await bench.run(40)
    ordered = starts(bench)
    assert {at for at, _ in ordered} == {0}
    assert sum(vms for _, vms in ordered) == 30
    # log2(30) levels of two calls, the first one, and the one that replaces it.
    assert len(bench.calls("StartInstances")) <= 2 * 5 + 1 + 1
    assert bench.column("in_service")[2] == 30
    assert inventory(bench).vms[bad].quarantine_reason.startswith("InvalidParameterValue")
    assert [(at, kind) for at, kind, _ in bench.events()] == [(0, "start_not_accepted")]


@virtual
async def test_a_vm_that_fails_again_is_left_alone_for_twice_as_long():
    bench = Bench(vms=1, zones="a", limits=None)
    refuses(bench, *bench.ids)
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(4500)
    tried = [at for at, *_ in bench.calls("StartInstances")]
    assert tried == [0, 600, 1800, 4200]


@virtual
async def test_a_dry_place_is_tried_by_one_vm_each_time_its_time_is_over():
    bench = Bench(vms=6, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=1000))
    bench.add(policy(signal=TOTAL), 600)
    await bench.run(1700)
    tried = [(at, vms) for at, _, vms, code in bench.calls("StartInstances") if code]
    # Three and ten minutes: the batch and its halves, and then one VM each time.
    assert tried == [(0, 6), (0, 3), (0, 3), (180, 1), (540, 1)]
    assert starts(bench) == [(1140, 1), (1140, 5)]
    assert kinds(bench)[:2] == ["start_not_accepted", "shortage_began"]
    assert kinds(bench)[-1] == "shortage_ended"


@virtual
async def test_a_shortage_says_how_many_why_and_for_how_long():
    bench = Bench(vms=3, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=170))
    bench.add(policy(signal=TOTAL), steady((0, 100), (60, 300), (120, 200)))
    await bench.run(400)
    assert [(at, kind, text) for at, kind, text in bench.events() if kind.startswith("shortage")] == [
        (10, "shortage_began", "1 VM not available now: no room for m7i.large in us-east-1a"),
        (240, "shortage_ended", "all wanted VMs are available again; up to 3 were missing for 170 s"),
    ]


@virtual
async def test_fleets_of_one_account_share_what_is_known_of_places():
    bench = Bench(vms=2, zones="ab", limits=None)
    bench.place("api", 4)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"))
    bench.add(policy("web", signal=TOTAL), 200)
    bench.add(policy("api", signal=TOTAL), steady((0, 0), (20, 200)))
    await bench.run(60)
    refused = [at for at, _, _, code in bench.calls("StartInstances") if code]
    assert refused == [0]
    assert bench.column("in_service", "api")[-1] == 2


@virtual
async def test_of_many_fleets_that_wait_for_a_dry_place_one_tries_it_each_time_and_then_all_are_served():
    bench = Bench(vms=4, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=1500))
    for name in ("web", "api", "batch"):
        if name != "web":
            bench.place(name, 4)
        bench.add(policy(name, signal=TOTAL), 200)
    await bench.run(1800)
    tried = [(at, vms, code) for at, _, vms, code in bench.calls("StartInstances") if at]
    short = "InsufficientInstanceCapacity"
    assert tried[:4] == [(180, 1, short), (540, 1, short), (1140, 1, short), (1740, 1, "")]
    assert sum(vms for at, vms, _ in tried[4:] if at == 1740) == 5
    assert [bench.column("in_service", name)[-1] for name in ("web", "api", "batch")] == [2, 2, 2]


@pytest.mark.parametrize(("until_s", "came"), [(60, 0), (300, 1)])
def test_each_start_tells_how_often_starts_work_in_its_place(until_s, came):
    @virtual
    async def run():
        bench = Bench(vms=3, zones="a", limits=None)
        bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=100))
        bench.add(policy(signal=TOTAL), 100)
        await bench.run(until_s)
        by_hand = Places()
        by_hand.tell(OWN, "us-east-1a", ORIGIN_S, tried=1, failed=1)
        by_hand.tell(OWN, "us-east-1a", ORIGIN_S + 200, tried=came, failed=0)
        found = inventory(bench).places.success(OWN, "us-east-1a", ORIGIN_S + until_s)
        assert found == pytest.approx(by_hand.success(OWN, "us-east-1a", ORIGIN_S + until_s), rel=1e-3)

    run()


@virtual
async def test_a_quota_that_is_used_up_holds_the_family_and_no_other_type():
    bench = Bench(vms=4, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OWN, code="VcpuLimitExceeded"))
    bench.add(policy(signal=TOTAL, vm={"types": [OWN, OTHER, "g6.xlarge"]}), 100)
    await bench.run(60)
    assert inventory(bench).dry(ORIGIN_S + 60) == [("standard", "")]
    assert bench.column("in_service")[-1] == 1
    assert [v.vm_type for v in bench.world.views(ORIGIN_S + 60) if v.state is State.RUNNING] == ["g6.xlarge"]


@virtual
async def test_a_stopped_vm_is_started_as_another_type_and_goes_back_to_its_own():
    bench = Bench(vms=3, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OWN, end_s=100))
    bench.add(policy(signal=TOTAL, vm={"types": [OWN, OTHER]}), steady((0, 200), (100, 0)))
    await bench.run(240)
    assert starts(bench) == [(0, 2)]
    assert bench.column("in_service")[2] == 2
    assert [at for at, *_ in bench.calls("ModifyInstanceAttribute")] == [0, 0, 130, 130]
    assert {v.vm_type for v in bench.world.views(ORIGIN_S + 240)} == {OWN}
    assert kinds(bench).count("type_restored") == 2


@virtual
async def test_a_type_is_given_back_once_however_late_listings_show_it():
    bench = Bench(vms=2, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OWN, end_s=100))
    bench.world.add_fault(Fault(FaultKind.LISTING_LAG, start_s=100, delay_s=25))
    bench.add(policy(signal=TOTAL, vm={"types": [OWN, OTHER]}), steady((0, 200), (100, 0)))
    await bench.run(400)
    assert {v.vm_type for v in bench.world.views(ORIGIN_S + 400)} == {OWN}
    assert len(bench.calls("ModifyInstanceAttribute")) == 4
    assert kinds(bench).count("type_restored") == 2


@virtual
async def test_new_vms_are_made_in_the_next_subnet_and_then_as_the_next_type():
    bench = Bench(vms=1, zones="abc", limits=None)
    subnets = sorted(bench.world.places.subnets, key=bench.world.places.subnets.get)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"))
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1b", vm_type=OWN))
    section = {
        "launch_template": "web",
        "vm_type": OWN,
        "subnet": subnets[0],
        "types": [OTHER],
        "subnets": [subnets[1]],
        "maximum": 9,
    }
    bench.add(policy(signal=TOTAL, provision=section), 300)
    await bench.run(60)
    asked = bench.calls("RunInstances")
    assert {at for at, *_ in asked} == {0}
    assert sum(vms for _, _, vms, code in asked if not code) == 3
    made = [v for v in bench.world.views(ORIGIN_S + 60) if v.client_token]
    assert {(v.vm_type, v.zone) for v in made} == {(OTHER, "us-east-1b")}
    # The warm one cannot be had either, so a third is made.
    assert bench.column("in_service")[-1] == 3
    # A provider treats a repeated token as the same order, so no two tokens may be equal.
    provisions = [a.intent for a in bench.actions() if a.intent.verb is Verb.PROVISION]
    assert len({intent.token for intent in provisions}) == len(provisions) == len(asked)
    assert all(intent.reason for intent in provisions)


@virtual
async def test_new_vms_beyond_a_quota_are_asked_for_once_and_then_as_another_family():
    bench = Bench(vms=0, zones="abc", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OWN, code="VcpuLimitExceeded"))
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_type=OTHER, code="VcpuLimitExceeded"))
    subnets = sorted(bench.world.places.subnets, key=bench.world.places.subnets.get)
    section = {
        "launch_template": "web",
        "vm_type": OWN,
        "types": [OTHER, "g6.xlarge"],
        "subnets": subnets,
        "maximum": 9,
    }
    bench.place("web", 0)
    bench.add(policy(signal=TOTAL, provision=section), 300)
    await bench.run(60)
    # A quota of the account applies in every subnet and to every type of the family.
    assert [(at, vms, code) for at, _, vms, code in bench.calls("RunInstances")] == [
        (0, 3, "VcpuLimitExceeded"),
        (0, 3, ""),
    ]
    assert {v.vm_type for v in bench.world.views(ORIGIN_S + 60)} == {"g6.xlarge"}


@virtual
async def test_what_came_to_nothing_in_two_places_at_once_is_made_for_both():
    bench = Bench(vms=4, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, vm_ids=bench.ids))
    section = {"launch_template": "web", "vm_type": OTHER, "maximum": 20}
    bench.add(policy(signal=TOTAL, provision=section), 400)
    await bench.run(60)
    assert [(at, vms) for at, _, vms, code in bench.calls("RunInstances") if not code] == [(0, 2), (0, 2)]
    assert bench.column("in_service")[-1] == 4
    assert bench.column("provisioned")[-1] == 8


@virtual
async def test_of_what_came_to_nothing_only_that_is_made_anew_which_no_stopped_vm_can_give():
    bench = Bench(vms=6, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a"))
    subnet = next(s for s, zone in bench.world.places.subnets.items() if zone == "us-east-1b")
    section = {"launch_template": "web", "vm_type": OTHER, "subnet": subnet, "maximum": 20}
    bench.add(policy(signal=TOTAL, provision=section), 400)
    await bench.run(60)
    assert sum(vms for _, vms in starts(bench)) == 3
    assert [vms for _, _, vms, code in bench.calls("RunInstances") if not code] == [1]
    assert bench.column("in_service")[-1] == 4


@virtual
async def test_a_warm_pool_without_room_is_made_up_for_by_new_vms_within_the_bound():
    bench = Bench(vms=5, zones="ab", limits=None)
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1a", vm_ids=bench.ids))
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, zone="us-east-1b", vm_ids=bench.ids))
    subnet = next(s for s, zone in bench.world.places.subnets.items() if zone == "us-east-1b")
    section = {"launch_template": "web", "vm_type": OTHER, "subnet": subnet, "maximum": 7}
    bench.add(policy(signal=TOTAL, provision=section), 400)
    await bench.run(60)
    assert bench.column("in_service")[-1] == 2
    assert max(bench.column("provisioned")) == 7


def known_times(bench, seconds=16.0, *, served_s=0.0):
    """Make a fleet know start times as after many starts of this length, and this much service."""
    fleet = bench.daemon.fleets.all[0]
    for _ in range(30):
        fleet.inventory.timers.pending.add(seconds)
    fleet.inventory.hedges.saved_s = min(0.01 * served_s, 20 * PER_HEDGE_S)


async def learned(bench, for_s, **what):
    """Run with a fleet that knows its start times."""
    asyncio.get_running_loop().call_later(0.5, lambda: known_times(bench, **what))
    return await bench.run(for_s)


@virtual
async def test_one_that_comes_late_and_is_stopped_is_never_put_into_the_balancer():
    bench = Bench(vms=3, zones="a", limits=None)
    late, admitted = min(bench.ids), []
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, vm_ids=(late,), delay_s=60))
    balancer = SimulatedBalancer(bench.clock)
    admit = balancer.admit

    async def noted(vms):
        admitted.extend(vm.id for vm in vms)
        return await admit(vms)

    balancer.admit = noted
    bench.add(policy(signal=TOTAL, balancer=BALANCER), steady((0, 0), (10, 100)))
    bench.setups = [replace(bench.setups[0], balancer=balancer)]
    await learned(bench, 180, served_s=7000)
    assert kinds(bench) == ["start_late", "late_not_needed"]
    assert inventory(bench).vms[late].phase is Phase.STOPPED
    assert admitted
    assert late not in admitted


@pytest.mark.parametrize("hangs", [False, True])
def test_a_balancer_that_is_not_heard_is_no_fault_of_vms_that_come_meanwhile(hangs):
    @virtual
    async def lives():
        bench = Bench(vms=8, running=1, zones="a", limits=None)
        balancer = SimulatedBalancer(bench.clock)
        view, silent = balancer._view, set()

        async def admit(vms):
            if 15 <= bench.clock.monotonic() < 1000:
                if hangs:
                    await asyncio.Event().wait()
                return RotationView(error="the socket is gone")
            found = view(vms, "admit")
            if 1000 <= bench.clock.monotonic() < 1100:
                # VMs that become visible again do not all do so at once.
                silent.update({max(vm.id for vm in vms)} if not silent else ())
                rest = {i: member for i, member in found.members.items() if i not in silent}
                return replace(found, members=rest, error="of some nothing is known")
            return found

        balancer.admit = admit
        bench.add(policy(signal=TOTAL, balancer=BALANCER), steady((0, 100), (20, 300)))
        bench.setups = [replace(bench.setups[0], balancer=balancer)]
        await bench.run(1200)
        # No others are started instead, and they are neither stopped nor left alone.
        assert starts(bench) == [(20, 2)]
        assert bench.calls("StopInstances") == []
        assert kinds(bench) == ["not_ready", "not_ready"]
        assert bench.column("in_service")[-1] == 3

    lives()


@virtual
async def test_a_late_start_is_overtaken_and_stopped_on_arrival():
    bench = Bench(vms=3, zones="a", limits=None)
    late = min(bench.ids)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, vm_ids=(late,), delay_s=60))
    bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100)))
    await learned(bench, 180, served_s=7000)
    assert starts(bench) == [(10, 1), (40, 1)]
    assert bench.column("in_service")[6] == 1
    assert bench.world.counts(ORIGIN_S + 180)[State.RUNNING] == 1
    stops = bench.calls("StopInstances")
    assert [(at, vms) for at, _, vms, _ in stops] == [(90, 1)]
    assert bench.actions()[-1].intent.reason == NOT_NEEDED
    assert kinds(bench) == ["start_late", "late_not_needed"]
    assert inventory(bench).vms[late].phase is Phase.STOPPED
    # It ran from 86 to 90.
    assert inventory(bench).hedges.idle_s == pytest.approx(5, abs=1.1)


@virtual
async def test_a_late_start_is_kept_where_it_is_needed_when_it_comes():
    bench = Bench(vms=3, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, vm_ids=(min(bench.ids),), delay_s=60))
    bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100), (80, 200)))
    await learned(bench, 180, served_s=7000)
    assert starts(bench) == [(10, 1), (40, 1), (80, 1)]
    # The third was ordered while the late one was not counted; the late one is stopped when it comes.
    assert bench.column("in_service")[-1] == 2


@virtual
async def test_without_budget_a_late_start_is_waited_for():
    bench = Bench(vms=3, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, vm_ids=(min(bench.ids),), delay_s=60))
    bench.add(policy(signal=TOTAL), steady((0, 0), (10, 100)))
    await learned(bench, 120)
    assert starts(bench) == [(10, 1)]


@virtual
async def test_a_vm_that_is_never_ready_is_stopped_and_left_alone():
    bench = Bench(vms=2, zones="a", limits=None)
    bad = min(bench.ids)
    bench.world.add_fault(Fault(FaultKind.UNREADY, vm_ids=(bad,)))
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(420)
    assert bench.column("in_service")[-1] == 1
    assert inventory(bench).vms[bad].phase is Phase.STOPPED
    assert "ready" in inventory(bench).vms[bad].quarantine_reason
    assert kinds(bench) == ["start_overdue", "never_ready"]


@virtual
async def test_a_vm_that_stays_pending_is_written_off_and_one_that_stays_stopping_is_forced():
    bench = Bench(vms=2, running=1, zones="a", limits=None)
    stuck, serving = min(bench.ids[1:]), bench.ids[0]
    bench.world.add_fault(Fault(FaultKind.STUCK_PENDING, vm_ids=(stuck,)))
    bench.world.add_fault(Fault(FaultKind.STUCK_STOPPING, vm_ids=(serving,)))
    bench.add(policy(signal=TOTAL), steady((0, 200), (60, 0)))
    await bench.run(1100)
    assert inventory(bench).vms[stuck].phase is Phase.LOST
    assert inventory(bench).vms[serving].phase is Phase.STOPPED
    assert "vm_written_off" in kinds(bench)
    forced = [reason for a in bench.actions() if "forced" in (reason := a.intent.reason)]
    assert len(forced) == 1


@virtual
async def test_a_pause_of_stops_holds_those_of_late_vms_too():
    bench = Bench(vms=2, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.UNREADY, vm_ids=(min(bench.ids),)))
    bench.add(policy(signal=TOTAL), 100)

    async def pause():
        await bench.clock.sleep_until(5.0)
        await bench.daemon.operators.pause(ChangeRequest(("web",), "alice", "wait", None), (Verb.STOP,))

    pausing = asyncio.create_task(pause())
    await bench.run(420)
    await pausing
    assert bench.calls("StopInstances") == []


@virtual
async def test_asking_elsewhere_under_a_pause_of_stops_stops_nobody():
    bench = Bench(vms=4, zones="a", limits=None)
    bench.world.add_fault(Fault(FaultKind.UNREADY, vm_ids=(min(bench.ids),)))
    bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, start_s=390, code="InvalidParameterValue"))
    bench.add(policy(signal=TOTAL), steady((0, 100), (400, 200)))

    async def pause():
        await bench.clock.sleep_until(5.0)
        await bench.daemon.operators.pause(ChangeRequest(("web",), "alice", "wait", None), (Verb.STOP,))

    pausing = asyncio.create_task(pause())
    await bench.run(440)
    await pausing
    assert "never_ready" in kinds(bench)
    assert "start_not_accepted" in kinds(bench)
    assert bench.calls("StopInstances") == []


def unlisted(bench, begin_s, end_s):
    """Between these seconds no listing comes back."""
    real = bench.provider.list_vms

    async def listed():
        now_s = bench.clock.now()
        if begin_s <= now_s - ORIGIN_S < end_s:
            return Listing((), complete=False, requested_at_s=now_s, received_at_s=now_s, error="throttled")
        return await real()

    bench.provider.list_vms = listed


@pytest.mark.parametrize(("vms", "provision"), [(19, None), (0, {"launch_template": "web", "maximum": 20})])
def test_while_nothing_is_listed_one_other_vm_at_most_is_ordered_in_the_place_of_each(vms, provision):
    @virtual
    async def lives():
        bench = (
            pool_bench(0, running=1, vms=vms)
            if provision
            else Bench(vms=vms, running=1, zones="a", limits=None)
        )
        bench.setups.clear()
        unlisted(bench, 25, 2000)
        bench.add(policy(signal=TOTAL, provision=provision), steady((0, 100), (20, 300)))
        await bench.run(2100)
        made = bench.calls("StartInstances", "RunInstances")
        assert sum(count for *_, count, code in made if not code) <= 4
        assert "vm_written_off" not in kinds(bench)
        assert bench.column("in_service")[-1] == 3

    lives()


@virtual
async def test_no_stop_is_forced_and_no_vm_written_off_while_nothing_is_listed():
    bench = Bench(vms=0, running=3, zones="a", limits=None)
    unlisted(bench, 25, 4000)
    bench.add(policy(signal=TOTAL), steady((0, 300), (20, 100)))
    await bench.run(4100)
    assert [vms for _, _, vms, _ in bench.calls("StopInstances")] == [2]
    assert kinds(bench) == []
    assert [t.phase for t in inventory(bench).in_phase(Phase.STOPPED, Phase.LOST)] == [Phase.STOPPED] * 2
