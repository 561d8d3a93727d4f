"""What a listing means for each VM, given our last orders and the age of the listing."""

import pytest

from autoscaler.daemon.vms.hedging import ENOUGH
from autoscaler.daemon.vms.inventory import PROTECTED_TAG, FleetInventory, Patience, Phase
from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind, Verb, VmState
from tests.daemon.builders import listing, reconcile, vm
from tests.daemon.one_vm import Fleet, in_service

PENDING, RUNNING, STOPPING, STOPPED, TERMINATED = VmState
CAPACITY = "Server.InsufficientInstanceCapacity"


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (PENDING, Phase.STARTING),
        (RUNNING, Phase.RUNNING),
        (STOPPING, Phase.STOPPING),
        (STOPPED, Phase.STOPPED),
    ],
)
def test_a_vm_found_is_taken_as_listed(state, phase):
    fleet = Fleet(state)
    assert fleet.phase is phase
    assert (fleet.vm.run is not None) is (state is RUNNING)
    assert fleet.counts(0).provisioned == 1


def test_a_terminated_vm_is_never_taken_up():
    assert Fleet(TERMINATED).inventory.vms == {}


ORDERED = [
    # order, outcome, listed, launch time listed, listing at, phase, quarantined, note
    ("start accepted, old row", Verb.START, "accepted", STOPPED, 0, 129, Phase.STARTING, False, []),
    ("start accepted, seen", Verb.START, "accepted", PENDING, 100, 101, Phase.STARTING, False, []),
    ("start accepted, runs", Verb.START, "accepted", RUNNING, 100, 120, Phase.RUNNING, False, []),
    (
        "start accepted, too long",
        Verb.START,
        "accepted",
        STOPPED,
        0,
        190,
        Phase.STOPPED,
        True,
        ["start_fell_back"],
    ),
    (
        "start fell back, proven",
        Verb.START,
        "accepted",
        STOPPED,
        100,
        110,
        Phase.STOPPED,
        True,
        ["start_fell_back"],
    ),
    ("start unknown, old row", Verb.START, "unknown", STOPPED, 0, 129, Phase.STARTING, False, []),
    ("start unknown, taken", Verb.START, "unknown", PENDING, 100, 110, Phase.STARTING, False, []),
    (
        "start unknown, not taken",
        Verb.START,
        "unknown",
        STOPPED,
        0,
        130,
        Phase.STOPPED,
        False,
        ["start_not_taken"],
    ),
    (
        "start unknown, fell back",
        Verb.START,
        "unknown",
        STOPPED,
        100,
        110,
        Phase.STOPPED,
        True,
        ["start_fell_back"],
    ),
    ("start under way", Verb.START, None, STOPPED, 0, 170, Phase.STARTING, False, []),
    ("stop accepted, old row", Verb.STOP, "accepted", RUNNING, 0, 189, Phase.STOPPING, False, []),
    ("stop accepted, seen", Verb.STOP, "accepted", STOPPING, 0, 101, Phase.STOPPING, False, []),
    ("stop accepted, over", Verb.STOP, "accepted", STOPPED, 0, 125, Phase.STOPPED, False, []),
    (
        "stop accepted, not taken",
        Verb.STOP,
        "accepted",
        RUNNING,
        0,
        190,
        Phase.RUNNING,
        False,
        ["stop_not_taken"],
    ),
    ("stop unknown, old row", Verb.STOP, "unknown", RUNNING, 0, 129, Phase.STOPPING, False, []),
    ("stop unknown, taken", Verb.STOP, "unknown", STOPPING, 0, 110, Phase.STOPPING, False, []),
    (
        "stop unknown, not taken",
        Verb.STOP,
        "unknown",
        RUNNING,
        0,
        130,
        Phase.IN_SERVICE,
        False,
        ["stop_not_taken"],
    ),
    (
        "stopped, started anew",
        Verb.STOP,
        "accepted",
        PENDING,
        105,
        110,
        Phase.STARTING,
        False,
        ["started_outside"],
    ),
]


@pytest.mark.parametrize(
    ("verb", "kind", "state", "launched", "at", "phase", "quarantined", "notes"),
    [row[1:] for row in ORDERED],
    ids=[row[0] for row in ORDERED],
)
def test_an_order_and_the_row_that_follows(verb, kind, state, launched, at, phase, quarantined, notes):
    fleet = Fleet(STOPPED if verb is Verb.START else RUNNING)
    if verb is Verb.STOP:
        fleet.ready(1)
    fleet.order(verb, 100, None if kind is None else OutcomeKind(kind))
    assert fleet.see(state, at, launched=launched) == notes
    assert fleet.phase is phase
    assert (fleet.vm.quarantined_until_s > at) is quarantined


