"""Files of any shape: what is inferred from the file, what options change, and every recording at hand."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from autoscaler.errors import TraceError
from autoscaler.traces.column_roles import SeriesColumns, Shape
from autoscaler.traces.events import Measure
from autoscaler.traces.importing import ImportOptions, import_files
from autoscaler.traces.per_vm import PerVmColumns
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import TraceKind
from autoscaler.traces.writing import write_trace

RECORDINGS = Path(os.environ.get("AUTOSCALER_TRACES", Path(__file__).parents[2].parent / "shared" / "traces"))
GAUGE = ImportOptions(kind=TraceKind.GAUGE)


def put(folder, text, name="t.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(found):
    return list(zip(found.trace.timestamps.tolist(), found.trace.values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("timestamp,value\n0,1\n60,2\n", GAUGE),
        ("Time,requests\n0,1\n60,2\n", GAUGE),
        ("Time (UTC),load,value\n0,9,1\n60,9,2\n", GAUGE),
        (
            "Label,Requests\nId,m1\n0,1\n60,2\n",
            replace(GAUGE, header=False, skip=2, series=SeriesColumns(time="1", value="2")),
        ),
        ("when,what\n0,1\n60,2\n", replace(GAUGE, shape=Shape.SERIES, series=SeriesColumns(time="when"))),
        ("host,ts,load,value\na,0,9,1\nb,60,9,2\n", GAUGE),
        ("host,ts,load,value\na,0,1,9\nb,60,2,9\n", replace(GAUGE, series=SeriesColumns(value="load"))),
        ("timestamp;value\n0;1\n60;2\n", replace(GAUGE, separator=";")),
        ("timestamp\tvalue\n0\t1\n60\t2\n", replace(GAUGE, separator="\t")),
        ("0,1\n60,2\n", replace(GAUGE, header=False, series=SeriesColumns(time="1", value="2"))),
        ("timestamp,value\n0,1\n60000,2\n", replace(GAUGE, time_style="ms")),
        ("timestamp,value\n60,2\n0,1\n", replace(GAUGE, sort=True)),
        ("timestamp,value\n7,1\n113,2\n", replace(GAUGE, floor=True, interval_s=60.0)),
        ('timestamp,note,value\n0,"a, b",1\n60,"c",2\n', GAUGE),
        ("timestamp,value,\n0,1,\n60,2,\n", GAUGE),
        ("date,value\n01.01.1970 00:00,1\n01.01.1970 00:01,2\n", replace(GAUGE, time_style="%d.%m.%Y %H:%M")),
    ],
)
def test_ways_to_write_a_series(tmp_path, text, options):
    found = import_files([put(tmp_path, text)], options)
    assert found.shape is Shape.SERIES
    assert rows(found) == [(0.0, 1.0), (60.0, 2.0)]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("timestamp,value\n0,1\n60,2\n", ImportOptions(), "counts .* or a gauge"),
        ("a,b,c\n0,1,2\n", GAUGE, "not clear what this file holds.*`autoscaler trace import`.*a, b, c"),
        ("time;value\n0;1\n", GAUGE, "not clear what this file holds.*`--separator`"),
        ("# by hand\ntime,value\n0,1\n", GAUGE, "not clear what .*like a comment .*`--skip 1`"),
        ('time,value\n0,"1,000"\n60,2\n', GAUGE, ":2:3: .*without thousands separators; only if"),
        ('time,value\n0,"1,05"\n60,2\n', GAUGE, "write decimals with a point"),
        ("a,b,c\n0,1,2\n", replace(GAUGE, shape=Shape.SERIES), r":1: .*which column is the time"),
        ("time,b,c\n0,1,2\n", GAUGE, r":1: .*which column is the value; name it with `--value`"),
        ("time,b,c\n0,1,2\n", replace(GAUGE, series=SeriesColumns(value="d")), "no column `d`"),
        ("time,value,value\n0,1,2\n", GAUGE, "column `value` twice"),
        ("time,value\n60,1\n0,2\n", GAUGE, r":3:1: .*`--sort` does that"),
        ("time,value\n0,1\n61,1\n120,1\n180,1\n240,1\n", GAUGE, r":3:1: .*`--floor` with `--interval`"),
        (
            "time,value\n0,1\n59,2\n60,1\n",
            replace(GAUGE, floor=True, interval_s=60.0),
            r":3:1: .*appears twice",
        ),
        ("time,value\n0,1\n", replace(GAUGE, floor=True), "give its length"),
        ("time,value\n0,1\n", GAUGE, "one row only"),
        ("time,value\n60,x\n0,2\n", replace(GAUGE, sort=True), r":2:4: value `x`"),
        ("time,value\n60,-1\n0,2\n", replace(GAUGE, sort=True), r":2:4: value -1 is negative"),
        ("time;value\n0;1\n", replace(GAUGE, shape=Shape.SERIES), "--separator"),
        ("0,1,2\n60,2,3\n", replace(GAUGE, shape=Shape.SERIES), "--no-header"),
        ("time,value\n0,1\n", replace(GAUGE, separator=",,"), "one character"),
        ("", GAUGE, "the file is empty"),
        ("time,value\n", GAUGE, "no rows"),
    ],
)
def test_what_is_refused_with_the_way_out(tmp_path, text, options, message):
    with pytest.raises(TraceError, match=message):
        import_files([put(tmp_path, text)], options)


DATE_AND_TIME = SeriesColumns(time="date time")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("date,time,value\n1970-01-01,00:00:00,1\n1970-01-01,00:01:00,2\n", replace(GAUGE, series=DATE_AND_TIME)),
        ("date,time,kWh\n1970-01-01,00:00,1\n1970-01-01,00:01,2\n", replace(GAUGE, series=DATE_AND_TIME)),
        ('time,note,date,value\n00:00:00,"a, b",1970-01-01,1\n00:01:00,c,1970-01-01,2\n', replace(GAUGE, series=DATE_AND_TIME)),
        ("1970-01-01;00:00:00;1\n1970-01-01;00:01:00;2\n", replace(GAUGE, shape=Shape.SERIES, separator=";", header=False, series=SeriesColumns(time="1 2", value="3"))),
        ("Datum;Uhr zeit;Wert\n01.01.1970;00:00;1\n01.01.1970;00:01;2\n", replace(GAUGE, separator=";", time_style="%d.%m.%Y %H:%M", series=SeriesColumns(time="Datum Uhr zeit"))),
        ("date,time,a,b\n1970-01-01,00:00:00,1,0\n1970-01-01,00:01:00,0,2\n", replace(GAUGE, shape=Shape.WIDE, series=DATE_AND_TIME)),
        ("date time,time,value\n1970-01-01 00:00:00,x,1\n1970-01-01 00:01:00,x,2\n", replace(GAUGE, series=SeriesColumns("date time", "value"))),
    ],
)  # fmt: skip
def test_a_date_and_a_time_in_two_columns_are_one_time(tmp_path, text, options):
    assert rows(import_files([put(tmp_path, text)], options)) == [(0.0, 1.0), (60.0, 2.0)]


def test_a_date_and_a_time_of_events_and_vms_may_be_two_columns_too(tmp_path):
    events = put(tmp_path, "date,time,duration\n1970-01-01,00:00:30,60\n1970-01-01,00:00:30,60\n", "e.csv")
    options = replace(GAUGE, interval_s=60.0, series=DATE_AND_TIME)
    assert rows(import_files([events], options)) == [(0.0, 1.0)]
    vms = "date,time,vm,cpu_percent\n1970-01-01,00:00:00,a,50\n1970-01-01,00:01:00,a,100\n"
    options = ImportOptions(shape=Shape.PER_VM, per_vm=PerVmColumns("date time"))
    assert rows(import_files([put(tmp_path, vms)], options)) == [(0.0, 0.5), (60.0, 1.0)]


def test_a_date_and_a_time_in_two_columns_are_asked_for_or_refused_in_words(tmp_path):
    text = "date,time,value\n1970-01-01,00:00:00,1\n1970-01-01,00:01:00,2\n"
    with pytest.raises(
        TraceError, match=r":2:12: .*`00:00:00` is a time of day; .*--time .date time.. where it"
    ):
        import_files([put(tmp_path, text)], replace(GAUGE, series=SeriesColumns(value="value")))
    asked = replace(GAUGE, series=DATE_AND_TIME)
    with pytest.raises(TraceError, match=r":3:1: timestamp `1970-01-01 25:00:00` is not a time"):
        import_files([put(tmp_path, text.replace("00:01", "25:00"))], asked)
    logged = '{"date": "1970-01-01", "time": "00:00:00", "value": 1}\n' * 2
    with pytest.raises(TraceError, match="`date time` are two columns; only of CSV"):
        import_files([put(tmp_path, logged, "t.json")], replace(asked, shape=Shape.SERIES))


def test_several_files_are_one_only_where_they_are_logs(tmp_path):
    files = [put(tmp_path, "time,value\n0,1\n60,2\n", name) for name in ("a.csv", "b.csv")]
    with pytest.raises(TraceError, match=r"and .*a\.csv is series; .*trace merge"):
        import_files(files, GAUGE)


def test_events_with_and_without_durations(tmp_path):
    path = put(tmp_path, "timestamp,duration_s,type\n0,60,a\n0,30,b\n90,60,a\n200,0,a\n")
    found = import_files([path], ImportOptions())
    assert (found.shape, found.trace.kind) == (Shape.EVENTS, TraceKind.GAUGE)
    assert rows(found) == [(0.0, 1.5), (60.0, 0.5), (120.0, 0.5), (180.0, 0.0)]
    counted = import_files([path], ImportOptions(measure=Measure.COUNT, interval_s=120.0))
    assert rows(counted) == [(0.0, 3.0), (120.0, 1.0)]
    with pytest.raises(TraceError, match=r"t\.csv:3:3: duration_s -30"):
        import_files([put(tmp_path, "time,duration_s\n0,1\n0,-30\n")], ImportOptions())


VMS = "timestamp,vm,cpu_percent\n61,a,100\n3,a,50\n2,b,50\n65,b,0\n"


def test_a_table_of_vms_out_of_order_and_off_the_grid(tmp_path):
    path = put(tmp_path, VMS)
    with pytest.raises(TraceError, match=r"t\.csv:3:1: .*--sort"):
        import_files([path], ImportOptions())
    with pytest.raises(TraceError, match="not on the grid"):
        import_files([path], ImportOptions(sort=True, interval_s=60.0))
    with pytest.raises(TraceError, match="give its length"):
        import_files([path], ImportOptions(sort=True, floor=True))
    found = import_files([path], ImportOptions(sort=True, floor=True, interval_s=60.0))
    assert rows(found) == [(0.0, 1.0), (60.0, 1.0)]
    with pytest.raises(TraceError, match=r"t\.csv:6:4: VM b appears twice"):
        import_files([put(tmp_path, VMS + "66,b,1\n")], ImportOptions(sort=True, floor=True, interval_s=60.0))


@pytest.mark.parametrize(
    ("used", "full_at", "said"),
    [
        (
            (0.3, 0.9),
            100.0,
            "the highest utilisation is 0.9, .*shares rather than per cent, use `--full-at 1`",
        ),
        ((0.3, 0.9), 1.0, ""),
        ((30, 390), 100.0, "the highest utilisation is 390, .*several processors"),
        ((30, 110), 100.0, ""),
        ((0, 0), 100.0, ""),
    ],
)
def test_utilisation_in_another_unit_is_doubted(tmp_path, used, full_at, said):
    path = put(tmp_path, f"timestamp,vm,cpu_percent\n0,a,{used[0]}\n60,a,{used[1]}\n")
    found = import_files([path], ImportOptions(per_vm=PerVmColumns(full_at=full_at)))
    doubts = [note for note in found.notes if "highest utilisation" in note]
    assert len(doubts) == bool(said)
    assert re.search(said, "".join(doubts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(kind=TraceKind.COUNT), "is a gauge, but --kind says count"),
        (ImportOptions(shape=Shape.EVENTS, sort=True), "needs neither"),
    ],
)
def test_options_that_make_no_sense_are_not_ignored(tmp_path, options, message):
    with pytest.raises(TraceError, match=message):
        import_files([put(tmp_path, "timestamp,vm,cpu_percent\n0,a,1\n60,a,1\n")], options)


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("time;load\n0;1,5\n60;2\n", ";"),
        ('time,load\n0,"1,5"\n60,2\n', ","),
        ('time;load\n0;"1,5"\n"60";2\n', ";"),
    ],
)
def test_decimals_behind_a_comma(tmp_path, text, separator):
    options = replace(GAUGE, shape=Shape.SERIES, separator=separator, decimal=",")
    assert rows(import_files([put(tmp_path, text)], options)) == [(0.0, 1.5), (60.0, 2.0)]


def test_separators_of_thousands_are_not_taken_for_decimals(tmp_path):
    path = put(tmp_path, "time;load\n0;1.234\n60;2\n")
    options = replace(GAUGE, shape=Shape.SERIES, separator=";", decimal=",")
    with pytest.raises(
        TraceError, match=r"t\.csv:2:3: load `1\.234` is not a number; .*thousands separators"
    ):
        import_files([path], options)
    with pytest.raises(TraceError, match="a point or a comma"):
        import_files([path], replace(options, decimal=";"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Zeit;Wert\n0;1\n", GAUGE, "something other than a comma \\(`--separator ';'`\\)"),
        ("0\t1\n60\t1\n", GAUGE, "something other than a comma \\(`--separator tab`\\)"),
        ("0,1,2\n60,1,2\n", replace(GAUGE, shape=Shape.SERIES), "may be missing \\(`--no-header`\\)"),
        ("0,1\n60,1\n", replace(GAUGE, header=False), "by its number, such as `--time 1 --value 2`"),
    ],
)
def test_an_unclear_table_names_the_option_that_helps(tmp_path, text, options, message):
    with pytest.raises(TraceError, match=message):
        import_files([put(tmp_path, text)], options)


def test_parquet_of_any_shape(tmp_path):
    columns = {"ms": [0, 60_000], "load": [1.0, 2.0], "vm": ["a", "b"]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    options = replace(GAUGE, shape=Shape.SERIES, series=SeriesColumns("ms", "load"), time_style="ms")
    assert rows(import_files([tmp_path / "t.parquet"], options)) == [(0.0, 1.0), (60.0, 2.0)]
    table = {"timestamp": [0, 0, 60], "vm": ["a", "b", "a"], "cpu_percent": [50, 100, 25]}
    parquet.write_table(pa.table(table), tmp_path / "vms.parquet")
    assert rows(import_files([tmp_path / "vms.parquet"], ImportOptions(interval_s=60.0))) == [
        (0.0, 1.5),
        (60.0, 0.25),
    ]


def test_a_parquet_column_of_text_where_numbers_should_be(tmp_path):
    parquet.write_table(pa.table({"time": [0, 60], "value": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(
        TraceError, match="column `value` should hold numbers and holds text; write it with a numeric type"
    ):
        import_files([tmp_path / "t.parquet"], GAUGE)


# ── The recordings at hand ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(name="listed", scope="module")
def _listed():
    manifest = RECORDINGS / "manifest.csv"
    if not manifest.is_file():
        pytest.skip(f"no recordings in {RECORDINGS} (name their folder in AUTOSCALER_TRACES)")
    with manifest.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_recording_imports_without_hand_work_and_what_is_written_reads_back(listed, tmp_path):
    assert len(listed) > 5
    for row in listed:
        found = import_files([RECORDINGS / row["file"]], ImportOptions())
        assert found.shape == {"count": "series", "gauge": "series"}.get(row["kind"], row["kind"]), row[
            "file"
        ]
        out = tmp_path / row["file"]
        write_trace(out, found.trace)
        assert read_trace(out, kind=found.trace.kind).digest == found.trace.digest
        if row["interval_s"]:
            assert found.trace.interval_s == float(row["interval_s"])
        if found.shape is Shape.SERIES:
            assert len(found.trace.values) == int(row["rows"])


def test_single_events_add_up_to_the_recording_of_their_counts(listed):
    files = {row["file"] for row in listed}
    if not {"genai_image_jobs.csv.gz", "genai_image_requests_1min.csv.gz"} <= files:
        pytest.skip("those recordings are not here")
    events = import_files(
        [RECORDINGS / "genai_image_jobs.csv.gz"], ImportOptions(measure=Measure.COUNT)
    ).trace
    counts = read_trace(RECORDINGS / "genai_image_requests_1min.csv.gz")
    both = np.isin(events.timestamps, counts.timestamps)
    # Both were published from one log; the minutes at either end may be cut differently.
    assert both.mean() > 0.999
    assert events.values.sum() == pytest.approx(counts.values.sum(), rel=0.001)
    np.testing.assert_array_equal(events.rate_at(counts.timestamps[1:-1]), counts.rates[1:-1])


def answer(*series, **more):
    found = [{"metric": {"job": name}, "values": values} for name, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": found}, **more})


MINUTES = [[60.781, "1"], [120.781, "2.5"], [180.781, "NaN"], [300.781, "4"]]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (answer(("web", MINUTES)), "t.json"),
        (json.dumps(json.loads(answer(("web", MINUTES)))["data"], indent=2, sort_keys=True), "t.txt"),
    ],
)
def test_a_saved_answer_of_prometheus_is_a_series(tmp_path, text, name):
    file = put(tmp_path, text, name)
    found = import_files([file], GAUGE)
    assert found.shape is Shape.PROMETHEUS
    assert rows(found) == [(60.781, 1.0), (120.781, 2.5), (300.781, 4.0)]
    assert found.trace.interval_s == 60.0
    assert "1 values were not numbers and stay unknown" in found.notes
    assert rows(import_files([file], replace(GAUGE, before=True)))[0] == (pytest.approx(0.781), 1.0)
    count = import_files([file], ImportOptions(kind=TraceKind.COUNT))
    assert rows(count)[0] == (pytest.approx(0.781), 1.0)
    assert "moved back by one step" in count.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            answer(("web", MINUTES), ("api", MINUTES)),
            r'2 series \(\{job="web"\}; \{job="api"\}\), but a trace is a single one',
        ),
        (answer(), "the answer is empty: no series has these names"),
        (answer(("web", MINUTES[:1])), "1 values, but a trace needs at least two"),
        (answer(("web", [[60, "1"], [60, "2"]])), "the answer|twice|interval"),
        (answer(("web", [[60, "-1"], [120, "2"]])), "1970-01-01T00:01:00Z: .*negative"),
        (answer(("web", MINUTES))[:-4], "this is not JSON"),
        (
            '{"status": "error", "error": "too many points", "metric": 0}',
            "an error of Prometheus: too many points",
        ),
        (
            '{"data": {"resultType": "vector", "result": [{"metric": {}, "value": [60, "1"]}]}}',
            "of one moment",
        ),
    ],
)
def test_an_answer_of_prometheus_that_is_no_series_is_refused(tmp_path, text, said):
    with pytest.raises(TraceError, match=said):
        import_files([put(tmp_path, text, "t.json")], GAUGE)


def test_which_step_a_value_describes_is_asked_of_prometheus_alone(tmp_path):
    with pytest.raises(TraceError, match="--describes is for answers of Prometheus"):
        import_files([put(tmp_path, "timestamp,value\n0,1\n60,2\n")], replace(GAUGE, before=True))


def test_ways_out_are_named_where_times_and_lines_are_written_otherwise(tmp_path):
    with pytest.raises(TraceError, match="`--time-format` gives another format"):
        import_files(
            [put(tmp_path, "timestamp,value\n2026/10/19 00:00:00,1\n2026/10/19 00:01:00,2\n")], GAUGE
        )
    with pytest.raises(TraceError, match="`--shape events --no-header --time 1`"):
        import_files([put(tmp_path, '{"time": 1}\n')], ImportOptions(shape=Shape.ACCESS_LOG))


# ── what people have ────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_cell_is_unknown_and_tells_the_grid(tmp_path):
    path = put(tmp_path, "time,requests\n0,5\n60,\n120,7\n180,undefined\n240,9\n")
    found = import_files([path], GAUGE)
    assert rows(found) == [(0.0, 5.0), (120.0, 7.0), (240.0, 9.0)]
    assert (found.trace.interval_s, found.trace.missing) == (60.0, 2)
    assert found.notes == ("2 empty cells: unknown (`--empty zero` takes them as 0)",)
    zero = import_files([path], replace(GAUGE, empty_is_zero=True))
    assert rows(zero)[1] == (60.0, 0.0)
    with pytest.raises(TraceError, match="no cell of the column `requests` has a value"):
        import_files([put(tmp_path, "time,requests\n0,\n60,\n")], GAUGE)
    # In the format itself a row without a value stays refused.
    with pytest.raises(TraceError, match="is not a number"):
        read_trace(put(tmp_path, "timestamp,value\n0,1\n60,\n"), kind=TraceKind.GAUGE)


def test_a_spreadsheet_declares_its_separator(tmp_path):
    found = import_files(
        [put(tmp_path, 'sep=;\r\n"Time";"load"\r\n"0";1,5\r\n"60";2\r\n')], replace(GAUGE, decimal=",")
    )
    assert rows(found) == [(0.0, 1.5), (60.0, 2.0)]
    with pytest.raises(TraceError, match=r"t\.csv:4:3: load `x` is not a number"):
        import_files([put(tmp_path, "sep=;\nTime;load\n0;1\n1;x\n")], GAUGE)


def test_columns_that_are_named_tell_a_table_of_vms(tmp_path):
    path = put(tmp_path, "time,host,cpu\n0,a,50\n0,b,100\n60,a,0\n60,b,50\n")
    found = import_files([path], ImportOptions(per_vm=PerVmColumns("time", "host", "cpu")))
    assert (found.shape, rows(found)) == (Shape.PER_VM, [(0.0, 1.5), (60.0, 0.5)])


COUNTER = [0.0, *np.cumsum(np.full(99, 6.0)), 3.0, 9.0, *np.arange(15.0, 600.0, 6.0)]


def counted(folder, values, drop=()):
    lines = [f"{60 * at},{value:g}" for at, value in enumerate(values) if at not in drop]
    return put(folder, "\n".join(["time,requests_total", *lines]) + "\n")


def test_the_increase_of_a_counter_is_what_came_in_each_interval(tmp_path):
    found = import_files([counted(tmp_path, COUNTER, drop=(7,))], ImportOptions(counter=True))
    assert found.trace.kind is TraceKind.COUNT
    came = dict(rows(found))
    # Nobody knows of which of the two intervals around the row that is missing it was.
    assert sorted(set(np.arange(0.0, 60.0 * (len(COUNTER) - 1), 60.0)) - set(came)) == [360.0, 420.0]
    assert came.pop(99 * 60.0) == 3.0
    assert set(came.values()) == {6.0}
    assert found.notes[0].endswith("it was reset 1 time")
    doubted = import_files([counted(tmp_path, COUNTER)], GAUGE)
    assert "is it a cumulative counter?" in doubted.notes[0]
    with pytest.raises(TraceError, match="falls at 50% of its rows, so it is not a counter"):
        import_files([counted(tmp_path, [1, 2, 1, 2, 1])], ImportOptions(counter=True))
    with pytest.raises(TraceError, match="a count, but --kind says gauge"):
        import_files([counted(tmp_path, COUNTER)], replace(GAUGE, counter=True))
    with pytest.raises(TraceError, match="`--counter` is for one column of values, and this is wide"):
        import_files([counted(tmp_path, COUNTER)], replace(GAUGE, counter=True, shape=Shape.WIDE))


def test_two_steps_in_one_file_are_doubted(tmp_path):
    times = [*range(0, 1200, 60), *range(1200, 6000, 300)]
    (note,) = import_files([put(tmp_path, "time,value\n" + "".join(f"{t},1\n" for t in times))], GAUGE).notes
    assert note.startswith("From 1970-01-01T00:20:00Z on, its rows are 300 s apart, elsewhere 60 s")
    gaps = "".join(f"{60 * at},1\n" for at in range(200) if at % 17)
    assert import_files([put(tmp_path, f"time,value\n{gaps}")], GAUGE).notes == ()


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"\x1f\x8b\x08", "compressed by gzip; give it a name that ends in .gz"),
        (b"PK\x03\x04", "an Excel workbook"),
        (b"PAR1", "a Parquet file; give it a name"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, begin, told):
    path = tmp_path / "t.csv"
    path.write_bytes(begin + b"\0\n1,2\n")
    with pytest.raises(TraceError, match=told):
        import_files([path], GAUGE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "time,load\n7200,1\n9000,2\n7200,3\n9000,4\n",
            "by an hour, as when clocks are set back.*`--zone Europe/Berlin`",
        ),
        (
            "Series,time,value\na,0,1\na,60,2\nb,0,1\nb,60,2\n",
            "the times start again there: if there is one row per service",
        ),
        ("time,load\n0,1\n60,2\n30,1\n", "`--sort` does that"),
    ],
)
def test_what_may_be_behind_times_that_go_back_is_said(tmp_path, text, told):
    with pytest.raises(TraceError, match=told):
        import_files([put(tmp_path, text)], GAUGE)


def test_an_error_of_prometheus_is_told_as_it_came(tmp_path):
    path = put(
        tmp_path, '{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution"}', "p.json"
    )
    with pytest.raises(TraceError, match="it is an error of Prometheus: exceeded maximum resolution"):
        import_files([path], GAUGE)
