"""How many waiting VMs should be hibernated: the worth of a faster start against the cost of keeping memory.

Waiting VMs are started in a fixed order, hibernated ones first, so the question concerns levels: is VM k worth a saved memory
while it is not wanted? Let w be the share of its work that VM k is expected to serve at the highest demand of the refill
horizon, `(E[(D - (k-1)c)+] - E[(D - kc)+]) / c` under that distribution. Demand that reaches VM k wants it, so the odds that it
is wanted within the horizon are at least w, and w is used for them. If it is wanted, it serves some ticks earlier than from
stopped: work that would find no VM in these ticks is served, and the VM is billed that much earlier, less the part of a start
that is billed in any case.

Saving a memory is billed once, and since a stopped VM is started before it is stopped again, each save buys one faster start.
The uncertainty is how long the memory is held until then. With odds w of a start within the horizon, equally likely at any
moment of it, and all horizons alike, that is (1 - w / 2) / w horizons. Hibernating pays if

    success ((shortage at_first - 1) sooner + unbilled) >= saving + memory (1 - w / 2) / w

with `memory` the price of one horizon. The threshold of w is a closed form, and w falls in k, so levels are counted (`worth`): the
newsvendor's rule (Arrow, Harris and Marschak, 1951), applied to a more expensive, faster tier. Benefit and holding cost are
compared as in `provisioned_target`, after Shahrad et al. (2020), except that a memory cannot be given up: it is held until its VM is started.
So the horizon of fleets that hibernate is a day, within which most of what is ever wanted is wanted. A memory that costs nothing
to hold is worth it for all VMs or for none.

The share of its work that a VM has while it starts (`at_first`) differs from its later share. So it is measured (`starting`).

Without a price of shortage, a forecast, or a known advantage of hibernated VMs, there is nothing to weigh: all VMs that may
hibernate do. Nothing here starts a VM, so a VM changes its tier only when it stops anyway.

Rules of this file: element-wise only. Lanes whose VMs do not hibernate are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoscaler.core.objective.economics import Economics
from autoscaler.core.objective.worth import Worth
from autoscaler.core.params import LaneParams
from autoscaler.core.types import MOST_VMS, Float, Freshness, Horizon, Int, Laws, Snapshot, TierReason
from autoscaler.core.warm.starting import HALF_LIFE_S, Starting

_FRESH = int(Freshness.FRESH)
_NEVER = 2.0
"""A share of its work that no VM reaches."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """How many of the waiting VMs should hibernate, in the n of L lanes whose VMs may hibernate.

    Attributes:
        lanes: int64 (n,), the lanes.
        first: int64 (n,), how many of the VMs that would be started first should hibernate; `MOST_VMS` for all.
        reason: int64 (n,) of `TierReason`.
        least: float64 (n,), the share of its work that a VM must be expected to serve within the refill horizon to be worth
            a saved memory; 0 if every VM is, above 1 if none is; NaN if nothing was weighed.
        shares: Returns the expected shares of the last VM that is worth it and of the next one: float64 (2, n), NaN if
            nothing was weighed. Call it before the next tick, which may change the arrays it reads.
    """

    lanes: Int
    first: Int
    reason: Int
    least: Float
    shares: Callable[[], Float]


class Tiering:
    """Computes `Tiers`, compiled for the lanes whose VMs may hibernate.

    Args:
        params: The policies, L lanes.
        lanes: int64 (n,), the lanes whose VMs may hibernate.
    """

    def __init__(self, params: LaneParams, lanes: Int) -> None:
        self._lanes = lanes
        weighed = params.economic[lanes] & ~np.isnan(params.sooner_ticks[lanes])
        self._weighed_at = np.flatnonzero(weighed)
        self._weighed = mine = lanes[self._weighed_at]
        # Positions of the weighed lanes among the lanes with an objective.
        self._priced = np.searchsorted(np.flatnonzero(params.economic), mine)
        self._reason = np.where(params.economic[lanes], int(TierReason.UNMEASURED), int(TierReason.UNPRICED))
        self._all_vms = np.full(len(lanes), MOST_VMS, np.int64)
        self._series = params.series[mine]
        start_success = self._start_success = params.start_success[mine]
        sooner_ticks = params.sooner_ticks[mine]
        self._saved_ticks = start_success * np.maximum(sooner_ticks, 0.0)
        self._watched = np.flatnonzero(params.economic & params.hibernate)
        self._watched_at = np.searchsorted(self._watched, mine)
        self._capacity = params.vm_capacity[self._watched]
        self._recency_decay = 1.0 - 1.0 / np.maximum(params.lead_ticks[self._watched], 1)
        self._decay = 0.5 ** (params.tick_s / HALF_LIFE_S)
        self._unbilled = start_success * params.unbilled_ticks[mine]
        self._saving, self._memory = params.saving_cost[mine], params.memory_cost[mine]
        self._worth = Worth(self._series, params.vm_capacity[mine], (Horizon.REFILL,))
        self._shown = Worth(self._series, params.vm_capacity[mine], (Horizon.REFILL, Horizon.REFILL))

    def step(self, starting: Starting, snapshot: Snapshot) -> Float:
        """Take in how busy recently ordered VMs are; only the first call of a tick counts.

        Returns:
            float64 (w,): the share of its work that a VM has while it starts, in the hibernating lanes with an objective.
        """
        if snapshot.tick > starting.last_tick:
            mine, first = self._watched, starting.last_tick < 0
            starting.last_tick = snapshot.tick
            ordered = snapshot.in_service[mine].astype(np.int64) + snapshot.starting[mine]
            new = np.zeros_like(ordered) if first else np.maximum(ordered - starting.ordered, 0)
            starting.recent = np.minimum(starting.recent * self._recency_decay + new, ordered)
            starting.ordered = ordered
            fresh = snapshot.freshness[mine] == _FRESH
            wanted = np.where(fresh, snapshot.demand[mine], 0.0) / self._capacity
            work = np.minimum(np.maximum(wanted - (ordered - starting.recent), 0.0), starting.recent)
            starting.worked = starting.worked * self._decay + work
            starting.passed = starting.passed * self._decay + np.where(fresh, starting.recent, 0.0)
        return starting.at_first()

    def tiers(
        self, laws: Laws | None, desired: Int, economics: Economics | None, at_first: Float | None
    ) -> Tiers:
        """Return how many of the waiting VMs should hibernate.

        Args:
            laws: The laws of the Outlook; None if no lane has an objective.
            desired: int (L,), VMs wanted in service.
            economics: The numbers behind the economic stage; None if no lane has an objective.
            at_first: The result of `step`; None if it was not called.
        """
        unknown = np.full(len(self._lanes), np.nan)
        first, reason, least = self._all_vms.copy(), self._reason.copy(), unknown.copy()
        if laws is None or economics is None or at_first is None or not len(self._weighed_at):
            shape = 2, len(self._lanes)
            return Tiers(self._lanes, first, reason, least, lambda: np.full(shape, np.nan))
        share = self.least_share(economics.price[self._priced], at_first[self._watched_at])
        now = desired[self._weighed].astype(np.int64)
        levels = self._worth.vms(laws, share[np.newaxis])[0]
        # Some starts fail, and other VMs are started in their place.
        wait = np.minimum(np.ceil(np.maximum(levels - now, 0) / self._start_success - 1e-9), MOST_VMS)
        known = ~np.isnan(laws.level[self._series, int(Horizon.REFILL)])
        first[self._weighed_at] = np.where(known & (share > 0.0), wait, MOST_VMS).astype(np.int64)
        reason[self._weighed_at] = np.where(known, int(TierReason.WEIGHED), int(TierReason.NO_FORECAST))
        least[self._weighed_at] = np.where(known, share, np.nan)

        def shares() -> Float:
            found = np.full((2, len(self._lanes)), np.nan)
            last = np.maximum(np.maximum(levels, now), 1)
            found[:, self._weighed_at] = self._shown.share(
                laws, np.stack([last, np.maximum(levels, now) + 1])
            )
            return found

        return Tiers(self._lanes, first, reason, least, shares)

    def least_share(self, price: Float, at_first: Float) -> Float:
        """The share of its work that a VM must be expected to serve for its memory to be worth saving.

        Args:
            price: float64 (m,), price of a VM-tick of unserved work, in the weighed lanes.
            at_first: float64 (m,), share of its work that a VM has while it starts, in the weighed lanes.

        Returns:
            float64 (m,): 0 if saving is worth it for every VM, above 1 if for none.
        """
        gained = self._saved_ticks * (at_first * price - 1.0) + self._unbilled - self._saving
        whole = gained + 0.5 * self._memory
        share = np.where(gained > 0.0, self._memory / np.where(whole > 0.0, whole, 1.0), _NEVER)
        found: Float = np.minimum(share, _NEVER)
        return found
