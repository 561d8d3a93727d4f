"""`events`: what it shows of a journal to people and programs, and how it follows a daemon that writes."""

import asyncio
import json

import pytest

from autoscaler.ports import Note
from autoscaler.store import SqliteJournal
from tests.cli.conftest import INTERRUPT, Program, strict_json

START_S = 1_772_323_200.0  # 2026-03-01T00:00:00Z


def write(state_dir, *events):
    """Record (seconds, kind, fleet, text)."""

    async def record():
        journal = SqliteJournal(state_dir, inline=True)
        for at_s, kind, fleet, text in events:
            await journal.record_events(START_S + at_s, [Note(kind, fleet, text)])
        await journal.close()

    asyncio.run(record())
    return state_dir


DAY = (
    (0, "vm_terminated", "web", "i-1 was terminated"),
    (3600, "policies_reloaded", "", "2 fleets"),
    (7200, "start_overdue", "api", "i-2 is\nstarting for 300 s"),
    (7200, "vm_terminated", "api", "i-3 was terminated"),
)


@pytest.fixture(name="state_dir")
def _state_dir(tmp_path):
    return write(tmp_path / "state", *DAY)


def lines(result):
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_people_read_time_fleet_kind_and_sentence_newest_last(invoke, state_dir):
    assert lines(invoke("events", "--state-dir", state_dir)) == [
        "2026-03-01T00:00:00Z  web           vm_terminated         i-1 was terminated",
        "2026-03-01T01:00:00Z  -             policies_reloaded     2 fleets",
        "2026-03-01T02:00:00Z  api           start_overdue         i-2 is starting for 300 s",
        "2026-03-01T02:00:00Z  api           vm_terminated         i-3 was terminated",
    ]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (("--fleet", "api"), (3, 4)),
        (("--kind", "vm_terminated"), (1, 4)),
        (("--kind", "vm_terminated", "--kind", "start_overdue", "--fleet", "api"), (3, 4)),
        (("--since", "2026-03-01T01:00:00Z"), (2, 3, 4)),
        (("--until", "2026-03-01T02:00:00Z"), (1, 2)),
        (("--since", START_S, "--until", START_S + 1), (1,)),
        (("--since", "500000h"), (1, 2, 3, 4)),
    ],
)
def test_filters(invoke, state_dir, options, seen):
    found = lines(invoke("events", "--json", "--state-dir", state_dir, *options))
    assert tuple(strict_json(line)["id"] for line in found) == seen


def test_programs_read_one_document_per_line(invoke, state_dir):
    assert [json.loads(line) for line in lines(invoke("events", "--json", "--state-dir", state_dir))][2] == {
        "id": 3,
        "at": "2026-03-01T02:00:00Z",
        "at_s": START_S + 7200,
        "fleet": "api",
        "kind": "start_overdue",
        "text": "i-2 is\nstarting for 300 s",
    }


def test_no_more_than_the_limit_and_it_says_how_many_are_left_out(invoke, state_dir):
    result = invoke("events", "--state-dir", state_dir, "--limit", 1, "--fleet", "api")
    assert result.stdout.splitlines() == [
        "2026-03-01T02:00:00Z  api           vm_terminated         i-3 was terminated"
    ]
    assert result.stderr == "events: 1 earlier ones are left out; a larger --limit shows more\n"


def test_nothing_found_says_where_the_journal_ends(invoke, state_dir):
    result = invoke("events", "--state-dir", state_dir, "--since", "2026-05-01")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "none of these in the journal" in result.stderr
    assert "its last event is of 2026-03-01T02:00:00Z (vm_terminated)" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fleet", "wbe"), "has no fleet wbe; did you mean web?"),
        (("--fleet", "x"), "has no fleet x; known are: api, web"),
        (("--kind", "vm_gnoe"), "has no kind of event vm_gnoe; did you mean vm_gone?"),
        (("--kind", "action_setled"), "did you mean action_settled?"),
    ],
)
def test_a_misspelt_fleet_or_kind_is_not_one_without_events(invoke, state_dir, options, words):
    result = invoke("events", "--state-dir", state_dir, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_a_kind_that_may_come_is_known_before_it_came(invoke, state_dir):
    assert invoke("events", "--state-dir", state_dir, "--kind", "vm_gone").exit_code == 0


def test_no_journal(invoke, tmp_path):
    result = invoke("events", "--state-dir", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "There is no journal at" in result.stderr
    assert (
        "Give the directory that the daemon was started with (--state-dir, AUTOSCALER_STATE_DIR)."
        in result.stderr
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", "yesterday"), "2h (ago)"),
        (("--follow", "--until", "1h"), "leave out one of the two"),
        (("--limit", "0"), "it must be at least 1"),
    ],
)
def test_wrong_usage(invoke, options, words):
    result = invoke("events", *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_following_shows_what_comes_and_ends_with_130(tmp_path):
    state_dir = write(tmp_path / "state", *DAY)
    with Program("events", "--follow", "--fleet", "api", "--state-dir", state_dir, cwd=tmp_path) as program:
        program.hears("i-3 was terminated")
        write(
            state_dir, (8000, "vm_gone", "web", "i-7 is missing"), (8001, "vm_gone", "api", "i-8 is missing")
        )
        program.hears("i-8 is missing")
        for file in state_dir.iterdir():
            file.unlink()
        program.hears("There is no journal at")
        write(state_dir, (9000, "vm_gone", "api", "i-9 is missing"))
        program.hears("i-9 is missing")
        assert program.end(INTERRUPT) == 130
    said = program.output()
    assert "i-7" not in said
    assert [said.count(f"{vm} is missing") for vm in ("i-8", "i-9")] == [1, 1]
    assert "interrupted" in said


def test_a_long_journal_is_not_poured_out_unasked(tmp_path):
    state_dir = write(tmp_path / "state", *(DAY * 50))
    with Program("events", "--state-dir", state_dir, cwd=tmp_path) as program:
        assert program.process.wait(300) == 0
    assert len(program.out.read_text().splitlines()) == 100
    assert "100 earlier ones are left out" in program.output()
