"""A decider that knows the next minutes: what a perfect forecast over the lead time would cost.

It is not a peer: THIS MODULE LOOKS AHEAD, by the time that a start takes and one tick more. Its distance from the
clairvoyant is the price of not seeing further. Its distance from a policy is the price of the policy's forecast.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.peer import Sized, over_lanes, vms_for, window_ticks


class ShortOracle(Sized):
    """Asks for the VMs that the highest demand needs, from a break-even time ago until a start ordered now serves.

    Args:
        params: The lanes.
        demand: float64 (T,), work per second in every tick of the run. NaN where unknown.
        first_tick: Number of the run's first tick.
        utilisation: Share of a VM's capacity to count on.
        lead_ticks: Number of ticks from a start order until the VM serves.
        break_even_s: Idle time, in seconds, that costs as much as a start.
    """

    def __init__(
        self,
        params: LaneParams,
        demand: Float,
        first_tick: int,
        *,
        utilisation: float | Float = 1.0,
        lead_ticks: int,
        break_even_s: float,
    ) -> None:
        super().__init__(params)
        usable = over_lanes(utilisation, params) * params.vm_capacity
        known = np.where(np.isnan(demand), 0.0, demand)
        held = window_ticks(break_even_s, params.tick_s)
        # Row k spans from `held` ticks before tick k to the first tick that a start ordered at tick k serves.
        padded = np.concatenate((np.zeros(held), known, np.zeros(lead_ticks)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, held + lead_ticks + 1)
        self._highest: Float = windows.max(axis=1)
        self._usable, self._first = usable, first_tick

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the wanted number of VMs per lane, as `Peer` defines it."""
        return vms_for(np.full(len(self._usable), self._highest[snapshot.tick - self._first]), self._usable)
