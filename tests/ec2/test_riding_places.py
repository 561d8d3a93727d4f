"""A place without room costs the fleets that start elsewhere next to nothing, whatever is combined."""

import asyncio
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.ports import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    ROOM_REFUSED,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    Vm,
    VmState,
)
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import WAIT_S, BudgetedProvider
from autoscaler.providers.call_combining import APART_S, MOST_VMS
from autoscaler.providers.failing import made_of

ACCEPTED, NO_CAPACITY, REFUSED = OutcomeKind.ACCEPTED, OutcomeKind.NO_CAPACITY, OutcomeKind.REFUSED
DRY_CODE, BAD_CODE = "InsufficientInstanceCapacity", "IncorrectInstanceState"
A, B, C = ("m", "a"), ("m", "b"), ("m", "c")
THREE = [A, B, C]


class Cloud:
    """A cloud that starts all VMs of a call or none. `room` is how many more VMs fit into a place; without an entry, all."""

    answers_at_once = False

    def __init__(self, clock, requests, *, room=(), bad=(), names=False, took_s=0.5, kind=REFUSED, code=""):
        self.clock, self.took_s, self.names, self.kind = clock, took_s, names, kind
        self.place_of = {vm_id: place for place, vm_ids in requests for vm_id in vm_ids}
        self.room, self.bad, self.code = dict(room), set(bad), code or BAD_CODE
        self.calls, self.started = [], Counter()

    async def list_vms(self):
        vms = [Vm(i, "", VmState.STOPPED, *place, None, 0.0, "") for i, place in self.place_of.items()]
        return Listing(tuple(vms), complete=True, requested_at_s=0.0, received_at_s=0.0)

    async def start(self, vm_ids):
        said = self._said(vm_ids)
        self.calls.append((self.clock.monotonic(), tuple(vm_ids), said[0].kind is ACCEPTED))
        await self.clock.sleep_until(self.clock.monotonic() + self.took_s)
        return said

    async def retype(self, vm_ids, vm_type):
        for vm_id in vm_ids:
            self.place_of[vm_id] = (vm_type, self.place_of[vm_id][1])
        return tuple(Outcome(vm_id, ACCEPTED) for vm_id in vm_ids)

    def _said(self, vm_ids):
        bad = self.bad & set(vm_ids)
        if bad and self.names:
            return tuple(
                Outcome(i, self.kind, self.code) if i in bad else Outcome(i, REFUSED, BATCH_REFUSED)
                for i in vm_ids
            )
        if bad:
            return tuple(Outcome(i, self.kind, self.code) for i in vm_ids)
        wanted = Counter(self.place_of[i] for i in vm_ids)
        if any(vms > self.room.get(place, vms) for place, vms in wanted.items()):
            return tuple(Outcome(i, NO_CAPACITY, DRY_CODE, "no room") for i in vm_ids)
        for place, vms in wanted.items():
            if place in self.room:
                self.room[place] -= vms
        self.started.update(vm_ids)
        return tuple(Outcome(i, ACCEPTED) for i in vm_ids)


def asked(requests_of):
    """Requests of 0 or more VMs, as (place, ids), from (place, number of VMs)."""
    numbers = itertools.count()
    return [(place, [f"i-{next(numbers)}" for _ in range(vms)]) for place, vms in requests_of]


def run(requests, *, listed=True, before=None, **cloud):
    """Return the cloud, and for each request when it was answered and by which outcomes."""

    async def main():
        clock = VirtualClock(1e9)
        world = Cloud(clock, requests, **cloud)
        near = BudgetedProvider(world, CallBudget(clock), clock, seed=1)
        if listed:
            await near.list_vms()
        if before is not None:
            await before(near)

        async def ask(vm_ids):
            outcomes = await near.start(vm_ids)
            assert sorted(o.vm_id for o in outcomes) == sorted(vm_ids)
            return clock.monotonic(), outcomes

        said = await asyncio.gather(*(ask(vm_ids) for _, vm_ids in requests))
        return world, said

    return run_virtual(main)


def last_s(requests, said, places):
    """When the last of the VMs in these places was accepted; each must have been."""
    served = [each for (place, _), each in zip(requests, said, strict=True) if place in places]
    assert {o.kind for _, outcomes in served for o in outcomes} == {ACCEPTED}
    return max(at_s for at_s, _ in served)


