"""Lanes that are alike: what follows from equal numbers is worked out once.

Variants of a policy share a series, and often a price. Whether their numbers are equal in a tick is asked in that tick, so
that nothing depends on it but the time taken.

Rules of this file: compares and copies, and works nothing out.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from autoscaler.core.types import Float, Int, SmallInt

Number = TypeVar("Number", Float, Int)


class Alike:
    """Columns in groups that have the same of everything that is given once.

    Args:
        given: float64 or int64 (n,) each, what must be equal within a group.

    Attributes:
        first: int64 (G,), a column of each group.
        group: int64 (n,), the group of each column.
        few: Whether there are so few groups that it is worth asking whether they are equal in a tick, too.
    """

    def __init__(self, *given: Float | Int) -> None:
        columns = np.stack([np.asarray(each, np.float64) for each in given])
        _, first, group = np.unique(columns, axis=1, return_index=True, return_inverse=True)
        self.first: Int = first.astype(np.int64)
        self.few = 2 * len(first) <= len(given[0])
        self.group: Int = group.reshape(-1).astype(np.int64)

    def hold(self, *values: Float) -> bool:
        """Whether the columns of each group have the same values, float64 (..., n) each; NaN is like nothing."""
        return self.few and all(
            (value == self.of_first(value).take(self.group, axis=-1)).all() for value in values
        )

    def of_first(self, value: Number) -> Number:
        """The columns that stand for their groups: (..., G) of (..., n)."""
        found: Number = value.take(self.first, axis=-1)
        return found

    def spread(self, few: SmallInt) -> SmallInt:
        """What each column has, int32 (m, n), of what its group has, int32 (m, G)."""
        found: SmallInt = few.take(self.group, axis=-1)
        return found
