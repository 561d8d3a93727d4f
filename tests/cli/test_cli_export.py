"""`export`: the journal's demand as a trace that can be read back, and its timeline, for all kinds of ticks."""

import asyncio
import csv
import gzip
import math
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet

from autoscaler.ports import TickRecord
from autoscaler.simulator.replay.exporting import demand_trace
from autoscaler.simulator.replay.recording import timeline
from autoscaler.simulator.replay.timeline import TIMELINE_COLUMNS
from autoscaler.store import JournalReader, SqliteJournal, TickRow
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import TraceKind
from tests.cli.conftest import strict_json
from tests.contracts.test_journal_contract import fleet_tick

GAUGE = TraceKind.GAUGE

START_S = 1_772_323_200.0  # 2026-03-01T00:00:00Z, a point of every grid used here
UNKNOWN = math.nan


def record(state_dir, ticks):
    """Record (seconds, tick length, demand, censored) as a daemon does: a moment after the point of the grid."""

    async def write():
        journal = SqliteJournal(state_dir, inline=True)
        for after_s, tick_s, demand, censored in ticks:
            row = replace(fleet_tick(), demand=demand, censored=censored, freshness=0 if demand >= 0 else 3)
            at_s = START_S + after_s + 0.137
            await journal.record_tick(TickRecord(int(at_s // tick_s), at_s, (row,)), ())
        await journal.close()

    asyncio.run(write())
    return state_dir


def every(tick_s, demands, *, from_s=0.0, censored=()):
    return [(from_s + n * tick_s, tick_s, float(d), n in censored) for n, d in enumerate(demands)]


def exported(invoke, state_dir, path, *options):
    result = invoke("export", "web", path, "--kind", "gauge", "--json", "--state-dir", state_dir, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    facts = strict_json(result.stdout)
    back = read_trace(path, kind=TraceKind.GAUGE, interval_s=facts["interval_s"])
    assert back.digest == facts["digest"]
    return facts, back


@pytest.mark.parametrize("name", ["day.csv", "day.csv.gz", "day.parquet"])
def test_what_reads_back_is_what_the_journal_says(invoke, tmp_path, name):
    demands = [120.0, 1 / 3, UNKNOWN, 0.0, 250.25, 99.0]
    state_dir = record(tmp_path / "state", every(10, demands, censored=(4,)))
    facts, trace = exported(invoke, state_dir, tmp_path / name)
    with JournalReader(state_dir) as reader:
        said = {t.tick * 10.0: t.recorded.demand for t in reader.ticks("web", 0, 1e12)}
    known = {at_s: demand for at_s, demand in said.items() if not math.isnan(demand)}
    assert dict(zip(trace.timestamps.tolist(), trace.values.tolist(), strict=True)) == known
    assert trace.censored.tolist() == [False, False, False, True, False]
    assert (trace.interval_s, trace.missing, trace.start_s) == (10.0, 1, START_S)
    assert (facts["kind"], facts["rows"], facts["unknown_ticks"], facts["censored_rows"]) == (
        "gauge",
        5,
        1,
        1,
    )
    assert math.isnan(trace.rate_at(START_S + 25.0))


def test_people_are_told_what_the_file_does_not_say(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, [1, UNKNOWN, 2, 3], censored=(3,)))
    result = invoke("export", "web", tmp_path / "d.csv", "--state-dir", state_dir)
    assert result.exit_code == 0
    assert "3 rows of fleet web, 2026-02-28T23:59:50Z to 2026-03-01T00:00:30Z" in result.stdout
    assert (
        "10 s (25.0%) are gaps, which are unknown and not zero (1 of 4 ticks had no measurement)"
        in result.stderr
    )
    assert "in 10 s (33.3%) VMs were saturated: demand was at least this much" in result.stderr
    assert "--kind count" not in result.stderr
    assert read_trace(tmp_path / "d.csv").kind is TraceKind.COUNT, "as manifest.csv says"
    assert (tmp_path / "d.csv").read_text() == (
        "timestamp,value,censored\n2026-02-28T23:59:50Z,10,0\n2026-03-01T00:00:10Z,20,0\n2026-03-01T00:00:20Z,30,1\n"
    )


def test_a_count_is_of_the_interval_that_ends_with_the_tick(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, [1, 2, UNKNOWN, 4, 5, 6]))
    invoke("export", "web", tmp_path / "d.csv", "--state-dir", state_dir)
    counted = read_trace(tmp_path / "d.csv")
    assert (counted.timestamps - START_S).tolist() == [-10, 0, 20, 30, 40]
    assert counted.values.tolist() == [10, 20, 40, 50, 60]
    invoke("export", "web", tmp_path / "m.csv", "--interval", "20s", "--state-dir", state_dir)
    coarse = read_trace(tmp_path / "m.csv")
    assert ((coarse.timestamps - START_S).tolist(), coarse.values.tolist()) == (
        [-20, 0, 20, 40],
        [20, 40, 90, 120],
    )


def test_without_a_manifest_it_is_said_what_would_stand_there(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, [1, 2, 3]))
    result = invoke("export", "web", tmp_path / "d.csv", "--state-dir", state_dir, "--no-manifest")
    assert "--kind count" in result.stderr
    assert not (tmp_path / "manifest.csv").exists()
    (tmp_path / "manifest.csv").write_text("name,what\n")
    result = invoke("export", "web", tmp_path / "e.csv", "--state-dir", state_dir)
    assert result.exit_code == 1
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "e.csv").exists()


