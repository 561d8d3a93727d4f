"""EC2's rules for calls, with EC2's error codes.

Rules: pure checks that raise ProviderError or return. They change nothing and do not depend on the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from autoscaler.cloud.vms import LaunchData, State, VmView
from autoscaler.errors import ProviderError

_VM_ID = re.compile(r"i-[0-9a-f]{8}(?:[0-9a-f]{9})?")
_VM_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_IMAGE = re.compile(r"ami-[0-9a-f]{8,17}")

TAGS_PER_VM = 50
TOKEN_LENGTH = 64

_STATUSES = {
    "AuthFailure": 401,
    "Blocked": 403,
    "DryRunOperation": 412,
    "InsufficientHostCapacity": 500,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "MissingAuthenticationToken": 403,
    "OptInRequired": 401,
    "PendingVerification": 403,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}


def status_of(code: str) -> int:
    """HTTP status for an error code: 400 unless listed."""
    return _STATUSES.get(code, 400)


def check_ids(vm_ids: Sequence[str]) -> None:
    """Require at least one id, and that all ids have EC2's form."""
    if not vm_ids:
        raise ProviderError("The request must name an InstanceId", code="MissingParameter")
    for vm_id in vm_ids:
        if not _VM_ID.fullmatch(vm_id):
            raise ProviderError(f'Invalid id: "{vm_id}"', code="InvalidInstanceID.Malformed")


def absent(vm_ids: Sequence[str]) -> ProviderError:
    """Build the error for ids that do not exist."""
    names = ", ".join(vm_ids)
    text = f"The instance ID '{names}' does not exist"
    if len(vm_ids) > 1:
        text = f"The instance IDs '{names}' do not exist"
    return ProviderError(text, code="InvalidInstanceID.NotFound")


def check_startable(views: Iterable[VmView]) -> None:
    """Require that all VMs are stopped, pending or running."""
    for view in views:
        if view.state not in {State.STOPPED, State.PENDING, State.RUNNING}:
            raise ProviderError(
                f"The instance '{view.id}' is {view.state} and cannot be started from there",
                code="IncorrectInstanceState",
            )


def check_stoppable(views: Iterable[VmView], *, hibernate: bool) -> None:
    """Require that all VMs can be stopped. A pending VM cannot, because it has never reached running."""
    for view in views:
        if view.state in {State.PENDING, State.SHUTTING_DOWN, State.TERMINATED}:
            raise ProviderError(
                f"The instance '{view.id}' is {view.state} and cannot be stopped from there",
                code="IncorrectInstanceState",
            )
        if view.stop_protection:
            raise ProviderError(
                f"The instance '{view.id}' is protected from being stopped", code="OperationNotPermitted"
            )
        if hibernate and not view.hibernation:
            raise ProviderError(
                f"The instance '{view.id}' was not launched with hibernation",
                code="UnsupportedHibernationConfiguration",
            )


def check_changeable(views: Iterable[VmView], vm_type: str) -> None:
    """Require a valid machine type, and that all VMs are stopped."""
    if not _VM_TYPE.fullmatch(vm_type):
        raise ProviderError(f"{vm_type!r} is not an instance type", code="InvalidInstanceAttributeValue")
    for view in views:
        if view.state is not State.STOPPED:
            raise ProviderError(
                f"The instance '{view.id}' is {view.state}; its type can be changed while it is stopped",
                code="IncorrectInstanceState",
            )


def check_terminable(views: Iterable[VmView]) -> None:
    """Require that no VM is protected from termination."""
    for view in views:
        if view.termination_protection:
            raise ProviderError(
                f"The instance '{view.id}' is protected from being terminated", code="OperationNotPermitted"
            )


def check_tags(views: Iterable[VmView], tags: Mapping[str, str]) -> None:
    """Require tags within EC2's limits: fifty per VM, of limited length, and without AWS's own prefix."""
    new = set(tags)
    for key, value in tags.items():
        if len(value) > 256:
            raise ProviderError(
                f"The value of tag {key!r} is longer than 256 characters", code="InvalidParameterValue"
            )
    for key in sorted(new):
        if key.startswith("aws:") or not 1 <= len(key) <= 128:
            raise ProviderError(
                f"{key!r} cannot be a tag key: 1 to 128 characters, not beginning with aws:",
                code="InvalidParameterValue",
            )
    for view in views:
        if len(new | set(view.tags)) > TAGS_PER_VM:
            raise ProviderError(f"{view.id} would have more than {TAGS_PER_VM} tags", code="TagLimitExceeded")


def check_launch(data: LaunchData, minimum: int, maximum: int, token: str) -> None:
    """Require valid counts, an image, a machine type, valid tags and, if given, a valid client token."""
    if not 1 <= minimum <= maximum:
        raise ProviderError(
            f"MinCount ({minimum}) must be 1 or more, and MaxCount ({maximum}) not below it",
            code="InvalidParameterValue",
        )
    if not data.image:
        raise ProviderError("The request must name an ImageId", code="MissingParameter")
    if not _IMAGE.fullmatch(data.image):
        raise ProviderError(f"{data.image!r} is not an image id", code="InvalidAMIID.Malformed")
    if not _VM_TYPE.fullmatch(data.vm_type):
        raise ProviderError(f"{data.vm_type!r} is not an instance type", code="InvalidParameterValue")
    if len(token) > TOKEN_LENGTH or not token.isascii():
        raise ProviderError(
            f"ClientToken must be at most {TOKEN_LENGTH} ASCII characters", code="InvalidParameterValue"
        )
    check_tags((), data.tags)
