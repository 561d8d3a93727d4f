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
    """A ring of values, int64 (SLOTS, lanes), and the current bucket of each lane, int64 (lanes,)."""
    return np.zeros((SLOTS, lanes), np.int64), np.full(lanes, _NEVER, np.int64)


def push_and_max(ring: Int, bucket: Int, *, tick: int, window_ticks: Int, value: Int, known: Bool) -> Int:
    """Note `value` where `known`, and return the highest value noted within the window up to now.

    A lane uses the first `buckets` slots of its column as a ring; a slot is emptied when time reaches it, so
    that the maximum of the whole column is the maximum of the window.

    Args:
        ring: int64 (SLOTS, L), updated in place.
        bucket: int64 (L,), number of the bucket of the last call, updated in place.
        tick: Now, on the absolute grid; may skip forward, not back.
        window_ticks: int64 (L,), window length; 0 and 1 mean this tick only.
        value: int64 (L,), non-negative.
        known: bool (L,), where there is a value to note.

    Returns:
        int64 (L,), 0 where nothing was noted within the window.
    """
    length = np.maximum(window_ticks, 1)
    long = length > SLOTS
    per_bucket = np.where(long, -(-length // (SLOTS - 1)), 1)
    buckets = np.where(long, -(-length // per_bucket) + 1, length)
    current = tick // per_bucket
    passed = current - bucket
    slot = current % buckets
    if passed.max(initial=0) > 1:
        _empty_skipped(ring, buckets, slot, passed)
    flat, at = ring.ravel(), slot * ring.shape[1] + np.arange(ring.shape[1])
    held = np.where(passed > 0, 0, flat.take(at))
    flat[at] = np.where(known, np.maximum(held, value), held)
    bucket[:] = current
    highest: Int = np.maximum.reduce(ring, axis=0)
    return highest


def _empty_skipped(ring: Int, buckets: Int, slot: Int, passed: Int) -> None:
    """Empty the slots of buckets that passed without a call; the current one is the caller's."""
    age = (slot - np.arange(SLOTS)[:, np.newaxis]) % buckets
    ring[(age < passed) & (age > 0)] = 0
