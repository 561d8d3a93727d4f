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
    per_bucket, buckets = _layout(window_ticks)
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


def carried_over(
    ring: Int, bucket: Int, *, columns: Int, before_ticks: Int, after_ticks: Int
) -> tuple[Int, Int]:
    """Ring and buckets for other lanes, each of which may have been a lane of these.

    A lane whose window keeps its length goes on as if nothing had happened. One whose window changes keeps
    the highest value of the old window, for the whole of the new one.

    Args:
        ring: As in `push_and_max`; not changed.
        bucket: Likewise.
        columns: int64 (N,), the lane that each was; -1 for one that is new.
        before_ticks: int64 (L,), window lengths of the lanes of `ring`.
        after_ticks: int64 (N,), those of the other lanes.

    Returns:
        int64 (SLOTS, N) and int64 (N,).
    """
    new_ring, new_bucket = empty(len(columns))
    per_bucket, _ = _layout(before_ticks)
    new_per_bucket, new_buckets = _layout(after_ticks)
    for lane in np.flatnonzero(columns >= 0):
        was = columns[lane]
        if before_ticks[was] == after_ticks[lane]:
            new_ring[:, lane], new_bucket[lane] = ring[:, was], bucket[was]
        elif bucket[was] != _NEVER:
            new_bucket[lane] = bucket[was] * per_bucket[was] // new_per_bucket[lane]
            new_ring[new_bucket[lane] % new_buckets[lane], lane] = ring[:, was].max()
    return new_ring, new_bucket


def _layout(window_ticks: Int) -> tuple[Int, Int]:
    """Ticks per bucket and number of buckets of each lane's window."""
    length = np.maximum(window_ticks, 1)
    long = length > SLOTS
    per_bucket = np.where(long, -(-length // (SLOTS - 1)), 1)
    return per_bucket, np.where(long, -(-length // per_bucket) + 1, length)


def _empty_skipped(ring: Int, buckets: Int, slot: Int, passed: Int) -> None:
    """Empty the slots of buckets that passed without a call; the current one is the caller's."""
    age = (slot - np.arange(SLOTS)[:, np.newaxis]) % buckets
    ring[(age < passed) & (age > 0)] = 0
