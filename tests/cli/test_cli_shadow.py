"""`shadow report` as a command: the conclusion, the days, JSON, and its output when there is nothing to report."""

import asyncio
import json

import pytest

from autoscaler.cli.json_keys import JSON_OF
from autoscaler.ports import TickRecord
from autoscaler.store import SqliteJournal
from tests.shadow.test_shadow_report import START_S, tick


@pytest.fixture(name="state_dir")
def _state_dir(tmp_path):
    async def write():
        journal = SqliteJournal(tmp_path / "state", inline=True)
        for n in range(288 * 2 + 1):
            row = tick(n * 30, 900.0 if n == 100 else 300.0, at_s=START_S + 300 * n)
            await journal.record_tick(TickRecord(row.tick, row.at_s, (row.recorded,)), ())
        await journal.close()

    asyncio.run(write())
    return tmp_path / "state"


def test_people_read_the_conclusion_then_the_days(invoke, state_dir):
    result = invoke("shadow", "report", "--since", "2026-01-01", "--state-dir", state_dir)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(
        "web: Over 2 d the policy would have cost 2,304.00 instead of 5,760.00 (60 % less)"
    )
    table = [line.split() for line in lines if line.startswith(("2026-03-0", "all"))]
    assert [row[0] for row in table] == ["2026-03-01", "2026-03-02", "all"]
    assert table[0][1:5] == ["2,880.00", "1,152.00", "240.0", "96.0"]
    assert any("short by up to 500/s, 150,000 of work in all" in line for line in lines)
    assert max(map(len, lines[2:7])) <= 80


def test_programs_read_json(invoke, state_dir):
    result = invoke("shadow", "report", "web", "--since", "2026-01-01", "--json", "--state-dir", state_dir)
    (document,) = json.loads(result.stdout)
    assert sorted(document) == sorted(JSON_OF["shadow report"].keys)
    assert (document["fleet"], document["conclusive"], document["episodes"]) == ("web", True, 1)
    assert document["total"]["real"]["cost"] == 5760.0
    assert document["conclusion"].startswith("Over 2 d")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("wbe", "--since", "2026-01-01"), "has no fleet wbe; did you mean web?"),
        (("--since", "2026-05-01"), "has nothing of this time; it has 2026-03-01T00:00:00Z to 2026-03-03T00:00:00Z"),
        (("--since", "2026-03-01", "--until", "2026-03-01T00:00:01Z"), "no fleet was in shadow for two ticks"),
    ],
)  # fmt: skip
def test_nothing_to_tell_is_said(invoke, state_dir, options, words):
    result = invoke("shadow", "report", *options, "--state-dir", state_dir)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
