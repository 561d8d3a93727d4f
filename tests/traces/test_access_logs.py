"""Access logs: three formats, packed, several files, disorder, damage; what is counted and what is not."""

from __future__ import annotations

import gzip
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.errors import TraceError
from autoscaler.traces.access_logs import MAX_LINE, LogFormat, notes, read_access_logs, told_format
from autoscaler.traces.blocks import BLOCK_BYTES
from autoscaler.traces.column_roles import Shape
from autoscaler.traces.importing import ImportOptions, import_files

AT_S = 1772366400  # 2026-03-01T12:00:00Z


def common(after_s, request="GET /a HTTP/1.1", zone="+0000"):
    hour, minute, second = after_s // 3600, after_s // 60 % 60, after_s % 60
    ahead = int(zone[:3])
    return f'10.0.0.1 - - [01/Mar/2026:{12 + hour + ahead:02}:{minute:02}:{second:02} {zone}] "{request}" 200 512\n'


def combined(after_s):
    return common(after_s).rstrip() + ' "https://example.org/" "Mozilla/5.0 (X11; \\"odd\\")"\n'


def alb(after_s, slow_s=30, created=True):
    def clock(at):
        return f"2026-03-01T{12 + at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}.123456Z"

    tail = (
        f'"Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 {clock(after_s)} "forward" "-" "-"'
        if created
        else ""
    )
    return (
        f"https {clock(after_s + slow_s if created else after_s)} app/lb/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 "
        f'0.000 {slow_s}.001 0.000 200 200 34 366 "GET https://www.example.com:443/ HTTP/1.1" "curl/7.46.0" '
        f"ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:x {tail}\n"
    )


def haproxy(after_s, tcp=False):
    clock = f"{12 + after_s // 3600:02}:{after_s // 60 % 60:02}:{after_s % 60:02}"
    served = (
        "10/0/130 212"
        if tcp
        else '10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} "GET /a HTTP/1.1"'
    )
    return f"Mar  1 {clock} lb1 haproxy[14389]: 10.0.1.2:33317 [01/Mar/2026:{clock}.655] http-in~ static/srv1 {served}\n"


def put(folder, text, name="access.log"):
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    ("line", "form"),
    [
        (common, LogFormat.COMMON),
        (combined, LogFormat.COMMON),
        (alb, LogFormat.ALB),
        (haproxy, LogFormat.HAPROXY),
        (lambda at: haproxy(at, tcp=True), LogFormat.HAPROXY),
        (lambda at: "Mar  1 12:00:00 web1 nginx: " + combined(at), LogFormat.COMMON),
        (lambda at: alb(at, created=False), LogFormat.ALB),
        (lambda at: common(at, zone="+0530").replace(":17:", f":{12 + 5}:"), LogFormat.COMMON),
    ],
)
@pytest.mark.parametrize("name", ["access.log", "access.log.gz"])
def test_requests_are_counted_where_they_arrived(tmp_path, line, form, name):
    seconds = [0, 10, 59, 60, 200]
    half_past = "+0530" in line(0)
    path = put(tmp_path, "".join(map(line, seconds)), name)
    assert told_format(path) is form
    trace, found = read_access_logs([path], 60.0)
    begin = AT_S - (1800 if half_past else 0)
    assert trace.timestamps.tolist() == [begin, begin + 60, begin + 120, begin + 180]
    assert trace.values.tolist() == [3.0, 1.0, 0.0, 1.0]
    assert (trace.kind, found.lines, found.refused, found.formats) == ("count", 5, 0, [form])


@settings(max_examples=50, deadline=None)
@given(seconds=st.lists(st.integers(0, 3000), min_size=2, max_size=40), cut=st.integers(1, 39))
def test_order_within_the_bound_and_the_order_of_files_do_not_matter(tmp_path_factory, seconds, cut):
    folder = tmp_path_factory.mktemp("logs")
    whole = put(folder, "".join(map(common, sorted(seconds))), "whole.log")
    shuffled = put(folder, "".join(map(common, seconds)), "shuffled.log")
    parts = [sorted(seconds)[:cut], sorted(seconds)[cut:]]
    files = [put(folder, "".join(map(combined, part)), f"{at}.log") for at, part in enumerate(parts) if part]
    one, _ = read_access_logs([whole], 300.0) if len({s // 300 for s in seconds}) > 1 else (None, None)
    if one is None:
        return
    two, _ = read_access_logs([shuffled], 300.0, disorder_s=4000.0)
    three, _ = read_access_logs(files[::-1], 300.0)
    assert one.digest == two.digest
    known = dict(zip(one.timestamps.tolist(), one.values.tolist(), strict=True))
    for at_s, value in zip(three.timestamps.tolist(), three.values.tolist(), strict=True):
        assert known.pop(at_s) == value
    assert not any(known.values()), "what no file covers is a gap, and held no request"


def test_the_time_between_two_files_is_unknown_and_not_zero(tmp_path):
    files = [put(tmp_path, common(at) + common(at + 70), f"{at}.log") for at in (0, 600)]
    trace, found = read_access_logs(files, 60.0)
    assert (trace.timestamps - AT_S).tolist() == [0.0, 60.0, 600.0, 660.0]
    assert trace.missing == 8
    assert any("8 intervals between the files" in text for text in notes(found, trace))


def test_a_few_lines_that_cannot_be_read_are_counted_and_shown(tmp_path):
    lines = [common(at) for at in range(300)]
    lines[7] = "garbage \x1b[31m\n"
    lines[9] = common(9).replace("Mar", "Foo")
    path = put(tmp_path, "".join(lines))
    trace, found = read_access_logs([path], 60.0)
    assert (trace.values.sum(), found.refused) == (298.0, 2)
    assert [line.line for line in found.shown] == [8, 10]
    assert "access.log:8: not a line of the common format: garbage" in str(found.shown[0])
    assert "\x1b" not in str(found.shown[0])
    assert any("2 lines were not counted" in text for text in notes(found, trace))


def test_too_many_of_them_end_the_reading(tmp_path):
    path = put(tmp_path, "".join(common(at) if at % 10 else "?\n" for at in range(300)))
    with pytest.raises(TraceError, match=r"(?s)30 of 300 lines .*--max-refused.*access\.log:1: "):
        read_access_logs([path], 60.0)
    trace, _ = read_access_logs([path], 60.0, max_refused=0.2)
    assert trace.values.sum() == 270


def test_a_line_far_behind_its_file_is_refused(tmp_path):
    lines = [common(at) for at in range(3600, 3900)]
    path = put(tmp_path, "".join([*lines, common(60), common(3900)]))
    trace, found = read_access_logs([path], 60.0)
    assert (found.refused, found.shown[0].line, trace.values.sum()) == (1, 301, 301.0)
    assert "3839 s earlier" in found.shown[0].why


def test_bytes_that_are_no_text_are_just_part_of_a_request(tmp_path):
    raw = common(0).encode().replace(b"/a", b"/\xff\x00\xfe")
    trace, found = read_access_logs([put(tmp_path, raw + common(61).encode())], 60.0)
    assert (trace.values.tolist(), found.refused) == ([1.0, 1.0], 0)


def test_the_same_file_twice_is_told(tmp_path):
    files = [put(tmp_path, common(0) + common(99), name) for name in ("a.log", "a.log.gz")]
    with pytest.raises(TraceError, match=r"a\.log\.gz: this is the same as .*a\.log"):
        read_access_logs(files, 60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "none of the first lines"),
        ("key=value\n", r"none of the first lines .*begins with `key=value`"),
    ],
)
def test_files_that_are_no_log(tmp_path, text, message):
    path = put(tmp_path, text)
    with pytest.raises(TraceError, match=message):
        read_access_logs([path], 60.0)


