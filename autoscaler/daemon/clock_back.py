"""A clock that is set back: what is known of VMs is forgotten, but not what was ordered of them just before.

Why: all that is noted by the old clock lies ahead, and listings tell anew what is. But they lag: a VM that was made seconds
before, and is not listed yet, would be made once more.

Rules of this file: orders in flight are as old by the new clock as they were by the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoscaler.daemon.clock_ahead import move_vm
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.daemon.vms.metering import Run
from autoscaler.daemon.vms.tracked import TrackedVm


def keep_orders(inventories: Sequence[FleetInventory], before: Sequence[FleetInventory], by_s: float) -> None:
    """Go on with what was ordered and may not be listed yet, fleet by fleet.

    Args:
        inventories: That know nothing yet.
        before: What was known until now; they are not used any more.
        by_s: By how much the clock was set back, in seconds.
    """
    for inventory, known in zip(inventories, before, strict=True):
        flying = [t for t in known.vms.values() if t.order is not None and t.phase is not Phase.LOST]
        for t in flying:
            _move_back(t, by_s)
        inventory.go_on_with(flying, known.expected_earlier(by_s))


def _move_back(t: TrackedVm, by_s: float) -> None:
    move_vm(t, -by_s)
    t.quarantined_until_s -= by_s
    _move_runs(t.closed_runs if t.run is None else [*t.closed_runs, t.run], by_s)


def _move_runs(runs: Iterable[Run], by_s: float) -> None:
    for run in runs:
        run.from_s -= by_s
        run.to_s = None if run.to_s is None else run.to_s - by_s
