"""Tables: the fast reader and the csv module agree for any blocks; errors give the position; odd files."""

from __future__ import annotations

import gzip
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import BLOCK_BYTES, MAX_LINE, read_blocks
from autoscaler.traces.column_roles import Shape
from autoscaler.traces.importing import ImportOptions, import_files
from autoscaler.traces.reading import read_trace
from autoscaler.traces.stamps import TimeForm
from autoscaler.traces.tables import MAX_FIELD, Form, Layout, Wanted, read_table
from autoscaler.traces.trace import TraceKind

COLUMNS = (Wanted("t", Form.TIME), Wanted("v", Form.NUMBER), Wanted("name", Form.TEXT))


def read(path, layout=None, columns=COLUMNS):
    return read_table(path, lambda names: columns, layout or Layout())


def put(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def content(table):
    names = table.texts["name"].names
    return (
        table.numbers["t"].tolist(),
        table.numbers["v"].tolist(),
        [names[code] for code in table.texts["name"].code],
    )


NAMES = st.text("abcäöü xyz-", min_size=0, max_size=6)
ROWS = st.lists(
    st.tuples(st.integers(0, 4_000_000_000), st.floats(allow_nan=False), NAMES), min_size=1, max_size=12
)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, quote=st.sampled_from(["none", "all", "first"]), crlf=st.booleans(), last=st.booleans())
def test_every_way_of_writing_a_table_reads_the_same(tmp_path_factory, rows, quote, crlf, last):
    end = "\r\n" if crlf else "\n"

    def line(number, row):
        quoted = quote == "all" or (quote == "first" and number == 0)
        texts = [str(row[0]), repr(row[1]), row[2]]
        return ",".join(f'"{text}"' if quoted else text for text in texts)

    text = end.join(["t,v,name", *(line(number, row) for number, row in enumerate(rows))]) + (
        end if last else ""
    )
    if not last and not rows[-1][2].strip():
        text += end  # an empty last field without a line end is what is left of a cut file
    table = read(put(tmp_path_factory.mktemp("t"), text))
    wanted = [row[2] for row in rows]
    stamps, values, names = content(table)
    assert stamps == [float(row[0]) for row in rows]
    assert values == [row[1] for row in rows]
    # Spaces at the end of the last line are taken for the end of the file.
    assert names[:-1] == wanted[:-1]
    assert names[-1].rstrip() == wanted[-1].rstrip()


def test_separators_within_quotes_belong_to_the_text(tmp_path):
    table = read(put(tmp_path, 't,v,name\n0,1,"a,b"\n1,2,"say ""hi"""\n2,3,plain\n'))
    assert content(table)[2] == ["a,b", 'say "hi"', "plain"]


def test_a_field_missing_beside_a_quoted_comma_is_not_taken_for_two_fields(tmp_path):
    with pytest.raises(TraceError, match=r":2: 2 columns where the header has 3"):
        read(put(tmp_path, 't,v,name\n0,"1,a"\n'))


@pytest.fixture(name="long", scope="module")
def _long(tmp_path_factory):
    """More than two blocks of rows; its path and the number of rows."""
    rows = 2 * BLOCK_BYTES // 20 + 1000
    text = "t,v,name\n" + "".join(f"{1_600_000_000 + row},{row}.25,vm-{row % 7}\n" for row in range(rows))
    assert len(text) > 2 * BLOCK_BYTES
    return put(tmp_path_factory.mktemp("long"), text), rows


def test_a_table_of_several_blocks(long):
    path, rows = long
    table = read(path)
    assert table.rows == rows
    np.testing.assert_array_equal(table.numbers["v"], np.arange(rows) + 0.25)
    np.testing.assert_array_equal(table.numbers["t"], 1_600_000_000 + np.arange(rows))
    assert table.texts["name"].names == tuple(f"vm-{at}" for at in range(7))
    np.testing.assert_array_equal(table.texts["name"].code, np.arange(rows) % 7)


