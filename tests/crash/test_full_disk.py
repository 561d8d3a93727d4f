"""A journal that cannot be written: decisions continue, actions are held with a message, and all recovers by itself."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import subprocess
from pathlib import Path

import pytest

from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.errors import JournalError
from autoscaler.ports import Note, Verb
from autoscaler.store import JournalReader, open_journal
from tests.daemon.builders import Bench, policy, steady, virtual
from tests.real import require_real

FULL = "the disk is full"


def limit(journal, pages):
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (used,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages or used}")


FILLERS = (
    "INSERT INTO events (at_s, kind, fleet, text) VALUES (0, 'filler', '', hex(randomblob(40)))",
    "INSERT INTO ticks (tick, at_s, roster_id, format, body) SELECT 0, 0, min(id), 1, randomblob(80) FROM rosters",
    (
        "INSERT INTO actions (at_s, tick, fleet, verb, vm_ids, count, token, reason, settled_at_s) "
        "VALUES (0, 0, '', 'start', '[]', 0, '', hex(randomblob(40)), 0)"
    ),
    (
        "INSERT INTO operator_changes (at_s, kind, fleet, verb, who, reason, in_force) "
        "VALUES (0, 'resumed', '', 'start', '', hex(randomblob(40)), 0)"
    ),
)


def fill_up(journal):
    """Not one page more, and no room within the pages of any table."""
    limit(journal, 0)
    for filler in FILLERS:
        with pytest.raises(sqlite3.OperationalError, match="full"):
            insert_for_ever(journal._connection, filler)


def insert_for_ever(connection, statement):
    for _ in range(100_000):
        connection.execute(statement)


BREAKS = {
    "full": (fill_up, lambda journal: limit(journal, 1_000_000), "full"),
    "read-only": (
        lambda journal: journal._connection.execute("PRAGMA query_only = ON"),
        lambda journal: journal._connection.execute("PRAGMA query_only = OFF"),
        "may not be written to",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_deciding_goes_on_acting_is_held_and_comes_back(tmp_path, kind):
    breaks, heals, words = BREAKS[kind]

    @virtual
    async def run():
        bench = Bench(vms=6, running=1, zones="a")
        await bench.journal.close()
        bench.journal = open_journal(tmp_path, bench.clock.now, lambda _: None, inline=True)
        bench.add(policy(signal={"kind": "total"}), steady((0, 100), (25, 400)))
        loop = asyncio.get_running_loop()
        loop.call_later(22, breaks, bench.journal)
        loop.call_later(62, heals, bench.journal)
        await bench.run(120)
        # Wanted from 30 on, held until the first tick after the disk is well again.
        assert bench.column("desired")[3:7] == [4, 4, 4, 4]
        assert bench.calls("StartInstances") == [(70, "StartInstances", 3, "")]
        told = bench.log.texts("journal_failed")
        assert told
        assert all(words in text for text in told), told
        assert any("3 actions held back" in text or "1 action held back" in text for text in told)
        assert bench.column("in_service")[-1] == 4
        assert await bench.journal.recent_actions(math.inf) == ()
        await bench.journal.close()

    run()


@pytest.mark.parametrize("kind", BREAKS)
def test_an_outcome_that_could_not_be_recorded_is_recorded_later(tmp_path, kind):
    breaks, heals, _ = BREAKS[kind]

    @virtual
    async def run():
        bench = Bench(vms=6, running=1, zones="a")
        await bench.journal.close()
        bench.journal = open_journal(tmp_path, bench.clock.now, lambda _: None, inline=True)
        bench.add(
            policy(signal={"kind": "total"}), steady((0, 100), (25, 400)), provider=Breaking(bench, breaks)
        )
        asyncio.get_running_loop().call_later(52, heals, bench.journal)
        await bench.run(90)
        (action,) = [a for a in bench.actions() if len(a.intent.vm_ids) == 3]
        assert action.settled_at_s is not None
        assert [str(o.kind) for o in action.outcomes] == ["accepted"] * 3
        assert await bench.journal.recent_actions(math.inf) == ()
        await bench.journal.close()

    run()


class Breaking:
    """The provider, whose first start meets a disk that has just become full."""

    def __init__(self, bench, breaks):
        self.provider, self.bench, self.breaks, self.broken = bench.provider, bench, breaks, False

    def __getattr__(self, name):
        return getattr(self.provider, name)

    async def start(self, vm_ids):
        if not self.broken:
            self.broken = True
            self.breaks(self.bench.journal)
        return await self.provider.start(vm_ids)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False
    )
    require_real("a mounted file system (needs root)", mounted.returncode == 0)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def write_for_ever(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        for _ in range(1000):
            stream.write(b"x" * 4096)


async def record_for_ever(journal) -> None:
    for _ in range(100):
        await journal.record_events(1.0, [Note("note", "", "while full " * 400)])


async def test_a_file_system_that_is_really_full(small_disk: Path):
    told: list[str] = []
    journal = open_journal(small_disk / "state", lambda: 0.0, told.append, inline=True)
    await journal.record_events(0.0, [Note("note", "", "before")])
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        write_for_ever(filler)
    with pytest.raises(JournalError, match=FULL):
        await record_for_ever(journal)
    filler.unlink()
    await journal.record_events(2.0, [Note("note", "", "after")])
    with journal.reader() as reader:
        texts = [event.text for event in reader.events(0.0, 9.0)]
    assert (texts[0], texts[-1]) == ("before", "after")
    await journal.close()
    # A daemon that starts on a full disk says so; what it recorded can be read.
    with pytest.raises(OSError, match="No space left"):
        write_for_ever(filler)
    with pytest.raises(JournalError, match=FULL):
        open_journal(small_disk / "state", lambda: 0.0, told.append, inline=True)
    with JournalReader(small_disk / "state") as reader:
        assert len(reader.events(0.0, 9.0)) == len(texts)
    filler.unlink()
    await open_journal(small_disk / "state", lambda: 0.0, told.append, inline=True).close()
    assert told == []


@pytest.mark.parametrize("kind", BREAKS)
def test_an_operators_change_is_refused_whole_and_taken_when_there_is_space(tmp_path, kind):
    breaks, heals, words = BREAKS[kind]
    pause = ChangeRequest(("web",), "alice", "migration")

    @virtual
    async def run():
        bench = Bench(vms=6, running=1, zones="a")
        await bench.journal.close()
        bench.journal = open_journal(tmp_path, bench.clock.now, lambda _: None, inline=True)
        bench.add(policy(signal={"kind": "total"}), 100)
        said = []

        async def ask():
            try:
                said.append(await bench.daemon.operators.pause(pause, [Verb.START, Verb.STOP]))
            except JournalError as error:
                said.append(error)

        loop, asking = asyncio.get_running_loop(), []
        loop.call_later(22, breaks, bench.journal)
        loop.call_later(25, lambda: asking.append(asyncio.ensure_future(ask())))
        loop.call_later(42, heals, bench.journal)
        loop.call_later(45, lambda: asking.append(asyncio.ensure_future(ask())))
        await bench.run(60)
        refused, taken = said
        assert words in str(refused)
        assert len(taken.changes) == 2
        assert [row.may_stop for row in bench.rows()] == [True] * 5 + [False] * 2
        assert await bench.journal.changes_in_force() == taken.changes
        assert [kind for _, kind, _ in bench.events() if kind == "paused"] == ["paused"]
        await bench.journal.close()

    run()
