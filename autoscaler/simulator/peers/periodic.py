"""Peers that take the past for the future, one period later (see `peer` for the rules of such a file)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    DAY_S,
    USUAL_UTILISATION,
    Sized,
    ordered,
    over_lanes,
    vms_for,
    window_ticks,
)


class SameTimeBefore(Sized):
    """A schedule that writes itself: as many VMs as the same time one period ago needed.

    Seasonal naive, the rule of time-of-day schedules (React and its like; as a forecast the standard of comparison
    of Hyndman and Athanasopoulos 2021). It covers the past from now until a start ordered now would serve.
    Where that past is unknown, as in the first period, it follows the demand of now. A period that is no
    whole number of ticks is rounded to one.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        period_s: A day, or a week.
        ahead_s: From an order to service: the lead time.
    """

    def __init__(
        self,
        params: LaneParams,
        *,
        utilisation: float | Float = USUAL_UTILISATION,
        period_s: float = DAY_S,
        ahead_s: float,
    ) -> None:
        super().__init__(params)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._ahead = window_ticks(ahead_s, params.tick_s) + 1
        period = max(round(period_s / params.tick_s), self._ahead + 1)
        self._past: Float = np.full((period, len(params.vm_capacity)), np.nan)
        self._next = 0

    def sized(self, snapshot: Snapshot) -> Int:
        """As in `Peer`."""
        past = self._past
        past[self._next] = snapshot.demand
        # What was seen now is a period old when this place comes round again; the places after it are older.
        self._next = (self._next + 1) % len(past)
        then = past.take(range(self._next, self._next + self._ahead), axis=0, mode="wrap")
        wanted = np.fmax.reduce(then, axis=0)
        wanted = np.where(np.isnan(wanted), snapshot.demand, wanted)
        known = ~np.isnan(wanted)
        return np.where(known, vms_for(wanted, self._usable), ordered(snapshot))

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """As in `Peer`."""
        del now_s
        return [np.roll(self._past, -self._next, axis=0)]
