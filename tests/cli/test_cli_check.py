"""The `check` command: guards in words, and exit codes."""

import json
from pathlib import Path

from typer.testing import CliRunner

from autoscaler.cli.main import app

WEB = Path(__file__).parents[2] / "policies" / "web.yaml"


def check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_a_good_policy_holds_on_generated_traffic():
    done = check(WEB, "--only", "silence", "--only", "conservation")
    assert done.exit_code == 0, done.output
    assert "holds      silence" in done.output
    assert "All guards hold" in done.output


def test_traffic_that_shows_nothing_is_not_called_good(tmp_path):
    flat = tmp_path / "flat.csv"
    rows = "".join(f"{1_772_409_600 + 60 * at},10\n" for at in range(300))
    flat.write_text("timestamp,value\n" + rows, encoding="utf-8")
    done = check(WEB, flat, "--kind", "gauge", "--only", "silence", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert document["guards"] == [
        {"guard": "silence", "state": "not shown", "said": "nothing is ever stopped on this traffic"}
    ]


def test_an_unknown_guard_names_the_nearest():
    done = check(WEB, "--only", "silense")
    assert done.exit_code == 1
    assert "check: the list of guards has no guard silense; did you mean silence?" in done.output


def test_a_typo_in_the_policy_is_told_with_its_place(tmp_path):
    wrong = tmp_path / "web.yaml"
    wrong.write_text(WEB.read_text(encoding="utf-8").replace("headroom", "headrom"), encoding="utf-8")
    (tmp_path / "defaults.yaml").write_bytes((WEB.parent / "defaults.yaml").read_bytes())
    done = check(wrong)
    assert done.exit_code == 1
    assert "did you mean `headroom`" in done.output
