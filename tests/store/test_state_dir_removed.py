"""The state directory, or its lock, is removed under a running daemon: it takes it again, and never shares it."""

import shutil

import pytest

from autoscaler.errors import JournalError
from autoscaler.ports import TickRecord
from autoscaler.store import mark
from autoscaler.store.identity import FILE_NAME, daemon_name, keep_name
from autoscaler.store.journal import SqliteJournal, open_journal
from autoscaler.store.lock import LOCK_NAME


def a_tick(number):
    return TickRecord(number, number * 10.0, ())


def begun(folder, told):
    return open_journal(folder, lambda: 7.0, told.append, inline=True)


@pytest.mark.parametrize("gone", ["all", "lock"])
async def test_it_is_taken_again_and_no_second_daemon_gets_it(tmp_path, gone):
    folder, told = tmp_path / "state", []
    journal = begun(folder, told)
    await journal.record_tick(a_tick(0), ())
    if gone == "all":
        shutil.rmtree(folder)
        with pytest.raises(JournalError, match="is not there any more"):
            await journal.record_tick(a_tick(1), ())
        folder.mkdir()
    else:
        (folder / LOCK_NAME).unlink()
    await journal.record_tick(a_tick(2), ())
    with pytest.raises(JournalError, match="is in use by process"):
        SqliteJournal(folder)
    assert mark.read(folder).ticks > 0
    assert len(told) == (gone == "all")
    await journal.close()
    await SqliteJournal(folder, inline=True).close()


async def test_one_that_another_daemon_has_taken_meanwhile_is_left_to_it(tmp_path):
    folder, told = tmp_path / "state", []
    journal = begun(folder, told)
    await journal.record_tick(a_tick(0), ())
    shutil.rmtree(folder)
    other = SqliteJournal(folder, inline=True)
    await other.record_tick(a_tick(5), ())
    for _ in range(2):
        with pytest.raises(JournalError, match="is in use by process"):
            await journal.record_tick(a_tick(1), ())
    await other.record_tick(a_tick(6), ())
    await other.close()
    assert told == []
    await journal.record_tick(a_tick(7), ())
    await journal.close()


def test_a_name_whose_file_is_gone_is_written_again_and_no_other_is_replaced(tmp_path):
    name = daemon_name(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    keep_name(tmp_path, "")
    assert not (tmp_path / FILE_NAME).exists()
    keep_name(tmp_path, name)
    assert daemon_name(tmp_path) == name
    keep_name(tmp_path, "another")
    assert daemon_name(tmp_path) == name
    keep_name(tmp_path / "gone", name)
    assert not (tmp_path / "gone").exists()
