"""The ledger of simulated fleets: what a run cost, served and moved, summed while it streams by.

The plant writes `Block`s of consecutive intervals; `Sums` adds them up and forgets them, so memory does not
depend on the length of a trace. The score card (`score`) reads nothing but `Sums`.

Rules of this file: no sum depends on how the ticks were cut into blocks, nor on the other lanes; integers are
counted exactly, floats as `summing` says. `Sums.followed_by` joins two adjoining segments to the bits of the
uncut run, where the first is a whole number of `grid_ticks`. Missing is never zero: intervals whose demand or
shortage is unknown are counted as unknown and left out of what is about demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Bool, Float, Int, SmallInt
from autoscaler.simulator.judging.block import Amount, Block, Count
from autoscaler.simulator.judging.streaks import Movement, Streaks, counted, summed
from autoscaler.simulator.judging.summing import CELL_TICKS, FixedPoint
from autoscaler.simulator.judging.tariff import Tariff

__all__ = ["THRASH_WINDOW_S", "Amount", "Block", "Count", "Sums", "grid_ticks"]

THRASH_WINDOW_S = 3600.0
"""About how long the window is in which movement against the trend counts as thrash."""

_ROUNDING = 1e-9
_MOST_VMS = 2.0**30


_SUMMED = (
    (Count.IN_SERVICE, "in_service"),
    (Count.STARTING, "starting"),
    (Count.DRAINING, "draining"),
    (Count.STOPPED, "stopped"),
    (Count.WARM_TARGET, "warm_target"),
    (Count.STARTS, "starts"),
    (Count.STOPS, "stops"),
    (Count.PROVISIONS, "provisions"),
    (Count.FAILED_STARTS, "failed_starts"),
)


def grid_ticks(tick_s: float) -> int:
    """Ticks at whose multiples a run may be cut into segments that `Sums.followed_by` joins exactly."""
    return CELL_TICKS * max(1, round(THRASH_WINDOW_S / (CELL_TICKS * tick_s)))


class Sums:
    """Running sums of L lanes.

    Attributes:
        tick_s: Length of a tick.
        vm_capacity: float64 (L,), work per second of one VM at the objective: what turns demand into need.
        elasticity: Whether VMs are held against the need tick by tick (`Amount.UNDER`, `OVER` and their ticks),
            which is a quarter of the work; without it those are zero and not to be read.
        tariff: What makes capacity, billed time and cost of counts; None where blocks tell these tick by tick.
        ticks: Ticks added.
        desired: Movement of the VMs wanted in service.
        worst_shortage: float64 (L,), the highest shortage, work per second.
        most_in_service: int64 (L,), the highest number of VMs in service.
    """

    __slots__ = (
        "_amounts",
        "_counts",
        "_first_known",
        "_first_need",
        "_first_supply",
        "_holds",
        "_last_known",
        "_last_need",
        "_last_supply",
        "_shares",
        "_steps",
        "_streaks",
        "_zeros",
        "desired",
        "elasticity",
        "most_in_service",
        "tariff",
        "tick_s",
        "ticks",
        "vm_capacity",
        "worst_shortage",
    )

    def __init__(
        self, tick_s: float, vm_capacity: Float, *, elasticity: bool = True, tariff: Tariff | None = None
    ) -> None:
        lanes = len(vm_capacity)
        self.tariff = tariff
        self.tick_s = tick_s
        self.elasticity = elasticity
        self.vm_capacity = np.array(vm_capacity, np.float64)
        self.ticks = 0
        # Both runs side by side, shortage first: one pass over twice as many columns is quicker than two passes.
        self._streaks = Streaks.empty(2 * lanes)
        self.desired = Movement.empty(lanes, grid_ticks(tick_s))
        self.worst_shortage: Float = np.zeros(lanes)
        self.most_in_service: Int = np.zeros(lanes, np.int64)
        self._amounts = FixedPoint(len(Amount), lanes)
        self._counts: Int = np.zeros((len(Count), lanes), np.int64)
        self._first_supply: Int = np.zeros(lanes, np.int64)
        self._last_supply: Int = np.zeros(lanes, np.int64)
        self._first_need: SmallInt = np.zeros(lanes, np.int32)
        self._last_need: SmallInt = np.zeros(lanes, np.int32)
        self._first_known: Bool = np.zeros(lanes, np.bool_)
        self._last_known: Bool = np.zeros(lanes, np.bool_)
        self._make_room()

    def _make_room(self) -> None:
        # Temporaries as large as a part would be mapped and unmapped by the allocator at every use.
        self._shares: Float = np.empty((2, CELL_TICKS, self.lanes))
        self._zeros: Float = np.zeros((1, self.lanes))
        self._holds: Bool = np.zeros((CELL_TICKS, 2 * self.lanes), np.bool_)
        self._steps: SmallInt = np.empty((3, CELL_TICKS, self.lanes), np.int32)

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return len(self.vm_capacity)

    @property
    def short(self) -> Streaks:
        """Runs of ticks with shortage: the episodes."""
        return self._streaks.taken(slice(0, self.lanes))

    @property
    def waiting(self) -> Streaks:
        """Runs of ticks with fewer VMs in service than desired."""
        return self._streaks.taken(slice(self.lanes, None))

    def amount(self, which: Amount) -> Float:
        """One float sum: float64 (L,); NaN where something in it is unknown."""
        told: Float = self._amounts.totals()[which]
        if self.tariff is None or which not in _BY_TARIFF:
            return told
        count = self._counts
        in_service, stops, made = count[Count.IN_SERVICE], count[Count.STOPS], count[Count.MADE]
        if which is Amount.CAPACITY:
            return self.tariff.work(in_service, stops)
        extra_s: Float = self._amounts.totals()[Amount.BILLED_VM_S]
        billed_s = self.tariff.billed_s(
            in_service, stops, count[Count.DRAINING], count[Count.ARRIVED], made, extra_s
        )
        if which is Amount.BILLED_VM_S:
            return billed_s
        came, provisions = count[Count.ARRIVED] + made, count[Count.PROVISIONS]
        return self.tariff.cost(billed_s, count[Count.PROVISIONED], came, provisions)

    def count(self, which: Count) -> Int:
        """One integer sum: int64 (L,)."""
        counts: Int = self._counts[which]
        return counts

    def add(self, block: Block, rows: slice = slice(None)) -> None:
        """Add rows of a block, in time order, each tick once.

        Args:
            block: Of as many lanes as these sums.
            rows: Which of its rows, without a step; all that its totals are of.

        Raises:
            ValueError: The block has another tick or other lanes.
        """
        if block.tick_s != self.tick_s or block.desired.shape[1] != self.lanes:
            raise ValueError(
                f"a block of {block.desired.shape[1]} lanes at {block.tick_s:g} s cannot be added to sums of"
                f" {self.lanes} lanes at {self.tick_s:g} s"
            )
        for count, total in block.totals.items():
            self._counts[count] += total
        first, end, _ = rows.indices(len(block.desired))
        while first < end:
            part = min(end - first, CELL_TICKS - self.ticks % CELL_TICKS)
            self._add_part(block, slice(first, first + part))
            self.ticks += part
            first += part

    def _add_part(self, block: Block, rows: slice) -> None:
        demand, shortage = block.demand[rows], block.shortage[rows]
        desired, present = block.desired[rows], block.in_service[rows]
        add = self._amounts.add
        wanted, lacked = (
            self._amounts.added(Amount.DEMAND, demand),
            self._amounts.added(Amount.SHORTAGE, shortage),
        )
        known = None
        if np.isnan(wanted).any() or np.isnan(lacked).any():
            known = _known(demand, shortage)
        if known is None:
            self._amounts.open[Amount.DEMAND], self._amounts.open[Amount.SHORTAGE] = wanted, lacked
        else:
            self._counts[Count.UNKNOWN_TICKS] += counted(~known)
            demand, shortage = np.where(known, demand, 0.0), np.where(known, shortage, 0.0)
            add(Amount.DEMAND, demand)
            add(Amount.SHORTAGE, shortage)
        if self.tariff is None:
            add(Amount.CAPACITY, block.capacity[rows])
            add(Amount.BILLED_VM_S, block.billed_vm_s[rows])
            add(Amount.COST, block.cost[rows])
        elif block.extra_s is not None:
            add(Amount.BILLED_VM_S, block.extra_s[rows])
        if self.elasticity:
            supply = np.subtract(present, block.stops[rows], out=self._steps[2, : len(desired)])
            self._add_elasticity(supply, self._need(demand), known)
        self._amounts.advance(finished=(self.ticks + len(desired)) % CELL_TICKS == 0)

        for count, name in _SUMMED:
            if count not in block.totals:
                self._counts[count] += summed(getattr(block, name)[rows])
        self.worst_shortage = np.maximum(self.worst_shortage, np.maximum.reduce(shortage, axis=0))
        self.most_in_service = np.maximum(self.most_in_service, np.maximum.reduce(present, axis=0))
        holds = self._holds[: len(desired)]
        np.greater(shortage, 0.0, out=holds[:, : self.lanes])
        np.greater(desired, present, out=holds[:, self.lanes :])
        self._streaks.add(holds, self.ticks)
        self.desired.add(desired, self.ticks, self._steps[0, : len(desired)])

    def _need(self, demand: Float) -> SmallInt:
        """VMs that the demand needs: (n, L), or (n, 1) where demand and VMs are the same in all lanes."""
        capacity = self.vm_capacity
        if demand.shape[1] == 1 and (capacity == capacity[:1]).all():
            capacity = capacity[:1]
        shape = np.broadcast_shapes(demand.shape, (len(demand), len(capacity)))
        need = np.divide(demand, capacity, out=self._shares[0, : len(demand), : shape[1]])
        need -= _ROUNDING
        np.ceil(need, out=need)
        return np.clip(need, 0.0, _MOST_VMS, out=need).astype(np.int32)

    def _add_elasticity(self, supply: SmallInt, need: SmallInt, known: Bool | None) -> None:
        """Under- and over-provisioning and instability against the need, (n, L) or (n, 1)."""
        self._compare_directions(supply, need, known)
        rows = len(supply)
        weight = 1.0 / np.maximum(need, 1)
        gap = np.subtract(supply, need, out=self._steps[0, :rows])
        if known is not None:
            gap *= known
        missing = gap < 0
        self._counts[Count.OVER_TICKS] += counted(gap > 0)
        share, part = self._shares[0, :rows], self._shares[1, :rows]
        np.copyto(share, gap)
        share *= weight
        if not missing.any():
            part.fill(0.0)
            self._amounts.add(Amount.OVER, share)
            self._amounts.add(Amount.UNDER, part)
            return
        self._counts[Count.UNDER_TICKS] += counted(missing)
        # A row of zeros: with a scalar, numpy's maximum is twice as slow.
        self._amounts.add(Amount.OVER, np.maximum(share, self._zeros, out=part))
        np.negative(share, out=share)
        self._amounts.add(Amount.UNDER, np.maximum(share, self._zeros, out=part))

    def _compare_directions(self, supply: SmallInt, need: SmallInt, known: Bool | None) -> None:
        if self.ticks == 0:
            self._first_supply = supply[0].astype(np.int64)
            self._first_need = self._over_lanes(need[0])
            self._first_known = np.ones(self.lanes, np.bool_) if known is None else self._over_lanes(known[0])
            # Nothing is compared with what was before the first tick.
            self._last_known = np.zeros(self.lanes, np.bool_)
        rows = len(supply)
        moved = _directions(supply, self._last_supply, self._steps[0, :rows])
        wanted = _directions(need, self._last_need, self._steps[1, :rows, : need.shape[1]])
        unstable = moved != wanted
        first = self._last_known if known is None else self._last_known & known[0]
        compared = first.astype(np.int64)
        unstable[0] &= first
        if known is None:
            compared += len(supply) - 1
        else:
            both = known[1:] & known[:-1]
            unstable[1:] &= both
            compared += counted(both)
        self._counts[Count.COMPARED_TICKS] += compared
        self._counts[Count.UNSTABLE_TICKS] += counted(unstable)
        self._last_supply = supply[-1].astype(np.int64)
        self._last_need = self._over_lanes(need[-1])
        self._last_known = np.ones(self.lanes, np.bool_) if known is None else self._over_lanes(known[-1])

    def _over_lanes(self, row: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(row, (self.lanes,)).copy()

    def taken(self, lanes: Int | slice) -> Sums:
        """The sums of some of the lanes, in the order given; shares nothing with these."""
        tariff = None if self.tariff is None else self.tariff.taken(lanes)
        new = Sums(self.tick_s, self.vm_capacity[lanes], elasticity=self.elasticity, tariff=tariff)
        new.ticks = self.ticks
        new._streaks = Streaks.side_by_side([self.short.taken(lanes), self.waiting.taken(lanes)])
        new.desired = self.desired.taken(lanes)
        new._amounts = self._amounts.taken(lanes)
        new._counts = self._counts[:, lanes].copy()
        for name in ("worst_shortage", "most_in_service", *_ENDS):
            setattr(new, name, getattr(self, name)[lanes].copy())
        return new

    @classmethod
    def side_by_side(cls, parts: Sequence[Sums]) -> Sums:
        """The lanes of several sums over equally many ticks, one after the other.

        Raises:
            ValueError: No sums, or they differ in tick length or number of ticks.
        """
        tariffs = [part.tariff for part in parts if part.tariff is not None]
        alike = {(part.tick_s, part.ticks, part.elasticity, part.tariff is None) for part in parts}
        if len(alike) != 1:
            raise ValueError(
                "only sums over equally many ticks of one length, billed alike, can be put side by side"
            )
        new = cls(
            parts[0].tick_s,
            np.concatenate([part.vm_capacity for part in parts]),
            elasticity=parts[0].elasticity,
            tariff=Tariff.side_by_side(tariffs) if tariffs else None,
        )
        new.ticks = parts[0].ticks
        new._streaks = Streaks.side_by_side(
            [*(part.short for part in parts), *(part.waiting for part in parts)]
        )
        new.desired = Movement.side_by_side([part.desired for part in parts])
        new._amounts = FixedPoint.side_by_side([part._amounts for part in parts])  # noqa: SLF001
        new._counts = np.concatenate([part._counts for part in parts], axis=1)  # noqa: SLF001
        for name in ("worst_shortage", "most_in_service", *_ENDS):
            setattr(new, name, np.concatenate([getattr(part, name) for part in parts]))
        return new

    def followed_by(self, second: Sums) -> Sums:
        """The sums of this segment and the one whose first tick follows this one's last.

        The caller vouches that they adjoin, lane by lane; the result has the bits of the uncut run.

        Raises:
            ValueError: They differ in lanes or tick, or this one is not a whole number of `grid_ticks`.
        """
        grid = grid_ticks(self.tick_s)
        alike = (second.tick_s, second.elasticity) == (self.tick_s, self.elasticity)
        if not alike or not np.array_equal(second.vm_capacity, self.vm_capacity):
            raise ValueError("segments of one run have the same tick and the same VMs in every lane")
        if self.ticks % grid:
            raise ValueError(
                f"a segment of {self.ticks} ticks of {self.tick_s:g} s cannot be followed by another: cut a run"
                f" at multiples of {grid} ticks"
            )
        if not self.ticks or not second.ticks:
            return (self if self.ticks else second).taken(slice(None))
        new = Sums(self.tick_s, self.vm_capacity, elasticity=self.elasticity, tariff=self.tariff)
        new.ticks = self.ticks + second.ticks
        new._streaks = self._streaks.followed_by(second._streaks, self.ticks, second.ticks)
        new.desired = self.desired.followed_by(second.desired, second.ticks)
        new._amounts = self._amounts.followed_by(second._amounts)
        new._counts = self._counts + second._counts
        new._compare_seam(self, second)
        new.worst_shortage = np.maximum(self.worst_shortage, second.worst_shortage)
        new.most_in_service = np.maximum(self.most_in_service, second.most_in_service)
        for name in _ENDS:
            setattr(new, name, getattr(self if name.startswith("_first") else second, name))
        return new

    def _compare_seam(self, first: Sums, second: Sums) -> None:
        wanted = second._first_need - first._last_need
        moved = second._first_supply - first._last_supply
        compared = first._last_known & second._first_known
        self._counts[Count.COMPARED_TICKS] += compared
        self._counts[Count.UNSTABLE_TICKS] += compared & (np.sign(moved) != np.sign(wanted))

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__ if name not in _ROOM}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._make_room()


_BY_TARIFF = (Amount.CAPACITY, Amount.BILLED_VM_S, Amount.COST)
_ROOM = ("_holds", "_shares", "_steps", "_zeros")
_ENDS = ("_first_supply", "_last_supply", "_first_need", "_last_need", "_first_known", "_last_known")


def _known(demand: Float, shortage: Float) -> Bool | None:
    """Where demand and shortage are known: bool (n, L); None if everywhere."""
    unknown = np.isnan(shortage)
    unknown_demand = np.isnan(demand)
    if unknown_demand.any():
        unknown = unknown | unknown_demand
    return ~unknown if unknown.any() else None


def _directions(value: SmallInt, before: Int | SmallInt, steps: SmallInt) -> SmallInt:
    """Sign of the step into each row, (n, W): -1, 0 or 1, written to `steps`."""
    np.subtract(value[0], before[: value.shape[1]], out=steps[0], casting="unsafe")
    np.subtract(value[1:], value[:-1], out=steps[1:])
    return np.sign(steps, out=steps)
