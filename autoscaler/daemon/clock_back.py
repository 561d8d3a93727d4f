"""When the clock is set back: forgets what listings will show again, and keeps recent orders and what was learned.

Why: everything noted by the old clock lies in the future, and listings show the present state again. But listings lag: a VM that
was made seconds ago and is not listed yet would be made again. And no listing shows what models, prices and warm pools have learned
over weeks, or which VMs are left alone.

Rules of this file: orders in flight, and the times for which VMs are left alone, keep their age on the new clock. What objectives
have learned is tied to its ticks: it pauses until the clock is as late again, and starts afresh if that would take long.
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
"""Longest time for which what objectives have learned may pause, in seconds."""
_LEARNED = ("peaks", "trial", "budget", "warm_pool", "starting")


def state_after_set_back(before: LaneState, lanes: LaneParams, back_s: float) -> LaneState:
    """Return the state with which core continues; guards start afresh.

    Args:
        before: The previous state; not to be used afterwards.
        lanes: The same lanes.
        back_s: By how much the clock was set back, in seconds.
    """
    state = LaneState.empty(lanes)
    if back_s <= RESTS_S:
        kept = before.carried_over(lanes, np.arange(len(lanes.series)))
        for name in _LEARNED:
            setattr(state, name, getattr(kept, name))
    return state


def carry_over_orders(
    inventories: Sequence[FleetInventory], before: Sequence[FleetInventory], by_s: float, now_s: float
) -> None:
    """Keep orders that may not be listed yet, and VMs that are left alone, in new inventories.

    Args:
        inventories: The new inventories, which know nothing yet.
        before: The previous inventories of the same fleets, in the same order; not to be used afterwards.
        by_s: By how much the clock was set back, in seconds.
        now_s: The time on the new clock.
    """
    for inventory, known in zip(inventories, before, strict=True):
        flying = [t for t in known.vms.values() if t.order is not None and t.phase is not Phase.LOST]
        for t in flying:
            _move_back(t, by_s)
        inventory.add_in_flight(flying, known.expected_earlier(by_s))
        inventory.recall_set_aside(known.set_aside_rows(now_s + by_s), by_s)


def _move_back(t: TrackedVm, by_s: float) -> None:
    move_vm(t, -by_s)
    t.quarantined_until_s -= by_s
    _move_runs(t.closed_runs if t.run is None else [*t.closed_runs, t.run], by_s)


def _move_runs(runs: Iterable[Run], by_s: float) -> None:
    for run in runs:
        run.from_s -= by_s
        run.to_s = None if run.to_s is None else run.to_s - by_s