@pytest.mark.parametrize("took_s", [0.5, 2.0])
def test_more_than_a_hundred_fleets_start_elsewhere_within_seconds_while_a_zone_is_dry(took_s):
    requests = asked((place, 1) for _ in range(120) for place in THREE)
    cloud, said = run(requests, room={A: 0}, took_s=took_s)
    assert last_s(requests, said, [B, C]) < 3.5 + took_s
    # Who wants to start there knows soon that it must be elsewhere.
    dry = [each for (place, _), each in zip(requests, said, strict=True) if place == A]
    assert {o.kind for _, outcomes in dry for o in outcomes} == {NO_CAPACITY}
    assert max(at_s for at_s, _ in dry) < 2.0 + took_s
    assert len([1 for *_, done in cloud.calls if not done]) <= 4
    assert {o.code for _, outcomes in dry for o in outcomes} == {DRY_CODE, ROOM_REFUSED}


@pytest.mark.parametrize("room", [20, 100])
def test_what_room_there_is_gets_used(room):
    requests = asked((place, 1) for _ in range(120) for place in THREE)
    cloud, said = run(requests, room={A: room})
    assert last_s(requests, said, [B, C]) < 6.0
    assert cloud.room[A] == 0
    answers = [outcomes[0] for (place, _), (_, outcomes) in zip(requests, said, strict=True) if place == A]
    told = {(o.kind, o.code) for o in answers}
    assert told == {(ACCEPTED, ""), (NO_CAPACITY, DRY_CODE), (NO_CAPACITY, ROOM_REFUSED)}


def test_a_few_vms_still_fit_where_many_did_not():
    # The largest of them are called for first; what is refused to them says nothing about the smaller ones.
    requests = asked((A, vms) for vms in (40, 40, 40, 40, 30, 30, 2, 2, 2))
    _, said = run(requests, room={A: 10})
    small = [outcomes for _, outcomes in said[-3:]]
    assert {o.kind for outcomes in small for o in outcomes} == {ACCEPTED}
    assert {o.kind for _, outcomes in said[:-3] for o in outcomes} == {NO_CAPACITY}


def test_in_fair_weather_dozens_of_places_take_few_calls():
    places = [(f"m{n}", zone) for n in range(10) for zone in "abc"]
    requests = asked((place, 2) for _ in range(10) for place in places)
    cloud, said = run(requests)
    assert len(cloud.calls) <= 4 + 11
    assert last_s(requests, said, places) < 0.9 * WAIT_S
    assert max(len(vm_ids) for _, vm_ids, _ in cloud.calls) <= MOST_VMS


def test_while_others_spend_the_budget_few_calls_matter_more_than_separate_ones():
    requests = asked((place, 1) for _ in range(20) for place in THREE)

    async def throttled(near):
        near.budget.heard("StartInstances", refused=True)

    cloud, said = run(requests, before=throttled)
    assert [len(vm_ids) for _, vm_ids, _ in cloud.calls] == [60]
    assert last_s(requests, said, THREE) < 2.0


def test_one_dry_place_of_dozens_holds_up_those_that_went_with_it_for_a_moment():
    places = [(f"m{n}", zone) for n in range(5) for zone in "abc"]
    requests = asked((place, 2) for _ in range(10) for place in places)
    cloud, said = run(requests, room={places[-1]: 0})
    assert last_s(requests, said, places[:-1]) < WAIT_S
    assert len([1 for *_, done in cloud.calls if not done]) <= 3


@pytest.mark.parametrize("kind", [REFUSED, OutcomeKind.DENIED])
def test_a_vm_that_the_provider_names_costs_the_others_one_call(kind):
    requests = asked((place, 3) for _ in range(100) for place in THREE)
    bad = requests[-1][1][0]
    cloud, said = run(requests, bad=[bad], names=True, kind=kind)
    assert len([1 for *_, done in cloud.calls if not done]) == 1
    assert {(o.kind, o.code) for o in said[-1][1]} == {(kind, BAD_CODE), (REFUSED, BATCH_REFUSED)}
    last = [outcomes for _, outcomes in said[:-1]]
    assert {o.kind for outcomes in last for o in outcomes} == {ACCEPTED}
    assert max(at_s for at_s, _ in said) < 6.0


