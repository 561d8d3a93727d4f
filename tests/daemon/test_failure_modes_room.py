"""Failure modes of scarce room: demand is met wherever there is room, and places without room are hardly asked."""

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.clock import run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.vms.places import DRY_S
from autoscaler.errors import ProviderError
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady

TOTAL = {"kind": "total"}
OWN, OTHER = "m7i.large", "m6i.large"
ZONES = [f"us-east-1{zone}" for zone in "abc"]
PLACES = [(vm_type, zone) for vm_type in (OWN, OTHER) for zone in ZONES]
NEEDED, START_S, TICK_S, END_S = 4, 19.0, 10.0, 900.0
BURSTS_S = (60.0, 400.0)
windows = st.lists(st.tuples(st.integers(0, 800), st.integers(1, 600)), min_size=1, max_size=3)


class Scarce(Bench):
    """A bench that notes each start: when, in which place, how many VMs, and whether there was no room."""

    def __init__(self, dry):
        faults = [
            Fault(FaultKind.NO_CAPACITY, begin, begin + long, vm_type=vm_type, zone=zone)
            for (vm_type, zone), spans in dry.items()
            for begin, long in spans
        ]
        super().__init__(vms=3 * NEEDED, zones="abc", faults=faults, limits=None)
        self.asked = defaultdict(list)
        start = self.world.start

        def noted(now_s, vm_ids, **options):
            views = {view.id: view for view in self.world.views(now_s)}
            places = {(views[i].vm_type, views[i].zone) for i in vm_ids}
            try:
                done = start(now_s, vm_ids, **options)
            except ProviderError:
                for place in places:
                    self.asked[place].append((now_s - ORIGIN_S, len(vm_ids), False))
                raise
            for place in places:
                self.asked[place].append((now_s - ORIGIN_S, len(vm_ids), True))
            return done

        self.world.start = noted


@pytest.mark.parametrize("haven", PLACES)
@given(dry=st.fixed_dictionaries(dict.fromkeys(PLACES, windows)))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_demand_is_met_in_the_time_of_a_start_wherever_there_is_room_and_dry_places_are_hardly_asked(
    haven, dry
):
    async def run():
        bench = Scarce({place: spans for place, spans in dry.items() if place != haven})
        wanted = steady((0, 0), (BURSTS_S[0], 100 * NEEDED), (200, 0), (BURSTS_S[1], 100 * NEEDED))
        bench.add(policy(signal=TOTAL, vm={"types": [OWN, OTHER]}), wanted)
        await bench.run(END_S)
        turns = [(record.at_s - ORIGIN_S, record.fleets[0].in_service) for record in bench.records]
        for burst_s in BURSTS_S:
            served_s = next(at_s for at_s, vms in turns if at_s >= burst_s and vms >= NEEDED)
            assert served_s <= burst_s + START_S + TICK_S
        for place, asked in bench.asked.items():
            failed = sorted({at_s for at_s, _, done in asked if not done})
            for before_s, at_s in pairwise(failed):
                found_room = any(done and before_s < then_s < at_s for then_s, _, done in asked)
                assert found_room or at_s - before_s >= DRY_S - 1e-6, (place, asked)
                if not found_room:
                    assert {vms for then_s, vms, _ in asked if then_s == at_s} == {1}
            # The whole batch, its halves, and one at a time after that.
            assert sum(not done for *_, done in asked) <= 3 * (1 + len(dry[place])) + END_S / DRY_S

    run_virtual(run)
