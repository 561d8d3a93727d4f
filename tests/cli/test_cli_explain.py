"""`explain` shows what was known when a decision was made, including troubles of the source."""

import asyncio
import json
from dataclasses import asdict

import pytest

from autoscaler.core.types import Freshness
from autoscaler.ports import (
    ActionIntent,
    DueBurst,
    Earnings,
    Note,
    Outcome,
    OutcomeKind,
    Settled,
    TickRecord,
    Verb,
)
from autoscaler.store import SqliteJournal
from tests.cli.conftest import strict_json
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


def test_who_drives_is_told_with_the_numbers_behind_it(invoke, tmp_path):
    earnings = Earnings(120.0, "forecast until a stopped VM is back, shortage at its price", 6, 9, 3.1, 0.8)
    due = DueBurst(AT_S + 60.0, 0.7, 3600.0)

    async def write():
        journal = SqliteJournal(tmp_path, inline=True)
        row = fleet_tick(freshness=int(Freshness.FRESH), observed_at_s=AT_S, earnings=earnings, burst=due)
        await journal.record_tick(TickRecord(1, AT_S, (row,)), ())
        await journal.close()

    asyncio.run(write())
    assert (
        "\n  model     forecast until a stopped VM is back, shortage at its price; starts up to 6 VMs, keeps up to 9; "
        "unserved work costs 120 times what a VM in service does\n"
    ) in invoke("explain", "web", "--state-dir", tmp_path).stdout
    told = strict_json(invoke("explain", "web", "--json", "--state-dir", tmp_path).stdout)["decision"]
    assert (told["earnings"], told["burst"], told["shared"]) == (asdict(earnings), asdict(due), None)


def test_where_places_have_names_it_is_told_where_the_fleet_was(invoke, state_dir):
    async def write():
        journal = SqliteJournal(state_dir, inline=True)
        there = {"web": "far", "api": "near", "alone": ""}
        rows = [fleet_tick(fleet, provider=there[fleet], freshness=int(Freshness.FRESH)) for fleet in there]
        await journal.record_tick(TickRecord(9, AT_S + 90.0, tuple(rows)), ())
        await journal.close()

    asyncio.run(write())
    told = invoke("explain", "web", "--state-dir", state_dir).stdout
    assert told.startswith("web in far at 2026-03-01T00:01:30Z (tick 9)\n")
    before = invoke("explain", "web", "--at", "2026-03-01T00:00:05Z", "--state-dir", state_dir).stdout
    assert before.startswith("web at 2026-03-01T00:00:00Z (tick 0)\n")
    for fleet, place in (("web", "far"), ("api", "near"), ("alone", "")):
        answer = invoke("explain", fleet, "--json", "--state-dir", state_dir)
        assert answer.exit_code == 0, answer.stderr
        shown = answer.stdout
        assert json.loads(shown)["provider"] == place, shown


QUIET = {
    "start": 0,
    "provision": 0,
    "stop": 0,
    "shortage": 0.0,
    "freshness": int(Freshness.FRESH),
    "in_service": 4,
}
STORY = (
    # Seconds, the row, verb and outcomes of what was done, if anything was.
    (0, {"start": 2, "sentence": "held: starting 2"}, None),
    (10, {"start": 2, "sentence": "held: starting 2"}, None),
    (20, {"start": 2, "sentence": "starting 2", "shortage": 50.0}, ("start", ("accepted", "no_capacity"))),
    (30, {"shortage": 80.0}, None),
    (
        40,
        {"freshness": int(Freshness.STALE), "source_error": "connection refused", "shortage": float("nan")},
        None,
    ),
    (60, {"in_service": 5}, None),
    (1000, {"stop": 1, "sentence": "stopping 1"}, ("stop", ("accepted", "unknown"))),
    (1010, {"shortage": 7.0}, None),
    (1030, {"shortage": 3.0}, None),
)


