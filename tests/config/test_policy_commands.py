"""`validate`, `policy show` and `policy schema` as people and programs use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from autoscaler.cli.policy import policy_schema, policy_show, validate
from autoscaler.config.loading import require_policy

SHIPPED = Path(__file__).parents[2] / "policies"
SHADOW = "fleet: api\nsignal: {kind: total, source: trace}\nvm: {capacity: 1/s}\nbounds: {maximum: 5}\nreactive: {}\n"


@pytest.fixture(name="run")
def _run():
    app = typer.Typer()
    app.command("validate")(validate)
    app.command("show")(policy_show)
    app.command("schema")(policy_schema)

    def run(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return run


@pytest.fixture(name="folder")
def _folder(tmp_path):
    for name in ("defaults.yaml", "web.yaml"):
        (tmp_path / name).write_text((SHIPPED / name).read_text())
    (tmp_path / "api.yaml").write_text(SHADOW)
    return tmp_path


def test_validate_says_who_acts(run, folder):
    result = run("validate", folder)
    assert (result.exit_code, result.output) == (0, "2 policies are valid, 1 acts, 1 runs in shadow\n")


def test_validate_prints_one_line_per_problem_and_fails(run, folder):
    (folder / "api.yaml").write_text(SHADOW + "act: maybe\nguards: {stabilisation: 1s}\n")
    (folder / "bad.yaml").write_text("fleet: [")
    result = run("validate", folder)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith(
        f"{folder / 'api.yaml'}:6:6: error: `act`: `maybe` is neither true nor false; write `true` or `false`"
    )
    assert lines[1].startswith(f"{folder / 'bad.yaml'}:1:9: error: not YAML")
    assert lines[-1] == "1 policy is valid, 1 acts, 0 run in shadow, 2 errors in 2 files"
    assert "Traceback" not in result.output


def test_the_daemons_settings_say_where_policies_are_and_how_long_a_tick_is(run, folder, monkeypatch):
    monkeypatch.setenv("AUTOSCALER_POLICIES", str(folder))
    assert run("validate").output == "2 policies are valid, 1 acts, 1 runs in shadow\n"
    assert "from " + str(folder / "web.yaml") in run("show", "web").output
    (folder / "api.yaml").write_text(SHADOW + "guards: {stabilisation: 30s}\n")
    assert "warning" not in run("validate").output
    monkeypatch.setenv("AUTOSCALER_TICK_S", "60")
    assert "warning: " in run("validate").output
    assert "warning" not in run("validate", folder, "--tick", 10).output
    monkeypatch.setenv("AUTOSCALER_TICK_S", "never")
    wrong = run("validate", folder)
    assert wrong.exit_code == 1
    assert "tick_s" in wrong.output
    assert "Traceback" not in wrong.output


PLACES = '[providers.far]\naws_region = "eu-west-3"\n[providers.near]\naws_region = "us-east-1"\n'


def test_a_policy_that_is_in_no_place_of_the_settings_is_told_where_to_write_one(
    run, folder, tmp_path, monkeypatch
):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    web, api = folder / "web.yaml", folder / "api.yaml"
    api.write_text(f"{SHADOW}provider: fra\n")
    # Nobody has said which places there are.
    assert run("validate", folder).exit_code == 0
    settings = Path("autoscaler.toml")
    settings.write_text(PLACES)
    lines = run("validate", folder).output.splitlines()
    at = next(n for n, line in enumerate(web.read_text().splitlines(), 1) if line.startswith("fleet:"))
    assert lines[:2] == [
        f"{api}:6:1: error: `provider` is fra, which is not in the settings; did you mean far? They have far, near",
        f"{web}:{at}:1: error: the settings have several providers; write `provider: NAME` in its policy, one of far, near",
    ]
    assert lines[2] == "0 policies are valid, 2 errors in 2 files"
    api.write_text(f"{SHADOW}provider: far\n")
    for arguments in ([api], [api, "--tick", 20], [api, "--json"]):
        assert run("validate", *arguments).exit_code == 0
    web.write_text(web.read_text() + "provider: paris\n")
    assert (
        "`provider` is paris, which is not in the settings; they have far, near"
        in run("validate", web).output
    )
    (folder / "defaults.yaml").write_text((folder / "defaults.yaml").read_text() + "\nprovider: nowhere\n")
    web.write_text((SHIPPED / "web.yaml").read_text())
    (told,) = json.loads(run("validate", web, "--json").stdout)["errors"]
    assert Path(told["file"]).name == "defaults.yaml"
    settings.write_text('aws_region = "us-east-1"\n')
    assert "write a table [providers.far], or leave `provider` out" in run("validate", api).output
    settings.write_text("typo = 1\n")
    assert run("validate", api).exit_code == 1
    assert run("validate", api, "--tick", 10).exit_code == 0


def test_a_folder_that_is_not_there_is_called_a_folder(run, tmp_path):
    assert (
        "there is no such folder; change to its folder, or name one with one YAML file per fleet: `policies` in"
        in (run("show", "web", "--policies", tmp_path / "none").output)
    )
    assert "the file cannot be read" in run("show", tmp_path / "none.yaml").output


def test_warnings_do_not_fail(run, folder):
    (folder / "api.yaml").write_text(SHADOW + "guards: {stabilisation: 1s}\n")
    result = run("validate", folder)
    assert result.exit_code == 0
    assert ": warning: " in result.output
    assert result.output.endswith("2 policies are valid, 1 acts, 1 runs in shadow, 1 warning\n")


def test_validate_one_file_as_json(run, folder):
    (folder / "api.yaml").write_text(SHADOW + "zone: a\n")
    result = run("validate", folder / "api.yaml", "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert (report["valid"], report["policies"]) == (False, [])
    (error,) = report["errors"]
    assert (error["line"], error["column"], error["severity"], error["message"]) == (
        6,
        1,
        "error",
        "unknown key `zone`",
    )


@pytest.mark.parametrize("args", [("validate", "/no/such/folder"), ("validate", "--nope"), ("show",)])
def test_wrong_usage(run, args):
    assert run(*args).exit_code == 2


def test_the_length_of_a_tick_matters(run, folder):
    assert "5 warnings" not in run("validate", folder).output
    assert "2 warnings" in run("validate", folder / "web.yaml", "--tick", "3600").output


def test_show_a_fleet(run, folder, tmp_path):
    result = run("show", "web", "--policies", folder)
    assert result.exit_code == 0
    assert (
        f"# The effective policy of fleet web, from {folder / 'web.yaml'} and its defaults." in result.output
    )
    copy = tmp_path / "copy" / "web.yaml"
    copy.parent.mkdir()
    copy.write_text(result.output)
    assert require_policy(copy) == require_policy(folder / "web.yaml")


def test_show_a_file_as_json(run, folder):
    data = json.loads(run("show", folder / "api.yaml", "--json").output)
    assert (data["fleet"], data["act"], data["forecast"], data["guards"]["cooldown_in"]) == (
        "api",
        False,
        "off",
        "2m",
    )


def test_show_an_unknown_fleet(run, folder):
    result = run("show", "wbe", "--policies", folder)
    assert result.exit_code == 1
    assert "has no valid policy of a fleet wbe; did you mean web?" in result.output


def test_show_an_invalid_policy_says_why(run, folder):
    (folder / "api.yaml").write_text(SHADOW + "zone: a\n")
    result = run("show", "api", "--policies", folder)
    assert result.exit_code == 1
    assert "unknown key `zone`" in result.output


def test_the_schema_is_json(run):
    assert json.loads(run("schema").output)["title"] == "Autoscaler policy"
