"""Each kind of fault does what it says, where and when it says, and nothing else."""

import math
from collections import Counter

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.vms import DEFAULT_IMAGE, LaunchData, State
from autoscaler.cloud.world import World
from autoscaler.errors import ProviderError
from autoscaler.ports import FLEET_TAG

EXACT = Physics(start=Spread(16), boot=Spread(3), stop=Spread(25), shut_down=Spread(20))


def made(*faults, vms=3, physics=EXACT, **settings):
    world = World(physics=physics, faults=faults, start_s=1000, **settings)
    return world, world.provision(1000, "web", vms)


def states(world, now_s):
    return [view.state for view in world.views(now_s)]


def code_of(call):
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value.code


def test_a_dry_spell_refuses_starts_in_its_zone_while_it_lasts():
    dry = Fault(FaultKind.NO_CAPACITY, start_s=10, end_s=60, zone="us-east-1b", vm_type="m7i.large")
    world, ids = made(dry)
    world.start(1009, ids[1:2])
    world.terminate(1009, ids[1:2])
    world.start(1010, ids[:1])
    more = world.provision(1011, "web", 1, zones=["us-east-1b"])
    assert code_of(lambda: world.start(1012, more)) == "InsufficientInstanceCapacity"
    assert code_of(lambda: world.start(1013, [ids[2], *more])) == "InsufficientInstanceCapacity"
    data = LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", zone="us-east-1b")
    assert code_of(lambda: world.run(1014, data, 1, 1)) == "InsufficientInstanceCapacity"
    world.start(1060, more)
    assert states(world, 1060)[2:] == [State.STOPPED, State.PENDING]


def test_a_quota_is_a_dry_spell_with_another_code():
    world, ids = made(Fault(FaultKind.NO_CAPACITY, code="VcpuLimitExceeded", fleet="web"))
    assert code_of(lambda: world.start(1000, ids)) == "VcpuLimitExceeded"


def test_a_start_falls_back_to_stopped_with_a_reason_and_costs_nothing():
    fault = Fault(FaultKind.FALL_BACK, end_s=60, delay_s=7, code="Client.InternalError")
    world, ids = made(fault, capacity={("m7i.large", "us-east-1a"): 1})
    assert world.start(1000, ids[:1])[0].current is State.PENDING
    assert states(world, 1006.9)[0] is State.PENDING
    view = world.views(1007)[0]
    assert (view.state, view.reason_code) == (State.STOPPED, "Client.InternalError")
    assert world.bill(1100).starts == 0
    assert world.room("m7i.large", "us-east-1a") == 1
    world.start(1100, ids[:1])
    assert world.serving(1119) == ids[:1]


def test_stuck_pending_lasts_its_time_or_for_good():
    late = Fault(FaultKind.STUCK_PENDING, end_s=1, delay_s=100)
    world, ids = made(late, vms=1)
    world.start(1000, ids)
    assert states(world, 1115.9) == [State.PENDING]
    assert states(world, 1116) == [State.RUNNING]
    world, ids = made(Fault(FaultKind.STUCK_PENDING, vm_ids=(ids[0],)), vms=2)
    world.start(1000, ids)
    assert states(world, 1e6) == [State.PENDING, State.RUNNING]
    assert code_of(lambda: world.stop(1e6, ids[:1])) == "IncorrectInstanceState"
    world.terminate(1e6, ids[:1])
    assert states(world, 1e6 + 20) == [State.TERMINATED, State.RUNNING]
    assert world.bill(1e6 + 20).running_s == pytest.approx(1e6 + 20 - 1016)  # of the other


def test_stuck_stopping_ends_by_force():
    world, ids = made(Fault(FaultKind.STUCK_STOPPING), vms=1)
    world.start(1000, ids)
    world.stop(1100, ids)
    assert states(world, 9000) == [State.STOPPING]
    world.stop(9000, ids)
    assert states(world, 9900) == [State.STOPPING]
    world.stop(9900, ids, force=True)
    assert states(world, 9924.9) == [State.STOPPING]
    assert states(world, 9925) == [State.STOPPED]
    assert world.bill(9925).running_s == 84


def test_force_never_makes_an_ordinary_stop_longer():
    world, ids = made(vms=1)
    world.start(1000, ids)
    world.stop(1100, ids)
    world.stop(1124, ids, force=True)
    assert states(world, 1125) == [State.STOPPED]


def test_an_unready_vm_runs_and_is_billed_but_does_not_serve():
    world, ids = made(Fault(FaultKind.UNREADY, zone="us-east-1a"), vms=2)
    world.start(1000, ids)
    assert world.serving(1e6) == ids[1:]
    assert world.bill(1016 + 500).running_s == pytest.approx(2 * (1e6 - 1016))


def test_the_provider_stops_running_vms_by_itself():
    world, ids = made(Fault(FaultKind.HOST_STOP, start_s=100, fleet="web"), vms=2)
    world.start(1000, ids[:1])
    assert states(world, 1099.9) == [State.RUNNING, State.STOPPED]
    assert world.views(1100)[0].reason_code == "Server.ScheduledStop"
    assert states(world, 1125) == [State.STOPPED, State.STOPPED]
    assert world.bill(1125).running_s == 84
    world.start(1200, ids[:1])
    world.add_fault(Fault(FaultKind.HOST_STOP, start_s=100, end_s=150))
    assert states(world, 1300)[0] is State.RUNNING


