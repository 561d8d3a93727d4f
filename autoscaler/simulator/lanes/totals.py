"""Counts of a block that are needed only as sums: added up tick by tick, while they are in cache.

A block of thousands of lanes does not stay in the processor's cache. Writing its rows and reading them again for their sum
takes two passes over memory; a running sum takes one over counts that are in the cache already.

Rules of this file: integers, in place, element-wise over lanes.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.rules import is_fixed
from autoscaler.core.types import Decision, Int
from autoscaler.simulator.judging.block import Count
from autoscaler.simulator.lanes.delays import Vms
from autoscaler.simulator.lanes.plant import Plant

NARROW, FEW = 2**9, 2**24
"""Below these counts of VMs, a block's sums fit into 16 and into 32 bits, which are faster to add to."""


class Totals:
    """Sums of counts over the ticks of a block.

    Args:
        plant: The plant whose counts are summed.
        most_vms: An upper bound on every count.
        arrivals: Whether to count the VMs that come into service.

    Attributes:
        of: int (L,) for each kind of count; changed in place.
    """

    def __init__(self, plant: Plant, most_vms: float, *, arrivals: bool) -> None:
        self._plant = plant
        lanes = len(plant.in_service)
        kind = (
            plant.in_service.dtype
            if most_vms < NARROW
            else np.dtype(np.int32 if most_vms < FEW else np.int64)
        )
        self.of: dict[Count, Vms] = {
            which: np.zeros(lanes, kind)
            for which in (
                Count.STARTING,
                Count.DRAINING,
                Count.STOPPED,
                Count.WARM_TARGET,
                Count.PROVISIONS,
                Count.FAILED_STARTS,
                Count.ARRIVED,
                Count.MADE,
                Count.PROVISIONED,
            )
        }
        self._arrivals = arrivals
        self._follows = not plant.lucky and plant.made is None
        if self._follows:
            self.of |= {Count.STARTS: np.zeros(lanes, np.int64), Count.STOPS: np.zeros(lanes, np.int64)}
        self._grows = plant.made is not None
        self._stopped = self.of[Count.STOPPED]
        self._target: Int = np.zeros(0, np.int64)
        self._targets = 0
        self._failures = plant.quarantined is not None

    def begin(self, ticks: int) -> None:
        """Start a block of `ticks` ticks."""
        for total in self.of.values():
            total.fill(0)
        if self._follows:
            self._before = self._ordered(), self._plant.left.copy()
        if not self._grows:
            np.multiply(self._plant.provisioned, ticks, out=self.of[Count.PROVISIONED])

    def decided(self, decision: Decision) -> None:
        """Add the counts of a tick between its decision and its actions."""
        plant = self._plant
        if not plant.none_starts:
            self._add(Count.STARTING, plant.starting)
        np.add(self._stopped, plant.stopped, out=self._stopped)
        target = decision.warm_target
        if target is self._target:
            self._targets += 1
        elif is_fixed(target):
            self._settle()
            self._target, self._targets = target, 1
        else:
            self._add(Count.WARM_TARGET, target)
        if self._arrivals and not plant.none_arrived:
            self._add(Count.ARRIVED, plant.arrived)
        if plant.any_drains:
            self._add(Count.DRAINING, plant.draining)
        if self._failures and plant.failed is not None:
            self._add(Count.FAILED_STARTS, plant.failed)
        if plant.made is not None:
            self._add(Count.MADE, plant.made)

    def _settle(self) -> None:
        """Add the warm target of consecutive ticks in which it was one read-only array."""
        times, self._targets = self._targets, 0
        if times:
            wanted = self._target
            if times > 1:
                wanted = np.multiply(wanted, times, dtype=self.of[Count.WARM_TARGET].dtype)
            self._add(Count.WARM_TARGET, wanted)

    def acted(self) -> None:
        """Add what the provider accepted in that tick."""
        if self._grows:
            self._add(Count.PROVISIONS, self._plant.provisions)
            self._add(Count.PROVISIONED, self._plant.provisioned)

    def end(self) -> None:
        """Finish the block."""
        self._settle()
        if self._follows:
            ordered, left = self._before
            stops, starts = self.of[Count.STOPS], self.of[Count.STARTS]
            np.subtract(self._plant.left, left, out=stops)
            # Only starts and stops change the number of VMs in service or starting.
            np.subtract(self._ordered(), ordered, out=starts)
            starts += stops

    def _ordered(self) -> Vms:
        return self._plant.in_service + self._plant.starting

    def _add(self, which: Count, counts: Vms) -> None:
        total = self.of[which]
        np.add(total, counts, out=total)
