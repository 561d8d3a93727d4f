"""Changes to a domain, and what is left unchanged."""

import asyncio

from autoscaler.ports import (
    FLEET_TAG,
    HIBERNATED_REASON,
    NO_HIBERNATION,
    NOT_YET,
    OutcomeKind,
    VmState,
)
from autoscaler.providers.libvirt.domains import MARKS_URI, TAGS_URI, Marks
from autoscaler.providers.libvirt.writing import MARKS_PREFIX, marks_element
from tests.libvirt.troubles import Hanging, failing

ACCEPTED, REFUSED, THROTTLED = OutcomeKind.ACCEPTED, OutcomeKind.REFUSED, OutcomeKind.THROTTLED


def untagged(real, *_):
    """Remove the tag at this moment, as an operator might."""
    for domain in real.listAllDomains():
        if domain.name() == "taken":
            domain.setMetadata(2, None, "autoscaler", TAGS_URI, 2)
    return NotImplemented


async def test_a_domain_that_lost_its_tag_between_look_and_change_is_not_touched(hosts):
    vm_id = hosts.define(name="taken")
    looks = []

    def second_look(real, *_):
        looks.append(real)
        return untagged(real) if len(looks) == 2 else NotImplemented

    hosts.scripts["hv1"]["lookupByUUIDString"] = second_look
    (outcome,) = await hosts.provider.terminate([vm_id])
    assert len(looks) == 2
    assert (outcome.kind, outcome.code) == (REFUSED, "InvalidInstanceID.NotFound")
    assert hosts.of["hv1"].domain(vm_id).name() == "taken"


async def test_strangers_are_never_changed(hosts):
    stranger = hosts.of["hv1"].define({"autoscaler:protected": "true"}, state="running")
    plain = hosts.of["hv1"].define()
    for call in (hosts.provider.start, hosts.provider.stop, hosts.provider.terminate):
        assert {each.kind for each in await call([stranger, plain])} == {REFUSED}
    assert {each.kind for each in await hosts.provider.tag([stranger], {FLEET_TAG: "web"})} == {REFUSED}
    assert hosts.of["hv1"].domain(stranger).isActive()
    assert not await hosts.vms()


async def test_a_guest_that_ignores_its_shutdown_is_stopping_until_it_is_forced(hosts):
    vm_id = hosts.define(state="running")
    hosts.scripts["hv1"]["shutdown"] = lambda *_: 0
    (told,) = await hosts.provider.stop([vm_id])
    assert (told.kind, told.previous_state) == (ACCEPTED, VmState.RUNNING)
    vm = (await hosts.vms())[vm_id]
    assert (vm.state, vm.state_reason) == (VmState.STOPPING, "Client.UserInitiatedShutdown")
    assert vm.stopped_at_s is not None
    (again,) = await hosts.provider.start([vm_id])
    assert (again.kind, again.code) == (REFUSED, "IncorrectInstanceState")
    (forced,) = await hosts.provider.stop([vm_id], force=True)
    assert (forced.kind, forced.previous_state) == (ACCEPTED, VmState.STOPPING)
    assert (await hosts.vms())[vm_id].state is VmState.STOPPED


async def test_another_daemon_run_knows_what_was_written_down(hosts):
    vm_id = hosts.define()
    await hosts.provider.start([vm_id])
    started = (await hosts.vms())[vm_id]
    other = hosts.new_provider()
    (again,) = (await other.list_vms()).vms
    assert abs(again.launched_at_s - started.launched_at_s) < 0.01
    await other.stop([vm_id])
    (stopped,) = (await other.list_vms()).vms
    third = hosts.new_provider()
    (seen,) = (await third.list_vms()).vms
    assert seen.state_reason == "Client.UserInitiatedShutdown"
    assert abs(seen.stopped_at_s - stopped.stopped_at_s) < 0.01
    assert abs(seen.launched_at_s - started.launched_at_s) < 0.01


