"""The lowest possible cost of a fleet if the future were known: the yardstick for every policy.

THIS IS THE ONLY MODULE THAT MAY LOOK AHEAD. Nothing here decides anything for a fleet, live or simulated. It is given a
whole demand series and returns the schedule that would have been the cheapest.

The problem: choose whole numbers of VMs in service x_t that minimise

    running price * sum x_t  +  start price * sum max(x_t - x_(t-1), 0)  +  shortage price * sum max(d_t - x_t, 0)

where d_t is demand in VMs. A VM beyond those that exist also pays for its disk, so its running price is higher. The problem
separates by level: level k is on if x_t >= k, and loses clip(d_t - (k - 1), 0, 1) if it is off (Lin, Wierman, Andrew,
Thereska 2011 for the problem; per level it is the ski rental of Lu, Chen, Andrew 2013). A level is a shortest path between
two states. Only the difference between being on and being off matters, so the forward pass is one clipped sum per tick for
all levels, and the backward pass one choice: O(ticks * levels).

Because the future is known, the lead time of a start only moves its order earlier. It matters at the beginning, before which
nothing could be ordered, and in the time for which a start is billed. VMs that are starting while others still serve are not
counted against a bound.

A minimum billing time that binds couples the levels. It is ignored, so the result is then a lower bound; `Optimum.exact` and
`Optimum.remark` say which of the two it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float, Int

_ROUNDING = 1e-9
_CHUNK_TICKS = 4096


@dataclass(frozen=True, slots=True)
class Terms:
    """Prices, times and bounds of a fleet, the same as for the policy under judgement.

    Attributes:
        tick_s: Length of a tick.
        vm_capacity: Work per second of one VM at the objective.
        in_service_per_h: Money per VM-hour billed as running.
        stopped_per_h: Money per VM-hour of storage, charged for every provisioned VM.
        start: Money per start.
        start_billed_s: Time for which a start is billed before the VM serves: from running to in service.
        minimum_billing_s: Least time for which a start is billed as running.
        lead_ticks: The first tick at which a VM ordered at the first tick can serve.
        initial: VMs in service before the first tick.
        minimum: The fewest VMs in service that are allowed.
        ceiling: The most VMs in service that are allowed.
        provisioned: VMs that exist and whose disks are paid. The schedule may use more, and pays for the disks of the
            additional VMs while they serve.
    """

    tick_s: float
    vm_capacity: float
    in_service_per_h: float
    stopped_per_h: float = 0.0
    start: float = 0.0
    start_billed_s: float = 0.0
    minimum_billing_s: float = 0.0
    lead_ticks: int = 0
    initial: int = 0
    minimum: int = 0
    ceiling: int = 10**6
    provisioned: int = 0

    @property
    def vm_tick(self) -> float:
        """Money per VM and tick in service."""
        return self.in_service_per_h * self.tick_s / 3600.0

    @property
    def disk_tick(self) -> float:
        """Money per provisioned VM and tick."""
        return self.stopped_per_h * self.tick_s / 3600.0

    @property
    def per_start(self) -> float:
        """Money per start: its price, and what is billed before the VM serves."""
        return self.start + self.in_service_per_h * self.start_billed_s / 3600.0

    @property
    def least_ticks(self) -> int:
        """Fewest ticks that a started VM stays in service, because they are billed anyway."""
        return max(0, math.ceil((self.minimum_billing_s - self.start_billed_s) / self.tick_s - _ROUNDING))


@dataclass(frozen=True, slots=True)
class Optimum:
    """The cheapest schedule, and what it costs.

    Attributes:
        vms: int64 (T,), VMs in service.
        running_cost: Money for VMs in service.
        start_cost: Money for starts, including their billed part.
        storage_cost: Money for the disks of the provisioned VMs.
        starts: Number of starts.
        unserved_work: Work that the schedule leaves unserved, in units of work.
        unserved_share: Its share of all work wanted; NaN if none is.
        shortage_price: Money per unit of unserved work at which this schedule is the cheapest.
        exact: Whether this is the optimum; if not, cost and price of shortage together are a lower bound.
        remark: A sentence that says why it is exact or not.
    """

    vms: Int
    running_cost: float
    start_cost: float
    storage_cost: float
    starts: int
    unserved_work: float
    unserved_share: float
    shortage_price: float
    exact: bool
    remark: str

    @property
    def cost(self) -> float:
        """All money paid, without the price of shortage."""
        return self.running_cost + self.start_cost + self.storage_cost

    @property
    def objective(self) -> float:
        """The minimised quantity: all money paid plus the unserved work at its price."""
        lost = self.shortage_price * self.unserved_work if self.unserved_work > 0 else 0.0
        return self.cost + lost


def cheapest(demand: Float, terms: Terms, prices: Sequence[float]) -> list[Optimum]:
    """Return the cheapest schedule at each of some prices of shortage, in about the time of one.

    Args:
        demand: float64 (T,), work per second; NaN if unknown, which counts as no demand.
        terms: Prices, times and bounds.
        prices: Money per unit of unserved work, at least 0; infinite if everything must be served that can be.
    """
    found = []
    for vms, price in zip(_by_levels(_in_vms(demand, terms), terms, prices), prices, strict=True):
        one = _priced(vms, demand, terms, price)
        if terms.least_ticks > 1 and not _stays_long_enough(vms, terms):
            billed = f"a start is billed for at least {terms.minimum_billing_s:g} s"
            one = replace(one, exact=False, remark=f"a lower bound: it ignores that {billed}")
        found.append(one)
    return found


def _in_vms(demand: Float, terms: Terms) -> Float:
    return np.where(np.isnan(demand), 0.0, demand) / terms.vm_capacity


class Front:
    """Least cost against unserved work: the lower convex hull of all schedules, computed only as far as it is asked for.

    Its corners are the schedules that are the cheapest at some price of shortage. To search between two known corners, take
    the price at which both cost the same. The cheapest schedule at that price is either another corner, or proves that there
    is none between (Aneja and Nair 1979). A binding minimum billing time is ignored, so the front is then a lower bound.

    Args:
        demand: float64 (T,), work per second; NaN if unknown.
        terms: Prices, times and bounds.
        precision: Share of the cost by which an edge may lie above the hull; the larger, the fewer schedules
            are computed.

    Raises:
        ValueError: There are no ticks.
    """

    def __init__(self, demand: Float, terms: Terms, *, precision: float = 1e-9) -> None:
        if not len(demand):
            raise ValueError("a schedule needs at least one tick")
        self._demand, self._terms, self._precision = demand, terms, precision
        self._corners = cheapest(demand, terms, (0.0, math.inf))
        self._proven: set[tuple[float, float]] = set()
        self.work = float(np.nansum(demand)) * terms.tick_s
        """All work wanted, in units of work."""

    def serving(self, served_share: float) -> Optimum:
        """Return the cheapest corner that serves at least this share, or the last corner if none does.

        Raises:
            ValueError: The share is not within 0..1.
        """
        self._look_for((served_share,))
        return self._edge(served_share)[1]

    def costs_serving(self, served_shares: Sequence[float]) -> list[float]:
        """Return the least cost of serving each of these shares, in money, interpolated on the edge between two corners.

        Raises:
            ValueError: A share is not within 0..1.
        """
        self._look_for(served_shares)
        return [self._cost_on(*self._edge(share), share) for share in served_shares]

    def cost_serving(self, served_share: float) -> float:
        """Return the least cost of serving one share (see `costs_serving`).

        Raises:
            ValueError: The share is not within 0..1.
        """
        return self.costs_serving((served_share,))[0]

    def _cost_on(self, less: Optimum, more: Optimum, served_share: float) -> float:
        unserved = (1.0 - served_share) * self.work
        width = less.unserved_work - more.unserved_work
        part = min(max((less.unserved_work - unserved) / width, 0.0), 1.0) if width > 0 else 1.0
        return less.cost + part * (more.cost - less.cost)

    def _look_for(self, served_shares: Sequence[float]) -> None:
        """Find corners until the edge at every share is proven; each round searches all unproven edges side by side."""
        while True:
            edges = {
                (less.shortage_price, more.shortage_price): (less, more)
                for less, more in map(self._edge, served_shares)
            }
            priced = {
                ends: self._price_within(*edge) for ends, edge in edges.items() if ends not in self._proven
            }
            self._proven |= {ends for ends, price in priced.items() if price is None}
            prices = {ends: price for ends, price in priced.items() if price is not None}
            if not prices:
                return
            found = cheapest(self._demand, self._terms, list(prices.values()))
            for (ends, price), corner in zip(prices.items(), found, strict=True):
                less = edges[ends][0]
                if corner.objective >= (less.cost + price * less.unserved_work) * (1.0 - self._precision):
                    self._proven.add(ends)
                else:
                    at = next(i for i, c in enumerate(self._corners) if c is edges[ends][1])
                    self._corners.insert(at, corner)

    def _price_within(self, less: Optimum, more: Optimum) -> float | None:
        """Return the price at which a corner between two others would be found; None if there can be none."""
        gained, paid = less.unserved_work - more.unserved_work, more.cost - less.cost
        # If no service is gained, or it costs nothing, there is no corner in between.
        return None if less is more or gained <= _ROUNDING * self.work or paid <= 0 else paid / gained

    def _edge(self, served_share: float) -> tuple[Optimum, Optimum]:
        """Return the two known corners on either side of a share."""
        if not 0.0 <= served_share <= 1.0:
            raise ValueError("the share of work to be served lies between 0 and 1")
        allowed = (1.0 - served_share + _ROUNDING) * self.work
        at = next((i for i, c in enumerate(self._corners) if c.unserved_work <= allowed), -1)
        if at <= 0:
            return self._corners[at], self._corners[at]
        return self._corners[at - 1], self._corners[at]


def peak_vms(demand: Float, terms: Terms) -> int:
    """Return the VMs that the highest demand needs, within the bounds: sizing by hand with the peak known.

    Args:
        demand: float64 (T,), work per second; NaN if unknown.
        terms: Bounds and the VMs' capacity.
    """
    highest = float(np.fmax.reduce(demand, initial=0.0))
    return max(min(math.ceil(highest / terms.vm_capacity - _ROUNDING), terms.ceiling), terms.minimum)


def warm_pool(in_service: Int, *, per_vm_tick: float, per_provision: float, provisioned: int = 0) -> Int:
    """Return the cheapest number of provisioned VMs for a schedule that is known beforehand, int64 (T,).

    The same recursion with the prices of the pool: holding a VM costs `per_vm_tick` whether it runs or not, and provisioning
    one costs `per_provision`. A VM that is kept between two uses is in the warm pool.

    Args:
        in_service: int64 (T,), VMs that must exist because they serve.
        per_vm_tick: Money per provisioned VM and tick.
        per_provision: Money per provisioning. Its lead time only moves the order earlier.
        provisioned: VMs that exist before the first tick.
    """
    (vms,) = _schedules(
        np.asarray(in_service, np.float64),
        levels=max(int(in_service.max(initial=0)), provisioned),
        running=per_vm_tick,
        start=per_provision,
        lost=(math.inf,),
        initial=provisioned,
        lead_ticks=0,
    )
    return vms


def _by_levels(wanted: Float, terms: Terms, shortage_prices: Sequence[float]) -> list[Int]:
    """Return the cheapest schedule at each price, ignoring any minimum billing time."""
    top = math.ceil(float(wanted.max()) - _ROUNDING)
    lost = [price * terms.vm_capacity * terms.tick_s if price > 0 else 0.0 for price in shortage_prices]
    levels = max(min(top, terms.ceiling), terms.minimum, terms.initial)
    beyond = (np.arange(levels) >= terms.provisioned).astype(np.float64)
    return _schedules(
        wanted,
        levels=levels,
        running=terms.vm_tick + terms.disk_tick * beyond,
        start=terms.per_start,
        lost=lost,
        initial=terms.initial,
        minimum=terms.minimum,
        ceiling=terms.ceiling,
        lead_ticks=terms.lead_ticks,
    )


def _schedules(
    wanted: Float,
    *,
    levels: int,
    running: float | Float,
    start: float,
    lost: Sequence[float],
    initial: int,
    minimum: int = 0,
    ceiling: int | None = None,
    lead_ticks: int,
) -> list[Int]:
    """Solve the two-state recursion for all levels, for P prices of lost work side by side; return one schedule per price.

    `running` may be one price per level; the prices must not decrease from level to level.

    Let g be how much more being on costs than being off, up to and including a tick, given the last state. Then g' = clip(g,
    0, start) + running - loss when off, because a level that is off may turn on for `start`, and one that is on may turn off
    for nothing. Backwards, a level that is on was on before unless g > start, and one that is off was off unless g < 0.
    """
    ticks, width = len(wanted), len(lost) * levels
    if not levels:
        return [np.zeros(ticks, np.int64) for _ in lost]
    below = np.arange(levels, dtype=np.float64)
    going_on = np.full(width, start)
    never_early = np.full(width, math.inf)
    zeros = np.zeros(width)
    # The cost with which levels enter the first tick: those in service may stay for nothing, the others cannot be ready yet.
    carried = np.tile(np.where(below < initial, 0.0, math.inf if lead_ticks else start), len(lost))
    must_stay: list[NDArray[np.uint8]] = []
    may_stay: list[NDArray[np.uint8]] = []
    most = max(_CHUNK_TICKS // len(lost), 1)
    gained = np.empty((min(ticks, most), len(lost), levels))
    for first in range(0, ticks, most):
        table = _gains(wanted[first : first + most], below, running, lost, gained)
        _bound(table, first, minimum=minimum, ceiling=ceiling, initial=initial, lead_ticks=lead_ticks)
        for offset, row in enumerate(table.reshape(len(table), width)):
            np.add(carried, row, out=row)
            # Clip for the next tick; until the lead time is over, nothing can be turned on.
            early = first + offset + 1 < lead_ticks
            np.maximum(row, zeros, out=carried)
            np.minimum(carried, never_early if early else going_on, out=carried)
        # A level that is on was off before if g > limit; one that is off was on before if g < 0.
        limit = np.where(np.arange(first + 1, first + 1 + len(table)) < lead_ticks, math.inf, start)
        must_stay.append(np.packbits(table < 0.0, axis=2))
        may_stay.append(np.packbits(table <= limit[:, np.newaxis, np.newaxis], axis=2))
    vms = _walked_back(must_stay, may_stay)
    return [np.ascontiguousarray(column) for column in vms.T]


def _gains(wanted: Float, below: Float, running: float | Float, lost: Sequence[float], out: Float) -> Float:
    """Return running cost less avoided loss, (n, P, K)."""
    table = out[: len(wanted)]
    on = np.clip(wanted[:, np.newaxis] - below, 0.0, 1.0)
    for at, loss in enumerate(lost):
        if math.isinf(loss):
            # With an infinite loss, every level that is needed at all is on.
            table[:, at] = np.where(on > _ROUNDING, -math.inf, running)
        else:
            np.multiply(on, -loss, out=table[:, at])
            table[:, at] += running
    return table


def _bound(
    table: Float, first: int, *, minimum: int, ceiling: int | None, initial: int, lead_ticks: int
) -> None:
    table[..., :minimum] = -math.inf
    if ceiling is not None:
        table[..., max(ceiling, minimum) :] = math.inf
    # Unavailable before the first start serves, whatever they are worth.
    table[: max(lead_ticks - first, 0), :, initial:] = math.inf


def _walked_back(must_stay: list[NDArray[np.uint8]], may_stay: list[NDArray[np.uint8]]) -> Int:
    """Return VMs in service, int64 (T, P), by choosing each level's states from the last tick backwards."""
    vms: list[Int] = []
    on: NDArray[np.uint8] | None = None
    for must, may in zip(reversed(must_stay), reversed(may_stay), strict=True):
        states = np.empty_like(must)
        # After the last tick nothing follows, so a level is on there only if that pays by itself.
        before = np.zeros_like(must[0]) if on is None else on
        for tick in range(len(must) - 1, -1, -1):
            on = states[tick]
            np.bitwise_and(may[tick], before, out=on)
            np.bitwise_or(must[tick], on, out=on)
            before = on
        vms.append(np.bitwise_count(states).sum(axis=2, dtype=np.int64))
    return np.concatenate(vms[::-1])


