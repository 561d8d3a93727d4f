"""The pool is kept current and exercised: rolling replacement above the floor, within windows; broken VMs are found."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import LaunchData, State
from autoscaler.daemon.vms.pool_tags import EXERCISED_AT_TAG, MADE_AT_TAG, POOL_TAG, READY
from autoscaler.daemon.vms.tracked import MADE_BY_TAG
from autoscaler.ports import UnreadableTemplate, Verb
from tests.daemon.builders import ORIGIN_S, virtual
from tests.daemon.pools import chores, pool_bench, pool_policy, renew_template, states

HOUR = 3600


def views(bench):
    return [vm for vm in bench.world.page(bench.clock.now()).vms if vm.state != "terminated"]


def ready_over_time(bench):
    return [row.stopped for row in bench.rows()]


@virtual
async def test_after_a_change_of_the_template_the_pool_is_replaced_and_never_below_its_floor():
    bench = pool_bench(
        100,
        running=1,
        warm_pool={"minimum": 4},
        refill={"at_once": 4},
        freshness={"refresh": {"share": "25%"}},
    )
    await bench.run(300)
    assert states(bench) == {"running": 1, "stopped": 4}
    first = {vm.id for vm in views(bench) if vm.state == "stopped"}
    renew_template(bench)
    bench.records.clear()
    await bench.run(3000)
    stopped = [vm for vm in views(bench) if vm.state == "stopped"]
    assert {vm.image for vm in stopped} == {"ami-0000000c"}
    assert len(stopped) == 4
    assert not first & {vm.id for vm in stopped}
    # One in four at a time, the new one first.
    assert {count for _, _, count, _ in chores(bench, Verb.TERMINATE)} == {1}
    assert min(ready_over_time(bench)) >= 4
    assert all(
        "another version of the launch template (now 3)" in why for *_, why in chores(bench, Verb.TERMINATE)
    )


@pytest.mark.parametrize(("share", "at_a_time"), [("1%", 1), ("25%", 2), ("60%", 4), ("100%", 8)])
def test_no_more_go_at_a_time_than_the_share_of_the_pool_however_many_are_out_of_date(share, at_a_time):
    @virtual
    async def run():
        # All twenty are out of date at once, and eight of them are wanted.
        bench = pool_bench(
            0,
            vms=0,
            warm_pool={"minimum": 8},
            refill="off",
            freshness={"refresh": {"share": share}, "max_age": "1d"},
        )
        tags = {MADE_BY_TAG: "a", POOL_TAG: READY, MADE_AT_TAG: f"{ORIGIN_S - 90_000:.0f}"}
        bench.world.provision(ORIGIN_S - 90_000, "web", 20, tags=tags, state=State.STOPPED)
        await bench.run(600)
        (first, *_) = chores(bench, Verb.TERMINATE)
        assert first[2] == at_a_time

    run()


@virtual
async def test_where_no_more_may_exist_the_old_goes_first_down_to_the_policys_floor():
    bench = pool_bench(
        100, running=1, warm_pool={"minimum": 2, "memory": "60s"}, provision={"launch_template": "web", "maximum": 5},
        refill={"at_once": 4}, freshness={"refresh": {"share": "50%"}},
    )  # fmt: skip
    bench.world.provision(ORIGIN_S, "web", 4, tags={"autoscaler:made-by": "x"}, image="ami-0000000a")
    await bench.run(3000)
    stopped = [vm for vm in views(bench) if vm.state == "stopped"]
    assert {vm.image for vm in stopped} == {"ami-0000000b"}
    assert min(ready_over_time(bench)) >= 2


@virtual
async def test_outside_its_windows_nothing_is_replaced_or_tried():
    # The origin is 10:00 UTC.
    window = [{"from": "11:00", "to": "11:30"}]
    bench = pool_bench(
        100, running=1, warm_pool={"minimum": 1},
        freshness={"max_age": "1h", "refresh": {"windows": window}, "exercise": {"every": "1h", "windows": window}},
    )  # fmt: skip
    tags = {"autoscaler:made-by": "x", MADE_AT_TAG: f"{ORIGIN_S - 9 * HOUR:.0f}"}
    bench.world.provision(ORIGIN_S, "web", 1, tags=tags, image="ami-0000000b")
    await bench.run(5000)
    moments = [at for at, verb, *_ in chores(bench) if verb in ("refill", "terminate", "exercise")]
    assert moments
    assert all(HOUR <= at < 1.5 * HOUR for at in moments)
    assert "older than freshness.max_age" in chores(bench, Verb.TERMINATE)[0][3]


@virtual
async def test_a_stopped_vm_is_tried_seen_ready_and_stopped_again():
    bench = pool_bench(
        100, running=1, vms=2, warm_pool={"minimum": 1}, freshness={"exercise": {"every": "1h"}}
    )
    await bench.run(4200)
    done = [(at, verb) for at, verb, *_ in chores(bench)]
    # Both last ran at the origin; one at a time.
    assert done[:2] == [(3600, "exercise"), (3620, "store")]
    assert [verb for _, verb in done] == ["exercise", "store"] * 2
    assert set(bench.column("in_service")) == {1}
    assert set(bench.column("starting")) == {0}
    assert states(bench) == {"running": 1, "stopped": 2}
    assert all(EXERCISED_AT_TAG in vm.tags for vm in views(bench) if vm.state == "stopped")
    assert bench.log.texts("tick_failed") == []


@virtual
async def test_a_vm_that_would_not_start_is_found_told_and_not_started_for_demand():
    bench = pool_bench(
        100, running=1, vms=1, warm_pool={"minimum": 0}, freshness={"exercise": {"every": "1h"}}
    )
    fault = Fault(
        FaultKind.FALL_BACK, start_s=3500, delay_s=5, vm_ids=(bench.ids[1],), code="Client.InternalError"
    )
    bench.world.add_fault(fault)
    await bench.run(3900)
    (told,) = [text for _, kind, text in bench.events() if kind == "exercise_failed"]
    assert bench.ids[1] in told
    assert "Client.InternalError" in told
    assert bench.rows()[-1].start == 0


@pytest.mark.parametrize("minimum", [1, 2])
def test_no_vm_is_tried_where_that_would_leave_fewer_than_the_floor(minimum):
    @virtual
    async def lives():
        bench = pool_bench(
            100, running=1, vms=2, warm_pool={"minimum": minimum}, freshness={"exercise": {"every": "1h"}}
        )
        await bench.run(3615)
        assert len(chores(bench, Verb.EXERCISE)) == (1 if minimum == 1 else 0)

    lives()


@virtual
async def test_a_template_that_cannot_be_read_is_told_once_and_nothing_is_taken_for_out_of_date():
    bench = pool_bench(100, running=1, freshness={"refresh": {}})
    readable, renewed = bench.provider.launch_spec, []

    async def unreadable_for_half_an_hour(spec):
        second = bench.clock.now() - ORIGIN_S
        if not 900 <= second < 2700:
            return await readable(spec)
        if not renewed:
            renewed.append(renew_template(bench))
        return UnreadableTemplate(
            "UnauthorizedOperation: not authorized" if second < 2300 else "RequestExpired: late"
        )

    bench.provider.launch_spec = unreadable_for_half_an_hour
    await bench.run(4500)
    told = told_of_template(bench)
    assert [kind for _, kind, _ in told] == ["template_unreadable", "template_unreadable", "template_read"]
    assert "launch template web cannot be read, so the previous version still applies: Unauthor" in told[0][2]
    assert "RequestExpired" in told[1][2]
    gone = [at for at, verb, *_ in chores(bench) if verb == Verb.TERMINATE]
    assert min(gone) > told[2][0]
    assert len(gone) == 2


@virtual
async def test_one_answer_about_the_template_that_does_not_come_is_not_told():
    bench = pool_bench(100, running=1, freshness={"refresh": {}})
    readable, asked = bench.provider.launch_spec, []

    async def at_first_not(spec):
        asked.append(bench.clock.now() - ORIGIN_S)
        if len(asked) == 1:
            raise OSError("connection reset")
        return await readable(spec)

    bench.provider.launch_spec = at_first_not
    await bench.run(900)
    assert told_of_template(bench) == []
    assert asked[1] - asked[0] == pytest.approx(60, abs=10)
    assert asked[2] - asked[1] == pytest.approx(300, abs=10)


def told_of_template(bench):
    return [event for event in bench.events() if event[1].startswith("template_")]


@virtual
async def test_vms_made_from_another_template_are_not_out_of_date_by_what_the_one_before_said():
    bench = pool_bench(100, running=1, warm_pool={"minimum": 0}, freshness={"refresh": {"share": "50%"}})
    data = LaunchData(image="ami-0000000d", vm_type="m7i.large")
    bench.world.templates.create(bench.world.new_id("lt"), "other", data, ORIGIN_S)
    setup = bench.setups[0]
    other = pool_policy(
        freshness={"refresh": {"share": "50%"}}, provision={"launch_template": "other", "maximum": 10}
    )
    tasks = []

    def edit():
        tasks.append(asyncio.ensure_future(bench.daemon.take_over([replace(setup, policy=other)])))

    asyncio.get_running_loop().call_later(105, edit)
    await bench.run(1000)
    made = [at for at, *_ in chores(bench, Verb.REFILL)]
    assert made == [110]
    assert chores(bench, Verb.TERMINATE) == []
    assert {vm.image for vm in views(bench) if vm.state == "stopped"} == {"ami-0000000d"}
