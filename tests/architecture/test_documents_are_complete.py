"""Everything that an operator can set, request or see is documented where they would look for it."""

import re
from pathlib import Path

import pytest
import typer

import autoscaler
from autoscaler.cli.main import app
from autoscaler.config.policy import Policy
from autoscaler.config.section import Section, yaml_key
from autoscaler.core.types import Reason, Stage
from autoscaler.daemon.decision_sentences import phrase
from autoscaler.daemon.telemetry import EVENTS
from autoscaler.settings import Settings
from tests.architecture.commands import commands, options

ROOT = Path(autoscaler.__file__).parents[1]


def text(*patterns):
    files = [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]
    assert files, patterns
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def missing(names, document):
    """Those that the document does not name as a word of its own, in one line."""
    return ", ".join(
        sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", document))
    )


def policy_keys(model=Policy):
    """Every key of a policy, in every section."""
    for name, field in model.model_fields.items():
        yield field.alias or yaml_key(name)
        for part in sections_in(field.annotation):
            yield from policy_keys(part)


def sections_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in sections_in(inner)]


def test_the_check_finds_what_is_missing():
    assert missing(["tick", "tick_s", "act"], "`tick_s` and action") == "act, tick"


def test_the_walk_over_policies_reaches_every_section():
    keys = set(policy_keys())
    assert {"fleet", "stabilisation", "per", "scale_to_vms", "from", "change", "launch_template"} <= keys


def test_every_command_is_in_the_readme():
    assert missing((f"autoscaler {name}" for name in commands(app)), text("README.md")) == ""


def test_every_policy_field_is_in_the_example_policies_or_a_guide():
    assert missing(set(policy_keys()), text("README.md", "policies/README.md", "policies/*.yaml")) == ""


REFERENCE = "deploy/REFERENCE.md"


def test_every_policy_field_is_in_its_reference():
    assert missing(set(policy_keys()), text("policies/REFERENCE.md")) == ""


def test_every_setting_command_event_and_reason_is_in_the_reference():
    told = text(REFERENCE)
    assert missing(Settings.model_fields, told) == ""
    assert missing((f"autoscaler {name}" for name in commands(app)), told) == ""
    assert missing(EVENTS, told) == ""
    assert missing((reason.name.lower() for reason in Reason if reason is not Reason.NONE), told) == ""


@pytest.mark.parametrize("name", sorted(commands(app)))
def test_every_option_is_in_the_reference(name):
    part = text(REFERENCE).partition(f"### `autoscaler {name}`\n")[2].partition("\n##")[0]
    names = [opt for option in options(commands(app)[name]) for opt in option.opts if opt.startswith("--")]
    assert missing(names, part) == ""


def test_what_is_installed_is_described():
    """Every file in deploy/ is named where an operator reads on."""
    files = [path.name for path in (ROOT / "deploy").iterdir() if path.suffix != ".md"]
    assert missing(files, text("README.md", "deploy/README.md")) == ""


DOCUMENTS = sorted(
    path for folder in (".", "deploy", "policies", "simulations") for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    """Files that exist, and headings that are in them."""
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, heading = link.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), f"{document.name}: {link}"
        if heading:
            assert heading in anchors(there.read_text(encoding="utf-8")), f"{document.name}: {link}"


def anchors(markdown):
    heads = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", sorted(commands(app)))
def test_every_command_and_option_says_what_it_is_for(name):
    command = commands(app)[name]
    assert command.help, name
    assert len(command.help) > 20, name
    for option in options(command):
        told = option.help or ""
        assert len(told) > 8, f"{name} {option.name}: {told!r}"
        assert told.endswith("."), f"{name} {option.name}: {told!r}"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_every_reason_has_words_and_a_meaning(reason, a_tick):
    words = phrase(reason, 3, a_tick)
    assert len(words) > 10
    assert "nan" not in words


def test_stages_and_reasons_are_closed_and_dense():
    assert [stage.value for stage in Stage] == list(range(len(Stage)))
    assert [reason.value for reason in Reason] == list(range(len(Reason)))


def test_the_program_never_prints_a_traceback_by_itself():
    assert isinstance(app, typer.Typer)
    assert app.pretty_exceptions_enable is False
