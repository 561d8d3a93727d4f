"""Reports when a sudden fall in demand is doubted, and when the doubt ends: the cause is often an outage elsewhere.

Rules of this file: nothing is decided here; the rows of a tick show what is doubted.
"""

from __future__ import annotations

from autoscaler.core.types import Reason, Stage
from autoscaler.daemon.decision_sentences import work
from autoscaler.ports import FleetTick, Note


class VanishedDemand:
    """Follows the fleets whose fall in demand is doubted."""

    def __init__(self) -> None:
        self._fell: set[str] = set()

    def follow(self, row: FleetTick) -> list[Note]:
        """Return what to report about a fleet's part of a tick."""
        held = _held(row)
        if held and row.fleet not in self._fell:
            self._fell.add(row.fleet)
            text = (
                f"demand fell suddenly to {work(row.demand)}; that may be an outage in front of the fleet, so up to "
                f"{held} of its VMs stay for a while: check whether requests reach it"
            )
            return [Note("demand_fell", row.fleet, text)]
        if not held and row.fleet in self._fell:
            self._fell.remove(row.fleet)
            now = f"demand is {work(row.demand)}" if row.demand >= 0.0 else "demand is not known"
            return [Note("demand_believed", row.fleet, f"{now}, and doubted no longer")]
        return []


def _held(row: FleetTick) -> int:
    if row.reasons and row.reasons[Stage.DATA] == Reason.DEMAND_VANISHED:
        return row.in_service + row.starting
    return 0 if row.earnings is None else row.earnings.doubted
