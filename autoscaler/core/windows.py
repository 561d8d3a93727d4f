"""Rolling maximum per lane, with a window length of its own for each lane.

Exact windows would need a ring as long as the longest window. Here each lane cuts its window into at most
`SLOTS` buckets: windows of up to SLOTS ticks are exact, longer ones cover at least the window and at most
one bucket more, which is the safe side for a maximum that delays scale-in.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Bool, Int, SmallInt

SLOTS = 32
_NEVER = np.int64(-(2**62))


def empty(lanes: int) -> tuple[SmallInt, Int]:
    """A ring of values, int32 (SLOTS, lanes), and the current bucket of each lane, int64 (lanes,).

    The ring is the largest thing that a decision reads, so it is kept as narrow as a count of VMs allows.
    """
    return np.zeros((SLOTS, lanes), np.int32), np.full(lanes, _NEVER, np.int64)


def grid(window_ticks: Int) -> Int:
    """How windows are cut: ticks per bucket and number of buckets of each lane, int64 (2, L).

    Args:
        window_ticks: int64 (L,), window lengths; 0 and 1 mean this tick only.
    """
    length = np.maximum(window_ticks, 1)
    long = length > SLOTS
    per_bucket = np.where(long, -(-length // (SLOTS - 1)), 1)
    return np.stack([per_bucket, np.where(long, -(-length // per_bucket) + 1, length)])


def push_and_max(ring: SmallInt, bucket: Int, *, tick: int, grid: Int, value: Int, known: Bool) -> Int:
    """Note `value` where `known`, and return the highest value noted within the window up to now.

    A lane uses the first `buckets` slots of its column as a ring; a slot is emptied when time reaches it, so
    that the maximum of the whole column is the maximum of the window.

    Args:
        ring: int32 (SLOTS, L), updated in place.
        bucket: int64 (L,), number of the bucket of the last call, updated in place.
        tick: Now, on the absolute grid; may skip forward, not back.
        grid: int64 (2, L), from `grid`.
        value: int64 (L,), non-negative, at most a thousand million.
        known: bool (L,), where there is a value to note.

    Returns:
        int64 (L,), 0 where nothing was noted within the window.
    """
    per_bucket, buckets = grid
    current = tick // per_bucket
    passed = current - bucket
    slot = current % buckets
    if passed.max(initial=0) > 1:
        _empty_skipped(ring, buckets, slot, passed)
    flat, at = ring.ravel(), slot * ring.shape[1] + np.arange(ring.shape[1])
    held = flat.take(at) * (passed <= 0)
    flat[at] = np.maximum(held, value * known)
    bucket[:] = current
    highest: SmallInt = np.maximum.reduce(ring, axis=0)
    return highest.astype(np.int64)


def carried_over(
    ring: SmallInt, bucket: Int, *, columns: Int, before_ticks: Int, after_ticks: Int
) -> tuple[SmallInt, Int]:
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
        int32 (SLOTS, N) and int64 (N,).
    """
    new_ring, new_bucket = empty(len(columns))
    per_bucket, _ = grid(before_ticks)
    new_per_bucket, new_buckets = grid(after_ticks)
    for lane in np.flatnonzero(columns >= 0):
        was = columns[lane]
        if before_ticks[was] == after_ticks[lane]:
            new_ring[:, lane], new_bucket[lane] = ring[:, was], bucket[was]
        elif bucket[was] != _NEVER:
            new_bucket[lane] = bucket[was] * per_bucket[was] // new_per_bucket[lane]
            new_ring[new_bucket[lane] % new_buckets[lane], lane] = ring[:, was].max()
    return new_ring, new_bucket


def _empty_skipped(ring: SmallInt, buckets: Int, slot: Int, passed: Int) -> None:
    """Empty the slots of buckets that passed without a call; the current one is the caller's."""
    age = (slot - np.arange(SLOTS)[:, np.newaxis]) % buckets
    ring[(age < passed) & (age > 0)] = 0