@pytest.mark.parametrize("at", [131, 219])
def test_a_call_that_comes_back_late_is_waited_for_from_then_on(at):
    fleet = Fleet()
    fleet.order(Verb.START, 100, back_at=130)
    fleet.see(STOPPED, at)
    assert fleet.phase is Phase.STARTING
    fleet.see(STOPPED, 220)
    assert fleet.phase is Phase.STOPPED


@pytest.mark.parametrize(
    ("verb", "seen", "old"),
    [
        (Verb.START, (PENDING, 100), (STOPPED, 0)),
        (Verb.START, (RUNNING, 100), (STOPPED, 0)),
        (Verb.START, (RUNNING, 100), (PENDING, 100)),
        (Verb.STOP, (STOPPING, 0), (RUNNING, 0)),
        (Verb.STOP, (STOPPED, 0), (RUNNING, 0)),
    ],
)
def test_a_listing_older_than_the_one_before_undoes_nothing(verb, seen, old):
    fleet = Fleet(STOPPED if verb is Verb.START else RUNNING)
    fleet.order(verb, 100)
    fleet.see(seen[0], 110, launched=seen[1])
    before = (fleet.phase, fleet.vm.run, list(fleet.vm.closed_runs), fleet.vm.vm)
    assert fleet.see(old[0], 112, launched=old[1]) == []
    assert (fleet.phase, fleet.vm.run, fleet.vm.closed_runs, fleet.vm.vm) == before


def test_a_start_that_fell_back_for_capacity_makes_its_place_dry_and_the_rest_is_startable():
    inventory = FleetInventory("web", Patience())
    first = [vm(f"i-{n}", zone="ab"[n % 2]) for n in range(4)]
    reconcile(inventory, listing(*first, at=0), first, 0)
    inventory.sent(Verb.START, ["i-0"], 1, 1, 10)
    inventory.settle(Verb.START, [Outcome("i-0", OutcomeKind.ACCEPTED)], 10, 10)
    back = [vm("i-0", launched=10, reason=CAPACITY), *first[1:]]
    notes = reconcile(inventory, listing(*back, at=20), back, 20)
    assert [n.text for n in notes] == [f"i-0 fell back to stopped ({CAPACITY})"]
    assert inventory.dry(20) == [("m", "a")]
    assert sorted(t.vm.id for t in inventory.startable(20)) == ["i-1", "i-3"]
    counts = inventory.counts(20, 0)
    assert (counts.stopped, counts.startable, counts.starting) == (4, 2, 0)
    # When its time is over, one VM is tried there, and no VM is blamed: i-0 has its turn again after i-2.
    assert sorted(t.vm.id for t in inventory.startable(20 + 180)) == ["i-1", "i-2", "i-3"]
    inventory.places.found_room("m", "a")
    assert sorted(t.vm.id for t in inventory.startable(20 + 180)) == ["i-0", "i-1", "i-2", "i-3"]


def test_the_reason_of_an_earlier_stop_is_not_given_for_a_start_that_failed():
    fleet = Fleet()
    fleet.order(Verb.START, 100)
    fleet.see(STOPPED, 190, reason="Client.UserInitiatedShutdown")
    assert fleet.vm.quarantine_reason == "its start fell back to stopped"


@pytest.mark.parametrize(
    ("reason", "note", "quarantined"),
    [
        ("Client.UserInitiatedShutdown", "stopped_outside", False),
        ("Client.InstanceInitiatedShutdown", "start_fell_back", True),
    ],
)
def test_a_vm_that_stops_before_it_is_ready(reason, note, quarantined):
    fleet = Fleet()
    fleet.order(Verb.START, 100)
    fleet.see(RUNNING, 120, launched=100)
    assert fleet.see(STOPPED, 140, reason=reason) == [note]
    assert (fleet.vm.quarantined_until_s > 140) is quarantined
    assert fleet.vm.run is None


@pytest.mark.parametrize(
    ("reason", "hands_off_s", "startable"),
    [
        ("Server.ScheduledStop", 0.0, True),
        ("Server.ScheduledStop", 600.0, True),
        ("Client.UserInitiatedShutdown", 0.0, True),
        ("Client.UserInitiatedShutdown", 600.0, False),
    ],
)
def test_a_vm_in_service_that_somebody_stops_is_noted_and_not_blamed(reason, hands_off_s, startable):
    """It is left alone only if a person did it and the policy gives people time."""
    fleet = in_service(hands_off_s=hands_off_s)
    assert fleet.see(STOPPING, 200, reason=reason) == ["stopped_outside"]
    assert fleet.phase is Phase.STOPPING
    assert fleet.see(STOPPED, 230) == []
    assert [t.vm.id for t in fleet.inventory.startable(230)] == (["i-1"] if startable else [])
    assert (fleet.vm.quarantine_reason == "") is startable
    assert [t.vm.id for t in fleet.inventory.startable(800)] == ["i-1"]


