"""The garbage collector of the daemon's process: what it frees, what it does not visit by itself, and its final state."""

from __future__ import annotations

import gc
import weakref

import pytest

from autoscaler.daemon import garbage_collection as module
from autoscaler.daemon.garbage_collection import GarbageCollection


class Circle:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self):
        self.me = self


@pytest.fixture
def collecting():
    gc.unfreeze()
    begun = GarbageCollection()
    before = gc.get_threshold()
    begun.begin()
    yield begun
    begun.end()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_circles_that_came_and_went_within_a_tick_are_freed(collecting):
    watched = [weakref.ref(Circle()) for _ in range(100)]
    collecting.between_ticks(0.0)
    assert not any(ref() for ref in watched)


def test_what_stays_is_hidden_so_that_the_next_look_is_short(collecting):
    rows = [{"number": number} for number in range(50_000)]
    collecting.between_ticks(0.0)
    assert len(gc.get_objects()) < 5_000
    assert len(rows) == 50_000


def test_the_collector_looks_at_everything_only_when_told(collecting):
    """By itself it would, many times over, while so many objects come and stay."""
    seen = []
    gc.callbacks.append(lambda phase, info: seen.append(info["generation"]) if phase == "start" else None)
    try:
        rows = [[number] for number in range(300_000)]
    finally:
        gc.callbacks.pop()
    assert {0, 1} <= set(seen)
    assert 2 not in seen
    assert rows


def test_everything_from_before_is_looked_at_after_the_first_tick_has_begun():
    """A full collection takes 100 ms when a daemon starts."""
    circle = Circle()
    watched = weakref.ref(circle)
    collecting = GarbageCollection()
    collecting.begin()
    try:
        del circle
        collecting.within_a_tick()
        assert watched() is not None
        collecting.between_ticks(0.0)
        assert watched() is None
    finally:
        collecting.end()


def test_young_objects_are_collected_at_a_pace_of_its_own_whatever_was_set_before():
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    collecting = GarbageCollection()
    collecting.begin()
    try:
        assert gc.get_threshold()[:2] == (700, 10)
    finally:
        collecting.end()
        set_before = gc.get_threshold()
        gc.set_threshold(*before)
    assert set_before == (20_000, *before[1:])


def test_hidden_circles_are_found_once_they_may_be_many(collecting, monkeypatch):
    monkeypatch.setattr(module, "_MANY_MORE", 5_000 - gc.get_freeze_count())
    collecting.between_ticks(0.0)
    circles = [Circle() for _ in range(20_000)]
    first = weakref.ref(circles[0])
    collecting.between_ticks(10.0)
    circles.clear()
    collecting.between_ticks(300.0)
    assert first() is not None
    collecting.between_ticks(600.0)
    assert first() is None


def test_hidden_circles_are_found_a_few_times_a_day(collecting):
    collecting.between_ticks(0.0)
    circle = Circle()
    watched = weakref.ref(circle)
    collecting.between_ticks(5.0)
    del circle
    collecting.between_ticks(3600.0)
    assert watched() is not None
    collecting.between_ticks(7 * 3600.0)
    assert watched() is None
