"""Implausible readings of single VMs: reported when they begin and when they end.

Rules of this file: nothing is decided here; a tick's samples show which readings are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoscaler.core.types import Int, Samples
from autoscaler.ports import FleetReadings, Note

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

_WELL_FOR_S = 60.0
"""Time without an implausible reading after which a VM is believed again, in seconds. Without it, a VM that reports
nonsense now and then would be reported each time.
"""


class ImpossibleReadings:
    """Reports VMs whose readings are left out as implausible. The VMs themselves are noted on the fleets.

    Args:
        fleets: The fleets in lane order.
    """

    def __init__(self, fleets: Sequence[Fleet]) -> None:
        self._fleets = fleets
        self._some = True
        """Whether any reading was left out recently; True at first, because fleets may be carried over from a reload."""

    def follow(self, samples: Samples, lane: Int, readings: Mapping[str, FleetReadings]) -> Sequence[Note]:
        """Return what to report after a fold.

        Args:
            samples: What the fold made of the readings.
            lane: int64 (N,), the lane of each reading, ascending.
            readings: The readings of each fleet.
        """
        if samples.beyond is None and not self._some:
            return ()
        notes = []
        for at in () if samples.beyond is None else samples.beyond.tolist():
            fleet = self._fleets[lane[at]]
            got = readings[fleet.name]
            own = at - int(lane.searchsorted(lane[at]))
            vm_id = got.vm_ids[own]
            if vm_id not in fleet.beyond:
                notes.append(Note("reading_beyond", fleet.name, _words(fleet, vm_id, float(got.values[own]))))
            fleet.beyond[vm_id] = samples.now_s
        self._some = False
        for fleet in self._fleets:
            if not fleet.beyond:
                continue
            ids = readings[fleet.name].vm_ids
            for vm_id, since_s in [*fleet.beyond.items()]:
                if abs(samples.now_s - since_s) < _WELL_FOR_S:
                    continue
                del fleet.beyond[vm_id]
                now = "reports what a VM can do again" if vm_id in ids else "is not read any more"
                notes.append(Note("reading_believed", fleet.name, f"{vm_id} {now}"))
            self._some = self._some or bool(fleet.beyond)
        return notes


def _words(fleet: Fleet, vm_id: str, value: float) -> str:
    said = {
        "utilisation": f"to be busy {value:,.0f} times over",
        "concurrency": f"{value:,.0f} in flight",
    }.get(fleet.policy.signal.kind, f"{value:,.0f}/s, and a VM does {fleet.capacity_per_s:.4g}/s")
    return f"{vm_id} reports {said}; this reading is ignored, since the other VMs report nothing like it: fix what is measured there"
