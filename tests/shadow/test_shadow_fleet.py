"""A fleet without `act` is decided on and recorded as if it acted, and nothing is changed."""

import pytest

from autoscaler.clock import VirtualClock
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.ports import FLEET_TAG, Listing, OutcomeKind, Provider, ProvisionSpec, Vm, VmState
from autoscaler.providers.coalescing import SharedProvider, SharedReader
from autoscaler.providers.shadow import ShadowProvider
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual, vm

START_S, STOP_S = 20.0, 30.0


class Reader:
    """A reader that lists the given VMs."""

    def __init__(self, *vms, checked=()):
        self.vms, self.passed = vms, frozenset(checked)

    async def list_vms(self):
        return Listing(self.vms, True, 0.0, 0.0)

    async def list_of(self, fleet):
        return (await self.list_vms()), tuple(v for v in self.vms if v.fleet == fleet)

    async def checked(self, vm_ids):
        return self.passed & frozenset(vm_ids)


def shadow(reader, clock, fleet="web"):
    return ShadowProvider(reader, clock, fleet, start_time_s=START_S, stop_time_s=STOP_S)


async def states(provider):
    return {v.id: v.state for v in (await provider.list_vms()).vms}


@virtual
async def test_in_shadow_the_numbers_move_as_if_it_acted_and_the_cloud_sees_no_change():
    bench = Bench(vms=6, running=1, zones="a")
    own = shadow(SharedReader(bench.provider), bench.clock)
    quiet = policy(act=False, signal={"kind": "total"})
    bench.add(quiet, steady((0, 100), (20, 400), (100, 200)), provider=own)
    await bench.run(200)
    assert bench.changes() == []
    assert bench.world.counts(ORIGIN_S + 200)["running"] == 1
    assert bench.column("in_service") == [1, 1, 1, 1, *[4] * 7, *[2] * 10]
    assert bench.column("starting")[2:5] == [0, 3, 0]
    assert bench.column("stopping")[10:15] == [0, 2, 2, 0, 0]
    assert [a.intent.verb for a in bench.actions()] == ["start", "stop"]
    assert bench.telemetry.registry.get_sample_value("autoscaler_acts", {"fleet": "web"}) == 0
    assert bench.log.texts("daemon_started") == ["acting: none; in shadow: web"]


@virtual
async def test_an_acting_fleet_and_one_in_shadow_share_one_listing_a_tick():
    bench = Bench(vms=3, running=1, zones="a")
    bench.place("api", 3, running=1)
    reader = SharedReader(bench.provider)
    bench.add(policy("web"), 200, provider=SharedProvider(bench.provider, reader))
    bench.add(policy("api", act=False), 200, provider=shadow(reader, bench.clock, "api"))
    await bench.run(50)
    assert len(bench.calls("DescribeInstances")) == 6
    assert {view.fleet for view in bench.world.views(ORIGIN_S + 50) if view.state == "running"} == {
        "web",
        "api",
    }
    assert bench.column("in_service", "web")[-1] == bench.column("in_service", "api")[-1] == 2
    assert bench.world.counts(ORIGIN_S + 50, "api")["running"] == 1


def test_it_is_a_provider_and_holds_nothing_that_can_change_a_vm():
    provider: Provider = shadow(Reader(vm()), VirtualClock())
    held = [getattr(provider, name) for name in vars(provider)]
    assert not [
        thing for thing in held if {"start", "stop", "provision", "terminate", "tag"} & set(dir(thing))
    ]


@virtual
async def test_a_start_is_pending_then_running_then_ready_with_a_launch_time_of_its_own():
    clock = VirtualClock(1000.0)
    provider = shadow(Reader(vm("i-1", reason="Client.UserInitiatedShutdown"), vm("i-2")), clock)
    (outcome,) = await provider.start(["i-1"])
    assert (outcome.vm_id, outcome.kind) == ("i-1", OutcomeKind.ACCEPTED)
    seen = []
    for until_s in (0.0, 13.9, 14.0, 19.9, 20.0):
        await clock.sleep_until(until_s)
        ready = await provider.checked(["i-1", "i-2"])
        seen.append(((await states(provider))["i-1"], sorted(ready)))
    pending, running = VmState.PENDING, VmState.RUNNING
    assert seen == [(pending, []), (pending, []), (running, []), (running, []), (running, ["i-1"])]
    first, second = (await provider.list_vms()).vms
    assert (first.launched_at_s, first.state_reason) == (1000.0, "")
    assert second == vm("i-2")


