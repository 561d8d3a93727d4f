"""Refilling: how many VMs to make for the warm pool, and where.

VMs that the warm target lacks are made in quiet times: not while VMs are on their way for demand, and not until it has been
calm for a while, so that no refill takes room or API budget from a burst. Places are chosen so that the pool is spread evenly
over subnets, and over machine types by weight.

Rules of this file: choice only; nothing here makes a call. Times come in as arguments.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaler.daemon.acts.fallbacks import provision_options
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.pool_tags import SUBNET_TAG
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import ActionIntent, FleetTick, ProvisionSpec, Verb

_FIRST_HOLD_S, _LONGEST_HOLD_S = 60.0, 3600.0
_UNTIMED_S = 1800.0
"""Longest time for preparing or trying a VM if the policy sets none, in seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """VMs to make in one call, and what they are made from."""

    intent: ActionIntent
    spec: ProvisionSpec


def preparing_timeout_s(fleet: Fleet) -> float:
    """Return how long preparing and trying a VM of a fleet may take, in seconds."""
    return _UNTIMED_S if fleet.policy.refill is None else fleet.policy.refill.timeout_s


def is_busy(row: FleetTick) -> bool:
    """Return whether VMs are, or should be, on their way for demand."""
    return bool(row.start or row.provision or row.starting or row.desired > row.in_service)


def hold_s(failures: int) -> float:
    """Return how long nothing is made after so many failures in a row, in seconds."""
    return min(_FIRST_HOLD_S * 2.0 ** max(failures - 1, 0), _LONGEST_HOLD_S)


def vms_to_make(fleet: Fleet, wanted: int, expected: int, staying: int = 0) -> int:
    """Return the most VMs to make now so that `wanted` VMs wait.

    Args:
        fleet: The fleet of the pool.
        wanted: How many VMs should wait.
        expected: How many VMs were requested and are not known yet.
        staying: How many VMs are being made or tried that people keep from being stopped, so that they do not enter the
            pool.
    """
    section = fleet.policy.refill
    if section is None:
        return 0
    vms = fleet.inventory.vms.values()
    held = sum(t.phase is Phase.STOPPED and t.quarantined_until_s != float("inf") for t in vms)
    preparing = sum(t.phase is Phase.PREPARING for t in vms) - staying
    coming = sum(t.phase in (Phase.STOPPING, Phase.DRAINING) for t in vms) + preparing
    exist = sum(t.phase is not Phase.LOST for t in vms)
    return max(
        min(
            wanted - held - coming - expected,
            section.at_once - preparing - expected,
            fleet.policy.max_provisioned - exist - expected,
        ),
        0,
    )


def batches(fleet: Fleet, count: int, why: str, tick: int, now_s: float) -> list[Batch]:
    """Choose where to make `count` VMs: one batch per machine type and subnet; fewer VMs if places have no room."""
    base = list(provision_options(fleet))
    section = fleet.policy.refill
    if not base or section is None or count < 1:
        return []
    types = list(dict.fromkeys(spec.vm_type for spec in base))
    weights = section.weights or (1,)
    weight_of = {vm_type: weights[at] if at < len(weights) else 0 for at, vm_type in enumerate(types)}
    found: Counter[int] = Counter()
    vms = [t for t in fleet.inventory.vms.values() if t.phase is not Phase.LOST]
    of_type = _counted(vms, types)
    in_subnet = Counter(t.vm.tags.get(SUBNET_TAG, "") for t in vms)
    for _ in range(count):
        open_specs = [
            at
            for at, spec in enumerate(base)
            if weight_of[spec.vm_type] and fleet.inventory.places.at_most(*spec.place, now_s) >= 1.0
        ]
        if not open_specs:
            break
        best = min(
            open_specs,
            key=lambda at: (
                of_type[base[at].vm_type] / weight_of[base[at].vm_type],
                in_subnet[base[at].subnet or ""],
                at,
            ),
        )
        found[best] += 1
        # The trial of a place whose time is over is for all fleets, with one VM.
        fleet.inventory.places.claim(*base[best].place, now_s)
        of_type[base[best].vm_type] += 1
        in_subnet[base[best].subnet or ""] += 1
    return [_batch(fleet.name, base[at], made, why, tick, now_s) for at, made in found.items()]


def _counted(vms: Iterable[TrackedVm], types: Sequence[str | None]) -> Counter[str | None]:
    if len(types) == 1:
        return Counter()
    return Counter(t.vm.vm_type for t in vms)


def _batch(fleet: str, spec: ProvisionSpec, count: int, why: str, tick: int, now_s: float) -> Batch:
    place = " ".join(filter(None, (spec.vm_type, spec.subnet))) or "as the template says"
    digest = hashlib.blake2b(f"refill {fleet} {place} {now_s!r}".encode(), digest_size=8).hexdigest()
    token = f"{fleet[:24]}-r{digest}-{tick}-{count}"
    return Batch(ActionIntent(fleet, Verb.REFILL, (), count, token, f"{why}; {place}"), spec)
