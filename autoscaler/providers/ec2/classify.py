"""What an EC2 error means: one table from code and HTTP status to `OutcomeKind`.

Rules: pure, no I/O, no botocore. The table follows what the caller must do next, not what the error is
called: a quota and an empty zone both mean "route elsewhere", so both are NO_CAPACITY.

Ids in an error message are a shortcut, not a contract: where EC2 names some, only those are blamed; where
it names none, all are, and finding the bad one is left to whoever sends smaller batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind

NOT_IN_REPLY: Final = "NotInReply"
"""Code of our own: the call was accepted and the reply does not mention this VM."""

UNREADABLE: Final = "UnreadableAnswer"
"""Code of our own: an answer came, and it is not one of EC2's."""

MESSAGE_LIMIT: Final = 400
"""Characters of a provider's message that are kept: an HTML page is not a message for a person."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that was answered with an error, or whose answer is not known.

    Attributes:
        kind: What it means.
        code: EC2's own code, `HTTP503` where there was only a status, or a code of ours.
        message: For a person, at most MESSAGE_LIMIT characters.
    """

    kind: OutcomeKind
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


_CODES: Final = {
    OutcomeKind.NO_CAPACITY: """
        InsufficientInstanceCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity
        InsufficientCapacityOnHost InsufficientCapacity InsufficientFreeAddressesInSubnet
        ReservationCapacityExceeded UnfulfillableCapacity MaxFleetCountExceeded
        VcpuLimitExceeded InstanceLimitExceeded VolumeLimitExceeded NetworkInterfaceLimitExceeded
    """,
    OutcomeKind.THROTTLED: """
        RequestLimitExceeded Throttling ThrottlingException ThrottledException RequestThrottled
        RequestThrottledException TooManyRequestsException EC2ThrottledException BandwidthLimitExceeded
    """,
    OutcomeKind.UNKNOWN: """
        InternalError InternalFailure Unavailable ServiceUnavailable RequestTimeout
        RequestTimeoutException
    """,
    OutcomeKind.DENIED: """
        UnauthorizedOperation AuthFailure OptInRequired PendingVerification Blocked ExpiredToken
        ExpiredTokenException RequestExpired InvalidClientTokenId InvalidSecurity InvalidAccessKeyId
        MissingAuthenticationToken SignatureDoesNotMatch IncompleteSignature UnrecognizedClientException
        AccessDenied AccessDeniedException NotAuthorized
    """,
    OutcomeKind.REFUSED: """
        IncorrectInstanceState IncorrectState IncorrectSpotRequestState IdempotentParameterMismatch
        InvalidInstanceID InvalidInstanceID.NotFound InvalidInstanceID.Malformed InvalidID
        InvalidParameterValue InvalidParameterCombination InvalidParameter MissingParameter UnknownParameter
        InvalidAction UnsupportedOperation Unsupported UnsupportedHibernationConfiguration
        UnsupportedInstanceAttribute OperationNotPermitted InvalidLaunchTemplateId.NotFound
        InvalidLaunchTemplateId.Malformed InvalidLaunchTemplateId.VersionNotFound
        InvalidLaunchTemplateName.NotFoundException InvalidSubnetID.NotFound
        InvalidAMIID.NotFound TagLimitExceeded
    """,
}

CODES: Final[dict[str, OutcomeKind]] = {
    code: kind for kind, codes in _CODES.items() for code in codes.split()
}
"""Every code we know. What is not here is judged by its HTTP status."""

_VM_ID: Final = re.compile(r"\bi-[0-9a-f]{8,17}\b")


def kind_of(code: str, status: int | None) -> OutcomeKind:
    """What an error means; an unknown code is judged by status: 4xx refused, all else unknown."""
    if code in CODES:
        return CODES[code]
    if status in {401, 403}:
        return OutcomeKind.DENIED
    if status == 429:
        return OutcomeKind.THROTTLED
    if code and status is not None and 400 <= status < 500 and status != 408:
        return OutcomeKind.REFUSED
    return OutcomeKind.UNKNOWN


def failure(code: str, message: str, status: int | None) -> Failure:
    """A Failure from what EC2 said. An empty code means that the answer did not come from EC2."""
    return Failure(kind_of(code, status), code or f"HTTP{status}", shorten(message))


def advice(failed: Failure) -> str:
    """What a person can do about it, to follow the failure's own words; empty where waiting is all."""
    if failed.kind is OutcomeKind.DENIED:
        return "; check the credentials, their permissions (deploy/iam-policy.json) and this machine's clock"
    if failed.code == UNREADABLE or failed.code.startswith("HTTP"):
        return (
            "; EC2 answers otherwise: check aws_endpoint_url, and what stands between (a proxy, a login page)"
        )
    return ""


def shorten(message: str) -> str:
    """One line of at most MESSAGE_LIMIT characters."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def outcomes_of(failed: Failure, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
    """One Outcome per VM of a call that changed nothing or is in doubt, in order.

    A refusal that names VMs blames only these; the others get BATCH_REFUSED.
    """
    blamed = _named(failed.message, vm_ids) if failed.kind is OutcomeKind.REFUSED else frozenset()
    if not blamed:
        return tuple(Outcome(vm_id, failed.kind, failed.code, failed.message) for vm_id in vm_ids)
    because = f"not tried: the call was refused because of {', '.join(sorted(blamed))} ({failed.code})"
    return tuple(
        Outcome(vm_id, failed.kind, failed.code, failed.message)
        if vm_id in blamed
        else Outcome(vm_id, OutcomeKind.REFUSED, BATCH_REFUSED, because)
        for vm_id in vm_ids
    )


def _named(message: str, vm_ids: Iterable[str]) -> frozenset[str]:
    return frozenset(_VM_ID.findall(message)) & frozenset(vm_ids)


def says_throttled(problem: str) -> bool:
    """Whether the words of a problem name one of EC2's codes for a spent budget."""
    return any(kind is OutcomeKind.THROTTLED and code in problem for code, kind in CODES.items())