def test_blocks_hold_whole_lines_and_nothing_is_lost(long):
    path, _rows = long
    blocks = list(read_blocks(path))
    assert len(blocks) > 2
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == path.read_bytes()


def test_an_error_in_the_last_block_has_its_line_and_column(long, tmp_path):
    path, rows = long
    broken = put(tmp_path, path.read_bytes() + b"1700000000,oops,a\n1700000001,1,a\n")
    with pytest.raises(TraceError, match=rf"t\.csv:{rows + 2}:12: v `oops` is not a number"):
        read(broken)


def test_a_quoted_row_amid_millions_changes_nothing(long, tmp_path):
    path, rows = long
    mixed = put(tmp_path, path.read_bytes() + b'"1700000000","7.5","vm-0"\n', "m.csv")
    table = read(mixed)
    assert (table.rows, table.numbers["v"][-1], table.texts["name"].code[-1]) == (rows + 1, 7.5, 0)


def test_progress_goes_from_nothing_to_all(long):
    path, _ = long
    told = []
    read_table(path, lambda names: COLUMNS, progress=told.append)
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1


@pytest.mark.parametrize("packed", [False, True])
def test_many_empty_lines_at_the_end_across_blocks(tmp_path, packed):
    text = b"t,v,name\n0,1,a\n" + b"\r\n" * BLOCK_BYTES
    path = put(tmp_path, gzip.compress(text) if packed else text, "t.csv.gz" if packed else "t.csv")
    assert read(path).rows == 1


@pytest.mark.parametrize("byte", [b"1", b"\n"])
def test_a_packed_file_that_unpacks_to_one_endless_line_is_given_up(tmp_path, byte):
    path = put(tmp_path, gzip.compress(b"t,v,name\n" + byte * (MAX_LINE + 2 * BLOCK_BYTES), 1), "t.csv.gz")
    with pytest.raises(TraceError, match=r"t\.csv\.gz:\d: 64 MiB without a line end"):
        read(path)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("t,v,name\n0,1,a\n".encode("utf-16"), "1", "UTF-16 or not text"),
        ("t,v,name\n0,1,a\n".encode("utf-16-le"), "1", "UTF-16 or not text"),
        ("t,v,name\n0,1,M\xfcnchen\n".encode("latin-1"), "2:6", "not UTF-8"),
        (b"t,v,name\n" + b"0,1,a\n" * 99 + b"0,1\0,a\n", "101:4", "NUL byte"),
        (b"t,v,name\r0,1,a\r", "1:9", "bare carriage return"),
        ('t,v,name\n0,1,"a\nb"\n', "2", "quoted field is not closed"),
        ('t,v,name\n0,1,"a"b\n', "2", "not CSV"),
        ('t,v,name\n0,1,"a"\n0,1,"b"\n0,1,"c"d\n0,1,e\n', "4", "not CSV"),
        ('t,v,name\n0,1,a\n0,1,"open\n', "3", "quoted field is not closed"),
        ('t,v,name\n0,"1,5",a\n', "2:3", "write decimals with a point .*`--decimal ,`"),
        ('t,v,name\n0,"5,010",a\n', "2:3", "without thousands separators"),
        ('t,v,name\n0,"5,010.5",a\n', "2:3", "write it without thousands separators"),
        ("t,v,name\n0,5.01 K,a\n", "2:3", "write the bare number, without a unit"),
        ("t,v,name\n0,,a\n", "2:3", "v `` is not a number"),
        ("t,v,name\n0,1,a\n\n1,1,a\n", "3", "empty line"),
        ("t,v,name\n0,1,a,b\n", "2", "4 columns where the header has 3"),
        ("t,v,name\n1700000000000,1,a\n", "2:1", r"looks like milliseconds"),
        ("t,v,name\n1700000000000000,1,a\n", "2:1", r"looks like microseconds.*`--time-format us`"),
        ("t,v,name\n20260301,1,a\n", "2:1", r"may be a date or epoch seconds"),
        ("t,v,name\n2026-02-30T00:00:00Z,1,a\n", "2:1", "is not a time"),
        ("t,v,name\n2026-03-01T24:00:00Z,1,a\n", "2:1", "is not a time"),
        ('t,v,name\n0,1,a\n"0",x,"c,d"\n', "3:5", "v `x`"),
    ],
)
def test_what_is_refused_and_where(tmp_path, text, place, message):
    path = put(tmp_path, text)
    with pytest.raises(TraceError, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}:{place}: ")


