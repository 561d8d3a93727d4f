"""With all fleets in shadow, as in a new installation, the cost per fleet does not grow with their number."""

import asyncio
from dataclasses import fields, replace

import pytest

from autoscaler.clock import run_virtual
from autoscaler.ports import FLEET_TAG, Vm
from autoscaler.providers.coalescing import SharedProvider, SharedReader
from autoscaler.providers.shadow import ShadowProvider
from tests.daemon.builders import Bench, policy, steady, virtual


class Looked(Vm):
    """A VM that counts how often a field of any such VM is read."""

    looks = 0

    def __getattribute__(self, name):
        Looked.looks += 1
        return super().__getattribute__(name)


class Anew:
    """Builds all VMs anew for each listing, like a provider over a network."""

    def __init__(self, provider):
        self._provider = provider

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def list_vms(self):
        listing = await self._provider.list_vms()
        return replace(listing, vms=tuple(map(self._row, listing.vms)))

    def _row(self, row):
        return Looked(**{f.name: getattr(row, f.name) for f in fields(Vm)})


class Changed(Anew):
    """Builds VMs anew only if they have changed."""

    def __init__(self, provider):
        super().__init__(provider)
        self._made = {}

    def _row(self, row):
        if id(row) not in self._made:
            self._made[id(row)] = row, super()._row(row)
        return self._made[id(row)][1]


async def looks(fleets, kind, *, act=False):
    """How often VMs of a fleet are read over five minutes in which demand comes and goes."""
    bench = Bench(vms=0, limits=None)
    provider = kind(bench.provider)
    reader = SharedReader(provider)
    acting = SharedProvider(provider, reader)
    for number in range(fleets):
        name = f"fleet-{number}"
        bench.place(name, 6, running=2)
        own = ShadowProvider(reader, bench.clock, name, start_time_s=20.0, stop_time_s=30.0)
        demand = steady((0, 200), (20 + 10 * (number % 5), 400), (120, 100))
        its = policy(name, act=act, signal={"kind": "total"})
        bench.add(its, demand, provider=acting if act else own)
    Looked.looks = 0
    await bench.run(300)
    return Looked.looks / fleets


@pytest.mark.parametrize("kind", [Anew, Changed])
def test_a_fleet_in_shadow_does_not_look_at_the_vms_of_others(kind):
    few, many = (run_virtual(lambda n=n: looks(n, kind)) for n in (5, 20))
    acting = run_virtual(lambda: looks(20, kind, act=True))
    assert many <= 1.1 * few
    # Both the simulated and the real VMs are tracked; how many reads a comparison takes depends on the version of Python.
    assert many <= 3.0 * acting


@virtual
async def test_a_listing_is_split_once_for_all_fleets_and_shows_each_its_own_rows():
    bench = Bench(vms=2, limits=None)
    bench.place("api", 3)
    reader = SharedReader(Changed(bench.provider))
    listing, web = await reader.list_of("web")
    Looked.looks = 0
    same, api = await reader.list_of("api")
    assert await reader.list_of("gone") == (listing, ())
    assert Looked.looks == 0
    assert same is listing
    assert (web, api) == (listing.vms[:2], listing.vms[2:])


@virtual
async def test_a_shadow_shows_the_very_rows_of_before_where_equal_ones_are_listed():
    bench = Bench(vms=2, running=1, limits=None)
    bench.place("api", 3)
    own = ShadowProvider(
        SharedReader(Anew(bench.provider)), bench.clock, "web", start_time_s=20.0, stop_time_s=30.0
    )
    first = await own.list_vms()
    await bench.clock.sleep_until(10.0)
    second = await own.list_vms()
    assert {v.fleet for v in first.vms} == {"web"}
    assert {v.fleet for v in first.real} == {"web", "api"}
    assert second.vms is first.vms
    await bench.provider.tag([first.vms[0].id], {"team": "shop"})
    await bench.clock.sleep_until(20.0)
    assert (await own.list_vms()).vms[0].tags["team"] == "shop"


@virtual
async def test_in_shadow_too_a_vm_that_is_tagged_for_another_fleet_is_that_fleets_at_once():
    bench = Bench(vms=3, running=1, limits=None)
    reader = SharedReader(bench.provider)
    for name in ("web", "api"):
        own = ShadowProvider(reader, bench.clock, name, start_time_s=20.0, stop_time_s=30.0)
        bench.add(policy(name, act=False, signal={"kind": "total"}), 50, provider=own)
    moved = bench.ids[-1]
    loop = asyncio.get_running_loop()
    loop.call_later(25.0, lambda: loop.create_task(bench.provider.tag([moved], {FLEET_TAG: "api"})))
    await bench.run(60)
    assert [text for _, kind, text in bench.events() if kind == "vm_moved"] == [
        f"{moved} is tagged for the fleet api now"
    ]
