"""How the journal forgets what is too old."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from autoscaler.ports import Note, TickRecord
from autoscaler.store import SqliteJournal
from autoscaler.store.journal import PRUNE_ROWS
from tests.store.test_journal_on_disk import fleet_tick


async def test_a_tick_may_be_recorded_while_pruning(tmp_path) -> None:
    journal = SqliteJournal(tmp_path)
    for tick in range(500):
        await journal.record_tick(TickRecord(tick, float(tick), (fleet_tick(),)), ())
    pruned, _ = await asyncio.gather(
        journal.prune(before_s=450.0, max_bytes=2**40),
        journal.record_tick(TickRecord(500, 500.0, (fleet_tick(),)), ()),
    )
    assert pruned == 450
    with journal.reader() as reader:
        assert [row.tick for row in reader.ticks("web", 0.0, 1e9)] == list(range(450, 501))
    await journal.close()


async def test_pruning_a_long_past_at_once_holds_no_write_up(tmp_path) -> None:
    """As after `retention_days` was reduced: what is due is deleted in many short transactions."""
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_tick(TickRecord(1, 1.0, (fleet_tick(),)), ())
    await journal.record_events(2.0, [Note("hint", "web", str(each)) for each in range(2 * PRUNE_ROWS + 1)])
    journal._prune_batch(100.0, 2**40)
    with journal.reader() as reader:
        assert len(reader.events(0.0, 1e9)) == PRUNE_ROWS + 1
    await journal.prune(before_s=100.0, max_bytes=2**40)
    with journal.reader() as reader:
        assert reader.events(0.0, 1e9) == ()
    await journal.close()


async def test_pruning_makes_the_file_smaller(tmp_path) -> None:
    journal = SqliteJournal(tmp_path)
    empty = await journal.size_bytes()
    fleets = tuple(replace(fleet_tick(f"fleet-{i}"), sentence=os.urandom(50).hex()) for i in range(100))
    for tick in range(250):
        await journal.record_tick(TickRecord(tick, float(tick), fleets), ())
    full = await journal.size_bytes()
    assert full > empty + 250 * 5_000
    assert await journal.prune(before_s=1e9, max_bytes=2**40) == 249
    await journal.close()
    assert (tmp_path / "journal.sqlite").stat().st_size < empty + 40_000
