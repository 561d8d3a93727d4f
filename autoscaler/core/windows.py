"""Rolling maximum per lane, with a window length of its own for each lane.

Exact windows would need a ring as long as the longest window. Here each lane cuts its window into at most
`SLOTS` buckets: windows of up to SLOTS ticks are exact, longer ones cover at least the window and at most
one bucket more, which is the safe side for a maximum that delays scale-in.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Bool, Int

SLOTS = 32
_NEVER = np.int64(-(2**62))


def empty(lanes: int) -> tuple[Int, Int]:
    """A ring of values and the bucket numbers that they belong to, both int64 (SLOTS, lanes)."""
    return np.zeros((SLOTS, lanes), np.int64), np.full((SLOTS, lanes), _NEVER, np.int64)


def push_and_max(ring: Int, bucket_of: Int, *, tick: int, window_ticks: Int, value: Int, known: Bool) -> Int:
    """Note `value` where `known`, and return the highest value noted within the window up to now.

    Args:
        ring: int64 (SLOTS, L), updated in place.
        bucket_of: int64 (SLOTS, L), updated in place.
        tick: Now, on the absolute grid; may skip forward, not back.
        window_ticks: int64 (L,), window length; 0 and 1 mean this tick only.
        value: int64 (L,), non-negative.
        known: bool (L,), where there is a value to note.

    Returns:
        int64 (L,), 0 where nothing was noted within the window.
    """
    length = np.maximum(window_ticks, 1)
    per_bucket = np.where(length <= SLOTS, 1, -(-length // (SLOTS - 1)))
    buckets = np.where(length <= SLOTS, length, -(-length // per_bucket) + 1)
    current = tick // per_bucket
    slot = current % SLOTS
    lanes = np.arange(ring.shape[1])
    same = bucket_of[slot, lanes] == current
    noted = np.where(same, np.maximum(ring[slot, lanes], value), value)
    ring[slot, lanes] = np.where(known, noted, ring[slot, lanes])
    bucket_of[slot, lanes] = np.where(known, current, bucket_of[slot, lanes])
    live = (bucket_of > current - buckets) & (bucket_of <= current)
    highest: Int = np.maximum.reduce(np.where(live, ring, 0), axis=0)
    return highest
