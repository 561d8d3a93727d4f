"""JSON in common forms: logs with an object per line, and saved answers from CloudWatch."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from autoscaler.errors import TraceError
from autoscaler.traces.column_roles import SeriesColumns, Shape
from autoscaler.traces.events import Measure
from autoscaler.traces.importing import ImportOptions, import_files
from autoscaler.traces.trace import TraceKind

PLAIN = ImportOptions()
COUNT = ImportOptions(kind=TraceKind.COUNT)
GAUGE = ImportOptions(kind=TraceKind.GAUGE)


def lines(*objects):
    return "".join(json.dumps(one) + "\n" for one in objects)


LOG = lines(
    {"time": "2026-03-01T02:00:10+02:00", "status": 200, "http": {"took": "0.5", "path": "/"}},
    {"time": "2026-03-01T00:00:05.25Z", "status": 200, "http": {"took": 3}},
    {"time": "2026-03-01T00:02:00Z", "status": 500, "http": {"took": 60}},
)
STATISTICS = {
    "Label": "RequestCount",
    "Datapoints": [
        {"Timestamp": "2026-03-01T00:03:00+00:00", "Sum": 4.0, "Unit": "Count"},
        {"Timestamp": "2026-03-01T00:00:00+00:00", "Sum": 1.0, "Unit": "Count"},
        {"Timestamp": "2026-03-01T00:01:00Z", "Sum": 2, "Unit": "Count"},
    ],
}
DATA = {
    "MetricDataResults": [
        {
            "Id": "m1",
            "Label": "Requests",
            "Timestamps": [120, 60, 0],
            "Values": [3.0, 2.0, 1.0],
            "StatusCode": "Complete",
        },
        {"Id": "m2", "Label": "Errors", "Timestamps": [0], "Values": [1.0], "StatusCode": "PartialData"},
    ],
    "Messages": [],
}


def put(folder, text, name="t.json"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text, indent=4), encoding="utf-8")
    return path


def values(found):
    return found.trace.values.tolist()


def refusal(path, options):
    with pytest.raises(TraceError) as refused:
        import_files([path], options)
    return str(refused.value).removeprefix(str(path))


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_of_objects_is_requests_counted_by_their_time(tmp_path):
    found = import_files([put(tmp_path, LOG, "access.log")], PLAIN)
    assert (found.shape, found.trace.kind) == (Shape.EVENTS, TraceKind.COUNT)
    assert values(found) == [2.0, 0.0, 1.0]
    packed = tmp_path / "access.log.gz"
    packed.write_bytes(gzip.compress(LOG.encode()))
    assert import_files([packed], PLAIN).trace.digest == found.trace.digest


def test_how_many_were_under_way_is_told_by_a_field_within_a_field(tmp_path):
    found = import_files(
        [put(tmp_path, LOG)],
        replace(PLAIN, series=SeriesColumns(duration="http.took"), measure=Measure.CONCURRENCY),
    )
    assert values(found) == pytest.approx([3.5 / 60, 0.0, 1.0])


def test_a_long_log_is_read_in_parts_and_its_errors_keep_their_line(tmp_path):
    rows = 70_000
    text = "".join(f'{{"ts": {at}, "value": {at % 7}}}\n' for at in range(rows))
    found = import_files([put(tmp_path, text)], GAUGE)
    assert values(found) == [at % 7 for at in range(rows)]
    wrong = put(tmp_path, text + '\n{"ts": 70001, "value": "x"}\n')
    assert refusal(wrong, GAUGE).startswith(f":{rows + 2}: value `x` is not a number")


def test_a_time_of_another_name_is_told_by_its_option_alone(tmp_path):
    text = lines({"msec": "10.5", "status": 200, "took": 1}, {"msec": "70", "status": 200, "took": 3})
    path = put(tmp_path, text)
    assert values(import_files([path], replace(PLAIN, series=SeriesColumns(time="msec")))) == [1.0, 1.0]
    under_way = replace(PLAIN, series=SeriesColumns(time="msec", duration="took"))
    assert import_files([path], under_way).trace.kind is TraceKind.GAUGE
    series = replace(GAUGE, series=SeriesColumns(time="msec", value="status"), interval_s=59.5)
    assert values(import_files([path], series)) == [200.0, 200.0]


def test_objects_with_a_value_are_a_series(tmp_path):
    text = lines({"ts": 0, "value": 1}, {"ts": 60, "value": "2.5"}, {"ts": 120, "value": 3})
    found = import_files([put(tmp_path, text)], GAUGE)
    assert (found.shape, values(found)) == (Shape.SERIES, [1.0, 2.5, 3.0])
    wide = lines({"ts": 0, "a": 1, "b": 2}, {"ts": 60, "a": None}, {"ts": 120, "a": 3, "b": 4})
    found = import_files([put(tmp_path, wide)], replace(COUNT, shape=Shape.WIDE))
    assert values(found) == [3.0, 7.0]
    assert found.trace.missing == 1


def test_a_column_that_comes_late_is_added_too(tmp_path):
    early = [{"ts": 60 * at, "a": 1} for at in range(300)]
    late = [{"ts": 60 * at, "a": 1, "b": 5} for at in range(300, 303)]
    found = import_files([put(tmp_path, lines(*early, *late))], replace(GAUGE, shape=Shape.WIDE))
    assert values(found) == [1.0] * 300 + [6.0] * 3


def test_a_few_other_lines_are_left_out_and_told(tmp_path):
    path = put(tmp_path, LOG + "Traceback (most recent call last):\n" + lines({"message": "started"}))
    said = refusal(path, PLAIN)
    assert said.startswith(":4: not JSON at column 1: Expecting value: Traceback (most recent call last):")
    assert said.endswith("2 of 5 lines are like that (`--max-refused`)")
    found = import_files([path], replace(PLAIN, max_refused=0.5))
    assert values(found) == [2.0, 0.0, 1.0]
    assert found.notes[1].startswith(f"2 lines were not read; the first: {path}:4: not JSON")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (lines({"time": 0, "value": 1}, {"time": 60}), COUNT, ':2: there is no `value`: {"time": 60}'),
        (lines({"time": 0, "value": 1}, {"time": 60, "value": "x"}), COUNT, ":2: value `x` is not a number"),
        (lines({"time": 0, "value": 1}, {"time": 60, "value": True}), COUNT, ":2: value `true` is not a number"),
        (lines({"time": 0, "value": 1}) + "\n" + lines({"time": "x", "value": 1}), COUNT, ":3: timestamp `x` is not a time"),
        (lines({"time": 0, "value": 1}) + "[1]\n", COUNT, ":2: not an object of JSON: [1]"),
        (lines({"time": 60, "value": 1}, {"time": 0, "value": 1}), COUNT, ":2: timestamp 1970-01-01T00:00:00Z is before the row"),
        (lines({"when": 0, "what": 1, "who": 1}), COUNT, ": it is not clear what this file holds"),
        (LOG, replace(PLAIN, series=SeriesColumns(time="at"), shape=Shape.EVENTS), ":1: there is no column `at` (`--time`); the columns are: time,"),
        ("[1, 2]", PLAIN, ": it looks like JSON, of which only answers of Prometheus and CloudWatch can be read"),
        ('{\n "a": 1}\n', PLAIN, ": it looks like JSON"),
    ],
)  # fmt: skip
def test_what_is_refused_of_lines_and_where(tmp_path, text, options, message):
    assert refusal(put(tmp_path, text), options).startswith(message)


# ── CloudWatch ──────────────────────────────────────────────────────────────────────────────────────────


def test_statistics_of_cloudwatch_in_any_order(tmp_path):
    path = put(tmp_path, STATISTICS)
    found = import_files([path], COUNT)
    assert (found.shape, values(found), found.trace.missing) == (Shape.CLOUDWATCH, [1.0, 2.0, 4.0], 1)
    assert found.trace.timestamps[0] == 1772323200.0
    assert found.notes[0] == "values are Sum of RequestCount in Count"
    assert "`--empty zero`" in found.notes[1]
    zero = import_files([path], replace(COUNT, empty_is_zero=True))
    assert values(zero) == [1.0, 2.0, 0.0, 4.0]
    assert zero.notes[1] == "1 period without a datapoint: taken as 0 (`--empty`)"


def events(path, *seconds, **more):
    text = lines(*({"time": at, "status": 200, "path": "/", **more} for at in seconds))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_several_logs_are_one_and_what_none_covers_is_unknown(tmp_path):
    files = [
        events(tmp_path / "b.jsonl", 300, 310, 430),
        events(tmp_path / "a.jsonl.gz", 0, 70),
        events(tmp_path / "c.jsonl", 425),
    ]
    found = import_files(files, PLAIN)
    assert (found.shape, found.trace.kind) == (Shape.EVENTS, TraceKind.COUNT)
    assert dict(zip(found.trace.timestamps.tolist(), found.trace.values.tolist(), strict=True)) == {
        0.0: 1.0, 60.0: 1.0, 300.0: 2.0, 360.0: 0.0, 420.0: 2.0,
    }  # fmt: skip
    assert found.notes[0].startswith("6 events in 3 files; ")
    assert found.notes[1] == "3 intervals between the files are unknown"


def test_several_logs_are_measured_as_the_first_one_is(tmp_path):
    files = [
        events(tmp_path / "a.jsonl", 0, 30, duration=60),
        events(tmp_path / "b.jsonl", 60, 90, duration=-1),
    ]
    message = r"b\.jsonl:1: duration_s -1 is not a duration"
    with pytest.raises(TraceError, match=message):
        import_files(files, PLAIN)
    counted = import_files(files, replace(PLAIN, measure=Measure.COUNT)).trace
    assert counted.values.tolist() == [2.0, 2.0]


def test_a_log_that_is_there_twice_is_refused(tmp_path):
    files = [events(tmp_path / name, 0, 70) for name in ("a.jsonl", "copy.jsonl")]
    with pytest.raises(TraceError, match=r"copy\.jsonl: this is the same as .*a\.jsonl; .*counted twice"):
        import_files(files, PLAIN)


def test_a_log_that_is_cut_off_or_not_packed_says_so(tmp_path):
    path = events(tmp_path / "a.jsonl.gz", *range(5000))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceError, match="it is a gzip file that is incomplete"):
        import_files([path], PLAIN)
    path.write_text(lines({"time": 0, "status": 1, "path": "/"}))
    with pytest.raises(TraceError, match="it is damaged, or not the gzip file that its name says"):
        import_files([path], PLAIN)


def test_one_of_several_results_or_statistics_is_named(tmp_path):
    path = put(tmp_path, DATA)
    for name in ("m1", "Requests"):
        found = import_files([path], replace(COUNT, series=SeriesColumns(value=name)))
        assert values(found) == [1.0, 2.0, 3.0]
    points = [{**one, "Average": 0.5, "ExtendedStatistics": {"p99": 9.0}} for one in STATISTICS["Datapoints"]]
    path = put(tmp_path, {**STATISTICS, "Datapoints": points})
    assert refusal(path, COUNT) == ": it holds several statistics; name one with `--value`: Sum, Average, p99"
    assert values(import_files([path], replace(GAUGE, series=SeriesColumns(value="p99")))) == [9.0] * 3


def changed(**changes):
    return {**STATISTICS, **changes}


def pointed(*changes):
    return changed(
        Datapoints=[{**STATISTICS["Datapoints"][at], **change} for at, change in enumerate(changes)]
    )


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        (DATA, COUNT, ": it holds 2 results: m1 (Requests), m2 (Errors); a trace is one of them, named with `--value`"),
        (DATA, replace(COUNT, series=SeriesColumns(value="m3")), ": it holds 2 results: m1 (Requests), m2 (Errors); `m3` names 0 of them"),
        (DATA, replace(COUNT, series=SeriesColumns(value="m2")), ": Errors is not complete (`StatusCode` PartialData)"),
        ({**DATA, "NextToken": "x"}, COUNT, ": it is one page of several (`NextToken`)"),
        ({"MetricDataResults": []}, COUNT, ": it holds no result; a trace is one of them"),
        (changed(Datapoints=[]), COUNT, ": it holds 0 datapoints of "),
        (changed(Datapoints=7), COUNT, ": it is not a CloudWatch response: wanted is what `get-metric-statistics`"),
        (pointed({}, {"Unit": "Percent"}), COUNT, ": its datapoints are in several units: Count, Percent"),
        (pointed({}, {"Sum": "7"}), COUNT, ': `Datapoints`, number 2: "7" is not a number'),
        (pointed({}, {"Timestamp": "noon"}), COUNT, ': `Datapoints`, number 2: "noon" is not a time such as'),
        (pointed({}, {"Timestamp": "2026-03-01T00:03:00Z"}), COUNT, ": 2026-03-01T00:03:00Z appears twice"),
        (pointed({}, {}, {"Timestamp": "2026-03-01T00:01:30Z"}), replace(COUNT, interval_s=60.0), ": at 2026-03-01T00:01:30Z: "),
        (STATISTICS, PLAIN, ": say whether the values are counts"),
        (json.dumps(STATISTICS, indent=4)[:-20], COUNT, ":17:26: not JSON: "),
    ],
)  # fmt: skip
def test_what_is_refused_of_cloudwatch(tmp_path, answer, options, message):
    assert refusal(put(tmp_path, answer), options).startswith(message)
