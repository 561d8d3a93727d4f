"""State changes in the world and their times: states, rules, capacity, tokens."""

import math

import pytest

from autoscaler.cloud.physics import Spread
from autoscaler.cloud.vms import DEFAULT_IMAGE, LaunchData, State
from autoscaler.cloud.world import World
from autoscaler.errors import ProviderError
from autoscaler.ports import FLEET_TAG
from tests.cloud.conftest import EXACT

LAUNCH = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", tags={FLEET_TAG: "web"})


def made(vms=3, **settings):
    world = World(physics=EXACT, **settings)
    return world, world.provision(0, "web", vms)


def state_of(world, now_s, vm_id):
    return next(view.state for view in world.views(now_s) if view.id == vm_id)


def refused(call):
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def test_a_stopped_vm_is_running_after_the_start_time_and_ready_after_the_boot_time():
    world, ids = made()
    (change,) = world.start(100, ids[:1])
    assert (change.previous, change.current) == (State.STOPPED, State.PENDING)
    assert state_of(world, 115.999, ids[0]) is State.PENDING
    assert state_of(world, 116, ids[0]) is State.RUNNING
    assert world.serving(118.999) == ()
    assert world.serving(119, "web") == ids[:1]
    assert world.serving(119, "api") == ()


def test_a_new_vm_takes_the_launch_times_and_a_stop_the_stop_time():
    world, _ = made(0)
    (view,) = world.run(0, LAUNCH, 1, 1)
    assert view.state is State.PENDING
    assert state_of(world, 17.9, view.id) is State.PENDING
    assert world.serving(24.9) == ()
    assert world.serving(25) == (view.id,)
    assert world.stop(30, [view.id])[0].current is State.STOPPING
    assert world.serving(30) == ()
    assert state_of(world, 54.9, view.id) is State.STOPPING
    assert state_of(world, 55, view.id) is State.STOPPED


def test_a_terminated_vm_stays_listed_for_an_hour():
    world, ids = made()
    assert world.terminate(0, ids[:1])[0].current is State.SHUTTING_DOWN
    assert state_of(world, 20, ids[0]) is State.TERMINATED
    assert len(world.page(3619).vms) == 3
    assert [view.id for view in world.page(3620).vms] == list(ids[1:])
    assert refused(lambda: world.start(3620, ids[:1])).code == "InvalidInstanceID.NotFound"


def test_starting_what_is_on_and_stopping_what_is_off_is_accepted_and_changes_nothing():
    world, ids = made()
    world.start(0, ids[:1])
    assert world.start(1, ids[:1])[0].previous is State.PENDING
    assert world.start(20, ids[:1])[0].current is State.RUNNING
    assert world.stop(20, ids[1:2])[0].current is State.STOPPED
    assert world.serving(20) == ids[:1]
    world.stop(30, ids[:1])
    assert world.stop(31, ids[:1])[0].previous is State.STOPPING
    assert state_of(world, 55, ids[0]) is State.STOPPED


@pytest.mark.parametrize(
    ("prepare", "at_s", "call", "code"),
    [
        ([], 9, lambda w, i, at: w.start(at, [i, "i-12345678"]), "InvalidInstanceID.NotFound"),
        ([], 9, lambda w, i, at: w.start(at, [i, "web-7"]), "InvalidInstanceID.Malformed"),
        ([], 9, lambda w, i, at: w.start(at, []), "MissingParameter"),
        ([], 9, lambda w, i, at: w.start(at, [i], dry_run=True), "DryRunOperation"),
        ([], 9, lambda w, i, at: w.tag(at, [i], {str(n): "" for n in range(60)}), "TagLimitExceeded"),
        ([], 9, lambda w, i, at: w.tag(at, [i], {"aws:mine": ""}), "InvalidParameterValue"),
        ([], 9, lambda w, i, at: w.stop(at, [i], hibernate=True), "UnsupportedHibernationConfiguration"),
        (["start"], 9, lambda w, i, at: w.stop(at, [i]), "IncorrectInstanceState"),
        (["start", "stop"], 21, lambda w, i, at: w.start(at, [i]), "IncorrectInstanceState"),
        (["terminate"], 9, lambda w, i, at: w.start(at, [i]), "IncorrectInstanceState"),
        (["terminate"], 30, lambda w, i, at: w.stop(at, [i]), "IncorrectInstanceState"),
    ],
)
def test_a_refused_call_names_its_reason_and_changes_nothing(prepare, at_s, call, code):
    world, ids = made(4)
    for step, verb in enumerate(prepare):
        getattr(world, verb)(20 * step, ids[3:])
    before = world.views(at_s)
    assert refused(lambda: call(world, ids[3], at_s)).code == code
    assert world.views(at_s) == before


