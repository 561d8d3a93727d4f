"""Classifies libvirt errors: one table from error code, and a few QEMU messages, to `OutcomeKind`.

Rules: pure, no I/O, no libvirt. If the daemon already has a code for a kind of trouble (`IncorrectInstanceState`), that code
is used, otherwise libvirt's own name of the error. Messages are searched where one libvirt code covers many errors:
"internal error" is anything that QEMU printed when it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind
from autoscaler.providers.failing import Failure, shorten

ABSENT: Final = "InvalidInstanceID.NotFound"
MALFORMED: Final = "InvalidInstanceID.Malformed"
NOT_THEN: Final = "IncorrectInstanceState"
NO_ROOM: Final = "InsufficientInstanceCapacity"
MISMATCH: Final = "IdempotentParameterMismatch"
NO_TEMPLATE: Final = "InvalidLaunchTemplateName.NotFoundException"
NO_VERSION: Final = "InvalidLaunchTemplateId.VersionNotFound"
NO_TYPE: Final = "InvalidInstanceType"
UNREACHED: Final = "HostUnreachable"
"""Our own code: the VM's host could not be asked, so nothing was done."""
NO_ANSWER: Final = "NoAnswer"
"""Our own code: the host was asked and has not answered in time."""


_TABLE: Final = """
    no_capacity  2   NO_MEMORY
    refused      3   NO_SUPPORT
    unknown      5   NO_CONNECT
    unknown      6   INVALID_CONN
    refused      8   INVALID_ARG
    refused      9   OPERATION_FAILED
    refused     27   XML_ERROR
    denied      29   OPERATION_DENIED
    refused     38   SYSTEM_ERROR
    unknown     39   RPC
    refused     42   NO_DOMAIN
    denied      45   AUTH_FAILED
    refused     49   NO_STORAGE_POOL
    refused     50   NO_STORAGE_VOL
    refused     55   OPERATION_INVALID
    refused     67   CONFIG_UNSUPPORTED
    throttled   68   OPERATION_TIMEOUT
    refused     74   ARGUMENT_UNSUPPORTED
    denied      79   AUTH_CANCELLED
    refused     84   OPERATION_UNSUPPORTED
    refused     86   AGENT_UNRESPONSIVE
    throttled   87   RESOURCE_BUSY
    denied      88   ACCESS_DENIED
    refused     90   STORAGE_VOL_EXIST
    denied      94   AUTH_UNAVAILABLE
"""
"""Each line: the kind of outcome, libvirt's number of the error, and its name."""

_LINES: Final = [line.split() for line in _TABLE.strip().splitlines()]
KINDS: Final = {int(number): OutcomeKind(kind) for kind, number, _ in _LINES}
NAMES: Final = {int(number): name for _, number, name in _LINES}
NO_DOMAIN: Final = 42

_OWN_CODES: Final = {NO_DOMAIN: ABSENT}
_NO_MEMORY: Final = ("cannot allocate memory", "cannot set up guest memory", "out of memory")
_NO_SPACE: Final = ("no space left", "enospc", "not enough free space", "disk quota exceeded")
_GONE: Final = (
    "client socket is closed",
    "connection reset",
    "broken pipe",
    "keepalive",
    "end of file while reading",
    "hangup",
)
_DENIED: Final = ("permission denied (", "host key verification failed", "access denied by policy")


class RefusedError(Exception):
    """A request to a host cannot be carried out, and nothing was done. Never leaves this package."""

    def __init__(self, kind: OutcomeKind, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, code, shorten(message))


def refused(code: str, message: str) -> RefusedError:
    """Build the error for a request that is itself wrong."""
    return RefusedError(OutcomeKind.REFUSED, code, message)


def failure(number: int, message: str) -> Failure:
    """Classify an error from libvirt.

    Args:
        number: libvirt's error code (`VIR_ERR_…`).
        message: libvirt's message.
    """
    words = message.lower()
    if any(each in words for each in (*_NO_MEMORY, *_NO_SPACE)):
        return Failure(OutcomeKind.NO_CAPACITY, NO_ROOM, shorten(message))
    if any(each in words for each in _DENIED):
        return Failure(OutcomeKind.DENIED, _name(number), shorten(message))
    if lost(number, message):
        return Failure(OutcomeKind.UNKNOWN, _name(number), shorten(message))
    code = _OWN_CODES.get(number, _name(number))
    # A code that is not in the table is still an answer: the host refused.
    return Failure(KINDS.get(number, OutcomeKind.REFUSED), code, shorten(message))


def lost(number: int, message: str) -> bool:
    """Whether the error means that the connection has ended, so that the outcome of the request is unknown."""
    words = message.lower()
    return KINDS.get(number) is OutcomeKind.UNKNOWN or any(each in words for each in _GONE)


def advice(failed: Failure) -> str:
    """What a person can do about a failure, to append to its message; empty if waiting is all."""
    if failed.kind is OutcomeKind.DENIED:
        return "; check that the daemon's user may manage domains there (group libvirt, polkit, ssh key)"
    if failed.code == "NO_CONNECT":
        return "; check the URI, that libvirtd runs there, and that the daemon's user may use its socket"
    return ""


def refuse_all(vm_ids: Sequence[str], bad: dict[str, Failure]) -> tuple[Outcome, ...]:
    """Outcomes, in order, for a batch that is refused as a whole because of some of its VMs."""
    names = ", ".join(sorted(bad))
    because = Failure(
        OutcomeKind.REFUSED, BATCH_REFUSED, shorten(f"not tried: the call was refused because of {names}")
    )
    return tuple(bad.get(vm_id, because).of(vm_id) for vm_id in vm_ids)


def _name(number: int) -> str:
    return NAMES.get(number, f"VIR_ERR_{number}" if number != 1 else "INTERNAL_ERROR")
