"""Events and tables of VMs as traces: definitions checked by brute force, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.errors import TraceError
from autoscaler.traces.events import Measure, trace_of_events
from autoscaler.traces.per_vm import PerVmColumns, counterfactual, read_per_vm
from autoscaler.traces.trace import RowError, TraceKind

EVENTS = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 200)), min_size=1, max_size=30)


@settings(max_examples=100)
@given(events=EVENTS, interval_s=st.sampled_from([7.0, 60.0, 300.0]))
def test_counts_and_means_under_way_are_what_they_are_called(events, interval_s):
    begins, lasts = (np.array(column, np.float64) for column in zip(*events, strict=True))
    first, last = (int(edge // interval_s) for edge in (begins.min(), begins.max()))
    span = [(k * interval_s, (k + 1) * interval_s) for k in range(first, last + 1)]
    counts = [sum(a <= b < z for b in begins) for a, z in span]
    busy = [sum(max(0, min(b + d, z) - max(b, a)) for b, d in events) / interval_s for a, z in span]
    if len(span) == 1:
        return
    count = trace_of_events(begins, None, interval_s, Measure.COUNT)
    level = trace_of_events(begins, lasts, interval_s, Measure.CONCURRENCY)
    assert count.timestamps.tolist() == level.timestamps.tolist() == [a for a, _ in span]
    assert (count.kind, level.kind) == (TraceKind.COUNT, TraceKind.GAUGE)
    assert count.values.tolist() == counts
    np.testing.assert_allclose(level.values, busy, atol=1e-9)


def test_the_work_under_way_far_from_the_epoch_is_exact_too():
    begins = 1_700_000_000.0 + np.arange(600) * 0.5
    level = trace_of_events(begins, np.full(600, 2.0), 10.0, Measure.CONCURRENCY)
    np.testing.assert_allclose(level.values[1:], 4.0, atol=1e-6)


@pytest.mark.parametrize(
    ("begins", "lasts", "message"),
    [
        ([], None, "no events"),
        ([0.0, np.nan], None, "not a time"),
        ([0.0, 1e12], None, "is a time wrong"),
        ([0.0, 1.0], [1.0, -1.0], "duration_s -1 is not a duration"),
        ([0.0, 1.0], [1.0, np.nan], "duration_s nan is not a duration"),
        ([0.0, 1.0], None, "without the duration"),
    ],
)
def test_events_that_are_impossible(begins, lasts, message):
    measure = Measure.COUNT if lasts is None and "duration" not in message else Measure.CONCURRENCY
    durations = None if lasts is None else np.array(lasts)
    with pytest.raises(TraceError, match=message):
        trace_of_events(np.array(begins), durations, 60.0, measure)


def test_an_impossible_event_has_its_row():
    with pytest.raises(RowError) as refused:
        trace_of_events(np.array([0.0, 1.0]), np.array([1.0, -1.0]), 60.0, Measure.CONCURRENCY)
    assert (refused.value.row, refused.value.column) == (1, "duration_s")


# ── Demand behind a table of VMs ────────────────────────────────────────────────────────────────────────

TABLE = """timestamp,vm,cpu_percent,cores
0,a,50,2
0,b,100,4
300,a,100,2
300,b,90,4
300,c,95,2
600,b,20,4
600,c,40,2
900,a,10,2
900,b,30,4
"""


def table(folder, text=TABLE, columns=None):
    path = folder / "t.csv"
    path.write_text(text)
    return read_per_vm(path, columns)


def test_demand_is_utilisation_times_capacity_and_censored_where_saturated(tmp_path):
    found = counterfactual(table(tmp_path), 10.0)
    # At 600 s VM a has no row but lives on until 900 s: unknown. VM c is gone at 900 s.
    assert found.trace.timestamps.tolist() == [0.0, 300.0, 900.0]
    np.testing.assert_allclose(found.trace.values, [15.0, 28.5, 4.0])
    assert found.trace.censored.tolist() == [False, True, False]
    assert (found.vms, found.left_out, found.filled, found.censored) == (3, 1, 0, 1)
    assert found.trace.kind is TraceKind.GAUGE


def test_with_less_coverage_the_silent_count_with_the_mean_of_the_others(tmp_path):
    found = counterfactual(table(tmp_path), coverage=0.5)
    np.testing.assert_allclose(found.trace.values, [1.5, 2.85, 0.6 * 3 / 2, 0.4])
    assert (found.left_out, found.filled) == (0, 1)


def test_each_vm_may_have_its_own_capacity(tmp_path):
    found = counterfactual(table(tmp_path, columns=PerVmColumns(capacity="cores")))
    np.testing.assert_allclose(found.trace.values, [5.0, 7.5, 1.4])


def test_other_names_and_shares_instead_of_percent(tmp_path):
    text = "when,machine,use\n0,x,0.5\n0,y,0.25\n60,x,1\n60,y,1\n"
    found = counterfactual(table(tmp_path, text, PerVmColumns("when", "machine", "use", full_at=1.0)))
    np.testing.assert_allclose(found.trace.values, [0.75, 2.0])
    assert found.trace.censored.tolist() == [False, True]


@pytest.mark.parametrize(
    "wrong", [{"capacity_per_s": 0.0}, {"saturation": 0.0}, {"coverage": 0.0}, {"coverage": 1.1}]
)
def test_impossible_arguments(tmp_path, wrong):
    with pytest.raises(TraceError, match="capacity must be above 0, saturation"):
        counterfactual(table(tmp_path), **wrong)


def test_a_table_without_a_column_says_which_are_wanted(tmp_path):
    with pytest.raises(TraceError, match=r"t\.csv:1: the header is .*cores"):
        table(tmp_path, "timestamp,vm,cpu_percent\n0,a,1\n", PerVmColumns(capacity="cores"))
