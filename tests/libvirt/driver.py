"""libvirt's own test driver as a host: no daemon and no guests, but libvirt's states, errors and XML."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
import uuid
from pathlib import Path
from xml.sax.saxutils import quoteattr

from autoscaler.providers.libvirt.domains import MARKS_URI, TAGS_URI, Marks
from autoscaler.providers.libvirt.settings import LibvirtSettings
from autoscaler.providers.libvirt.writing import MARKS_PREFIX, TAGS_PREFIX, marks_element, tags_element
from tests.real import require_real

POOL = "default-pool"
_CONFIG = 2
_HOST = """<node>
  <cpu><mhz>1400</mhz><model>i686</model><active>2</active><nodes>1</nodes><sockets>1</sockets><cores>2</cores>
  <threads>1</threads><memory>4194304</memory></cpu>
  <network><name>default</name><bridge name='virbr0'/><forward/>
    <ip address='192.168.122.1' netmask='255.255.255.0'>
      <dhcp><range start='192.168.122.128' end='192.168.122.253'/></dhcp>
    </ip>
  </network>
  <pool type='dir'><name>default-pool</name><target><path>/default-pool</path></target></pool>
</node>"""
_DOMAIN = """<domain type='test'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory><vcpu>{vcpus}</vcpu>
  <os><type>hvm</type></os>
  <devices>{devices}</devices>
</domain>"""
_DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file={path}/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
_NETWORK = "<interface type='network'><source network='default'/></interface>"
_AGENT = "<channel type='pty'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
_USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>"


def require_libvirt():
    """Skip the test unless libvirt-python is installed; fail instead if the environment requires it."""
    require_real(
        "libvirt-python (apt-get install libvirt-dev pkg-config gcc python3-dev, then make test)",
        importlib.util.find_spec("libvirt") is not None,
    )


class DriverHost:
    """One host of the test driver, with the domains and volumes that a test defines.

    Attributes:
        connection: The only connection to it; a second one would see a different host.
        settings: Settings whose URI leads to this host.
    """

    def __init__(self, directory):
        from autoscaler.providers.libvirt.binding import connect

        file = Path(directory.name) / "host.xml"
        file.write_text(_HOST)
        self._directory = directory
        self._numbers = itertools.count(1)
        self.settings = LibvirtSettings((f"test://{file}",))
        self.connection = connect(self.settings.uris[0])

    @classmethod
    def open(cls):
        require_libvirt()
        return cls(tempfile.TemporaryDirectory())

    def connect(self, _uri):
        return self.connection

    def close(self):
        self._directory.cleanup()

    def define(
        self,
        tags=None,
        *,
        name="",
        state="stopped",
        vcpus=2,
        memory_mib=512,
        host_device=False,
        template="",
        path="",
        network=False,
        agent=False,
    ):
        """Define a domain with these tags and return its id."""
        vm_id = str(uuid.uuid4())
        parts = [_USB if host_device else "", _NETWORK if network else "", _AGENT if agent else ""]
        parts += [_DISK.format(path=quoteattr(path))] if path else []
        devices = "".join(parts)
        name = name or f"vm-{next(self._numbers)}"
        domain = self.connection.defineXML(
            _DOMAIN.format(name=name, uuid=vm_id, memory_mib=memory_mib, vcpus=vcpus, devices=devices)
        )
        if tags:
            domain.setMetadata(2, tags_element(tags), TAGS_PREFIX, TAGS_URI, _CONFIG)
        if template:
            domain.setMetadata(2, marks_element(Marks(template=template)), MARKS_PREFIX, MARKS_URI, _CONFIG)
        if state == "running":
            domain.create()
        return vm_id

    def define_template(self, name, **more):
        """Define a domain to clone, on a volume of its own, unless it exists."""
        if any(each.name() == name for each in self.connection.listAllDomains()):
            return ""
        path = self.make_volume(f"{name}.qcow2")
        return self.define(name=name, path=path, network=True, **more)

    def make_volume(self, name):
        pool = self.connection.storagePoolLookupByName(POOL)
        text = f"<volume><name>{name}</name><capacity unit='GiB'>1</capacity><target><format type='qcow2'/></target></volume>"
        return pool.createXML(text).path()

    def make_logical_volume(self, name):
        pool = self.connection.storagePoolCreateXML(
            "<pool type='logical'><name>vg</name><source><name>vg</name></source><target><path>/dev/vg</path></target></pool>",
            0,
        )
        text = f"<volume><name>{name}</name><capacity unit='GiB'>1</capacity></volume>"
        return pool.createXML(text, 0).path()

    def volumes(self):
        return {each.name() for each in self.connection.storagePoolLookupByName(POOL).listAllVolumes()}

    def domain(self, vm_id):
        return self.connection.lookupByUUIDString(vm_id)