ROW = b"0,1,abc\n"


@pytest.mark.parametrize(
    ("last", "column", "message"),
    [
        (b"0,1\0,a\n", ":4", "NUL byte"),
        (b"0,1,M\xfcnchen\n", ":6", "not UTF-8"),
        (b"0,x,a\n", ":3", "is not a number"),
        (b'0,1,"a"b\n', "", "not CSV"),
        (b"0,1\n", "", "2 columns"),
    ],
)
def test_the_line_is_counted_through_all_blocks(tmp_path, last, column, message):
    rows = BLOCK_BYTES // len(ROW) + 5
    path = put(tmp_path, b"t,v,name\n" + ROW * rows + last + ROW)
    with pytest.raises(TraceError, match=message) as refused:
        read(path, Layout(times=TimeForm(style="s", repeats=True)))
    assert str(refused.value).startswith(f"{path}:{rows + 2}{column}: ")


def test_local_times_of_a_block_that_is_read_anew_are_converted_once(tmp_path):
    wide = "0." + "0" * MAX_FIELD + "1"
    text = f"t,v,name\n2026-03-01T00:00:00,1,a\n2026-03-01T01:00:00,{wide},b\n2026-03-01T02:00:00,3,c\n2026-03-01T03:00:00,4,d\n"
    table = read(put(tmp_path, text), Layout(times=TimeForm.build(zone="Europe/Berlin")))
    assert table.numbers["t"].tolist() == [AT_S - 3600.0 + 3600.0 * hour for hour in range(4)]
    assert table.numbers["v"].tolist() == [1.0, float(wide), 3.0, 4.0]


def test_without_a_header_columns_go_by_their_number_and_lines_by_theirs(tmp_path):
    columns = (Wanted("1", Form.TIME), Wanted("3", Form.NUMBER))
    layout = Layout(header=False)
    table = read(put(tmp_path, "0,a,1\n60,b,2\n"), layout, columns)
    assert (table.numbers["1"].tolist(), table.numbers["3"].tolist()) == ([0.0, 60.0], [1.0, 2.0])
    path = put(tmp_path, "0,a,1\n60,b,\n")
    with pytest.raises(TraceError, match="is not a number") as refused:
        read(path, layout, columns)
    assert str(refused.value).startswith(f"{path}:2:6: ")


# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────

AT_S = 1772323200.0  # 2026-03-01T00:00:00Z


