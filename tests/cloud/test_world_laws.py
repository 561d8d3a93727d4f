"""Laws of the world for any sequence of calls: conservation, determinism, bounded transients, an exact bill."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import FURTHEST_NORMAL, Physics, Spread
from autoscaler.cloud.vms import DEFAULT_IMAGE, LaunchData, State
from autoscaler.cloud.world import World
from autoscaler.errors import ProviderError
from autoscaler.ports import FLEET_TAG

LAUNCH = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", tags={FLEET_TAG: "web"})
EXACT = Physics(
    start=Spread(16),
    boot=Spread(3),
    launch=Spread(18),
    stop=Spread(25),
    hibernate=Spread(60),
    shut_down=Spread(20),
)
VMS = 12
EXPECTED_CODES = {
    "IncorrectInstanceState",
    "InsufficientInstanceCapacity",
    "InternalError",
    "InvalidInstanceID.NotFound",
    "RequestLimitExceeded",
}

steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "stop", "force", "terminate", "run", "wait"]),
        st.frozensets(st.integers(0, VMS - 1), min_size=1, max_size=4),
        st.floats(0, 120),
    ),
    max_size=30,
)
fault_lists = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(
            [FaultKind.FALL_BACK, FaultKind.UNREADY, FaultKind.NO_CAPACITY, FaultKind.LOST_REPLY]
        ),
        probability=st.floats(0, 1),
        start_s=st.floats(0, 500),
    ),
    max_size=3,
)


def play(world, script):
    """Make the calls; yield the times at which something happened."""
    ids = list(world.provision(world.now_s, "web", VMS))
    now_s = world.now_s
    for verb, chosen, wait_s in script:
        named = [ids[position] for position in sorted(chosen)]
        try:
            if verb == "run":
                world.run(now_s, LAUNCH, 1, len(chosen))
            elif verb == "force":
                world.stop(now_s, named, force=True)
            elif verb != "wait":
                getattr(world, verb)(now_s, named)
        except ProviderError as error:
            assert error.code in EXPECTED_CODES  # noqa: PT017
        now_s += wait_s
        world.advance(now_s)
        yield now_s


def digest(world):
    text = repr([world.views(world.now_s), world.bill(world.now_s), list(world.api.calls)])
    return hashlib.sha256(text.encode()).hexdigest()


@given(steps, fault_lists, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_vm_is_in_one_state_and_capacity_counts_what_is_on(script, faults, seed):
    limit = 5
    capacity = {("m7i.large", zone): limit for zone in ("us-east-1a", "us-east-1b", "us-east-1c")}
    world = World(seed=seed, faults=faults, capacity=capacity, limits=None)
    last = world.bill(0)
    for now_s in play(world, script):
        views = world.views(now_s)
        assert sum(world.counts(now_s).values()) == len(views) == len({view.id for view in views})
        for zone in world.places.zones:
            on = [
                v
                for v in views
                if v.zone == zone and v.state in {State.PENDING, State.RUNNING, State.STOPPING}
            ]
            assert len(on) <= limit - world.room("m7i.large", zone) <= limit
        assert set(world.serving(now_s)) <= {view.id for view in views if view.state is State.RUNNING}
        bill = world.bill(now_s)
        assert bill.running_s >= last.running_s
        assert bill.storage_s >= last.storage_s
        assert bill.running_s >= 60 * bill.starts - 1e-6
        last = bill


@given(steps, fault_lists, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_one_seed_and_one_sequence_of_calls_give_one_world(script, faults, seed):
    first = World(seed=seed, faults=faults)
    second = World(seed=seed, faults=faults)
    for _ in play(first, script):
        pass
    for now_s in play(second, script):
        # Reading more often must change nothing.
        second.views(now_s)
        second.serving(now_s)
    assert digest(first) == digest(second)


@given(steps, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_without_stuck_faults_every_transient_ends_within_its_longest_time(script, seed):
    physics = Physics()
    world = World(seed=seed, physics=physics, limits=None)
    for _ in play(world, script):
        pass
    longest_s = max(s.longest_s for s in (physics.start, physics.launch, physics.stop, physics.shut_down))
    found = world.counts(world.now_s + longest_s)
    assert found[State.PENDING] == found[State.STOPPING] == found[State.SHUTTING_DOWN] == 0


@given(
    st.integers(0, 2**32),
    st.integers(0, VMS - 1),
    st.sampled_from(FaultKind),
)
@settings(max_examples=40, deadline=None)
def test_a_fault_on_one_vm_shifts_no_other(seed, struck, kind):
    quiet = World(seed=seed, limits=None)
    ids = quiet.provision(0, "web", VMS)
    loud = World(
        seed=seed, limits=None, faults=[Fault(kind, probability=0.7, delay_s=40, vm_ids=(ids[struck],))]
    )
    assert loud.provision(0, "web", VMS) == ids
    others = [vm_id for vm_id in ids if vm_id != ids[struck]]
    for world in (quiet, loud):
        for vm_id in ids:
            try:
                world.start(1, [vm_id])
            except ProviderError:
                assert vm_id == ids[struck]
        world.start(201, others)
        world.stop(300, others)
    for at_s in (301.0, 320.0, 350.0, 400.0):
        seen = [[v for v in world.views(at_s) if v.id != ids[struck]] for world in (quiet, loud)]
        assert seen[0] == seen[1]


def test_durations_follow_the_measured_distribution():
    world = World(seed=5, limits=None)
    ids = world.provision(0, "web", 2000)
    world.start(0, ids)
    running_s = sorted(v.ready_at_s for v in world.views(200))
    median_s, p95_s = running_s[1000], running_s[1900]
    assert 18 < median_s < 20.5
    assert 22 < p95_s < 30
    assert running_s[-1] <= Physics().start.longest_s + Physics().boot.longest_s
    assert Spread(10, 0.5).at(FURTHEST_NORMAL) == Spread(10, 0.5).longest_s


def test_the_bill_of_three_vms_computed_by_hand():
    prices = Prices(running_per_h=3.6, storage_per_h=0.036, per_start=0.5)
    world = World(physics=EXACT, prices=prices)
    short, long, cold = world.provision(0, "web", 3)
    world.start(100, [short, long])  # running at 116
    assert world.bill(115).running_s == 0
    assert world.bill(116).running_s == 120  # each start costs a minute at once
    world.stop(126, [short])  # ran 10 s: billed 60
    assert world.bill(200).running_s == 60 + 84
    world.start(300, [short])  # running at 316: a new minimum
    world.stop(416, [short, long])  # 100 s more; 300 s in all
    bill = world.bill(1000)
    assert (bill.running_s, bill.starts) == (60 + 100 + 300, 3)
    assert bill.storage_s == 3000
    assert bill.money == pytest.approx(460 * 0.001 + 3000 * 0.00001 + 1.5)
    world.terminate(1000, [cold])  # storage ends when it is terminated, at 1020
    assert world.bill(2000).storage_s == 2000 + 2000 + 1020
    assert world.bill(2000).starts == 3
    after = world.bill(10_000)  # the terminated VM is no longer listed, what it cost still is
    assert after.storage_s == 10_000 + 10_000 + 1020
    assert world.bill(10_000, "web") == after
    assert world.bills(10_000) == {"web": after}


def test_hibernating_is_billed_until_stopped():
    data = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", hibernation=True)
    world = World(physics=EXACT)
    (view,) = world.run(0, data, 1, 1)  # running at 18, able to hibernate at 138
    world.stop(218, [view.id], hibernate=True)
    assert world.bill(230).running_s == 212
    assert world.bill(500).running_s == 260  # saving its memory takes a minute
    assert world.views(500)[0].reason_code == "Client.UserInitiatedHibernate"


def hibernated(**changes):
    """A world with a VM that was hibernated: it runs at 18, and its memory is saved at 360."""
    data = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", hibernation=True)
    world = World(physics=replace(EXACT, resume=Spread(9), wake=Spread(1), **changes))
    (view,) = world.run(0, data, 1, 1)
    world.stop(300, [view.id], hibernate=True)
    return world, view.id


def ready_after(world, at_s, vm_id):
    world.start(at_s, [vm_id])
    return next(s for s in range(200) if world.serving(at_s + s))


def test_a_hibernated_vm_resumes_in_its_own_time_until_its_memory_is_too_old():
    world, vm_id = hibernated()
    assert ready_after(world, 1000, vm_id) == 10  # 9 s until it runs, 1 s to wake
    world.stop(2000, [vm_id])
    assert ready_after(world, 3000, vm_id) == 19  # it was stopped: 16 s and 3 s
    for kept_s, took in ((1000, 10), (1001, 19)):
        world, vm_id = hibernated(hibernated_for_s=1000)
        assert ready_after(world, 360 + kept_s, vm_id) == took


def test_a_forced_stop_loses_the_memory():
    world, vm_id = hibernated()
    world.stop(310, [vm_id], force=True)
    assert ready_after(world, 1000, vm_id) == 19


def test_a_start_that_falls_back_keeps_the_memory():
    world, vm_id = hibernated()
    world.add_fault(Fault(FaultKind.FALL_BACK, start_s=900, end_s=950))
    world.start(900, [vm_id])
    world.advance(990)
    assert ready_after(world, 1000, vm_id) == 10


def test_a_vm_cannot_hibernate_in_its_first_minutes():
    data = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", hibernation=True)
    world = World(physics=EXACT)
    (view,) = world.run(0, data, 1, 1)  # running at 18
    with pytest.raises(ProviderError) as refused:
        world.stop(137, [view.id], hibernate=True)
    assert refused.value.code == "UnsupportedOperation"
    assert view.id not in str(refused.value)
    world.stop(138, [view.id])
    world.start(300, [view.id])
    world.stop(317, [view.id], hibernate=True)  # its second time on


def test_room_for_the_memory_is_paid_for_as_long_as_the_vm_exists():
    prices = Prices(memory_per_h=3600.0)
    world = World(physics=EXACT, prices=prices)
    world.provision(0, "web", 2)
    (vm_id,) = world.provision(0, "web", 1, hibernation=True)
    assert world.bill(100).memory_s == 100
    assert world.bill(100).money == 100
    world.terminate(100, [vm_id])  # terminated at 120, and unlisted after an hour
    assert world.bill(10_000).memory_s == 120


def test_a_memory_is_held_from_when_it_is_saved_until_its_vm_runs_again_or_is_gone():
    prices = Prices(held_per_h=3600.0)
    world = World(physics=replace(EXACT, hibernate=Spread(60), resume=Spread(16)), prices=prices)
    back, gone = world.provision(0, "web", 2, state="running", hibernation=True)
    world.stop(200, [back, gone], hibernate=True)  # saved at 260
    assert world.bill(260).held_s == 0
    assert world.bill(300).held_s == 2 * 40
    world.start(400, [back])  # runs again at 416
    world.terminate(500, [gone])  # terminated at 520
    assert world.bill(1000).held_s == 156 + 260
    assert world.bill(10_000).money == 156 + 260
    world.stop(10_000, [back])
    assert world.bill(20_000).held_s == 156 + 260


def test_a_hundred_starts_one_by_one_take_as_long_as_the_published_bucket_says():
    world = World()
    ids = list(world.provision(0, "web", 100))
    now_s, started_at = 0.0, []
    while ids:
        try:
            world.start(now_s, ids[:1])
        except ProviderError as error:
            assert error.code == "RequestLimitExceeded"  # noqa: PT017
            now_s += 0.5
        else:
            started_at.append(now_s)
            del ids[:1]
    assert started_at[4] == 0
    assert started_at[5] == 0.5
    assert started_at[-1] == 47.5


def test_a_batch_spends_one_request_but_a_token_for_every_vm():
    world = World()
    ids = world.provision(0, "web", 2000)
    world.start(0, ids[:1000])
    with pytest.raises(ProviderError) as caught:
        world.start(1, ids[1000:1003])
    assert caught.value.code == "RequestLimitExceeded"
    world.start(1.5, ids[1000:1003])
    with pytest.raises(ProviderError):
        world.start(400, ids[1003:2000])
    world.start(502, ids[1003:2000])


def test_plain_listings_have_a_smaller_bucket_than_paged_ones():
    world = World()
    assert sum(listed(world, plain=True) for _ in range(60)) == 50
    assert sum(listed(world, plain=False) for _ in range(120)) == 100


def listed(world, *, plain):
    try:
        world.page(0, plain=plain)
    except ProviderError:
        return False
    return True