@pytest.mark.parametrize("state", [PENDING, RUNNING])
def test_a_stopped_vm_that_somebody_starts_is_noted_once_and_serves_when_ready(state):
    fleet = Fleet()
    assert fleet.see(state, 50, launched=45) == ["started_outside"]
    assert fleet.see(RUNNING, 60) == []
    fleet.ready(60)
    assert fleet.phase is Phase.IN_SERVICE
    assert fleet.vm.run.counts_start
    assert fleet.inventory.take_start_times() == []


def test_a_stop_like_any_other_is_not_charged_to_what_may_be_overtaken():
    fleet = in_service(at=100)
    fleet.order(Verb.STOP, 5000)
    assert fleet.inventory.hedges.idle_s == 0.0


@pytest.mark.parametrize("state", [PENDING, RUNNING])
def test_an_overdue_start_is_not_counted_on_until_it_moves(state):
    fleet = Fleet(start_s=120)
    fleet.order(Verb.START, 100)
    fleet.see(state, 110, launched=100)
    late = 100 + 120 if state is PENDING else 110 + 120
    assert fleet.see(state, late) == []
    assert fleet.counts(late).starting == 1
    assert fleet.see(state, late + 1) == ["start_overdue"]
    assert fleet.see(state, late + 2) == []
    counts = fleet.counts(late + 2)
    assert (counts.starting, counts.provisioned) == (0, 1)
    fleet.see(RUNNING, late + 10)
    fleet.ready(late + 10)
    assert fleet.counts(late + 10).in_service == 1


def test_a_start_that_was_given_up_is_taken_back_only_once_it_runs():
    fleet = Fleet()
    fleet.order(Verb.START, 100)
    told = [fleet.see(VmState.PENDING, at, launched=100) for at in (110, 1001, 1010)]
    assert (told[1:], fleet.phase) == ([["vm_written_off"], []], Phase.LOST)
    assert (fleet.see(VmState.RUNNING, 1020), fleet.phase) == ([], Phase.RUNNING)


def test_a_stop_that_was_given_up_is_in_the_pool_again_once_it_is_done():
    fleet = in_service(stop_s=100.0)
    fleet.order(Verb.STOP, 200)
    # Seen within the time that it takes, and after twice that, which is when it is abandoned.
    for at, phase in ((210, Phase.STOPPING), (501, Phase.LOST), (510, Phase.LOST)):
        fleet.see(STOPPING, at)
        assert fleet.phase is phase
    assert fleet.see(STOPPED, 520) == []
    assert fleet.phase is Phase.STOPPED


def test_an_overdue_stop_is_noted_once():
    fleet = in_service()
    fleet.order(Verb.STOP, 300)
    assert fleet.see(STOPPING, 1200) == []
    assert fleet.see(STOPPING, 1201) == ["stop_overdue"]
    assert fleet.see(STOPPING, 1300) == []


def test_a_stop_is_overdue_earlier_once_stops_are_known_to_be_quick():
    fleet = in_service(at=100, stop_s=900.0)
    for begin in range(1000, 1000 * (ENOUGH + 1), 1000):
        fleet.order(Verb.STOP, begin)
        assert fleet.see(STOPPING, begin + 10) == fleet.see(STOPPED, begin + 25) == []
        fleet.order(Verb.START, begin + 500)
        assert fleet.see(RUNNING, begin + 520, launched=begin + 500) == []
        fleet.ready(begin + 520)
    last = 1000 * (ENOUGH + 1)
    fleet.order(Verb.STOP, last)
    assert fleet.see(STOPPING, last + 440) == []
    assert fleet.see(STOPPING, last + 460) == ["stop_overdue"]


def test_a_terminated_vm_counts_nowhere_and_its_run_ends():
    fleet = in_service()
    assert fleet.see(TERMINATED, 200) == ["vm_terminated"]
    assert fleet.see(TERMINATED, 210) == []
    assert set(vars_of(fleet.counts(210))) == {0}
    assert fleet.vm.run is None
    assert len(fleet.vm.closed_runs) == 1


def vars_of(counts):
    return [getattr(counts, name) for name in counts.__slots__]


def test_a_restart_finds_running_vms_and_counts_their_on_time_from_their_launch():
    fleet = Fleet()
    fleet.inventory.vms.clear()
    fleet.see(RUNNING, 1000, launched=900)
    fleet.ready(1000)
    assert fleet.counts(1000, on_time=100).stoppable == 1
    assert fleet.counts(1000, on_time=101).stoppable == 0


def test_minimum_on_time_of_our_own_start_runs_from_service():
    fleet = in_service(at=100)
    assert fleet.counts(159.9, on_time=60).stoppable == 0
    assert fleet.counts(160, on_time=60).stoppable == 1


