"""A Linux guest of 6 MB that answers HTTP with the id of its boot: Debian's cloud kernel and busybox, without a disk.

It is built from what is installed: a kernel with its modules (`.ci/run` unpacks one, because this machine does not boot
it), and busybox-static.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

KERNEL_VARIABLE = "AUTOSCALER_TEST_KERNEL"
"""Folder that contains boot/vmlinuz-* and lib/modules/* of a Debian cloud kernel."""
_FOLDERS = ("/var/lib/autoscaler-tests/kernel", "/")

# virtio_ring must come before virtio: otherwise symbols are missing and there is no network.
_MODULES = [
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover",
    "net_failover", "virtio_net", "evdev", "button",
]  # fmt: skip

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {modules}; do insmod /modules/$module.ko; done
cp /proc/sys/kernel/random/boot_id /www/index.html
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
acpid -d -c /etc/acpi -p /acpid.pid >/dev/null 2>&1 &
httpd -p 80 -h /www
while true; do sleep 1000; done
"""
_POWER = "#!/bin/sh\npoweroff -f\n"


def kernel():
    """The kernel and the folder of its modules; None if there is none."""
    for folder in (os.environ.get(KERNEL_VARIABLE, ""), *_FOLDERS):
        for image in sorted(Path(folder or "/nowhere").glob("boot/vmlinuz-*-cloud-amd64")):
            modules = Path(folder) / "lib/modules" / image.name.removeprefix("vmlinuz-") / "kernel"
            if modules.is_dir():
                return image, modules
    return None


def busybox():
    """Path of a busybox; None if there is none. Only the guest shows whether it needs no libraries."""
    return shutil.which("busybox")


def write_initramfs(file: Path) -> None:
    """Write the guest's whole file system."""
    _, modules = kernel()
    found = {each.stem: each for each in modules.rglob("*.ko")}
    names = [name for name in _MODULES if name in found]
    archive = _Archive()
    for folder in ("bin", "proc", "sys", "dev", "www", "modules", "etc", "etc/acpi", "etc/acpi/PWRF", "tmp"):
        archive.add(folder, b"", 0o040755)
    archive.add("bin/busybox", Path(busybox()).read_bytes(), 0o100755)
    archive.add("init", _INIT.format(modules=" ".join(names)).encode(), 0o100755)
    archive.add("etc/acpi/PWRF/00000080", _POWER.encode(), 0o100755)
    for name in names:
        archive.add(f"modules/{name}.ko", found[name].read_bytes(), 0o100644)
    file.write_bytes(gzip.compress(archive.bytes(), 1))


class _Archive:
    """An archive in cpio's newc format."""

    def __init__(self):
        self._parts = []
        self._count = 0

    def add(self, name, content, mode):
        self._count += 1
        encoded = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        head = b"070701" + "".join(f"{each:08x}" for each in fields).encode()
        self._parts += [_padded(head + encoded), _padded(content)]

    def bytes(self):
        self.add("TRAILER!!!", b"", 0)
        return b"".join(self._parts)


def _padded(data):
    return data + b"\0" * (-len(data) % 4)
