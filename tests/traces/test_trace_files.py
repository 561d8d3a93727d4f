"""Trace files: which can be read, which are refused and with which line, and the recordings at hand."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from autoscaler.errors import TraceError
from autoscaler.traces.per_vm import read_per_vm
from autoscaler.traces.reading import read_trace, trace_name
from autoscaler.traces.trace import Trace, TraceKind

GOOD = "timestamp,value\n2026-03-01T00:00:00Z,60\n2026-03-01T00:01:00Z,0\n2026-03-01T00:03:00Z,30.5\n"
START_S = 1772323200.0

RECORDINGS = Path(os.environ.get("AUTOSCALER_TRACES", Path(__file__).parents[2].parent / "shared" / "traces"))


def write(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path) -> Trace:
    return read_trace(path, kind=TraceKind.COUNT)


def test_csv(tmp_path):
    trace = read(write(tmp_path, GOOD))
    assert trace.timestamps.tolist() == [START_S, START_S + 60, START_S + 180]
    assert trace.values.tolist() == [60.0, 0.0, 30.5]
    assert (trace.interval_s, trace.name, trace.missing) == (60.0, "t", 1)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD + "\n\n",
        GOOD.replace("Z", ""),
        GOOD.replace("Z", "+00:00"),
        GOOD.replace("2026-03-01T00", "2026-03-01T05").replace("Z", "+05:00"),
        GOOD.replace("60\n", '"60"\n'),
        f"timestamp,value\n{START_S:.0f},60\n{START_S + 60:.0f},0\n{START_S + 180:.1f},30.5",
    ],
)
def test_other_spellings_of_the_same_recording_have_the_same_digest(tmp_path, text):
    assert read(write(tmp_path, text, "other.csv")).digest == read(write(tmp_path, GOOD)).digest


def test_gzip(tmp_path):
    path = write(tmp_path, gzip.compress(GOOD.encode()), "t.csv.gz")
    assert read(path).digest == read(write(tmp_path, GOOD)).digest
    assert trace_name(path) == "t"


@pytest.mark.parametrize("stamps", ["times", "epoch", "text"])
def test_parquet(tmp_path, stamps):
    trace = read(write(tmp_path, GOOD))
    column = {
        "times": pa.array((trace.timestamps * 1e9).astype(np.int64), pa.timestamp("ns", tz="UTC")),
        "epoch": pa.array(trace.timestamps.astype(np.int64)),
        "text": pa.array([line.split(",")[0] for line in GOOD.splitlines()[1:]]),
    }[stamps]
    parquet.write_table(pa.table({"timestamp": column, "value": trace.values}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").digest == trace.digest


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"timestamp": [0, 60], "values": [1.0, 2.0]}, "`value` is missing"),
        ({"timestamp": [0, 60], "value": [1.0, None]}, "row 2: `value` is null"),
        ({"timestamp": [0, 60], "value": [1.0, -1.0]}, "row 2: .*negative"),
        ({"timestamp": [0, 60], "value": [True, False]}, "holds bool"),
        ({"timestamp": pa.array([], pa.int64()), "value": pa.array([], pa.float64())}, "no rows"),
    ],
)
def test_what_parquet_is_refused(tmp_path, table, message):
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(TraceError, match=message):
        read(tmp_path / "t.parquet")


def test_a_parquet_file_of_more_rows_than_memory_has_room_for_is_refused_before_it_is_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("autoscaler.traces.parquet.MAX_ROWS", 3)
    for rows in (3, 4):
        table = pa.table({"timestamp": [60 * row for row in range(rows)], "value": [1.0] * rows})
        parquet.write_table(table, tmp_path / f"{rows}.parquet")
    assert len(read(tmp_path / "3.parquet").values) == 3
    with pytest.raises(TraceError, match=r"it has 4 rows, but at most 3 can be read; cut it into parts"):
        read(tmp_path / "4.parquet")


def test_a_broken_parquet_file(tmp_path):
    with pytest.raises(TraceError, match="not a readable Parquet file"):
        read(write(tmp_path, b"PAR1 but not really", "t.parquet"))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "the file is empty"),
        ("\n\n", None, "the file is empty"),
        ("timestamp,value\n", None, "no rows"),
        ("time,value\n0,1\n", 1, "the header is `time,value`"),
        ("timestamp,vm,cpu_percent\n0,a,1\n", 1, "table of single VMs"),
        ("timestamp,value\n2026-03-01T00:00:00Z,1\n", 2, "one row only"),
        (GOOD + "2026-03-01T00:03:00Z,1\n", "5:1", "appears twice"),
        (GOOD + "2026-03-01T00:02:00Z,1\n", "5:1", "before the row above"),
        (GOOD + "2026-03-01T00:04:30Z,1\n", "5:1", "not on the grid"),
        (GOOD + "2026-03-01T00:04:00Z,nan\n", "5:22", "not a finite number"),
        (GOOD + "2026-03-01T00:04:00Z,inf\n", "5:22", "not a finite number"),
        (GOOD + "2026-03-01T00:04:00Z,-1\n", "5:22", "negative"),
        (GOOD + "2026-03-01T00:04:00Z,\n", "5:22", "is not a number; leave the row out"),
        (GOOD + "2026-03-01T00:04:00Z,many\n", "5:22", "`many` is not a number"),
        (GOOD + "2026-03-01T00:04:00Z\n", 5, "1 columns where the header has 2"),
        (GOOD + "\n2026-03-01T00:04:00Z,1\n", 5, "empty line; remove it"),
        (GOOD + "yesterday,1\n", "5:1", "`yesterday` is not a time"),
        (GOOD + "1772323440,1\n", "5:1", "is not a time"),
        ("timestamp,value\n0,1\n60,1\n2026-03-01T00:00:00Z,1\n", "4:1", "epoch seconds as in the first row"),
        (b"timestamp,value\n0,1\n60,\xff\n", "3:4", "not UTF-8"),
        ("timestamp,value\nnan,1\n0,1\n", "2:1", "not a time"),
    ],
)
def test_what_is_refused_and_where(tmp_path, text, line, message):
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


@pytest.mark.parametrize("keep", [10, 40, -4])
def test_a_gzip_file_that_was_cut_off(tmp_path, keep):
    with pytest.raises(TraceError, match="cannot be read"):
        read(write(tmp_path, gzip.compress(GOOD.encode())[:keep], "t.csv.gz"))


def test_text_that_claims_to_be_gzip(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        read(write(tmp_path, GOOD, "t.csv.gz"))


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "web.yaml").write_text("fleet: web\n")
    with pytest.raises(
        TraceError, match="this is YAML, not a trace; if a command takes a policy, the policy comes before"
    ):
        read_trace(tmp_path / "web.yaml")
    with pytest.raises(TraceError, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="not a file"):
        read(tmp_path)


def test_the_kind_is_never_guessed(tmp_path):
    with pytest.raises(
        TraceError, match=r"say whether the values are counts.* `--kind count` or `--kind gauge`"
    ):
        read_trace(write(tmp_path, GOOD))


def test_the_kind_is_asked_for_only_of_what_can_be_a_trace(tmp_path):
    with pytest.raises(
        TraceError, match=r"t\.csv:1: the header is `when,requests`, .*`autoscaler trace import`"
    ):
        read_trace(write(tmp_path, "when,requests\n0,1\n60,2\n"))


def test_the_manifest_says_kind_and_interval(tmp_path):
    write(
        tmp_path,
        "file,kind,interval_s,unit,rows\nt.csv,gauge,30,u,3\nother.csv,count,60,u,3\n",
        "manifest.csv",
    )
    trace = read_trace(write(tmp_path, GOOD))
    assert (trace.kind, trace.interval_s) == (TraceKind.GAUGE, 30.0)
    given = read_trace(tmp_path / "t.csv", kind=TraceKind.COUNT, interval_s=60.0)
    assert (given.kind, given.interval_s) == (TraceKind.COUNT, 60.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [("t.csv,events,,u,3", "kind `events`"), ("t.csv,count,soon,u,3", "`soon` of t.csv is not a number")],
)
def test_what_a_manifest_may_say_wrong(tmp_path, row, message):
    write(tmp_path, f"file,kind,interval_s,unit,rows\n{row}\n", "manifest.csv")
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path, GOOD))


# ── Tables of single VMs ────────────────────────────────────────────────────────────────────────────────

TABLE = "timestamp,vm,cpu_percent,cores\n0,b,10,4\n0,a,20,4\n300,b,0,4\n900,a,106,4\n"


def test_a_table_of_single_vms(tmp_path):
    table = read_per_vm(write(tmp_path, TABLE))
    assert (table.vms, table.interval_s, table.timestamps.tolist()) == (
        ("a", "b"),
        300.0,
        [0.0, 300.0, 900.0],
    )
    np.testing.assert_array_equal(table.cpu_percent, [[20, 10], [np.nan, 0], [106, np.nan]])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (TABLE + "600,a,1,4\n", "6:1", "before the row above"),
        (TABLE + "900,a,1,4\n", "6:5", "VM a appears twice"),
        (TABLE + "1000,a,1,4\n1300,a,1,4\n1601,a,1,4\n", "6:1", "not on the grid"),
        (TABLE + "1200,a,-1,4\n", "6:8", "negative"),
        (TABLE + "1200,a,nan,4\n", "6:8", "not a finite number"),
        (TABLE + "nan,a,1,4\n", "6:1", "not a time"),
        ("timestamp,value\n0,1\n", 1, "the header is"),
    ],
)
def test_what_table_is_refused_and_where(tmp_path, text, line, message):
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match=message) as refused:
        read_per_vm(path)
    assert str(refused.value).startswith(f"{path}:{line}: ")


# ── The recordings at hand ──────────────────────────────────────────────────────────────────────────────


def recordings():
    manifest = RECORDINGS / "manifest.csv"
    if not manifest.is_file():
        return []
    with manifest.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(name="listed", scope="module")
def _listed():
    if not recordings():
        pytest.skip(f"no recordings in {RECORDINGS} (name their folder in AUTOSCALER_TRACES)")
    return recordings()


def test_all_recorded_series_read_as_their_manifest_says(listed):
    series = [row for row in listed if row["kind"] in {"count", "gauge"}]
    assert series
    for row in series:
        trace = read_trace(RECORDINGS / row["file"])
        assert (trace.kind, trace.interval_s, len(trace.values)) == (
            row["kind"],
            float(row["interval_s"]),
            int(row["rows"]),
        )


def test_all_recorded_tables_of_vms_read(listed):
    for row in (row for row in listed if row["kind"] == "per-vm"):
        table = read_per_vm(RECORDINGS / row["file"])
        assert int(np.isfinite(table.cpu_percent).sum()) == int(row["rows"])
        assert table.interval_s == float(row["interval_s"])


def test_an_elb_recording_has_its_known_gaps(listed):
    if not any(row["file"] == "aws_elb_requests_5min.csv.gz" for row in listed):
        pytest.skip("that recording is not here")
    trace = read_trace(RECORDINGS / "aws_elb_requests_5min.csv.gz")
    assert trace.missing == 8
    grid = trace.start_s + 300.0 * np.arange(round((trace.end_s - trace.start_s) / 300.0))
    assert int(np.isnan(trace.rate_at(grid)).sum()) == 8


def test_without_pyarrow_parquet_says_what_to_install(tmp_path):
    parquet.write_table(pa.table({"timestamp": [0, 60], "value": [1.0, 2.0]}), tmp_path / "t.parquet")
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from autoscaler.errors import TraceError\n"
        "from autoscaler.traces.reading import TraceKind, read_trace\n"
        "try: read_trace(Path(sys.argv[1]), kind=TraceKind.COUNT)\n"
        "except TraceError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "t.parquet")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "t.parquet: reading Parquet needs pyarrow; install the extra `sim`, or use CSV" in told
