"""New VMs are clones of a template: as many as there is room for, once per token, and nothing is left of failed ones."""

import pytest

from autoscaler.ports import FLEET_TAG, ROOM_FOR_FEWER, OutcomeKind, ProvisionSpec, VmState
from tests.libvirt.troubles import failing

ACCEPTED, REFUSED = OutcomeKind.ACCEPTED, OutcomeKind.REFUSED


def names(host):
    return {each.name() for each in host.connection.listAllDomains()} - {"test"}


async def test_a_clone_lies_on_an_overlay_of_its_own(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    spec = ProvisionSpec("web", "golden", vm_type="1x256", tags={"team": "shop"})
    outcomes = await hosts.provider.provision(spec, 2, "token")
    assert [each.kind for each in outcomes] == [ACCEPTED] * 2
    for outcome in outcomes:
        vm = (await hosts.vms())[outcome.vm_id]
        assert (vm.state, vm.vm_type, vm.image) == (VmState.RUNNING, "1x256", "golden")
        assert vm.tags == {"Name": "web", "team": "shop", FLEET_TAG: "web"}
        domain = host.domain(vm.id)
        assert domain.name() == f"web-{vm.id[:8]}"
        volume = host.connection.storageVolLookupByPath(f"/default-pool/autoscaler-{vm.id}-vda.qcow2")
        assert "<path>/default-pool/golden.qcow2</path>" in volume.XMLDesc()
        assert volume.path() in domain.XMLDesc()
    macs = [each.XMLDesc().split("mac address='")[1][:17] for each in host.connection.listAllDomains() if "mac address" in each.XMLDesc()]  # fmt: skip
    assert len(set(macs)) == len(macs)
    await hosts.provider.terminate([each.vm_id for each in outcomes])
    assert host.volumes() == {"golden.qcow2"}
    assert names(host) == {"golden"}


def fails_from(number, error):
    """A script under which the first calls succeed, and all from this one on fail."""
    calls = []

    def script(real, *_):
        calls.append(real)
        return error(real) if len(calls) >= number else NotImplemented

    return script


NO_MEMORY = failing(1, "internal error: cannot set up guest memory: Cannot allocate memory")
NO_SPACE = failing(38, "cannot create file '/pool/x.qcow2': No space left on device")


async def test_a_failed_start_leaves_nothing_behind(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    hosts.scripts["hv1"]["create"] = fails_from(2, failing(1, "internal error: qemu unexpectedly closed"))
    (outcome,) = await hosts.provider.provision(ProvisionSpec("web", "golden"), 3, "token")
    assert (outcome.vm_id, outcome.kind) == ("", REFUSED)
    assert host.volumes() == {"golden.qcow2"}
    assert names(host) == {"golden"}


@pytest.mark.parametrize(("call", "error"), [("create", NO_MEMORY), ("createXML", NO_SPACE)])
async def test_as_many_are_made_as_the_host_or_the_storage_pool_has_room_for(hosts, call, error):
    host = hosts.of["hv1"]
    host.define_template("golden")
    hosts.scripts["hv1"][call] = fails_from(3, error)
    spec = ProvisionSpec("web", "golden")
    first, second, rest = await hosts.provider.provision(spec, 4, "token")
    assert [first.kind, second.kind, rest.kind] == [ACCEPTED, ACCEPTED, OutcomeKind.NO_CAPACITY]
    assert (rest.vm_id, rest.code) == ("", ROOM_FOR_FEWER)
    assert rest.message.startswith("2 of 4 VMs were made, because there is no room for more: ")
    assert len(names(host)) == 3
    assert len(host.volumes()) == 3
    assert all(host.domain(each.vm_id).isActive() for each in (first, second))
    # Who comes again with the token, once there is room, gets the rest, and none twice.
    del hosts.scripts["hv1"][call]
    again = await hosts.provider.provision(spec, 4, "token")
    assert [each.kind for each in again] == [ACCEPTED] * 4
    assert again[:2] == (first, second)
    assert len(names(host)) == 5


def with_two_hosts(hosts, mib):
    """Give both hosts the template, and so much free memory; 256 MiB of it are not for VMs, which take 512 each."""
    for name, free in mib.items():
        hosts.of[name].define_template("golden")
        hosts.scripts[name]["getMemoryStats"] = lambda *_, free=free: {"free": free << 10}


async def test_what_one_host_has_no_room_for_is_made_on_the_next_and_none_twice(hosts):
    with_two_hosts(hosts, {"hv1": 1400, "hv2": 900})
    spec = ProvisionSpec("web", "golden")
    outcomes = await hosts.provider.provision(spec, 3, "token")
    assert [each.kind for each in outcomes] == [ACCEPTED] * 3
    assert [len(names(hosts.of[name])) for name in ("hv1", "hv2")] == [3, 2]
    for provider in (hosts.provider, hosts.new_provider()):
        # It is found wherever it is, also by a daemon that has forgotten it.
        assert await provider.provision(spec, 3, "token") == outcomes
        assert [len(names(hosts.of[name])) for name in ("hv1", "hv2")] == [3, 2]
    *made, rest = await hosts.provider.provision(spec, 3, "another")
    assert (made, rest.kind) == ([], OutcomeKind.NO_CAPACITY)


async def test_a_host_that_does_not_answer_leaves_its_part_unknown(hosts):
    with_two_hosts(hosts, {"hv1": 1400, "hv2": 900})
    hosts.hang("hv2", "defineXML")
    provider = hosts.new_provider(call_s=0.3)
    *made, rest = await provider.provision(ProvisionSpec("web", "golden"), 3, "token")
    hosts.scripts["hv2"].pop("defineXML").released.set()
    assert [each.kind for each in made] == [ACCEPTED] * 2
    assert (rest.vm_id, rest.kind) == ("", OutcomeKind.UNKNOWN)


async def test_if_nothing_fits_nothing_is_left(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    hosts.scripts["hv1"]["create"] = fails_from(1, NO_MEMORY)
    (outcome,) = await hosts.provider.provision(ProvisionSpec("web", "golden"), 3, "token")
    assert (outcome.vm_id, outcome.kind) == ("", OutcomeKind.NO_CAPACITY)
    assert (names(host), host.volumes()) == ({"golden"}, {"golden.qcow2"})


async def test_a_failed_definition_leaves_no_volume_behind(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    hosts.scripts["hv1"]["defineXML"] = failing(67, "unsupported configuration: no such machine")
    (outcome,) = await hosts.provider.provision(ProvisionSpec("web", "golden"), 1, "token")
    assert (outcome.kind, outcome.code) == (REFUSED, "CONFIG_UNSUPPORTED")
    assert host.volumes() == {"golden.qcow2"}


async def test_what_was_begun_is_finished_by_who_comes_again_with_the_token(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    spec = ProvisionSpec("web", "golden")
    first = await hosts.provider.provision(spec, 2, "token")
    host.domain(first[1].vm_id).destroy()
    again = await hosts.new_provider().provision(spec, 2, "token")
    assert again == first
    assert host.domain(first[1].vm_id).isActive()
    assert len(names(host)) == 3


async def test_no_more_is_made_than_the_host_has_memory_for(hosts):
    host = hosts.of["hv1"]
    host.define_template("golden")
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {"free": 1500 << 10}
    *made, rest = await hosts.provider.provision(ProvisionSpec("web", "golden"), 3, "token")
    assert [each.kind for each in made] == [ACCEPTED] * 2
    assert (rest.kind, rest.code) == (OutcomeKind.NO_CAPACITY, ROOM_FOR_FEWER)
    assert "512 MiB are needed, and of 1500 MiB free" in rest.message
    assert len(names(host)) == 3


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"launch_template": "silver"}, "InvalidLaunchTemplateName.NotFoundException", "no domain 'silver'"),
        ({"subnet": "hv9"}, "InvalidSubnetID.NotFound", "one of libvirt_uris: hv1, hv2"),
        ({"version": "7"}, "InvalidLaunchTemplateId.VersionNotFound", "no versions"),
        ({"vm_type": "m7i.large"}, "InvalidInstanceType", "processors x MiB"),
        ({"launch_template": "busy"}, "IncorrectInstanceState", "must be shut off"),
        ({"launch_template": "member"}, "IncorrectInstanceState", "a VM of a fleet"),
        ({"launch_template": "loose"}, "InvalidVolume.NotFound", "no active storage pool"),
        ({"launch_template": "logical"}, "InvalidVolume.NotSupported", "a pool of type logical"),
    ],
)
async def test_what_cannot_be_cloned_is_refused_in_words(hosts, change, code, words):
    host = hosts.of["hv1"]
    host.define_template("golden")
    host.define_template("busy", state="running")
    host.define({FLEET_TAG: "web"}, name="member")
    host.define(name="loose", path="/elsewhere/x.qcow2")
    host.define(name="logical", path=host.make_logical_volume("disk"))
    before = names(host), host.volumes()
    spec = ProvisionSpec(**{"fleet": "web", "launch_template": "golden", **change})
    (outcome,) = await hosts.provider.provision(spec, 1, "token")
    assert (outcome.vm_id, outcome.kind, outcome.code) == ("", REFUSED, code)
    assert words in outcome.message
    assert (names(host), host.volumes()) == before
