"""Identical lanes: results that follow from equal inputs are computed once and shared.

Variants of a policy share a series, and often a price. Whether their numbers are equal is checked in each tick, so sharing
affects nothing but the time taken.

Rules of this file: it compares and copies, and computes nothing else.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

Number = TypeVar("Number", Float, Int, SmallFloat, SmallInt, Bool)


def one_of(value: Number) -> Number:
    """Reduce (..., n) equal columns to one, (..., 1), with which numpy is much faster; unequal columns are returned as they are."""
    first = value[..., :1]
    found: Number = first if np.count_nonzero(value == first) == value.size else value
    return found


class ColumnGroups:
    """Groups of columns that have equal given values.

    Args:
        given: float64 or int64 (n,) each, what must be equal within a group.

    Attributes:
        first: int64 (G,), the first column of each group, ascending.
        group: int64 (n,), the group of each column.
        few: Whether there are so few groups that it pays to check whether their columns are also equal in a tick.
    """

    def __init__(self, *given: Float | Int) -> None:
        columns = np.stack([np.asarray(each, np.float64) for each in given])
        first, group = _groups(columns)
        # Order groups by their first columns, so that if all columns differ, group i is column i.
        order = np.argsort(first)
        self.first: Int = first[order].astype(np.int64)
        self.few = 2 * len(first) <= len(given[0])
        self.group: Int = np.argsort(order)[group].astype(np.int64)
        self._first_of = self.first.take(self.group)

    def hold(self, *values: Float | Int | SmallInt) -> bool:
        """Whether the columns of each group have the same values, (..., n) each; NaN is equal to nothing."""
        return self.few and all((value == value.take(self._first_of, axis=-1)).all() for value in values)

    def hold_bits(self, value: SmallFloat) -> bool:
        """Same as `hold` for float32 (..., n), but bit for bit: NaN is equal to itself."""
        return self.hold(value.view(np.int32))

    def part(self, *values: Float | Int | Bool) -> Bool:
        """Where a column differs from the first column of its group in any of the values, (n,) each: bool (n,)."""
        found = np.zeros(len(self.group), np.bool_)
        for value in values:
            # A bool that is the same in all columns separates none.
            if value.dtype != np.bool_ or 0 < np.count_nonzero(value) < len(value):
                found |= value != value.take(self._first_of)
        return found

    def of_first(self, value: Number) -> Number:
        """Select the first column of each group: (..., G) from (..., n)."""
        found: Number = value.take(self.first, axis=-1)
        return found

    def spread(self, few: Number) -> Number:
        """Give each column the value of its group: (..., n) from (..., G)."""
        found: Number = few.take(self.group, axis=-1)
        return found


def _groups(columns: Float) -> tuple[Int, Int]:
    """The first column of each group of equal columns, (G,), and the group of each column, (n,), from values (K, n).

    The same as numpy's `unique` along an axis, which compares whole columns and takes twice as long.
    """
    order = np.lexsort(columns)
    ordered = columns[:, order]
    begins = np.ones(len(order), np.bool_)
    np.logical_or.reduce(ordered[:, 1:] != ordered[:, :-1], axis=0, out=begins[1:])
    group = np.empty(len(order), np.int64)
    group[order] = np.add.accumulate(begins, dtype=np.int64) - 1
    return order[begins], group
