"""Changes to one domain: start, stop, save, change of type, tags, delete.

Rules: each change runs in a thread, on one connection, and first looks at the domain again: a domain that does not carry the
ownership tag at that moment is not touched. If nothing can have changed, the error is a RefusedError or a libvirt error. A
failure to write tags or marks along with a change is ignored, so that the change's own outcome is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from xml.etree import ElementTree as ET

from autoscaler.ports import NO_HIBERNATION, NOT_YET, Clock, Outcome, OutcomeKind, VmState
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.classify import NO_TYPE, NOT_THEN, RefusedError, failure, refused
from autoscaler.providers.libvirt.domains import (
    MARKS_URI,
    TAGS_URI,
    DomainView,
    Marks,
    describe,
    root_of,
    shape_of,
)
from autoscaler.providers.libvirt.listing import Known, look_at
from autoscaler.providers.libvirt.memory import Room
from autoscaler.providers.libvirt.writing import (
    MARKS_PREFIX,
    TAGS_PREFIX,
    marks_element,
    resized,
    tags_element,
)

LIVE, CONFIG = 1, 2
_ELEMENT: Final = 2
_INACTIVE, _SECURE = 2, 1
_UNDEFINE_SAVED, _UNDEFINE_SNAPSHOTS, _UNDEFINE_NVRAM = 1, 2, 4
SAVE_FAILED: Final = "Libvirt.SaveFailed"


@dataclass(frozen=True, slots=True)
class HostContext:
    """What all changes on one host share.

    Attributes:
        known: What we know about its domains in addition to libvirt.
        room: Its memory.
        clock: Clock for the times in marks.
        tagging: Lock that is held while tags are read, changed and written back.
    """

    known: Known
    room: Room
    clock: Clock
    tagging: Any = field(compare=False)


def check_start(seen: DomainView) -> None:
    """Refuse to start a domain that is stopping. A domain that is already on is accepted."""
    if seen.vm_state is VmState.STOPPING:
        raise refused(
            NOT_THEN, f"the domain '{seen.described.uuid}' is stopping and cannot be started from there"
        )


def check_stop(seen: DomainView, *, hibernate: bool) -> None:
    """Refuse to stop a domain that is starting, or to save one that cannot be saved. A domain that is off is accepted."""
    uuid = seen.described.uuid
    if seen.vm_state is VmState.PENDING:
        raise refused(NOT_THEN, f"the domain '{uuid}' is starting and cannot be stopped from there")
    if hibernate and seen.described.host_devices:
        raise refused(
            NO_HIBERNATION, f"the domain '{uuid}' has devices of its host, so its memory cannot be saved"
        )


def check_retype(seen: DomainView) -> None:
    """Refuse to retype a domain that is on, or whose saved memory has its present size."""
    if seen.active or seen.saved:
        what = "is on" if seen.active else "waits with its memory saved"
        raise refused(
            NOT_THEN, f"the domain '{seen.described.uuid}' {what}; its type can be changed while it is off"
        )


def start(connection: Any, uuid: str, desk: HostContext) -> Outcome:
    """Start a domain, from its saved memory if there is one."""
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    check_start(seen)
    if seen.active:
        return _accepted(uuid, seen)
    desk.room.claim(connection, uuid, seen.described.takes_mib)
    before = desk.known.launches.get(uuid)
    at_s = desk.clock.now()
    # Noted before it runs, so that no listing in the meantime gives the run another start time.
    desk.known.launches[uuid] = None, at_s
    try:
        domain.create()
    except Exception as error:
        if error_of(error) is not None and _is_active(domain):
            # Another program started it first: libvirt calls that an invalid operation or an internal error.
            return Outcome(uuid, OutcomeKind.ACCEPTED, previous_state=VmState.RUNNING)
        desk.room.give_back(uuid)
        if before is None:
            desk.known.launches.pop(uuid, None)
        else:
            desk.known.launches[uuid] = before
        raise
    run = int(domain.ID())
    desk.known.launches[uuid] = run, at_s
    _quietly(lambda: _note_start(domain, seen, run, at_s))
    return _accepted(uuid, seen)


def stop(connection: Any, uuid: str, desk: HostContext, *, force: bool) -> Outcome:
    """Ask the guest to shut down, or with `force` end it at once."""
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    check_stop(seen, hibernate=False)
    if not seen.active or (seen.stopping and not force):
        return _accepted(uuid, seen)
    at_s = desk.clock.now()
    marks = replace(seen.described.marks, run=seen.run, launched_at_s=seen.launched_at_s)
    if not seen.being_saved:
        # Before the call: libvirt does not tell a guest that was asked to shut down from one that runs on.
        _quietly(lambda: _note_stop(domain, at_s))
        _quietly(lambda: _write_marks(domain, replace(marks, stopped_at_s=at_s), LIVE))
    try:
        domain.destroy() if force else domain.shutdown()
    except Exception as error:
        if error_of(error) is not None and not _is_active(domain):
            return _accepted(uuid, seen)
        if not seen.being_saved:
            _quietly(lambda: _write_marks(domain, replace(marks, stopped_at_s=None), LIVE))
        raise
    return _accepted(uuid, seen)


def save(connection: Any, uuid: str, desk: HostContext, begun: Callable[[DomainView], None]) -> Outcome:
    """Save a domain's memory and end it. Takes as long as writing the memory.

    Args:
        connection: The host's connection for saving alone.
        uuid: Id of the domain.
        desk: What changes on its host share.
        begun: Called with the domain's state once saving begins or proves unnecessary.

    Raises:
        RefusedError: Its memory cannot be saved (NO_HIBERNATION), or not now for lack of room (NOT_YET). The domain runs on.
    """
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    check_stop(seen, hibernate=True)
    if not seen.active or seen.stopping:
        begun(seen)
        return _accepted(uuid, seen)
    desk.known.saving.add(uuid)
    try:
        _quietly(lambda: _note_stop(domain, desk.clock.now()))
        begun(seen)
        domain.managedSave(0)
    except Exception as error:
        desk.known.troubles[uuid] = seen.run, SAVE_FAILED
        if (told := error_of(error)) is None:
            raise
        failed = failure(*told)
        if failed.kind is OutcomeKind.REFUSED:
            raise refused(NO_HIBERNATION, failed.message) from error
        if failed.kind is OutcomeKind.NO_CAPACITY:
            raise refused(NOT_YET, failed.message) from error
        raise
    finally:
        desk.known.saving.discard(uuid)
    return _accepted(uuid, seen)


def retype(connection: Any, uuid: str, desk: HostContext, vm_type: str) -> Outcome:
    """Change the processors and memory of a domain that is off, by replacing its whole configuration at once."""
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    check_retype(seen)
    shape = shape_of(vm_type)
    if shape is None:
        raise refused(
            NO_TYPE, f"{vm_type!r} is not a machine type here; write processors x MiB, for example 2x2048"
        )
    root = root_of(domain.XMLDesc(_INACTIVE | _SECURE))
    resized(root, *shape)
    connection.defineXML(ET.tostring(root, encoding="unicode"))
    return Outcome(uuid, OutcomeKind.ACCEPTED)


def tag(connection: Any, uuid: str, desk: HostContext, tags: Mapping[str, str]) -> Outcome:
    """Add tags to the domain's configuration and, if it is on, to its run. Other tags are kept."""
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    if seen.being_saved:
        text = f"the memory of the domain '{uuid}' is being saved; its tags can be written once that is done"
        raise RefusedError(OutcomeKind.THROTTLED, NOT_THEN, text)
    with desk.tagging:
        config = describe(domain.XMLDesc(_INACTIVE))
        text = tags_element({**config.tags, **tags})
        domain.setMetadata(_ELEMENT, text, TAGS_PREFIX, TAGS_URI, CONFIG | (LIVE if seen.active else 0))
    return Outcome(uuid, OutcomeKind.ACCEPTED)


