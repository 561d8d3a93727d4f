"""Laws of the ledger under any demand, faults and changes from outside, with the real loop and world."""

import asyncio
import math
from collections import Counter
from contextlib import suppress
from copy import copy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.clock import run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.inventory import ON_THE_WAY, Phase
from autoscaler.errors import ProviderError
from tests.daemon.builders import ORIGIN_S, Bench, Watched, policy

VMS = 8
TROUBLE_S = 300
QUIET_S = 900
"""Longer than a quarantine (600 s) and a start or a stop after it."""
KNOWN_AFTER_S = 70.0
"""The worst lag of a listing (20 s), the time in which an order may count unconfirmed (30 s), two ticks."""

spans = st.tuples(st.integers(0, TROUBLE_S - 20), st.integers(10, 120)).map(
    lambda span: {"start_s": span[0], "end_s": min(span[0] + span[1], TROUBLE_S)}
)
faults = st.one_of(
    st.builds(
        lambda kind, span, chance: Fault(kind, probability=chance, **span),
        st.sampled_from(
            [
                FaultKind.FALL_BACK,
                FaultKind.NO_CAPACITY,
                FaultKind.THROTTLE,
                FaultKind.API_ERROR,
                FaultKind.LOST_REPLY,
                FaultKind.HOST_STOP,
            ]
        ),
        spans,
        st.floats(0.1, 1.0),
    ),
    st.builds(
        lambda kind, span, delay_s: Fault(kind, delay_s=delay_s, probability=0.5, **span),
        st.sampled_from([FaultKind.STUCK_PENDING, FaultKind.STUCK_STOPPING, FaultKind.UNREADY]),
        spans,
        st.integers(1, 200),
    ),
    st.builds(
        lambda span, delay_s: Fault(FaultKind.LISTING_LAG, delay_s=delay_s, **span), spans, st.integers(1, 20)
    ),
    st.builds(
        lambda span, delay_s: Fault(FaultKind.LATENCY, delay_s=delay_s, probability=0.5, **span),
        spans,
        st.integers(1, 40),
    ),
    st.builds(lambda span: Fault(FaultKind.MISSING_ROWS, probability=0.2, **span), spans),
)
hands = st.tuples(
    st.integers(0, TROUBLE_S - 1), st.sampled_from(["start", "stop", "terminate"]), st.integers(0, VMS - 1)
)


class Watch:
    """Compares the ledger with the true state after every tick."""

    def __init__(self, bench):
        self.bench = bench
        self.last_on_s: dict[str, float] = {}

    def __call__(self, record):
        bench, now_s = self.bench, self.bench.clock.now()
        inventory = bench.daemon.fleets.all[0].inventory
        truth = {view.id: view.state for view in bench.world.views(now_s)}
        for vm_id, state in truth.items():
            if state in {State.PENDING, State.RUNNING}:
                self.last_on_s[vm_id] = now_s
        row = record.fleets[0]
        phases = Counter(t.phase for t in inventory.vms.values())
        assert sum(phases.values()) == len(inventory.vms)
        # Counts that are kept from tick to tick equal a fresh count.
        kept = inventory.counts(now_s, 0.0)
        anew = copy(inventory)
        anew._by_phase = anew._counted = None
        anew._in_phase = {}
        assert kept == anew.counts(now_s, 0.0)
        metered = [t for t in inventory.metered() if t.run or t.closed_runs]
        assert metered == [t for t in inventory.vms.values() if t.run or t.closed_runs]
        for phase in Phase:
            ids = sorted(i for i, t in inventory.vms.items() if t.phase is phase)
            assert [vm.id for vm in inventory.vms_in(phase)] == ids
            assert all(inventory.vms[vm.id].vm is vm for vm in inventory.vms_in(phase))
        overdue = sum(t.overdue and t.phase in ON_THE_WAY for t in inventory.vms.values())
        assert row.in_service + row.starting + row.stopping + row.stopped + overdue == row.provisioned
        for vm_id, t in inventory.vms.items():
            counted = t.phase is Phase.IN_SERVICE or (t.phase in ON_THE_WAY and not t.overdue)
            ordered = t.order is not None and not t.order.confirmed
            on = now_s - self.last_on_s.get(vm_id, -1e9) <= KNOWN_AFTER_S
            assert not counted or ordered or on, (vm_id, t, truth.get(vm_id))
        assert row.start <= row.stopped
        assert row.stop <= row.stoppable <= row.in_service


async def by_hand(bench, at_s, verb, number):
    await bench.clock.sleep_until(at_s)
    with suppress(ProviderError):  # a change by hand that comes too late, or meets the same faults
        getattr(bench.world, verb)(bench.clock.now(), [bench.ids[number]])


@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.lists(faults, max_size=4),
    st.lists(hands, max_size=4),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_ledger_counts_each_vm_once_and_equals_the_cloud_in_the_end(seed, demand, trouble, by_hands):
    async def main():
        bench = Bench(vms=VMS, physics=Physics(), seed=seed, limits=None, faults=trouble)
        bench.records = Watched(Watch(bench))

        def wanted(second):
            return 100.0 * (demand[int(second * len(demand) // TROUBLE_S)] if second < TROUBLE_S else 2)

        bench.add(policy(signal={"kind": "total"}), wanted)
        others = [asyncio.create_task(by_hand(bench, *hand)) for hand in by_hands]
        await bench.run(TROUBLE_S + QUIET_S)
        await asyncio.gather(*others)
        # Violations found by the watch make the tick fail, like bugs.
        assert bench.log.texts("tick_failed") == []
        now_s = ORIGIN_S + TROUBLE_S + QUIET_S
        known = {i: t.phase for i, t in bench.daemon.fleets.all[0].inventory.vms.items()}
        serving = set(bench.world.serving(now_s))
        counts = bench.world.counts(now_s)
        assert {i for i, phase in known.items() if phase is Phase.IN_SERVICE} == serving
        assert Counter(known.values())[Phase.STOPPED] == counts[State.STOPPED]
        assert len(serving) == min(2, counts[State.RUNNING] + counts[State.STOPPED])
        assert await bench.journal.recent_actions(math.inf) == ()

    run_virtual(main)
