"""Laws of the start path, whatever the cloud does: with the real loop, world and budget, on virtual time.

Each example is a bad hour of three fleets on one account: faults of every kind that a start may meet, demand that
comes and goes, and another user of the API. Then all is quiet, and ledger and cloud must be the same.
"""

import asyncio
from collections import Counter
from contextlib import suppress

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autoscaler.clock import run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.tracked import PROTECTED_TAG
from autoscaler.errors import ProviderError
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from tests.daemon.builders import ORIGIN_S, Bench, Watched, policy

TOTAL = {"kind": "total"}
TROUBLE_S = 600
QUIET_S = 2600
"""Longer than any transient, a quarantine, and a start after it."""
OWN, OTHER = "m7i.large", "m6i.large"
MINIMUM_ON_S = 60.0
FLEETS = {"web": 14, "api": 6, "batch": 4}
ZONES = "abc"

span = st.tuples(st.integers(0, TROUBLE_S - 20), st.integers(10, 300)).map(
    lambda each: {"start_s": each[0], "end_s": min(each[0] + each[1], TROUBLE_S)}
)
place = st.fixed_dictionaries(
    {},
    optional={
        "zone": st.sampled_from([f"us-east-1{z}" for z in ZONES]),
        "vm_type": st.sampled_from([OWN, OTHER]),
        "fleet": st.sampled_from(sorted(FLEETS)),
    },
)
trouble = st.one_of(
    st.builds(
        lambda when, where, code: Fault(FaultKind.NO_CAPACITY, code=code, **when, **where),
        span,
        place,
        st.sampled_from(
            ["", "InsufficientInstanceCapacity", "VcpuLimitExceeded", "InvalidParameterValue", "Unsupported"]
        ),
    ),
    st.builds(
        lambda when, where, code, chance: Fault(
            FaultKind.FALL_BACK, code=code, probability=chance, **when, **where
        ),
        span,
        place,
        st.sampled_from(["", "Client.InternalError", "Client.VolumeLimitExceeded", "Server.InternalError"]),
        st.floats(0.2, 1.0),
    ),
    st.builds(
        lambda kind, when, delay_s: Fault(kind, delay_s=delay_s, probability=0.5, **when),
        st.sampled_from([FaultKind.STUCK_PENDING, FaultKind.STUCK_STOPPING, FaultKind.UNREADY]),
        span,
        st.one_of(st.none(), st.integers(20, 400)),
    ),
    st.builds(
        lambda kind, when, chance: Fault(kind, probability=chance, **when),
        st.sampled_from([FaultKind.THROTTLE, FaultKind.API_ERROR, FaultKind.LOST_REPLY]),
        span,
        st.floats(0.1, 0.9),
    ),
    st.builds(
        lambda when, delay_s: Fault(FaultKind.LATENCY, delay_s=delay_s, probability=0.5, **when),
        span,
        st.integers(1, 30),
    ),
    st.builds(
        lambda when, delay_s: Fault(FaultKind.LISTING_LAG, delay_s=delay_s, **when), span, st.integers(1, 20)
    ),
)


class Account(Bench):
    """A bench whose provider has an API budget, and which notes violations of the laws."""

    def __init__(self, faults, seed):
        super().__init__(vms=0, zones=ZONES, seed=seed, physics=Physics(), faults=faults)
        self.budget = CallBudget(self.clock)
        self.provider = BudgetedProvider(self.provider, self.budget, self.clock, seed=seed)
        self.wrong: list[str] = []
        self.protected_from: dict[str, float] = {}
        """By VM, the time from which the daemon must know its protection."""
        self.stop_by_hand = stop = self.world.stop

        def watched(now_s, vm_ids, **options):
            for vm_id in vm_ids:
                self.stopped(now_s, vm_id)
            return stop(now_s, vm_ids, **options)

        self.world.stop = watched

    def stopped(self, now_s, vm_id):
        """Check a stop: no protected VM, and none that has not served for its minimum."""
        view = next(v for v in self.world.views(now_s) if v.id == vm_id)
        if PROTECTED_TAG in view.tags and now_s >= self.protected_from.get(vm_id, now_s):
            self.wrong.append(f"{vm_id} is protected")
        t = self.daemon.fleets.by_name[view.fleet].inventory.vms[vm_id]
        # One that was found running is on since its launch.
        ours = t.run is not None and t.run.counts_start
        if ours and t.in_service_from_s is not None and now_s - t.in_service_from_s < MINIMUM_ON_S - 1e-6:
            self.wrong.append(f"{vm_id} served for {now_s - t.in_service_from_s:.0f} s only")

    def watch(self, record):
        """Check after each tick that no fleet has more VMs on than it may, including those requested elsewhere."""
        now_s = self.clock.now()
        for row in record.fleets:
            fleet = self.daemon.fleets.by_name[row.fleet]
            ordered = sum(t.coming or t.phase is Phase.IN_SERVICE for t in fleet.inventory.vms.values())
            most = max(fleet.policy.bounds.maximum, row.desired, row.in_service + row.starting)
            if ordered > most:
                self.wrong.append(f"{row.fleet}: {ordered} ordered of {most} at {now_s - ORIGIN_S:.0f}")
            for t in fleet.inventory.vms.values():
                waited_s = now_s - t.phase_since_s
                patience = fleet.inventory.patience
                limit_s = {
                    Phase.STARTING: patience.written_off_s(new=t.new),
                    Phase.PROVISIONING: patience.written_off_s(new=t.new),
                    Phase.RUNNING: patience.never_ready_s(new=t.new) + 300.0,
                    Phase.STOPPING: patience.stuck_s,
                }.get(t.phase, float("inf"))
                # One that was found running is kept, and told of, where as many are not ready as serve.
                kept = t.spared and not (t.run is not None and t.run.counts_start)
                if waited_s > limit_s + 30.0 and not kept:
                    self.wrong.append(f"{t.vm.id} is {t.phase} for {waited_s:.0f} s")


