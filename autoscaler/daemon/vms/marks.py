"""The tags that identify VMs of the warm pool, and what they mean.

Why tags: they are on the VM itself, so they outlive the daemon, its journal and its machine, and everybody can see them. A tag
changes only after what it says has happened.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from autoscaler.daemon.vms.tracked import MADE_BY_TAG, PROTECTED_TAG
from autoscaler.ports import Vm

POOL_TAG = "autoscaler:pool"
"""Written at creation as PREPARING, and as READY once the VM was seen ready, just before it is stopped."""
PREPARING, READY = "preparing", "ready"
PREPARED_TAG = "autoscaler:prepared"
"""The image writes it as `true` when it is done (policy refill.prepared_tag)."""
SUBNET_TAG = "autoscaler:subnet"
"""The subnet that a VM was made in, where the policy names one."""
SPEC_TAG = "autoscaler:spec"
"""Digest of what a VM was made from: the version of the launch template, and what the policy puts in its place."""
MADE_AT_TAG = "autoscaler:made-at"
"""When a VM was made, in epoch seconds: the provider tells of the last start only."""
VERSION_TAG = "autoscaler:version"
"""What is installed on a VM, in the words of whoever builds or patches it; shown, and never read for decisions."""
BAKED_AT_TAG = "autoscaler:baked-at"
"""When the image or its last patch was made: a date or time (2026-11-25), or epoch seconds."""
EXERCISED_AT_TAG = "autoscaler:exercised-at"
"""When a stopped VM was last tried and found well, in epoch seconds."""
QUARANTINED_TAG = "autoscaler:quarantined"
"""An operator keeps this VM from being started; the value says who and why. Empty where that has ended."""
TERMINABLE_TAG = "autoscaler:terminable"
"""`true` on VMs that the daemon may delete though it did not make them."""
GROUP_TAG = "aws:autoscaling:groupName"
"""AWS's own: the VM belongs to an Auto Scaling group, which replaces VMs that are stopped."""


def is_preparing(vm: Vm) -> bool:
    """Whether it was made for the pool and has not been seen ready."""
    return vm.tags.get(POOL_TAG) == PREPARING


def may_be_deleted(vm: Vm) -> bool:
    """Whether the daemon made it, or somebody has said that it may delete it; never a protected one."""
    ours = MADE_BY_TAG in vm.tags or vm.tags.get(TERMINABLE_TAG) == "true"
    return ours and not is_kept(vm)


def is_kept(vm: Vm) -> bool:
    """Whether nobody here deletes it, whoever asks: it is protected, or an Auto Scaling group owns it too."""
    return PROTECTED_TAG in vm.tags or GROUP_TAG in vm.tags


def moment_of(vm: Vm, tag: str) -> float | None:
    """The epoch seconds that a tag tells; None where it is missing or no number."""
    try:
        return float(vm.tags[tag])
    except (KeyError, ValueError):
        return None


def baked_at_s(vm: Vm) -> float | None:
    """When its image or last patch was made; None where no tag tells, or not in a way that is understood."""
    written = vm.tags.get(BAKED_AT_TAG, "")
    found = moment_of(vm, BAKED_AT_TAG)
    if found is not None:
        return found if math.isfinite(found) else None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
