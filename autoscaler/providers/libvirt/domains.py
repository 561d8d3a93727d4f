"""Parses libvirt's domain XML into a Vm.

What libvirt does not store is kept in the domain's own metadata, in two elements of our own:

- `tags` (TAGS_URI): what EC2 calls tags, that is the owner (`autoscaler:fleet`) and all others. Operators may write it with
  `virsh metadata`. A running domain and its configuration have the same tags.
- `marks` (MARKS_URI): when we started and stopped the domain, and what it was made from. A running domain has marks of its own,
  which end with the run. Their `run` is libvirt's number of the run, so that a run that someone else started is not taken for
  ours.

Rules: pure; text in, values out (`writing` is the reverse). No I/O, no libvirt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from xml.etree import ElementTree as ET

from autoscaler.ports import FLEET_TAG, HIBERNATED_REASON, Vm, VmState

TAGS_URI: Final = "urn:vm-autoscaler:tags"
MARKS_URI: Final = "urn:vm-autoscaler:marks"
ADDRESS_TAG: Final = "autoscaler:address"
"""Tag with a VM's address, which overrides whatever libvirt knows of its network."""
IMAGE_TAG: Final = "autoscaler:image"

Element: TypeAlias = ET.Element

_TYPE: Final = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,8})")
_KIB: Final = {
    "b": 1 / 1024,
    "bytes": 1 / 1024,
    "kb": 1000 / 1024,
    "k": 1.0,
    "kib": 1.0,
    "m": 1024.0,
    "mib": 1024.0,
}
_KIB_MORE: Final = {
    "mb": 1e6 / 1024,
    "g": 1024.0**2,
    "gib": 1024.0**2,
    "gb": 1e9 / 1024,
    "t": 1024.0**3,
    "tib": 1024.0**3,
}

RUNNING, BLOCKED, PAUSED, SHUTDOWN, SHUTOFF, CRASHED, SUSPENDED = range(1, 8)
"""libvirt's states of a domain (`virDomainState`)."""
_PAUSED_SAVE, _PAUSED_SHUTTING_DOWN, _PAUSED_STARTING = 3, 8, 11
_SHUTOFF_REASONS: Final = {
    1: "Client.InstanceInitiatedShutdown",
    2: "Client.UserInitiatedShutdown",
    3: "Server.InternalError",
    5: HIBERNATED_REASON,
    6: "Server.InternalError",
}
_PAUSED_REASONS: Final = {1: "User", 5: "IoError", 6: "Watchdog", 10: "Crashed"}


