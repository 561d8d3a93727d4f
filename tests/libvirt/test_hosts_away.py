"""Hosts that hang, refuse, or were restarted: the others go on, and unknown VMs do not count as absent."""

import asyncio

import pytest

from autoscaler.ports import OutcomeKind, ProvisionSpec, VmState
from tests.libvirt.troubles import Hanging, failing, libvirt_error

PATIENCE_S = 60.0
WAIT_S = 0.6
"""Timeout for hosts in these tests, in which they hang: a hundred times what an answer takes."""


@pytest.fixture(name="waits")
def _waits():
    return dict.fromkeys(("listing_s", "call_s", "batch_s", "saving_s"), WAIT_S)


async def reached(hanging):
    assert await asyncio.to_thread(hanging.reached.wait, PATIENCE_S)


async def test_a_host_that_hangs_is_left_behind_and_not_waited_for_twice(hosts):
    there, away = hosts.define("hv1"), hosts.define("hv2")
    assert set(await hosts.vms()) == {there, away}
    hanging = hosts.hang("hv2", "getAllDomainStats")
    first = await hosts.provider.list_vms()
    assert ({vm.id for vm in first.vms}, first.complete) == ({there}, False)
    assert "hv2 has not answered within 0.6 s" in first.error
    assert "(1 VMs came)" in first.error
    for _ in range(3):
        again = await hosts.provider.list_vms()
        assert ({vm.id for vm in again.vms}, again.complete) == ({there}, False)
        assert "is not asked until it does" in again.error
    assert hanging.times == 1
    hanging.released.set()
    del hosts.scripts["hv2"]["getAllDomainStats"]

    async def whole():
        return (await hosts.provider.list_vms()).complete

    await hosts.until(whole)
    assert set(await hosts.vms()) == {there, away}


async def test_who_wants_to_start_on_a_host_that_hangs_is_sent_elsewhere(hosts):
    there, away = hosts.define("hv1"), hosts.define("hv2")
    await hosts.vms()
    hosts.hang("hv2", "getAllDomainStats")
    await hosts.provider.list_vms()
    started = await hosts.provider.start([away, there])
    assert [each.vm_id for each in started] == [away, there]
    assert [each.kind for each in started] == [OutcomeKind.NO_CAPACITY, OutcomeKind.ACCEPTED]
    assert started[0].code == "HostUnreachable"
    (stopped,) = await hosts.provider.stop([away])
    assert (stopped.kind, stopped.code) == (OutcomeKind.THROTTLED, "HostUnreachable")
    assert not hosts.of["hv2"].domain(away).isActive()


async def test_a_vm_that_was_never_seen_may_be_on_the_host_that_hangs(hosts):
    hosts.hang("hv2", "getAllDomainStats")
    await hosts.provider.list_vms()
    (outcome,) = await hosts.provider.start(["0fedcba9-8765-4321-8fed-cba987654321"])
    assert (outcome.kind, outcome.code) == (OutcomeKind.NO_CAPACITY, "HostUnreachable")


async def test_a_change_that_hangs_is_unknown_and_holds_no_listing_up(hosts):
    slow, other = hosts.define("hv1"), hosts.define("hv1")
    hanging = hosts.hang("hv1", "create")
    (outcome,) = await hosts.provider.start([slow])
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, "NoAnswer")
    assert set(await hosts.vms()) == {slow, other}
    hanging.released.set()
    await hosts.until_state(slow, VmState.RUNNING)


async def test_changes_whose_turn_does_not_come_are_not_made_later(hosts):
    ids = [hosts.define("hv1") for _ in range(5)]
    hanging = hosts.hang("hv1", "create")
    outcomes = await hosts.provider.start(ids)
    assert [each.kind for each in outcomes] == [OutcomeKind.UNKNOWN] * 3 + [OutcomeKind.NO_CAPACITY] * 2
    hanging.released.set()
    for vm_id in ids[:3]:
        await hosts.until_state(vm_id, VmState.RUNNING)
    assert hanging.times == 3
    vms = await hosts.vms()
    assert [vms[i].state for i in ids[3:]] == [VmState.STOPPED] * 2


async def test_a_change_that_was_given_up_while_connecting_is_not_made_later(hosts):
    vm_id = hosts.define("hv1")
    await hosts.vms()
    hanging, looks = Hanging(), []

    def lives_for_the_look(*_):
        looks.append(None)
        return int(len(looks) == 1 or hanging.released.is_set())

    hosts.scripts["hv1"]["isAlive"] = lives_for_the_look
    hosts.connecting = hanging
    (outcome,) = await hosts.provider.start([vm_id])
    assert (outcome.kind, outcome.code) == (OutcomeKind.NO_CAPACITY, "HostUnreachable")
    assert hanging.times == 1
    hanging.released.set()
    assert (await hosts.vms())[vm_id].state is VmState.STOPPED
    # The thread has returned by now, because the listing has waited for the same connection.
    assert not hosts.of["hv1"].domain(vm_id).isActive()


