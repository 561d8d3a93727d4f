"""`explain` tells what was known when a decision was made, the source's troubles too."""

import asyncio

import pytest

from autoscaler.core.types import Freshness
from autoscaler.ports import TickRecord
from autoscaler.store import SqliteJournal
from tests.contracts.test_journal_contract import fleet_tick

AT_S = 1_772_323_200.0  # 2026-03-01T00:00:00Z


@pytest.fixture(name="state_dir")
def _state_dir(tmp_path):
    """Metrics were away at the first decision and back at the second."""

    async def write():
        journal = SqliteJournal(tmp_path / "state", inline=True)
        for number, error in enumerate(("http://prometheus: connection refused; does it run", "")):
            freshness = int(Freshness.ABSENT if error else Freshness.FRESH)
            row = fleet_tick(source_error=error, freshness=freshness, observed_at_s=AT_S)
            await journal.record_tick(TickRecord(number, AT_S + 10.0 * number, (row,)), ())
        await journal.close()

    asyncio.run(write())
    return tmp_path / "state"


def test_what_the_source_complained_of_then_is_told(invoke, state_dir):
    away = invoke("explain", "web", "--at", "2026-03-01T00:00:05Z", "--state-dir", state_dir)
    assert away.exit_code == 0
    assert "\n  metrics   http://prometheus: connection refused; does it run\n" in away.stdout
    back = invoke("explain", "web", "--state-dir", state_dir)
    assert back.exit_code == 0
    assert "tick 1" in back.stdout
    assert "\n  metrics " not in back.stdout
