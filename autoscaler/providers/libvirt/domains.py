"""Parses libvirt's domain XML into a Vm.

What libvirt does not keep is kept in the domain's own metadata, in two elements of our own:

- `tags` (TAGS_URI), what EC2 calls tags: the owner (`autoscaler:fleet`) and all others. Operators may write it with
  `virsh metadata`. The running domain has the same as its configuration.
- `marks` (MARKS_URI): when we started and stopped it, and what it was made of. A running domain's differ from those of its
  configuration and end with the run: `run` is libvirt's number of the run that they speak of, so that one that somebody else
  started is not taken for ours.

Rules: pure; text in, values out (`writing` is the way back). No I/O, no libvirt.
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
"""An address that holds whatever libvirt knows of the VM's network."""
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
    """The XML is not that of a domain."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What we wrote down of a domain.

    Attributes:
        run: libvirt's number of the run that `launched_at_s` and `stopped_at_s` speak of; None in a configuration.
        launched_at_s: When we started it last, in epoch seconds; None where we did not.
        stopped_at_s: When we told it to stop last, likewise.
        template: The domain that it was cloned from; empty where we did not make it.
        token: Of the request that made it.
        request: Digest of that request.
        volumes: Paths of the volumes that were made for it, and go with it.
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
    """A disk of a domain that can be written to.

    Attributes:
        device: Its name within the domain (`vda`).
        path: The file or device behind it; empty where it is a volume by name.
        storage_pool: The pool of a volume by name, or empty.
        volume: Its name.
    """

    device: str
    path: str
    storage_pool: str = ""
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """What the XML of a domain says that matters here.

    Attributes:
        uuid: Its id.
        name: Its name on the host.
        tags: All tags of ours; empty where there are none.
        marks: What we wrote down.
        vcpus: Virtual processors that it starts with.
        memory_mib: Its memory.
        takes_mib: What of the host's free memory a start takes: less where it gives some back (balloon), none of huge pages.
        agent: Whether its guest agent is connected; None where it has no channel for one.
        host_devices: It has devices of the host, so that its memory cannot be saved.
        disks: Those that can be written to, in their order.
        nvram: It has variables of firmware of its own.
        interfaces: How many network interfaces it has.
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
        """Value of the ownership tag; empty where there is none."""
        return self.tags.get(FLEET_TAG, "")

    @property
    def vm_type(self) -> str:
        """Its machine type as we name it, for example 2x2048."""
        return f"{self.vcpus}x{self.memory_mib}"


@dataclass(frozen=True, slots=True)
class Seen:
    """One domain as its host shows it.

    Attributes:
        described: From its XML: of the run where it is active, else of its configuration.
        state: libvirt's state.
        reason: libvirt's reason for it.
        run: libvirt's number of the run; -1 while it is off.
        saved: Its memory waits in a file of the host (managed save).
        saving: We are having its memory saved.
        trouble: Code of what went wrong with that; empty where nothing did.
        launched_at_s: When it was started, as far as we know, in epoch seconds.
        address: Where it answers; None while it is off, and where nobody knows.
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
        """Whether its memory is being saved: until that is done libvirt changes nothing else of it, but may end it."""
        return self.active and (self.saving or (self.state == PAUSED and self.reason == _PAUSED_SAVE))

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop in this run, or is seen to."""
        marks = self.described.marks
        told = marks.run == self.run and marks.stopped_at_s is not None
        leaving = self.state == SHUTDOWN or (self.state == PAUSED and self.reason == _PAUSED_SHUTTING_DOWN)
        return self.active and (told or leaving or self.being_saved)

    @property
    def vm_state(self) -> VmState:
        """What the port calls it.

        A paused, crashed or suspended domain holds its memory and does not serve: it is called running, which is what
        it costs, and its `state_reason` and its probe say the rest.
        """
        if not self.active:
            return VmState.STOPPED
        if self.stopping:
            return VmState.STOPPING
        starting = self.state == PAUSED and self.reason == _PAUSED_STARTING
        return VmState.PENDING if starting else VmState.RUNNING

    @property
    def state_reason(self) -> str:
        """Why it is so, by codes that the daemon knows; empty where there is nothing to say."""
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
        """When we told it to stop last; None where it runs, or was stopped by others."""
        marks = self.described.marks
        if marks.stopped_at_s is None or (self.active and not self.stopping):
            return None
        return marks.stopped_at_s if marks.stopped_at_s >= (marks.launched_at_s or 0.0) else None

    def vm(self, zone: str) -> Vm:
        """The port's value."""
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
    """The document.

    Raises:
        UnreadableError: It is another one, or none.
    """
    try:
        root = ET.fromstring(xml)  # noqa: S314 - libvirt's own words, from a host that we trust with our VMs
    except ET.ParseError as error:
        raise UnreadableError(f"not XML: {error}") from error
    if root.tag != name:
        raise UnreadableError(f"expected <{name}>, got <{root.tag}>")
    return root


def describe(xml: str) -> Description:
    """Read a domain's XML.

    Raises:
        UnreadableError: Something that a VM needs is missing or not understood; says what.
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
    """Virtual processors and MiB of a machine type like 2x2048; None where it is not written so."""
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
