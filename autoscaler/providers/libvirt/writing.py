"""Edits domain XML: tags, marks, machine type, and clones of a template.

Rules: pure; values and text in, text out. No I/O, no libvirt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from autoscaler.providers.libvirt.domains import MARKS_URI, TAGS_URI, Element, Marks, root_of

TAGS_PREFIX: Final = "autoscaler"
MARKS_PREFIX: Final = "autoscaler-marks"
_NOT_CLONED: Final = ("uuid", "genid", "title", "description")


def tags_element(tags: Mapping[str, str]) -> str:
    """XML element for tags, as libvirt takes it: without a namespace, which is a separate argument."""
    root = ET.Element("tags")
    for key, value in tags.items():
        ET.SubElement(root, "tag", key=key).text = value
    return ET.tostring(root, encoding="unicode")


def marks_element(marks: Marks) -> str:
    """XML element for marks, also without a namespace."""
    moments = {"launched": marks.launched_at_s, "stopped": marks.stopped_at_s}
    attributes = {name: f"{at_s:.3f}" for name, at_s in moments.items() if at_s is not None}
    if marks.run is not None:
        attributes["run"] = str(marks.run)
    names = {"template": marks.template, "token": marks.token, "request": marks.request}
    attributes |= {name: text for name, text in names.items() if text}
    root = ET.Element("marks", attributes)
    for path in marks.volumes:
        ET.SubElement(root, "volume", path=path)
    return ET.tostring(root, encoding="unicode")


def resized(root: Element, vcpus: int, memory_mib: int) -> None:
    """Change the machine type in a domain's XML."""
    vcpu = root.find("vcpu")
    if vcpu is None:
        vcpu = ET.SubElement(root, "vcpu")
    vcpu.text = str(vcpus)
    vcpu.attrib.pop("current", None)
    for name in ("memory", "currentMemory"):
        memory = root.find(name)
        if memory is None:
            memory = ET.SubElement(root, name)
        memory.text = str(memory_mib)
        memory.set("unit", "MiB")


@dataclass(frozen=True, slots=True)
class Overlay:
    """The volume that replaces a disk in a clone.

    Attributes:
        device: Name of the disk within the domain.
        path: Path of the new volume.
        format: Format of the new volume.
    """

    device: str
    path: str
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class Clone:
    """What a clone does not share with its template.

    Attributes:
        uuid: Its id.
        name: Its name.
        tags: All its tags.
        marks: Our own notes about it.
        overlays: Its disks.
        shape: Virtual processors and MiB; None for the template's.
    """

    uuid: str
    name: str
    tags: Mapping[str, str]
    marks: Marks
    overlays: Sequence[Overlay] = ()
    shape: tuple[int, int] | None = None


def cloned(template: str, clone: Clone) -> str:
    """Build the XML of a clone, with its own id, name, tags and disks. libvirt gives it new network addresses."""
    root = root_of(template)
    root.attrib.pop("id", None)
    for name in _NOT_CLONED:
        for each in root.findall(name):
            root.remove(each)
    _set_text(root, "name", clone.name)
    uuid = ET.Element("uuid")
    uuid.text = clone.uuid
    root.insert(1, uuid)
    if clone.shape is not None:
        resized(root, *clone.shape)
    _own_metadata(root, clone)
    _own_devices(root, {each.device: each for each in clone.overlays})
    nvram = root.find("os/nvram")
    if nvram is not None:
        # libvirt creates a new file from the firmware's template.
        nvram.text = None
        for each in nvram.findall("source"):
            nvram.remove(each)
    return ET.tostring(root, encoding="unicode")


def _own_devices(root: Element, overlays: Mapping[str, Overlay]) -> None:
    for interface in root.iterfind("devices/interface"):
        for name in ("mac", "alias"):
            for each in interface.findall(name):
                interface.remove(each)
    for disk in root.iterfind("devices/disk"):
        named = disk.find("target")
        overlay = overlays.get("" if named is None else named.get("dev", ""))
        if overlay is None:
            continue
        disk.set("type", "file")
        for name in ("source", "backingStore", "alias", "serial"):
            for each in disk.findall(name):
                disk.remove(each)
        disk.insert(0, ET.Element("source", file=overlay.path))
        driver = disk.find("driver")
        if driver is None:
            driver = ET.Element("driver", name="qemu")
            disk.insert(0, driver)
        driver.set("type", overlay.format)


def _own_metadata(root: Element, clone: Clone) -> None:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    for uri in (TAGS_URI, MARKS_URI):
        for each in [child for child in metadata if child.tag.startswith(f"{{{uri}}}")]:
            metadata.remove(each)
    for uri, text in ((TAGS_URI, tags_element(clone.tags)), (MARKS_URI, marks_element(clone.marks))):
        element = ET.fromstring(text)  # noqa: S314 - written here
        for each in element.iter():
            each.tag = f"{{{uri}}}{each.tag}"
        metadata.append(element)


def _set_text(root: Element, name: str, text: str) -> None:
    found = root.find(name)
    if found is None:
        found = ET.Element(name)
        root.insert(0, found)
    found.text = text
