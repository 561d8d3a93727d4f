"""A real libvirtd with QEMU on this machine, with its own folders, socket and unprivileged user. It is ended with its VMs.

QEMU emulates the processor (TCG) on purpose: /dev/kvm may exist and still be unusable.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path
from xml.sax.saxutils import quoteattr

from autoscaler.clock import SystemClock
from autoscaler.providers.libvirt.domains import ADDRESS_TAG, MARKS_URI, TAGS_URI, Marks
from autoscaler.providers.libvirt.writing import MARKS_PREFIX, TAGS_PREFIX, marks_element, tags_element
from tests.libvirt import guest
from tests.libvirt.driver import require_libvirt
from tests.real import require_real

LIBVIRTD = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
QEMU = "qemu-system-x86_64"
MEMORY_MIB = 96
PATIENCE_S = 60.0

_CONFIG = """security_driver = "none"
stdio_handler = "file"
remember_owner = 0
"""
_DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check</cmdline></os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path={log}/></serial>
    {disk}
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/><qemu:arg value='user,id=n0,hostfwd=tcp:{address}:{port}-:80'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=n0,romfile=,bus=pcie.0,addr=0x10'/>
  </qemu:commandline>
</domain>"""
_DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file={path}/>"
    "<target dev='vda' bus='virtio'/></disk>"
)


def require_real_host():
    """Skip the test unless a VM can really run here; fail instead if the environment requires it."""
    require_libvirt()
    require_real("libvirtd", Path(LIBVIRTD).exists())
    require_real(QEMU, shutil.which(QEMU) is not None)
    require_real("qemu-img (qemu-utils)", shutil.which("qemu-img") is not None)
    require_real("busybox (busybox-static)", guest.busybox() is not None)
    require_real("a Debian cloud kernel (see .ci/run)", guest.kernel() is not None)


class RealHost:
    """A libvirtd and the domains on it.

    Attributes:
        uri: Its libvirt URI.
    """

    def __init__(self):
        require_real_host()
        # Outside the tests' folder, which an unprivileged user may not enter, and whose path may be too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="autoscaler-libvirt-"))
        self._user = self._unprivileged()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_DATA_HOME": str(self.folder / "data"),
        }
        (self.folder / "config/libvirt").mkdir(parents=True)
        (self.folder / "config/libvirt/qemu.conf").write_text(_CONFIG)
        image, _ = guest.kernel()
        shutil.copy(image, self.folder / "vmlinuz")
        guest.write_initramfs(self.folder / "initrd")
        (self.folder / "run").mkdir(mode=0o700)
        self._give_away()
        self.uri = f"qemu+unix:///session?socket={self.folder}/run/libvirt/libvirt-sock"
        self._program = None
        self.connection = None

    @staticmethod
    def _unprivileged():
        """User for libvirtd if this is root: root's libvirtd would use the machine's folders instead of the given ones."""
        if os.geteuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _give_away(self):
        if self._user:
            for each in (self.folder, *self.folder.rglob("*")):
                os.chown(each, self._user["user"], self._user["group"])

    def start(self):
        """Start libvirtd and wait until it answers, which takes some seconds, because it probes QEMU first."""
        with (self.folder / "libvirtd.log").open("ab") as log:
            self._program = subprocess.Popen(
                [LIBVIRTD, "--timeout", "600"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
                **self._user,
            )
        self.connection = self._connected()
        return self

    def _connected(self):
        from autoscaler.providers.libvirt.binding import connect, error_of

        waiting = threading.Event()
        for _ in range(int(PATIENCE_S / 0.1)):
            try:
                return connect(self.uri)
            except Exception as error:
                if error_of(error) is None or self._program.poll() is not None:
                    raise
            waiting.wait(0.1)
        raise AssertionError((self.folder / "libvirtd.log").read_text()[-2000:])

    def stop(self):
        """End libvirtd. The VMs keep running."""
        self._program.send_signal(signal.SIGTERM)
        self._program.wait(PATIENCE_S)

    def make_pool(self):
        """Make a storage pool with a disk in it, and return the path of the disk."""
        folder = self.folder / "pool"
        folder.mkdir()
        self._give_away()
        pool = self.connection.storagePoolCreateXML(
            f"<pool type='dir'><name>pool</name><target><path>{folder}</path></target></pool>", 0
        )
        text = "<volume><name>golden.qcow2</name><capacity unit='MiB'>64</capacity><target><format type='qcow2'/></target></volume>"
        return pool.createXML(text, 0).path()

    def volumes(self):
        pool = self.connection.storagePoolLookupByName("pool")
        pool.refresh(0)
        return {each.name() for each in pool.listAllVolumes()}

    def define(self, number, tags, port, disk=""):
        """Define a domain that answers at 127.0.0.`number` once it is started and has booted; return its id."""
        vm_id = str(uuid.uuid4())
        address = f"127.0.0.{number}"
        xml = _DOMAIN.format(
            name=f"vm-{number}",
            uuid=vm_id,
            memory=MEMORY_MIB,
            kernel=self.folder / "vmlinuz",
            initrd=self.folder / "initrd",
            emulator=shutil.which(QEMU),
            log=quoteattr(str(self.folder / f"vm-{number}.log")),
            disk=_DISK.format(path=quoteattr(disk)) if disk else "",
            address=address,
            port=port,
        )
        self.connection.defineXML(xml)
        if tags:
            self.tag(vm_id, {**tags, ADDRESS_TAG: address})
        return vm_id

    def tag(self, vm_id, tags):
        """Write tags into the configuration of a domain, as an operator would."""
        self.domain(vm_id).setMetadata(2, tags_element(tags), TAGS_PREFIX, TAGS_URI, 2)

    def domain(self, vm_id):
        return self.connection.lookupByUUIDString(vm_id)

    def mark_started_long_ago(self, vm_id):
        """Write the marks that a daemon leaves when it has started the VM an hour ago."""
        domain = self.domain(vm_id)
        marks = Marks(run=domain.ID(), launched_at_s=SystemClock().now() - 3600.0)
        domain.setMetadata(2, marks_element(marks), MARKS_PREFIX, MARKS_URI, 1)

    def pids(self):
        """Process ids of the VMs."""
        found = (self.folder / "run").rglob("qemu/run/*.pid")
        return [int(each.read_text()) for each in found if each.name != "driver.pid"]

    def close(self):
        """End everything that was started here, and remove its files."""
        pids = self.pids()
        if self.connection is not None:
            self.connection.close()
        if self._program is not None and self._program.poll() is None:
            self.stop()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)
