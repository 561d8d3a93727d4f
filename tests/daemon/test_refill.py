"""Refilling the warm pool: only without demand, prepared before it counts, balanced over zones, trimmed, and after a crash."""

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.vms.pool_tags import MADE_AT_TAG, POOL_TAG, READY, SPEC_TAG
from autoscaler.daemon.warm.refill import batches
from autoscaler.ports import Listing, Verb
from tests.control.builders import Commands, asked
from tests.daemon.builders import ORIGIN_S, policy, steady, virtual
from tests.daemon.pools import PROVISION, TOTAL, chores, fleet_in_two_subnets, pool_bench, states


def views(bench):
    return [vm for vm in bench.world.page(bench.clock.now()).vms if vm.state != "terminated"]


@virtual
async def test_the_pool_is_filled_to_its_target_each_vm_seen_ready_before_it_is_stopped():
    bench = pool_bench(100, running=1)
    await bench.run(200)
    # Calm since the beginning: made at 60. Running after 18 s and ready 7 s later, so at 85; seen at 90.
    assert [(at, verb, count) for at, verb, count, _ in chores(bench)] == [
        (60, "refill", 2),
        (90, "store", 2),
    ]
    assert states(bench) == {"running": 1, "stopped": 2}
    made = [vm for vm in views(bench) if vm.state == "stopped"]
    assert {vm.tags[POOL_TAG] for vm in made} == {READY}
    assert {vm.tags[MADE_AT_TAG] for vm in made} == {f"{ORIGIN_S + 60:.0f}"}
    assert all(vm.tags[SPEC_TAG] for vm in made)
    assert "the warm pool holds 0 of 2" in chores(bench)[0][3]
    # VMs that are being prepared are neither in service nor on their way there.
    assert set(bench.column("in_service")) == {1}
    assert set(bench.column("starting")) == {0}
    assert [at for at, kind, _ in bench.events() if kind == "pool_ready"] == [90, 90]


@virtual
async def test_nothing_is_made_while_demand_is_being_served_or_just_was():
    bench = pool_bench(steady((0, 100), (50, 300), (100, 100)), running=1, vms=2)
    await bench.run(300)
    burst = [(at, verb) for at, verb, _, _ in chores(bench) if verb in ("start", "stop")]
    assert burst == [(50, "start"), (100, "stop")]
    # The two come back at 125 and fill the pool, so nothing is made at all.
    assert chores(bench, Verb.REFILL) == []


@virtual
async def test_a_refill_waits_until_it_has_been_calm_for_long_enough():
    bench = pool_bench(steady((0, 100), (50, 300)), running=1, vms=2, refill={"calm": "90s"})
    await bench.run(200)
    # The two starts of 50 are in service at 70, seen so at 70; busy until 60, so calm for 90 s at 150.
    (first, *_) = chores(bench, Verb.REFILL)
    assert first[0] == 150


@virtual
async def test_a_burst_takes_what_is_ready_and_starts_before_anything_is_made():
    bench = pool_bench(steady((0, 100), (95, 300)), running=1, vms=0)
    await bench.run(140)
    order = [(at, verb) for at, verb, *_ in chores(bench)]
    assert order[:2] == [(60, "refill"), (90, "store")]
    assert (100, "provision") in order
    assert [each for each in order if each[1] == "refill"] == [(60, "refill")]


@virtual
async def test_a_vm_whose_image_has_not_said_that_it_is_done_is_not_in_the_pool():
    bench = pool_bench(100, running=1, refill={"prepared_tag": True, "at_once": 1}, warm_pool={"minimum": 1})

    def demand(second):
        if second == 150:
            (vm,) = [v for v in views(bench) if v.tags.get(POOL_TAG) == "preparing"]
            bench.world.tag(bench.clock.now(), [vm.id], {"autoscaler:prepared": "true"})
        return 100

    bench.setups[0].source.demand = demand
    await bench.run(200)
    # Written at 150, shown by the listing of that tick or of the next.
    ((at, *_),) = chores(bench, Verb.STORE)
    assert at in (150, 160)


@virtual
async def test_what_never_becomes_ready_is_deleted_and_it_takes_longer_until_the_next_try():
    bench = pool_bench(
        100,
        running=1,
        refill={"prepared_tag": True, "at_once": 1, "timeout": "2m"},
        warm_pool={"minimum": 1},
    )
    await bench.run(600)
    made = [at for at, *_ in chores(bench, Verb.REFILL)]
    gone = [at for at, *_ in chores(bench, Verb.TERMINATE)]
    assert gone[0] == made[0] + 120
    assert made[1] >= gone[0] + 60
    assert made[2] - gone[1] > made[1] - gone[0]
    assert "not ready within 120 s" in chores(bench, Verb.TERMINATE)[0][3]
    assert states(bench).get("stopped", 0) == 0