async def test_a_domain_that_others_started_is_dated_from_when_it_was_seen(hosts):
    vm_id = hosts.define()
    await hosts.provider.start([vm_id])
    ours = (await hosts.vms())[vm_id].launched_at_s
    domain = hosts.of["hv1"].domain(vm_id)
    domain.destroy()
    domain.create()
    first = (await hosts.vms())[vm_id]
    assert first.state is VmState.RUNNING
    assert first.launched_at_s > ours
    assert (await hosts.vms())[vm_id].launched_at_s == first.launched_at_s


async def test_a_paused_domain_runs_and_says_that_it_is_paused(hosts):
    vm_id = hosts.define(state="running")
    hosts.of["hv1"].domain(vm_id).suspend()
    vm = (await hosts.vms())[vm_id]
    assert (vm.state, vm.state_reason) == (VmState.RUNNING, "Libvirt.Paused.User")
    assert await hosts.provider.checked([vm_id]) == frozenset()
    (again,) = await hosts.provider.start([vm_id])
    assert (again.kind, again.previous_state) == (ACCEPTED, VmState.RUNNING)


async def test_who_was_quicker_to_start_it_is_seen(hosts):
    vm_id = hosts.define()

    def quicker(real, *_):
        real.create()
        return NotImplemented

    hosts.scripts["hv1"]["create"] = quicker
    (outcome,) = await hosts.provider.start([vm_id])
    assert (outcome.kind, outcome.previous_state) == (ACCEPTED, VmState.RUNNING)


async def test_a_start_that_libvirt_refuses_is_refused_and_dates_nothing(hosts):
    vm_id = hosts.define()
    before = (await hosts.vms())[vm_id].launched_at_s
    words = "Requested operation is not valid: network 'default' is not active"
    hosts.scripts["hv1"]["create"] = failing(55, words)
    (outcome,) = await hosts.provider.start([vm_id])
    assert (outcome.kind, outcome.code, outcome.message) == (REFUSED, "OPERATION_INVALID", words)
    assert (await hosts.vms())[vm_id].launched_at_s == before


async def test_there_is_no_room_where_memory_is_not_free_or_already_promised(hosts):
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {
        "total": 8 << 20, "free": 500 << 10, "buffers": 100 << 10, "cached": 424 << 10,
    }  # fmt: skip
    first, second = hosts.define(memory_mib=512), hosts.define(memory_mib=512)
    elsewhere = hosts.define("hv2", memory_mib=512)
    outcomes = {each.vm_id: each for each in await hosts.provider.start([first, second, elsewhere])}
    kinds = sorted(outcomes[i].kind for i in (first, second))
    assert kinds == [ACCEPTED, OutcomeKind.NO_CAPACITY]
    assert outcomes[elsewhere].kind is ACCEPTED
    (lacking,) = [each for each in outcomes.values() if each.kind is OutcomeKind.NO_CAPACITY]
    assert lacking.code == "InsufficientInstanceCapacity"
    assert "512 MiB are needed, and of 1024 MiB free on the host 512 are promised" in lacking.message


async def test_where_more_memory_is_given_out_than_there_is_none_is_counted(hosts):
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {"free": 0}
    vm_id = hosts.define()
    (outcome,) = await hosts.provider.start([vm_id])
    assert outcome.kind is OutcomeKind.NO_CAPACITY
    (outcome,) = await hosts.new_provider(heed_memory=False).start([vm_id])
    assert outcome.kind is ACCEPTED


