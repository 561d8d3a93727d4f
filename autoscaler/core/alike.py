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
    """The number of columns, (..., n), that all have the same, (..., 1), of which numpy makes far more than of as many; else as it is."""
    first = value[..., :1]
    found: Number = first if np.count_nonzero(value == first) == value.size else value
    return found


class Alike:
    """Columns in groups that have the same of everything that is given once.

    Args:
        given: float64 or int64 (n,) each, what must be equal within a group.

    Attributes:
        first: int64 (G,), the first column of each group, ascending.
        group: int64 (n,), the group of each column.
        few: Whether there are so few groups that it is worth asking whether they are equal in a tick, too.
    """

    def __init__(self, *given: Float | Int) -> None:
        columns = np.stack([np.asarray(each, np.float64) for each in given])
        first, group = _groups(columns)
        # Groups are in the order of their first columns, so that where all differ each column is a group in its place.
        order = np.argsort(first)
        self.first: Int = first[order].astype(np.int64)
        self.few = 2 * len(first) <= len(given[0])
        self.group: Int = np.argsort(order)[group].astype(np.int64)
        self._first_of = self.first.take(self.group)

    def hold(self, *values: Float | Int | SmallInt) -> bool:
        """Whether the columns of each group have the same values, (..., n) each; NaN is like nothing."""
        return self.few and all((value == value.take(self._first_of, axis=-1)).all() for value in values)

    def hold_bits(self, value: SmallFloat) -> bool:
        """The same of float32 (..., n), to the bit: NaN is like itself."""
        return self.hold(value.view(np.int32))

    def part(self, *values: Float | Int | Bool) -> Bool:
        """Where columns have other values, (n,) each, than the first of their group: bool (n,)."""
        found = np.zeros(len(self.group), np.bool_)
        for value in values:
            # What is true of all or of none parts nobody.
            if value.dtype != np.bool_ or 0 < np.count_nonzero(value) < len(value):
                found |= value != value.take(self._first_of)
        return found

    def of_first(self, value: Number) -> Number:
        """The columns that stand for their groups: (..., G) of (..., n)."""
        found: Number = value.take(self.first, axis=-1)
        return found

    def spread(self, few: Number) -> Number:
        """What each column has, (..., n), of what its group has, (..., G)."""
        found: Number = few.take(self.group, axis=-1)
        return found


def _groups(columns: Float) -> tuple[Int, Int]:
    """The first column of each group of equal ones, (G,), and the group of each, (n,): of (K, n).

    As numpy's `unique` along an axis has it, which compares columns as a whole and takes twice as long.
    """
    order = np.lexsort(columns)
    ordered = columns[:, order]
    begins = np.ones(len(order), np.bool_)
    np.logical_or.reduce(ordered[:, 1:] != ordered[:, :-1], axis=0, out=begins[1:])
    group = np.empty(len(order), np.int64)
    group[order] = np.add.accumulate(begins, dtype=np.int64) - 1
    return order[begins], group
