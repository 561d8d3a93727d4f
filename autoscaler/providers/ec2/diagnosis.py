"""Finds, in EC2's description of VMs, what will make them misbehave in a warm pool.

Rules: pure functions from described VMs to findings; no I/O, no botocore. Each rule covers one way in which a fleet that
looks healthy fails on the day it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autoscaler.ports.findings import Finding, Level
from autoscaler.words import counted, some

GROUP_TAG: Final = "aws:autoscaling:groupName"
QUOTA_SHARE: Final = 0.8
"""Share of a quota above which a finding warns."""
CLOCK_WARNING_S, CLOCK_PROBLEM_S = 2.0, 60.0
"""Clock errors in seconds that cause a warning and a problem. EC2 refuses requests that are off by some minutes."""
SLOW_ANSWER_S: Final = 2.0
SLOW_BURST_S: Final = 10.0
"""Seconds of API budget for starting the whole pool above which a finding warns: a burst should not wait for the budget."""

_FAMILIES: Final = {
    "Standard": ("L-1216C47A", frozenset("acdhimrtz")),
    "F": ("L-74FC7D96", frozenset("f")),
    "G and VT": ("L-DB2E81BA", frozenset({"g", "vt"})),
    "Inf": ("L-1945791B", frozenset({"inf"})),
    "P": ("L-417A185B", frozenset("p")),
    "Trn": ("L-2C3B7624", frozenset({"trn"})),
    "X": ("L-7295265B", frozenset("x")),
    "High Memory": ("L-43DA4232", frozenset("u")),
}
"""By name in Service Quotas: the code of a vCPU quota, and the instance series that share it."""

_STATE_REASONS: Final = {
    "Client.InternalError": (
        "its last start ended with Client.InternalError, which is usually a missing grant on the key of its volume",
        "allow kms:CreateGrant on that key to the role (with kms:GrantIsForAWSResource), then start it once by hand",
    ),
    "Client.VolumeLimitExceeded": (
        "its last start ended with Client.VolumeLimitExceeded",
        "raise the quota of EBS storage, or delete volumes that nothing uses",
    ),
    "Client.InvalidSnapshot.NotFound": (
        "its last start ended with Client.InvalidSnapshot.NotFound: the snapshot that its volume needs is gone",
        "replace the VM, and the image it comes from",
    ),
    "Server.InsufficientInstanceCapacity": (
        "its last start found no room for its type in its zone",
        "spread the fleet over more zones or types",
    ),
}


@dataclass(frozen=True, slots=True)
class Described:
    """One VM as EC2 describes it.

    Attributes:
        id, fleet, vm_type, zone, image, state, state_reason: See `ports.Vm`.
        spot: Whether it was bought on the spot market.
        root: Kind of its root device: ebs or instance-store.
        group: The Auto Scaling group that it belongs to; empty if none.
        detailed: Whether detailed monitoring (one-minute metrics) is on.
        hibernates: Whether it was launched so that it can hibernate.
        vcpus: Number of virtual CPUs; 0 if EC2 does not say.
        volumes: Ids of its volumes.
    """

    id: str
    fleet: str
    vm_type: str
    zone: str
    image: str
    state: str
    state_reason: str
    spot: bool
    root: str
    group: str
    detailed: bool
    hibernates: bool
    vcpus: int
    volumes: tuple[str, ...]

    @property
    def exists(self) -> bool:
        """Whether the VM is neither terminated nor being terminated."""
        return self.state not in {"terminated", "shutting-down"}


def described(row: Mapping[str, Any], fleet_tag: str) -> Described:
    """Build a VM from a row of DescribeInstances. Fields that EC2 leaves out get their usual values."""
    tags = {each["Key"]: each.get("Value", "") for each in row.get("Tags", ())}
    cpu = row.get("CpuOptions", {})
    return Described(
        id=row["InstanceId"],
        fleet=tags.get(fleet_tag, ""),
        vm_type=row.get("InstanceType", ""),
        zone=row.get("Placement", {}).get("AvailabilityZone", ""),
        image=row.get("ImageId", ""),
        state=row.get("State", {}).get("Name", ""),
        state_reason=row.get("StateReason", {}).get("Code", ""),
        spot=row.get("InstanceLifecycle") == "spot",
        root=row.get("RootDeviceType", "ebs"),
        group=tags.get(GROUP_TAG, ""),
        detailed=row.get("Monitoring", {}).get("State") == "enabled",
        hibernates=bool(row.get("HibernationOptions", {}).get("Configured")),
        vcpus=int(cpu.get("CoreCount", 0)) * int(cpu.get("ThreadsPerCore", 1)),
        volumes=tuple(
            each["Ebs"]["VolumeId"]
            for each in row.get("BlockDeviceMappings", ())
            if each.get("Ebs", {}).get("VolumeId")
        ),
    )


def of_fleet(fleet: str, vms: Sequence[Described]) -> list[Finding]:
    """Findings about the VMs of one fleet: how many there are in each state, and what is wrong with them."""
    alive = [vm for vm in vms if vm.exists]
    if not alive:
        return [
            Finding(
                "vms",
                Level.WARNING,
                f"no VM carries the tag autoscaler:fleet={fleet}",
                "tag the VMs that the fleet may start and stop, or give the policy a launch template",
                fleet,
            )
        ]
    states = Counter(vm.state for vm in alive)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    found = [Finding("vms", Level.OK, f"{counted(len(alive), 'VM')}: {told}", "", fleet)]
    found += _misfits(fleet, alive)
    found += _spread(fleet, alive)
    return found


def _misfits(fleet: str, vms: Sequence[Described]) -> Iterable[Finding]:
    if spot := [vm.id for vm in vms if vm.spot]:
        yield Finding(
            "purchase",
            Level.PROBLEM,
            f"{_some(spot)} bought on the spot market: after an interruption only EC2 may start such a VM",
            "replace them by on-demand VMs; spot VMs do not belong into a warm pool",
            fleet,
        )
    if rootless := [vm.id for vm in vms if vm.root != "ebs"]:
        yield Finding(
            "root_device",
            Level.PROBLEM,
            f"{_some(rootless)} without an EBS root volume: such a VM cannot be stopped",
            "use an image whose root volume is on EBS",
            fleet,
        )
    if grouped := [vm for vm in vms if vm.group]:
        groups = ", ".join(sorted({vm.group for vm in grouped}))
        yield Finding(
            "group",
            Level.PROBLEM,
            f"{_some([vm.id for vm in grouped])} in the Auto Scaling group {groups}: it replaces what is stopped",
            "detach them from the group, or remove the fleet's tag",
            fleet,
        )
    for code, (seen, fix) in _STATE_REASONS.items():
        if hit := [vm.id for vm in vms if vm.state_reason == code]:
            level = Level.WARNING if code.startswith("Server.") else Level.PROBLEM
            yield Finding("last_start", level, f"{_some(hit, verb='')}: {seen}", fix, fleet)


def _spread(fleet: str, vms: Sequence[Described]) -> Iterable[Finding]:
    zones = sorted({vm.zone for vm in vms})
    if len(zones) == 1 and len(vms) > 1:
        yield Finding(
            "zones",
            Level.WARNING,
            f"all {counted(len(vms), 'VM')} are in {zones[0]}: if that zone has no room, none of them starts",
            "place some of them in other zones",
            fleet,
        )
    images = Counter(vm.image for vm in vms)
    if len(images) > 1:
        newest = ", ".join(f"{image} ({count})" for image, count in images.most_common(4))
        yield Finding(
            "images",
            Level.WARNING,
            f"{len(images)} images are in use: {newest}",
            "replace the VMs that were made from old ones, since they miss what was patched meanwhile",
            fleet,
        )


def without_policy(vms: Iterable[Described], fleets: Iterable[str]) -> list[Finding]:
    """Find VMs that carry the ownership tag of a fleet without a policy, so that nothing manages them."""
    known = frozenset(fleets)
    strays = [vm for vm in vms if vm.exists and vm.fleet and vm.fleet not in known]
    running = Counter(vm.fleet for vm in strays if vm.state in ("pending", "running"))
    return [
        Finding(
            "strays",
            Level.WARNING,
            f"{counted(count, 'VM')} with the tag autoscaler:fleet={fleet}, for which there is no policy"
            + (f"; {running[fleet]} running, until somebody stops them" if running[fleet] else ""),
            "add a policy for the fleet, or remove the tag",
        )
        for fleet, count in sorted(Counter(vm.fleet for vm in strays).items())
    ]


def monitoring(fleet: str, vms: Sequence[Described]) -> list[Finding]:
    """Check that CloudWatch has one reading a minute, for a fleet that reads from it."""
    basic = [vm.id for vm in vms if vm.exists and not vm.detailed]
    if not basic:
        return [Finding("monitoring", Level.OK, "detailed monitoring is on", "", fleet)]
    return [
        Finding(
            "monitoring",
            Level.WARNING,
            f"{_some(basic)} without detailed monitoring: CloudWatch has one value in five minutes, late by as much",
            "switch detailed monitoring on (in the launch template too)",
            fleet,
        )
    ]


def family_of(vm_type: str) -> tuple[str, str]:
    """Name and code of the quota that a machine type counts against; both empty for an unknown series."""
    letters = vm_type.split(".", 1)[0]
    series = letters[: next((at for at, letter in enumerate(letters) if not letter.isalpha()), len(letters))]
    for name, (code, members) in _FAMILIES.items():
        if series in members or (name == "Standard" and series[:1] in members and series not in _NAMED):
            return name, code
    return "", ""


_NAMED: Final = frozenset({"inf", "trn", "dl", "hpc", "vt", "mac"})
"""Series with quotas of their own, although their first letter is that of a standard series."""


def headroom(
    family: str, vcpus_if_all_ran: int, others_running: int, quota: float | None, extra: int
) -> Finding:
    """Check that the account's quota lets all VMs run at once. Stopped VMs count against it only when they start.

    Args:
        family: Name of the quota.
        vcpus_if_all_ran: vCPUs of all VMs of all fleets.
        others_running: vCPUs of running VMs that belong to no fleet.
        quota: The account's quota in vCPUs; None if it could not be read.
        extra: vCPUs of the VMs that the policies may still provision.
    """
    check, wanted = "quota", vcpus_if_all_ran + others_running + extra
    parts = f"{vcpus_if_all_ran} of all fleets' VMs"
    parts += f" + {others_running} of others that run" if others_running else ""
    parts += f" + {extra} that may be provisioned" if extra else ""
    if quota is None:
        return Finding(
            check,
            Level.UNKNOWN,
            f"{family}: {wanted} vCPUs would run ({parts}); the quota could not be read",
            "allow servicequotas:GetServiceQuota, or compare by hand",
        )
    text = f"{family}: {wanted} vCPUs would run ({parts}), the quota is {quota:g}"
    if wanted > quota:
        fix = f"ask for at least {wanted} vCPUs, or lower the maxima: beyond the quota every start is refused"
        return Finding(check, Level.PROBLEM, text, fix)
    if wanted > QUOTA_SHARE * quota:
        return Finding(check, Level.WARNING, text, "ask for more before growth meets it")
    return Finding(check, Level.OK, text)


def clock(off_s: float) -> Finding:
    """Check that our clock agrees with EC2's.

    Args:
        off_s: Our time minus EC2's, in seconds. Accurate to about a second, because EC2 reports whole seconds.
    """
    text = f"this machine's clock is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} EC2's"
    if abs(off_s) < CLOCK_WARNING_S:
        return Finding("clock", Level.OK, "this machine's clock agrees with EC2's")
    level = Level.PROBLEM if abs(off_s) >= CLOCK_PROBLEM_S else Level.WARNING
    return Finding("clock", level, text, "set up time synchronisation (chrony, or systemd-timesyncd)")


def latency(seconds: float) -> Finding:
    """Check how long EC2 takes to answer a small request."""
    text = f"EC2 answers in {seconds * 1000:.0f} ms"
    if seconds < SLOW_ANSWER_S:
        return Finding("latency", Level.OK, text)
    return Finding("latency", Level.WARNING, text, "run the daemon in the Region of its VMs")


def burst(vms: Sequence[Described], seconds: float, calls: int) -> Finding:
    """Check how much time the account's API budget needs for a start of the whole pool.

    Args:
        vms: All VMs of all fleets.
        seconds: Time until the last start could be ordered, if the buckets are full now.
        calls: Number of calls needed.
    """
    text = f"ordering a start of all {counted(len(vms), 'VM')} at once takes {calls} calls and {seconds:.0f} s of the API budget"
    if seconds < SLOW_BURST_S:
        return Finding("api_budget", Level.OK, text)
    fix = "ask AWS for a higher refill of the bucket of StartInstances, or use few types and zones (one call for each)"
    return Finding("api_budget", Level.WARNING, text, fix)


def keys(fleet: str, states: Mapping[str, str]) -> list[Finding]:
    """Check that the customer-managed keys of the volumes can be used.

    Args:
        fleet: The fleet that the volumes belong to.
        states: State of each key by its id, or an error in words.
    """
    found = []
    for key, state in sorted(states.items()):
        if state == "Enabled":
            text = f"volumes are encrypted with {key}, which is enabled; whether the role may grant its use shows at a start"
            found.append(Finding("key", Level.OK, text, "", fleet))
        else:
            fix = "enable the key, or allow kms:DescribeKey to see its state; VMs do not start without it"
            level = Level.UNKNOWN if "denied" in state.lower() else Level.PROBLEM
            found.append(Finding("key", level, f"volumes are encrypted with {key}: {state}", fix, fleet))
    return found


def _some(ids: Sequence[str], verb: str = "are") -> str:
    """The number of VMs and the ids of the first few, with `is` or `are` after them."""
    word = {"are": " is" if len(ids) == 1 else " are"}.get(verb, "")
    return f"{counted(len(ids), 'VM')} ({some(ids)}){word}"
