"""A full capacity reservation or dedicated host concerns the fleet that is bound to it, and nobody else in the zone."""

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.vms.fleet_places import FleetPlaces
from autoscaler.daemon.vms.places import Places
from autoscaler.daemon.vms.quarantine import FailureCause
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual

TOTAL = {"kind": "total"}
OWN, HERE = "m7i.large", "us-east-1a"
CODES = ["ReservationCapacityExceeded", "InsufficientCapacityOnHost"]


def full_for_web(code, **more):
    """Two fleets of one type in one zone; web, which needs VMs first, finds what it has reserved to be full."""
    fault = Fault(FaultKind.NO_CAPACITY, end_s=350, fleet="web", code=code)
    bench = Bench(vms=2, zones="a", limits=None, faults=(fault,))
    bench.place("api", 2)
    bench.add(policy("web", signal=TOTAL, **more), 200)
    bench.add(policy("api", signal=TOTAL, **more), steady((0, 0), (20, 200)))
    return bench


@pytest.mark.parametrize("code", CODES)
def test_other_fleets_start_there_meanwhile_and_the_fleet_itself_tries_again_later(code):
    @virtual
    async def run():
        bench = full_for_web(code)
        await bench.run(580)
        assert bench.column("in_service", "api")[4] == 2
        assert set(bench.column("in_service", "web")[:37]) == {0}
        assert bench.column("in_service", "web")[-1] == 2
        tried = sorted({at for at, _, _, said in bench.calls("StartInstances") if said == code})
        assert tried == [0, 180]

    run()


@virtual
async def test_other_fleets_make_vms_there_meanwhile():
    made = {"launch_template": "web", "vm_type": OWN, "maximum": 4}
    bench = full_for_web(CODES[0], provision=made)
    for fleet in ("web", "api"):
        bench.world.terminate(ORIGIN_S, [v.id for v in bench.world.views(ORIGIN_S, fleet)])
    await bench.run(100)
    calls = [(at, vms, code) for at, _, vms, code in bench.calls("RunInstances")]
    assert calls == [(0, 2, CODES[0]), (20, 2, "")]
    assert bench.column("in_service", "api")[-1] == 2


def test_a_lack_of_reserved_room_is_one_fleets_own_and_any_other_is_shared():
    shared = Places()
    web, api = FleetPlaces(shared), FleetPlaces(shared)
    web.found_dry(OWN, HERE, 0.0, FailureCause.RESERVED)
    assert (web.at_most(OWN, HERE, 1.0), api.at_most(OWN, HERE, 1.0)) == (0.0, float("inf"))
    assert (web.dry(1.0), api.dry(1.0)) == ([(OWN, HERE)], [])
    assert web.at_most(OWN, HERE, 180.0) == 1.0
    version = web.version
    web.claim(OWN, HERE, 180.0)
    assert web.at_most(OWN, HERE, 181.0) == 0.0
    web.found_room(OWN, HERE)
    assert (web.at_most(OWN, HERE, 181.0), web.dry_at_all) == (float("inf"), False)
    assert web.version > version
    api.found_dry(OWN, HERE, 200.0)
    assert (web.at_most(OWN, HERE, 201.0), web.tried_together(OWN, HERE)) == (0.0, {(OWN, HERE)})
    assert web.free_from_s(OWN, HERE) == api.free_from_s(OWN, HERE) == 380.0


def test_who_tried_a_dry_place_with_reserved_room_that_is_full_lets_others_try_it():
    shared = Places()
    web, api = FleetPlaces(shared), FleetPlaces(shared)
    api.found_dry(OWN, HERE, 0.0)
    web.claim(OWN, HERE, 180.0)
    assert api.at_most(OWN, HERE, 181.0) == 0.0
    web.found_dry(OWN, HERE, 181.0, FailureCause.RESERVED)
    assert (web.at_most(OWN, HERE, 182.0), api.at_most(OWN, HERE, 182.0)) == (0.0, 1.0)
