"""Peers that hold a number of VMs: a fixed one, or one based on recent demand (rules of these files: `peer`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    DAY_S,
    UNKNOWN,
    USUAL_UTILISATION,
    RollingMaximum,
    Sized,
    ordered,
    over_lanes,
    vms_for,
    window_ticks,
)


class StaticPeak(Sized):
    """A fixed number of VMs in service, like a fleet sized by hand.

    Args:
        params: The lanes.
        vms: int64 (L,) or one number. A number taken from the trace that is then played gives the peer hindsight, which must
            be said: it is the most favourable sizing by hand.
    """

    def __init__(self, params: LaneParams, vms: int | Int) -> None:
        super().__init__(params)
        self._vms: Int = np.broadcast_to(np.asarray(vms, np.int64), params.vm_capacity.shape).copy()

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the fixed number (see `Peer.sized`)."""
        del snapshot
        return self._vms


_LONGEST_TICKS = 1 << 20
"""Longest window in ticks: if a start costs as much as decades of a VM, a longer one would not fit in memory."""


class RecentPeak(Sized):
    """Wants as many VMs as the highest demand of a recent window needs.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        window_s: Time for which a demand counts after it was seen. If a tick is longer, only the last demand counts.
    """

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, window_s: float
    ) -> None:
        super().__init__(params)
        self._usable = over_lanes(utilisation, params) * params.vm_capacity
        self._recent = RollingMaximum(window_ticks(window_s, params.tick_s), len(params.vm_capacity))

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        highest = self._recent.push(vms_for(snapshot.demand, self._usable), ~np.isnan(snapshot.demand))
        return np.where(highest == UNKNOWN, ordered(snapshot), highest)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [self._recent.memory()]


class Google(RecentPeak):
    """The autoscaler of Google Compute Engine's instance groups (documented since 2014; as of 2024).

    The recommended size is what the peak of the last 10 minutes needs at the target utilisation. Scale-out happens at once,
    scale-in when the peak is 10 minutes old. Scale-in controls and the predictive mode are off, as they are by default. Any
    tick up to 10 minutes gives the same rule.
    """

    def __init__(self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION) -> None:
        super().__init__(params, utilisation=utilisation, window_s=600.0)


class DelayedOff(RecentPeak):
    """Ski rental: keeps a VM until its idle time has cost as much as a start.

    For each level of the fleet this is the deterministic break-even rule, which costs at most twice as much as knowing the
    future if all demand must be served (Karlin, Manasse, Rudolph, Sleator 1988). It is called DELAYEDOFF for servers
    (Gandhi, Gupta, Harchol-Balter, Kozuch 2010). All levels are kept for the same time, so the fleet has the size of the
    peak of that window. Scale-out happens at once. A break-even time shorter than a tick keeps nothing.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        break_even_s: Cost of a start divided by the price of a second in service, from the function `break_even_s`. At most
            a million ticks count, more than a usual run has.
    """

    def __init__(
        self, params: LaneParams, *, utilisation: float | Float = USUAL_UTILISATION, break_even_s: float
    ) -> None:
        # The VM is not idle yet in the tick in which the demand was seen.
        window_s = min(params.tick_s + break_even_s, _LONGEST_TICKS * params.tick_s)
        super().__init__(params, utilisation=utilisation, window_s=window_s)


def break_even_s(*, per_start: float, in_service_per_h: float) -> float:
    """Return how long a VM may idle for the cost of a start: the window of `DelayedOff`.

    Args:
        per_start: Money per start, including what is billed before the VM serves.
        in_service_per_h: Money per VM-hour in service; if it is zero, the result is a day.
    """
    return per_start / in_service_per_h * 3600.0 if in_service_per_h > 0 else DAY_S
