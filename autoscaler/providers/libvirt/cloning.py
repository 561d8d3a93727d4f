"""Clones a template on one host: overlay volumes beside the template's own, and a started domain on them.

Rules: runs in a thread, on one connection. Ids are derived from the token, so a repeated request finds what was begun and
continues it. If a host has room for some VMs only, these stay. If a request fails for another reason, its VMs are removed again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

from autoscaler.ports import FLEET_TAG, OutcomeKind, ProvisionSpec
from autoscaler.providers.failing import Failure
from autoscaler.providers.libvirt import changes
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.changes import HostContext, delete_volume
from autoscaler.providers.libvirt.classify import (
    MISMATCH,
    NO_DOMAIN,
    NO_TEMPLATE,
    NO_TYPE,
    NO_VERSION,
    NOT_THEN,
    RefusedError,
    failure,
    refused,
)
from autoscaler.providers.libvirt.domains import Description, Disk, Marks, describe, shape_of
from autoscaler.providers.libvirt.memory import free_mib
from autoscaler.providers.libvirt.writing import Clone, Overlay, cloned

_IDS: Final = uuid.UUID("6f0a2a63-2f5b-4f0e-9a43-0c8f5f0f6d11")
_INACTIVE, _SECURE = 2, 1
_NO_VOLUME: Final = 50
_VERSIONS: Final = ("$Default", "$Latest")
_POOLS_OF_FILES: Final = ("dir", "fs", "netfs")
VOLUME_PREFIX: Final = "autoscaler-"
"""Prefix of the names of the volumes that we make."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to provision VMs.

    Attributes:
        spec: What to provision.
        count: Number of VMs.
        token: Client token. A request with the same token means the same VMs.
    """

    spec: ProvisionSpec
    count: int
    token: str

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the request's VMs, derived from the token."""
        return tuple(str(uuid.uuid5(_IDS, f"{self.token} {number}")) for number in range(self.count))

    @property
    def digest(self) -> str:
        """Digest of the spec and the count."""
        spec = self.spec
        said = (
            spec.fleet,
            spec.launch_template,
            spec.version,
            spec.vm_type,
            spec.subnet,
            sorted(spec.tags.items()),
        )
        return hashlib.blake2b(repr((said, self.count)).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Offer:
    """What one host offers for a request.

    Attributes:
        made: Which of the request's VMs exist on this host already.
        template: Whether the host has the template.
        free_mib: Free memory in MiB; 0 if the host does not say.
    """

    made: tuple[str, ...]
    template: bool
    free_mib: int


def offer(connection: Any, request: Request) -> Offer:
    """Find what a host offers for a request, without changing anything.

    Raises:
        RefusedError: The token was used before for another request.
    """
    made = [(vm_id, domain) for vm_id in request.ids if (domain := _lookup(connection, vm_id)) is not None]
    for _, domain in made:
        marks = describe(domain.XMLDesc(_INACTIVE)).marks
        if (marks.token, marks.request) != (request.token, request.digest):
            raise refused(MISMATCH, f"the token {request.token!r} has come before, with another request")
    return Offer(
        tuple(vm_id for vm_id, _ in made),
        _named(connection, request.spec.launch_template) is not None,
        free_mib(connection) or 0,
    )


@dataclass(frozen=True, slots=True)
class Cloned:
    """The VMs that were made for a request.

    Attributes:
        ids: Their ids; at least one.
        why: Why they are fewer than there should be; empty if they are all.
    """

    ids: tuple[str, ...]
    why: str = ""


def clone(connection: Any, request: Request, desk: HostContext, ids: Sequence[str]) -> Cloned:
    """Make and start these VMs of a request on one host, or as many as it has room for.

    Raises:
        RefusedError: They cannot be made. Nothing is left of them, unless the outcome is UNKNOWN.
    """
    template = find_template(connection, request.spec)
    begun: list[str] = []
    done: list[str] = []
    try:
        for vm_id in ids:
            if _lookup(connection, vm_id) is None:
                begun.append(vm_id)
                _make(connection, request, vm_id, template)
            changes.start(connection, vm_id, desk)
            done.append(vm_id)
    except Exception as error:
        failed = _failure_of(error)
        if failed is None:
            raise
        fewer = failed.kind is OutcomeKind.NO_CAPACITY and bool(done)
        bad = [vm_id for vm_id in begun if not fewer or vm_id not in done]
        left = [vm_id for vm_id in bad if not _unmade(connection, vm_id, template, desk)]
        if left:
            text = f"{error}; what was begun could not be taken back: {', '.join(left)}"
            raise RefusedError(OutcomeKind.UNKNOWN, NOT_THEN, text) from error
        if fewer:
            return Cloned(tuple(done), failed.message)
        raise
    return Cloned(tuple(ids))


def _failure_of(error: Exception) -> Failure | None:
    """The failure that an error from libvirt or a refusal stands for; None for any other error."""
    if isinstance(error, RefusedError):
        return error.failure
    told = error_of(error)
    return None if told is None else failure(*told)


@dataclass(frozen=True, slots=True)
class Template:
    """A domain to clone.

    Attributes:
        xml: Its configuration, including secrets.
        described: The parts of the configuration that matter here.
        shape: Processors and MiB of the clones; None for the template's own.
    """

    xml: str
    described: Description
    shape: tuple[int, int] | None


def find_template(connection: Any, spec: ProvisionSpec) -> Template:
    """Find the template that a policy names, and check that it can be cloned.

    Raises:
        RefusedError: It does not exist, or cannot be cloned as it is.
    """
    if spec.version not in _VERSIONS:
        raise refused(NO_VERSION, f"a template domain has no versions; leave out version {spec.version}")
    shape = None if spec.vm_type is None else shape_of(spec.vm_type)
    if spec.vm_type is not None and shape is None:
        raise refused(
            NO_TYPE, f"{spec.vm_type!r} is not a machine type here; write processors x MiB, like 2x2048"
        )
    domain = _named(connection, spec.launch_template)
    if domain is None:
        raise refused(NO_TEMPLATE, f"there is no domain {spec.launch_template!r} to clone")
    if domain.isActive():
        text = f"the template {spec.launch_template!r} is on; it must be shut off while its disks are cloned"
        raise refused(NOT_THEN, text)
    xml = domain.XMLDesc(_INACTIVE | _SECURE)
    described = describe(xml)
    if described.fleet:
        raise refused(
            NOT_THEN, f"{spec.launch_template!r} carries {FLEET_TAG}: it is a VM of a fleet, not a template"
        )
    for disk in described.disks:
        volume_behind(connection, disk)
    return Template(xml, described, shape)


def volume_behind(connection: Any, disk: Disk) -> Any:
    """Find the volume that holds a disk of a template.

    Raises:
        RefusedError: The disk is in no active storage pool, or in one that does not consist of files.
    """
    try:
        if disk.volume:
            found = connection.storagePoolLookupByName(disk.storage_pool).storageVolLookupByName(disk.volume)
        else:
            found = connection.storageVolLookupByPath(disk.path)
        pool = ET.fromstring(found.storagePoolLookupByVolume().XMLDesc(0))  # noqa: S314 - libvirt's own words
    except Exception as error:
        if (told := error_of(error)) is None:
            raise
        text = f"the template's disk {disk.device} ({disk.path or disk.volume}) lies in no active storage pool: {told[1]} (after copying it there by hand: virsh pool-refresh)"
        raise refused("InvalidVolume.NotFound", text) from error
    if pool.get("type") not in _POOLS_OF_FILES:
        text = f"the template's disk {disk.device} lies in a pool of type {pool.get('type')}, which takes no overlays; use one of files"
        raise refused("InvalidVolume.NotSupported", text)
    return found


def _make(connection: Any, request: Request, vm_id: str, template: Template) -> None:
    spec = request.spec
    overlays = [_overlay(connection, vm_id, disk) for disk in template.described.disks]
    name = f"{spec.fleet}-{vm_id[:8]}"
    marks = Marks(
        template=template.described.name,
        token=request.token,
        request=request.digest,
        volumes=tuple(each.path for each in overlays),
    )
    own = Clone(
        uuid=vm_id,
        name=name,
        tags={"Name": spec.fleet, **spec.tags, FLEET_TAG: spec.fleet},
        marks=marks,
        overlays=overlays,
        shape=template.shape,
    )
    connection.defineXML(cloned(template.xml, own))


def _overlay(connection: Any, vm_id: str, disk: Disk) -> Overlay:
    """Make an overlay volume over the template's, in the same pool, or find the one that an earlier try has made."""
    base = volume_behind(connection, disk)
    pool = base.storagePoolLookupByVolume()
    name = volume_name(vm_id, disk)
    try:
        found = pool.storageVolLookupByName(name)
    except Exception as error:
        if (told := error_of(error)) is None or told[0] != _NO_VOLUME:
            raise
        described = ET.fromstring(base.XMLDesc(0))  # noqa: S314 - libvirt's own words
        form = described.find("target/format")
        found = pool.createXML(_volume_xml(name, base, "raw" if form is None else form.get("type", "raw")), 0)
    return Overlay(disk.device, found.path())


def volume_name(vm_id: str, disk: Disk) -> str:
    """Name of the volume for a clone's disk."""
    return f"{VOLUME_PREFIX}{vm_id}-{disk.device}.qcow2"


def _volume_xml(name: str, base: Any, base_format: str) -> str:
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "capacity", unit="bytes").text = str(base.info()[1])
    made = ET.SubElement(root, "target")
    ET.SubElement(made, "format", type="qcow2")
    backing = ET.SubElement(root, "backingStore")
    ET.SubElement(backing, "path").text = base.path()
    ET.SubElement(backing, "format", type=base_format)
    return ET.tostring(root, encoding="unicode")


def _unmade(connection: Any, vm_id: str, template: Template, desk: HostContext) -> bool:
    """Remove what was made of a VM that could not be completed, and return whether nothing is left of it."""
    try:
        if _lookup(connection, vm_id) is not None:
            changes.terminate(connection, vm_id, desk)
        for disk in template.described.disks:
            base = volume_behind(connection, disk)
            path = _path_of(base.storagePoolLookupByVolume(), volume_name(vm_id, disk))
            if path:
                delete_volume(connection, path)
    except Exception as error:
        if error_of(error) is None and not isinstance(error, RefusedError):
            raise
        return False
    return True


def _path_of(pool: Any, name: str) -> str:
    try:
        return str(pool.storageVolLookupByName(name).path())
    except Exception as error:
        if error_of(error) is None:
            raise
        return ""


def _lookup(connection: Any, vm_id: str) -> Any:
    return _found(lambda: connection.lookupByUUIDString(vm_id))


def _named(connection: Any, name: str) -> Any:
    return _found(lambda: connection.lookupByName(name))


def _found(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except Exception as error:
        if (told := error_of(error)) is None or told[0] != NO_DOMAIN:
            raise
        return None
