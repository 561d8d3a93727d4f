"""The drains of one fleet without a daemon around them: what they ask of its balancer, and which VMs they forget."""

from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import SystemClock
from autoscaler.daemon.acts.drain import Drains, carry_on
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.ports import ActionIntent, Outcome, OutcomeKind, Verb, VmState
from tests.daemon.builders import listing, policy, reconcile, vm


class Asked(SimulatedBalancer):
    """A balancer that notes what it is asked."""

    def __init__(self):
        super().__init__(SystemClock())
        self.asked = []

    def _view(self, vms, action):
        self.asked.append((action, [each.id for each in vms]))
        return super()._view(vms, action)


class Fleet:
    """Drains of a fleet with three VMs in service, at second 100."""

    def __init__(self):
        self.balancer = Asked()
        self.drains = Drains(self.balancer, policy())
        self.inventory = FleetInventory("web")
        self.see("i-1", "i-2", "i-3")
        self.inventory.mark_ready(list(self.inventory.vms), 100.0)

    def see(self, *vm_ids, state=VmState.RUNNING):
        rows = [vm(vm_id, state) for vm_id in vm_ids]
        reconcile(self.inventory, listing(*rows, at=100.0), rows, 100.0)

    def order(self, verb, *vm_ids):
        intent = ActionIntent("web", verb, vm_ids, len(vm_ids), "", "")
        self.drains.sent(self.inventory, intent, 100.0)
        return intent

    def in_service(self):
        return sorted(t.vm.id for t in self.inventory.in_phase(Phase.IN_SERVICE))


@pytest.fixture
def fleet():
    return Fleet()


async def test_only_vms_that_need_it_are_admitted_so_that_what_a_person_takes_out_stays_out(fleet):
    fleet.drains.members.to_admit = {"i-1", "i-gone"}
    await fleet.drains.admit_in_service(fleet.inventory, 100.0, 1.0)
    assert fleet.balancer.asked == [("admit", ["i-1"])]
    assert fleet.drains.members.to_admit == set()


async def test_where_the_balancer_lacks_a_vm_it_is_asked_about_the_others(fleet):
    fleet.balancer.lacks = {"i-1"}
    fleet.drains.members.to_admit = {"i-1", "i-2"}
    await fleet.drains.admit_in_service(fleet.inventory, 100.0, 1.0)
    assert fleet.balancer.asked == [("admit", ["i-1", "i-2"]), ("look", ["i-3"])]


async def test_that_the_balancer_lacks_a_vm_which_must_not_serve_is_no_trouble(fleet):
    async def cordon(vms):
        return replace(fleet.balancer._view(vms, "cordon"), error="no entry for i-1")

    fleet.balancer.lacks, fleet.balancer.cordon = {"i-1"}, cordon
    assert await fleet.drains.cordon_for_trial([vm("i-1")], 1.0) == frozenset()
    assert fleet.drains.trouble(100.0) == ""
    fleet.balancer.failures["cordon"] = ""
    assert await fleet.drains.cordon_for_trial([vm("i-1")], 1.0) == {"i-1"}
    assert fleet.drains.trouble(100.0) == "no entry for i-1"


def test_vms_that_are_gone_are_not_drained_on(fleet):
    fleet.order(Verb.DRAIN, "i-1", "i-2")
    fleet.drains._recalled = {"i-3": 90.0, "i-gone": 90.0}
    del fleet.inventory.vms["i-1"]
    assert fleet.drains.resume(fleet.inventory, 100.0) == []
    assert set(fleet.drains.leaving) == {"i-2"}
    assert fleet.drains._recalled == {}


def test_an_answer_about_a_vm_that_is_gone_changes_nothing(fleet):
    intent = fleet.order(Verb.DRAIN, "i-1", "i-2")
    del fleet.inventory.vms["i-1"]
    outcomes = [Outcome(vm_id, OutcomeKind.REFUSED, "", "no") for vm_id in ("i-1", "i-2")]
    (note,) = fleet.drains.settle(fleet.inventory, intent, outcomes, 100.0)
    assert (note.kind, note.text) == ("drain_failed", "i-2: no")
    assert fleet.in_service() == ["i-2", "i-3"]


def test_one_whose_stop_was_not_recorded_is_in_service_when_it_is_taken_back(fleet):
    fleet.order(Verb.DRAIN, "i-1")
    fleet.drains.leaving["i-1"].idle_looks = 2
    assert [
        intent.verb for intent in fleet.drains.ends(fleet.inventory, 110.0, frozenset(), may_stop=True)
    ] == [Verb.STOP]
    fleet.order(Verb.RETURN, "i-1")
    assert fleet.inventory.vms["i-1"].in_service_from_s == 100.0
    assert fleet.inventory.counts(110.0, 0.0).in_service == 3


def test_a_first_balancer_admits_what_is_in_service_and_without_any_nothing_drains(fleet):
    carry_on(fleet.drains, None, fleet.inventory)
    assert fleet.drains.members.to_admit == {"i-1", "i-2", "i-3"}
    fleet.order(Verb.DRAIN, "i-1")
    carry_on(None, fleet.drains, fleet.inventory)
    assert (fleet.in_service(), fleet.drains.let_go_of) == (["i-1", "i-2", "i-3"], ("i-1",))
    carry_on(None, None, fleet.inventory)


async def test_while_no_vm_is_ready_the_balancer_is_not_asked_and_counts_as_answering(fleet):
    class Ready:
        found = frozenset({"i-1"})

        async def ready(self, vms):
            return self.found

    probe = Ready()
    admitting = fleet.drains.admitting(probe)
    vms = fleet.inventory.vms_in(Phase.IN_SERVICE)
    fleet.balancer.failures["admit"] = "the socket is gone"
    assert await admitting.ready(vms) == frozenset()
    assert fleet.drains.silent == "the socket is gone"
    probe.found = frozenset()
    assert await admitting.ready(vms) == frozenset()
    assert fleet.drains.silent == ""
    assert fleet.balancer.asked == [("admit", ["i-1"])]
