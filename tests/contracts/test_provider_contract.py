"""Every sentence of `ports.Provider`, on every provider that changes VMs."""

import math

import pytest

from autoscaler.errors import InvariantError
from autoscaler.ports import (
    BATCH_REFUSED,
    FLEET_TAG,
    HIBERNATED_REASON,
    NO_HIBERNATION,
    NOT_YET,
    ROOM_FOR_FEWER,
    OutcomeKind,
    Provider,
    ProvisionSpec,
    VmState,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOWS_S = (200.0, 4000.0)
"""Lengths of a fault to try, in the cloud's time: one second of the machine, and twenty if that was too short."""


def kinds(outcomes):
    return [each.kind for each in outcomes]


def accepted(outcomes):
    return kinds(outcomes) == [OutcomeKind.ACCEPTED] * len(outcomes)


# ── listing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_listing_shows_what_was_made(cloud):
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 3, tags={"team": "shop"})
    vms = await cloud.vms()
    for each in ids:
        vm = vms[each]
        assert (vm.id, vm.fleet, vm.state, vm.vm_type) == (each, fleet, VmState.STOPPED, cloud.vm_type)
        assert vm.zone.startswith(cloud.zone)
        assert vm.image.startswith(cloud.image)
        assert vm.address is None or vm.address.count(".") == 3
        assert math.isfinite(vm.launched_at_s)
        assert dict(vm.tags) == {"Name": fleet, "team": "shop", FLEET_TAG: fleet}


async def test_only_vms_with_the_ownership_tag_are_seen(cloud):
    strangers = await cloud.seed("", 2)
    owned = await cloud.seed(cloud.new_fleet(), 1)
    vms = await cloud.vms()
    assert set(owned) <= vms.keys()
    assert not set(strangers) & vms.keys()


async def test_a_listing_is_dated_by_the_clock_and_names_each_vm_once(cloud):
    await cloud.seed(cloud.new_fleet(), 2)
    before_s = cloud.clock.now()
    listing = await cloud.provider.list_vms()
    assert before_s <= listing.requested_at_s <= listing.received_at_s <= cloud.clock.now()
    assert listing.complete
    assert listing.error == ""
    assert len({vm.id for vm in listing.vms}) == len(listing.vms)


async def test_a_whole_listing_is_whole_for_every_zone_in_it(cloud):
    await cloud.seed(cloud.new_fleet(), 2)
    listing = await cloud.provider.list_vms()
    assert set(listing.parts.values()) <= {""}
    assert all(listing.is_whole_of(vm.zone) for vm in listing.vms)
    if listing.parts:
        assert {vm.zone for vm in listing.vms} <= listing.parts.keys()


async def test_a_start_dates_the_launch_anew(cloud):
    cloud.needs("time")
    ids = await cloud.seed(cloud.new_fleet(), 1)
    first = (await cloud.vms())[ids[0]].launched_at_s
    await cloud.clock.sleep_until(cloud.clock.monotonic() + 5)
    await cloud.provider.start(ids)
    again = (await cloud.vms())[ids[0]].launched_at_s
    assert first + 4 <= again <= cloud.clock.now()


async def test_a_failed_listing_is_a_value(cloud):
    cloud.needs("faults")
    for window_s in WINDOWS_S:
        now_s = await cloud.age_s()
        await cloud.fault(
            "api_error",
            actions=["DescribeInstances"],
            code="UnauthorizedOperation",
            start_s=now_s,
            end_s=now_s + window_s,
        )
        listing = await cloud.provider.list_vms()
        if not listing.complete:
            break
    assert not listing.complete
    assert "UnauthorizedOperation" in listing.error
    # It must not show a VM as gone, because it says of no zone that it is complete.
    assert not any(listing.parts.get(zone) == "" for zone in ("", cloud.zone))
    assert not listing.is_whole_of(cloud.zone)

    async def healed():
        return (await cloud.provider.list_vms()).complete

    await cloud.until(healed)


# ── start and stop ──────────────────────────────────────────────────────────────────────────────────────


async def test_start_and_stop_there_and_back(cloud):
    ids = await cloud.seed(cloud.new_fleet(), 3)
    started = await cloud.provider.start(ids)
    assert [each.vm_id for each in started] == list(ids)
    assert accepted(started)
    assert {each.previous_state for each in started} == {VmState.STOPPED}
    assert {each.code for each in started} == {""}
    await cloud.until_all(ids, VmState.RUNNING)
    stopped = await cloud.provider.stop(ids)
    assert [each.vm_id for each in stopped] == list(ids)
    assert accepted(stopped)
    assert {each.previous_state for each in stopped} == {VmState.RUNNING}
    await cloud.until_all(ids, VmState.STOPPED)