def stamps(folder, texts, **form):
    layout = Layout(times=TimeForm.build(**form))
    text = "t,v\n" + "".join(f"{text},1\n" for text in texts)
    return read(put(folder, text), layout, COLUMNS[:2]).numbers["t"].tolist()


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["2026-03-01T00:00:00Z", "2026-03-01T00:01:00Z"], {}),
        (["2026-03-01 00:00:00", "2026-03-01 00:01:00"], {}),
        (["2026-03-01T00:00:00.000Z", "2026-03-01T00:01Z"], {}),
        (["2026-03-01T00:00:00+00:00", "2026-03-01T02:01:00+02:00"], {}),
        (["2026-03-01T00:00:00Z", "2026-03-01T02:01:00+02:00"], {"zone": "Asia/Tokyo"}),
        ([f"{AT_S:.0f}", f"{AT_S + 60:.0f}"], {}),
        ([f"{AT_S:.0f}000", f"{AT_S + 60:.0f}000"], {"style": "ms"}),
        ([f"{AT_S:.0f}000000", f"{AT_S + 60:.0f}000000"], {"style": "us"}),
        ([f"{AT_S:.0f}000000000", f"{AT_S + 60:.0f}000000000"], {"style": "ns"}),
        (["01/03/2026 00:00", "01/03/2026 00:01"], {"style": "%d/%m/%Y %H:%M"}),
        (["01/03/2026 00:00 +0000", "01/03/2026 01:01 +0100"], {"style": "%d/%m/%Y %H:%M %z"}),
        (["2026-03-01T01:00:00", "2026-03-01T01:01:00"], {"zone": "Europe/Berlin"}),
        (["2026-02-28 19:00:00", "2026-02-28 19:01:00"], {"zone": "America/New_York"}),
        (["2026-03-01T05:45:00", "2026-03-01T05:46:00"], {"zone": "Asia/Kathmandu"}),
    ],
)
def test_forms_of_the_same_times(tmp_path, texts, form):
    assert stamps(tmp_path, texts, **form) == [AT_S, AT_S + 60]


def test_the_hour_that_a_night_has_twice_is_told_by_order(tmp_path):
    night = [f"2026-10-25T{hour}:{minute}:00" for hour in ("01", "02", "02", "03") for minute in ("00", "30")]
    found = np.array(stamps(tmp_path, night, zone="Europe/Berlin"))
    np.testing.assert_array_equal(np.diff(found), 1800.0)


def test_hourly_rows_of_that_night(tmp_path):
    night = [f"2026-10-25T{hour}:00:00" for hour in ("01", "02", "02", "03")]
    np.testing.assert_array_equal(np.diff(stamps(tmp_path, night, zone="Europe/Berlin")), 3600.0)


def test_two_such_nights_are_told_apart_each_by_its_own_order(tmp_path):
    nights = [
        f"{day}T{hour}:00:00" for day in ("2025-10-26", "2026-10-25") for hour in ("01", "02", "02", "03")
    ]
    found = np.diff(stamps(tmp_path, nights, zone="Europe/Berlin")).tolist()
    assert [found[at] for at in (0, 1, 2, 4, 5, 6)] == [3600.0] * 6


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2026-10-25T02:00:00", "2026-10-25T02:30:00"], "occurs twice in Europe/Berlin"),
        (
            ["2026-03-29T01:00:00", "2026-03-29T02:30:00"],
            "2026-03-29T02:30:00 does not exist in Europe/Berlin",
        ),
    ],
)
def test_local_times_that_are_no_moment(tmp_path, texts, message):
    with pytest.raises(TraceError, match=message):
        stamps(tmp_path, texts, zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("form", "message"), [({"style": "soon"}, "not a time format"), ({"zone": "Moon"}, "not a time zone")]
)
def test_forms_that_do_not_exist(form, message):
    with pytest.raises(TraceError, match=message):
        TimeForm.build(**form)


@pytest.mark.parametrize(
    ("zone", "tz", "earlier_s"),
    [("UTC", "UTC", 0), ("UTC", None, 0), ("Europe/Berlin", "UTC", 0), ("Europe/Berlin", None, 3600)],
)
def test_times_in_parquet(tmp_path, zone, tz, earlier_s):
    column = pa.array([int(AT_S * 1e9), int((AT_S + 60) * 1e9)], pa.timestamp("ns", tz=tz))
    parquet.write_table(pa.table({"timestamp": column, "value": [1.0, 2.0]}), tmp_path / "t.parquet")
    assert in_parquet(tmp_path, zone=zone) == [AT_S - earlier_s, AT_S + 60 - earlier_s]


