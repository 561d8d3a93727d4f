"""Checks whether the VMs of a fleet can hibernate as its policy wants, and if not, why.

Whether a VM can hibernate is decided once, when it is launched: the launch must request it, the machine type must support
it, and the root volume must be encrypted and have room for the memory.

Rules of this file: pure functions from what EC2 describes to findings; no I/O, no botocore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autoscaler.ports.findings import Finding, Level
from autoscaler.providers.ec2.diagnosis import Described
from autoscaler.words import counted

_CHECK: Final = "hibernation"
MOST_MEMORY_GIB: Final = 150.0
"""Linux VMs with at least this much memory cannot hibernate."""


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """Facts about a machine type that decide whether its VMs can hibernate."""

    supported: bool
    memory_gib: float


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """Facts about a root volume that decide whether its VM can hibernate."""

    encrypted: bool
    size_gib: float


def type_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, TypeFacts]:
    """Convert rows of DescribeInstanceTypes to facts by machine type."""
    return {
        row["InstanceType"]: TypeFacts(
            bool(row.get("HibernationSupported")),
            float(row.get("MemoryInfo", {}).get("SizeInMiB", 0)) / 1024.0,
        )
        for row in rows
    }


def volume_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, VolumeFacts]:
    """Convert rows of DescribeVolumes to facts by volume id."""
    return {
        row["VolumeId"]: VolumeFacts(bool(row.get("Encrypted")), float(row.get("Size", 0))) for row in rows
    }


def of_fleet(
    fleet: str,
    vms: Sequence[Described],
    types: Mapping[str, TypeFacts],
    volumes: Mapping[str, VolumeFacts],
    *,
    template: bool | None,
) -> list[Finding]:
    """Find what keeps a fleet's VMs from hibernating. If nothing does and there are VMs, one finding says so.

    Args:
        fleet: Name of the fleet.
        vms: Its VMs that exist.
        types: Facts about machine types; unknown ones may be missing.
        volumes: Facts about volumes by id; unknown ones may be missing. A VM's first volume is taken as its root.
        template: Whether the launch template requests hibernation; None if there is none or it cannot be read.
    """
    found = []
    unable = [vm for vm in vms if not vm.hibernates]
    for vm_type in sorted({vm.vm_type for vm in vms}):
        facts = types.get(vm_type)
        if facts is not None and not (facts.supported and facts.memory_gib < MOST_MEMORY_GIB):
            why = "cannot hibernate" if not facts.supported else f"has {facts.memory_gib:g} GiB of memory"
            text = f"{vm_type} {why}, so its VMs are stopped plainly"
            fix = (
                "use a type that can (HibernationSupported, less than 150 GiB), or remove warm_pool.hibernate"
            )
            found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if bad := [(vm, why) for vm in unable if (why := _volume_misfit(vm, types, volumes))]:
        text = f"{counted(len(bad), 'VM')} with root volumes that cannot take the memory: {bad[0][0].id} {bad[0][1]}"
        fix = "make images or templates with an encrypted root volume that has room for the memory, and replace the VMs"
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if unable:
        text = (
            f"{counted(len(unable), 'VM')} ({', '.join(vm.id for vm in unable[:3])}{' ...' if len(unable) > 3 else ''}) of "
            f"{len(vms)} not launched for hibernation (HibernationOptions): stopped plainly"
        )
        fix = "set HibernationOptions.Configured in the launch template and replace them; it cannot be switched on later"
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if template is False:
        text = "the launch template does not ask for hibernation, so no new VM can"
        fix = "add HibernationOptions.Configured=true and an encrypted root volume to a new version of the template"
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if found:
        return found
    return [Finding(_CHECK, Level.OK, f"all {len(vms)} VMs can hibernate", "", fleet)] if vms else []


def _volume_misfit(vm: Described, types: Mapping[str, TypeFacts], volumes: Mapping[str, VolumeFacts]) -> str:
    root = volumes.get(vm.volumes[0]) if vm.volumes else None
    if root is None:
        return ""
    if not root.encrypted:
        return "is not encrypted"
    facts = types.get(vm.vm_type)
    if facts is not None and root.size_gib <= facts.memory_gib:
        return f"has {root.size_gib:g} GiB for {facts.memory_gib:g} GiB of memory"
    return ""
