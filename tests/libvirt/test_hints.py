"""Events from libvirt: heard at once, and again after a connection was lost."""

import asyncio

from autoscaler.ports.hints import HintKind
from autoscaler.providers.libvirt.provider import LibvirtProvider
from autoscaler.providers.libvirt.settings import LibvirtSettings
from autoscaler.wiring_providers import Cloud, open_hints


async def heard(hosts, change):
    """The hints that result from a change."""
    waiting = asyncio.create_task(hosts.provider.hints.next())
    await asyncio.sleep(0)  # noqa: TID251 - so that it listens before anything happens
    change()
    async with asyncio.timeout(60):
        return await waiting


async def test_what_happens_to_a_domain_is_heard(hosts):
    vm_id = hosts.define()
    await hosts.vms()
    domain = hosts.of["hv1"].domain(vm_id)
    (hint,) = await heard(hosts, domain.create)
    assert (hint.kind, hint.vm_id, hint.text) == (HintKind.STATE, vm_id, "started")
    assert abs(hint.at_s - hosts.clock.now()) < 60
    (hint,) = await heard(hosts, domain.destroy)
    assert (hint.vm_id, hint.text) == (vm_id, "stopped")


async def test_it_is_heard_again_once_after_the_connection_has_ended(hosts):
    vm_id = hosts.define()
    await hosts.vms()
    hosts.alive["hv1"] = False
    await hosts.vms()
    (hint,) = await heard(hosts, hosts.of["hv1"].domain(vm_id).create)
    assert hint.vm_id == vm_id
    await hosts.provider.close()
    # No callback may be registered any more, because the connection could not be closed otherwise.
    assert hosts.registered == {"hv1": 0, "hv2": 0}


async def test_a_daemon_on_hosts_listens_to_them(hosts):
    settings = LibvirtSettings(("qemu:///system",))
    provider = LibvirtProvider(settings, hosts.clock, hosts.connect)
    assert await open_hints(Cloud(libvirt=settings), provider) is provider.hints
    assert await open_hints(Cloud(), provider) is None
