"""An unchanged listing is the same object as before, and never an outdated one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World

MOMENTS = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(["wait", "start", "stop", "tag", "terminate", "make"])),
    max_size=12,
)


def every(view):
    return True


def shown(world, now_s):
    return world.page(now_s, matches=every)


def test_while_nothing_changes_the_page_is_the_same_object():
    world = World(limits=None)
    ids = world.provision(0, "web", 3)
    first = shown(world, 10)
    assert shown(world, 20) is first
    world.start(30, ids[:1])
    second = shown(world, 30)
    assert second is not first
    assert second.vms[0].state is State.PENDING
    # An event that falls due by itself is a change, too.
    assert shown(world, 200).vms[0].state is State.RUNNING
    assert shown(world, 210) is shown(world, 220)


@given(st.integers(0, 2**20), st.sampled_from([0.0, 7.0]), MOMENTS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_shows_what_a_listing_made_anew_shows(seed, lag_s, moments, troubled):
    faults = (
        Fault(FaultKind.LISTING_LAG, 30, 90, delay_s=15),
        Fault(FaultKind.MISSING_ROWS, 50, 120, probability=0.3),
    )
    worlds = [
        World(seed=seed, limits=None, physics=Physics(listing_lag_s=lag_s), faults=faults if troubled else ())
        for _ in range(2)
    ]
    ids, _ = (world.provision(0, "web", 4) for world in worlds)
    now_s = 0
    for number, (step_s, what) in enumerate(moments):
        now_s += step_s
        for world in worlds:
            states = {view.id: view.state for view in world.views(now_s)}
            vm_id = ids[number % len(ids)]
            if what == "make":
                world.provision(now_s, "web", 1)
            elif what == "tag" and vm_id in states:
                world.tag(now_s, [vm_id], {"n": str(number)}) if lag_s == 0 and not troubled else None
            elif what == "terminate" and number % 5 == 4 and vm_id in states:
                world.terminate(now_s, [vm_id]) if lag_s == 0 and not troubled else None
            elif what == "start" and states.get(vm_id) is State.STOPPED and not troubled and lag_s == 0:
                world.start(now_s, [vm_id])
            elif what == "stop" and states.get(vm_id) is State.RUNNING and not troubled and lag_s == 0:
                world.stop(now_s, [vm_id])
        # The other world is read with a new `matches` each time, so that it builds every page anew.
        kept = shown(worlds[0], now_s)
        anew = worlds[1].page(now_s, matches=lambda view: True)
        assert kept == anew
