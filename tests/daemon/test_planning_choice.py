"""Which VMs a plan names: balanced zones, stable order, never more than asked, never untouchable ones."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.daemon.acts.planning import WantedVms, plan
from autoscaler.daemon.vms.inventory import PROTECTED_TAG, FleetInventory, Patience
from autoscaler.ports import HIBERNATED_REASON, Outcome, OutcomeKind, ProvisionSpec, Verb, VmState
from tests.daemon.builders import listing, reconcile, vm

NOW_S = 1000.0


def fleet(*vms, name="web"):
    inventory = FleetInventory(name, Patience())
    reconcile(inventory, listing(*vms, at=0), vms, 0)
    inventory.mark_ready([v.id for v in vms if v.state is VmState.RUNNING], 0)
    return inventory


def planned(inventory, start=0, stop=0, provision=0, on_time=0.0, tick=100):
    wanted = WantedVms(start, stop, provision, "why")
    return plan(
        inventory,
        wanted,
        tick=tick,
        now_s=NOW_S,
        minimum_on_time_s=on_time,
        specs=lambda: [ProvisionSpec(inventory.fleet, "template")],
    )


def ids(intents, verb):
    return [vm_id for intent in intents if intent.verb is verb for vm_id in intent.vm_ids]


def stopped(vm_id, zone="a", **more):
    return vm(vm_id, zone=zone, **more)


def running(vm_id, zone="a", **more):
    return vm(vm_id, VmState.RUNNING, zone=zone, **more)


def test_nothing_wanted_plans_nothing():
    assert planned(fleet(stopped("i-1"), running("i-2"))) == []


def test_starts_even_out_zones_with_what_serves():
    inventory = fleet(
        running("r1", "a"), running("r2", "a"), *(stopped(f"{z}{n}", z) for z in "abc" for n in range(3))
    )
    assert Counter(i[0] for i in ids(planned(inventory, start=4), Verb.START)) == {"b": 2, "c": 2}
    assert Counter(i[0] for i in ids(planned(inventory, start=7), Verb.START)) == {"a": 1, "b": 3, "c": 3}


def test_within_a_zone_the_one_that_waited_longest_starts_first():
    inventory = fleet(stopped("i-1", launched=30), stopped("i-2", launched=10), stopped("i-3", launched=10))
    assert ids(planned(inventory, start=2), Verb.START) == ["i-2", "i-3"]


def test_starts_are_grouped_by_type_and_zone():
    vms = [stopped(f"i-{n}", "ab"[n % 2], vm_type="mn"[n // 4]) for n in range(8)]
    intents = planned(fleet(*vms), start=8)
    assert [(i.verb, i.count, i.vm_ids, i.token, i.reason) for i in intents] == [
        (Verb.START, 2, ("i-0", "i-2"), "", "why"),
        (Verb.START, 2, ("i-1", "i-3"), "", "why"),
        (Verb.START, 2, ("i-4", "i-6"), "", "why"),
        (Verb.START, 2, ("i-5", "i-7"), "", "why"),
    ]


def test_quarantined_vms_and_dry_places_are_skipped():
    inventory = fleet(stopped("a1", "a"), stopped("a2", "a"), stopped("b1", "b"), stopped("b2", "b"))
    inventory.sent(Verb.START, ["a1", "b1"], 2, 1, NOW_S)
    outcomes = [Outcome("a1", OutcomeKind.REFUSED, "Bad"), Outcome("b1", OutcomeKind.NO_CAPACITY)]
    inventory.settle(Verb.START, outcomes, NOW_S, NOW_S)
    assert ids(planned(inventory, start=4), Verb.START) == ["a2"]


def test_vms_start_as_they_are_before_any_that_must_change_its_type():
    inventory = fleet(stopped("i-1", launched=10, vm_type="m"), stopped("i-2", launched=20, vm_type="n"))
    inventory.types = ("m", "n")
    inventory.places.found_dry("m", "a", NOW_S)
    assert ids(planned(inventory, start=1), Verb.START) == ["i-2"]
    assert inventory.vms["i-2"].start_as == ""
    assert sorted(ids(planned(inventory, start=2), Verb.START)) == ["i-1", "i-2"]
    assert inventory.vms["i-1"].start_as == "n"


def test_zones_are_even_over_those_that_go_on_from_their_memory_and_the_others():
    saved = replace(stopped("a1", "a"), state_reason=HIBERNATED_REASON, stopped_at_s=NOW_S - 60.0)
    inventory = fleet(saved, stopped("a2", "a", launched=10), stopped("b1", "b", launched=20))
    assert ids(planned(inventory, start=1), Verb.START) == ["a1"]
    assert sorted(ids(planned(inventory, start=2), Verb.START)) == ["a1", "b1"]


def test_stops_drain_the_fullest_zone_and_the_longest_in_service():
    inventory = fleet(running("a1", "a"), running("a2", "a"), running("a3", "a"), running("b1", "b"))
    inventory.vms["a1"].in_service_from_s = 50
    assert ids(planned(inventory, stop=2), Verb.STOP) == ["a2", "a3"]
    assert len(ids(planned(inventory, stop=3), Verb.STOP)) == 3


def test_stops_respect_minimum_on_time_and_protection():
    inventory = fleet(
        running("young", launched=NOW_S - 59),
        running("kept", launched=0, tags={PROTECTED_TAG: "no"}),
        running("old", launched=NOW_S - 60),
    )
    (intent,) = planned(inventory, stop=3, on_time=60)
    assert (intent.vm_ids, intent.count) == (("old",), 1)


@pytest.mark.parametrize("name", ["web", "w" * 63])
def test_a_provision_has_a_token_of_its_own_per_tick_and_fleet(name):
    first, second = (planned(fleet(name=name), provision=3, tick=tick)[0] for tick in (179551440, 179551441))
    other = planned(fleet(name=name[:-1] + "x"), provision=3, tick=179551440)[0]
    again = planned(fleet(name=name), provision=3, tick=179551440)[0]
    assert len({first.token, second.token, other.token}) == 3
    assert again.token == first.token
    assert all(len(i.token) <= 64 and i.token.isascii() for i in (first, second, other))
    assert (first.verb, first.count, first.vm_ids) == (Verb.PROVISION, 3, ())


states = st.sampled_from([VmState.STOPPED, VmState.RUNNING, VmState.PENDING, VmState.STOPPING])


@given(
    st.lists(
        st.tuples(states, st.sampled_from("abc"), st.sampled_from("mn"), st.integers(0, 5)), max_size=30
    ),
    st.integers(0, 40),
    st.integers(0, 40),
)
@settings(max_examples=150, deadline=None)
def test_a_plan_never_names_more_than_asked_nor_a_vm_twice_nor_the_wrong_ones(rows, start, stop):
    vms = [
        vm(f"i-{n}", state, zone=zone, vm_type=vm_type, launched=launched)
        for n, (state, zone, vm_type, launched) in enumerate(rows)
    ]
    inventory = fleet(*vms)
    intents = planned(inventory, start, stop)
    by_state = {state: {v.id for v in vms if v.state is state} for state in VmState}
    starts, stops = ids(intents, Verb.START), ids(intents, Verb.STOP)
    assert len(starts) == len(set(starts)) == min(start, len(by_state[VmState.STOPPED]))
    assert len(stops) == len(set(stops)) == min(stop, len(by_state[VmState.RUNNING]))
    assert set(starts) <= by_state[VmState.STOPPED]
    assert set(stops) <= by_state[VmState.RUNNING]
    assert planned(inventory, start, stop) == intents


def test_a_vm_that_was_to_be_stopped_before_it_served_is_not_once_it_is_protected():
    inventory = FleetInventory("web", Patience())
    vms = [running("i-1"), running("i-2", tags={PROTECTED_TAG: ""})]
    reconcile(inventory, listing(*vms, at=0), vms, 0)
    for t in inventory.vms.values():
        t.dismissed = "it came late"
    assert ids(planned(inventory), Verb.STOP) == ["i-1"]
