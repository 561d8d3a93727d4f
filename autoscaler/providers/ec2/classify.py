"""Classifies EC2 errors: one table from error code and HTTP status to `OutcomeKind`.

Rules: pure, no I/O, no botocore. The table follows what the caller must do next, not what the error is
called: a quota and an empty zone both mean "route elsewhere", so both are NO_CAPACITY.

Ids in an error message are a shortcut, not a contract. If EC2 names some, only those are blamed. If it
names none, all are, and it is up to the caller to find the bad one with smaller batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind
from autoscaler.providers.failing import Failure, shorten

NOT_IN_REPLY: Final = "NotInReply"
"""Our own code: the call was accepted, but the reply does not mention this VM."""

NO_CREDENTIALS: Final = "NoCredentials"
"""Our own code: nothing was sent, because there are no valid credentials."""

UNREADABLE: Final = "UnreadableAnswer"
"""Our own code: an answer came that is not one of EC2's."""


class Reaction(StrEnum):
    """What the program, or a person, does about an error."""

    ELSEWHERE = "elsewhere"
    """There is no room here: other places are tried at once, and this one again after minutes."""
    OWN_ROOM = "own room"
    """What the fleet has reserved is full: it tries other places at once, and this one again after minutes; other fleets go on."""
    OTHER_FAMILY = "other family"
    """A quota is used up: other zones do not help, but other families of machine types may."""
    SLOW_DOWN = "slow down"
    """Other programs spend from the same budget: our share is cut, and the call is repeated within its time."""
    LIST_FIRST = "list first"
    """The change may have been made: nothing is repeated until a listing shows whether it was."""
    LOOK_AGAIN = "look again"
    """The VM is not in the state that we believed: the other VMs are sent again, this one after a listing has shown it."""
    LEAVE_ALONE = "leave alone"
    """This VM or this request is wrong: it is left alone, longer each time, and a person is told."""
    HELD = "held"
    """A person has protected the VM, which is respected."""
    CALL_A_PERSON = "call a person"
    """No repetition helps, only a person: nothing is done for this fleet for a while."""
    REPORT = "report"
    """The error is a bug of ours."""


_TABLE: Final = """
    no_capacity  elsewhere      InsufficientInstanceCapacity InsufficientCapacity InsufficientFreeAddressesInSubnet
    no_capacity  own_room       InsufficientHostCapacity InsufficientCapacityOnHost ReservationCapacityExceeded
    no_capacity  own_room       InsufficientReservedInstanceCapacity
    no_capacity  elsewhere      UnfulfillableCapacity MaxFleetCountExceeded
    no_capacity  elsewhere      VolumeLimitExceeded NetworkInterfaceLimitExceeded
    no_capacity  other_family   VcpuLimitExceeded InstanceLimitExceeded
    throttled    slow_down      RequestLimitExceeded Throttling ThrottlingException ThrottledException
    throttled    slow_down      RequestThrottled RequestThrottledException TooManyRequestsException
    throttled    slow_down      EC2ThrottledException BandwidthLimitExceeded
    unknown      list_first     InternalError InternalFailure Unavailable ServiceUnavailable
    unknown      list_first     RequestTimeout RequestTimeoutException
    denied       call_a_person  UnauthorizedOperation AuthFailure OptInRequired PendingVerification Blocked
    denied       call_a_person  ExpiredToken ExpiredTokenException RequestExpired InvalidClientTokenId
    denied       call_a_person  InvalidSecurity InvalidAccessKeyId MissingAuthenticationToken
    denied       call_a_person  SignatureDoesNotMatch IncompleteSignature UnrecognizedClientException
    denied       call_a_person  AccessDenied AccessDeniedException NotAuthorized
    refused      look_again     IncorrectInstanceState IncorrectState InvalidInstanceID.NotFound
    refused      held           OperationNotPermitted
    refused      report         InvalidInstanceID InvalidInstanceID.Malformed InvalidID IdempotentParameterMismatch
    refused      report         InvalidParameterCombination InvalidParameter MissingParameter UnknownParameter
    refused      report         InvalidAction TagLimitExceeded
    refused      leave_alone    InvalidParameterValue IncorrectSpotRequestState UnsupportedOperation Unsupported
    refused      leave_alone    UnsupportedHibernationConfiguration UnsupportedInstanceAttribute
    refused      leave_alone    InvalidInstanceAttributeValue InvalidInstanceType
    refused      leave_alone    InvalidLaunchTemplateId.NotFound InvalidLaunchTemplateId.Malformed
    refused      leave_alone    InvalidLaunchTemplateId.VersionNotFound
    refused      leave_alone    InvalidLaunchTemplateName.NotFoundException InvalidSubnetID.NotFound
    refused      leave_alone    InvalidAMIID.NotFound
"""
"""Each line: the kind of outcome, what is done about it, and the codes."""