async def test_outcomes_are_in_the_order_asked(cloud):
    ids = await cloud.seed(cloud.new_fleet(), 4)
    asked = [ids[2], ids[0], ids[3], ids[1], ids[0]]
    for call in (cloud.provider.start, lambda vm_ids: cloud.provider.tag(vm_ids, {"a": "b"})):
        assert [each.vm_id for each in await call(asked)] == asked


async def test_starting_a_running_vm_is_accepted_and_seen_for_what_it_is(cloud):
    ids = await cloud.seed(cloud.new_fleet(), 2, "running")
    again = await cloud.provider.start(ids)
    assert accepted(again)
    assert {each.previous_state for each in again} == {VmState.RUNNING}
    assert await cloud.states(ids) == [VmState.RUNNING] * 2


async def test_stopping_a_stopped_vm_is_accepted_and_seen_for_what_it_is(cloud):
    ids = await cloud.seed(cloud.new_fleet(), 2)
    again = await cloud.provider.stop(ids)
    assert accepted(again)
    assert {each.previous_state for each in again} == {VmState.STOPPED}


@pytest.mark.parametrize("verb", ["start", "terminate", "tag"])
async def test_a_batch_with_an_absent_vm_changes_none(cloud, verb):
    if verb == "tag":
        cloud.needs("tags of absent VMs")
    good = await cloud.seed(cloud.new_fleet(), 2)
    calls = {
        "start": cloud.provider.start,
        "terminate": cloud.provider.terminate,
        "tag": lambda vm_ids: cloud.provider.tag(vm_ids, {"new": "tag"}),
    }
    outcomes = await calls[verb]([good[0], cloud.absent, good[1]])
    assert kinds(outcomes) == [OutcomeKind.REFUSED] * 3
    assert outcomes[1].code == "InvalidInstanceID.NotFound"
    assert {outcomes[0].code, outcomes[2].code} in ({BATCH_REFUSED}, {"InvalidInstanceID.NotFound"})
    assert all(each.message for each in outcomes)
    vms = await cloud.vms()
    assert [vms[each].state for each in good] == [VmState.STOPPED] * 2
    assert not any("new" in vms[each].tags for each in good)
    assert accepted(await calls[verb]([each.vm_id for each in outcomes if each.code == BATCH_REFUSED]))


async def test_a_malformed_id_is_refused(cloud):
    outcomes = await cloud.provider.start([cloud.malformed])
    assert kinds(outcomes) == [OutcomeKind.REFUSED]


async def test_a_pending_vm_cannot_be_stopped_and_holds_no_other_up(cloud):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    pending, running = (await cloud.seed(fleet, 1))[0], (await cloud.seed(fleet, 1, "running"))[0]
    await cloud.fault("stuck_pending", vm_ids=[pending])
    assert accepted(await cloud.provider.start([pending]))
    assert await cloud.states([pending]) == [VmState.PENDING]
    outcomes = await cloud.provider.stop([running, pending])
    assert kinds(outcomes) == [OutcomeKind.REFUSED] * 2
    assert [each.code for each in outcomes] == [BATCH_REFUSED, "IncorrectInstanceState"]
    assert await cloud.states([running]) == [VmState.RUNNING]


async def test_a_stopping_vm_cannot_be_started(cloud):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 1, "running")
    await cloud.fault("stuck_stopping", fleet=fleet)
    assert accepted(await cloud.provider.stop(ids))
    (outcome,) = await cloud.provider.start(ids)
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "IncorrectInstanceState")


async def test_a_start_that_falls_back_says_why_in_the_listing(cloud):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 1)
    await cloud.fault("fall_back", fleet=fleet, delay_s=2)
    assert accepted(await cloud.provider.start(ids))

    async def fell_back():
        vm = (await cloud.vms())[ids[0]]
        return (vm.state, vm.state_reason) == (VmState.STOPPED, "Server.InsufficientInstanceCapacity")

    await cloud.until(fell_back)