class UnreadableError(Exception):
    """The document is not the XML of a domain."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Our own notes about a domain.

    Attributes:
        run: libvirt's number of the run that `launched_at_s` and `stopped_at_s` refer to; None in a configuration.
        launched_at_s: When we last started it, in epoch seconds; None if we never did.
        stopped_at_s: When we last told it to stop, in epoch seconds; None if we never did.
        template: Name of the domain that it was cloned from; empty if we did not make it.
        token: Client token of the request that made it.
        request: Digest of that request.
        volumes: Paths of the volumes that were made for it, and are deleted with it.
    """

    run: int | None = None
    launched_at_s: float | None = None
    stopped_at_s: float | None = None
    template: str = ""
    token: str = ""
    request: str = ""
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """A writable disk of a domain.

    Attributes:
        device: Its name within the domain (`vda`).
        path: The file or device behind it; empty if it is given as a volume in a pool.
        storage_pool: Name of the volume's pool, or empty.
        volume: Name of the volume, or empty.
    """

    device: str
    path: str
    storage_pool: str = ""
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """The parts of a domain's XML that matter here.

    Attributes:
        uuid: Its id.
        name: Its name on the host.
        tags: All tags; empty if there are none.
        marks: Our own notes.
        vcpus: Virtual processors that it starts with.
        memory_mib: Its memory, in MiB.
        takes_mib: MiB of the host's free memory that a start takes: less if a balloon returns some, none with huge pages.
        agent: Whether its guest agent is connected; None if it has no channel for one.
        host_devices: Whether it uses devices of the host, so that its memory cannot be saved.
        disks: Its writable disks, in order.
        nvram: Whether it has its own firmware variables.
        interfaces: Number of its network interfaces.
    """

    uuid: str
    name: str
    tags: Mapping[str, str]
    marks: Marks
    vcpus: int
    memory_mib: int
    takes_mib: int = 0
    agent: bool | None = None
    host_devices: bool = False
    disks: tuple[Disk, ...] = ()
    nvram: bool = False
    interfaces: int = 0

    @property
    def fleet(self) -> str:
        """Value of the ownership tag; empty if there is none."""
        return self.tags.get(FLEET_TAG, "")

    @property
    def vm_type(self) -> str:
        """Machine type in our notation, for example 2x2048."""
        return f"{self.vcpus}x{self.memory_mib}"


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain as its host reports it.

    Attributes:
        described: Contents of its XML: that of the run if it is active, otherwise its configuration.
        state: libvirt's state.
        reason: libvirt's reason for the state.
        run: libvirt's number of the run; -1 while it is off.
        saved: Whether its memory is saved in a file of the host (managed save).
        saving: Whether we are saving its memory now.
        trouble: Code of what went wrong when saving; empty if nothing did.
        launched_at_s: When it was last started, as far as we know, in epoch seconds.
        address: Its network address; None while it is off or if the address is unknown.
    """

    described: Description
    state: int
    reason: int
    run: int = -1
    saved: bool = False
    saving: bool = False
    trouble: str = ""
    launched_at_s: float = 0.0
    address: str | None = None

    @property
    def active(self) -> bool:
        """Whether it has a process on its host, running or not."""
        return self.run >= 0

    @property
    def being_saved(self) -> bool:
        """Whether its memory is being saved. Until then libvirt allows no other change, except to end the domain."""
        return self.active and (self.saving or (self.state == PAUSED and self.reason == _PAUSED_SAVE))

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop during this run, or its state says that it is stopping."""
        marks = self.described.marks
        told = marks.run == self.run and marks.stopped_at_s is not None
        leaving = self.state == SHUTDOWN or (self.state == PAUSED and self.reason == _PAUSED_SHUTTING_DOWN)
        return self.active and (told or leaving or self.being_saved)

    @property
    def vm_state(self) -> VmState:
        """The port's state for the domain.

        A paused, crashed or suspended domain holds its memory and does not serve. It counts as running, because that is what
        it costs; `state_reason` and its probe tell the difference.
        """
        if not self.active:
            return VmState.STOPPED
        if self.stopping:
            return VmState.STOPPING
        starting = self.state == PAUSED and self.reason == _PAUSED_STARTING
        return VmState.PENDING if starting else VmState.RUNNING

    @property
    def state_reason(self) -> str:
        """Reason for the state, as a code that the daemon knows; empty if there is none."""
        if self.active:
            if self.being_saved:
                return HIBERNATED_REASON
            if self.stopping:
                return "Client.UserInitiatedShutdown"
            if self.state == PAUSED:
                return f"Libvirt.Paused.{_PAUSED_REASONS.get(self.reason, 'Unknown')}"
            return {CRASHED: "Libvirt.Crashed", SUSPENDED: "Libvirt.Suspended"}.get(self.state, self.trouble)
        if self.saved:
            return HIBERNATED_REASON
        if self.reason in (1, 2) and self.stopped_at_s is not None:
            return "Client.UserInitiatedShutdown"
        return "" if self.reason == 5 else _SHUTOFF_REASONS.get(self.reason, "")

    @property
    def stopped_at_s(self) -> float | None:
        """When we last told it to stop; None if it runs, or if it was stopped by others."""
        marks = self.described.marks
        if marks.stopped_at_s is None or (self.active and not self.stopping):
            return None
        return marks.stopped_at_s if marks.stopped_at_s >= (marks.launched_at_s or 0.0) else None

    def vm(self, zone: str) -> Vm:
        """Convert the domain to the port's value."""
        it = self.described
        return Vm(
            id=it.uuid,
            fleet=it.fleet,
            state=self.vm_state,
            vm_type=it.vm_type,
            zone=zone,
            address=self.address,
            launched_at_s=self.launched_at_s,
            image=it.tags.get(IMAGE_TAG) or it.marks.template,
            tags=it.tags,
            state_reason=self.state_reason,
            may_hibernate=not it.host_devices,
            stopped_at_s=self.stopped_at_s,
        )


