"""The rolling maximum, compared with a plain one that keeps everything."""

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


seeds = st.integers(0, 2**32 - 1)


def some_windows(rng):
    """Five windows that make groups of every kind: alike, of different lengths, with buckets of several lengths."""
    kinds = (
        np.full(5, rng.integers(0, 400)),
        rng.choice([1, 2, 5, 31, 32], 5),
        rng.choice([3, 40, 200], 5),
        rng.integers(0, 400, 5),
    )
    return kinds[rng.integers(len(kinds))]


def pushes(rng, tick):
    """(tick, value), mostly tick by tick, now and then twice in one or after a gap."""
    steps = rng.choice([1, 0, 2, 5, 33, 500], rng.integers(1, 150), p=[0.9, 0.04, 0.02, 0.02, 0.01, 0.01])
    ticks = tick + np.cumsum(steps)
    return [(int(at), int(value)) for at, value in zip(ticks, rng.integers(0, 1000, len(ticks)), strict=True)]


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_it_is_the_maximum_of_the_windows_buckets(seed):
    rng = np.random.default_rng(seed)
    window = some_windows(rng)
    rolling = windows.RollingMax.empty(window, rng.choice([windows.INT32, np.dtype(np.int16)]))
    notes = []
    for tick, value in pushes(rng, 1_000):
        notes.append((tick, value))
        got = rolling.push_and_max(tick, np.full(5, value))
        assert got.dtype == rolling.ring.dtype
        assert got.tolist() == [plainly(notes, tick, length) for length in window.tolist()]


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_lanes_go_on_among_others_as_if_nothing_had_happened(seed):
    """Whatever groups they were in, and come into."""
    rng = np.random.default_rng(seed)
    window = some_windows(rng)
    rolling = windows.RollingMax.empty(window)
    before = pushes(rng, 1_000)
    for tick, value in before:
        rolling.push_and_max(tick, np.full(5, value))
    was = rng.integers(-1, 5, rng.integers(1, 6))
    new_window = np.where(was >= 0, window[was], some_windows(rng)[: len(was)])
    kept = rolling.dump()
    carried = rolling.carried_over(new_window, was)
    after = pushes(rng, before[-1][0])
    for so_far, (tick, value) in enumerate(after, 1):
        got = carried.push_and_max(tick, np.full(len(was), value))
        told = [
            plainly((before if lane >= 0 else []) + after[:so_far], tick, length)
            for lane, length in zip(was.tolist(), new_window.tolist(), strict=True)
        ]
        assert got.tolist() == told
    for name, array in kept.items():
        np.testing.assert_array_equal(rolling.dump()[name], array, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_what_is_held_is_what_is_noted_again_and_again(seed):
    """In every number that is remembered, however long nobody has asked."""
    rng = np.random.default_rng(seed)
    window = some_windows(rng)
    held, noted = windows.RollingMax.empty(window), windows.RollingMax.empty(window)
    tick = 1_000
    for _ in range(6):
        tick += int(rng.choice([0, 1, 1, 5, 300]))
        value = rng.integers(0, 50, len(window))
        assert (held.push_and_max(tick, value) == noted.push_and_max(tick, value)).all()
        for _ in range(int(rng.choice([0, 1, 30, 70, 900]))):
            tick += int(rng.choice([0, 1, 4], p=[0.02, 0.96, 0.02]))
            held.hold(tick)
            noted.push_and_max(tick, value)
        if rng.random() < 0.5:
            for name, kept in noted.dump().items():
                np.testing.assert_array_equal(held.dump()[name], kept, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_who_says_that_it_is_the_same_again_is_told_what_all_are_told(seed):
    rng = np.random.default_rng(seed)
    window = some_windows(rng)
    again, noted = windows.RollingMax.empty(window), windows.RollingMax.empty(window)
    tick, value = 1_000, rng.integers(0, 50, len(window))
    for _ in range(150):
        tick += int(rng.choice([0, 1, 4, 90], p=[0.02, 0.9, 0.06, 0.02]))
        if rng.random() < 0.2:
            value = rng.integers(0, 50, len(window))
            np.testing.assert_array_equal(again.push_and_max(tick, value), noted.push_and_max(tick, value))
        else:
            np.testing.assert_array_equal(again.push_again(tick, value), noted.push_and_max(tick, value))
        if rng.random() < 0.05:
            again = again.copy()
    for name, kept in noted.dump().items():
        np.testing.assert_array_equal(again.dump()[name], kept, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_page_is_noted_as_its_ticks_are_and_a_twin_goes_its_own_way(seed):
    rng = np.random.default_rng(seed)
    page = windows.RollingMax.empty(some_windows(rng))
    lanes, tick = len(page.window_ticks), int(rng.integers(0, 500))
    single = page.copy()
    for _ in range(12):
        values = rng.integers(0, 50, (int(rng.integers(1, 40)), lanes)) * (rng.random() < 0.7)
        tick += int(rng.integers(1, 200)) if rng.random() < 0.2 else 1
        before, twin = single.copy(), page.twin()
        found = page.push_page(tick, values)
        for row, value in enumerate(values):
            np.testing.assert_array_equal(found[row], single.push_and_max(tick + row, value))
        for mine, theirs in ((page, single), (twin, before)):
            for name, array in theirs.dump().items():
                np.testing.assert_array_equal(mine.dump()[name], array, err_msg=name)
        tick += len(values) - 1
        np.testing.assert_array_equal(page.again(tick), single.again(tick))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_a_page_much_longer_than_a_window_is_noted_as_its_ticks_are(seed):
    rng = np.random.default_rng(seed)
    page = windows.RollingMax.empty(np.full(3, int(rng.integers(2, 13))))
    single, tick = page.copy(), int(rng.integers(0, 500))
    for _ in range(5):
        values = rng.integers(0, 50, (int(rng.integers(1, 120)), 3))
        found = page.push_page(tick, values)
        for row, value in enumerate(values):
            np.testing.assert_array_equal(found[row], single.push_and_max(tick + row, value))
        for name, array in single.dump().items():
            np.testing.assert_array_equal(page.dump()[name], array, err_msg=name)
        tick += len(values) + int(rng.integers(0, 20)) * (rng.random() < 0.3)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_lanes_that_noted_the_same_go_on_as_one_of_them(seed):
    """Three windows of six lanes each, of which pairs follow each other: whole blocks of buckets come in a page."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation([2, 11, 61, 62, 1441])[:3]
    every = windows.RollingMax.empty(np.repeat(lengths, 6))
    lanes = (np.arange(3)[:, np.newaxis] * 6 + np.array([0, 1, 2])).reshape(-1)
    back = (np.arange(3)[:, np.newaxis] * 3 + np.array([0, 1, 2, 0, 1, 2])).reshape(-1)
    tick, cut = int(rng.integers(0, 500)), None
    for _ in range(8):
        assert every.alike(lanes.take(back))
        some = every.of_lanes(lanes, cut)
        cut = some.cut
        values = rng.integers(0, 50, (int(rng.integers(1, 150)), 9))
        found = some.push_page(tick, values)
        spread = some.of_lanes(back, every.cut)
        single = every.copy()
        for row, value in enumerate(values.take(back, axis=1)):
            np.testing.assert_array_equal(found[row].take(back), single.push_and_max(tick + row, value))
        tick += len(values) - 1
        for name, array in single.dump().items():
            np.testing.assert_array_equal(spread.dump()[name], array, err_msg=name)
        np.testing.assert_array_equal(spread.again(tick), single.again(tick))
        every, tick = spread, tick + 1
    other = rng.integers(51, 60, 18)
    every.push_and_max(tick, other)
    assert not every.alike(lanes.take(back))