def test_a_protected_vm_is_not_stoppable():
    fleet = Fleet()
    fleet.see(RUNNING, 10, tags={PROTECTED_TAG: ""})
    fleet.ready(10)
    assert (fleet.counts(1e6).in_service, fleet.counts(1e6).stoppable) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "code", "quarantined", "dry"),
    [
        (OutcomeKind.REFUSED, "InvalidParameterValue", True, False),
        (OutcomeKind.REFUSED, BATCH_REFUSED, False, False),
        (OutcomeKind.NO_CAPACITY, "InsufficientInstanceCapacity", False, True),
        (OutcomeKind.THROTTLED, "RequestLimitExceeded", False, False),
        (OutcomeKind.DENIED, "UnauthorizedOperation", False, False),
    ],
)
def test_a_start_that_was_not_accepted_is_stopped_again(kind, code, quarantined, dry):
    fleet = Fleet()
    notes = fleet.order(Verb.START, 100, kind, code)
    assert [(n.kind, n.text) for n in notes] == [("start_not_accepted", f"i-1: {kind} {code} words")]
    assert fleet.phase is Phase.STOPPED
    assert (fleet.vm.quarantined_until_s == 700) is quarantined
    assert bool(fleet.inventory.dry(100)) is dry


def test_a_stop_that_was_not_accepted_leaves_the_vm_in_service():
    fleet = in_service()
    notes = fleet.order(Verb.STOP, 300, OutcomeKind.THROTTLED, "RequestLimitExceeded")
    assert [n.kind for n in notes] == ["stop_not_accepted"]
    assert fleet.phase is Phase.IN_SERVICE
    assert fleet.vm.run is not None


def test_one_note_tells_of_many_vms_with_the_same_trouble():
    inventory = FleetInventory("web", Patience())
    many = [vm(f"i-{n}") for n in range(8)]
    reconcile(inventory, listing(*many, at=0), many, 0)
    ids = [v.id for v in many]
    inventory.sent(Verb.START, ids, 8, 1, 1)
    outcomes = [Outcome(i, OutcomeKind.DENIED, "UnauthorizedOperation", "no") for i in ids]
    notes = inventory.settle(Verb.START, outcomes, 1, 1)
    assert [n.text for n in notes] == ["i-0, i-1, i-2, i-3, i-4 and 3 more: denied UnauthorizedOperation no"]


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP])
def test_an_action_of_an_earlier_run_is_held_like_one_of_unknown_outcome(verb):
    fleet = Fleet(STOPPED if verb is Verb.START else RUNNING)
    fleet.inventory.recall(verb, ["i-1", "i-unknown"], 9, sent_at_s=5)
    assert fleet.phase is (Phase.STARTING if verb is Verb.START else Phase.STOPPING)
    assert fleet.inventory.unsettled_actions() == {9}
    fleet.inventory.recall(verb, ["i-1"], 9, sent_at_s=5)
    kept = STOPPED if verb is Verb.START else RUNNING
    fleet.see(kept, 34)
    assert fleet.phase is (Phase.STARTING if verb is Verb.START else Phase.STOPPING)
    assert fleet.see(kept, 35) == ["start_not_taken" if verb is Verb.START else "stop_not_taken"]
    assert fleet.phase is (Phase.STOPPED if verb is Verb.START else Phase.RUNNING)
    assert fleet.inventory.unsettled_actions() == set()


def test_an_action_of_an_earlier_run_that_was_done_is_left_alone():
    fleet = Fleet(RUNNING)
    fleet.inventory.recall(Verb.START, ["i-1"], 9, sent_at_s=5)
    assert fleet.phase is Phase.RUNNING
    assert fleet.vm.order is None


def test_the_time_of_a_start_is_taken_once_from_order_to_service():
    fleet = Fleet()
    fleet.order(Verb.START, 100)
    fleet.see(RUNNING, 118, launched=100)
    fleet.ready(120)
    fleet.ready(130)
    assert fleet.inventory.take_start_times() == [20.0]
    assert fleet.inventory.take_start_times() == []


def test_stops_that_take_minutes_are_learned_and_not_forced_where_they_usually_do():
    fleet, at, told = Fleet(state=STOPPED, stop_s=600.0), 0, {}
    for number in range(2 * ENOUGH):
        fleet.order(Verb.START, at)
        fleet.see(RUNNING, at + 10, launched=at)
        fleet.order(Verb.STOP, at + 100)
        takes_s = 420 if number % 4 == 0 else 20
        for second in range(10, takes_s, 10):
            if "stop_overdue" in fleet.see(STOPPING, at + 100 + second):
                told[number] = second
        fleet.see(STOPPED, at + 100 + takes_s)
        at += 1000
    # Most are known to be quick, and some to take seven minutes.
    assert told == {}
    assert len(fleet.inventory.timers.stopping.times_s) == 2 * ENOUGH
