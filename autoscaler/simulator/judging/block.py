"""The record of a run, interval by interval, and which columns of it the ledger sums.

Rules of this file: nothing is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float, SmallInt


@dataclass(slots=True)
class Block:
    """Up to B consecutive intervals of L lanes, tick by tick; row i is the interval that begins at tick `first_tick + i`.

    Counts are VMs, all int32 or all int16. Arrays may be overwritten once they have been added to sums.

    Attributes:
        tick_s: Length of an interval.
        first_tick: Tick at which the first row begins.
        demand: float64 (B, C), work per second wanted; NaN if unknown. C is the number of lanes, or less if neighbouring
            lanes want the same: then each column holds for L / C consecutive lanes.
        capacity: float64 (B, L), work per second that the VMs in service can do at the objective.
        shortage: float64 (B, L), work per second wanted and not served; NaN if demand is unknown. None if it equals what
            exceeds the capacity of the VMs that serve, all of which is lost.
        desired: (B, L), VMs wanted in service, after guards.
        in_service, starting, draining, stopped: (B, L), VMs in that state; starting includes provisioning.
        provisioned: (B, L), VMs that exist once the interval's orders are accepted; their disks are paid.
        warm_target: (B, L), stopped VMs wanted in the warm pool.
        starts, stops, provisions: (B, L), accepted in the interval.
        failed_starts: (B, L), starts and provisionings that failed in the interval.
        billed_vm_s: float64 (B, L), VM-seconds billed as running in the interval, including the minimum billing.
        cost: float64 (B, L), money of all parts: running, storage, starts, provisions.
        totals: Counts that are already summed over the rows, int (L,); their rows are not read.
        extra_s: float64 (B, L), billed VM-seconds that a `Tariff` cannot compute from counts; None for none.
        most_vms: An upper bound on every count.
    """

    tick_s: float
    first_tick: int
    demand: Float
    capacity: Float
    shortage: Float | None
    desired: SmallInt
    in_service: SmallInt
    starting: SmallInt
    draining: SmallInt
    stopped: SmallInt
    provisioned: SmallInt
    warm_target: SmallInt
    starts: SmallInt
    stops: SmallInt
    provisions: SmallInt
    failed_starts: SmallInt
    billed_vm_s: Float
    cost: Float
    totals: Mapping[Count, NDArray[np.signedinteger[Any]]] = field(default_factory=dict)
    extra_s: Float | None = None
    most_vms: float = math.inf

    @classmethod
    def empty(
        cls, ticks: int, lanes: int, tick_s: float, *, demands: int | None = None, narrow: bool = False
    ) -> Block:
        """Return a block of zeros for this many ticks, to be filled row by row and reused.

        Args:
            ticks: B.
            lanes: L.
            tick_s: Length of an interval.
            demands: C; None for as many as lanes.
            narrow: Whether counts are int16.
        """

        def work(width: int = lanes) -> Float:
            return np.zeros((ticks, width))

        def vms() -> SmallInt:
            return np.zeros((ticks, lanes), np.int16 if narrow else np.int32)

        return cls(
            tick_s=tick_s,
            first_tick=0,
            demand=work(demands or lanes),
            capacity=work(),
            shortage=work(),
            desired=vms(),
            in_service=vms(),
            starting=vms(),
            draining=vms(),
            stopped=vms(),
            provisioned=vms(),
            warm_target=vms(),
            starts=vms(),
            stops=vms(),
            provisions=vms(),
            failed_starts=vms(),
            billed_vm_s=work(),
            cost=work(),
        )


class Amount(IntEnum):
    """The float sums of a ledger."""

    DEMAND = 0
    """Work per second wanted, summed over the known ticks."""
    SHORTAGE = 1
    """Work per second not served, summed over the known ticks."""
    CAPACITY = 2
    """Work per second that the VMs in service could do."""
    BILLED_VM_S = 3
    """VM-seconds billed as running."""
    COST = 4
    """Money."""
    UNDER = 5
    """VMs missing against the need, as a share of the need, summed over the known ticks."""
    OVER = 6
    """VMs beyond the need, as a share of the need (of one VM if nothing is needed), summed over the known ticks."""


class Count(IntEnum):
    """The integer sums of a ledger."""

    UNKNOWN_TICKS = 0
    """Ticks whose demand or shortage is unknown."""
    IN_SERVICE = 1
    STARTING = 2
    DRAINING = 3
    STOPPED = 4
    WARM_TARGET = 5
    """VMs in that state (or wanted in the pool), summed over ticks."""
    STARTS = 6
    STOPS = 7
    PROVISIONS = 8
    FAILED_STARTS = 9
    """Number of VMs."""
    UNDER_TICKS = 10
    """Ticks with fewer VMs serving than needed. Those stopped at the beginning of the tick do not serve."""
    OVER_TICKS = 11
    """Ticks with more VMs serving than needed."""
    COMPARED_TICKS = 12
    """Ticks whose need is known, and that of the tick before too."""
    UNSTABLE_TICKS = 13
    """Compared ticks in which the VMs serving did not move in the direction of the need."""
    ARRIVED = 14
    MADE = 15
    """VMs that came into service from stopped, and from provisioning; only used by a `Tariff`."""
    PROVISIONED = 16
    """VMs that existed, summed over ticks."""