def test_a_packed_log_that_was_cut_off(tmp_path):
    path = put(tmp_path, "".join(map(common, range(300))), "a.log.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(TraceError, match="cannot be read"):
        read_access_logs([path], 60.0)


def test_a_log_of_many_blocks_is_counted_to_the_line(tmp_path):
    """Several blocks, one with a bad line, one with an empty one; times, lines and the sum are as written."""
    rows = 3 * BLOCK_BYTES // len(common(0))
    lines = [common(at // 40) for at in range(rows)]
    lines[rows // 2] = "bad\n"
    lines[rows // 3] += "\n"
    trace, found = read_access_logs([put(tmp_path, "".join(lines).removesuffix("\n"))], 60.0)
    assert (found.lines, found.refused, found.shown[0].line) == (rows, 1, rows // 2 + 2)
    assert trace.values.sum() == rows - 1
    inner = trace.values[1:-1].tolist()
    assert inner.count(2400.0) == len(inner) - 1
    assert min(inner) == 2399.0


@pytest.mark.parametrize("line", [common, combined, alb])
def test_windows_line_ends(tmp_path, line):
    text = "".join(map(line, range(130))).replace("\n", "\r\n")
    trace, found = read_access_logs([put(tmp_path, text)], 60.0)
    assert (trace.values.tolist(), found.refused) == ([60.0, 60.0, 10.0], 0)


def test_a_file_without_lines_is_no_log(tmp_path):
    path = put(tmp_path, common(0) + "x" * (MAX_LINE + BLOCK_BYTES))
    with pytest.raises(TraceError, match="line of more than 16 MiB"):
        read_access_logs([path], 60.0)


def test_times_of_haproxy_are_local(tmp_path):
    def log(*local):
        return "".join(haproxy(0).replace("01/Mar/2026:12:00:00", each) for each in local)

    path = put(tmp_path, log("01/Mar/2026:12:00:00", "01/Mar/2026:12:01:00"))
    trace, _ = read_access_logs([path], 60.0, zone=ZoneInfo("Europe/Berlin"))
    assert trace.timestamps.tolist() == [AT_S - 3600, AT_S - 3540]
    # 02:50 and 02:10 of the night in which clocks are put back from 03:00 to 02:00.
    again = put(tmp_path, log("25/Oct/2026:02:50:00", "25/Oct/2026:02:10:00"), "again.log")
    trace, counts = read_access_logs([again], 60.0, zone=ZoneInfo("Europe/Berlin"))
    assert (trace.end_s - trace.start_s, counts.refused) == (21 * 60.0, 0)


def test_a_browser_that_names_itself_with_one_comma_makes_no_table(tmp_path):
    line = common(0).rstrip() + ' "-" "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/1"\n'
    found = import_files([put(tmp_path, line * 3)], ImportOptions())
    assert (found.shape, found.trace.values.tolist()) == (Shape.ACCESS_LOG, [3.0])


@pytest.mark.parametrize("sign", [" ", "\t"])
def test_logs_of_w3c_are_told_by_their_fields(tmp_path, sign):
    head = f"#Version: 1.0\n#Fields: date{sign}time{sign}s-ip{sign}cs-method\n"
    lines = "".join(f"2026-03-01{sign}12:0{at}:00{sign}10.0.0.1{sign}GET\n" for at in (0, 0, 2))
    path = put(tmp_path, head + lines + "#Version: 1.0\n")
    found = import_files([path], ImportOptions())
    assert found.trace.values.tolist() == [2.0, 0.0, 1.0]
    assert found.trace.start_s == AT_S
    assert found.notes[0] == "3 requests in w3c format"
    # A table that begins with a date and a time is no log.
    assert told_format(put(tmp_path, f"date{sign}time{sign}hits\n" + lines, "t.log")) is None
