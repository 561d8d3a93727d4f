"""From XML to VMs and back, without libvirt."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from autoscaler.ports import HIBERNATED_REASON, VmState
from autoscaler.providers.libvirt.domains import (
    CRASHED,
    MARKS_URI,
    PAUSED,
    RUNNING,
    SHUTDOWN,
    SHUTOFF,
    SUSPENDED,
    TAGS_URI,
    Disk,
    DomainView,
    Marks,
    UnreadableError,
    describe,
    shape_of,
)
from autoscaler.providers.libvirt.listing import best_address
from autoscaler.providers.libvirt.writing import Clone, Overlay, cloned, marks_element, tags_element

ID = "0fedcba9-8765-4321-8fed-cba987654321"
XML = f"""<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web-1</name>
  <uuid>{ID}</uuid>
  <metadata>
    <a:os xmlns:a='urn:another'><a:id>12</a:id></a:os>
    <autoscaler:tags xmlns:autoscaler='{TAGS_URI}'>
      <autoscaler:tag key='autoscaler:fleet'>web</autoscaler:tag>
      <autoscaler:tag key='team'>
        shop
      </autoscaler:tag>
    </autoscaler:tags>
    <m:marks xmlns:m='{MARKS_URI}' run='7' launched='1000.5' template='golden'><m:volume path='/p/a.qcow2'/></m:marks>
  </metadata>
  <memory unit='GiB'>2</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64'>hvm</type><nvram template='/x/VARS.fd'>/var/lib/web-1_VARS.fd</nvram></os>
  <devices>
    <disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/><readonly/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/p/a.qcow2'/><target dev='vda'/></disk>
    <disk type='volume' device='disk'><source pool='default' volume='b'/><target dev='vdb'/><serial>s</serial></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
  </devices>
  <qemu:commandline><qemu:arg value='-foo'/></qemu:commandline>
