"""New VMs: how long they count before a listing shows them."""

from autoscaler.daemon.vms.inventory import FleetInventory, Patience, Phase
from autoscaler.ports import Outcome, OutcomeKind, Verb, VmState
from tests.daemon.builders import listing, reconcile, vm

PENDING, RUNNING = VmState.PENDING, VmState.RUNNING


def test_a_vm_made_by_us_is_not_absent_while_listings_may_lag():
    fleet = FleetInventory("web", Patience())
    fleet.sent(Verb.PROVISION, (), 1, 3, 100)
    assert fleet.counts(100, 0).starting == 1
    fleet.provisioned([Outcome("i-9", OutcomeKind.ACCEPTED)], {"i-9": vm("i-9", PENDING)}, 3, 101)
    for at in (101, 110, 120, 130):
        reconcile(fleet, listing(at=at), [], at)
        counts = fleet.counts(at, 0)
        assert (counts.starting, counts.provisioned) == (1, 1)
    shown = vm("i-9", RUNNING, launched=101)
    reconcile(fleet, listing(shown, at=131), [shown], 131)
    fleet.mark_ready(["i-9"], 131)
    assert fleet.vms["i-9"].phase is Phase.IN_SERVICE
    assert fleet.take_start_times() == [30.0]


def test_a_provisioning_of_unknown_outcome_counts_until_a_listing_can_tell():
    fleet = FleetInventory("web", Patience())
    fleet.sent(Verb.PROVISION, (), 3, 5, 100)
    fleet.provisioned([Outcome("", OutcomeKind.UNKNOWN)], {}, 5, 100)
    two = [vm("i-1", PENDING, launched=100), vm("i-2", PENDING, launched=100)]
    reconcile(fleet, listing(*two, at=110), two, 110)
    counts = fleet.counts(110, 0)
    assert (counts.starting, counts.provisioned) == (3, 3)
    reconcile(fleet, listing(*two, at=131, complete=False), two, 131)
    assert fleet.counts(131, 0).starting == 3
    reconcile(fleet, listing(*two, at=132), two, 132)
    counts = fleet.counts(132, 0)
    assert (counts.starting, counts.provisioned) == (2, 2)


def test_a_provisioning_whose_call_is_under_way_counts_whatever_listings_show_meanwhile():
    """Otherwise each listing would cause a new order. It counts as long as a start is waited for, and no longer."""
    fleet = FleetInventory("web", Patience())
    fleet.sent(Verb.PROVISION, (), 3, 5, 100)
    for at in (110, 200, 279):
        reconcile(fleet, listing(at=at), [], at)
        assert fleet.counts(at, 0).starting == 3
    reconcile(fleet, listing(at=280), [], 280)
    assert fleet.counts(280, 0).starting == 0


def test_a_provisioning_that_failed_counts_no_longer():
    fleet = FleetInventory("web", Patience())
    fleet.sent(Verb.PROVISION, (), 3, 5, 100)
    fleet.provisioned([Outcome("", OutcomeKind.NO_CAPACITY)], {}, 5, 100)
    assert fleet.counts(100, 0).starting == 0


def test_a_vm_listed_before_the_answer_to_its_provisioning_counts_once():
    fleet = FleetInventory("web", Patience())
    fleet.sent(Verb.PROVISION, (), 1, 5, 100)
    shown = vm("i-1", PENDING, launched=100)
    reconcile(fleet, listing(shown, at=101), [shown], 101)
    assert fleet.counts(101, 0).starting == 1
    fleet.provisioned([Outcome("i-1", OutcomeKind.ACCEPTED)], {"i-1": vm("i-1", PENDING)}, 5, 102)
    assert fleet.counts(102, 0).starting == 1
    assert fleet.counts(102, 0).provisioned == 1