@pytest.mark.parametrize(
    ("kind", "code", "outcome"),
    [
        ("no_capacity", "", OutcomeKind.NO_CAPACITY),
        ("no_capacity", "VcpuLimitExceeded", OutcomeKind.NO_CAPACITY),
        ("throttle", "", OutcomeKind.THROTTLED),
        ("api_error", "InternalError", OutcomeKind.UNKNOWN),
        ("api_error", "Unavailable", OutcomeKind.UNKNOWN),
        ("api_error", "UnauthorizedOperation", OutcomeKind.DENIED),
        ("api_error", "RequestExpired", OutcomeKind.DENIED),
        ("api_error", "UnsupportedOperation", OutcomeKind.REFUSED),
    ],
)
async def test_what_a_failed_start_and_a_failed_provision_are_called(cloud, kind, code, outcome):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 2)
    actions = {} if kind == "no_capacity" else {"actions": ["StartInstances", "RunInstances"]}
    await cloud.fault(kind, fleet=fleet, **actions, **({"code": code} if code else {}))
    started = await cloud.provider.start(ids)
    assert [(each.vm_id, each.kind) for each in started] == [(each, outcome) for each in ids]
    made = await cloud.provider.provision(ProvisionSpec(fleet, fleet), 2, fleet)
    assert [(each.vm_id, each.kind) for each in made] == [("", outcome)]
    assert all(each.code and each.message for each in (*started, *made))
    vms = await cloud.vms()
    assert {vm.id: vm.state for vm in vms.values() if vm.fleet == fleet} == dict.fromkeys(
        ids, VmState.STOPPED
    )


async def test_a_lost_reply_is_unknown_and_a_listing_settles_it(cloud):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 2)
    await cloud.fault("lost_reply", fleet=fleet, actions=["StartInstances"])
    assert kinds(await cloud.provider.start(ids)) == [OutcomeKind.UNKNOWN] * 2
    await cloud.until_all(ids, VmState.RUNNING)


# ── provision, terminate, tag ───────────────────────────────────────────────────────────────────────────


async def test_a_provision_makes_owned_vms(cloud):
    fleet = cloud.new_fleet()
    seeds = await cloud.seed(fleet, 1)
    spec = ProvisionSpec(fleet, fleet, version="$Latest", vm_type=cloud.bigger_type, tags={"team": "shop"})
    outcomes = await cloud.provider.provision(spec, cloud.several, f"token {fleet}")
    ids = [each.vm_id for each in outcomes]
    assert accepted(outcomes)
    assert len(set(ids)) == cloud.several
    await cloud.until_all(ids, VmState.RUNNING)
    vms = await cloud.vms()
    assert {vm.id for vm in vms.values() if vm.fleet == fleet} == {*seeds, *ids}
    for each in ids:
        assert vms[each].vm_type == cloud.bigger_type
        assert vms[each].image == vms[seeds[0]].image
        own = {key: value for key, value in vms[each].tags.items() if not key.startswith("aws:")}
        assert own == {"Name": fleet, "team": "shop", FLEET_TAG: fleet}


async def test_the_same_token_never_creates_twice(cloud):
    cloud.needs("tokens")
    fleet = cloud.new_fleet()
    await cloud.seed(fleet, 1)
    spec = ProvisionSpec(fleet, fleet)
    first = await cloud.provider.provision(spec, 2, f"token {fleet}")
    again = await cloud.provider.provision(spec, 2, f"token {fleet}")
    assert {each.vm_id for each in again} == {each.vm_id for each in first}
    assert accepted(again)
    (other,) = await cloud.provider.provision(spec, 3, f"token {fleet}")
    assert (other.vm_id, other.kind, other.code) == ("", OutcomeKind.REFUSED, "IdempotentParameterMismatch")
    assert sum(vm.fleet == fleet for vm in (await cloud.vms()).values()) == 3


async def test_a_lost_reply_to_a_provision_is_found_again_by_its_token(cloud):
    cloud.needs("faults", "tokens")
    for window_s in WINDOWS_S:
        fleet = cloud.new_fleet()
        await cloud.seed(fleet, 1)
        now_s = await cloud.age_s()
        window = {"start_s": now_s, "end_s": now_s + window_s}
        await cloud.fault("lost_reply", fleet=fleet, actions=["RunInstances"], **window)
        spec = ProvisionSpec(fleet, fleet)
        found = kinds(await cloud.provider.provision(spec, 2, f"token {fleet}"))
        if found == [OutcomeKind.UNKNOWN]:
            break
    assert found == [OutcomeKind.UNKNOWN]

    async def settled():
        return accepted(await cloud.provider.provision(spec, 2, f"token {fleet}"))

    await cloud.until(settled)
    assert sum(vm.fleet == fleet for vm in (await cloud.vms()).values()) == 3


