"""Wide tables: one column per service or VM, as dashboards export them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import parquet

from autoscaler.errors import TraceError
from autoscaler.traces.column_roles import SeriesColumns, Shape
from autoscaler.traces.importing import ImportOptions, import_files
from autoscaler.traces.per_vm import PerVmColumns
from autoscaler.traces.trace import TraceKind

COUNT = ImportOptions(kind=TraceKind.COUNT, shape=Shape.WIDE)
VMS = ImportOptions(shape=Shape.WIDE_VMS)
GRAFANA = (
    '"Time","web-1","web-2"\n'
    '"2026-03-01 00:00:00",10,1\n'
    '"2026-03-01 00:01:00",20,2\n'
    '"2026-03-01 00:02:00",30,3\n'
)
BEGIN_S = 1772323200.0


def put(folder, text, name="t.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(found):
    first = found.trace.timestamps[0]
    return list(zip((found.trace.timestamps - first).tolist(), found.trace.values.tolist(), strict=True))


def refusal(path, options):
    with pytest.raises(TraceError) as refused:
        import_files([path], options)
    return str(refused.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (GRAFANA, COUNT),
        (GRAFANA.replace('"Time"', '"Time (UTC)"'), COUNT),
        (GRAFANA.replace(",", ";"), replace(COUNT, separator=";")),
        ("sep=,\n" + GRAFANA, replace(COUNT, skip=1)),
        (GRAFANA.replace('"Time"', "Moment"), replace(COUNT, series=SeriesColumns(time="Moment"))),
        (GRAFANA.replace("\n", ",99\n").replace("2,99\n", "2,cpu web-1\n", 1).replace("web-2,99", "web-2,cpu"),
         replace(COUNT, columns="web-*")),
        (GRAFANA.replace("00:01:00", "00:03:00").replace("20,2", "30,3").replace('00:02:00",30,3', '00:01:00",20,2'),
         replace(COUNT, sort=True)),
    ],
)  # fmt: skip
def test_columns_are_added(tmp_path, text, options):
    found = import_files([put(tmp_path, text)], options)
    assert found.trace.timestamps[0] == BEGIN_S
    assert [value for _, value in rows(found)] == [11.0, 22.0, 33.0]
    assert found.trace.kind is TraceKind.COUNT
    assert found.notes == ("the sum of 2 columns (web-1, web-2)",)


def test_an_empty_cell_is_unknown_unless_it_is_said_to_be_nothing(tmp_path):
    path = put(
        tmp_path,
        "time,a,b\n0,,5\n60,1,NaN\n120,2,7\n180,3,null\n240,4,\n",
    )
    found = import_files([path], COUNT)
    # Before its first value and after its last a column does not exist, and counts for nothing.
    assert rows(found) == [(0.0, 5.0), (120.0, 9.0), (180.0, 3.0), (240.0, 4.0)]
    assert found.trace.missing == 1
    assert found.notes[1].startswith("1 interval stays unknown, since 1 cell is empty between")
    zero = import_files([path], replace(COUNT, empty_is_zero=True))
    assert [value for _, value in rows(zero)] == [5.0, 1.0, 9.0, 3.0, 4.0]
    assert zero.notes[1] == "1 empty cell is taken as 0 (`--empty`)"


def test_columns_of_vms_are_demand_as_rows_of_vms_are(tmp_path):
    wide = put(tmp_path, "time,b,a\n0,50,100\n60,,80\n120,30,\n180,20,40\n")
    long = put(
        tmp_path,
        "timestamp,vm,cpu_percent\n0,a,100\n0,b,50\n60,a,80\n120,b,30\n180,a,40\n180,b,20\n",
        "l.csv",
    )
    same = import_files([long], replace(VMS, shape=Shape.PER_VM, coverage=0.5))
    found = import_files([wide], replace(VMS, coverage=0.5))
    assert found.trace.digest == same.trace.digest
    assert (found.vms, found.notes) == (2, same.notes)
    shares = import_files(
        [put(tmp_path, "time,a\n0,0.5\n60,1\n", "s.csv")], replace(VMS, per_vm=PerVmColumns(full_at=1.0))
    )
    assert rows(shares) == [(0.0, 0.5), (60.0, 1.0)]


def test_parquet_of_a_column_a_vm(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"time": [0, 60], "a": [1.5, None], "b": [1, 2]}), path)
    assert rows(import_files([path], COUNT)) == [(0.0, 2.5), (60.0, 2.0)]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("time,a,b\n0,1,2\n60,1,x\n", COUNT, ":3:6: b `x` is not a number; leave the row out if nothing was recorded"),
        ("time,a,b\n0,1,2\n60,1,5 req/s\n", COUNT, ":3:6: b `5 req/s` is not a number; write the bare number, without a unit"),
        ("time,a,b\n0,1,2\n60,-1,5\n", COUNT, ":3:4: a -1 is negative; leave the cell empty if nothing was recorded"),
        ("x\ntime,a,b\n0,1,2\n60,inf,5\n", replace(COUNT, skip=1), ":4:4: a inf is not a finite number"),
        ("time,a,b\n0,1,2\n60,1\n", COUNT, ":3: 2 columns where the header has 3"),
        ("time,a,b\n60,1,2\n0,1,2\n", COUNT, ":3:1: timestamp 1970-01-01T00:00:00Z is before the row above it"),
        ("time,a\n0,1\n60,1\n130,1\n", COUNT, ":4:1: timestamp 1970-01-01T00:02:10Z is not on the grid of 60 s"),
        ("time,a,a\n0,1,2\n60,1,2\n", COUNT, ":1: the header has the column `a` twice; rename one"),
        ("time,a,b\n0,1,2\n", replace(COUNT, columns="z*"), ":1: no column is called like `z*` (`--columns`); the columns are: a, b"),
        ("time,a,b\n0,,\n60,,\n", COUNT, ": no interval has a value in all columns that exist then"),
        ("time,a,b\n0,,\n60,,\n", VMS, ": no cell has a value"),
        ("x\n", replace(COUNT, skip=3), ": there are no lines after those to skip (`--skip`)"),
        ("time,a\n0,1\n60,1\n", replace(COUNT, kind=None), ": say whether the values are counts"),
        ("time,a\n0,1\n60,1\n", replace(COUNT, floor=True), "to move times to the start of their interval"),
        ("time,value\n0,1\n60,1\n", replace(COUNT, shape=None, columns="a"), ": `--columns` is for wide tables, and this is series"),
        ("time,duration\n0,1\n60,1\n", replace(COUNT, shape=None, empty_is_zero=True), ": `--empty zero` is for tables of values and answers"),
        ("time,a\n0,1\n60,1\n", replace(VMS, per_vm=PerVmColumns(capacity="c")), ": a wide table has no column of capacities"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(tmp_path, text, options, message):
    assert refusal(put(tmp_path, text), options).startswith(message)


def test_that_a_table_is_wide_is_never_guessed(tmp_path):
    said = refusal(put(tmp_path, GRAFANA), replace(COUNT, shape=None))
    assert "it is not clear which column is the value" in said
    assert "`--shape wide` (their values are added) or `--shape wide-vms`" in said


def test_the_demand_of_a_time_line_is_taken_as_its_hint_says(tmp_path):
    path = put(
        tmp_path, "timestamp,demand,desired,in_service,warm_target\n0,,1,1,0\n60,7,1,1,0\n120,8,1,1,0\n"
    )
    gauge = replace(COUNT, kind=TraceKind.GAUGE)
    said = refusal(path, replace(gauge, shape=None))
    assert "it is the time line of a replay or a daemon" in said
    assert "`--shape wide --columns demand --kind gauge`" in said
    assert rows(import_files([path], replace(gauge, columns="demand"))) == [(0.0, 7.0), (60.0, 8.0)]