</domain>"""
WEB = describe(XML)


def seen(state, reason=0, *, run=7, marks=None, **more):
    described = WEB if marks is None else replace(WEB, marks=marks)
    return DomainView(described, state, reason, run=run, **more)


def test_what_a_domain_says():
    assert (WEB.uuid, WEB.name, WEB.fleet, WEB.vm_type) == (ID, "web-1", "web", "2x2048")
    assert WEB.tags == {"autoscaler:fleet": "web", "team": "shop"}
    assert WEB.marks == Marks(7, 1000.5, template="golden", volumes=("/p/a.qcow2",))
    assert WEB.disks == (Disk("vda", "/p/a.qcow2"), Disk("vdb", "", "default", "b"))
    assert (WEB.agent, WEB.host_devices, WEB.nvram, WEB.interfaces) == (True, False, True, 1)
    vm = replace(seen(RUNNING), launched_at_s=1000.5, address="10.0.0.7").vm("hv1")
    assert (vm.id, vm.fleet, vm.zone, vm.vm_type, vm.image) == (ID, "web", "hv1", "2x2048", "golden")
    assert (vm.state, vm.state_reason, vm.address) == (VmState.RUNNING, "", "10.0.0.7")
    assert (vm.launched_at_s, vm.stopped_at_s, vm.may_hibernate) == (1000.5, None, True)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("<memory unit='MiB'>512</memory>", 512),
        ("<memory unit='MiB'>512</memory><currentMemory unit='MiB'>256</currentMemory>", 256),
        ("<memory unit='MiB'>512</memory><memoryBacking><hugepages/></memoryBacking>", 0),
    ],
)
def test_what_a_start_takes_of_the_hosts_free_memory(text, takes):
    found = describe(f"<domain><name>a</name><uuid>b</uuid>{text}</domain>")
    assert (found.takes_mib, found.memory_mib) == (takes, 512)


def test_what_is_not_there_is_not_invented():
    bare = describe("<domain><name>a</name><uuid>b</uuid><memory>2048</memory></domain>")
    assert (bare.fleet, bare.tags, bare.marks, bare.vm_type) == ("", {}, Marks(), "1x2")
    assert (bare.agent, bare.disks, bare.interfaces) == (None, (), 0)


@pytest.mark.parametrize(
    "xml",
    [
        "nothing", "<network/>", "<domain><uuid>a</uuid><memory>1</memory></domain>",
        "<domain><name>a</name><uuid>b</uuid></domain>",
        "<domain><name>a</name><uuid>b</uuid><memory unit='bushel'>1</memory></domain>",
        "<domain><name>a</name><uuid>b</uuid><memory>1</memory><vcpu>many</vcpu></domain>",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(xml):
    with pytest.raises(UnreadableError):
        describe(xml)


TOLD = Marks(7, 1000.0, 2000.0)
OFF = Marks(None, 1000.0, 2000.0)


@pytest.mark.parametrize(
    ("found", "state", "reason", "stopped_at_s"),
    [
        (seen(RUNNING, 1), VmState.RUNNING, "", None),
        (seen(RUNNING, 1, marks=TOLD), VmState.STOPPING, "Client.UserInitiatedShutdown", 2000.0),
        # The mark belongs to an earlier run, which was restored from a saved memory.
        (seen(RUNNING, 3, run=8, marks=TOLD), VmState.RUNNING, "", None),
        (seen(SHUTDOWN, 1), VmState.STOPPING, "Client.UserInitiatedShutdown", None),
        (seen(PAUSED, 1), VmState.RUNNING, "Libvirt.Paused.User", None),
        (seen(PAUSED, 5), VmState.RUNNING, "Libvirt.Paused.IoError", None),
        (seen(PAUSED, 3), VmState.STOPPING, HIBERNATED_REASON, None),
        (seen(RUNNING, 1, saving=True), VmState.STOPPING, HIBERNATED_REASON, None),
        (seen(PAUSED, 8), VmState.STOPPING, "Client.UserInitiatedShutdown", None),
        (seen(PAUSED, 11), VmState.PENDING, "Libvirt.Paused.Unknown", None),
        (seen(CRASHED, 1), VmState.RUNNING, "Libvirt.Crashed", None),
        (seen(SUSPENDED), VmState.RUNNING, "Libvirt.Suspended", None),
        (seen(RUNNING, 7, trouble="Libvirt.SaveFailed"), VmState.RUNNING, "Libvirt.SaveFailed", None),
        (seen(SHUTOFF, 1, run=-1, marks=OFF), VmState.STOPPED, "Client.UserInitiatedShutdown", 2000.0),
        (seen(SHUTOFF, 5, run=-1, saved=True, marks=OFF), VmState.STOPPED, HIBERNATED_REASON, 2000.0),
        # Its saved memory was thrown away.
        (seen(SHUTOFF, 5, run=-1, marks=OFF), VmState.STOPPED, "", 2000.0),
        # A user of the VM shut it down after we had started it.
        (seen(SHUTOFF, 1, run=-1, marks=Marks(None, 3000.0, 2000.0)), VmState.STOPPED, "Client.InstanceInitiatedShutdown", None),
        (seen(SHUTOFF, 2, run=-1, marks=Marks()), VmState.STOPPED, "Client.UserInitiatedShutdown", None),
        (seen(SHUTOFF, 3, run=-1, marks=OFF), VmState.STOPPED, "Server.InternalError", 2000.0),
        (seen(SHUTOFF, 0, run=-1, marks=Marks()), VmState.STOPPED, "", None),
    ],
)  # fmt: skip
def test_states(found, state, reason, stopped_at_s):
    assert (found.vm_state, found.state_reason, found.stopped_at_s) == (state, reason, stopped_at_s)


@pytest.mark.parametrize("text", ["2x2048", "1x1", "64x1048576"])
def test_types_are_processors_and_memory(text):
    assert shape_of(text) == tuple(map(int, text.split("x")))


@pytest.mark.parametrize("text", ["", "m7i.large", "2x", "0x512", "2x0", "2x2048MiB", "-1x5", "２x2"])
def test_what_is_no_type(text):
    assert shape_of(text) is None


def test_tags_and_marks_come_back_as_they_were_written():
    tags = {"a & b": "<c>", 'quote"': "it's", "autoscaler:fleet": "web", "empty": ""}
    marks = Marks(3, 1.5, 2.25, "golden", "token <1>", "digest", ("/p/a b", "/p/c"))
    text = cloned(XML, Clone(ID, "n", tags, marks))
    again = describe(text)
    assert (again.tags, again.marks) == (tags, marks)
    assert "xmlns" not in tags_element(tags) + marks_element(marks)


def test_a_clone_is_its_own():
    other = "11111111-2222-4333-8444-555555555555"
    text = cloned(
        XML,
        Clone(other, "web-2", {"autoscaler:fleet": "web"}, Marks(), [Overlay("vda", "/p/n.qcow2")], (3, 512)),
    )
    made = describe(text)
    assert (made.uuid, made.name, made.vm_type) == (other, "web-2", "3x512")
    assert made.disks == (Disk("vda", "/p/n.qcow2"), Disk("vdb", "", "default", "b"))
    root = ET.fromstring(text)
    assert root.get("id") is None
    assert root.find("devices/interface/mac") is None
    assert root.find("devices/interface/source").get("network") == "default"
    assert root.find("devices/disk[@device='cdrom']/source").get("file") == "/iso"
    driver = root.find("devices/disk[@device='disk']/driver")
    assert (driver.get("name"), driver.get("type")) == ("qemu", "qcow2")
    assert (root.find("os/nvram").text, root.find("os/nvram").get("template")) == (None, "/x/VARS.fd")
    assert root.find("metadata/{urn:another}os/{urn:another}id").text == "12"
    assert "{http://libvirt.org/schemas/domain/qemu/1.0}commandline" in {each.tag for each in root}


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        ({}, None),
        ({"lo": {"addrs": [{"addr": "127.0.0.1"}]}}, None),
        ({"vnet0": {"addrs": [{"addr": "fe80::1"}, {"addr": "fd00::5"}, {"addr": "10.0.0.5"}]}}, "10.0.0.5"),
        ({"vnet0": {"addrs": None}, "vnet1": {"addrs": [{"addr": "fd00::5"}]}}, "fd00::5"),
        ({"vnet0": {"addrs": [{"addr": "169.254.1.1"}]}}, None),
    ],
)
def test_the_address_that_others_can_reach(interfaces, address):
    assert best_address(interfaces) == address