_LINES: Final = [line.split() for line in _TABLE.strip().splitlines()]

CODES: Final[dict[str, OutcomeKind]] = {
    code: OutcomeKind(kind) for kind, _, *codes in _LINES for code in codes
}
"""Kind of outcome by error code. Codes that are missing here are judged by their HTTP status."""

_THROTTLED: Final = tuple(code for code, kind in CODES.items() if kind is OutcomeKind.THROTTLED)

REACTIONS: Final[dict[str, Reaction]] = {
    code: Reaction[reaction.upper()] for _, reaction, *codes in _LINES for code in codes
}
"""What is done about each of the codes in CODES."""

_REACTION_TO: Final = {
    OutcomeKind.NO_CAPACITY: Reaction.ELSEWHERE,
    OutcomeKind.THROTTLED: Reaction.SLOW_DOWN,
    OutcomeKind.UNKNOWN: Reaction.LIST_FIRST,
    OutcomeKind.DENIED: Reaction.CALL_A_PERSON,
    OutcomeKind.REFUSED: Reaction.LEAVE_ALONE,
}

_VM_ID: Final = re.compile(r"\bi-[0-9a-f]{8,17}\b")


def kind_of(code: str, status: int | None) -> OutcomeKind:
    """Classify an error. A code that is not in CODES is judged by its status: most 4xx are refused, all else is unknown."""
    if code in CODES:
        return CODES[code]
    if status in {401, 403}:
        return OutcomeKind.DENIED
    if status == 429:
        return OutcomeKind.THROTTLED
    if code and status is not None and 400 <= status < 500 and status != 408:
        return OutcomeKind.REFUSED
    return OutcomeKind.UNKNOWN


def reaction_to(failed: Failure) -> Reaction:
    """What is done about a failure. A failure with an unknown code is judged by its kind."""
    return REACTIONS.get(failed.code, _REACTION_TO[failed.kind])


def may_be_read_again(failed: Failure) -> bool:
    """Whether a read that failed may succeed if it is repeated at once."""
    return reaction_to(failed) in (Reaction.SLOW_DOWN, Reaction.LIST_FIRST)


def failure(code: str, message: str, status: int | None) -> Failure:
    """Build a Failure from EC2's answer. An empty code means that the answer did not come from EC2."""
    return Failure(kind_of(code, status), code or f"HTTP{status}", shorten(message))


def advice(failed: Failure) -> str:
    """What a person can do about a failure, to append to its message; empty if waiting is all."""
    if failed.code == NO_CREDENTIALS:
        return "; nothing was sent. Check what supplies them: the role of this machine, or the profile"
    if failed.kind is OutcomeKind.DENIED:
        return "; check the credentials, their permissions (deploy/iam-policy.json) and this machine's clock"
    if failed.code == UNREADABLE or failed.code.startswith("HTTP"):
        return (
            "; EC2 answers otherwise: check aws_endpoint_url, and what stands between (a proxy, a login page)"
        )
    return ""


def outcomes_of(failed: Failure, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
    """One Outcome per VM, in order, for a failed call that changed nothing or whose effect is unknown.

    If a refusal or a denial names VMs, it applies to them; the others get BATCH_REFUSED.
    """
    says_no = failed.kind in (OutcomeKind.REFUSED, OutcomeKind.DENIED)
    blamed = _named(failed.message, vm_ids) if says_no else frozenset()
    if not blamed:
        return tuple(map(failed.of, vm_ids))
    because = f"not tried: the call was refused because of {', '.join(sorted(blamed))} ({failed.code})"
    return tuple(
        failed.of(vm_id) if vm_id in blamed else Outcome(vm_id, OutcomeKind.REFUSED, BATCH_REFUSED, because)
        for vm_id in vm_ids
    )


def _named(message: str, vm_ids: Iterable[str]) -> frozenset[str]:
    return frozenset(_VM_ID.findall(message)) & frozenset(vm_ids)


def says_throttled(problem: str) -> bool:
    """Whether an error text contains one of EC2's codes for throttling."""
    return bool(problem) and any(code in problem for code in _THROTTLED)