def _started(vms: Int, initial: int) -> Int:
    return np.maximum(np.diff(vms, prepend=initial), 0)


def _stays_long_enough(vms: Int, terms: Terms) -> bool:
    """Whether every started VM stays for its minimum billing time if VMs stop in the order in which they started."""
    started = np.cumsum(_started(vms, terms.initial))
    recent = started.copy()
    recent[terms.least_ticks :] -= started[: -terms.least_ticks]
    return bool((vms >= recent).all())


def _priced(vms: Int, demand: Float, terms: Terms, shortage_price: float) -> Optimum:
    """Return a schedule with its costs."""
    started = _started(vms, terms.initial)
    known = np.where(np.isnan(demand), 0.0, demand)
    work = float(known.sum()) * terms.tick_s
    unserved = float(np.maximum(known - vms * terms.vm_capacity, 0.0).sum()) * terms.tick_s
    # Less than a rounding error of the demand itself counts as zero.
    unserved = unserved if unserved > _ROUNDING * work else 0.0
    storage_h = int(np.maximum(vms, terms.provisioned).sum()) * terms.tick_s / 3600.0
    return Optimum(
        vms=vms,
        running_cost=terms.vm_tick * int(vms.sum()),
        start_cost=terms.per_start * int(started.sum()),
        storage_cost=terms.stopped_per_h * storage_h,
        starts=int(started.sum()),
        unserved_work=unserved,
        unserved_share=unserved / work if work > 0 else math.nan,
        shortage_price=shortage_price,
        exact=True,
        remark="the exact optimum of running, starts and shortage",
    )
