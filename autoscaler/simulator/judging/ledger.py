"""The ledger of simulated fleets: cost, served work and movements of a run, summed as it streams by.

The plant writes `Block`s of consecutive intervals. `Sums` adds them up and keeps nothing else of them, so memory does not
depend on the length of a trace. The score card (`score`) is computed from `Sums` alone.

Rows are added a few at a time, as many as stay in the processor's cache from one operation to the next.

Rules of this file: no sum depends on how the ticks were cut into blocks, nor on the other lanes. Integers are counted
exactly, floats as `summing` describes. `Sums.followed_by` joins two adjoining segments with the same bits as the uncut run,
if the length of the first is a multiple of `grid_ticks`. Missing is never zero: intervals whose demand or shortage is
unknown are counted as unknown and left out of all figures about demand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.types import Bool, Float, Int, SmallInt
from autoscaler.simulator.judging.block import Amount, Block, Count
from autoscaler.simulator.judging.counting import Counted, least_vms
from autoscaler.simulator.judging.streaks import (
    Bits,
    Movement,
    Streaks,
    VmMovement,
    counted,
    raised,
)
from autoscaler.simulator.judging.summing import CELL_TICKS, FixedPoint, rows_together
from autoscaler.simulator.judging.tariff import Tariff

__all__ = ["THRASH_WINDOW_S", "Amount", "Block", "Count", "Sums", "grid_ticks"]

THRASH_WINDOW_S = 3600.0
"""Approximate length, in seconds, of the window within which movement against the trend counts as thrash."""

_ROUNDING = 1e-9
_FEW_COLUMNS, _FEW = 8, 16
"""Shortage is searched for by counts if there are at least this many times fewer columns of demand than lanes, and at most
one lane and tick in `_FEW` is short."""
_NOWHERE: Int = np.zeros(0, np.int64)
_MOST_VMS = 2.0**30


def grid_ticks(tick_s: float) -> int:
    """Return the number of ticks at whose multiples a run may be cut into segments that `Sums.followed_by` joins exactly."""
    return CELL_TICKS * max(1, round(THRASH_WINDOW_S / (CELL_TICKS * tick_s)))


class Sums:
    """Running sums of L lanes.

    Attributes:
        tick_s: Length of a tick.
        vm_capacity: float64 (L,), work per second of one VM at the objective; it converts demand to needed VMs.
        elasticity: Whether VMs are compared with the need tick by tick (`Amount.UNDER`, `OVER` and their ticks),
            which is a quarter of the work. Without it those sums are zero and mean nothing.
        tariff: Computes capacity, billed time and cost from counts; None if blocks contain them tick by tick.
        ticks: Number of ticks added.
        desired: Movement of the desired number of VMs.
        worst_shortage: float64 (L,), the highest shortage, work per second.
    """

    __slots__ = (
        "_amounts",
        "_bits",
        "_counts",
        "_first_known",
        "_first_need",
        "_first_supply",
        "_flags",
        "_last_known",
        "_last_need",
        "_last_supply",
        "_shares",
        "_steps",
        "_streaks",
        "_together",
        "_zeros",
        "desired",
        "elasticity",
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
        # Runs with shortage and runs of waiting side by side: one pass over twice as many columns is faster than two passes.
        self._streaks = Streaks.empty(2 * lanes)
        self.desired = Movement.empty(lanes, grid_ticks(tick_s))
        self.worst_shortage: Float = np.zeros(lanes)
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
        # Allocated once, because the allocator would map and unmap such large temporaries at every use.
        self._together = rows_together(self.lanes)
        shape = (self._together, self.lanes)
        self._shares: Float = np.empty((3, *shape))
        self._zeros: Float = np.zeros((1, self.lanes))
        self._flags: Bool = np.zeros(shape, np.bool_)
        self._steps: SmallInt = np.empty((3, *shape), np.int32)
        # Shortage, waiting, moves and moves up, one bit per tick of a part.
        self._bits = Bits(4, self.lanes, self._together)

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
        """Return one float sum, float64 (L,); NaN if something in it is unknown."""
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
        """Return one integer sum, int64 (L,)."""
        counts: Int = self._counts[which]
        return counts

    def add(self, block: Block, rows: slice = slice(None)) -> None:
        """Add rows of a block, in time order, each tick once.

        Args:
            block: A block with the same lanes and tick as these sums.
            rows: Which rows to add, without a step; must be all rows that the block's totals cover.

        Raises:
            ValueError: The block has another tick or other lanes.
        """
        if block.tick_s != self.tick_s or block.desired.shape[1] != self.lanes:
            raise ValueError(
                f"a block of {block.desired.shape[1]} lanes at {block.tick_s:g} s cannot be added to sums of"
                f" {self.lanes} lanes at {self.tick_s:g} s"
            )
        for count, total in block.totals.items():
            # Most counts stay zero.
            if np.count_nonzero(total):
                self._counts[count] += total
        first, end, _ = rows.indices(len(block.desired))
        while first < end:
            part = min(end - first, CELL_TICKS - self.ticks % CELL_TICKS)
            self._add_part(block, first, part)
            first += part

    def _add_part(self, block: Block, first: int, count: int) -> None:
        """Add rows of one cell, as many at once as stay in the processor's cache together with all temporaries."""
        rows = slice(first, first + count)
        demand = block.demand[rows]
        unknown = _has_unknown(demand) or (block.shortage is not None and _has_unknown(block.shortage[rows]))
        if unknown or self._amounts.begun:
            demand = _by_lane(demand, self.lanes)
        # The steps are 32 bits wide only if VMs are compared with the need, which may be any number.
        if not self.elasticity and self._steps.dtype != block.desired.dtype:
            self._steps = np.empty(self._steps.shape, block.desired.dtype)
        least = None if unknown else self._least(block, demand)
        # The first tick of a run counts as no movement.
        began = block.desired[first]
        movement = VmMovement(began, self.desired.last if self.ticks else began, block.most_vms)
        counts = Counted(self._counts, block)
        self._bits.begin()
        seen = self.ticks
        for at in range(0, count, self._together):
            few = min(self._together, count - at)
            here = slice(first + at, first + at + few)
            self._add_work(block, here, demand[at : at + few], at, least, unknown=unknown)
            self._add_counts(block, here, at, movement)
            counts.add(here)
            self._amounts.advance(finished=(self.ticks + few) % CELL_TICKS == 0)
            self.ticks += few
        counts.close()
        words = self._bits.words()
        self._streaks.add(words[:2].reshape(-1), count, seen)
        self.desired.add(movement, words[2], words[3], count, seen)

    def _add_work(
        self, block: Block, rows: slice, demand: Float, at: int, least: SmallInt | None, *, unknown: bool
    ) -> None:
        """Add work, and all else that is not a count, of a few rows; the first of them is row `at` of the part."""
        present = block.in_service[rows]
        few, add, known = len(present), self._amounts.add, None
        serving: SmallInt = self._steps[2, :few]
        if self.elasticity or block.shortage is None:
            np.subtract(present, block.stops[rows], out=serving)
        if least is not None and self._add_few_short(demand, serving, at, least[at : at + few]):
            shortage = None
        elif block.shortage is not None:
            shortage = block.shortage[rows]
        else:
            shortage = self._lost(demand, serving, self._shares[2, :few])
        if unknown and shortage is not None and (known := _known(shortage)) is not None:
            self._counts[Count.UNKNOWN_TICKS] += counted(~known)
            demand, shortage = np.where(known, demand, 0.0), np.where(known, shortage, 0.0)
        add(Amount.DEMAND, demand)
        if shortage is not None:
            add(Amount.SHORTAGE, shortage)
            raised(self.worst_shortage, shortage)
            self._bits.note(0, at, np.greater(shortage, 0.0, out=self._flags[:few]))
        if self.tariff is None:
            add(Amount.CAPACITY, block.capacity[rows])
            add(Amount.BILLED_VM_S, block.billed_vm_s[rows])
            add(Amount.COST, block.cost[rows])
        elif block.extra_s is not None:
            add(Amount.BILLED_VM_S, block.extra_s[rows])
        if self.elasticity:
            self._add_elasticity(serving, self._need(_by_lane(demand, self.lanes)), known)

    def _add_counts(self, block: Block, rows: slice, at: int, movement: VmMovement) -> None:
        """Add the movement of the desired number, and whether it waits for VMs, of a few rows."""
        desired = block.desired[rows]
        note, flags = self._bits.note, self._flags[: len(desired)]
        note(1, at, np.greater(desired, block.in_service[rows], out=flags))
        steps = movement.steps(desired, self._steps[0, : len(desired)])
        if np.not_equal(steps, 0, out=flags).any():
            note(2, at, flags)
            note(3, at, np.greater(steps, 0, out=flags))
            movement.see(desired, steps)

    def _least(self, block: Block, demand: Float) -> SmallInt | None:
        """Return the fewest VMs that leave no demand unserved, int (n, C), with the same rounding as `_lost`.

        None if the block contains shortage, or if searching for shortage by whole VMs would not be faster.
        """
        each = self.vm_capacity[0]
        wide = _FEW_COLUMNS * demand.shape[1] <= self.lanes
        if block.shortage is not None or not wide or each <= 0.0 or (self.vm_capacity != each).any():
            return None
        return least_vms(demand, float(each), self._steps.dtype)

    def _add_few_short(self, demand: Float, serving: SmallInt, at: int, least: SmallInt) -> bool:
        """Add the shortage of a few rows if few lanes are short; return False, without adding anything, if more are.

        Most lanes have no shortage most of the time, and one comparison of counts finds those that do.
        """
        rows, columns = demand.shape
        short = self._flags[:rows]
        np.less(
            serving.reshape(rows, columns, -1),
            least[:, :, np.newaxis],
            out=short.reshape(rows, columns, -1),
        )
        found = np.count_nonzero(short)
        if found * _FEW > short.size:
            return False
        # For few places, numpy lists flat indices much faster than pairs.
        row, lane = np.divmod(short.reshape(-1).nonzero()[0], self.lanes) if found else (_NOWHERE, _NOWHERE)
        of_column = self.lanes // columns
        lacking = demand[row, lane // of_column] - serving[row, lane] * self.vm_capacity[lane]
        self._amounts.add_few(Amount.SHORTAGE, lane, lacking)
        if found:
            np.maximum.at(self.worst_shortage, lane, lacking)
            self._bits.note(0, at, short)
        return True

    def _lost(self, demand: Float, serving: SmallInt, out: Float) -> Float:
        """Write the work per second that is not served, if such work is lost, to `out`: (n, L)."""
        each = self.vm_capacity
        np.copyto(out, serving)
        out *= each[:1] if (each == each[:1]).all() else each
        wide = out.reshape(len(out), demand.shape[1], -1)
        np.subtract(demand[:, :, np.newaxis], wide, out=wide)
        # A row of zeros, because numpy's maximum with a scalar is twice as slow.
        return np.maximum(out, self._zeros, out=out)

    def _need(self, demand: Float) -> SmallInt:
        """Return the VMs that the demand needs: (n, L), or (n, 1) if demand and VMs are the same in all lanes."""
        capacity = self.vm_capacity
        if demand.shape[1] == 1 and (capacity == capacity[:1]).all():
            capacity = capacity[:1]
        shape = np.broadcast_shapes(demand.shape, (len(demand), len(capacity)))
        need = np.divide(demand, capacity, out=self._shares[0, : len(demand), : shape[1]])
        need -= _ROUNDING
        np.ceil(need, out=need)
        return np.clip(need, 0.0, _MOST_VMS, out=need).astype(np.int32)

    def _add_elasticity(self, supply: SmallInt, need: SmallInt, known: Bool | None) -> None:
        """Add under- and over-provisioning and instability against the need, (n, L) or (n, 1)."""
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
        # A row of zeros, because numpy's maximum with a scalar is twice as slow.
        self._amounts.add(Amount.OVER, np.maximum(share, self._zeros, out=part))
        np.negative(share, out=share)
        self._amounts.add(Amount.UNDER, np.maximum(share, self._zeros, out=part))

    def _compare_directions(self, supply: SmallInt, need: SmallInt, known: Bool | None) -> None:
        """Count the ticks in which supply and need moved in different directions."""
        if self.ticks == 0:
            self._first_supply[:] = supply[0]
            self._first_need[:] = need[0]
            self._first_known[:] = True if known is None else known[0]
            # Marked unknown, so that the first tick is not compared with anything before it.
            self._last_known[:] = False
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
        self._last_supply[:] = supply[-1]
        self._last_need[:] = need[-1]
        self._last_known[:] = True if known is None else known[-1]

    def taken(self, lanes: Int | slice) -> Sums:
        """Return the sums of some of the lanes, in the order given, as a copy."""
        tariff = None if self.tariff is None else self.tariff.taken(lanes)
        new = Sums(self.tick_s, self.vm_capacity[lanes], elasticity=self.elasticity, tariff=tariff)
        new.ticks = self.ticks
        new._streaks = Streaks.side_by_side([self.short.taken(lanes), self.waiting.taken(lanes)])
        new.desired = self.desired.taken(lanes)
        new._amounts = self._amounts.taken(lanes)
        new._counts = self._counts[:, lanes].copy()
        for name in ("worst_shortage", *_ENDS):
            setattr(new, name, getattr(self, name)[lanes].copy())
        return new

    @classmethod
    def side_by_side(cls, parts: Sequence[Sums]) -> Sums:
        """Join the lanes of several sums over equally many ticks, in order.

        Raises:
            ValueError: There are no sums, or they differ in tick length, number of ticks, elasticity or billing.
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
        for name in ("worst_shortage", *_ENDS):
            setattr(new, name, np.concatenate([getattr(part, name) for part in parts]))
        return new

    def followed_by(self, second: Sums) -> Sums:
        """Return the sums of this segment joined with the segment whose first tick follows this one's last.

        The caller guarantees that they adjoin, lane by lane; the result has the same bits as the uncut run.

        Raises:
            ValueError: They differ in lanes or tick, or this one's length is not a multiple of `grid_ticks`.
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
        for name in _ENDS:
            setattr(new, name, getattr(self if name.startswith("_first") else second, name))
        return new

    def _compare_seam(self, first: Sums, second: Sums) -> None:
        """Compare directions at the first tick of the second of two segments."""
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
_ROOM = ("_bits", "_flags", "_shares", "_steps", "_together", "_zeros")
_ENDS = ("_first_supply", "_last_supply", "_first_need", "_last_need", "_first_known", "_last_known")


def _by_lane(demand: Float, lanes: int) -> Float:
    """Return demand (n, C) as (n, L), or unchanged if all lanes share one column."""
    columns = demand.shape[1]
    return demand if columns in (1, lanes) else np.repeat(demand, lanes // columns, axis=1)


def _has_unknown(amounts: Float) -> bool:
    # A single sum needs no array of flags as large as the amounts.
    return bool(np.isnan(np.add.reduce(amounts, axis=None)))


def _known(shortage: Float) -> Bool | None:
    """Return where shortage, and with it demand, is known: bool (n, L); None if everywhere."""
    unknown = np.isnan(shortage)
    return ~unknown if unknown.any() else None


def _directions(value: SmallInt, before: Int | SmallInt, steps: SmallInt) -> SmallInt:
    """Write the sign of the step into each row, -1, 0 or 1, to `steps`, (n, W)."""
    np.subtract(value[0], before[: value.shape[1]], out=steps[0], casting="unsafe")
    np.subtract(value[1:], value[:-1], out=steps[1:])
    return np.sign(steps, out=steps)
