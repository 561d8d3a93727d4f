"""The rolling maximum against a plain one that keeps everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core import windows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(1, 70), st.integers(0, 50), st.booleans()), min_size=1, max_size=120),
)
def test_it_is_the_maximum_of_at_least_the_window_and_at_most_a_bucket_more(lengths, pushes):
    window = np.array(lengths)
    rolling = windows.RollingMax.empty(window)
    tick, seen = 1_000, []
    for step, value, known in pushes:
        tick += step if step > 60 else 1  # mostly every tick, now and then a long gap
        if known:
            seen.append((tick, value))
        got = rolling.push_and_max(tick, np.full(4, value), np.full(4, known))
        for lane, length in enumerate(np.maximum(window, 1)):
            per_bucket = 1 if length <= windows.SLOTS else -(-length // (windows.SLOTS - 1))
            least = max([v for t, v in seen if t > tick - length], default=0)
            most = max([v for t, v in seen if t > tick - length - 2 * per_bucket], default=0)
            if per_bucket == 1:
                assert got[lane] == least
            else:
                assert least <= got[lane] <= most


def buckets_of(length):
    """Ticks per bucket and number of buckets, in plain words of the module."""
    if length <= windows.SLOTS:
        return 1, max(length, 1)
    per_bucket = -(-length // (windows.SLOTS - 1))
    return per_bucket, -(-length // per_bucket) + 1


def plainly(notes, tick, length):
    per_bucket, buckets = buckets_of(length)
    if length <= 1:
        return notes[-1][1] if notes and notes[-1][0] == tick else 0
    return max((v for t, v in notes if t // per_bucket > tick // per_bucket - buckets), default=0)


# Windows that make groups of every kind: alike, of different lengths, and with buckets of several lengths.
lengths = st.one_of(
    st.integers(0, 400).map(lambda length: [length] * 5),
    st.lists(st.sampled_from([1, 2, 5, 31, 32]), min_size=5, max_size=5),
    st.lists(st.integers(0, 400), min_size=5, max_size=5),
)
ticks = st.lists(
    st.tuples(st.sampled_from([0, 1, 1, 1, 1, 1, 1, 1, 2, 5, 33, 500]), st.integers(0, 50)),
    min_size=1,
    max_size=150,
)


@settings(max_examples=150, deadline=None)
@given(lengths, ticks)
def test_it_is_the_maximum_of_the_windows_buckets(window, pushes):
    rolling = windows.RollingMax.empty(np.array(window))
    tick, notes = 1_000, []
    for step, value in pushes:
        tick += step
        notes.append((tick, value))
        got = rolling.push_and_max(tick, np.full(5, value))
        assert got.tolist() == [plainly(notes, tick, length) for length in window]


@settings(max_examples=150, deadline=None)
@given(lengths, lengths, st.lists(st.integers(-1, 4), min_size=5, max_size=5), ticks, ticks)
def test_lanes_go_on_among_others_as_if_nothing_had_happened(window, other_window, was, before, after):
    """Whatever groups they were in, and come into."""
    rolling = windows.RollingMax.empty(np.array(window))
    tick, notes = 1_000, []
    for step, value in before:
        tick += step
        notes.append((tick, value))
        rolling.push_and_max(tick, np.full(5, value))
    kept = rolling.dump()
    new_window = [window[lane] if lane >= 0 else other_window[at] for at, lane in enumerate(was)]
    carried = rolling.carried_over(np.array(new_window), np.array(was))
    begun = len(notes)
    for step, value in after:
        tick += step
        notes.append((tick, value))
        got = carried.push_and_max(tick, np.full(5, value))
        for at, lane in enumerate(was):
            known = notes if lane >= 0 else notes[begun:]
            assert got[at] == plainly(known, tick, new_window[at])
    for name, array in kept.items():
        np.testing.assert_array_equal(rolling.dump()[name], array, err_msg=name)