@pytest.mark.parametrize("kind", [REFUSED, OutcomeKind.DENIED])
def test_a_vm_that_the_provider_does_not_name_is_found_in_halves(kind):
    requests = asked((place, 3) for _ in range(100) for place in THREE)
    cloud, said = run(requests, bad=requests[-1][1][:1], kind=kind)
    assert {o.kind for _, outcomes in said[:-1] for o in outcomes} == {ACCEPTED}
    assert {(o.kind, o.code) for o in said[-1][1]} == {(kind, BAD_CODE)}
    assert max(at_s for at_s, _ in said) < WAIT_S + 1.0
    assert len(cloud.calls) <= 4 + 6 + 2 * 7


def test_places_are_those_of_the_latest_listing_and_of_changes_since():
    # The first four use up the budget. B's VMs were changed to another type after the listing.
    requests = asked([(C, 1)] * 4 + [(B, 3)] * 10 + [(("other", "b"), 3)] * 10)

    async def retyped(near):
        await asyncio.gather(*(near.retype(vm_ids, "other") for _, vm_ids in requests[4:14]))

    cloud, said = run(requests, before=retyped)
    assert last_s(requests, said, [place for place, _ in requests]) < WAIT_S
    assert [len(vm_ids) for _, vm_ids, _ in cloud.calls] == [1] * 4 + [60]


def test_vms_of_unknown_places_are_combined_with_care_and_never_judged_by_another_ones_place():
    requests = asked((place, 1) for _ in range(20) for place in THREE)
    cloud, said = run(requests, listed=False, room={A: 0})
    for (place, _), (_, outcomes) in zip(requests, said, strict=True):
        told = {(o.kind, o.code) for o in outcomes}
        assert told <= {
            (NO_CAPACITY, DRY_CODE) if place == A else (ACCEPTED, ""),
            (OutcomeKind.THROTTLED, BUDGET_SPENT),
        }
    assert len(cloud.calls) <= 4 + 2 * WAIT_S + 1


def test_orders_that_can_wait_are_combined_with_each_other():
    async def main():
        clock = VirtualClock(1e9)
        requests = asked([(A, 1)] * 60)
        world = Cloud(clock, requests)
        near = BudgetedProvider(world, CallBudget(clock), clock, seed=1)
        await near.list_vms()
        await asyncio.gather(*(near.for_refills().start(vm_ids) for _, vm_ids in requests))
        return world.calls

    assert [len(vm_ids) for _, vm_ids, _ in run_virtual(main)] == [1] * 4 + [56]


class Making:
    """A cloud that makes as many VMs as fit; subnet a has room for a few, others for all."""

    answers_at_once = False

    def __init__(self, clock, room, code):
        self.clock, self.room, self.code, self.calls = clock, room, code, []

    async def provision(self, spec, count, token):
        made = min(count, self.room) if spec.subnet == "a" else count
        if spec.subnet == "a":
            self.room -= made
        self.calls.append((self.clock.monotonic(), spec.subnet, count))
        await self.clock.sleep_until(self.clock.monotonic() + 0.5)
        if not made:
            return (Outcome("", NO_CAPACITY, self.code, "no room"),)
        return made_of([f"i-{token}-{n}" for n in range(made)], count)


@pytest.mark.parametrize("room", [0, 3, 20])
def test_new_vms_that_wait_are_not_asked_for_where_there_was_just_no_room(room):
    async def main():
        clock = VirtualClock(1e9)
        world = Making(clock, room, DRY_CODE)
        near = BudgetedProvider(world, CallBudget(clock), clock, seed=1)

        async def ask(subnet, count, token):
            spec = ProvisionSpec("web", "web", vm_type="m", subnet=subnet)
            outcomes = await near.provision(spec, count, token)
            return subnet, count, outcomes, clock.monotonic()

        wanted = [("a", 2)] * 40 + [("b", 2)] * 8 + [("a", 1)]
        return world, await asyncio.gather(*(ask(*each, f"t{n}") for n, each in enumerate(wanted)))

    world, said = run_virtual(main)
    # Four calls are sent before the first answer, and one of those that fit gives way to the next.
    assert len([1 for _, subnet, _ in world.calls if subnet == "a"]) <= 5 + room // 2
    made = sum(o.kind is ACCEPTED for subnet, _, outcomes, _ in said if subnet == "a" for o in outcomes)
    assert made == room
    for subnet, count, outcomes, at_s in said:
        if subnet == "a":
            assert outcomes[-1].kind is NO_CAPACITY or len(outcomes) == count
            assert at_s < 1.5 + room / 2
        else:
            assert [o.kind for o in outcomes] == [ACCEPTED] * count
            assert at_s < 7.0 + room / 2