async def test_as_many_are_made_as_there_is_room_for_and_the_token_stands_for_these(cloud):
    cloud.needs("counts", "scarce room")
    fleet = cloud.new_fleet()
    await cloud.seed(fleet, 1)
    spec = ProvisionSpec(fleet, fleet, vm_type=cloud.scarce_type)
    *made, short = await cloud.provider.provision(spec, cloud.room + 1, f"token {fleet}")
    assert (accepted(made), len(made)) == (True, cloud.room)
    assert (short.vm_id, short.kind, short.code) == ("", OutcomeKind.NO_CAPACITY, ROOM_FOR_FEWER)
    (none,) = await cloud.provider.provision(spec, 2, f"more {fleet}")
    assert (none.vm_id, none.kind, none.code) == ("", OutcomeKind.NO_CAPACITY, "InsufficientInstanceCapacity")
    await cloud.provider.terminate([each.vm_id for each in made])
    await cloud.until_all([each.vm_id for each in made], VmState.TERMINATED)
    assert await cloud.provider.provision(spec, cloud.room + 1, f"token {fleet}") == (*made, short)


@pytest.mark.parametrize("template", ["no-such-template", "lt-0fedcba9876543210"])
async def test_a_provision_from_nowhere_is_refused_once(cloud, template):
    if template.startswith("lt-"):
        cloud.needs("templates by id")
    fleet = cloud.new_fleet()
    outcomes = await cloud.provider.provision(ProvisionSpec(fleet, template), 2, f"token {fleet}")
    assert [(each.vm_id, each.kind) for each in outcomes] == [("", OutcomeKind.REFUSED)]


@pytest.mark.parametrize(("count", "token"), [(0, "token"), (1, "")])
async def test_a_provision_of_nothing_or_without_a_token_is_a_bug(cloud, count, token):
    with pytest.raises(InvariantError):
        await cloud.provider.provision(ProvisionSpec("fleet", "template"), count, token)


async def test_a_terminated_vm_is_gone_for_good(cloud):
    ids = await cloud.seed(cloud.new_fleet(), 2)
    outcomes = await cloud.provider.terminate(ids)
    assert [each.vm_id for each in outcomes] == list(ids)
    assert accepted(outcomes)
    assert {each.previous_state for each in outcomes} == {VmState.STOPPED}
    assert set(await cloud.states(ids)) <= {VmState.TERMINATED, None}
    cloud.needs("terminated")
    assert kinds(await cloud.provider.start(ids)) == [OutcomeKind.REFUSED] * 2


async def test_tags_are_written_and_overwritten(cloud):
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 2, tags={"team": "shop"})
    outcomes = await cloud.provider.tag(ids, {"team": "cart", "hands off": "until Monday"})
    assert [each.vm_id for each in outcomes] == list(ids)
    assert accepted(outcomes)
    wanted = {"Name": fleet, FLEET_TAG: fleet, "team": "cart", "hands off": "until Monday"}
    vms = await cloud.vms()
    assert [dict(vms[each].tags) for each in ids] == [wanted] * 2


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stopped_vm_starts_as_another_type(cloud):
    cloud.needs("types")
    first, other = await cloud.seed(cloud.new_fleet(), 2)
    (running,) = await cloud.seed(cloud.new_fleet(), 1, state="running")
    outcomes = await cloud.provider.retype([first, running, cloud.absent], cloud.other_type)
    assert kinds(outcomes) == [OutcomeKind.ACCEPTED, OutcomeKind.REFUSED, OutcomeKind.REFUSED]
    assert [o.code for o in outcomes] == ["", "IncorrectInstanceState", "InvalidInstanceID.NotFound"]
    assert accepted(await cloud.provider.start([first]))
    vms = await cloud.vms()
    assert [vms[i].vm_type for i in (first, other, running)] == [
        cloud.other_type,
        cloud.vm_type,
        cloud.vm_type,
    ]