def test_one_bad_id_fails_the_whole_batch_and_is_named():
    world, ids = made(3)
    world.terminate(0, ids[1:2])
    error = refused(lambda: world.start(1, ids))
    assert ids[1] in str(error)
    assert ids[0] not in str(error)
    assert world.counts(40)[State.STOPPED] == 2
    absent = refused(lambda: world.start(41, [ids[0], "i-0000000000000aaaa", "i-0000000000000bbbb"]))
    assert "i-0000000000000aaaa, i-0000000000000bbbb" in str(absent)


def test_the_same_id_twice_is_started_once():
    world, ids = made(1, capacity={("m7i.large", "us-east-1a"): 1})
    changes = world.start(0, [ids[0], ids[0]])
    assert [change.current for change in changes] == [State.PENDING, State.PENDING]
    assert world.bill(20).starts == 1


def test_capacity_is_held_until_stopped_and_a_batch_gets_all_or_nothing():
    world, ids = made(6, capacity={("m7i.large", "us-east-1a"): 1}, zones="a")
    assert refused(lambda: world.start(0, ids[:2])).code == "InsufficientInstanceCapacity"
    world.start(1, ids[:1])
    assert world.room("m7i.large", "us-east-1a") == 0
    assert world.room("m7i.xlarge", "us-east-1a") is None
    world.stop(20, ids[:1])
    assert refused(lambda: world.start(30, ids[1:2])).code == "InsufficientInstanceCapacity"
    world.start(45, ids[1:2])
    world.terminate(70, ids[1:2])
    world.advance(90)
    assert world.room("m7i.large", "us-east-1a") == 1


def test_a_launch_makes_as_many_as_there_is_room_for_but_not_fewer_than_the_minimum():
    world, _ = made(0, capacity={("m7i.large", "us-east-1b"): 3})
    placed = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", zone="us-east-1b")
    assert refused(lambda: world.run(0, placed, 4, 4)).code == "InsufficientInstanceCapacity"
    assert len(world.run(1, placed, 1, 4)) == 3


def test_a_launch_goes_to_its_subnet_or_to_the_zone_with_most_room():
    limits = {("m7i.large", "us-east-1a"): 1, ("m7i.large", "us-east-1b"): 2, ("m7i.large", "us-east-1c"): 1}
    world, _ = made(0, capacity=limits)
    assert world.run(0, LAUNCH, 1, 1)[0].zone == "us-east-1b"
    subnet = next(s for s, zone in world.places.subnets.items() if zone == "us-east-1c")
    placed = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", subnet=subnet)
    assert world.run(1, placed, 1, 1)[0].zone == "us-east-1c"
    unknown = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", subnet="subnet-1")
    assert refused(lambda: world.run(2, unknown, 1, 1)).code == "InvalidSubnetID.NotFound"
    elsewhere = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", zone="eu-west-1a")
    assert refused(lambda: world.run(2, elsewhere, 1, 1)).code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("data", "counts", "code"),
    [
        (LaunchData(vm_type="m7i.large"), (1, 1), "MissingParameter"),
        (LaunchData(image="image", vm_type="m7i.large"), (1, 1), "InvalidAMIID.Malformed"),
        (LaunchData(image=DEFAULT_IMAGE, vm_type="large"), (1, 1), "InvalidParameterValue"),
        (LAUNCH, (0, 1), "InvalidParameterValue"),
        (LAUNCH, (2, 1), "InvalidParameterValue"),
    ],
)
def test_an_impossible_launch_is_refused(data, counts, code):
    world, _ = made(0)
    assert refused(lambda: world.run(0, data, *counts)).code == code
    assert world.views(0) == ()


