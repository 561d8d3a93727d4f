"""In shadow, metrics come from the VMs that really run, and the real state is recorded in the journal as well."""

import asyncio
import math

import numpy as np

from autoscaler.clock import VirtualClock
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.loop import LoopSettings
from autoscaler.ports import FleetReadings, ProvisionSpec, RealVms, VmState
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.shadow import FORGET_AFTER_S, ShadowProvider
from autoscaler.wiring import Wiring
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy, steady, virtual, vm
from tests.shadow.test_shadow_fleet import Reader

START_S, STOP_S = 20.0, 30.0


def quiet_bench(demand, *, running=4, **changes):
    """A fleet in shadow, whose VMs run until another program stops them."""
    bench = Bench(vms=6, running=running, zones="a")
    own = ShadowProvider(
        SharedReader(bench.provider), bench.clock, "web", start_time_s=START_S, stop_time_s=STOP_S
    )
    source = bench.add(policy(act=False, **changes), demand, provider=own)
    return bench, source


@virtual
async def test_demand_is_measured_on_the_vms_that_really_run_whatever_the_policy_would_have_stopped():
    bench, source = quiet_bench(200)
    await bench.run(100)
    assert (bench.column("in_service")[1], bench.column("in_service")[-1]) == (4, 2)
    assert source.asked[-1] == 4
    assert bench.column("demand")[-1] == 200.0
    assert bench.column("coverage")[-1] == 1.0


@virtual
async def test_demand_does_not_grow_by_vms_that_would_have_been_started():
    bench, source = quiet_bench(steady((0, 200), (30, 600)), running=2)
    await bench.run(200)
    assert bench.column("in_service")[-1] == 6
    assert source.asked[-1] == 2
    assert bench.column("demand")[-1] == 600.0
    assert bench.changes() == []


@virtual
async def test_what_really_runs_and_costs_is_recorded_beside():
    bench, _ = quiet_bench(200)
    await bench.run(100)
    rows = bench.rows()
    assert {(row.real.running, row.real.provisioned) for row in rows} == {(4, 10)}
    # A VM-second in service costs 1, and each VM that exists costs 0.01 per second, charged tick by tick.
    assert [round(row.real.cost, 9) for row in rows[1:]] == [round(10 * (4 + 10 * 0.01), 9)] * 10
    assert rows[-1].cost < rows[-1].real.cost
    with bench.journal.reader() as reader:
        assert reader.last("web").recorded.real == rows[-1].real


@virtual
async def test_starts_and_stops_by_others_change_the_real_side_only():
    bench, _ = quiet_bench(200, running=2)
    others = [view.id for view in bench.world.views(ORIGIN_S) if view.state == "stopped"]
    loop = asyncio.get_running_loop()
    loop.call_later(42.0, lambda: loop.create_task(bench.provider.start(others[:3])))
    loop.call_later(122.0, lambda: loop.create_task(bench.provider.stop(others[:3])))
    await bench.run(200)
    assert {row.real.running for row in bench.rows()} == {2, 5}
    assert bench.rows()[-1].real.running == 2
    assert set(bench.column("in_service")[2:]) == {2}
    assert [e for e in bench.events() if "outside" in e[1]] == []


@virtual
async def test_nothing_is_said_of_the_real_side_before_a_whole_listing():
    bench, _ = quiet_bench(200)
    bench.world.add_fault(Fault(FaultKind.API_ERROR, code="Unavailable", end_s=25.0))
    await bench.run(60)
    assert [row.real for row in bench.rows()][:3] == [None, None, None]
    assert bench.rows()[3].real == RealVms(4, 10, 0.0)
    assert all(math.isfinite(row.real.cost) for row in bench.rows()[3:])


@virtual
async def test_an_acting_fleet_has_no_real_side():
    bench = Bench(vms=2, running=1)
    bench.add(policy(), 50)
    await bench.run(20)
    assert {row.real for row in bench.rows()} == {None}