def test_skipped_ticks_and_an_outage_are_gaps(invoke, tmp_path):
    ticks = [*every(10, [1, 2]), *every(10, [3, 4], from_s=50), *every(10, [5, 6], from_s=7200)]
    _, trace = exported(invoke, record(tmp_path / "state", ticks), tmp_path / "d.csv")
    after_s = (trace.timestamps - START_S).tolist()
    assert after_s == [0, 10, 50, 60, 7200, 7210]
    assert trace.interval_s == 10.0


def test_a_changed_tick_is_fitted_to_the_usual_one_and_said(invoke, tmp_path):
    ticks = [
        *every(10, range(1, 13)),
        *every(5, [20, 30, 40, 50], from_s=120),
        *every(20, [60, 61], from_s=140),
    ]
    state_dir = record(tmp_path / "state", ticks)
    facts, trace = exported(invoke, state_dir, tmp_path / "d.csv")
    assert trace.interval_s == 10.0
    assert trace.values.tolist() == [*range(1, 13), 25, 45, 60, 61]
    assert [s - START_S for s in trace.timestamps.tolist()[-4:]] == [120, 130, 140, 160]
    assert any("ticks of 20 s, 5 s were fitted to intervals of 10 s" in note for note in facts["notes"])


def test_a_tick_that_was_late_is_no_tick_of_another_length(invoke, tmp_path):
    """It was decided 9.6 s after its time, and the next one 0.4 s after it."""
    ticks = every(10, range(1, 40))
    ticks[20] = (209.6, *ticks[20][1:])
    state_dir = record(tmp_path / "state", ticks)
    facts, trace = exported(invoke, state_dir, tmp_path / "d.csv")
    assert trace.values.tolist() == [*range(1, 40)]
    assert not any("were fitted" in note for note in facts["notes"])


def test_a_longer_interval_gives_means_and_a_shorter_one_is_refused(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, range(12)))
    _, trace = exported(invoke, state_dir, tmp_path / "d.csv", "--interval", "60s")
    assert (trace.interval_s, trace.values.tolist()) == (60.0, [2.5, 8.5])
    result = invoke("export", "web", tmp_path / "e.csv", "--interval", "5s", "--state-dir", state_dir)
    assert result.exit_code == 1
    assert "demand was measured every 10 s, so an interval of 5 s would be mostly gaps" in result.stderr
    assert not (tmp_path / "e.csv").exists()


def of_ticks(*ticks):
    return [
        TickRow(n, at_s, replace(fleet_tick(), demand=demand)) for n, (at_s, demand) in enumerate(ticks, 1)
    ]


def test_a_tick_on_the_grid_point_is_of_the_interval_that_begins_there():
    # 0.1 is no binary fraction.
    found = demand_trace("web", of_ticks((0.0, 1.0), (0.1, 2.0), (0.2, 3.0), (0.3, 4.0)), 0.1, GAUGE).trace
    assert found.timestamps.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert found.values.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_one_tick_is_enough_for_an_interval_that_is_given():
    found = demand_trace("web", of_ticks((65.0, 7.0)), 60.0, GAUGE).trace
    assert (found.timestamps.tolist(), found.values.tolist()) == ([60.0], [7.0])
    # Half as long again as a tick is long enough.
    assert demand_trace(
        "web", of_ticks((0.0, 1.0), (10.0, 2.0), (20.0, 6.0)), 15.0, GAUGE
    ).trace.values.tolist() == [1.5, 6.0]


def test_a_clock_set_back_by_an_hour_leaves_the_later_measurements(invoke, tmp_path):
    ticks = [*every(10, [1] * 370), *every(10, [2] * 20, from_s=100)]
    facts, trace = exported(invoke, record(tmp_path / "state", ticks), tmp_path / "d.csv")
    assert trace.values.tolist() == [1] * 10 + [2] * 20 + [1] * 340
    assert any("the clock was set back 1 times" in note for note in facts["notes"])


def test_a_clock_set_forward_by_an_hour_leaves_a_gap(invoke, tmp_path):
    ticks = [*every(10, [1, 2, 3]), *every(10, [4, 5], from_s=3630)]
    _, trace = exported(invoke, record(tmp_path / "state", ticks), tmp_path / "d.csv")
    assert (trace.missing, trace.interval_s) == (360, 10.0)