def test_the_same_token_makes_vms_once_and_other_parameters_under_it_are_refused():
    world, _ = made(0)
    first = world.run(0, LAUNCH, 2, 2, token="t")
    again = world.run(100, LAUNCH, 2, 2, token="t")
    assert [view.id for view in again] == [view.id for view in first]
    assert again[0].state is State.RUNNING
    assert len(world.views(100)) == 2
    mismatch = refused(lambda: world.run(101, LAUNCH, 3, 3, token="t"))
    assert mismatch.code == "IdempotentParameterMismatch"
    assert refused(lambda: world.run(102, LAUNCH, 1, 1, token="x" * 65)).code == "InvalidParameterValue"


def test_a_failed_launch_does_not_use_its_token_up():
    world, _ = made(
        0, capacity={("m7i.large", zone): 0 for zone in ("us-east-1a", "us-east-1b", "us-east-1c")}
    )
    refused(lambda: world.run(0, LAUNCH, 1, 1, token="t"))
    again = refused(lambda: world.run(1, LAUNCH, 2, 2, token="t"))
    assert again.code == "InsufficientInstanceCapacity"


def test_protected_vms_cannot_be_stopped_or_terminated():
    world, _ = made(0)
    data = LaunchData(
        image=DEFAULT_IMAGE, vm_type="m7i.large", stop_protection=True, termination_protection=True
    )
    (view,) = world.run(0, data, 1, 1)
    assert refused(lambda: world.stop(30, [view.id])).code == "OperationNotPermitted"
    assert refused(lambda: world.terminate(30, [view.id])).code == "OperationNotPermitted"


def test_who_stopped_a_vm_is_told_and_a_start_wipes_it():
    world, ids = made()
    world.start(0, ids[:1])
    world.stop(20, ids[:1])
    view = world.views(60)[0]
    assert view.reason_code == "Client.UserInitiatedShutdown"
    assert view.transition == "User initiated (1970-01-01 00:00:20 GMT)"
    world.start(60, ids[:1])
    assert (world.views(60)[0].reason_code, world.views(60)[0].transition) == ("", "")


def test_tags_move_a_vm_to_another_fleet_with_all_that_it_cost():
    world, ids = made(2)
    world.start(0, ids[:1])
    world.tag(100, ids[:1], {FLEET_TAG: "api", "owner": "ops"})
    assert world.fleets() == ("api", "web")
    assert world.serving(100, "api") == ids[:1]
    assert world.bill(116, "api").running_s == 100
    assert world.bill(116, "web").running_s == 0
    assert world.views(100)[0].tags["owner"] == "ops"


def test_time_never_goes_back():
    world, ids = made()
    world.start(100, ids[:1])
    assert world.views(50)[0].state is State.PENDING
    assert world.now_s == 100
    with pytest.raises(ValueError, match="NaN"):
        world.advance(math.nan)


def test_the_call_log_tells_accepted_from_refused():
    world, ids = made()
    world.start(5, ids[:2])
    refused(lambda: world.stop(6, ids[:1]))
    assert world.api.call_counts == {
        ("StartInstances", ""): 1,
        ("StopInstances", "IncorrectInstanceState"): 1,
    }
    assert world.api.vm_counts == {"StartInstances": 2}
    assert [(c.at_s, c.action, c.vms) for c in world.api.calls] == [
        (5, "StartInstances", 2),
        (6, "StopInstances", 1),
    ]


def test_what_cannot_be_configured_is_refused():
    with pytest.raises(ValueError, match="has the zones us-east-1a"):
        World().provision(0, "web", 1, zones=["mars-1"])
    with pytest.raises(ValueError, match="capacity of m7i"):
        World(capacity={("m7i.large", "mars-1"): 1})
    with pytest.raises(ValueError, match="stopped or running"):
        World().provision(0, "web", 1, state=State.PENDING)
    with pytest.raises(ValueError, match="seed"):
        World(seed=-1)
    with pytest.raises(ValueError, match="median_s"):
        Spread(-1)


def test_a_page_goes_on_where_the_last_one_ended_whatever_changed_between():
    world, ids = made(25)
    first = world.page(0, limit=10)
    assert [view.id for view in first.vms] == list(ids[:10])
    world.terminate(1, ids[:5])
    world.advance(4000)
    second = world.page(4000, limit=10, after=first.last)
    third = world.page(4000, limit=10, after=second.last)
    assert [view.id for view in second.vms + third.vms] == list(ids[10:])
    assert third.last is None
    assert world.page(4000, limit=20).last is None