@virtual
async def test_a_vm_under_way_is_followed_until_it_rests():
    bench, _ = quiet_bench(0)
    own = bench.setups[0].provider
    ids = [view.id for view in bench.world.views(ORIGIN_S) if view.state == "running"]
    await bench.provider.stop(ids[:1])
    seen = []
    for at_s in (1.0, 30.0, 40.0):
        await bench.clock.sleep_until(at_s)
        seen.append({v.id: v.state for v in (await own.list_vms()).vms}[ids[0]])
    await bench.provider.start(ids[:1])
    await bench.clock.sleep_until(80.0)
    listed = await own.list_vms()
    assert seen == [VmState.STOPPING, VmState.STOPPED, VmState.STOPPED]
    assert {v.id: v.state for v in listed.vms}[ids[0]] is VmState.STOPPED
    assert {v.id: v.state for v in listed.real}[ids[0]] is VmState.RUNNING


@virtual
async def test_other_start_times_go_on_with_what_was_simulated():
    bench, _ = quiet_bench(0)
    wiring = Wiring(bench.provider, bench.clock, lambda _policy: Demand(bench.clock, 0))
    before = wiring.wire([policy(act=False)])
    own = before.setups[0].provider
    first = (await own.list_vms()).vms[0].id
    await own.stop([first])
    made = await own.provision(ProvisionSpec("web", "lt-1"), 1, "token")
    slower = policy(act=False, vm={"start_time": "40s"})
    other = wiring.wire([slower], before.setups).setups[0].provider
    assert other is not own
    await bench.clock.sleep_until(31.0)
    seen = {v.id: v.state for v in (await other.list_vms()).vms}
    assert seen[first] is VmState.STOPPED
    assert seen[made[0].vm_id] is VmState.RUNNING
    assert await other.checked([made[0].vm_id]) == frozenset(), "it is ready after 40 s now"
    await bench.clock.sleep_until(41.0)
    assert await other.checked([made[0].vm_id]) == {made[0].vm_id}


@virtual
async def test_vms_that_are_gone_for_good_are_forgotten_and_others_are_not():
    clock = VirtualClock(1000.0)
    reader = Reader(vm("i-1", VmState.RUNNING), vm("i-2", VmState.RUNNING))
    own = ShadowProvider(reader, clock, "web", start_time_s=START_S, stop_time_s=STOP_S)
    await own.list_vms()
    await own.stop(["i-1", "i-2"])
    (_, stays) = reader.vms
    reader.vms = (stays,)
    for at_s in (60.0, FORGET_AFTER_S - 1):
        await clock.sleep_until(at_s)
        await own.list_vms()
    reader.vms = (vm("i-1", VmState.RUNNING), stays)
    assert {v.state for v in (await own.list_vms()).vms} == {VmState.STOPPED}
    reader.vms = (stays,)
    await clock.sleep_until(3 * FORGET_AFTER_S)
    await own.list_vms()
    reader.vms = (vm("i-1", VmState.RUNNING), stays)
    assert {v.id: v.state for v in (await own.list_vms()).vms} == {
        "i-1": VmState.RUNNING,
        "i-2": VmState.STOPPED,
    }


class ToldOnce:
    """A source that has had nothing new since the start."""

    def __init__(self):
        values, observed_at_s = np.zeros(1), np.full(1, ORIGIN_S)
        values.flags.writeable = observed_at_s.flags.writeable = False
        self._readings = FleetReadings(("",), values, observed_at_s)

    async def read(self, vms):
        return self._readings

    async def close(self):
        pass


@virtual
async def test_a_tick_in_shadow_in_which_nothing_changed_has_the_very_row_of_the_one_before():
    bench, _ = quiet_bench(ToldOnce(), running=0, signal={"kind": "total", "max_age": "10m"})
    bench.settings = LoopSettings(forecasts=False)
    await bench.run(100)
    assert bench.rows()[-1].real == RealVms(0, 6, 0.6)
    assert bench.rows()[-1] is bench.rows()[-2]
