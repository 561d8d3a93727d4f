"""Hosts of libvirt's test driver behind one provider, with troubles that tests script."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from autoscaler.clock import SystemClock
from autoscaler.ports import FLEET_TAG, VmState
from autoscaler.providers.libvirt.provider import LibvirtProvider
from autoscaler.providers.libvirt.settings import LibvirtSettings
from tests.libvirt.driver import DriverHost
from tests.libvirt.troubles import Hanging, Troubled

URIS = {"hv1": "test+tcp://hv1/", "hv2": "test+tcp://hv2/"}
WAITS = {"listing_s": 20.0, "call_s": 20.0, "batch_s": 20.0, "saving_s": 0.5}
"""Timeouts longer than anything takes that does not hang, except for saves, which tests cause to hang."""


class Hosts:
    """Two hosts, and a provider that uses them.

    Attributes:
        of: The hosts, by name.
        scripts: Their troubles, by name; see `Troubled`.
        opened: URIs in the order in which connections were opened.
        alive: Whether connections are alive, by name.
        registered: Number of registered callbacks, by name.
    """

    def __init__(self, waits=WAITS):
        self.of = {name: DriverHost.open() for name in URIS}
        self.registered = dict.fromkeys(URIS, 0)
        self.scripts = {
            # A host of the test driver has a single connection, which must stay open for the next user.
            name: {
                "isAlive": self._liveness(name),
                "close": lambda *_: 0,
                "domainEventRegisterAny": self._registration(name, 1),
                "domainEventDeregisterAny": self._registration(name, -1),
            }
            for name in URIS
        }
        self.opened = []
        self.alive = dict.fromkeys(URIS, True)
        self.refusing = {}
        self.connecting = None
        self.clock = SystemClock()
        self.waits = waits
        self.provider = self.new_provider()

    def new_provider(self, **more):
        waits = {**self.waits, **more}
        return LibvirtProvider(LibvirtSettings(tuple(URIS.values()), **waits), self.clock, self.connect)

    def connect(self, uri):
        name = next(name for name, each in URIS.items() if each == uri)
        self.opened.append(name)
        if self.connecting is not None:
            self.connecting(uri)
        if name in self.refusing:
            raise self.refusing[name]
        self.alive[name] = True
        return Troubled(self.of[name].connection, self.scripts[name])

    def _registration(self, name, step):
        def counted(*_):
            self.registered[name] += step
            return NotImplemented

        return counted

    def _liveness(self, name):
        return lambda *_: int(self.alive[name])

    def hang(self, name, method):
        hanging = self.scripts[name][method] = Hanging()
        return hanging

    def define(self, on="hv1", fleet="web", **more):
        tags = {FLEET_TAG: fleet, **more.pop("tags", {})}
        return self.of[on].define(tags, **more)

    async def vms(self):
        listing = await self.provider.list_vms()
        assert listing.complete, listing.error
        return {vm.id: vm for vm in listing.vms}

    async def until(self, reached):
        async with asyncio.timeout(60):
            while not await reached():
                await self.clock.sleep_until(self.clock.monotonic() + 0.01)

    async def until_state(self, vm_id, state=VmState.STOPPED):
        async def reached():
            listing = await self.provider.list_vms()
            return any(vm.id == vm_id and vm.state is state for vm in listing.vms)

        await self.until(reached)

    async def close(self):
        for script in ({"connect": self.connecting}, *self.scripts.values()):
            for each in script.values():
                if isinstance(each, Hanging):
                    each.released.set()
        await self.provider.close()
        for host in self.of.values():
            host.close()


@pytest.fixture(name="waits")
def _waits():
    """Timeouts for hosts; modules in which hosts hang set shorter ones."""
    return WAITS


@pytest_asyncio.fixture(name="hosts")
async def _hosts(waits):
    hosts = Hosts(waits)
    try:
        yield hosts
    finally:
        await hosts.close()
