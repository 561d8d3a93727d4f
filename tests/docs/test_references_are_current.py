"""The generated references are current, the same on every machine, and true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autoscaler
from autoscaler.cli.reference import (
    COMMAND,
    documents,
    journal_kinds,
    member_docs,
    outdated,
    reasons_of,
    stages,
)
from autoscaler.cli.reference_fields import NOT_SET, REQUIRED, policy_sections, setting_rows
from autoscaler.cli.reference_journal import KINDS, kinds_in
from autoscaler.config.policy import policy_from
from autoscaler.config.rendering import effective_data
from autoscaler.core.decide import CHAIN
from autoscaler.core.types import Freshness, Reason
from autoscaler.daemon.telemetry import EVENTS, Telemetry
from autoscaler.settings import Settings

ROOT = Path(autoscaler.__file__).parents[1]

EVERYTHING_ON = {
    "fleet": "web",
    "signal": {
        "kind": "throughput",
        "source": "scrape",
        "scrape": {},
        "prometheus": {
            "query": "demand",
            "join": {},
            "basic_auth": {"username": "scaler", "password_file": "password"},
        },
        "push": {},
        "cloudwatch": {"metric": "cpu"},
        "haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"},
        "trace": {},
    },
    "vm": {"capacity": "100/s", "learn_capacity": {}},
    "bounds": {"maximum": 10},
    "reactive": {},
    "forecast": {},
    "provision": {"launch_template": "web", "maximum": 20},
    "balancer": {
        "haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"},
        "target_group": {"arn": "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/1"},
        "command": {"run": ["/usr/local/bin/rotate"]},
    },
    "refill": {},
    "readiness": {"after_start": {"run": ["/usr/local/bin/arrived"]}},
    "warm_pool": {"hibernate": {}},
    "freshness": {"refresh": {}, "exercise": {"command": {"run": ["/usr/local/sbin/patch-vm"]}, "ssm": {}}},
}

# An objective relaxes guards, so that their own defaults show without one.
SIZED_BY_PRICES = EVERYTHING_ON | {"objective": {"shortage_price": "9.6/h"}}


def generator(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "autoscaler.cli.reference", *arguments],
        env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def rows():
    return [row for section in policy_sections() for row in section.rows]


def cells(document, heading):
    """First cells of the tables below a heading, without their code marks."""
    part = document.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    return [line.split("|")[1].strip().strip("`") for line in part.splitlines() if line.startswith("| `")]


@pytest.fixture(scope="module", name="made")
def _made():
    """All of them, by path: every module is read for them, twice."""
    return documents()


def test_the_references_are_current(made):
    assert outdated(ROOT, made) == [], f"run `{COMMAND}` and commit what it writes"


def test_the_check_says_which_and_what_to_run(made, tmp_path):
    for path, text in made.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert outdated(tmp_path, made) == []
    (tmp_path / "policies/REFERENCE.md").unlink()
    (tmp_path / "deploy/autoscaler.toml").write_text("tick_s = 1\n")
    assert outdated(tmp_path, made) == ["policies/REFERENCE.md", "deploy/autoscaler.toml"]


def test_the_check_command_writes_nothing_and_its_exit_code_tells(made):
    before = {path: (ROOT / path).stat().st_mtime_ns for path in made}
    result = generator("--check")
    stale = outdated(ROOT, made)
    assert result.returncode == (1 if stale else 0)
    assert (COMMAND in result.stderr) is bool(stale)
    assert {path: (ROOT / path).stat().st_mtime_ns for path in made} == before


def test_neither_the_environment_nor_the_terminal_shows_in_them(made):
    code = "from autoscaler.cli.reference import documents; print(documents())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=True,
        ).stdout
        for environment in (
            {"PYTHONHASHSEED": "1", "COLUMNS": "40", "AUTOSCALER_TICK_S": "33"},
            {"PYTHONHASHSEED": "2", "COLUMNS": "200", "TERM": "dumb", "FORCE_COLOR": "1"},
        )
    }  # fmt: skip
    assert said == {f"{made}\n"}


def flat(data, path=""):
    """Every value of an effective policy by its path; lists and their items as they are."""
    for key, value in data.items():
        full = f"{path}.{key}".lstrip(".")
        yield full, value
        if isinstance(value, dict):
            yield from flat(value, full)


def test_every_field_of_an_effective_policy_is_there_with_its_default():
    effective = dict(flat(effective_data(policy_from(EVERYTHING_ON))))
    told = {row.path: row.default for row in rows()}
    everything = dict(flat(effective_data(policy_from(SIZED_BY_PRICES))))
    assert {path for path in told if "[]" not in path} == set(everything)
    for path, value in effective.items():
        default = told[path]
        if default in {REQUIRED, "off", "{}", "[]"} or isinstance(value, dict):
            continue
        shown = (
            NOT_SET
            if value in (None, "off")
            else str(value).lower()
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
        assert default == shown, path


def test_fields_of_list_items_are_there():
    paths = {row.path for row in rows()}
    assert {"steps[].change", "schedule[].from", "schedule[].time_zone"} <= paths


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.path)
def test_every_field_says_its_form_and_its_meaning(made, row):
    assert row.form
    assert row.default
    assert len(row.meaning) > 8
    assert f"| `{row.path}` | {row.form} | {row.range} |" in made["policies/REFERENCE.md"]


def test_ranges_and_units_are_those_of_the_models():
    told = {row.path: row for row in rows()}
    assert told["guards.rate_in.vms"].default == "5"
    assert told["guards.rate_out.vms"].default == "50"
    assert told["bounds.minimum"].range == "from 0 to 100000"
    assert (told["forecast.cover"].form, told["forecast.cover"].range) == (
        "a percentage: `30%`",
        "50% to 99%",
    )
    assert told["signal.kind"].form == "`utilisation`, `throughput`, `total`, `concurrency`, `queue`"


def test_settings_have_their_defaults(made):
    told = {row.path: row for row in setting_rows()}
    assert list(told) == list(Settings.model_fields)
    assert (told["tick_s"].default, told["tick_s"].range) == ("10", "from 1 to 300")
    assert told["aws_profile"].default == NOT_SET
    assert cells(made["deploy/REFERENCE.md"], "Settings") == list(Settings.model_fields)


def test_metrics_are_those_that_are_served(made):
    served = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in Telemetry().registry.collect()
    }
    assert set(cells(made["deploy/REFERENCE.md"], "Metrics")) == served


def test_log_lines_are_those_of_the_table(made):
    assert cells(made["deploy/REFERENCE.md"], "Log lines") == sorted(EVENTS)


def test_every_kind_of_journal_event_has_a_meaning():
    kinds = journal_kinds()
    assert len(kinds) > 10
    assert [kind for kind, meaning in kinds.items() if not meaning] == [], (
        "add a sentence to reference_journal"
    )
    assert set(KINDS) - set(kinds) == set(), "no code makes these any more"


def test_kinds_are_read_from_calls(tmp_path):
    (tmp_path / "some.py").write_text(
        "self._note('a', text)\nNote('b' if x else 'c', fleet, text)\nlog.info('d')\n"
        "recorder.event('e', text, 0.0)\nself._note(f'{verb}_late', text)\n"
    )
    assert kinds_in(tmp_path) == {"a", "b", "c", "e", "start_late", "stop_late", "provision_late"}


def test_stages_are_those_that_decide():
    assert list(stages().items()) == list(CHAIN.items())


def test_every_reason_has_its_stage(made):
    found = [reason for function in CHAIN.values() for reason in reasons_of(function)]
    assert set(found) == set(Reason) - {Reason.NONE}
    assert set(cells(made["deploy/REFERENCE.md"], "Reasons")) == {reason.name.lower() for reason in found}


def test_meanings_are_the_sentences_below_the_members():
    assert member_docs(Freshness)["ABSENT"] == "Nothing arrived."
    assert "FRESH" not in member_docs(Freshness)


def test_tables_are_whole(made):
    """Every line of a table has as many cells as its head, so that no cell breaks it."""
    for name, text in made.items():
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, f"{name}: {table.splitlines()[0]}"
