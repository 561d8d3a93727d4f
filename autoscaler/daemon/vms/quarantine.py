"""Why a start failed (the VM, its place, the account, or none of them), and how long the culprit is left alone.

Rules of this file: values and pure functions; time is an argument. The provider's own codes come in as text, in
`ports.Vm.state_reason` and `ports.Outcome.code`. A VM is blamed only for its own faults: a lack of room concerns its place,
and nothing is blamed for what a person did.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind

LONGEST_S = 24 * 3600.0
"""However often a VM has failed, it is tried again once a day."""


_FIRST_ON_S, _LONGEST_ON_S = 120.0, 3600.0
_NOT_AS_BELIEVED = frozenset(
    {BATCH_REFUSED, "IncorrectInstanceState", "IncorrectState", "InvalidInstanceID.NotFound"}
)


class Blame(StrEnum):
    """Whose fault a failed start is."""

    PLACE = "place"
    """No room for its type in its zone."""
    QUOTA = "quota"
    """The account may not have more of this family of types, in any zone."""
    PERMISSION = "permission"
    """Something that a person must allow, most often the key of an encrypted volume."""
    STORAGE = "storage"
    """Its volume or snapshot is gone, or storage is at its limit."""
    VM = "vm"
    """It does not start, for a reason of its own or for none that is told."""
    PERSON = "person"
    """Somebody stopped it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to make of a failure.

    Attributes:
        blame: Whose fault it is.
        advice: What a person can do, to follow the provider's own words; empty where waiting is all.
        weight: How much longer than a plain failure the VM is left alone.
    """

    blame: Blame
    advice: str = ""
    weight: float = 1.0

    @property
    def quarantines(self) -> bool:
        """Whether the VM itself is left alone for a while."""
        return self.blame in (Blame.PERMISSION, Blame.STORAGE, Blame.VM)


_PLACE = Verdict(Blame.PLACE)
_QUOTA = Verdict(Blame.QUOTA, "ask for a higher quota of running VMs of this family")
_VM = Verdict(Blame.VM)
_PERSON = Verdict(Blame.PERSON)
_KEY = Verdict(
    Blame.PERMISSION,
    "most often the key of an encrypted volume: grant kms:CreateGrant on it to the role that starts the VM",
)
_VOLUMES = Verdict(Blame.STORAGE, "request a higher storage quota, or delete unused volumes", 2.0)
_LOST_VOLUME = Verdict(Blame.STORAGE, "its volume or snapshot is gone: replace the VM", 6.0)
_BROKEN = Verdict(Blame.VM, "replace the VM if this is seen again")
_NOT_HERE = Verdict(Blame.VM, "its type cannot run there: change its type, or replace it", 6.0)

OWN_SHUTDOWN = "Client.InstanceInitiatedShutdown"
"""Whatever runs on the VM has shut it down."""

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
"""What a VM that fell back to stopped says of why; what is not here is the VM's own fault."""

REFUSALS = {
    # Not in the state that we believed: the next listings tell.
    "IncorrectInstanceState": Verdict(Blame.VM, weight=0.05),
    "IncorrectState": Verdict(Blame.VM, weight=0.05),
    "InvalidInstanceID.NotFound": Verdict(Blame.VM, weight=0.1),
    "InvalidParameterValue": _BROKEN,
    "IncorrectSpotRequestState": Verdict(
        Blame.VM, "only EC2 restarts it: keep Spot VMs out of the fleet", 12.0
    ),
    "UnsupportedOperation": _NOT_HERE,
    "Unsupported": _NOT_HERE,
    "OperationNotPermitted": Verdict(Blame.VM, "somebody has protected it"),
}
"""What a refused call says of the VM that was refused; what is not here is a plain failure."""

QUOTAS = frozenset({"VcpuLimitExceeded", "InstanceLimitExceeded"})
"""Codes of a lack that no other zone helps against."""


def verdict_of_state(reason: str) -> Verdict:
    """What to make of a start that fell back to stopped with this state reason."""
    found = STATE_REASONS.get(reason)
    if found is not None:
        return found
    return _PLACE if "Capacity" in reason else _VM


def verdict_of(outcome: Outcome) -> Verdict | None:
    """What to make of a call that did not start a VM; None where nothing speaks against trying again."""
    if outcome.kind is OutcomeKind.NO_CAPACITY:
        return _QUOTA if outcome.code in QUOTAS else _PLACE
    if outcome.kind is OutcomeKind.REFUSED and outcome.code != BATCH_REFUSED:
        return REFUSALS.get(outcome.code, _VM)
    return None


def serves_on_s(outcome: Outcome, times: int) -> float:
    """How long a VM whose stop was refused so many times in a row is not asked to stop, in seconds; 0 where it may be at once.

    What refuses is most often a person's protection against stops, a VM that cannot be stopped at all, or a permission that is
    missing, and asking for it again and again would keep others from being stopped in its place. One that was only in another
    state than believed is listed soon.
    """
    said_no = outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.DENIED)
    if not said_no or outcome.code in _NOT_AS_BELIEVED or times < 1:
        return 0.0
    return float(min(_FIRST_ON_S * 2.0 ** min(times - 1, 10), _LONGEST_ON_S))


def quarantine_s(base_s: float, failures: int, weight: float = 1.0) -> float:
    """How long a VM is left alone after so many failures in a row: doubled each time, up to `LONGEST_S`.

    Args:
        base_s: After the first plain failure, in seconds.
        failures: Failed starts since the last that reached service, this one included.
        weight: Of the verdict.
    """
    doublings = min(max(failures - 1, 0), 30)
    return float(min(base_s * weight * 2.0**doublings, LONGEST_S))