async def test_a_host_that_cannot_be_reached_says_why(hosts):
    there = hosts.define("hv1")
    hosts.refusing["hv2"] = libvirt_error(
        38, "unable to connect to server at 'hv2:16509': Connection refused"
    )
    listing = await hosts.provider.list_vms()
    assert ([vm.id for vm in listing.vms], listing.complete) == ([there], False)
    assert "hv2: unable to connect to server" in listing.error
    del hosts.refusing["hv2"]
    assert (await hosts.provider.list_vms()).complete


async def test_a_host_that_does_not_let_us_in_is_denied(hosts):
    vm_id = hosts.define("hv2")
    await hosts.vms()
    hosts.alive["hv2"] = False
    hosts.refusing["hv2"] = libvirt_error(45, "authentication failed: no agent")
    (outcome,) = await hosts.provider.start([vm_id])
    assert outcome.kind is OutcomeKind.DENIED
    assert "ssh key" in outcome.message


async def test_a_restarted_libvirtd_is_connected_to_again(hosts):
    vm_id = hosts.define("hv1")
    await hosts.vms()
    assert hosts.opened == ["hv1", "hv2"]
    hosts.alive["hv1"] = False
    assert set(await hosts.vms()) == {vm_id}
    assert hosts.opened == ["hv1", "hv2", "hv1"]


async def test_a_connection_that_ends_within_a_change_leaves_it_unknown(hosts):
    vm_id = hosts.define("hv1")
    hosts.scripts["hv1"]["create"] = failing(38, "Cannot recv data: Connection reset by peer")
    (outcome,) = await hosts.provider.start([vm_id])
    assert outcome.kind is OutcomeKind.UNKNOWN
    del hosts.scripts["hv1"]["create"]
    opened = len(hosts.opened)
    (outcome,) = await hosts.provider.start([vm_id])
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert hosts.opened[opened:] == ["hv1"]


async def test_a_listing_that_fails_is_a_value(hosts):
    hosts.scripts["hv1"]["getAllDomainStats"] = failing(88, "access denied: 'test' denied access")
    listing = await hosts.provider.list_vms()
    assert not listing.complete
    assert "hv1: ACCESS_DENIED: access denied" in listing.error


async def test_a_domain_that_was_moved_counts_where_it_is_on(hosts):
    vm_id = hosts.define("hv1")
    xml = hosts.of["hv1"].domain(vm_id).XMLDesc(0)
    hosts.of["hv2"].connection.defineXML(xml).create()
    vm = (await hosts.vms())[vm_id]
    assert (vm.zone, vm.state) == ("hv2", VmState.RUNNING)
    (outcome,) = await hosts.provider.stop([vm_id])
    assert outcome.previous_state is VmState.RUNNING
    assert not hosts.of["hv2"].domain(vm_id).isActive()


async def test_closing_does_not_wait_for_a_host_that_hangs(hosts):
    hanging = hosts.hang("hv1", "getAllDomainStats")
    await hosts.provider.list_vms()
    await reached(hanging)
    await hosts.provider.close()


@pytest.mark.parametrize("subnet", ["hv2", None])
async def test_new_vms_are_made_where_the_policy_says_or_else_where_the_template_is(hosts, subnet):
    hosts.of["hv2"].define_template("golden")
    (made,) = await hosts.provider.provision(ProvisionSpec("web", "golden", subnet=subnet), 1, "token")
    assert made.kind is OutcomeKind.ACCEPTED
    assert (await hosts.vms())[made.vm_id].zone == "hv2"


async def test_a_token_that_was_tried_on_a_host_is_not_taken_to_another(hosts):
    for host in hosts.of.values():
        host.define_template("golden")
    spec = ProvisionSpec("web", "golden")
    hanging = hosts.hang("hv1", "defineXML")
    (lost,) = await hosts.provider.provision(spec, 1, "token")
    assert (lost.kind, lost.vm_id) == (OutcomeKind.UNKNOWN, "")
    hosts.refusing["hv1"] = libvirt_error(38, "Connection refused")
    hosts.alive["hv1"] = False
    (away,) = await hosts.provider.provision(spec, 1, "token")
    assert (away.kind, away.code) == (OutcomeKind.NO_CAPACITY, "HostUnreachable")
    hanging.released.set()
    del hosts.refusing["hv1"], hosts.scripts["hv1"]["defineXML"]

    async def there():
        outcomes = await hosts.provider.provision(spec, 1, "token")
        return [each.kind for each in outcomes] == [OutcomeKind.ACCEPTED]

    await hosts.until(there)
    assert [vm.zone for vm in (await hosts.vms()).values()] == ["hv1"]