async def test_a_forced_stop_ends_what_does_not_stop(cloud):
    cloud.needs("faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 1, state="running")
    await cloud.fault("stuck_stopping", fleet=fleet)
    assert accepted(await cloud.provider.stop(ids))
    assert await cloud.states(ids) == [VmState.STOPPING]
    assert accepted(await cloud.provider.stop(ids, force=True))
    await cloud.until_all(ids, VmState.STOPPED)


async def test_a_vm_has_another_public_address_after_each_start_and_none_while_it_is_off(cloud):
    cloud.needs("public addresses")
    fleet = cloud.new_fleet()
    (vm_id,) = await cloud.seed(fleet, 1, "running", public=True)
    (private,) = await cloud.seed(fleet, 1, "running")
    first = (await cloud.vms())[vm_id]
    assert first.public_address.count(".") == 3
    assert accepted(await cloud.provider.stop([vm_id]))
    await cloud.until_all([vm_id], VmState.STOPPED)
    assert (await cloud.vms())[vm_id].public_address is None
    assert accepted(await cloud.provider.start([vm_id]))
    vms = await cloud.vms()
    assert vms[vm_id].public_address not in {None, first.public_address}
    assert vms[vm_id].address == first.address
    assert vms[private].public_address is None
    spec = ProvisionSpec(fleet, fleet)
    made = await cloud.provider.provision(spec, 1, f"token {fleet}")
    assert (await cloud.vms())[made[0].vm_id].public_address


async def test_a_vm_that_was_launched_for_it_hibernates_and_the_listing_says_so_and_since_when(cloud):
    cloud.needs("hibernation")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 2, "running", hibernation=True)
    before_s = math.floor(cloud.clock.now())
    vms = await cloud.vms()
    assert [(vms[i].may_hibernate, vms[i].hibernates, vms[i].stopped_at_s) for i in ids] == [
        (True, False, None)
    ] * 2
    assert accepted(await cloud.provider.stop([ids[0]], hibernate=True))
    assert accepted(await cloud.provider.stop([ids[1]]))
    await cloud.until_all(ids, VmState.STOPPED)
    vms = await cloud.vms()
    assert [vms[i].hibernates for i in ids] == [True, False]
    assert vms[ids[0]].state_reason == HIBERNATED_REASON
    assert all(before_s <= vms[i].stopped_at_s <= cloud.clock.now() for i in ids)
    assert accepted(await cloud.provider.start(ids))
    await cloud.until_all(ids, VmState.RUNNING)
    vms = await cloud.vms()
    assert not any(vms[i].hibernates for i in ids)


async def test_a_vm_that_was_not_launched_for_it_is_refused_to_hibernate_and_others_are_not(cloud):
    cloud.needs("hibernation")
    fleet = cloud.new_fleet()
    (able,) = await cloud.seed(fleet, 1, "running", hibernation=True)
    (other,) = await cloud.seed(cloud.new_fleet(), 1, "running")
    outcomes = await cloud.provider.stop([able, other], hibernate=True)
    assert kinds(outcomes) == [OutcomeKind.REFUSED] * 2
    assert [each.code for each in outcomes] == [BATCH_REFUSED, NO_HIBERNATION]
    assert await cloud.states([able, other]) == [VmState.RUNNING] * 2
    assert not (await cloud.vms())[other].may_hibernate
    assert accepted(await cloud.provider.stop([other]))


async def test_a_new_vm_cannot_hibernate_yet(cloud):
    cloud.needs("hibernation", "hibernation that must wait")
    fleet = cloud.new_fleet()
    await cloud.seed(fleet, 1, hibernation=True)
    made = await cloud.provider.provision(ProvisionSpec(fleet, fleet), 1, f"token {fleet}")
    ids = [each.vm_id for each in made]
    await cloud.until_all(ids, VmState.RUNNING)
    assert (await cloud.vms())[ids[0]].may_hibernate
    (outcome,) = await cloud.provider.stop(ids, hibernate=True)
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, NOT_YET)

    async def taken():
        return accepted(await cloud.provider.stop(ids, hibernate=True))

    await cloud.until(taken)


async def test_checked_names_running_vms_only(cloud):
    fleet = cloud.new_fleet()
    running, stopped = await cloud.seed(fleet, 2, "running"), await cloud.seed(fleet, 1)
    assert await cloud.provider.checked([*running, *stopped]) == set(running)
    assert await cloud.provider.checked([*running, cloud.absent]) == set(running)
    assert await cloud.provider.checked([cloud.absent]) == frozenset()


async def test_checked_waits_for_the_guest(cloud):
    cloud.needs("checks", "faults")
    fleet = cloud.new_fleet()
    ids = await cloud.seed(fleet, 2)
    await cloud.fault("unready", vm_ids=[ids[0]])
    await cloud.provider.start(ids)
    await cloud.until_all(ids, VmState.RUNNING)

    async def second_is_ready():
        return await cloud.provider.checked(ids) == {ids[1]}

    await cloud.until(second_is_ready)


async def test_nothing_asked_is_nothing_done(cloud):
    provider = cloud.provider
    assert await provider.start([]) == await provider.stop([]) == await provider.terminate([]) == ()
    assert await provider.tag([], {"a": "b"}) == ()
    assert await provider.checked([]) == frozenset()


async def test_it_is_a_provider(cloud):
    provider: Provider = cloud.provider
    methods = [name for name, member in vars(Provider).items() if callable(member) and name[0] != "_"]
    assert "list_vms" in methods
    assert all(callable(getattr(provider, name)) for name in methods)