def test_a_quota_that_is_used_up_says_nothing_about_calls_for_fewer_new_vms():
    async def main():
        clock = VirtualClock(1e9)
        world = Making(clock, 0, "VcpuLimitExceeded")
        near = BudgetedProvider(world, CallBudget(clock), clock, seed=1)
        spec = ProvisionSpec("web", "web", vm_type="m", subnet="a")
        said = await asyncio.gather(*(near.provision(spec, n, f"t{n}") for n in (5, 5, 5, 5, 5, 5, 1)))
        return [each.code for (each,) in said]

    assert run_virtual(main) == ["VcpuLimitExceeded"] * 5 + [ROOM_REFUSED, "VcpuLimitExceeded"]


def test_a_place_is_combined_with_others_again_after_a_while():
    async def main():
        clock = VirtualClock(1e9)
        places = [(f"m{n}", "a") for n in range(20)]
        requests = asked((place, 1) for _ in range(4) for place in places)
        world = Cloud(clock, requests, room={places[-1]: 0})
        near = BudgetedProvider(world, CallBudget(clock), clock, seed=1)
        await near.list_vms()
        await asyncio.gather(*(near.start(vm_ids) for _, vm_ids in requests[:40]))
        await clock.sleep_until(clock.monotonic() + APART_S + 1.0)
        world.room.clear()
        world.calls.clear()
        await asyncio.gather(*(near.start(vm_ids) for _, vm_ids in requests[40:]))
        return world

    world = run_virtual(main)
    assert max(len({world.place_of[i] for i in vm_ids}) for _, vm_ids, _ in world.calls) > 1


requests_of = st.lists(
    st.tuples(st.sampled_from([("m", zone) for zone in "abcdefg"]), st.integers(1, 4)),
    min_size=1,
    max_size=60,
)


@given(
    requests_of,
    st.dictionaries(st.sampled_from([("m", zone) for zone in "abcdefg"]), st.integers(0, 30)),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_refused_each_fleet_hears_what_is_true_of_its_own_vms(which, room, data):
    requests = asked(which)
    every = [vm_id for _, vm_ids in requests for vm_id in vm_ids]
    bad = data.draw(st.sets(st.sampled_from(every), max_size=2))
    names, took_s = data.draw(st.booleans()), data.draw(st.sampled_from([0.05, 0.5, 3.0]))
    cloud, said = run(requests, room=room, bad=bad, names=names, took_s=took_s)
    for (place, vm_ids), (_, outcomes) in zip(requests, said, strict=True):
        for outcome in outcomes:
            assert (outcome.kind is ACCEPTED) == (cloud.started[outcome.vm_id] == 1)
            assert cloud.started[outcome.vm_id] <= 1
            if outcome.kind is NO_CAPACITY:
                assert place in room
            if outcome.kind is REFUSED:
                assert bad & set(vm_ids)
    for at_s, vm_ids, _ in cloud.calls:
        assert len(set(vm_ids)) == len(vm_ids) <= MOST_VMS
        assert at_s <= WAIT_S + 0.01


@pytest.mark.parametrize("code", ["ReservationCapacityExceeded", "InsufficientCapacityOnHost"])
def test_a_full_reservation_is_told_only_to_the_request_that_is_bound_to_it(code):
    requests = asked((A, 2) for _ in range(40))
    bound = set(requests[20][1])
    _, said = run(requests, bad=bound, kind=NO_CAPACITY, code=code)
    kinds = [{o.kind for o in outcomes} for _, outcomes in said]
    assert kinds == [{NO_CAPACITY} if n == 20 else {ACCEPTED} for n in range(40)]
    assert ROOM_REFUSED not in {o.code for _, outcomes in said for o in outcomes}
