"""What `doctor` reports about hosts with libvirt."""

import asyncio

from autoscaler.ports import FLEET_TAG, ProvisionSpec
from autoscaler.ports.findings import Level
from autoscaler.providers.libvirt.examining import Examined, examine
from autoscaler.providers.libvirt.settings import LibvirtSettings
from tests.libvirt.conftest import URIS
from tests.libvirt.troubles import libvirt_error


async def examined(hosts, *fleets, **settings):
    settings = LibvirtSettings(tuple(URIS.values()), **settings)
    found, vms = await examine(settings, fleets, hosts.clock, hosts.connect)
    return found, vms


def of(found, check, level):
    return [each.text for each in found if (each.check, each.level) == (check, level)]


async def test_all_is_well_where_it_is(hosts):
    hosts.of["hv1"].define_template("golden")
    vm_id = hosts.define()
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {"free": 4 << 20}
    found, vms = await examined(
        hosts, Examined("web", ProvisionSpec("web", "golden"), subnets=("hv1",), hibernates=True)
    )
    assert [vm.id for vm in vms] == [vm_id]
    assert {each.level for each in found} <= {Level.OK, Level.UNKNOWN}
    reached = of(found, "reach", Level.OK)
    assert reached[0].endswith("1 VM with the tag autoscaler:fleet")
    assert reached[1].startswith("hv2 answers (libvirt ")
    assert of(found, "memory", Level.OK) == [
        "4096 MiB are free on hv1; to start all that is off (1 VM) takes 512"
    ]
    assert of(found, "template", Level.OK) == ["golden can be cloned on hv1"]
    assert "clone may grow to 1.0" in of(found, "storage", Level.OK)[0]


async def test_what_is_wrong_is_said(hosts):
    hv1 = hosts.of["hv1"]
    hv1.define_template("golden", state="running")
    hosts.define(), hosts.define(), hosts.define(host_device=True)
    hosts.define(fleet="cart"), hosts.define(fleet="till", state="running")
    paused = hosts.define(state="running")
    hv1.domain(paused).suspend()
    hosts.of["hv2"].connection.defineXML(hv1.domain(paused).XMLDesc(0))
    hv1.make_volume("autoscaler-0000-vda.qcow2")
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {"free": 1 << 20}
    found, _ = await examined(
        hosts,
        Examined("web", ProvisionSpec("web", "golden"), subnets=("hv1", "hv9"), hibernates=True),
        Examined("shop", None, only_on_aws=("balancer.target_group",)),
    )
    assert of(found, "memory", Level.WARNING) == [
        "1024 MiB are free on hv1; to start all that is off (4 VMs) takes 2048, so at most 1 can be started"
    ]
    assert "autoscaler-0000-vda.qcow2" in of(found, "storage", Level.WARNING)[0]
    assert "Libvirt.Paused.User" in of(found, "state", Level.WARNING)[0]
    assert of(found, "listing", Level.WARNING) == [
        f"1 VM defined on more than one host: {paused} on hv1 and hv2"
    ]
    assert of(found, "strays", Level.WARNING) == [
        "1 VM with the tag autoscaler:fleet=cart, for which there is no policy",
        "1 VM with the tag autoscaler:fleet=till, for which there is no policy; 1 running, until somebody stops them",
    ]
    assert "devices of their host" in of(found, "hibernation", Level.WARNING)[0]
    wrong = of(found, "template", Level.PROBLEM)
    assert "hv9" in wrong[0]
    assert "must be shut off" in wrong[1]
    assert of(found, "policy", Level.PROBLEM)[0].startswith("balancer.target_group: AWS's")
    assert of(found, "fleet", Level.WARNING) == ["no VM carries autoscaler:fleet=shop"]
    assert all(each.fix for each in found if each.level is not Level.OK)


async def test_memory_is_not_asked_for_where_it_is_not_heeded(hosts):
    hosts.scripts["hv1"]["getMemoryStats"] = lambda *_: {"free": 0}
    hosts.define()
    found, _ = await examined(hosts, Examined("web", None), heed_memory=False)
    assert "memory" not in {each.check for each in found}


async def test_a_host_that_does_not_answer_is_one_finding(hosts):
    vm_id = hosts.of["hv1"].define({FLEET_TAG: "web"})
    hosts.refusing["hv2"] = libvirt_error(45, "authentication failed: no agent")
    async with asyncio.timeout(30):
        found, vms = await examined(hosts, Examined("web", None))
    assert [vm.id for vm in vms] == [vm_id]
    (text,) = of(found, "reach", Level.PROBLEM)
    assert text.startswith("hv2 cannot be asked: authentication failed: no agent")
