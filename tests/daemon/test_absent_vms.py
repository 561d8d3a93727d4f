"""When VMs that listings lack are gone, and when they are not believed to be."""

import pytest

from autoscaler.daemon.vms.inventory import FleetInventory
from autoscaler.ports import Verb, VmState
from tests.daemon.builders import listing, reconcile, vm
from tests.daemon.one_vm import Fleet

PENDING, RUNNING, STOPPING, STOPPED, TERMINATED = VmState


@pytest.mark.parametrize("gap", [False, True])
def test_absence_needs_three_complete_listings_over_its_time_and_never_counts_partial_ones(gap):
    fleet = Fleet(RUNNING)
    fleet.ready(1)
    for at in (10, 20):
        assert fleet.miss(at) == []
    for at in (21, 22, 31, 45, 60):
        assert fleet.miss(at, complete=False) == []
    assert fleet.counts(60).in_service == 1
    if gap:
        fleet.see(RUNNING, 61)
        for at in (70, 80):
            assert fleet.miss(at) == []
        assert fleet.miss(90) == ["vm_gone"]
    else:
        assert fleet.miss(70) == ["vm_gone"]
    assert fleet.inventory.vms.keys() == {"i-other"}


def test_listings_in_quick_succession_do_not_make_a_vm_absent():
    fleet = Fleet()
    for at in range(1, 21):
        assert fleet.miss(at) == []
    assert fleet.miss(21) == ["vm_gone"]


def test_listings_that_may_be_older_than_an_order_do_not_make_its_vm_absent():
    fleet = Fleet(consistency_s=60.0)
    fleet.order(Verb.START, 100)
    assert [fleet.miss(at) for at in (110, 130, 159)] == [[], [], []]
    assert [fleet.miss(at) for at in (160, 170, 180)] == [[], [], ["vm_gone"]]


def test_the_only_vm_of_a_fleet_is_gone_after_ten_minutes_of_listings_without_it():
    fleet = Fleet()
    told = [
        (at, note) for at in range(10, 700, 10) for note in reconcile(fleet.inventory, listing(at=at), [], at)
    ]
    assert [(at, note.kind) for at, note in told] == [(30, "vms_unlisted"), (610, "vm_gone")]
    assert told[0][1].text.startswith(
        "its only VM is not in the list any more; counted as unchanged for 10 min"
    )


@pytest.mark.parametrize(
    ("lacking", "of", "kind"), [(2, 3, "vm_gone"), (3, 6, "vm_gone"), (3, 5, "vms_unlisted")]
)
def test_three_vms_and_more_than_half_that_are_absent_are_not_believed_to_be_gone_at_once(lacking, of, kind):
    inventory = FleetInventory("web")
    rows = [vm(f"i-{number}") for number in range(of)]
    reconcile(inventory, listing(*rows, at=0), rows, 0)
    # One that is gone for good and was never known is neither there nor absent.
    shown = [*rows[lacking:], vm("i-old", VmState.TERMINATED)]
    told = [note for at in (10, 20, 30) for note in reconcile(inventory, listing(*shown, at=at), shown, at)]
    assert {note.kind for note in told} == {kind}


def test_one_that_an_operator_gave_up_is_gone_without_a_word():
    fleet = Fleet()
    fleet.vm.disowned = True
    assert [fleet.miss(at) for at in (10, 20, 30)] == [[], [], []]
    assert "i-1" not in fleet.inventory.vms


def test_two_listings_however_far_apart_do_not_make_a_vm_absent():
    fleet = Fleet()
    assert fleet.miss(10) == []
    assert fleet.miss(1000) == []
    assert fleet.miss(1001) == ["vm_gone"]