def test_a_throttle_does_nothing_and_a_lost_reply_does_everything():
    throttle = Fault(FaultKind.THROTTLE, end_s=10, actions=("StartInstances",))
    lost = Fault(FaultKind.LOST_REPLY, start_s=10, end_s=20, code="Unavailable")
    world, ids = made(throttle, lost, vms=2)
    assert code_of(lambda: world.start(1005, ids[:1])) == "RequestLimitExceeded"
    assert states(world, 1005) == [State.STOPPED, State.STOPPED]
    assert code_of(lambda: world.start(1010, ids[:1])) == "Unavailable"
    assert states(world, 1010) == [State.PENDING, State.STOPPED]
    assert world.api.calls[-1].lost
    assert world.start(1020, ids)[0].previous is State.PENDING


def test_an_api_error_with_a_scope_strikes_calls_that_touch_it():
    world, ids = made(Fault(FaultKind.API_ERROR, code="UnauthorizedOperation", vm_ids=("i-x",)), vms=2)
    world.start(1000, ids)
    world.add_fault(Fault(FaultKind.API_ERROR, code="Unavailable", zone="us-east-1b"))
    assert code_of(lambda: world.page(1001)) == "UnauthorizedOperation"
    assert len(world.page(1001, vm_ids=ids[:1]).vms) == 1
    assert code_of(lambda: world.page(1001, vm_ids=ids)) == "Unavailable"
    assert code_of(lambda: world.stop(1030, ids)) == "Unavailable"
    assert world.stop(1030, ids[:1])[0].current is State.STOPPING


def test_latency_is_told_and_changes_nothing():
    world, ids = made(Fault(FaultKind.LATENCY, delay_s=4, actions=("StopInstances",)))
    assert world.latency_s(1000, "StopInstances", ids) == 4
    assert world.latency_s(1000, "StartInstances", ids) == 0


def test_a_lagging_listing_shows_the_past_and_hides_the_new():
    world, ids = made(vms=1, physics=Physics(start=Spread(16), listing_lag_s=5))
    assert world.page(1004.9).vms == ()
    assert code_of(lambda: world.start(1004.9, ids)) == "InvalidInstanceID.NotFound"
    assert [view.state for view in world.page(1005).vms] == [State.STOPPED]
    world.start(1010, ids)
    seen = {at_s: world.page(at_s).vms[0].state for at_s in (1014.9, 1015, 1030.9, 1031)}
    assert list(seen.values()) == [State.STOPPED, State.PENDING, State.PENDING, State.RUNNING]


def test_a_lag_can_come_and_go_and_never_hides_an_old_vm():
    world, ids = made(vms=1)
    world.start(1000, ids)
    world.advance(1100)
    world.add_fault(Fault(FaultKind.LISTING_LAG, start_s=100, end_s=200, delay_s=30))
    assert len(world.page(1101).vms) == 1
    world.stop(1110, ids)
    assert world.page(1139).vms[0].state is State.RUNNING
    assert states(world, 1139) == [State.STOPPED]
    assert world.page(1140).vms[0].state is State.STOPPING
    assert world.page(1165).vms[0].state is State.STOPPED
    assert world.page(1200).vms[0].state is State.STOPPED


def test_missing_rows_are_drawn_anew_for_each_listing():
    world, ids = made(Fault(FaultKind.MISSING_ROWS, probability=0.3), vms=200, limits=None)
    listings = [frozenset(view.id for view in world.page(1000).vms) for _ in range(20)]
    assert len(set(listings)) == 20
    assert frozenset().union(*listings) == frozenset(ids)
    assert 0.25 < 1 - sum(map(len, listings)) / 4000 < 0.35
    assert len(world.views(1000)) == 200


def test_a_probability_is_kept_over_many_starts():
    world, ids = made(Fault(FaultKind.FALL_BACK, probability=0.2), vms=1000, limits=None)
    world.start(1000, ids)
    found = Counter(states(world, 1100))
    assert 150 < found[State.STOPPED] < 250
    assert found[State.STOPPED] + found[State.RUNNING] == 1000


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": FaultKind.THROTTLE, "start_s": 5, "end_s": 5}, "end_s"),
        ({"kind": FaultKind.THROTTLE, "probability": 1.5}, "probability"),
        ({"kind": FaultKind.THROTTLE, "probability": math.nan}, "probability"),
        ({"kind": FaultKind.LATENCY}, "needs delay_s"),
        ({"kind": FaultKind.FALL_BACK, "delay_s": -1}, "delay_s"),
        ({"kind": FaultKind.FALL_BACK, "actions": ("StartInstances",)}, "actions belong"),
    ],
)
def test_an_impossible_fault_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        Fault(**fault)


def test_faults_are_off_by_default():
    world, ids = made(vms=50, limits=None)
    world.start(1000, ids)
    world.run(1000, LaunchData(image=DEFAULT_IMAGE, vm_type="m7i.large", tags={FLEET_TAG: "web"}), 50, 50)
    assert len(world.serving(1000 + 18 * 3 + 7 * 4)) == 100