@virtual
async def test_refills_can_be_paused_and_starts_go_on():
    bench = pool_bench(steady((0, 100), (200, 200)), running=1, vms=1)
    Commands(bench).at(5, "pause", asked("web", reason="x"), (Verb.REFILL,))
    await bench.run(400)
    assert chores(bench, Verb.REFILL) == []
    assert [at for at, *_ in chores(bench, Verb.START)] == [200]


def test_a_place_without_room_is_left_for_the_next_and_the_pool_is_spread():
    fleet = fleet_in_two_subnets()
    found = batches(fleet, 4, "x", 1, ORIGIN_S)
    assert [(b.spec.subnet, b.intent.count) for b in found] == [("subnet-a", 2), ("subnet-b", 2)]
    fleet.inventory.places.found_dry(*fleet.spec.place, ORIGIN_S)
    found = batches(fleet, 4, "x", 1, ORIGIN_S + 1)
    assert [(b.spec.subnet, b.intent.count) for b in found] == [("subnet-b", 4)]
    assert len({b.intent.token for b in batches(fleet, 4, "x", 1, ORIGIN_S + 2)}) == 1


def test_machine_types_have_their_shares():
    own = policy(
        signal=TOTAL,
        provision={**PROVISION, "vm_type": "m7i.large", "types": ["m6i.large", "m5.large"]},
        refill={"weights": [2, 1]},
    )
    found = batches(Fleet(FleetSetup(own, None, None, None)), 6, "x", 1, ORIGIN_S)
    assert {b.spec.vm_type: b.intent.count for b in found} == {"m7i.large": 4, "m6i.large": 2}
    assert all(len(b.intent.token) <= 64 for b in found)


@virtual
async def test_after_a_crash_vms_that_were_being_prepared_are_prepared_on_and_no_more_are_made():
    bench = pool_bench(100, running=1)
    await bench.run(65)
    assert [verb for _, verb, *_ in chores(bench)] == ["refill"]
    await bench.run(200)
    assert [verb for _, verb, *_ in chores(bench)] == ["refill", "store"]
    assert states(bench) == {"running": 1, "stopped": 2}
    assert set(bench.column("in_service")) == {1}


@virtual
async def test_what_was_made_and_stopped_before_it_was_ready_is_never_started_and_is_swept():
    # Demand asks for one more, there is no room to make any, and the only stopped VM was never ready.
    bench = pool_bench(
        steady((0, 100), (50, 200)),
        running=1,
        warm_pool={"minimum": 0},
        provision={**PROVISION, "maximum": 2},
    )
    tags = {POOL_TAG: "preparing", "autoscaler:made-by": "web-r1"}
    (orphan,) = bench.world.provision(ORIGIN_S, "web", 1, tags=tags)
    await bench.run(1000)
    # Once it is gone there is room to make one for demand.
    assert [verb for at, verb, *_ in chores(bench) if at <= 930] == ["terminate", "provision"]
    assert chores(bench)[0][0] == 900
    row = bench.rows()[5]
    assert (row.stopped, row.start, row.desired) == (1, 0, 2)
    assert orphan not in {vm.id for vm in views(bench)}


@virtual
async def test_vms_beyond_the_wanted_number_are_deleted_oldest_first_at_a_rate_and_only_ours():
    tags = {"autoscaler:made-by": "x"}
    bench = pool_bench(
        100,
        running=1,
        vms=2,
        warm_pool={"minimum": 1},
        refill={"trim_after": "1h", "trim_rate": {"vms": 1, "per": "10m"}},
    )
    ours = bench.world.provision(ORIGIN_S, "web", 2, tags={**tags, MADE_AT_TAG: "5"})
    old = bench.world.provision(ORIGIN_S, "web", 1, tags={**tags, MADE_AT_TAG: "1"})
    await bench.run(7200)
    assert [at for at, *_ in chores(bench, Verb.TERMINATE)] == [3660, 4260, 4860]
    first = bench.actions()[0].intent.vm_ids
    assert first == old
    left = {vm.id for vm in views(bench) if vm.state == "stopped"}
    # One VM more than wanted stays, because nothing says that it may be deleted.
    assert left == set(bench.ids[1:])
    assert not left & set(ours)


