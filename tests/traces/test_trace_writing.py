"""Writing trace files: what is written reads back as the same recording, whole or not at all."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.errors import TraceError
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.traces.writing import ENDINGS, ending_of, kind_note, write_trace, write_whole

START_S = 1772323200.0  # 2026-03-01T00:00:00Z


def trace_of(values, *, kind=TraceKind.GAUGE, start_s=START_S, interval_s=10.0, gaps=()) -> Trace:
    kept = [number for number in range(len(values)) if number not in gaps]
    stamps = [start_s + number * interval_s for number in kept]
    return Trace.build(stamps, [values[number] for number in kept], kind=kind, interval_s=interval_s)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", TraceKind)
def test_what_is_written_reads_back_as_the_same_recording(tmp_path, ending, kind):
    trace = trace_of([0.0, 1 / 3, 5e-324, 1e300, 7.0, 2.5], kind=kind, gaps=(4,))
    path = tmp_path / "new" / f"t{ending}"
    write_trace(path, trace)
    back = read_trace(path, kind=kind)
    assert (back.digest, back.interval_s, back.missing) == (trace.digest, 10.0, 1)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@settings(max_examples=60, deadline=None)
@given(
    start_s=st.floats(0.0, 4e9),
    interval_s=st.sampled_from([0.1, 1.0, 7.3, 60.0]),
    values=st.lists(st.floats(0.0, 1e12), min_size=2, max_size=12),
    ending=st.sampled_from(ENDINGS),
)
def test_any_stamps_and_values_come_back_to_the_last_bit(
    tmp_path_factory, start_s, interval_s, values, ending
):
    trace = trace_of(values, start_s=start_s, interval_s=interval_s)
    path = tmp_path_factory.mktemp("written") / f"t{ending}"
    write_trace(path, trace)
    back = read_trace(path, kind=TraceKind.GAUGE, interval_s=interval_s)
    assert back.timestamps.tolist() == trace.timestamps.tolist()
    assert back.values.tolist() == trace.values.tolist()


def test_people_read_the_csv(tmp_path):
    write_trace(tmp_path / "t.csv", trace_of([60.0, 0.0, 1.0, 30.5], interval_s=60.0, gaps=(2,)))
    assert (tmp_path / "t.csv").read_text() == (
        "timestamp,value\n2026-03-01T00:00:00Z,60\n2026-03-01T00:01:00Z,0\n2026-03-01T00:03:00Z,30.5\n"
    )


@pytest.mark.parametrize("start_s", [-10.0, 253_402_300_790.0, START_S + 0.25])
def test_times_beyond_the_calendar_and_parts_of_seconds_are_epoch_seconds(tmp_path, start_s):
    trace = trace_of([1.0, 2.0], start_s=start_s)
    write_trace(tmp_path / "t.csv", trace)
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == f"{start_s!r},1"
    assert read_trace(tmp_path / "t.csv", kind=TraceKind.GAUGE).digest == trace.digest


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_traces_give_equal_bytes(tmp_path, ending):
    trace = trace_of(np.arange(500.0))
    for folder in ("a", "b"):
        write_trace(tmp_path / folder / f"t{ending}", trace)
    first, second = ((tmp_path / folder / f"t{ending}").read_bytes() for folder in ("a", "b"))
    assert first == second


def test_the_gzip_carries_no_time_of_its_making(tmp_path):
    write_trace(tmp_path / "t.csv.gz", trace_of([1.0, 2.0]))
    packed = (tmp_path / "t.csv.gz").read_bytes()
    assert packed[4:8] == bytes(4)
    assert gzip.decompress(packed).startswith(b"timestamp,value\n")


def test_a_file_that_is_there_is_left_alone_unless_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("mine")
    with pytest.raises(TraceError, match=r"t\.csv: the file already exists and was left alone; .*--force"):
        write_trace(path, trace_of([1.0, 2.0]))
    assert path.read_text() == "mine"
    write_trace(path, trace_of([1.0, 2.0]), overwrite=True)
    assert read_trace(path, kind=TraceKind.GAUGE).values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["t.txt", "t", "t.gz", ".csv", "t.CSV"])
def test_another_ending(tmp_path, name):
    with pytest.raises(TraceError, match=r"the name must end in \.csv, \.csv\.gz or \.parquet"):
        write_trace(tmp_path / name, trace_of([1.0, 2.0]))
    assert not list(tmp_path.iterdir())


def test_endings():
    assert [ending_of(Path(f"a.b{ending}")) for ending in ENDINGS] == list(ENDINGS)


def test_one_row_makes_no_trace(tmp_path):
    with pytest.raises(TraceError, match=r"has one row only \(2026-03-01T00:00:00Z\).*choose a longer time"):
        write_trace(tmp_path / "t.csv", trace_of([1.0]))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_the_file_and_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(TraceError, match=r"this is a folder; give the name of a file in it"):
        write_trace(tmp_path / "t.csv", trace_of([1.0, 2.0]), overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match=r"cannot be written: .*; give another place"):
        write_trace(tmp_path / "file" / "t.csv", trace_of([1.0, 2.0]))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")  # noqa: PTH110
def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("before")

    def write(unfinished):
        unfinished.symlink_to("/dev/full")
        unfinished.write_bytes(b"x" * 100_000)

    with pytest.raises(TraceError, match=r"t\.csv: cannot be written: No space left on device"):
        write_whole(path, write, overwrite=True)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_note_tells_what_the_file_does_not_say(tmp_path):
    path = tmp_path / "t.csv"
    sparse = trace_of([1.0] * 9, gaps=(1, 2, 3, 5, 6, 7))
    write_trace(path, sparse)
    note = kind_note(path, sparse)
    assert "--kind gauge" in note
    assert "an interval is 10 s" in note
    assert "an interval is" not in kind_note(path, trace_of([1.0, 2.0]))
    line = note.split("`")[3]
    (tmp_path / "manifest.csv").write_text(f"file,kind,interval_s\n{line}\n")
    assert read_trace(path).digest == sparse.digest


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_many_rows_are_written_in_parts_without_seams(tmp_path, ending):
    trace = trace_of(np.arange(250_001.0) % 977, gaps=(100_000, 199_999), interval_s=1.0)
    told = []
    write_trace(tmp_path / f"t{ending}", trace, progress=told.append)
    assert told == sorted(told)
    assert (told[0], told[-1], len(told)) == (0.0, 1.0, 4)
    assert read_trace(tmp_path / f"t{ending}", kind=trace.kind).digest == trace.digest