@virtual
async def test_a_stop_keeps_the_launch_time_so_that_every_vm_gets_its_turn():
    clock = VirtualClock(1000.0)
    provider = shadow(Reader(vm("i-1"), vm("i-2", VmState.RUNNING, launched=5.0)), clock)
    await provider.start(["i-1"])
    await clock.sleep_until(50.0)
    await provider.stop(["i-1", "i-2"])
    assert await states(provider) == {"i-1": VmState.STOPPING, "i-2": VmState.STOPPING}
    assert await provider.checked(["i-1"]) == frozenset()
    await clock.sleep_until(80.0)
    assert await states(provider) == {"i-1": VmState.STOPPED, "i-2": VmState.STOPPED}
    assert [v.launched_at_s for v in (await provider.list_vms()).vms] == [1000.0, 5.0]


@virtual
async def test_new_vms_exist_in_this_shadow_only_and_once_per_token():
    clock = VirtualClock(1000.0)
    reader = Reader(vm())
    provider = shadow(reader, clock)
    spec = ProvisionSpec("web", "lt-1", vm_type="m7i.large", tags={"a": "b"})
    first = await provider.provision(spec, 2, "token")
    assert await provider.provision(spec, 2, "token") == first
    made = (await provider.list_vms()).vms[1:]
    assert [(v.id, v.fleet, v.state, v.vm_type) for v in made] == [
        (o.vm_id, "web", VmState.PENDING, "m7i.large") for o in first
    ]
    assert made[0].tags == {"a": "b", FLEET_TAG: "web"}
    await clock.sleep_until(START_S)
    assert await provider.checked([o.vm_id for o in first]) == {o.vm_id for o in first}
    outcomes = await provider.terminate([first[0].vm_id, "i-1"])
    assert [o.kind for o in outcomes] == [OutcomeKind.ACCEPTED, OutcomeKind.REFUSED]
    assert len((await provider.list_vms()).vms) == 2
    assert len((await reader.list_vms()).vms) == 1


@virtual
async def test_real_vms_that_are_terminated_are_shown_so_and_real_checks_are_passed_on():
    clock = VirtualClock(0.0)
    reader = Reader(vm("i-1"), vm("i-2", VmState.RUNNING), checked=("i-2",))
    provider = shadow(reader, clock)
    await provider.start(["i-1"])
    reader.vms = (vm("i-1", VmState.TERMINATED), reader.vms[1])
    assert await states(provider) == {"i-1": VmState.TERMINATED, "i-2": VmState.RUNNING}
    assert await provider.checked(["i-2", "i-9"]) == {"i-2"}
    assert [o.kind for o in await provider.tag(["i-1"], {"a": "b"})] == [OutcomeKind.ACCEPTED]
    await provider.close()


@virtual
async def test_a_failed_listing_is_a_failed_listing_in_shadow_too():
    bench = Bench(vms=2)
    bench.world.add_fault(Fault(FaultKind.API_ERROR, code="Unavailable"))
    listed = await shadow(SharedReader(bench.provider), bench.clock).list_vms()
    assert not listed.complete
    assert "Unavailable" in listed.error


@pytest.mark.parametrize("count", [1, 3])
def test_ids_of_a_shadow_are_told_apart_from_real_ones(count):
    @virtual
    async def run():
        provider = shadow(Reader(), VirtualClock(0.0))
        made: tuple[Vm, ...] = (await provider.list_vms()).vms
        assert made == ()
        outcomes = await provider.provision(ProvisionSpec("web", "lt-1"), count, "t")
        assert len({o.vm_id for o in outcomes}) == count
        assert all(o.vm_id.startswith("shadow-") for o in outcomes)

    run()
