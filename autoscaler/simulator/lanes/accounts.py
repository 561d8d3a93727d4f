"""From counts to work and money: the served work, unserved work and cost of each interval.

One money model everywhere: a VM is billed from running until stopping begins, per second and at least the minimum
per start; storage is due for every VM that exists; a start that comes into service and a provisioning may
carry a price. Seconds that a VM runs before it serves are charged in the interval in which it comes into
service, and what a young VM lacks to its minimum in that in which its stop is accepted; so a run's sum is
exact, and what is under way at its end has not been charged yet.

Sums over many ticks follow from counts by the `tariff`; the books of each tick are only kept where somebody reads them.

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
    """The books of L lanes.

    Args:
        plant: Whose counts are accounted for.
        plants: What its lanes are like.
        policies: For capacity and prices.
        tick_s: Length of a tick.

    Attributes:
        capacity: float64 (L,), work per second of one VM.
        tariff: What the books come to over many ticks.
        queues: What was not served in some lane is wanted again.
        loses: What is not served is lost, in all lanes.
        backlog: float64 (L,), how much of that waits.
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
        """Of a tick, where no VM is ever made."""
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
        # An array of zeros: with a scalar, numpy's maximum is several times as slow.
        self._nothing: Float = np.zeros(lanes)

    @property
    def counts_arrivals(self) -> bool:
        """Whether it matters to the tariff how many VMs came."""
        return self._start is not None or (self._lead_in is not None and not self._plant.lucky)

    def lack(self, block: Block, row: int, demand: Float) -> None:
        """Fill in the shortage of a row, where the block has it, and what is billed beside the tariff.

        To be called once the plant has acted.

        Args:
            block: Where to.
            row: Of the block.
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
        """Fill in capacity, billed time and cost of a row as well.

        Row by row, though that takes more calls than a block at once: a row of thousands of lanes is still in the
        processor's cache from one operation to the next, and a block is not.

        Args:
            block: Where to.
            row: Of the block.
            demand: float64 (L,) or (1,), work per second wanted in the interval.
        """
        plant = self._plant
        billed, cost = block.billed_vm_s[row], block.cost[row]
        # Turned into floats once: numpy multiplies counts with floats in a third of the speed.
        np.copyto(billed, plant.in_service)
        np.multiply(billed, self._each, out=block.capacity[row])
        self.lack(block, row, demand)
        if plant.any_drains:
            # Those ordered to drain just now are among the draining ones already.
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
        if each is not None:
            total += np.multiply(counts, each, out=self._scratch)

    def _lack(self, demand: Float, capacity: Float, shortage: Float) -> None:
        np.subtract(demand, capacity, out=shortage)
        np.maximum(shortage, self._nothing, out=shortage)
        if self._slows:
            slowed = _slowed(demand, capacity, self._slowdown)
            np.copyto(shortage, slowed, where=self._kinds == _SLOWS)
        if self.queues:
            self._queue(demand, capacity, shortage)

    def _queue(self, demand: Float, capacity: Float, shortage: Float) -> None:
        """What waits is wanted again. An interval of unknown demand leaves the queue as it was."""
        queued = self._kinds == _QUEUED
        waiting = np.maximum(demand + self.backlog - capacity, 0.0)
        np.copyto(shortage, waiting, where=queued)
        self.backlog = np.where(queued & ~np.isnan(waiting), waiting, self.backlog)


def _alike(values: Float) -> Float | None:
    """The values, one for all where they are equal, since numpy is twice as fast with one; None for zeros."""
    if not values.any():
        return None
    return values[:1] if (values == values[0]).all() else values


_SLOWS = list(Shortage).index(Shortage.SLOWS)
_QUEUED = list(Shortage).index(Shortage.QUEUED)


def _slowed(demand: Float, capacity: Float, slowdown: Float) -> Float:
    """Work per second not served where overload slows, after `Shortage.SLOWS`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        over = np.maximum(demand / capacity - 1.0, 0.0)
        served = np.where(capacity > 0, demand / (1.0 + slowdown * over), 0.0 * demand)
    lacking: Float = np.maximum(demand - served, 0.0)
    return lacking