@virtual
async def test_a_refill_that_fails_is_told_and_tried_later():
    bench = pool_bench(
        100,
        running=1,
        faults=[
            Fault(
                FaultKind.API_ERROR,
                end_s=65,
                code="InvalidLaunchTemplateName.NotFoundException",
                actions=("RunInstances",),
            )
        ],
    )
    await bench.run(300)
    assert [(at, count) for at, _, count, _ in chores(bench, Verb.REFILL)] == [(60, 2), (120, 2)]
    (told,) = [text for _, kind, text in bench.events() if kind == "refill_failed"]
    assert "NotFoundException" in told
    assert states(bench) == {"running": 1, "stopped": 2}


@virtual
async def test_a_refill_that_a_quota_refuses_is_not_tried_with_other_types_of_the_family():
    fault = Fault(FaultKind.NO_CAPACITY, end_s=215, code="VcpuLimitExceeded")
    given = {**PROVISION, "vm_type": "m7i.large", "types": ["m6i.large"]}
    one = {"warm_pool": {"minimum": 1}, "refill": {"weights": [1, 1]}}
    bench = pool_bench(100, running=1, faults=[fault], provision=given, **one)
    await bench.run(300)
    assert [at for at, _, _, _ in bench.calls("RunInstances")] == [60, 240]


ALL_TAKEN = {"provision": {**PROVISION, "maximum": 3}}
"""With one that serves and two that are prepared nothing more may be made, so that these serve once they are ready."""


@virtual
async def test_what_was_made_for_the_pool_and_serves_is_marked_as_seen_ready_and_comes_back_into_the_pool():
    bench = pool_bench(steady((0, 100), (75, 300), (200, 100)), running=1, **ALL_TAKEN)
    await bench.run(1500)
    assert chores(bench, Verb.REFILL, Verb.TERMINATE) == [
        (60, "refill", 2, "the warm pool holds 0 of 2; as the template says")
    ]
    assert max(bench.column("in_service")) == 3
    assert [vm.tags.get(POOL_TAG) for vm in views(bench)] == [None, READY, READY]
    assert bench.column("stopped")[-1] == 2


@virtual
async def test_what_was_made_for_the_pool_and_serves_is_not_deleted_where_a_later_run_finds_its_probe_failing():
    bench = pool_bench(steady((0, 100), (75, 300)), running=1, refill={"timeout": "5m"}, **ALL_TAKEN)
    await bench.run(200)
    assert bench.column("in_service")[-1] == 3
    setup = bench.setups[0]
    setup.source.demand = 300
    bench.setups = [FleetSetup(setup.policy, setup.provider, setup.source, Nobody())]
    await bench.run(1500)
    assert chores(bench, Verb.TERMINATE, Verb.STOP, Verb.STORE) == []
    assert states(bench) == {"running": 3}


@virtual
async def test_the_mark_of_one_that_serves_is_written_until_listings_show_it():
    bench = pool_bench(
        steady((0, 100), (75, 300), (130, 100)),
        running=1,
        faults=[Fault(FaultKind.API_ERROR, end_s=400, code="InternalError", actions=("CreateTags",))],
        **ALL_TAKEN,
    )
    await bench.run(600)
    tagged = [at for at, *_ in bench.calls("CreateTags")]
    assert (tagged[0], tagged[1]) == (100, 160)
    # They were stopped before the tag could be written, but are members nonetheless.
    assert chores(bench, Verb.TERMINATE) == []
    assert bench.column("stopped")[-1] == 2
    assert [vm.tags.get(POOL_TAG) for vm in views(bench)] == [None, READY, READY]


class Nobody:
    """A probe that finds no VM ready."""

    async def ready(self, vms):
        return frozenset()


@virtual
async def test_what_was_asked_for_without_hearing_an_answer_is_not_asked_for_again_before_a_listing_tells():
    lost = Fault(FaultKind.LOST_REPLY, 0.0, 1500.0, actions=("RunInstances",))
    bench = pool_bench(100, running=1, faults=(lost,))
    real = bench.provider.list_vms

    async def listed():
        now_s = bench.clock.now()
        if 55 <= now_s - ORIGIN_S < 1500:
            return Listing((), complete=False, requested_at_s=now_s, received_at_s=now_s, error="throttled")
        return await real()

    bench.provider.list_vms = listed
    await bench.run(1800)
    assert [vms for _, _, vms, _ in bench.calls("RunInstances")] == [2]
    assert states(bench) == {"running": 1, "stopped": 2}
