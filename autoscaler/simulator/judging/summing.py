"""Floating-point sums that do not depend on how a run was cut: the arithmetic of the ledger.

Floating-point addition is not associative, so the order is fixed. Rows are added one after another within a cell of
`CELL_TICKS` ticks, counted from the first tick of the sums, and each finished cell is added in fixed point: whole part and
fraction (in units of 2^-40) as two int64 numbers. Integer addition is associative, so cells may be added in any grouping:
blocks of any length, and segments of whole cells that were summed separately, give the same bits. Fixed point drops less
than 10^-12 of a unit per cell.

Lanes are independent: every operation is element-wise over lanes, and rows are added in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.types import Bool, Float, Int

CELL_TICKS = 64
"""Rows added in floating point before their sum is added in fixed point."""

_UNIT = 2.0**-40


_TOGETHER = 2**17
"""Numbers processed together: fewer cost more calls, and more do not stay in the processor's cache."""


def rows_together(lanes: int) -> int:
    """Return how many rows of this many lanes are best processed at once: a power of two up to a cell."""
    rows = CELL_TICKS
    while rows > 1 and rows * lanes > _TOGETHER:
        rows //= 2
    return rows


def added_rows(rows: Float, before: Float | None = None) -> Float:
    """Add the rows one after another, starting from `before` if given: float64 (W,) from (n, W)."""
    if before is not None:
        # This copies the rows, but only incomplete cells need it.
        rows = np.concatenate((before[np.newaxis], np.broadcast_to(rows, (len(rows), len(before)))))
    if rows.shape[1] == 1:
        # numpy adds many columns row by row, but a single column in pairs; this adds it row by row.
        one_by_one: Float = np.add.accumulate(rows, axis=0)[-1]
        return one_by_one
    # numpy would also add in pairs along columns that are not adjacent in memory.
    added: Float = np.add.reduce(np.ascontiguousarray(rows), axis=0)
    return added


class FixedPoint:
    """F running sums for each of L lanes.

    Attributes:
        whole: int64 (F, L), whole parts of the finished cells.
        fraction: int64 (F, L), fractions of the finished cells, in 2^-40.
        unknown: bool (F, L), whether something in the sum was NaN or infinite.
        open: float64 (F, L), the sum of the unfinished cell; meaningless between cells.
        begun: Whether a cell is unfinished.
        used: Indices of the sums to which something was ever added.
    """

    __slots__ = ("begun", "fraction", "open", "unknown", "used", "whole")

    def __init__(self, sums: int, lanes: int) -> None:
        self.whole: Int = np.zeros((sums, lanes), np.int64)
        self.fraction: Int = np.zeros((sums, lanes), np.int64)
        self.unknown: Bool = np.zeros((sums, lanes), np.bool_)
        self.open: Float = np.zeros((sums, lanes))
        self.begun = False
        self.used: set[int] = set()

    def add(self, index: int, rows: Float) -> None:
        """Add rows to one sum. Call `advance` after the same rows have been added to all sums.

        Args:
            index: Which sum.
            rows: float64 (n, L), in time order, all of one cell. Or (n, C), if each column holds for L / C
                neighbouring lanes whose sums are equal so far.
        """
        self.used.add(index)
        cell = self.open[index]
        columns = rows.shape[1]
        if columns < len(cell):
            before = cell[:: len(cell) // columns] if self.begun else None
            cell.reshape(columns, -1)[...] = added_rows(rows, before)[:, np.newaxis]
        elif not self.begun:
            cell[:] = added_rows(rows)
        elif len(rows) == 1:
            cell += rows[0]
        elif columns == 1:
            cell[:] = added_rows(rows, cell)
        else:
            # Adds in time order too, without copying all rows.
            cell += rows[0]
            for row in rows[1:]:
                cell += row

    def add_few(self, index: int, lanes: Int, amounts: Float) -> None:
        """Add rows in which all other lanes are zero, like `add`.

        Args:
            index: Which sum.
            lanes: int64 (m,), the lane of each amount, row by row in time order.
            amounts: float64 (m,), none negative.
        """
        self.used.add(index)
        cell = self.open[index]
        if not self.begun:
            cell.fill(0.0)
        # Adds one after the other in the given order, also if a lane occurs more than once.
        np.add.at(cell, lanes, amounts)

    def advance(self, *, finished: bool) -> None:
        """Declare that every sum has been given its rows, and whether they finish the cell."""
        self.begun = not finished
        if finished:
            self._close(self.whole, self.fraction, self.unknown)

    def totals(self) -> Float:
        """Return float64 (F, L), including the unfinished cell; NaN if something in the sum is unknown."""
        whole, fraction, unknown = self.whole, self.fraction, self.unknown
        if self.begun:
            whole, fraction, unknown = whole.copy(), fraction.copy(), unknown.copy()
            self._close(whole, fraction, unknown)
        return np.where(unknown, np.nan, whole + fraction * _UNIT)

    def _close(self, whole: Int, fraction: Int, unknown: Bool) -> None:
        """Add the unfinished cell in fixed point; sums that were never added to have none."""
        for sum_of in self.used:
            cell = self.open[sum_of]
            bad = ~np.isfinite(cell)
            if bad.any():
                unknown[sum_of] |= bad
                cell = np.where(bad, 0.0, cell)
            whole_of = np.floor(cell)
            part = np.rint((cell - whole_of) / _UNIT)
            whole[sum_of] += whole_of.astype(np.int64)
            fraction[sum_of] += part.astype(np.int64)

    def taken(self, lanes: Int | slice) -> FixedPoint:
        """Return the sums of some of the lanes, in the order given."""
        new = FixedPoint.__new__(FixedPoint)
        new.whole, new.fraction = self.whole[:, lanes].copy(), self.fraction[:, lanes].copy()
        new.unknown, new.open = self.unknown[:, lanes].copy(), self.open[:, lanes].copy()
        new.begun, new.used = self.begun, set(self.used)
        return new

    @classmethod
    def side_by_side(cls, parts: Sequence[FixedPoint]) -> FixedPoint:
        """Join the lanes of several sums over equally many ticks, in order."""
        new = cls.__new__(cls)
        for name in ("whole", "fraction", "unknown", "open"):
            setattr(new, name, np.concatenate([getattr(part, name) for part in parts], axis=1))
        new.begun = parts[0].begun
        new.used = set().union(*(part.used for part in parts))
        return new

    def followed_by(self, second: FixedPoint) -> FixedPoint:
        """Return the sums of two adjoining runs; this one must end with a finished cell."""
        new = second.taken(slice(None))
        new.whole += self.whole
        new.fraction += self.fraction
        new.unknown |= self.unknown
        new.used |= self.used
        return new
