"""JSON output of the commands: the keys that the reference promises, and nothing but JSON on standard output."""

import asyncio
import json

import pytest

from autoscaler.cli.json_keys import JSON_OF
from autoscaler.cli.main import app
from autoscaler.ports import Note, TickRecord
from autoscaler.store import SqliteJournal
from tests.architecture.commands import commands
from tests.cli.conftest import strict_json
from tests.contracts.test_journal_contract import fleet_tick

AT_S = 1_772_323_200.0
POLICY = (
    "fleet: shop\nsignal: {kind: total, source: trace, trace: {}}\nvm: {capacity: 7/s}\n"
    "bounds: {minimum: 0, maximum: 5}\nreactive: {headroom: 50%}\n"
)


def printed(text, form):
    """The objects that were printed."""
    if form == "lines":
        return [json.loads(line) for line in text.splitlines()]
    found = strict_json(text)
    return found if form == "list" else [found]


def test_every_command_that_prints_json_says_what():
    assert set(JSON_OF) == {
        name
        for name, command in commands(app).items()
        if any("--json" in parameter.opts for parameter in command.params)
    }


def test_every_object_says_which_version_of_its_form_it_has():
    """Lists and lines have no place for it; `version` tells of others, and `policy show` prints a policy."""
    without = {name for name, form in JSON_OF.items() if form.form == "object" and "version" not in form.keys}
    assert without == {"policy show", "version"}


@pytest.fixture(name="here")
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shop.yaml").write_text(POLICY)
    rows = "".join(f"{AT_S + 60 * at:.0f},{300 + at % 60}\n" for at in range(120))
    (tmp_path / "day.csv").write_text("timestamp,value\n" + rows)
    (tmp_path / "manifest.csv").write_text("file,kind,interval_s\nday.csv,count,60\n")

    async def write():
        journal = SqliteJournal(tmp_path / "state", inline=True)
        for number in range(3):
            await journal.record_tick(
                TickRecord(number, AT_S + 10 * number, (fleet_tick("shop", freshness=0),)), ()
            )
        await journal.record_events(AT_S, [Note("paused", "shop", "why")])
        await journal.close()

    asyncio.run(write())
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "benchmark . --vms 8 --peers-only --processes 1",
        "compare policies/shop.yaml policies/shop.yaml day.csv",
        "doctor --policies none",
        "events",
        "explain shop",
        "export shop time.csv --what timeline",
        "plan policies/shop.yaml --against policies/shop.yaml --trace day.csv",
        "replay policies/shop.yaml day.csv",
        "recommend policies/shop.yaml day.csv",
        "sweep policies/shop.yaml day.csv --vary bounds.maximum=4,5",
        "trace cut day.csv part.csv --from 2026-03-01T00:10Z",
        "trace import day.csv new.csv",
        "trace info day.csv",
        "trace merge day.csv day.csv both.csv",
        "trace synth made.csv --length 1h",
        "validate",
        "version",
    ],
)
def test_the_keys_are_those_that_the_reference_names(here, invoke, line):
    words = line.split()
    told = invoke(*words, "--json")
    name = " ".join(words[:2]) if words[0] == "trace" else words[0]
    assert told.stdout, told.stderr
    objects = printed(told.stdout, JSON_OF[name].form)
    assert objects
    for each in objects:
        assert sorted(each) == sorted(JSON_OF[name].keys)


def test_what_cannot_be_done_prints_no_half_of_a_document(here, invoke):
    for line in (
        "explain nope",
        "replay policies/shop.yaml none.csv",
        "trace info none.csv",
        "benchmark none",
    ):
        told = invoke(*line.split(), "--json")
        assert (told.exit_code, told.stdout) == (1, ""), line
        assert told.stderr
