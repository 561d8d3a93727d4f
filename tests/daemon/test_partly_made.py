"""A place with room for some of the VMs that are wanted: those are made at once, and the rest elsewhere or later."""

from autoscaler.daemon.vms.inventory import FleetInventory, Patience
from autoscaler.ports import Outcome, OutcomeKind, Verb
from tests.daemon.builders import Bench, policy, steady, virtual, vm
from tests.daemon.pools import chores, pool_bench, states

TOTAL = {"kind": "total"}
OWN, OTHER = "m7i.large", "m6i.large"
HERE = "us-east-1a"
SHORT = "InsufficientInstanceCapacity"


def narrow(room, **more):
    """A fleet without VMs from second 10 on in need of ten, in a zone with room for so many VMs of each type."""
    bench = Bench(vms=0, zones="a", limits=None, capacity={(t, HERE): vms for t, vms in room.items()}, **more)
    bench.place("web", 0)
    types = {"vm_type": OWN, "types": [t for t in room if t != OWN]}
    given = {"launch_template": "web", "maximum": 20, **types}
    bench.add(policy(signal=TOTAL, provision=given), steady((0, 0), (10, 1000)))
    return bench


def made(bench):
    return [(at, vms, code) for at, _, vms, code in bench.calls("RunInstances")]


def events(bench, kind):
    return [(at, text) for at, each, text in bench.events() if each == kind]


@virtual
async def test_as_many_are_made_as_fit_and_the_place_is_tried_again_when_it_is_no_longer_dry():
    bench = narrow({OWN: 9})
    await bench.run(260)
    assert made(bench) == [(10, 10, ""), (190, 1, SHORT)]
    assert bench.column("in_service")[4:] == [9] * len(bench.column("in_service")[4:])
    ((at, text), (later, _)) = events(bench, "provision_failed")
    assert (at, later) == (10, 190)
    assert text == "no_capacity RoomForFewer: 9 of 10 VMs were made, because there is no room for more"
    first = bench.actions()[0]
    assert (first.intent.verb, first.intent.count) == (Verb.PROVISION, 10)
    assert [o.kind for o in first.outcomes] == [OutcomeKind.ACCEPTED] * 9 + [OutcomeKind.NO_CAPACITY]
    ((_, used_up),) = events(bench, "pool_exhausted")
    assert used_up.startswith("9 VMs had to be made from nothing")


@virtual
async def test_what_does_not_fit_is_made_elsewhere_in_the_same_tick_and_no_more_than_that():
    bench = narrow({OWN: 7, OTHER: 20})
    await bench.run(200)
    assert made(bench) == [(10, 10, ""), (10, 3, "")]
    assert max(bench.column("provisioned")) == 10
    assert bench.column("in_service")[4:] == [10] * len(bench.column("in_service")[4:])


@virtual
async def test_two_places_with_room_for_half_each_give_all():
    bench = narrow({OWN: 5, OTHER: 5})
    await bench.run(60)
    assert made(bench) == [(10, 10, ""), (10, 5, "")]
    assert bench.column("in_service")[4] == 10
    assert events(bench, "provision_failed")[0][1].startswith("no_capacity RoomForFewer: 5 of 10 VMs")


@virtual
async def test_a_pool_keeps_what_could_be_made_and_asks_for_the_rest_when_the_place_is_no_longer_dry():
    bench = pool_bench(
        100, running=1, capacity={(OWN, HERE): 2}, warm_pool={"minimum": 4}, refill={"at_once": 4}
    )
    await bench.run(240)
    tries = [(at, count) for at, _, count, _ in chores(bench, Verb.REFILL)]
    # The first VM of the pool has stopped by the second try, so there is room for one again.
    assert tries == [(60, 4), (240, 1)]
    (told,) = [text for _, kind, text in bench.events() if kind == "refill_failed"]
    assert told.startswith(
        "no_capacity RoomForFewer: 1 of 4 VMs were made, because there is no room for more; "
    )
    assert states(bench) == {"running": 1, "stopped": 1, "pending": 1}


def test_vms_of_which_nobody_knows_whether_they_were_made_count_without_those_that_are_known():
    inventory = FleetInventory("web", Patience())
    inventory.sent(Verb.PROVISION, (), 5, 7, 100.0, "token")
    said = [Outcome("i-1", OutcomeKind.ACCEPTED), Outcome("i-2", OutcomeKind.ACCEPTED)]
    new = {o.vm_id: vm(o.vm_id) for o in said}
    inventory.provisioned([*said, Outcome("", OutcomeKind.UNKNOWN, "NoAnswer")], new, 7, 101.0)
    counts = inventory.counts(101.0, 0.0)
    assert (counts.provisioned, counts.starting) == (5, 5)