@pytest.mark.parametrize(
    ("stamps", "style", "message"),
    [
        ([1_772_323_200_000, 1_772_323_260_000], "auto", "row 1: timestamp `1772323200000` .* milliseconds"),
        (
            [1_772_323_200_000_000, 1_772_323_260_000_000],
            "auto",
            "if it is seconds; .* microseconds.*format us",
        ),
        ([1_772_323_200_000_000, 1_772_323_260_000_000], "ms", "if it is milliseconds; .* microseconds"),
        ([20260301, 20260302], "auto", "may be a date or epoch seconds"),
        ([17, 18], "%Y%m%d", "row 1: timestamp `17` is not a time; wanted is the pattern"),
    ],
)
def test_epoch_numbers_of_parquet_in_another_unit_are_refused(tmp_path, stamps, style, message):
    parquet.write_table(pa.table({"timestamp": stamps, "value": [1.0, 2.0]}), tmp_path / "t.parquet")
    with pytest.raises(TraceError, match=message):
        in_parquet(tmp_path, style)


@pytest.mark.parametrize(
    ("stamps", "style"),
    [
        ([1_772_323_200_000, 1_772_323_260_000], "ms"),
        ([1_772_323_200_000_000_000, 1_772_323_260_000_000_000], "ns"),
        ([202603010000, 202603010001], "%Y%m%d%H%M"),
        ([Decimal("1772323200.0"), Decimal("1772323260.0")], "auto"),
    ],
)
def test_epoch_numbers_of_parquet(tmp_path, stamps, style):
    values = [Decimal("1.5"), Decimal("2.5")]
    parquet.write_table(pa.table({"timestamp": stamps, "value": values}), tmp_path / "t.parquet")
    assert in_parquet(tmp_path, style) == [1_772_323_200, 1_772_323_260]


def test_dates_of_parquet(tmp_path):
    days = [date(2026, 3, 1), date(2026, 3, 2)]
    parquet.write_table(pa.table({"timestamp": days, "value": [1, 2]}), tmp_path / "t.parquet")
    assert in_parquet(tmp_path, zone="Europe/Berlin") == [1_772_323_200 - 3600, 1_772_409_600 - 3600]


def in_parquet(folder, style="auto", zone="UTC"):
    options = ImportOptions(shape=Shape.SERIES, kind=TraceKind.GAUGE, time_style=style, zone=zone)
    return import_files([folder / "t.parquet"], options).trace.timestamps.tolist()


# ── Censored values ─────────────────────────────────────────────────────────────────────────────────────


def test_marks_of_censoring_are_read_and_part_of_the_recording(tmp_path):
    marked = read_trace(put(tmp_path, "timestamp,value,censored\n0,1,0\n60,2,1\n"), kind=TraceKind.GAUGE)
    assert marked.censored.tolist() == [False, True]
    plain = read_trace(put(tmp_path, "timestamp,value\n0,1\n60,2\n"), kind=TraceKind.GAUGE)
    none = read_trace(put(tmp_path, "timestamp,value,censored\n0,1,0\n60,2,0\n"), kind=TraceKind.GAUGE)
    assert plain.digest == none.digest != marked.digest
    assert marked.cut(60, 61).censored.tolist() == [True]
    assert marked.scaled(2.0).censored.tolist() == [False, True]


def test_marks_of_censoring_are_0_or_1(tmp_path):
    path = put(tmp_path, "timestamp,value,censored\n0,1,0\n60,2,2\n")
    with pytest.raises(TraceError, match=r"t\.csv:3:6: censored 2 is neither 0 nor 1"):
        read_trace(path, kind=TraceKind.GAUGE)


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("2026-03-01T00:00:00Z,5", "the header is missing"),
        ("timestamp;value", "separated by something other than a comma"),
        ("timestamp,duration_s", "list of events"),
        ("timestamp,value,unit", "trace import"),
    ],
)
def test_another_header_comes_with_a_hint(tmp_path, header, hint):
    with pytest.raises(TraceError, match=rf"t\.csv:1: .*{hint}"):
        read_trace(put(tmp_path, f"{header}\n"), kind=TraceKind.COUNT)
