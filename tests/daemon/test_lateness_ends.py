"""Every transient state ends: a stop that never ends is written off, a late start is not counted on, each reported once."""

from autoscaler.daemon.vms.tracked import Phase
from autoscaler.ports import Verb, VmState
from tests.daemon.one_vm import Fleet, in_service

STEP_S = 10


def events_and_counts(fleet, state, from_s, to_s):
    """Show a VM in one state over listings; return the events by second, and the counts of starting and stopping VMs."""
    events, counts = [], {}
    for at_s in range(int(from_s), int(to_s), STEP_S):
        events += [(at_s, kind) for kind in fleet.see(state, at_s)]
        counted = fleet.counts(at_s)
        counts[at_s] = counted.starting, counted.stopping
    return events, counts


def test_a_stop_that_never_ends_is_written_off_once_and_counts_no_more():
    fleet = in_service(at=100)
    stuck_s = fleet.inventory.patience.stuck_s
    fleet.order(Verb.STOP, 200)
    events, counts = events_and_counts(fleet, VmState.STOPPING, 210, 200 + stuck_s + 900)
    (gone_s,) = [at_s for at_s, kind in events if kind == "vm_written_off"]
    assert 200 + stuck_s < gone_s <= 200 + stuck_s + STEP_S
    assert fleet.phase is Phase.LOST
    assert counts[gone_s - STEP_S] == (0, 1)
    assert {of for at_s, of in counts.items() if at_s >= gone_s} == {(0, 0)}
    # If it stops after all, it is in the pool again.
    fleet.see(VmState.STOPPED, 5000)
    assert fleet.counts(5000).startable == 1


def test_a_start_that_does_not_come_is_told_once_and_not_counted_on_from_then_on():
    fleet = Fleet()
    coming_s = fleet.inventory.patience.coming_s(new=False)
    fleet.order(Verb.START, 100)
    end_s = 100 + fleet.inventory.patience.written_off_s(new=False)
    events, counts = events_and_counts(fleet, VmState.PENDING, 110, end_s)
    (overdue_s,) = [at_s for at_s, kind in events if kind == "start_overdue"]
    assert 100 + coming_s < overdue_s <= 100 + coming_s + STEP_S
    # From when it is late, another one may take its place.
    late_s = min(at_s for at_s, kind in events if kind in ("start_late", "start_overdue"))
    assert counts[late_s - STEP_S] == (1, 0)
    assert {of for at_s, of in counts.items() if at_s >= overdue_s} == {(0, 0)}
