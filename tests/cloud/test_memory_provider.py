"""The in-process provider beyond the shared contract: virtual time, latency, pages, the budget."""

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import FleetSetup, place_fleet
from autoscaler.cloud.world import World
from autoscaler.ports import OutcomeKind, ProvisionSpec, VmState
from autoscaler.providers.memory import MemoryProvider

EXACT = Physics(start=Spread(16), boot=Spread(3), launch=Spread(18), first_boot=Spread(7), stop=Spread(25))
ORIGIN_S = 1_800_000_000.5


def virtually(scenario, vms=3, **settings):
    """Run a scenario on a virtual clock against a world with one fleet."""

    async def run():
        clock = VirtualClock(ORIGIN_S)
        world = World(start_s=ORIGIN_S, **{"physics": EXACT, **settings})
        place_fleet(world, ORIGIN_S, FleetSetup("web", vms))
        provider = MemoryProvider(world, clock, deadline_s=10)
        return await scenario(provider, world, clock)

    return run_virtual(run)


async def wait(clock, seconds):
    await clock.sleep_until(clock.monotonic() + seconds)


def test_a_vm_lives_on_virtual_time():
    async def scenario(provider, world, clock):
        ids = [vm.id for vm in (await provider.list_vms()).vms]
        await provider.start(ids[:1])
        await wait(clock, 18.9)
        assert await provider.checked(ids) == frozenset()
        await wait(clock, 0.1)
        assert await provider.checked(ids) == {ids[0]}
        first = (await provider.list_vms()).vms[0]
        assert first.state is VmState.RUNNING
        assert first.launched_at_s == int(ORIGIN_S)
        assert clock.monotonic() == 19

    virtually(scenario)


def test_without_latency_a_call_takes_no_time_and_with_it_the_answer_comes_late():
    async def scenario(provider, world, clock):
        ids = [vm.id for vm in (await provider.list_vms()).vms]
        assert clock.monotonic() == 0
        world.add_fault(Fault(FaultKind.LATENCY, delay_s=4))
        assert (await provider.start(ids[:1]))[0].kind is OutcomeKind.ACCEPTED
        assert clock.monotonic() == 4
        listing = await provider.list_vms()
        assert listing.received_at_s - listing.requested_at_s == 4

    virtually(scenario)


def test_an_answer_after_the_deadline_is_unknown_though_the_deed_is_done():
    async def scenario(provider, world, clock):
        ids = [vm.id for vm in (await provider.list_vms()).vms]
        world.add_fault(Fault(FaultKind.LATENCY, delay_s=11, actions=("StartInstances",)))
        (outcome,) = await provider.start(ids[:1])
        assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, "NoAnswer")
        assert clock.monotonic() == 10
        assert (await provider.list_vms()).vms[0].state is VmState.PENDING

    virtually(scenario)


def test_a_listing_that_breaks_off_is_not_complete_and_keeps_what_came():
    async def scenario(provider, world, clock):
        assert len((await provider.list_vms()).vms) == 2500
        for _ in range(98 - 3):
            world.page(clock.now(), limit=1)
        # Two requests are left in the bucket for a listing of three pages.
        broken = await provider.list_vms()
        assert not broken.complete
        assert len(broken.vms) == 2000
        assert "RequestLimitExceeded" in broken.error
        await wait(clock, 1)
        assert (await provider.list_vms()).complete

    virtually(scenario, vms=2500)


def test_unchanged_vms_are_the_same_objects_in_the_next_listing():
    async def scenario(provider, world, clock):
        before = (await provider.list_vms()).vms
        await provider.start([before[0].id])
        after = (await provider.list_vms()).vms
        assert after[0] is not before[0]
        assert after[1] is before[1]

    virtually(scenario)


def test_a_template_can_be_named_by_id_and_a_subnet_sets_the_zone():
    async def scenario(provider, world, clock):
        (template,) = world.templates.all()
        subnet, zone = list(world.places.subnets.items())[2]
        spec = ProvisionSpec("web", template.id, subnet=subnet)
        (outcome,) = await provider.provision(spec, 1, "token")
        vm = next(vm for vm in (await provider.list_vms()).vms if vm.id == outcome.vm_id)
        assert (vm.zone, vm.fleet, vm.vm_type) == (zone, "web", "m7i.large")
        wrong = await provider.provision(ProvisionSpec("web", "web", subnet="subnet-9"), 1, "other")
        assert [(o.kind, o.code) for o in wrong] == [(OutcomeKind.REFUSED, "InvalidSubnetID.NotFound")]

    virtually(scenario)
