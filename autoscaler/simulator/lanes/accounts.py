"""From counts to work and money: the served work, unserved work and cost of each interval.

There is one money model everywhere: a VM is billed from running until stopping begins, per second and at least the minimum
per start. Storage is charged for every VM that exists. A start that comes into service and a provisioning may carry a price.
Seconds that a VM runs before it serves are charged in the interval in which it comes into service. What a young VM lacks to
its minimum is charged in the interval in which its stop is accepted. So a run's sum is exact, and what is under way at its
end has not been charged yet.

Sums over many ticks follow from counts by the `tariff`. Shortage, time and cost of each tick are only computed if they are
read.

Rules of this file: in place, element-wise over lanes; unknown demand stays unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float
from autoscaler.simulator.judging.block import Block
from autoscaler.simulator.judging.tariff import Tariff
from autoscaler.simulator.lanes.delays import Vms
from autoscaler.simulator.lanes.plant import Plant
from autoscaler.simulator.lanes.plant_settings import PlantSettings, Shortage

_HOUR_S = 3600.0


class Accounts:
    """Computes unserved work, billed time and cost of L lanes.

    Args:
        plant: The plant whose counts are accounted for.
        plants: Settings of its lanes.
        policies: Policies of the lanes, for capacity and prices.
        tick_s: Length of a tick.

    Attributes:
        capacity: float64 (L,), work per second of one VM.
        tariff: Computes sums of billed time and cost over many ticks from sums of counts.
        queues: Whether some lane's unserved work waits and is wanted again.
        loses: Whether unserved work is lost in all lanes.
        backlog: float64 (L,), unserved work that waits, as work per second.
    """

    def __init__(
        self,
        plant: Plant,
        plants: Sequence[PlantSettings],
        policies: Sequence[Policy],
        tick_s: float,
    ) -> None:
        lanes = len(policies)
        self._plant = plant
        self._tick_s = tick_s
        self.capacity = np.array([policy.vm.capacity_per_s for policy in policies])
        self._each = self.capacity if (self.capacity != self.capacity[0]).any() else self.capacity[:1]
        self._running = np.array([p.prices.in_service_per_h for p in policies]) / _HOUR_S
        stored = np.array([p.prices.stopped_per_h for p in policies]) / _HOUR_S * tick_s
        self._stored = _alike(stored)
        self._storage = _alike(stored * plant.provisioned)
        """Storage cost of a tick if no VM is ever provisioned."""
        self._start = _alike(np.array([policy.prices.start for policy in policies]))
        self._make = _alike(np.array([policy.prices.provision for policy in policies]))
        self._lead_in = _alike(plant.lead_in_s)
        self._made_lead_in = _alike(plant.made_lead_in_s)
        self._kinds = np.array([list(Shortage).index(each.shortage) for each in plants])
        self.tariff = Tariff(
            tick_s,
            self.capacity,
            plant.drains,
            plant.lead_in_s * (not plant.lucky),
            plant.made_lead_in_s * (not plant.lucky),
            self._running,
            stored,
            np.array([policy.prices.start for policy in policies]),
            np.array([policy.prices.provision for policy in policies]),
        )
        self._slowdown = np.array([each.slowdown for each in plants])
        self._slows = bool((self._kinds == _SLOWS).any())
        self.queues = bool((self._kinds == _QUEUED).any())
        self.loses = not self.queues and not self._slows
        self.backlog: Float = np.zeros(lanes)
        self._scratch: Float = np.zeros(lanes)
        # An array of zeros, because numpy's maximum with a scalar is several times as slow.
        self._nothing: Float = np.zeros(lanes)

    @property
    def counts_arrivals(self) -> bool:
        """Whether the tariff depends on how many VMs came into service."""
        return self._start is not None or (self._lead_in is not None and not self._plant.lucky)

    def lack(self, block: Block, row: int, demand: Float) -> None:
        """Write the shortage of a row, if the block has it, and the VM-seconds that the tariff does not cover.

        Must be called after the plant has acted.

        Args:
            block: The block to write to.
            row: Row of the block.
            demand: float64 (L,) or (1,), work per second wanted in the interval.
        """
        if block.shortage is not None:
            capacity = self._scratch
            np.copyto(capacity, self._plant.in_service)
            capacity *= self._each
            self._lack(demand, capacity, block.shortage[row])
        if block.extra_s is not None:
            block.extra_s[row] = 0.0 if self._plant.extra_s is None else self._plant.extra_s

    def enter(self, block: Block, row: int, demand: Float) -> None:
        """Write shortage, capacity, billed time and cost of a row.

        Rows are computed one by one, although that takes more calls than a block at once: a row of thousands of lanes stays
        in the processor's cache from one operation to the next, and a block does not.

        Args:
            block: The block to write to.
            row: Row of the block.
            demand: float64 (L,) or (1,), work per second wanted in the interval.
        """
        plant = self._plant
        billed, cost = block.billed_vm_s[row], block.cost[row]
        # Converted to floats once, because numpy multiplies integers with floats at a third of the speed.
        np.copyto(billed, plant.in_service)
        np.multiply(billed, self._each, out=block.capacity[row])
        self.lack(block, row, demand)
        if plant.any_drains:
            # The count of draining VMs already includes those ordered to drain at this tick.
            billed += plant.draining
        billed *= self._tick_s
        if not plant.lucky:
            self._charge(billed, self._lead_in, plant.arrived)
            if plant.made is not None:
                self._charge(billed, self._made_lead_in, plant.made)
        if plant.extra_s is not None:
            billed += plant.extra_s
        np.multiply(billed, self._running, out=cost)
        if plant.made is not None:
            self._charge(cost, self._stored, plant.provisioned)
        elif self._storage is not None:
            cost += self._storage
        self._charge(cost, self._start, plant.arrived)
        if plant.made is not None:
            self._charge(cost, self._start, plant.made)
            self._charge(cost, self._make, plant.provisions)

    def _charge(self, total: Float, each: Float | None, counts: Vms) -> None:
        """Add a rate times counts to a total; None is a rate of zero."""
        if each is not None:
            total += np.multiply(counts, each, out=self._scratch)

    def _lack(self, demand: Float, capacity: Float, shortage: Float) -> None:
        """Write the unserved work per second of each lane to `shortage`."""
        np.subtract(demand, capacity, out=shortage)
        np.maximum(shortage, self._nothing, out=shortage)
        if self._slows:
            slowed = _slowed(demand, capacity, self._slowdown)
            np.copyto(shortage, slowed, where=self._kinds == _SLOWS)
        if self.queues:
            self._queue(demand, capacity, shortage)

    def _queue(self, demand: Float, capacity: Float, shortage: Float) -> None:
        """Let unserved work wait and be wanted again. An interval of unknown demand leaves the queue unchanged."""
        queued = self._kinds == _QUEUED
        waiting = np.maximum(demand + self.backlog - capacity, 0.0)
        np.copyto(shortage, waiting, where=queued)
        self.backlog = np.where(queued & ~np.isnan(waiting), waiting, self.backlog)


def _alike(values: Float) -> Float | None:
    """Return the values, as one element if all are equal, because numpy is twice as fast with one; None if all are zero."""
    if not values.any():
        return None
    return values[:1] if (values == values[0]).all() else values


_SLOWS = list(Shortage).index(Shortage.SLOWS)
_QUEUED = list(Shortage).index(Shortage.QUEUED)


def _slowed(demand: Float, capacity: Float, slowdown: Float) -> Float:
    """Return the work per second not served if overload slows all work, by the formula at `Shortage.SLOWS`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        overload = np.maximum(demand / capacity - 1.0, 0.0)
        served = np.where(capacity > 0, demand / (1.0 + slowdown * overload), 0.0 * demand)
    unserved: Float = np.maximum(demand - served, 0.0)
    return unserved