def terminate(connection: Any, uuid: str, desk: HostContext) -> Outcome:
    """End a domain, and delete its configuration, its saved memory and only those volumes that were made for it."""
    domain, seen = look_at(connection, uuid, desk.known, desk.clock)
    config = describe(domain.XMLDesc(_INACTIVE))
    if seen.active:
        try:
            domain.destroy()
        except Exception as error:
            if error_of(error) is None or _is_active(domain):
                raise
    flags = _UNDEFINE_SAVED | _UNDEFINE_SNAPSHOTS | (_UNDEFINE_NVRAM if config.nvram else 0)
    domain.undefineFlags(flags)
    its_own = {disk.path for disk in config.disks}
    for path in config.marks.volumes:
        if path in its_own:
            delete_volume(connection, path)
    return _accepted(uuid, seen)


def delete_volume(connection: Any, path: str) -> None:
    """Delete a volume if possible. `doctor` reports volumes that are left over."""
    _quietly(lambda: connection.storageVolLookupByPath(path).delete(0))


def _note_start(domain: Any, seen: DomainView, run: int, at_s: float) -> None:
    config = describe(domain.XMLDesc(_INACTIVE))
    _write_marks(domain, replace(config.marks, launched_at_s=at_s), CONFIG)
    _write_marks(domain, replace(config.marks, run=run, launched_at_s=at_s, stopped_at_s=None), LIVE)
    if seen.saved:
        # A restored run has the tags from the time when it was saved.
        domain.setMetadata(_ELEMENT, tags_element(config.tags), TAGS_PREFIX, TAGS_URI, LIVE)


def _note_stop(domain: Any, at_s: float) -> None:
    config = describe(domain.XMLDesc(_INACTIVE))
    _write_marks(domain, replace(config.marks, stopped_at_s=at_s), CONFIG)


def _write_marks(domain: Any, marks: Marks, where: int) -> None:
    domain.setMetadata(_ELEMENT, marks_element(marks), MARKS_PREFIX, MARKS_URI, where)


def _quietly(write: Callable[[], object]) -> None:
    """Write metadata, and ignore errors from libvirt."""
    try:
        write()
    except Exception as error:
        if error_of(error) is None:
            raise


def _is_active(domain: Any) -> bool:
    try:
        return bool(domain.isActive())
    except Exception as error:
        if error_of(error) is None:
            raise
        return False


def _accepted(uuid: str, seen: DomainView) -> Outcome:
    return Outcome(uuid, OutcomeKind.ACCEPTED, previous_state=seen.vm_state)
