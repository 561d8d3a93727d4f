"""The Trace value: look-ups, gaps, cuts, scaling, digests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Trace, TraceKind

GAPPY = Trace.build([0.0, 60.0, 180.0], [60.0, 120.0, 0.0], kind=TraceKind.COUNT, name="gappy")


def test_counts_are_divided_by_the_interval_and_gauges_are_not():
    gauge = Trace.build([0.0, 60.0], [60.0, 120.0], kind=TraceKind.GAUGE)
    assert GAPPY.rate_at(0.0) == 1.0
    assert GAPPY.rate_at(119.9) == 2.0
    assert gauge.rate_at(119.9) == 120.0


def test_a_gap_is_unknown_and_a_zero_is_zero():
    times = np.array([-0.1, 0.0, 59.9, 60.0, 120.0, 179.9, 180.0, 239.9, 240.0])
    expected = [np.nan, 1.0, 1.0, 2.0, np.nan, np.nan, 0.0, 0.0, np.nan]
    np.testing.assert_array_equal(GAPPY.rate_at(times), expected)
    assert GAPPY.missing == 1


def test_start_end_and_peak():
    assert (GAPPY.start_s, GAPPY.end_s, GAPPY.peak_per_s, GAPPY.interval_s) == (0.0, 240.0, 2.0, 60.0)


def test_the_arrays_cannot_be_written():
    for array in (GAPPY.timestamps, GAPPY.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        GAPPY.name = "other"


def test_building_does_not_freeze_or_share_the_callers_arrays():
    stamps, values = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    trace = Trace.build(stamps, values, kind=TraceKind.GAUGE)
    values[0] = 9.0
    assert trace.values[0] == 1.0


def test_cut_is_half_open_and_keeps_the_grid():
    cut = GAPPY.cut(60.0, 180.0)
    assert cut.timestamps.tolist() == [60.0]
    assert cut.interval_s == 60.0
    assert GAPPY.cut(0.0, 180.1).timestamps.tolist() == [0.0, 60.0, 180.0]


def test_a_cut_without_rows_says_what_the_trace_covers():
    with pytest.raises(
        TraceError, match=r"gappy has no rows .* covers 1970-01-01T00:00:00Z to 1970-01-01T00:04:00Z"
    ):
        GAPPY.cut(120.0, 180.0)
    with pytest.raises(TraceError, match=r"has no rows from 1970-01-01T01:00:00Z; it covers"):
        GAPPY.cut(3600.0, float("inf"))


def test_scaling():
    assert GAPPY.scaled(2.0).values.tolist() == [120.0, 240.0, 0.0]
    assert GAPPY.scaled_to_peak(500.0).peak_per_s == pytest.approx(500.0)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_factors(factor):
    with pytest.raises(TraceError, match="factor above 0"):
        GAPPY.scaled(factor)


def test_a_trace_of_zeros_has_no_peak_to_scale_to():
    with pytest.raises(TraceError, match="zero throughout"):
        Trace.build([0.0, 1.0], [0.0, 0.0], kind=TraceKind.COUNT).scaled_to_peak(1.0)


def test_the_digest_is_of_the_content_only():
    same = Trace.build([0, 60, 180], [60, 120, 0], kind=TraceKind.COUNT, name="other name")
    assert same.digest == GAPPY.digest
    assert GAPPY.digest == "247da56f8bc2fb497e79675cb1ba98a7b1abc2cf829517697391d481502ab408"
    others = [
        Trace.build([0, 60, 180], [60, 120, 1], kind=TraceKind.COUNT),
        Trace.build([0, 60, 180], [60, 120, 0], kind=TraceKind.GAUGE),
        Trace.build([0, 60, 120], [60, 120, 0], kind=TraceKind.COUNT),
        Trace.build([0, 60, 180], [60, 120, 0], kind=TraceKind.COUNT, interval_s=30.0),
    ]
    assert len({GAPPY.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("stamps", "values", "message"),
    [
        ([], [], "no rows"),
        ([0.0], [1.0], "one row only"),
        ([0.0, 1.0], [1.0], "equally long"),
        ([0.0, 60.0, 60.0], [1, 1, 1], "appears twice"),
        ([0.0, 60.0, 30.0], [1, 1, 1], "before the row above"),
        ([0.0, 60.0, 130.0], [1, 1, 1], "not on the grid of 60 s"),
        ([0.0, 60.0, 61.0, 120.0, 180.0], [1, 1, 1, 1, 1], "00:01:01Z is not on the grid of 60 s"),
        ([0.0, np.nan], [1, 1], "not a time"),
        ([0.0, 60.0], [1, np.nan], "not a finite number"),
        ([0.0, 60.0], [1, np.inf], "not a finite number"),
        ([0.0, 60.0], [1, -2.0], "negative"),
    ],
)
def test_what_is_no_trace(stamps, values, message):
    with pytest.raises(TraceError, match=message):
        Trace.build(stamps, values, kind=TraceKind.COUNT)


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan")])
def test_impossible_intervals(interval_s):
    with pytest.raises(TraceError, match="impossible"):
        Trace.build([0.0, 1.0], [1, 1], kind=TraceKind.COUNT, interval_s=interval_s)


def test_an_interval_longer_than_the_steps_is_refused():
    with pytest.raises(TraceError, match="not on the grid of 120 s"):
        Trace.build([0.0, 60.0, 120.0], [1, 1, 1], kind=TraceKind.COUNT, interval_s=120.0)


@given(
    start=st.integers(0, 2_000_000_000),
    interval=st.integers(1, 3600),
    present=st.lists(st.booleans(), min_size=2, max_size=30),
    at=st.floats(-2, 32),
)
def test_a_look_up_is_the_row_whose_interval_holds_the_time_or_nothing(start, interval, present, at):
    rows = [index for index, there in enumerate(present) if there]
    if len(rows) < 2:
        return
    stamps = [float(start + row * interval) for row in rows]
    trace = Trace.build(
        stamps, np.arange(1.0, len(rows) + 1), kind=TraceKind.GAUGE, interval_s=float(interval)
    )
    time_s = start + at * interval
    holding = [index for index, stamp in enumerate(stamps) if stamp <= time_s < stamp + interval]
    expected = float(holding[0] + 1) if holding else np.nan
    np.testing.assert_equal(trace.rate_at(time_s), expected)
