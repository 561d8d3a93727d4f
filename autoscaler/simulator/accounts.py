"""From counts to work and money: what the intervals of a block could serve, left unserved, and cost.

One money model everywhere: a VM is billed from running until stopping begins, per second and at least the minimum
per start; storage is due for every VM that exists; a start that comes into service and a provisioning may
carry a price. Seconds that a VM runs before it serves are charged in the interval in which it comes into
service, and what a young VM lacks to its minimum in that in which its stop is accepted; so a run's sum is
exact, and what is under way at its end has not been charged yet.

Rules of this file: a block at a time, in place, element-wise over lanes; unknown demand stays unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float, SmallInt
from autoscaler.simulator.knobs import PlantSettings, Shortage
from autoscaler.simulator.ledger import Block
from autoscaler.simulator.plant import Plant

_HOUR_S = 3600.0


class Accounts:
    """The books of L lanes.

    Args:
        plant: Whose counts are accounted for.
        plants: What its lanes are like.
        policies: For capacity and prices.
        rows: Most rows of a block.
        tick_s: Length of a tick.
    """

    def __init__(
        self,
        plant: Plant,
        plants: Sequence[PlantSettings],
        policies: Sequence[Policy],
        rows: int,
        tick_s: float,
    ) -> None:
        lanes = len(policies)
        self._plant = plant
        self._tick_s = tick_s
        self.capacity = np.array([policy.vm.capacity_per_s for policy in policies])
        self._each = _alike(self.capacity)
        self._running = _alike(np.array([p.prices.in_service_per_h for p in policies]) / _HOUR_S)
        self._stored = _alike(np.array([p.prices.stopped_per_h for p in policies]) / _HOUR_S * tick_s)
        self._start = _alike(np.array([policy.prices.start for policy in policies]))
        self._make = _alike(np.array([policy.prices.provision for policy in policies]))
        self._lead_in = _alike(plant.lead_in_s)
        self._made_lead_in = _alike(plant.made_lead_in_s)
        self._kinds = np.array([list(Shortage).index(each.shortage) for each in plants])
        self._slowdown = np.array([each.slowdown for each in plants])
        self.queues = bool((self._kinds == _QUEUED).any())
        self.backlog: Float = np.zeros(lanes)
        self._arrived: SmallInt = np.zeros((rows, lanes), np.int32)
        self._made: SmallInt | None = None if plant.made is None else np.zeros((rows, lanes), np.int32)
        self._extra: Float | None = np.zeros((rows, lanes)) if plant.has_extras else None
        self._provisioned: SmallInt | None = (
            np.zeros((rows, lanes), np.int32) if self._made is not None else None
        )
        self._serving: SmallInt = np.zeros((rows, lanes), np.int32)
        self._scratch: Float = np.zeros((rows, lanes))
        # A row of zeros: with a scalar, numpy's maximum is several times as slow.
        self._nothing: Float = np.zeros((1, lanes))

    def note(self, row: int) -> None:
        """Keep what the plant says of the tick under way; called after it has acted."""
        plant = self._plant
        self._arrived[row] = plant.arrived
        if self._made is not None and self._provisioned is not None and plant.made is not None:
            self._made[row] = plant.made
            self._provisioned[row] = plant.provisioned
        if self._extra is not None and plant.extra_s is not None:
            self._extra[row] = plant.extra_s

    def close(self, block: Block, rows: int) -> None:
        """Fill in capacity, shortage, billed time and cost of the first `rows` rows of a block."""
        serving = np.subtract(block.in_service[:rows], block.stops[:rows], out=self._serving[:rows])
        # Turned into floats once: numpy multiplies counts with floats in a third of the speed.
        billed = block.billed_vm_s[:rows]
        np.copyto(billed, serving)
        capacity = np.multiply(billed, self._each, out=block.capacity[:rows])
        self._lack(block.demand[:rows], capacity, block.shortage[:rows])
        self._bill(block, billed, rows)
        cost = np.multiply(billed, self._running, out=block.cost[:rows])
        self._store(cost, rows)
        self._charge(cost, self._start, self._arrived[:rows])
        if self._made is not None:
            self._charge(cost, self._start, self._made[:rows])
            self._charge(cost, self._make, block.provisions[:rows])

    def _bill(self, block: Block, billed: Float, rows: int) -> None:
        """From VMs that serve to VM-seconds that are billed."""
        if self._plant.any_drains:
            billed += block.draining[:rows]
            billed += block.stops[:rows] * self._plant.drains
        billed *= self._tick_s
        if not self._plant.lucky:
            self._charge(billed, self._lead_in, self._arrived[:rows])
            if self._made is not None:
                self._charge(billed, self._made_lead_in, self._made[:rows])
        if self._extra is not None:
            billed += self._extra[:rows]

    def _store(self, cost: Float, rows: int) -> None:
        if not self._stored.any():
            return
        if self._provisioned is None:
            cost += _alike(self._stored * self._plant.provisioned)
        else:
            self._charge(cost, self._stored, self._provisioned[:rows])

    def _charge(self, total: Float, each: Float, counts: SmallInt) -> None:
        if each.any():
            total += np.multiply(counts, each, out=self._scratch[: len(counts)])

    def _lack(self, demand: Float, capacity: Float, shortage: Float) -> None:
        np.subtract(demand, capacity, out=shortage)
        np.maximum(shortage, self._nothing, out=shortage)
        if (self._kinds == _SLOWS).any():
            slowed = _slowed(demand, capacity, self._slowdown)
            np.copyto(shortage, slowed, where=self._kinds == _SLOWS)
        if self.queues:
            self._queue(demand, capacity, shortage)

    def _queue(self, demand: Float, capacity: Float, shortage: Float) -> None:
        """What waits is wanted again. An interval of unknown demand leaves the queue as it was."""
        queued = self._kinds == _QUEUED
        for row in range(len(capacity)):
            waiting = np.maximum(demand[row] + self.backlog - capacity[row], 0.0)
            np.copyto(shortage[row], waiting, where=queued)
            known = queued & ~np.isnan(waiting)
            self.backlog = np.where(known, waiting, self.backlog)


def _alike(values: Float) -> Float:
    """The values, or one for all where they are equal: numpy is twice as fast with one."""
    return values[0] if (values == values[0]).all() else values


_SLOWS = list(Shortage).index(Shortage.SLOWS)
_QUEUED = list(Shortage).index(Shortage.QUEUED)


def _slowed(demand: Float, capacity: Float, slowdown: Float) -> Float:
    """Work per second not served where overload slows, after `Shortage.SLOWS`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        over = np.maximum(demand / capacity - 1.0, 0.0)
        served = np.where(capacity > 0, demand / (1.0 + slowdown * over), 0.0 * demand)
    lacking: Float = np.maximum(demand - served, 0.0)
    return lacking