@pytest.fixture(name="story_dir")
def _story_dir(tmp_path):
    """Orders that were held, one that was taken in part, two shortages, metrics away, a silence, events."""

    async def write():
        journal = SqliteJournal(tmp_path / "story", inline=True)
        for number, (after_s, changes, done) in enumerate(STORY):
            at_s = AT_S + after_s
            row = fleet_tick(**{**QUIET, "sentence": "holding", **changes})
            intents = []
            if done:
                vms = ("i-1", "i-2")[: len(done[1])]
                intents = [ActionIntent("web", Verb(done[0]), vms, len(vms), "", "")]
            ids = await journal.record_tick(TickRecord(number, at_s, (row,)), intents)
            for action in ids:
                kinds = [OutcomeKind(kind) for kind in done[1]]
                outcomes = [
                    Outcome(f"i-{at}", kind, "" if kind is OutcomeKind.ACCEPTED else "Insufficient")
                    for at, kind in enumerate(kinds, 1)
                ]
                await journal.record_outcomes([Settled(action, at_s + 1, outcomes)])
        for fleet in ("", "web", "other"):
            await journal.record_events(AT_S + 70, [Note("paused", fleet, f"all of {fleet or 'everything'}")])
        await journal.close()

    asyncio.run(write())
    return tmp_path / "story"


def test_without_a_fleet_there_is_a_line_of_each_the_longest_short_first(invoke, story_dir):
    span = ("--since", "2026-03-01", "--until", "2026-03-02", "--state-dir", story_dir)
    told = invoke("explain", *span)
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[0].startswith("web, 9 decisions: 4 to 5 VMs in service; 1 started, ")
    assert "1 call was refused, 1 call was not answered; later listings showed the result; " in lines[0]
    assert "; short for 60 s in 2 episodes" in lines[0]
    document = strict_json(invoke("explain", *span, "--json").stdout)
    assert [each["fleet"] for each in document["fleets"]] == [line.partition(",")[0] for line in lines[:-1]]
    assert [document["fleets"][0][key] for key in ("refused_calls", "unknown_calls")] == [1, 1]
    nothing = invoke("explain", "--since", "2020-03-01", "--until", "2020-03-02", "--state-dir", story_dir)
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "has no decision from 2020-03-01" in nothing.stderr
    unnamed = invoke("explain", "--state-dir", story_dir)
    assert unnamed.exit_code == 2
    assert "name one, or pass --since" in unnamed.stderr


def test_what_became_of_a_fleet_is_told_in_order_and_summed(invoke, story_dir):
    told = invoke(
        "explain", "web", "--since", "2026-03-01", "--until", "2026-03-02", "--state-dir", story_dir
    )
    assert told.exit_code == 0, told.output
    lines = [line.removeprefix("2026-03-01T00:") for line in told.stdout.splitlines()]
    assert lines == [
        "00:00Z  held: starting 2",
        "00:20Z  short of 50/s: demand 2/s, 4 in service, 8 starting, 11 stopped",
        "00:20Z  starting 2",
        "00:21Z  start 2: 1 no_capacity Insufficient",
        "00:40Z  metrics are stale: connection refused",
        "01:00Z  enough again after 40 s, short of 80/s at worst",
        "01:00Z  metrics are fresh again after 20 s",
        "01:10Z  paused: all of everything",
        "01:10Z  paused: all of web",
        "16:40Z  nothing was decided for 16 min before",
        "16:40Z  stopping 1",
        "16:41Z  stop 2: 1 unknown Insufficient",
        "16:50Z  short of 7/s: demand 2/s, 4 in service, 8 starting, 11 stopped",
        (
            "web, 9 decisions: 4 to 5 VMs in service; 1 started, 0 made, 1 stopped, 1 call was refused, 1 call was not "
            "answered; later listings showed the result; short for 60 s in 2 episodes, the longest of 40 s, of 80/s at worst."
        ),
    ]
    document = strict_json(
        invoke(
            "explain",
            "web",
            "--since",
            "2026-03-01",
            "--until",
            "2026-03-02",
            "--json",
            "--state-dir",
            story_dir,
        ).stdout
    )
    assert (document["short_s"], document["episodes"], document["started"]) == (60.0, 2, 1)
    assert [line["what"] for line in document["lines"]][:4] == ["ordered", "short", "ordered", "refused"]


def test_a_time_without_decisions_is_told_with_what_there_is(invoke, story_dir):
    told = invoke("explain", "web", "--since", "2027-01-01", "--state-dir", story_dir)
    assert told.exit_code == 1
    assert "it covers 2026-03-01T00:00:00Z to 2026-03-01T00:17:10Z" in told.stderr
    assert (
        "has no fleet wbe; did you mean web?"
        in invoke("explain", "wbe", "--since", "2h", "--state-dir", story_dir).stderr
    )
    both = invoke("explain", "web", "--since", "2h", "--at", "2026-03-01", "--state-dir", story_dir)
    assert both.exit_code == 2
