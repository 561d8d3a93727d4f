"""When the clock is set back: forgets what listings will show again, and keeps recent orders and what was learned.

Why: all that is noted by the old clock lies ahead, and listings tell anew what is. But they lag: a VM that was made seconds
before, and is not listed yet, would be made once more. And no listing tells what models, prices and warm pools of objectives have
learned over weeks, nor which VMs are left alone.

Rules of this file: orders in flight, and what VMs are left alone for, are as old by the new clock as they were by the old one. What
objectives have learned knows its ticks, and rests until the clock is as late again; where that is long, it begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.daemon.clock_ahead import move_vm
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.daemon.vms.metering import Run
from autoscaler.daemon.vms.tracked import TrackedVm

RESTS_S = 6 * 3600.0
"""What objectives have learned rests for so long at most."""
_LEARNED = ("peaks", "trial", "budget", "warm_pool", "starting")


def what_stays(before: LaneState, lanes: LaneParams, back_s: float) -> LaneState:
    """What core goes on with: guards begin anew.

    Args:
        before: What it remembered; not to be used any more.
        lanes: The same lanes.
        back_s: By how much the clock was set back, in seconds.
    """
    state = LaneState.empty(lanes)
    if back_s <= RESTS_S:
        kept = before.carried_over(lanes, np.arange(len(lanes.series)))
        for name in _LEARNED:
            setattr(state, name, getattr(kept, name))
    return state


def keep_orders(
    inventories: Sequence[FleetInventory], before: Sequence[FleetInventory], by_s: float, now_s: float
) -> None:
    """Go on with what was ordered and may not be listed yet, and leave alone who was left alone, fleet by fleet.

    Args:
        inventories: That know nothing yet.
        before: What was known until now; they are not used any more.
        by_s: By how much the clock was set back, in seconds.
        now_s: The clock.
    """
    for inventory, known in zip(inventories, before, strict=True):
        flying = [t for t in known.vms.values() if t.order is not None and t.phase is not Phase.LOST]
        for t in flying:
            _move_back(t, by_s)
        inventory.go_on_with(flying, known.expected_earlier(by_s))
        inventory.recall_aside(known.aside_rows(now_s + by_s), by_s)


def _move_back(t: TrackedVm, by_s: float) -> None:
    move_vm(t, -by_s)
    t.quarantined_until_s -= by_s
    _move_runs(t.closed_runs if t.run is None else [*t.closed_runs, t.run], by_s)


def _move_runs(runs: Iterable[Run], by_s: float) -> None:
    for run in runs:
        run.from_s -= by_s
        run.to_s = None if run.to_s is None else run.to_s - by_s
