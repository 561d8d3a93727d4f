"""The measurements by which the VMs of one fleet are judged at one moment.

Rules of this file: nothing is judged here. A VM that should have reported and did not is silent, and is listed after those
that did.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from autoscaler.core.types import Bool, Float, Int
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.weights import types_of
from autoscaler.ports import FleetReadings

IDLE_SHARE = 0.05
"""Utilisation of the median VM below which a fleet is too idle to be judged."""
_PART_VMS = 4000
_PER_ROW = 4
"""How many VMs are looked at here in the time that one row of a listing takes."""


@dataclass(frozen=True, slots=True)
class Look:
    """The measurements by which one fleet's VMs are judged.

    Attributes:
        vm_ids: The VMs.
        speed: float64 (V,), higher is better, NaN if unknown.
        silent: bool (V,), whether the VM should have reported and did not.
        comparable: Whether speeds can be compared over time.
    """

    vm_ids: tuple[str, ...]
    speed: Float
    silent: Bool
    comparable: bool


_NOBODY = Look((), np.empty(0), np.empty(0, np.bool_), comparable=False)
"""The measurements if no VM has reported recently, or readings are not per VM."""


def looking(fleet: Fleet, got: FleetReadings, now_s: float) -> Generator[int, None, Look]:
    """Take the measurements from one fleet's readings; yields how much was done, in rows of a listing.

    Args:
        fleet: The fleet.
        got: Its readings, one per VM.
        now_s: The current time.

    Returns:
        The measurements; without VMs if none has reported recently.
    """
    ids = got.vm_ids
    if not any(ids):
        return _NOBODY
    fresh = (now_s - got.observed_at_s <= fleet.policy.signal.max_age_s).tolist()
    heard: list[int] = []
    reported: set[str] = set()
    for begin in range(0, len(ids), _PART_VMS):
        end = min(begin + _PART_VMS, len(ids))
        some = ids[begin:end]
        if all(fresh[begin:end]) and all(some):
            heard += range(begin, end)
            reported.update(some)
        else:
            part = [i for i in range(begin, end) if fresh[i] and ids[i]]
            heard += part
            reported.update(ids[i] for i in part)
        yield (end - begin) // _PER_ROW
    if not heard:
        return _NOBODY
    overdue = yield from _overdue(fleet, now_s)
    missing = sorted(overdue - reported)
    at = np.array(heard, np.int64)
    told = ids if len(heard) == len(ids) else tuple(ids[i] for i in heard)
    yield len(ids) // _PER_ROW // 2
    speed, comparable = _speed(fleet, got, at)
    return Look(
        (*told, *missing) if missing else told,
        np.concatenate([speed, np.full(len(missing), np.nan)]),
        np.arange(len(told) + len(missing)) >= len(told),
        comparable,
    )


def _speed(fleet: Fleet, got: FleetReadings, at: Int) -> tuple[Float, bool]:
    """Return the speed of the VMs at these indices, and whether it can be compared over time."""
    value, capacity = got.values[at], fleet.policy.vm.capacity_per_s
    if fleet.weights and fleet.policy.signal.kind != "utilisation":
        value = value / fleet.weights.of([got.vm_ids[i] for i in at.tolist()], types_of(fleet.inventory))
    if fleet.policy.signal.kind == "utilisation":
        busy = np.where(value >= IDLE_SHARE, value, np.nan)
        return 1.0 / busy, False
    if got.utilisation is not None:
        busy = got.utilisation[at]
        return value / np.where(busy >= IDLE_SHARE, busy, np.nan), True
    known = value[np.isfinite(value)]
    if not len(known) or _median(known) < IDLE_SHARE * capacity:
        return np.full(len(value), np.nan), False
    # A VM that gets no work at all while others do counts as nearly infinitely slow.
    return np.maximum(value, 1e-6 * capacity), False


def _overdue(fleet: Fleet, now_s: float) -> Generator[int, None, set[str]]:
    """Return the VMs that have been in service long enough to have reported; yields as `looking` does."""
    found: set[str] = set()
    if fleet.real is not None:
        return found
    grace_s = 2.0 * fleet.policy.signal.max_age_s
    serving = fleet.inventory.in_phase(Phase.IN_SERVICE)
    for begin in range(0, len(serving), _PART_VMS):
        part = serving[begin : begin + _PART_VMS]
        found.update(t.vm.id for t in part if now_s - (t.in_service_from_s or now_s) > grace_s)
        yield len(part) // _PER_ROW
    return found


def _median(values: Float) -> float:
    """Return the median; for a few numbers this is ten times as fast as numpy's."""
    ordered = np.sort(values)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0)
