"""The mark beside the journal: its contents, when it is not valid, and which journals end before it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from autoscaler.errors import JournalDamagedError
from autoscaler.store.mark import FILE_NAME, MarkFile, Progress, progress, read, require

REACHED = Progress(ticks=12, actions=7, events=3, settled=6)


@pytest.fixture(name="state")
def _state(tmp_path):
    with closing(MarkFile(tmp_path)) as file:
        file.write(REACHED)
    return tmp_path


def test_what_was_written_is_read_and_a_lower_mark_leaves_nothing_of_a_higher_one(state) -> None:
    assert read(state) == REACHED
    for reached in (Progress(10**12, 10**9, 10**9, 10**9), Progress()):
        with closing(MarkFile(state)) as file:
            file.write(reached)
        assert read(state) == reached


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-5],
        lambda text: text.replace("12", "13"),
        lambda text: text + " 1",
        lambda text: " ".join(text.split()[:3] + text.split()[4:]),
        lambda text: text.replace("7", "x"),
        lambda text: text.replace("7", "é"),
        lambda text: "0 0 0 2007274886\n",
    ],
)
def test_what_is_torn_is_no_mark(state, change) -> None:
    file = state / FILE_NAME
    file.write_text(change(file.read_text()))
    assert read(state) is None
    file.unlink()
    assert read(state) is None


def journal(ticks, actions, events, settled=True):
    connection = sqlite3.connect(":memory:")
    for name, last in (("ticks", ticks), ("actions", actions), ("events", events)):
        connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT, settled_at_s REAL)")
        if last:
            connection.execute(f"INSERT INTO {name} VALUES (?, 1.0)", (last,))
    if actions:
        connection.execute("INSERT INTO actions VALUES (?, ?)", (REACHED.settled, 2.0 if settled else None))
    return closing(connection)


def test_how_far_a_journal_is_written() -> None:
    with journal(12, 7, 3) as connection:
        assert progress(connection, 5) == Progress(12, 7, 3, 5)
    with journal(0, 0, 0) as connection:
        assert progress(connection, 0) == Progress()


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ((12, 7, 3), True),
        ((13, 8, 4), True),
        ((11, 7, 3), False),
        ((12, 0, 3), False),
        ((12, 7, 2), False),
        ((12, 7, 3, False), False),
    ],
)
def test_a_journal_that_ends_before_its_mark_is_damaged(tmp_path, written, whole) -> None:
    with journal(*written) as connection:
        if whole:
            require(connection, REACHED, tmp_path)
            return
        with pytest.raises(JournalDamagedError, match="ends before records that were acknowledged"):
            require(connection, REACHED, tmp_path)


def test_a_full_disk_leaves_it_behind_without_a_word(tmp_path) -> None:
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    with closing(MarkFile(tmp_path)) as file:
        file.write(REACHED)