def test_a_part_of_it(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, range(100)))
    _, trace = exported(
        invoke, state_dir, tmp_path / "d.csv", "--from", "2026-03-01T00:01:00Z", "--to", START_S + 90
    )
    assert trace.values.tolist() == [6, 7, 8]


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.parquet"])
def test_the_time_line(invoke, tmp_path, name):
    state_dir = record(tmp_path / "state", every(10, [100.0, UNKNOWN, 300.0, 1.0]))
    result = invoke("export", "web", tmp_path / name, "--what", "timeline", "--state-dir", state_dir)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "3 rows of fleet web" in result.stdout
    with JournalReader(state_dir) as reader:
        rows = timeline(reader, "web", 0, 1e12)
    if name.endswith(".parquet"):
        table = parquet.read_table(tmp_path / name).to_pydict()
        assert tuple(table) == TIMELINE_COLUMNS
        assert table["demand"] == [100.0, None, 300.0]
        assert table["desired"] == [row.desired for row in rows]
        assert [stamp.timestamp() for stamp in table["timestamp"]] == [
            pytest.approx(row.timestamp_s, abs=1e-6) for row in rows
        ]
    else:
        packed = (tmp_path / name).read_bytes()
        text = (gzip.decompress(packed) if name.endswith(".gz") else packed).decode()
        header, *lines = csv.reader(text.splitlines())
        assert tuple(header) == TIMELINE_COLUMNS
        assert [line[1] for line in lines] == ["100", "", "300"]
        assert [int(line[4]) for line in lines] == [row.desired for row in rows]


def test_a_file_that_is_there_is_left_alone_unless_forced(invoke, tmp_path):
    state_dir = record(tmp_path / "state", every(10, [1, 2]))
    (tmp_path / "d.csv").write_text("mine")
    for what in ("demand", "timeline"):
        result = invoke("export", "web", tmp_path / "d.csv", "--what", what, "--state-dir", state_dir)
        assert result.exit_code == 1
        assert "the file already exists and was left alone; give another name or --force" in result.stderr
        assert (tmp_path / "d.csv").read_text() == "mine"
    assert invoke("export", "web", tmp_path / "d.csv", "--force", "--state-dir", state_dir).exit_code == 0
    assert read_trace(tmp_path / "d.csv").values.tolist() == [10, 20]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wbe", "d.csv"), "has no fleet wbe; did you mean web?"),
        (("web", "d.txt"), "the name must end in .csv, .csv.gz or .parquet"),
        (("web", "d.csv", "--to", "2020-01-01"), "has nothing of fleet web in this time; it has 2026-03-01T00:00:00Z"),
        (("web", "d.csv", "--to", "2026-03-01T00:00:05Z"), "has only one tick in this time"),
        (("web", "d.csv", "--from", "2026-03-01T00:00:15Z"), "none of the 2 ticks of fleet web in this time has"),
        (("web", "d.csv", "--what", "timeline", "--to", "2026-03-01T00:00:05Z"), "because a row takes two ticks"),
        (("web", "state/journal.sqlite/d.csv"), "cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_and_leaves_no_file(invoke, tmp_path, arguments, words):
    state_dir = record(tmp_path / "state", every(10, [1, 2, UNKNOWN, UNKNOWN]))
    result = invoke("export", *arguments, "--state-dir", state_dir)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert not list(tmp_path.glob("*d.*"))


def test_what_is_written_over_a_noted_file_is_noted_as_what_it_is_now(invoke, tmp_path):
    (tmp_path / "manifest.csv").write_text("file,kind,interval_s\nday.csv,count,60\n")
    (tmp_path / "day.csv").write_text("of before")
    exported(invoke, record(tmp_path / "state", every(10, [1, 2])), tmp_path / "day.csv", "--force")
    back = read_trace(tmp_path / "day.csv")
    assert (back.kind, back.interval_s) == (TraceKind.GAUGE, 10.0)


def test_wrong_usage(invoke):
    assert invoke("export", "web", "d.csv", "--what", "timeline", "--interval", "60s").exit_code == 2
    assert invoke("export", "web", "d.csv", "--what", "timeline", "--kind", "count").exit_code == 2
    assert invoke("export", "web").exit_code == 2


def test_ticks_come_one_by_one_across_several_reads(tmp_path):
    state_dir = record(tmp_path / "state", every(10, range(1200)))
    with JournalReader(state_dir) as reader:
        ticks = reader.each_tick("web", 0, 1e12)
        first = next(ticks)
        assert first.recorded.demand == 0.0
        assert np.array([t.recorded.demand for t in ticks]).tolist() == list(range(1, 1200))
