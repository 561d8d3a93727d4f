"""The explanations of a tick come back from the journal as they were, in addition to its numbers."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.core.types import Stage
from autoscaler.ports import DueBurst, Earnings, SharedHold, TickRecord
from autoscaler.store import SqliteJournal
from tests.store.test_journal_on_disk import fleet_tick


async def test_what_a_fleet_is_sized_by_and_held_back_by_is_kept(tmp_path) -> None:
    earnings = Earnings(120.0, "demand + 10%, 2 min", 6, 9, 3.1, None, 12)
    held = SharedHold("gpu", "vms", 50.0, 0.0, 18, 1.2, "batch", 31, None, priced=True, rival_priced=False)
    due = DueBurst(1_795_514_400.0, 0.7, 1800.0)
    kept = replace(
        fleet_tick(),
        earnings=earnings,
        shared=held,
        burst=due,
        stages=(4,) * len(Stage),
        reasons=(1,) + (0,) * (len(Stage) - 1),
    )
    plain = replace(fleet_tick("api"), stages=kept.stages, reasons=kept.reasons)
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_tick(TickRecord(0, 0.0, (kept, plain)), ())
    with journal.reader() as reader:
        assert reader.ticks("web", 0.0, 9.0)[0].recorded == kept
        assert reader.ticks("api", 0.0, 9.0)[0].recorded == plain
    await journal.close()
