"""The tags that identify VMs of the warm pool, and what they mean.

Why tags: they are on the VM itself, so they outlive the daemon, its journal and its machine, and everyone can see them.
A tag changes only after what it says has happened.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from autoscaler.daemon.vms.tracked import MADE_BY_TAG, PROTECTED_TAG
from autoscaler.ports import Vm

POOL_TAG = "autoscaler:pool"
"""Tag with the value PREPARING from creation, and READY once the VM was seen ready, just before it is stopped."""
PREPARING, READY = "preparing", "ready"
PREPARED_TAG = "autoscaler:prepared"
"""Tag that the image sets to `true` when the VM is prepared (policy refill.prepared_tag)."""
SUBNET_TAG = "autoscaler:subnet"
"""Tag with the subnet in which a VM was made, if the policy names one."""
SPEC_TAG = "autoscaler:spec"
"""Tag with a digest of what a VM was made from: the version of the launch template, and what the policy overrides."""
MADE_AT_TAG = "autoscaler:made-at"
"""Tag with the time when a VM was made, epoch seconds: the provider reports only the last start."""
VERSION_TAG = "autoscaler:version"
"""Tag with the version of what is installed on a VM, as the builder names it; shown, and never used in decisions."""
BAKED_AT_TAG = "autoscaler:baked-at"
"""Tag with the time of the image or its last patch: a date or time (2026-11-25), or epoch seconds."""
EXERCISED_AT_TAG = "autoscaler:exercised-at"
"""Tag with the time when a stopped VM was last tried and found well, epoch seconds."""
QUARANTINED_TAG = "autoscaler:quarantined"
"""Tag with which an operator keeps this VM from being started; the value says who and why, and is empty once that has
ended.
"""
TERMINABLE_TAG = "autoscaler:terminable"
"""Tag with the value `true` on VMs that the daemon may delete although it did not make them."""
GROUP_TAG = "aws:autoscaling:groupName"
"""AWS's own tag: the VM belongs to an Auto Scaling group, which replaces VMs that are stopped."""


def is_preparing(vm: Vm) -> bool:
    """Return whether the VM was made for the warm pool and has not been seen ready."""
    return vm.tags.get(POOL_TAG) == PREPARING


def may_be_deleted(vm: Vm) -> bool:
    """Return whether the daemon may delete the VM: it made it, or a tag allows it, and the VM is not protected."""
    ours = MADE_BY_TAG in vm.tags or vm.tags.get(TERMINABLE_TAG) == "true"
    return ours and not is_kept(vm)


def is_kept(vm: Vm) -> bool:
    """Return whether the VM is never deleted here: it is protected, or an Auto Scaling group owns it too."""
    return PROTECTED_TAG in vm.tags or GROUP_TAG in vm.tags


def moment_of(vm: Vm, tag: str) -> float | None:
    """Return the epoch seconds that a tag holds; None if it is missing or not a number."""
    try:
        return float(vm.tags[tag])
    except (KeyError, ValueError):
        return None


def baked_at_s(vm: Vm) -> float | None:
    """Return when the VM's image or last patch was made; None if no tag says so in a format that is understood."""
    written = vm.tags.get(BAKED_AT_TAG, "")
    found = moment_of(vm, BAKED_AT_TAG)
    if found is not None:
        return found if math.isfinite(found) else None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
