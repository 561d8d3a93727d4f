"""Housekeeping on virtual time: the journal of a long-running daemon stays within its age and size."""

from __future__ import annotations

import pytest

from autoscaler.daemon.lifecycle import PRUNE_EVERY_S, Retention, run_to_the_end
from autoscaler.daemon.loop import Daemon
from autoscaler.store import open_journal
from tests.daemon.builders import Bench, policy, virtual

RUN_S = 4 * 3600.0
TICK_S = 30.0


@pytest.mark.parametrize(
    "retention", [Retention(1800.0, 2**40), Retention(1e9, 100_000), None], ids=["age", "size", "all"]
)
def test_the_journal_stays_bounded(tmp_path, retention):
    @virtual
    async def run():
        bench = Bench(vms=4, running=1, zones="a", tick_s=TICK_S)
        await bench.journal.close()
        journal = open_journal(tmp_path, bench.clock.now, lambda _: None, inline=True)
        sizes = []
        bench.add(policy(signal={"kind": "total"}), lambda second: 100 + 200 * (second // 300 % 2))
        daemon = Daemon(
            bench.clock, bench.setups, journal, bench.telemetry, bench.settings, lambda _: sizes.append(1)
        )
        await run_to_the_end(daemon, retention=retention, for_s=RUN_S + 0.5)
        kept = journal.reader()
        ticks = kept.ticks("web", 0.0, 1e12)
        size = await journal.size_bytes()
        actions = kept.actions("web", 0.0, 1e12)
        print(f"{size} bytes, {len(ticks)} ticks, {len(actions)} actions")
        kept.close()
        await journal.close()
        assert len(sizes) == RUN_S / TICK_S + 1
        assert ticks[-1].at_s == daemon.last_record.at_s
        if retention is None:
            assert len(ticks) == len(sizes)
            assert size > 190_000
        elif retention.max_bytes < 2**40:
            # As much again as one round of housekeeping lets grow.
            assert size < retention.max_bytes + 210_000 / RUN_S * PRUNE_EVERY_S * 1.2
        if retention is not None:
            assert len(ticks) < len(sizes)
            assert actions[0].at_s >= ticks[0].at_s - TICK_S
        if retention is not None and retention.seconds < RUN_S:
            oldest_s = daemon.last_record.at_s - ticks[0].at_s
            assert oldest_s <= retention.seconds + PRUNE_EVERY_S + TICK_S

    run()
