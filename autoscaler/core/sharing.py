"""Limits that fleets share: who gets the VMs when there are not enough for all.

A ceiling on VMs, on money per hour or on starts is one number for several fleets. Each has offers, one more VM after the
other, and each offer is worth something: what the VM would earn over what it costs. The dearest offers are taken until
the limit is reached, which is the best use of it, since what one more VM earns never rises with the number of VMs.
Where two are worth the same, the fleet that comes first in order takes it, so that the answer depends on nothing else.

Rules of this file: a pure function over lanes; no state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoscaler.core.types import Float, Int

_HALVINGS = 60


def shared_out(least: Int, most: Int, price: Float, limit: float, worth: Callable[[Int], Float]) -> Int:
    """How many VMs each lane gets.

    Args:
        least: int64 (L,), VMs that each has in any case, at least 0: what runs is not taken away here.
        most: int64 (L,), VMs that each wants, at least `least`.
        price: float64 (L,), what one VM of each takes of the limit (1 for a ceiling on VMs), above 0.
        limit: What all may take together.
        worth: Of a number of VMs of each lane, int64 (L,), at least 1: what the last of them earns for what it
            takes, float64 (L,); never rises with the number.

    Returns:
        int64 (L,), between least and most. More than the limit is taken only where `least` alone does.
    """
    vms = np.maximum(most, least)
    if _taken(vms, price) <= limit:
        return vms
    # The value of the limit: offers above it are taken. Halving finds it as exactly as floats can tell.
    low, high = 0.0, float(np.max(worth(np.maximum(least + 1, 1)), initial=0.0)) + 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _taken(_at_least(middle, least, vms, worth), price) <= limit:
            high = middle
        else:
            low = middle
    got = _at_least(high, least, vms, worth)
    # Offers that are worth exactly that much: in the order of lanes, as far as the limit goes.
    left = limit - _taken(got, price)
    edge = _at_least(low, least, vms, worth) - got
    for lane in np.flatnonzero(edge > 0).tolist():
        more = min(int(edge[lane]), int(max(left, 0.0) // price[lane]))
        got[lane] += more
        left -= more * float(price[lane])
    return got


def _taken(vms: Int, price: Float) -> float:
    """What all take together, added in the order of lanes."""
    taken = np.add.accumulate(vms * price)
    return float(taken[-1]) if len(taken) else 0.0


def _at_least(value: float, least: Int, most: Int, worth: Callable[[Int], Float]) -> Int:
    """The VMs of each lane that are worth at least so much: int64 (L,), by halving between least and most."""
    low, high = least.copy(), most.copy()
    for _ in range(int(np.max(most - least, initial=0)).bit_length()):
        middle = (low + high + 1) // 2
        enough = (worth(np.maximum(middle, 1)) >= value) & (middle > low)
        low = np.where(enough, middle, low)
        high = np.where(enough, high, np.maximum(middle - 1, low))
    return low
