"""Exact sums of whole VMs for the ledger, including how many VMs would have left nothing unserved.

Rules of this file: exact; element-wise over lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoscaler.core.types import Float, Int, SmallInt
from autoscaler.simulator.judging.block import Block, Count
from autoscaler.simulator.judging.streaks import summing_kind

_SUMMED = (
    (Count.IN_SERVICE, "in_service"),
    (Count.STARTING, "starting"),
    (Count.DRAINING, "draining"),
    (Count.STOPPED, "stopped"),
    (Count.PROVISIONED, "provisioned"),
    (Count.WARM_TARGET, "warm_target"),
    (Count.STARTS, "starts"),
    (Count.STOPS, "stops"),
    (Count.PROVISIONS, "provisions"),
    (Count.FAILED_STARTS, "failed_starts"),
)

_MOST = {np.dtype(kind): float(np.iinfo(kind).max) for kind in (np.int16, np.int32, np.int64)}
"""The highest value of each integer type."""


class Counted:
    """Sums the counts of a part that the block does not already have totals of, a few rows at a time.

    Args:
        into: int64 (K, L), the array to which the sums are added in the end.
        block: The block whose rows are summed.
    """

    def __init__(self, into: Int, block: Block) -> None:
        self._into = into
        self._rows = [(count, getattr(block, name)) for count, name in _SUMMED if count not in block.totals]
        # Adding in few bits takes a fraction of the time, and counts fit unless there are millions of VMs.
        self._sums = [np.zeros(into.shape[1], summing_kind(array, block.most_vms)) for _, array in self._rows]

    def add(self, rows: slice) -> None:
        """Add a few rows."""
        for (_, array), total in zip(self._rows, self._sums, strict=True):
            few = array[rows]
            np.add(
                total, few[0] if len(few) == 1 else np.add.reduce(few, axis=0, dtype=total.dtype), out=total
            )

    def close(self) -> None:
        """Add the sums to `into` at the end of the part."""
        for (count, _), total in zip(self._rows, self._sums, strict=True):
            self._into[count] += total


def least_vms(demand: Float, each: float, kind: np.dtype[np.signedinteger[Any]]) -> SmallInt:
    """Return the fewest whole VMs whose work, computed in floating point, is not less than the demand.

    Args:
        demand: float64 (n, C), work per second, known and not negative.
        each: Work per second of one VM, above zero.
        kind: Integer type of the result.

    Returns:
        int (n, C); the highest value of its type if more would be needed.
    """
    # A floating-point division may be off by one even if the product is exact, so the neighbouring numbers are tried.
    about = np.floor(demand / each) - 1.0
    least = about.copy()
    for beside in range(3):
        least += (about + beside) * each < demand
    fits: SmallInt = np.minimum(np.maximum(least, 0.0), _MOST[kind]).astype(kind)
    return fits
