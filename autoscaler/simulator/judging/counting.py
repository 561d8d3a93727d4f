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
"""The highest number of each kind of counts."""


class Counted:
    """The counts of a part that no totals tell, summed a few rows at a time.

    Args:
        into: int64 (K, L), what they are added to in the end.
        block: Whose rows.
    """

    def __init__(self, into: Int, block: Block) -> None:
        self._into = into
        self._rows = [(count, getattr(block, name)) for count, name in _SUMMED if count not in block.totals]
        # Adding in few bits takes a fraction of the time, and they do unless somebody has millions of VMs.
        self._sums = [np.zeros(into.shape[1], summing_kind(array, block.most_vms)) for _, array in self._rows]

    def add(self, rows: slice) -> None:
        """Add a few rows."""
        for (_, array), total in zip(self._rows, self._sums, strict=True):
            few = array[rows]
            np.add(
                total, few[0] if len(few) == 1 else np.add.reduce(few, axis=0, dtype=total.dtype), out=total
            )

    def close(self) -> None:
        """The part is over."""
        for (count, _), total in zip(self._rows, self._sums, strict=True):
            self._into[count] += total


def least_vms(demand: Float, each: float, kind: np.dtype[np.signedinteger[Any]]) -> SmallInt:
    """Fewest whole VMs whose work, as floats have it, is not less than the demand.

    Args:
        demand: float64 (n, C), work per second, known and not negative.
        each: Work per second of one VM, above zero.
        kind: Of the answer.

    Returns:
        int (n, C); the highest number of its kind where more would be needed.
    """
    # A division of floats may be off by one where the product is exact, so its neighbours are tried.
    about = np.floor(demand / each) - 1.0
    least = about.copy()
    for beside in range(3):
        least += (about + beside) * each < demand
    fits: SmallInt = np.minimum(np.maximum(least, 0.0), _MOST[kind]).astype(kind)
    return fits