@given(
    st.integers(0, 2**31),
    st.lists(trouble, min_size=1, max_size=5),
    st.lists(st.integers(0, 9), min_size=2, max_size=6),
    st.booleans(),
)
@example(
    1, [Fault(FaultKind.NO_CAPACITY, zone="us-east-1a", end_s=400.0, code="Unsupported")], [9, 0, 9], False
)
@example(2, [Fault(FaultKind.UNREADY, end_s=500.0)], [4, 4], False)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_start_path_keeps_its_laws_in_a_bad_hour_and_is_whole_after_it(seed, faults, demand, others):
    async def main():
        bench = Account(faults, seed)
        bench.records = Watched(bench.watch)
        for number, (name, vms) in enumerate(FLEETS.items()):
            bench.place(name, vms)

            def wanted(second, vms=vms, number=number):
                if second >= TROUBLE_S:
                    return 200.0
                return 100.0 * min(
                    demand[(int(second * len(demand) // TROUBLE_S) + number) % len(demand)], vms
                )

            changes = {
                "bounds": {"maximum": vms // 2},
                "guards": {"minimum_on_time": f"{MINIMUM_ON_S:.0f}s"},
            }
            if name == "api":
                changes["vm"] = {"types": [OWN, OTHER]}
            bench.add(policy(name, signal=TOTAL, **changes), wanted)
        beside = asyncio.create_task(_others(bench)) if others else None
        await bench.run(TROUBLE_S + QUIET_S)
        if beside is not None:
            beside.cancel()
        whole(bench, ORIGIN_S + TROUBLE_S + QUIET_S)

    run_virtual(main)


async def _others(bench):
    (mine,) = bench.place("other", 1)
    while True:
        with suppress(ProviderError):  # faults apply to their calls, too
            bench.world.start(bench.clock.now(), [mine])
        await bench.clock.sleep_until(bench.clock.monotonic() + 1.0)


def whole(bench, now_s):
    """Check, after a long quiet with a demand of two VMs per fleet, that ledger and cloud agree and enough VMs serve."""
    assert bench.wrong == []
    failures = [text for event in ("tick_failed", "act_failed") for text in bench.log.texts(event)]
    assert failures == []
    views = {view.id: view for view in bench.world.views(now_s)}
    for fleet in bench.daemon.fleets.all:
        mine = {i: v for i, v in views.items() if v.fleet == fleet.name and v.state is not State.TERMINATED}
        known = {i: t.phase for i, t in fleet.inventory.vms.items()}
        # The cloud lists what was terminated for an hour, and so it is known as lost.
        known = {i: phase for i, phase in known.items() if i in mine or phase is not Phase.LOST}
        assert known.keys() == mine.keys()
        serving = {i for i, v in mine.items() if v.ready(now_s)}
        assert {i for i, phase in known.items() if phase is Phase.IN_SERVICE} == serving
        stopped = {i for i, v in mine.items() if v.state is State.STOPPED}
        assert {i for i, phase in known.items() if phase is Phase.STOPPED} == stopped
        # VMs that neither serve nor are stopped are stuck for ever, and written off.
        stuck = known.keys() - serving - stopped
        assert {known[i] for i in stuck} <= {Phase.LOST, Phase.STOPPING, Phase.RUNNING}
        assert len(serving) >= min(2, len(mine) - len(stuck)) - len(_left_alone(fleet, now_s))
        assert fleet.inventory.unsettled_actions() == set()
    doubled = Counter(
        (call.at_s, call.action)
        for call in bench.world.api.calls
        if call.action == "StartInstances" and call.code
    )
    # Throttled or not, there is never a storm of refused calls.
    assert max(doubled.values(), default=0) <= 20


def _left_alone(fleet, now_s):
    return [t for t in fleet.inventory.vms.values() if t.quarantined_until_s > now_s]
