"""Why a start failed (the VM, its place, the account, or none of them), and how long the culprit is left alone.

Rules of this file: values and pure functions; time is an argument. The provider's own codes come in as text, in
`ports.Vm.state_reason` and `ports.Outcome.code`. A VM is blamed only for its own faults: a lack of room concerns its place,
and nothing is blamed for what a person did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.ports import BATCH_REFUSED, RESERVED_ROOM, Outcome, OutcomeKind

LONGEST_S = 24 * 3600.0
"""Longest quarantine, in seconds: however often a VM has failed, it is tried again once a day."""


_FIRST_ON_S, _LONGEST_ON_S = 120.0, 3600.0
_NOT_AS_BELIEVED = frozenset(
    {BATCH_REFUSED, "IncorrectInstanceState", "IncorrectState", "InvalidInstanceID.NotFound"}
)


class FailureCause(StrEnum):
    """What a failed start is blamed on."""

    PLACE = "place"
    """There is no room for its type in its zone."""
    RESERVED = "reserved"
    """There is no room in the capacity reservation, or on the dedicated hosts, that it is bound to."""
    QUOTA = "quota"
    """The account may not run more VMs of this family of types, in any zone."""
    PERMISSION = "permission"
    """A permission is missing, most often for the key of an encrypted volume."""
    STORAGE = "storage"
    """Its volume or snapshot is gone, or storage is at its limit."""
    VM = "vm"
    """The VM does not start, for a reason of its own or for an unknown one."""
    PERSON = "person"
    """Someone stopped it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a failure.

    Attributes:
        blame: What the failure is blamed on.
        advice: For people, what they can do, to append to the provider's words; empty if they can only wait.
        weight: Length of the VM's quarantine relative to that after a plain failure.
    """

    blame: FailureCause
    advice: str = ""
    weight: float = 1.0

    @property
    def quarantines(self) -> bool:
        """Whether the VM itself is quarantined."""
        return self.blame in (FailureCause.PERMISSION, FailureCause.STORAGE, FailureCause.VM)


_PLACE = Verdict(FailureCause.PLACE)
_RESERVED = Verdict(FailureCause.RESERVED)
_QUOTA = Verdict(FailureCause.QUOTA, "ask for a higher quota of running VMs of this family")
_VM = Verdict(FailureCause.VM)
_PERSON = Verdict(FailureCause.PERSON)
_KEY = Verdict(
    FailureCause.PERMISSION,
    "most often the key of an encrypted volume: grant kms:CreateGrant on it to the role that starts the VM",
)
_DISABLED_KEY = Verdict(
    FailureCause.PERMISSION,
    "the key of an encrypted volume is disabled, pending deletion or gone: enable it in KMS, or replace the VM; then "
    "`autoscaler pool release`",
)
_VOLUMES = Verdict(FailureCause.STORAGE, "request a higher storage quota, or delete unused volumes", 2.0)
_LOST_VOLUME = Verdict(FailureCause.STORAGE, "its volume or snapshot is gone: replace the VM", 6.0)
_BROKEN = Verdict(FailureCause.VM, "replace the VM if this is seen again")
_NOT_HERE = Verdict(FailureCause.VM, "its type cannot run there: change its type, or replace it", 6.0)

OWN_SHUTDOWN = "Client.InstanceInitiatedShutdown"
"""State reason of a VM that was shut down from within."""

STATE_REASONS = {
    "Server.InsufficientInstanceCapacity": _PLACE,
    "Server.InternalError": _VM,
    "Server.ScheduledStop": _PERSON,
    "Server.SpotInstanceShutdown": _PERSON,
    "Server.SpotInstanceTermination": _PERSON,
    "Client.InternalError": _KEY,
    "Client.InvalidSnapshot.NotFound": _LOST_VOLUME,
    "Client.VolumeLimitExceeded": _VOLUMES,
    OWN_SHUTDOWN: _VM,
    "Client.UserInitiatedShutdown": _PERSON,
    "Client.UserInitiatedHibernate": _PERSON,
    "Client.InvalidSnapshot": _LOST_VOLUME,
    "Client.InstanceTerminated": _PERSON,
}
"""Verdict by state reason, for VMs that fell back to stopped; other reasons are blamed on the VM."""

REFUSALS = {
    # The VM was not in the state that we assumed; the next listings show its state.
    "IncorrectInstanceState": Verdict(FailureCause.VM, weight=0.05),
    "IncorrectState": Verdict(FailureCause.VM, weight=0.05),
    "InvalidInstanceID.NotFound": Verdict(FailureCause.VM, weight=0.1),
    "InvalidParameterValue": _BROKEN,
    "IncorrectSpotRequestState": Verdict(
        FailureCause.VM, "only EC2 restarts it: keep Spot VMs out of the fleet", 12.0
    ),
    "UnsupportedOperation": _NOT_HERE,
    "Unsupported": _NOT_HERE,
    "OperationNotPermitted": Verdict(FailureCause.VM, "somebody has protected it"),
}
"""Verdict by code, for a call that was refused for this VM; other codes are plain failures."""

QUOTAS = frozenset({"VcpuLimitExceeded", "InstanceLimitExceeded"})
"""Codes of a lack of capacity that no other zone remedies."""


def verdict_of_state(reason: str) -> Verdict:
    """Return the verdict on a start that fell back to stopped with this state reason."""
    found = STATE_REASONS.get(reason)
    if found is not None:
        return found
    if "InvalidKMSKey" in reason or "KMSKeyNotAccessible" in reason:
        return _DISABLED_KEY
    if reason.rpartition(".")[2] in RESERVED_ROOM:
        return _RESERVED
    return _PLACE if "Capacity" in reason else _VM


def verdict_of(outcome: Outcome) -> Verdict | None:
    """Return the verdict on a call that did not start a VM; None if it may be tried again at once."""
    if outcome.kind is OutcomeKind.NO_CAPACITY:
        if outcome.code in RESERVED_ROOM:
            return _RESERVED
        return _QUOTA if outcome.code in QUOTAS else _PLACE
    if outcome.kind is OutcomeKind.REFUSED and outcome.code != BATCH_REFUSED:
        return REFUSALS.get(outcome.code, _VM)
    return None


def blame_for_no_room(outcomes: Iterable[Outcome]) -> FailureCause:
    """Return what the first lack of room among these outcomes is blamed on; the place if there is none."""
    lacking = (verdict_of(o) for o in outcomes if o.kind is OutcomeKind.NO_CAPACITY)
    return next((verdict.blame for verdict in lacking if verdict is not None), FailureCause.PLACE)


def stop_retry_wait_s(outcome: Outcome, times: int) -> float:
    """Return how long a VM is not asked to stop again after so many refused stops in a row, in seconds; 0 for no wait.

    A stop is most often refused because a person protected the VM against stops, because it cannot be stopped at all,
    or because a permission is missing. Asking again and again would keep others from being stopped in its place. If the
    VM was only in another state than assumed, a listing soon shows that.
    """
    said_no = outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.DENIED)
    if not said_no or outcome.code in _NOT_AS_BELIEVED or times < 1:
        return 0.0
    return float(min(_FIRST_ON_S * 2.0 ** min(times - 1, 10), _LONGEST_ON_S))


def quarantine_s(base_s: float, failures: int, weight: float = 1.0) -> float:
    """Return how long a VM is quarantined after so many failures in a row: doubled each time, up to `LONGEST_S`.

    Args:
        base_s: Length after the first plain failure, in seconds.
        failures: Failed starts since the last that reached service, including this one.
        weight: Weight of the verdict.
    """
    doublings = min(max(failures - 1, 0), 30)
    return float(min(base_s * weight * 2.0**doublings, LONGEST_S))