async def test_a_saved_memory_holds_nobody_up_and_is_seen_on_its_way(hosts):
    saved, other = hosts.define(state="running"), hosts.define(state="running")
    hanging = hosts.hang("hv1", "managedSave")
    (outcome,) = await hosts.provider.stop([saved], hibernate=True)
    assert (outcome.kind, outcome.previous_state) == (ACCEPTED, VmState.RUNNING)
    vm = (await hosts.vms())[saved]
    assert (vm.state, vm.hibernates) == (VmState.STOPPING, True)
    (plain,) = await hosts.provider.stop([other])
    assert plain.kind is ACCEPTED
    (tagged,) = await hosts.provider.tag([saved], {"a": "b"})
    assert tagged.kind is THROTTLED
    hanging.released.set()
    await hosts.until_state(saved)
    vm = (await hosts.vms())[saved]
    assert (vm.state_reason, vm.hibernates) == (HIBERNATED_REASON, True)


async def test_few_memories_are_saved_at_a_time(hosts):
    ids = [hosts.define(state="running") for _ in range(3)]
    hanging = hosts.hang("hv1", "managedSave")
    outcomes = await hosts.provider.stop(ids, hibernate=True)
    assert sorted(each.kind for each in outcomes) == [ACCEPTED, ACCEPTED, THROTTLED]
    assert hanging.times == 2
    (left,) = [each.vm_id for each in outcomes if each.kind is THROTTLED]
    assert (await hosts.vms())[left].state is VmState.RUNNING
    hanging.released.set()


async def test_a_memory_that_cannot_be_saved_is_refused_so_that_it_is_stopped_plainly(hosts):
    vm_id = hosts.define(state="running")
    for code, words, expected in (
        (
            55,
            "Requested operation is not valid: cannot save domain with nonmigratable device",
            NO_HIBERNATION,
        ),
        (38, "write failed: No space left on device", NOT_YET),
    ):
        hosts.scripts["hv1"]["managedSave"] = failing(code, words)
        (outcome,) = await hosts.provider.stop([vm_id], hibernate=True)
        assert (outcome.kind, outcome.code, outcome.message) == (REFUSED, expected, words)
        vm = (await hosts.vms())[vm_id]
        assert (vm.state, vm.state_reason) == (VmState.RUNNING, "Libvirt.SaveFailed")


async def test_a_save_that_fails_later_shows_in_the_listing(hosts):
    vm_id = hosts.define(state="running")
    hanging = hosts.hang("hv1", "managedSave")
    fail = failing(38, "write failed: No space left on device")
    hosts.scripts["hv1"]["managedSave"] = lambda *a: [hanging(*a), fail(*a)]
    (outcome,) = await hosts.provider.stop([vm_id], hibernate=True)
    assert outcome.kind is ACCEPTED
    hanging.released.set()
    await hosts.until_state(vm_id, VmState.RUNNING)
    assert (await hosts.vms())[vm_id].state_reason == "Libvirt.SaveFailed"


async def test_tags_written_while_the_memory_waited_are_there_after_the_start(hosts):
    vm_id = hosts.define(state="running", tags={"team": "shop"})
    await hosts.provider.stop([vm_id], hibernate=True)
    await hosts.until_state(vm_id)
    await hosts.provider.tag([vm_id], {"team": "cart"})
    await hosts.provider.start([vm_id])
    vm = (await hosts.vms())[vm_id]
    assert (vm.state, vm.tags["team"], vm.hibernates) == (VmState.RUNNING, "cart", False)


async def test_a_type_is_not_changed_while_the_memory_waits_nor_into_nonsense(hosts):
    vm_id = hosts.define(state="running")
    await hosts.provider.stop([vm_id], hibernate=True)
    await hosts.until_state(vm_id)
    (outcome,) = await hosts.provider.retype([vm_id], "1x256")
    assert (outcome.kind, outcome.code) == (REFUSED, "IncorrectInstanceState")
    other = hosts.define()
    (outcome,) = await hosts.provider.retype([other], "m7i.large")
    assert (outcome.kind, outcome.code) == (REFUSED, "InvalidInstanceType")
    assert (await hosts.vms())[other].vm_type == "2x512"


