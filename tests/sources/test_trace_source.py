"""Playing a trace as if live: what is known when, and how it is divided over VMs."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.trace import TraceSource
from autoscaler.traces.trace import Trace, TraceKind
from tests.sources.doubles import ManualClock, vm

START_S = 1_000_000.0
COUNTS = Trace.build(
    START_S + np.array([0.0, 60.0, 180.0]), [600.0, 1200.0, 60.0], kind=TraceKind.COUNT, name="day"
)
GAUGE = Trace.build(
    START_S + np.array([0.0, 60.0, 180.0]), [10.0, 20.0, 1.0], kind=TraceKind.GAUGE, name="day"
)
VMS = [vm(f"i-{number}") for number in range(7)]


def read(trace, at_s, vms=VMS, signal=Signal.TOTAL, capacity=10.0, **options):
    source = TraceSource(trace, ManualClock(at_s), signal, capacity, **options)
    return asyncio.run(source.read(vms))


def total(trace, after_s, **options):
    """(rate, observed at, error) some seconds after the start of the recording."""
    found = read(trace, START_S + after_s, **options)
    if found.error:
        assert not found.vm_ids
        return found.error
    return (found.values[0], found.observed_at_s[0] - START_S)


def test_a_count_is_known_once_its_interval_is_over():
    assert total(COUNTS, -0.1) == "trace day does not begin before 1970-01-12T13:46:40Z"
    assert {total(COUNTS, at_s) for at_s in (0.0, 1.0, 33.3, 59.0)} == {
        "trace day: its first count is known at 1970-01-12T13:47:40Z, once its interval is over"
    }
    assert "known at 1970-01-12T13:47:50Z," in total(COUNTS, 15.0, lag_s=10.0)
    assert total(COUNTS, 60.0) == (10.0, 60.0)
    assert total(COUNTS, 119.9) == (10.0, 60.0)
    assert total(COUNTS, 120.0) == (20.0, 120.0)
    assert total(COUNTS, 240.0) == (1.0, 240.0)


def test_a_gauge_is_known_at_its_stamp():
    assert total(GAUGE, -0.1) == "trace day does not begin before 1970-01-12T13:46:40Z"
    assert total(GAUGE, 0.0) == (10.0, 0.0)
    assert total(GAUGE, 119.9) == (20.0, 60.0)


def test_a_gap_and_the_end_give_no_reading_and_say_so():
    assert total(COUNTS, 180.0) == "trace day has a gap at 1970-01-12T13:48:40Z"
    assert total(GAUGE, 179.9) == "trace day has a gap at 1970-01-12T13:48:40Z"
    assert total(COUNTS, 299.9) == (1.0, 240.0)
    assert total(COUNTS, 300.0) == "trace day ended at 1970-01-12T13:50:40Z"


def test_a_lag_delays_what_is_known_but_not_its_stamp():
    assert total(COUNTS, 149.9, lag_s=30.0) == (10.0, 60.0)
    assert total(COUNTS, 150.0, lag_s=30.0) == (20.0, 120.0)


def test_an_offset_moves_the_recording_in_the_clocks_time():
    assert read(COUNTS, 60.0, offset_s=START_S).values.tolist() == [10.0]
    assert read(COUNTS, 60.0, offset_s=START_S).observed_at_s.tolist() == [60.0]


def test_a_loop_goes_on_with_the_last_interval_until_the_first_is_over_again():
    assert total(COUNTS, 240.0 + 59.0, loop=True) == (1.0, 240.0)
    assert total(COUNTS, 240.0 + 60.0, loop=True) == (10.0, 300.0)
    assert total(COUNTS, 240.0 * 5 + 121.0, loop=True) == (20.0, 240.0 * 5 + 120.0)
    assert total(GAUGE, 240.0 * 5 + 1.0, loop=True) == (10.0, 240.0 * 5)
    assert "first count is known at 1970-01-12T13:47:40Z" in total(COUNTS, 30.0, loop=True)


@given(
    after_s=st.floats(-500, 2000),
    lag_s=st.floats(0, 200),
    loop=st.booleans(),
    kind=st.sampled_from([COUNTS, GAUGE]),
    signal=st.sampled_from(list(Signal)),
)
def test_nothing_is_known_before_it_can_be(after_s, lag_s, loop, kind, signal):
    found = read(kind, START_S + after_s, signal=signal, lag_s=lag_s, loop=loop)
    assert (found.observed_at_s <= START_S + after_s - lag_s).all()
    assert np.isfinite(found.values).all()
    assert bool(found.error) == (not found.vm_ids)


@given(after_s=st.floats(0, 239), later=st.lists(st.floats(0, 1e6), min_size=4, max_size=4))
def test_the_future_of_the_recording_does_not_matter(after_s, later):
    values = [600.0, 1200.0, 60.0, 5.0]
    known = math.floor(after_s / 60)
    other = [*values[:known], *later[known:]]
    stamps = START_S + 60.0 * np.arange(4)
    one, two = (
        read(Trace.build(stamps, v, kind=TraceKind.COUNT, name="x"), START_S + after_s)
        for v in (values, other)
    )
    assert one.error == two.error
    assert one.values.tolist() == two.values.tolist()


# ── Spread over VMs ─────────────────────────────────────────────────────────────────────────────────────


@given(count=st.integers(1, 200), seed=st.integers(0, 2**32), imbalance=st.floats(0, 0.5))
def test_throughput_sums_to_the_rate_and_stays_within_the_imbalance(count, seed, imbalance):
    vms = [vm(f"i-{number}") for number in range(count)]
    found = read(COUNTS, START_S + 120.0, vms, Signal.THROUGHPUT, seed=seed, imbalance=imbalance)
    assert math.fsum(found.values) == pytest.approx(20.0, rel=1e-14)
    assert found.vm_ids == tuple(one.id for one in vms)
    low, high = (1 - imbalance) / (1 + imbalance), (1 + imbalance) / (1 - imbalance)
    assert (found.values >= 20.0 / count * low - 1e-9).all()
    assert (found.values <= 20.0 / count * high + 1e-9).all()


def test_more_vms_make_less_work_for_each():
    few = read(COUNTS, START_S + 120.0, VMS[:2], Signal.THROUGHPUT).values
    many = read(COUNTS, START_S + 120.0, VMS, Signal.THROUGHPUT).values
    assert few.min() > 2 * many.max()


def test_vms_are_uneven_always_in_the_same_way_whatever_the_order():
    there = read(COUNTS, START_S + 120.0, VMS, Signal.THROUGHPUT, seed=4)
    back = read(COUNTS, START_S + 120.0, VMS[::-1], Signal.THROUGHPUT, seed=4)
    assert len(set(there.values)) == len(VMS)
    np.testing.assert_allclose(there.values, back.values[::-1], rtol=1e-12)
    other = read(COUNTS, START_S + 120.0, VMS, Signal.THROUGHPUT, seed=5)
    assert not np.allclose(there.values, other.values)


def test_utilisation_is_relative_to_capacity_and_ends_at_one():
    easy = read(COUNTS, START_S + 120.0, VMS, Signal.UTILISATION, capacity=10.0, imbalance=0.0)
    np.testing.assert_allclose(easy.values, 20.0 / 7 / 10.0)
    hard = read(COUNTS, START_S + 120.0, VMS, Signal.UTILISATION, capacity=1.0)
    assert hard.values.tolist() == [1.0] * 7


def test_without_vms_only_a_total_can_be_read():
    for signal in (Signal.THROUGHPUT, Signal.UTILISATION):
        found = read(COUNTS, START_S + 120.0, [], signal)
        assert (found.vm_ids, found.values.size, found.error) == ((), 0, "")
    assert read(COUNTS, START_S + 120.0, [], Signal.TOTAL).vm_ids == ("",)


def test_vms_may_change_between_reads():
    source = TraceSource(COUNTS, ManualClock(START_S + 120.0), Signal.THROUGHPUT, 10.0, seed=1)
    first, second, third = (asyncio.run(source.read(vms)) for vms in (VMS, VMS[3:5], VMS))
    assert second.vm_ids == ("i-3", "i-4")
    assert math.fsum(second.values) == pytest.approx(20.0)
    assert first.values.tolist() == third.values.tolist()


@pytest.mark.parametrize(
    ("capacity", "options"), [(0.0, {}), (1.0, {"imbalance": 0.6}), (1.0, {"lag_s": -1.0})]
)
def test_impossible_settings(capacity, options):
    with pytest.raises(SourceError, match="capacity must be above 0"):
        TraceSource(COUNTS, ManualClock(), Signal.TOTAL, capacity, **options)
