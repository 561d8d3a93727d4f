"""What every command shares: quick help, exit codes, and errors without tracebacks."""

import json
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from autoscaler.cli.commands import COMMANDS, GROUPS
from autoscaler.cli.examples import EXAMPLES
from autoscaler.cli.main import app
from autoscaler.cli.output import moment, seconds
from tests.architecture.commands import commands
from tests.cli.conftest import call, installed, strict_json

HEAVY = (
    "numpy",
    "pydantic",
    "aiohttp",
    "aiobotocore",
    "botocore",
    "structlog",
    "prometheus_client",
    "ruamel",
    "asyncio",
    "rich.console",
)


@pytest.mark.parametrize("name", ["", *sorted(commands(app))])
def test_help_of_every_command(invoke, name):
    for option in ("--help", "-h"):
        result = invoke(*name.split(), option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Usage:" in result.stdout


@pytest.mark.parametrize("name", sorted(commands(app)))
def test_the_examples_of_every_command_are_understood_by_it(name):
    assert EXAMPLES[name], "each command shows how it is typed"
    for example in EXAMPLES[name]:
        assert example.startswith(name)
        assert len(f"autoscaler {example}") <= 78, "a terminal of 80 columns does not break it"
        words = shlex.split(example.partition(" > ")[0].removeprefix(name))
        commands(app)[name].make_context(name, words)


def test_examples_are_of_commands_that_there_are():
    assert set(EXAMPLES) == set(commands(app))


def told_by(code):
    """Lines that a Python process prints."""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    return found.stdout.splitlines()


def test_no_command_imports_anything_heavy_before_it_runs():
    code = f"""
import sys
from importlib import import_module
from autoscaler.cli.commands import COMMANDS
for place, _ in COMMANDS.values():
    import_module("autoscaler.cli." + place.partition(":")[0])
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert told_by(code) == ["[]"]


def test_the_lines_in_the_help_of_groups_are_how_the_help_of_each_command_begins():
    begins = {name: command.help.partition("\n\n")[0] for name, command in commands(app).items()}
    assert {name: line for name, (_, line) in COMMANDS.items()} == begins


def test_each_group_of_commands_has_a_line_and_each_line_a_group():
    assert set(GROUPS) == {name.partition(" ")[0] for name in COMMANDS if " " in name}


def test_the_installed_command_names_its_commands_and_exit_codes(tmp_path):
    result = installed("--help", cwd=tmp_path)
    assert result.returncode == 0
    for name in ("run", "demo", "cloud", "validate", "policy", "status", "explain", "version", "130"):
        assert name in result.stdout, name


def test_nothing_asked_shows_the_help(invoke):
    result = invoke()
    assert result.exit_code == 2
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("rnu",),
        ("run", "--for", "soon"),
        ("run", "--http-port", "70000"),
        ("run", "--log-format", "xml"),
        ("demo", "--speed", "0"),
        ("demo", "--kind", "sum"),
        ("demo", "--begin", "noon"),
        ("demo", "--for", "0s"),
        ("explain",),
        ("explain", "web", "--at", "nan"),
        ("explain", "web", "--at", "1e30"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_says_what_is_wrong(invoke, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Usage:" in result.stderr


def test_version_for_people_and_for_programs(invoke):
    found = strict_json(invoke("version", "--json").stdout)
    assert set(found) == {"autoscaler", "python", "numpy", "aiobotocore", "botocore"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert invoke("version").stdout.splitlines()[0] == f"autoscaler {found['autoscaler']}"


def test_only_the_command_that_is_called_is_imported(invoke):
    """Neither help nor completion nor a mistyped name imports one. Garbage is looked for rarely meanwhile."""
    number = strict_json(invoke("version", "--json").stdout)["autoscaler"]
    code = f"""
import contextlib, gc, io, os, sys
from autoscaler.cli.main import app, main

def say(*arguments, **environment):
    os.environ.update(environment)
    sys.argv = ["autoscaler", *arguments]
    with contextlib.suppress(SystemExit):
        main()

before = gc.get_stats()[1]["collections"]
say("--version")
print([name for name in {HEAVY!r} if name in sys.modules], gc.get_stats()[1]["collections"] - before)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    say("--help")
    say("pool", "--help")
    say("pool", "lst")
    say(_AUTOSCALER_COMPLETE="complete_bash", COMP_WORDS="autoscaler pool q", COMP_CWORD="2")
modules = lambda: {{name.removeprefix("autoscaler.cli.") for name in sys.modules if name.startswith("autoscaler.cli.")}}
print(sorted(modules()))
del os.environ["_AUTOSCALER_COMPLETE"]
with contextlib.redirect_stdout(io.StringIO()):
    app(["trace", "info", "--help"], standalone_mode=False)
print("trace" in modules(), "run" in modules())
"""
    assert told_by(code) == [
        f"autoscaler {number}",
        "[] 0",
        "['commands', 'examples', 'main', 'pipes']",
        "True False",
    ]
    module = [sys.executable, "-m", "autoscaler", "--version"]
    found = subprocess.run(module, capture_output=True, text=True, timeout=300, check=True)
    assert found.stdout.splitlines() == [f"autoscaler {number}"]
    assert invoke("--version", "status").exit_code == 0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(("statsu",), "'status'"), (("pool", "quarentine"), "'quarantine'"), (("trace", "imprt"), "'import'")],
)
def test_a_mistyped_command_is_answered_with_the_likely_one(invoke, typed, meant):
    told = invoke(*typed)
    assert (told.exit_code, f"Did you mean {meant}" in told.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("autoscaler ", list(dict.fromkeys(full.partition(" ")[0] for full in COMMANDS))),
        ("autoscaler re", ["resume", "replay", "recommend", "report"]),
        ("autoscaler pool ", ["list", "exercise", "refresh", "evict", "quarantine", "release", "adopt", "disown"]),
        ("autoscaler run --log-format c", ["console"]),
    ],
)  # fmt: skip
def test_shells_complete_every_command(invoke, monkeypatch, words, offered):
    monkeypatch.setenv("_AUTOSCALER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert invoke().stdout.split() == offered


def test_durations_and_moments():
    assert (seconds("40s"), seconds("1h30m"), seconds(5)) == (40.0, 5400.0, 5.0)
    assert moment("1970-01-02T00:00:00Z") == moment("1970-01-02") == moment(86_400) == 86_400.0
    assert moment("1998-06-25T18:58:00+02:00") == moment("1998-06-25T16:58Z")
    for wrong in ("", "-1", "inf", "yesterday"):
        with pytest.raises(typer.BadParameter):
            moment(wrong)


def test_status_without_a_daemon_is_one_sentence(tmp_path, free_port):
    result = call("status", cwd=tmp_path, http_host="0.0.0.0", http_port=free_port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"status: no daemon answers at http://127.0.0.1:{free_port} (Connection refused); "
        "start it with `autoscaler run`, or give its --url\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:9412", "http://", "http://127.0.0.1:x", "http://[::1"])
def test_status_of_what_is_no_address_is_one_sentence(url, invoke):
    result = invoke("status", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("status: ")
    assert url in result.stderr


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 200 OK\r\n\r\n{}", b"HTTP/1.0 404 No\r\n\r\n", b"SSH-2.0\r\n\r\n"]
)
async def test_status_of_another_program_is_one_sentence(tmp_path, answer):
    import asyncio

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as there:
        url = f"http://127.0.0.1:{there.sockets[0].getsockname()[1]}"
        result = await asyncio.to_thread(call, "status", "--url", url, cwd=tmp_path)
    assert result.returncode == 1
    assert (
        result.stderr
        == f"status: what answers at {url} is not an autoscaler of this version; give the --url of yours\n"
    )


def test_explain_without_a_journal_is_one_sentence(invoke):
    result = invoke("explain", "web")
    assert result.exit_code == 1
    assert result.stderr.startswith("explain: There is no journal at state.")
    assert result.stderr.count("\n") == 1


def test_a_wrong_setting_is_said_by_every_command_that_reads_settings(tmp_path, invoke):
    (tmp_path / "autoscaler.toml").write_text("tick_s = 0\n")
    for arguments in (("run",), ("status",), ("explain", "web")):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "setting tick_s: " in result.stderr


def test_the_schema_of_policies_is_json(invoke):
    assert json.loads(invoke("policy", "schema").stdout)["type"] == "object"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("pause", "X", "--reason", "x", "--all-fleets", "--for", "1h"),
            "'X' is not one of 'start', 'stop',",
        ),
        (("run", "--log-format", "xml"), "'xml' is not one of 'console', 'json'"),
    ],
)
def test_a_word_that_is_none_of_the_choices_is_told_without_the_checkers_own_words(invoke, arguments, said):
    result = invoke(*arguments)
    words = " ".join(result.stderr.replace("│", " ").split())
    assert (result.exit_code, said in words, "Value error" in words) == (2, True, False)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seed", "x", "it is not a whole number"),
        ("--seed", "-1", "it must be at least 0"),
        ("--vms", "0", "it must be at least 1"),
        ("--vms", "20001", "it must be at most 20000"),
    ],
)
def test_a_number_that_is_none_is_told_in_plain_words(option, value, said):
    told = CliRunner().invoke(app, ["replay", "a.yaml", "b.csv", option, value], env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert f"Invalid value for '{option}': {said}" in told.output


RUN_ON = {"cloud", "demo", "run", "benchmark --generated", "trace record"}
"""Examples that would not end here, or need what is not here."""


@pytest.mark.parametrize(
    "line", [line for lines in EXAMPLES.values() for line in lines if not line.startswith(tuple(RUN_ON))]
)
def test_examples_are_right_usage(invoke, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    told = invoke(
        *(word for word in shlex.split(line.partition(" > ")[0]) if word not in ("--watch", "--follow"))
    )
    # What they name is not here, which is another thing than wrong usage.
    assert told.exit_code != 2 or "there is no file or folder" in told.output, told.output