async def test_tags_written_at_the_same_time_are_all_there(hosts):
    vm_id = hosts.define(state="running")
    await asyncio.gather(*(hosts.provider.tag([vm_id], {f"t{n}": str(n)}) for n in range(3)))
    tags = (await hosts.vms())[vm_id].tags
    assert [tags.get(f"t{n}") for n in range(3)] == ["0", "1", "2"]


async def test_addresses_come_from_the_network_or_from_a_tag(hosts):
    leased = hosts.define(state="running", network=True)
    named = hosts.define(state="running", tags={"autoscaler:address": "10.9.8.7"})
    off = hosts.define(network=True)
    vms = await hosts.vms()
    assert vms[leased].address.startswith("192.168.122.")
    assert (vms[named].address, vms[off].address) == ("10.9.8.7", None)


def addresses(script, by_source):
    """Script what libvirt's sources of addresses know, and count how often they are asked."""
    asked = []

    def answer(_real, source, *_):
        asked.append(source)
        found = by_source.get(source)
        return found() if callable(found) else {"vnet0": {"addrs": [{"addr": found}] if found else []}}

    script["interfaceAddresses"] = answer
    return asked


async def test_nobody_is_asked_again_at_once_for_an_address_that_nobody_knows(hosts):
    vm_id = hosts.define(state="running", network=True)
    asked = addresses(hosts.scripts["hv1"], {})
    for _ in range(5):
        assert (await hosts.vms())[vm_id].address is None
    assert asked == [0, 2]


async def test_an_address_is_asked_for_again_soon_after_the_clock_was_set_back(hosts):
    vm_id = hosts.define(state="running", network=True)
    asked = addresses(hosts.scripts["hv1"], {})
    assert (await hosts.vms())[vm_id].address is None
    now = hosts.clock.now
    hosts.clock.now = lambda: now() - 3600.0
    assert (await hosts.vms())[vm_id].address is None
    assert asked == [0, 2, 0, 2]


async def test_a_guest_agent_that_hangs_holds_no_listing_up_and_one_that_answers_is_heard(hosts):
    vm_id = hosts.define(state="running", network=True, agent=True)
    # The test driver has no agents, so none is ever connected.
    name = "name='org.qemu.guest_agent.0'"
    hosts.scripts["hv1"]["XMLDesc"] = lambda real, *a: real.XMLDesc(*a).replace(
        name, f"{name} state='connected'"
    )
    hanging = Hanging()
    known = {"vnet0": {"addrs": [{"addr": "10.1.2.3"}]}}
    addresses(hosts.scripts["hv1"], {1: lambda: [hanging(None), known][1]})
    assert (await hosts.vms())[vm_id].address is None
    assert await asyncio.to_thread(hanging.reached.wait, 60)
    for _ in range(5):
        assert (await hosts.vms())[vm_id].address is None
    hanging.released.set()

    async def heard():
        return (await hosts.vms())[vm_id].address == "10.1.2.3"

    await hosts.until(heard)
    assert hanging.times == 1


async def test_a_deleted_vm_takes_its_own_volumes_along_and_no_others(hosts):
    host = hosts.of["hv1"]
    path = host.make_volume("precious.qcow2")
    vm_id = hosts.define(state="running", path=path)
    (outcome,) = await hosts.provider.terminate([vm_id])
    assert (outcome.kind, outcome.previous_state) == (ACCEPTED, VmState.RUNNING)
    assert host.volumes() == {"precious.qcow2"}
    assert not await hosts.vms()


async def test_a_volume_that_is_not_the_domains_any_more_stays(hosts):
    host = hosts.of["hv1"]
    taken, own = host.make_volume("taken.qcow2"), host.make_volume("own.qcow2")
    vm_id = hosts.define(path=own)
    text = marks_element(Marks(volumes=(taken, own)))
    host.domain(vm_id).setMetadata(2, text, MARKS_PREFIX, MARKS_URI, 2)
    (outcome,) = await hosts.provider.terminate([vm_id])
    assert outcome.kind is ACCEPTED
    assert host.volumes() == {"taken.qcow2"}
