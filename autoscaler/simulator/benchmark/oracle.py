"""A decider that knows the next minutes: what a perfect forecast over the lead time would cost.

It is not a peer: THIS MODULE LOOKS AHEAD, as far as a start ordered now takes and one tick more. What is between it and
the clairvoyant is the price of not seeing further; what is between it and a policy is the price of the
policy's forecast.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.peer import Sized, over_lanes, vms_for, window_ticks


class ShortOracle(Sized):
    """As many VMs as are needed from now until a start ordered now serves, or were until idling has cost a start.

    Args:
        params: The lanes.
        demand: float64 (T,), work per second of every tick of the run; NaN where unknown.
        first_tick: Number of its first tick.
        utilisation: Share of a VM's capacity to count on.
        lead_ticks: Ticks from an order until it serves.
        break_even_s: Time after which idling has cost a start.
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
        # Row k reaches from `held` ticks before tick k to the tick that a start ordered at k serves first.
        padded = np.concatenate((np.zeros(held), known, np.zeros(lead_ticks)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, held + lead_ticks + 1)
        self._highest: Float = windows.max(axis=1)
        self._usable, self._first = usable, first_tick

    def sized(self, snapshot: Snapshot) -> Int:
        """As in `Peer`."""
        return vms_for(np.full(len(self._usable), self._highest[snapshot.tick - self._first]), self._usable)
