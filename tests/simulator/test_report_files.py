"""Timelines as files and columns: they can be read back, and errors name their line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import write_document, write_timeline
from autoscaler.simulator.report.columns import NUMERIC, read_timeline, write_parquet
from autoscaler.simulator.report.folder import (
    make_room,
    read_report,
    rebuild,
    replace,
    staging,
    write_rows,
    write_run,
)
from autoscaler.simulator.report.thinning import chosen_rows, extremes
from tests.simulator.reports import columns, crowd, document


def rows_with_unknowns():
    rows = crowd(40)
    changed = {name: getattr(rows[5], name) for name in rows[5].__dataclass_fields__}
    rows[5] = rows[5].__class__(
        **{**changed, "demand": None, "shortage": None, "desired": None, "reason": 'a "b", ü\n'}
    )
    return rows


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_time_line_comes_back_as_it_was(tmp_path, form):
    rows = rows_with_unknowns()
    written = write_rows(tmp_path, rows, 60.0, form)
    back = read_timeline(tmp_path)
    assert (len(back), back.interval_s) == (40, 60.0)
    assert back.stamps_s.tolist() == written.stamps_s.tolist()
    for name in NUMERIC:
        np.testing.assert_allclose(back[name], written[name], rtol=1e-9, err_msg=name)
    assert list(back.reasons) == list(written.reasons)
    assert np.isnan(back["demand"][5])


def test_the_row_in_force_at_a_moment():
    line = columns(crowd(10))
    begin_s = line.stamps_s[0]
    assert [line.row_at(begin_s + at_s) for at_s in (-1, 0, 59.9, 60, 599, 600)] == [None, 0, 0, 1, 9, None]


HEAD = ",".join(("timestamp", *NUMERIC, "reason"))
GOOD = "2026-03-02T00:00:00Z" + "," * len(NUMERIC) + ",why"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"timeline\.csv:1: is not the header"),
        ("a,b\n", r"timeline\.csv:1: is not the header"),
        (f"{HEAD}\n", "has 0 rows"),
        (f"{HEAD}\n{GOOD}\n", "has 1 rows"),
        (
            f"{HEAD}\n{GOOD}\n2026-03-02T00:01:00Z,1\n",
            r"timeline\.csv:3: has 2 columns instead of 17; was the run",
        ),
        (f"{HEAD}\nnoon{GOOD[20:]}\n", r"timeline\.csv:2:1: timestamp 'noon' is not a time"),
        (f"{HEAD}\n{GOOD.replace(',', ',x', 1)}\n{GOOD}\n", r"timeline\.csv:2: demand 'x' is not a number"),
        (f"{HEAD}\n{GOOD}\n{GOOD}\n", "row 2 is not later than the one above"),
    ],
)
def test_a_broken_time_line_is_named_with_its_line(tmp_path, text, words):
    (tmp_path / "timeline.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_timeline(tmp_path)


def test_a_file_that_is_no_text_or_no_parquet_is_refused(tmp_path):
    (tmp_path / "timeline.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a CSV file in UTF-8"):
        read_timeline(tmp_path)
    (tmp_path / "timeline.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        read_timeline(tmp_path)


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "timeline.parquet")
    with pytest.raises(ConfigError, match="is not a timeline: it has no column timestamp"):
        read_timeline(tmp_path)


def test_a_folder_without_a_run_says_what_would_make_one(tmp_path):
    with pytest.raises(ConfigError, match="autoscaler replay --out"):
        read_timeline(tmp_path)
    with pytest.raises(ConfigError, match="autoscaler replay --out"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not the report of a run"):
        read_report(tmp_path)


def test_an_earlier_run_stays_unless_it_is_to_be_replaced(tmp_path):
    write_timeline(tmp_path / "timeline.csv", crowd(5))
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(
        ConfigError, match="holds an earlier run; name another --out, or replace it with --force"
    ):
        make_room(tmp_path, force=False)
    make_room(tmp_path, force=True)
    assert {file.name for file in tmp_path.iterdir()} == {"mine.txt", "timeline.csv"}, (
        "nothing replaces it yet"
    )
    with staging(tmp_path) as staged:
        staged.mkdir()
        (staged / "journal.sqlite").write_bytes(b"new")
        with pytest.raises(ConfigError, match=r"another run was written to .* in the meantime"):
            replace(tmp_path, force=False)
        replace(tmp_path, force=True, staged=staged)
    assert {file.name for file in tmp_path.iterdir()} == {"mine.txt", "journal.sqlite"}
    with pytest.raises(ConfigError, match="is a file"):
        make_room(tmp_path / "mine.txt", force=True)
    with pytest.raises(ConfigError, match=r"cannot be written to: .*; name another --out"):
        make_room(Path("/proc/nowhere"), force=True)


def interrupted_in(place):
    """A run that has written half of its journal."""
    with staging(place) as staged:
        staged.mkdir()
        (staged / "journal.sqlite").write_bytes(b"half")
        raise KeyboardInterrupt


def test_a_run_that_ends_before_its_time_leaves_no_empty_folder(tmp_path):
    place = tmp_path / "runs" / "first"
    make_room(place, force=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        interrupted_in(place)
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        interrupted_in(place)
    assert place.is_dir(), "a folder that was there stays"
    with staging(tmp_path / "second") as staged:
        staged.mkdir()
        (staged / "journal.sqlite").write_bytes(b"whole")
        replace(tmp_path / "second", force=False, staged=staged)
    assert [file.name for file in (tmp_path / "second").iterdir()] == ["journal.sqlite"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_page_made_again_is_the_page_that_was_made(tmp_path, form):
    rows = crowd(120)
    line = write_rows(tmp_path, rows, 60.0, form)
    write_run(tmp_path, document(rows), line, {}, with_page=True)
    first = (tmp_path / "report.html").read_text()
    path = rebuild(tmp_path)
    assert path.read_text() == first


def test_a_comparison_is_made_again_from_the_folders_of_its_policies(tmp_path):
    lines = {
        name: write_rows(tmp_path / name, crowd(60, seed=seed), 60.0, "csv") for seed, name in enumerate("ab")
    }
    doc = document(crowd(60), compared=[{"name": name, "folder": name} for name in "ab"], shown="b")
    write_run(tmp_path, doc, lines["b"], {"a": lines["a"]}, with_page=True)
    first = (tmp_path / "report.html").read_text()
    assert "capacity, a" in first
    assert rebuild(tmp_path).read_text() == first


def test_nothing_half_written_stays(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_parquet(tmp_path / "file" / "timeline.parquet", columns(crowd(5)))
    with pytest.raises(ConfigError, match="cannot be written"):
        write_document(tmp_path / "file" / "report.json", {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


series = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=300).map(
    lambda values: np.array(values, np.float64)
)


@settings(max_examples=200)
@given(series, st.integers(1, 50))
def test_every_bucket_keeps_its_lowest_and_highest_tick(values, buckets):
    rows = extremes([values], buckets)
    assert (np.diff(rows) > 0).all()
    assert {0, len(values) - 1} <= set(rows.tolist())
    assert len(rows) <= 3 * buckets + 2
    kept = values[rows]
    if not np.isnan(values).all():
        assert np.nanmin(kept) == np.nanmin(values)
        assert np.nanmax(kept) == np.nanmax(values)
    assert np.isnan(kept).any() == np.isnan(values).any()


@given(st.integers(1, 400), st.integers(60, 200))
def test_a_page_holds_no_more_ticks_than_fit_and_all_where_they_do(n, most):
    values = np.arange(n, dtype=np.float64) % 17
    rows = chosen_rows([values], [(n // 3, min(n // 3 + 20, n))], most)
    assert len(rows) <= most
    if n <= most:
        assert len(rows) == n
    else:
        assert set(range(n // 3, n // 3 + 20)) <= set(rows.tolist())
