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
"""It is over once it has been so for this long, or else who reports nonsense now and then is told of each time."""


class Beyond:
    """Follows the VMs whose readings are left out; which they are is kept by the fleets.

    Args:
        fleets: In lane order.
    """

    def __init__(self, fleets: Sequence[Fleet]) -> None:
        self._fleets = fleets
        self._some = True
        """Whether any was left out lately; fleets that go on from others may have some."""

    def follow(self, samples: Samples, lane: Int, readings: Mapping[str, FleetReadings]) -> Sequence[Note]:
        """What there is to tell after a fold.

        Args:
            samples: What was made of the readings.
            lane: int64 (N,), of each reading, ascending.
            readings: By fleet, the same ones.
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
