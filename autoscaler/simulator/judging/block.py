"""The record of a run, interval by interval, and which columns of it the ledger sums.

Rules of this file: nothing that computes.
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
    """Up to B consecutive intervals of L lanes, tick by tick; row i is the interval that begins at tick
    `first_tick + i`. Counts are VMs: int32, or int16 all. Arrays may be overwritten once they have been added.

    Attributes:
        tick_s: Length of an interval.
        first_tick: Tick at which the first row begins.
        demand: float64 (B, C), work per second wanted; NaN unknown. C is the number of lanes, or less where lanes
            side by side want the same: each column is that of L / C lanes, one after the other.
        capacity: float64 (B, L), work per second that the VMs in service could do at the objective.
        shortage: float64 (B, L), work per second wanted and not served; NaN where demand is unknown. None where it is
            what the VMs that serve cannot do, all of which is lost.
        desired: (B, L), VMs wanted in service, after guards.
        in_service, starting, draining, stopped: (B, L), VMs in that state; starting includes provisioning.
        provisioned: (B, L), VMs that exist once the interval's orders are accepted: those whose disks it pays.
        warm_target: (B, L), stopped VMs wanted in the warm pool.
        starts, stops, provisions: (B, L), accepted in the interval.
        failed_starts: (B, L), starts and provisions that failed in the interval.
        billed_vm_s: float64 (B, L), VM-seconds billed as running in the interval, the minimum billing
            included.
        cost: float64 (B, L), money of all parts: running, storage, starts, provisions.
        totals: Counts that are summed over the rows already, int (L,); their rows are not read.
        extra_s: float64 (B, L), VM-seconds billed that a `Tariff` does not know of; None for none.
        most_vms: No count is higher.
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
        """Room for so many ticks, to be written row by row and used again; all zero.

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
    """VMs serving beyond the need, as a share of the need (of one VM where nothing is needed), likewise."""


class Count(IntEnum):
    """The integer sums of a ledger."""

    UNKNOWN_TICKS = 0
    """Ticks whose demand or shortage is unknown."""
    IN_SERVICE = 1
    STARTING = 2
    DRAINING = 3
    STOPPED = 4
    WARM_TARGET = 5
    """VMs in that state (or wanted there), summed over ticks."""
    STARTS = 6
    STOPS = 7
    PROVISIONS = 8
    FAILED_STARTS = 9
    """VMs."""
    UNDER_TICKS = 10
    """Ticks with fewer VMs serving than needed: those in service less those stopped at the beginning of the tick."""
    OVER_TICKS = 11
    """Ticks with more VMs serving than needed."""
    COMPARED_TICKS = 12
    """Ticks whose need is known and that of the tick before too."""
    UNSTABLE_TICKS = 13
    """Of these, ticks in which the VMs serving did not move in the direction of the need."""
    ARRIVED = 14
    MADE = 15
    """VMs that came into service, from stopped and from nothing; only for a `Tariff`."""
    PROVISIONED = 16
    """VMs that existed, summed over ticks."""
