"""Joining, resampling and describing traces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.errors import TraceError
from autoscaler.traces.manifest import note_in_manifest
from autoscaler.traces.reading import read_trace
from autoscaler.traces.shaping import merge, resample
from autoscaler.traces.statistics import gaps_of, statistics_of, warnings_of
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.traces.writing import write_trace


def trace_of(rows, kind=TraceKind.COUNT, interval_s=60.0, name="t", censored=None):
    """Rows by number of the interval; what is not there is a gap."""
    return Trace.build(
        [number * interval_s for number in rows], list(rows.values()), kind=kind, interval_s=interval_s, name=name,
        censored=censored,
    )  # fmt: skip


ROWS = st.dictionaries(st.integers(0, 40), st.integers(0, 9), min_size=2).map(
    lambda rows: dict(sorted(rows.items()))
)


@given(rows=ROWS, ways=st.integers(1, 4), data=st.data())
def test_parts_in_any_order_join_to_the_whole(rows, ways, data):
    part = data.draw(
        st.lists(st.sets(st.integers(0, ways), min_size=1), min_size=len(rows), max_size=len(rows))
    )
    parts = [
        trace_of(piece)
        for way in range(ways + 1)
        if (piece := {k: v for (k, v), where in zip(rows.items(), part, strict=True) if way in where})
    ]
    order = data.draw(st.permutations(parts))
    assert merge(order).digest == trace_of(rows).digest


def test_overlaps_that_disagree_are_named():
    one, two = trace_of({0: 1, 1: 2, 2: 3}, name="one"), trace_of({1: 2, 2: 4, 3: 5}, name="two")
    with pytest.raises(
        TraceError, match=r"one and two disagree at 1970-01-01T00:02:00Z: 3 and 4; 1 rows disagree in all"
    ):
        merge([one, two])


def test_where_one_recording_was_censored_the_joined_one_is():
    one = trace_of({0: 1, 1: 2}, censored=[False, True])
    assert merge([one, trace_of({1: 2, 2: 3})]).censored.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (trace_of({0: 1, 1: 2}, TraceKind.GAUGE), "is a count and .* a gauge"),
        (trace_of({0: 1, 1: 2}, interval_s=10.0), "intervals of 60 s and .* of 10 s"),
        (Trace.build([10.0, 70.0], [1, 2], kind=TraceKind.COUNT), "10 s off the grid"),
    ],
)
def test_what_does_not_fit_together(other, message):
    with pytest.raises(TraceError, match=message):
        merge([trace_of({0: 1, 1: 2}), other])


@given(rows=ROWS, parts=st.integers(1, 6), kind=st.sampled_from(TraceKind))
def test_longer_intervals_hold_what_their_parts_hold_and_only_whole_ones_are_known(rows, parts, kind):
    expected = {}
    for number in range(41 // parts + 1):
        inside = [rows.get(at) for at in range(number * parts, (number + 1) * parts)]
        if None not in inside:
            expected[number] = sum(inside) / (1 if kind is TraceKind.COUNT else parts)
    trace = trace_of(rows, kind)
    if not expected:
        with pytest.raises(TraceError, match="covers no complete interval of"):
            resample(trace, parts * 60.0)
        return
    found = resample(trace, parts * 60.0)
    assert found.timestamps.tolist() == [number * parts * 60.0 for number in expected]
    np.testing.assert_allclose(found.values, list(expected.values()), rtol=1e-15)
    assert (found.kind, found.interval_s) == (kind, parts * 60.0)


def test_a_longer_interval_is_censored_where_a_part_is():
    trace = trace_of({0: 1, 1: 2, 2: 3, 3: 4}, censored=[False, False, False, True])
    assert resample(trace, 120.0).censored.tolist() == [False, True]


@pytest.mark.parametrize("interval_s", [30.0, 90.0, 61.0])
def test_intervals_that_are_no_whole_multiple(interval_s):
    with pytest.raises(TraceError, match="not a whole multiple"):
        resample(trace_of({0: 1, 1: 2}), interval_s)


# ── Statistics ──────────────────────────────────────────────────────────────────────────────────────────


def test_figures_of_a_small_trace_by_hand():
    found = statistics_of(trace_of({0: 0, 1: 2, 2: 4, 6: 6}))
    assert (found.rows, found.missing, found.mean, found.peak, found.peak_to_mean) == (4, 3, 3.0, 6.0, 2.0)
    assert [(gap.start_s, gap.intervals) for gap in found.gaps] == [(180.0, 3)]
    assert found.variation == pytest.approx(math.sqrt(5) / 3)
    assert found.dispersion == pytest.approx(5 / 3)
    assert (found.zeros, found.quantiles[0]) == (0.25, 3.0)
    assert math.isnan(found.daily)


def test_the_largest_numbers_have_figures_too():
    found = statistics_of(trace_of({number: 1e308 * ((1 + number % 2) / 2) for number in range(2000)}))
    assert (found.mean, found.peak) == (pytest.approx(0.75e308), 1e308)
    assert found.variation == pytest.approx(1 / 3)
    assert found.dispersion == pytest.approx(0.75e308 / 9)


def test_a_gauge_has_no_index_of_dispersion():
    assert math.isnan(statistics_of(trace_of({0: 1, 1: 2}, TraceKind.GAUGE)).dispersion)


def test_zeros_throughout_have_no_ratios():
    found = statistics_of(trace_of({0: 0, 1: 0}))
    assert math.isnan(found.peak_to_mean)
    assert math.isnan(found.variation)
    assert any("zero throughout" in text for text in warnings_of(trace_of({0: 0, 1: 0}), found))


def test_the_daily_correlation_is_pearsons_over_pairs_of_recorded_intervals():
    generator = np.random.default_rng(4)
    hours = np.arange(24 * 6)
    values = 10 + 5 * np.sin(2 * np.pi * hours / 24) + generator.random(len(hours))
    keep = generator.random(len(hours)) > 0.2
    trace = Trace.build(hours[keep] * 3600.0, values[keep], kind=TraceKind.GAUGE, interval_s=3600.0)
    pairs = [(values[h], values[h + 24]) for h in hours[:-24] if keep[h] and keep[h + 24]]
    assert statistics_of(trace).daily == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1])
    assert gaps_of(trace)


def test_a_ceiling_and_gaps_are_warned_of():
    rows = {number: min(number % 50, 20) for number in range(5000) if not 100 <= number < 300}
    trace = trace_of(rows)
    told = " ".join(warnings_of(trace, statistics_of(trace)))
    assert "may have a ceiling" in told
    assert "4.0% of its time was not recorded" in told


# ── Manifest ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_noted_trace_needs_no_kind_and_other_rows_stay(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        'file,kind,interval_s,unit\nother.csv,gauge,60,"a, b"\nt.csv,gauge,1,old\n', encoding="utf-8"
    )
    trace = trace_of({0: 1, 5: 2})
    write_trace(tmp_path / "t.csv", trace)
    note_in_manifest(tmp_path / "t.csv", trace)
    back = read_trace(tmp_path / "t.csv")
    assert (back.digest, back.kind, back.interval_s) == (trace.digest, TraceKind.COUNT, 60.0)
    assert (tmp_path / "manifest.csv").read_text().splitlines() == [
        "file,kind,interval_s,unit", 'other.csv,gauge,60,"a, b"', "t.csv,count,60,",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "file,kind,interval_s\nt.csv,count,60,more\n", '"'])
def test_what_is_no_manifest_is_left_alone(tmp_path, text):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(TraceError, match=r"manifest\.csv: "):
        note_in_manifest(tmp_path / "t.csv", trace_of({0: 1, 1: 2}))
    assert (tmp_path / "manifest.csv").read_text() == text


@pytest.mark.parametrize(
    ("first", "step", "odd"),
    [
        (46_314.0, 1.0, True),  # days of a spreadsheet
        (46_314.0, 1 / 1440, True),
        (29_872_800.0, 1.0, True),  # minutes since 1970
        (497_880.0, 1.0, True),  # hours
        (0.0, 1.0, False),
        (46_314.0, 60.0, False),
        (1_792_368_000.0, 1.0, False),
    ],
)
def test_times_that_may_be_in_another_unit_than_seconds_are_doubted(first, step, odd):
    at = first + step * np.arange(300)
    trace = Trace.build(at, np.arange(300.0), kind=TraceKind.GAUGE, name="t", interval_s=step)
    assert (
        any(
            "are they in seconds? Spreadsheet days" in text
            for text in warnings_of(trace, statistics_of(trace))
        )
        is odd
    )
