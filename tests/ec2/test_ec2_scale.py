"""20,000 VMs through the EC2 protocol: all are listed, and the event loop is never blocked for long."""

import asyncio
import gc
import time
from contextlib import contextmanager

from autoscaler.clock import SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.ports import ProvisionSpec
from autoscaler.providers.ec2.listing import FIRST_PAGE
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings

VMS = 20_000
LONGEST_STALL_S = 0.05
TICK_S = 0.001
MOST_LISTINGS = 6


@contextmanager
def frozen_heap():
    """Exempt existing objects from garbage collection, as `Ec2Provider.open` asks of its caller."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def longest_held_s(work):
    """Most CPU time that the loop's thread used between two wake-ups of a task that wakes every millisecond.

    This is not the delay of that task, which other processes on a busy machine increase, too.
    """

    async def tick():
        before_s = time.thread_time()
        while not done.is_set():
            await clock.sleep_until(clock.monotonic() + TICK_S)
            now_s = time.thread_time()
            held_s.append(now_s - before_s)
            before_s = now_s

    clock, done, held_s = SystemClock(), asyncio.Event(), [0.0]
    ticker = asyncio.create_task(tick())
    result = await work
    done.set()
    await ticker
    return max(held_s), result


async def test_20000_vms_are_listed_without_holding_the_loop():
    setup = CloudSetup(fleets=(FleetSetup("web", VMS, tags={"team": "shop"}),), api_limits=False)
    async with EndpointProcess(setup) as process:
        settings = Ec2Settings(setup.region, process.url, access_key_id="a", secret_access_key="b")
        async with await Ec2Provider.open(settings, SystemClock()) as provider:
            with frozen_heap():
                found = []
                # The best of a few: a busy machine is slower for a while.
                while not found or (len(found) < MOST_LISTINGS and min(found)[0] >= LONGEST_STALL_S):
                    held_s, listing = await longest_held_s(provider.list_vms())
                    found.append((held_s, len(found), listing))
    for _, _, listing in found:
        assert listing.complete, listing.error
        assert len(listing.vms) == VMS
        assert {(vm.fleet, vm.state) for vm in listing.vms} == {("web", "stopped")}
    assert min(found)[0] < LONGEST_STALL_S


async def test_one_vm_more_than_the_first_page_brings_the_listing_process():
    setup = CloudSetup(fleets=(FleetSetup("web", FIRST_PAGE),), api_limits=False)
    async with EndpointProcess(setup) as process:
        settings = Ec2Settings(setup.region, process.url, access_key_id="a", secret_access_key="b")
        async with await Ec2Provider.open(settings, SystemClock()) as provider:
            assert await listed(provider) == FIRST_PAGE
            assert provider.listing_pid is None
            await provider.provision(ProvisionSpec("web", "web"), 1, "one more")
            assert [await listed(provider) for _ in range(2)] == [FIRST_PAGE + 1] * 2
            assert provider.listing_pid is not None


async def listed(provider):
    listing = await provider.list_vms()
    assert listing.complete, listing.error
    return len({vm.id for vm in listing.vms})