def root_of(xml: str, name: str = "domain") -> Element:
    """Parse a document and return its root element.

    Raises:
        UnreadableError: It is not XML, or its root has another name.
    """
    try:
        root = ET.fromstring(xml)  # noqa: S314 - libvirt's own words, from a host that we trust with our VMs
    except ET.ParseError as error:
        raise UnreadableError(f"not XML: {error}") from error
    if root.tag != name:
        raise UnreadableError(f"expected <{name}>, got <{root.tag}>")
    return root


def describe(xml: str) -> Description:
    """Parse a domain's XML.

    Raises:
        UnreadableError: A required field is missing or malformed; the message says which.
    """
    root = root_of(xml)
    try:
        vcpu = root.find("vcpu")
        vcpus = 1 if vcpu is None else int(vcpu.get("current") or vcpu.text or "1")
        return Description(
            uuid=_text(root, "uuid"),
            name=_text(root, "name"),
            tags=_tags(root),
            marks=_marks(root),
            vcpus=vcpus,
            memory_mib=round(_kib(root.find("memory")) / 1024),
            takes_mib=_takes_mib(root),
            agent=_agent(root),
            host_devices=root.find("devices/hostdev") is not None
            or root.find("devices/interface[@type='hostdev']") is not None,
            disks=tuple(_disks(root)),
            nvram=root.find("os/nvram") is not None,
            interfaces=len(root.findall("devices/interface")),
        )
    except ValueError as error:
        raise UnreadableError(str(error)) from error


def shape_of(vm_type: str) -> tuple[int, int] | None:
    """Virtual processors and MiB of a machine type like 2x2048; None if it is not written in this form."""
    found = _TYPE.fullmatch(vm_type)
    return (int(found[1]), int(found[2])) if found else None


def _text(root: Element, path: str) -> str:
    text = (root.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"no {path}")
    return text


def _kib(element: Element | None) -> float:
    if element is None or not element.text:
        raise ValueError("no memory")
    unit = (element.get("unit") or "KiB").lower()
    factor = {**_KIB, **_KIB_MORE}.get(unit)
    if factor is None:
        raise ValueError(f"memory in {unit}")
    return float(element.text) * factor


def _takes_mib(root: Element) -> int:
    if root.find("memoryBacking/hugepages") is not None:
        return 0
    current = root.find("currentMemory")
    return round(_kib(root.find("memory") if current is None else current) / 1024)


def _tags(root: Element) -> dict[str, str]:
    found = root.find(f"metadata/{{{TAGS_URI}}}tags")
    return {
        key: (each.text or "").strip()
        for each in (found if found is not None else ())
        if (key := each.get("key")) and each.tag == f"{{{TAGS_URI}}}tag"
    }


def _marks(root: Element) -> Marks:
    found = root.find(f"metadata/{{{MARKS_URI}}}marks")
    if found is None:
        return Marks()
    run = found.get("run")
    return Marks(
        run=None if run is None else int(run),
        launched_at_s=_moment(found, "launched"),
        stopped_at_s=_moment(found, "stopped"),
        template=found.get("template", ""),
        token=found.get("token", ""),
        request=found.get("request", ""),
        volumes=tuple(path for each in found.iter(f"{{{MARKS_URI}}}volume") if (path := each.get("path"))),
    )


def _moment(element: Element, name: str) -> float | None:
    text = element.get(name)
    return None if text is None else float(text)


def _agent(root: Element) -> bool | None:
    for channel in root.iterfind("devices/channel/target"):
        if channel.get("name") == "org.qemu.guest_agent.0":
            return channel.get("state") == "connected"
    return None


def _disks(root: Element) -> list[Disk]:
    found = []
    for disk in root.iterfind("devices/disk"):
        fixed = disk.find("readonly") is not None or disk.find("shareable") is not None
        source, named = disk.find("source"), disk.find("target")
        if disk.get("device", "disk") != "disk" or fixed or source is None or named is None:
            continue
        path = source.get("file") or source.get("dev") or ""
        found.append(Disk(named.get("dev", ""), path, source.get("pool", ""), source.get("volume", "")))
    return found
