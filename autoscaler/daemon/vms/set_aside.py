"""VMs that are left alone, kept across restarts: until when, why, and how often they have failed.

Rules of this file: only what belongs to a listed VM is restored; the rest is forgotten. Information in tags (`pool_tags`) is read
from the tags again and not kept here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.daemon.vms.tracked import TrackedVm

MOST_KEPT = 2000
"""Most VMs of one fleet that are remembered; those with the longest quarantine come first."""
MOST_WORDS = 300
"""Most characters of a reason that are remembered."""


@dataclass(frozen=True, slots=True)
class SetAsideVm:
    """What is remembered of one VM.

    Attributes:
        quarantined_until_s: The VM is not started before this time.
        reason: Why it is quarantined.
        failures: Failed starts since the last that reached service.
        hands_off_until_s: The VM is not stopped before this time.
    """

    quarantined_until_s: float
    reason: str
    failures: int
    hands_off_until_s: float

    def onto(self, t: TrackedVm) -> None:
        """Apply this to a VM that has just become known."""
        t.quarantined_until_s, t.quarantine_reason = self.quarantined_until_s, self.reason
        t.failures, t.hands_off_until_s = self.failures, self.hands_off_until_s


def set_aside_rows(vms: Iterable[TrackedVm], now_s: float) -> list[list[object]]:
    """Return what is to be remembered of these VMs, as rows for `set_aside_vms_of`."""
    kept = [
        t
        for t in vms
        if t.failures or now_s < t.quarantined_until_s < math.inf or now_s < t.hands_off_until_s < math.inf
    ]
    kept.sort(key=lambda t: (-_finite(t.quarantined_until_s), t.vm.id))
    return [
        [
            t.vm.id,
            _finite(t.quarantined_until_s),
            t.quarantine_reason[:MOST_WORDS] if t.quarantined_until_s < math.inf else "",
            t.failures,
            _finite(t.hands_off_until_s),
        ]
        for t in kept[:MOST_KEPT]
    ]


def set_aside_vms_of(rows: Sequence[Sequence[Any]], earlier_s: float = 0.0) -> dict[str, SetAsideVm]:
    """Return what an earlier run remembered, by VM; arguments as in `FleetInventory.recall_set_aside`.

    Raises:
        ValueError: The rows are not from `set_aside_rows`.
        TypeError: The rows are not from `set_aside_rows`.
    """
    found = {}
    for vm_id, until_s, reason, failures, hands_off_s in rows[:MOST_KEPT]:
        numbers = (until_s, failures, hands_off_s)
        if not isinstance(vm_id, str) or not isinstance(reason, str):
            raise TypeError("this is no VM that is left alone")
        if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers) or failures < 0:
            raise ValueError("this is no VM that is left alone")
        found[vm_id] = SetAsideVm(
            float(until_s) - earlier_s, reason[:MOST_WORDS], int(failures), float(hands_off_s) - earlier_s
        )
    return found


def _finite(at_s: float) -> float:
    """Return the time if it is finite, else 0, which is always over."""
    return at_s if math.isfinite(at_s) else 0.0
