"""The `scenario` command: its output and exit codes."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from autoscaler.cli.main import app

SHIPPED = Path(__file__).parents[2] / "simulations"


def short(tmp_path, bound):
    path = tmp_path / "short.yaml"
    path.write_text(
        f"story: Ten minutes.\npolicy: {SHIPPED.parent / 'policies' / 'web.yaml'}\nlength: 10m\n"
        "fleet: {running: 3, stopped: 3}\n"
        "traffic: {start: 2026-03-02T00:00:00Z, length: 20m, parts: [{level: {work: 240}}]}\n"
        f"expect:\n  - {{figure: serving_least, at_least: {bound}, why: somebody serves}}\n",
        encoding="utf-8",
    )
    return path


def test_what_holds_ends_with_zero(tmp_path):
    done = CliRunner().invoke(
        app, ["scenario", "run", str(short(tmp_path, 1)), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0
    assert "short: Ten minutes." in done.output
    assert "holds: fewest VMs in service 3 (at least 1): somebody serves" in done.output
    assert "All expectations hold" in done.output
    assert (tmp_path / "out" / "short.csv").read_text(encoding="utf-8").startswith("timestamp,demand")


def test_what_is_broken_says_when_and_where_to_look(tmp_path):
    path = short(tmp_path, 5)
    path.write_text(path.read_text(encoding="utf-8").replace("work: 240", "work: 900"), encoding="utf-8")
    done = CliRunner().invoke(app, ["scenario", "run", str(path)])
    assert done.exit_code == 1
    assert "BROKEN: fewest VMs in service 3 (at least 5): 3 is less than 5" in done.output
    assert re.search(r"shortages: \d+ \w+ at \d+\w+ \(Mon 02 Mar 2026 00:0\d", done.output), done.output
    assert "--out DIR writes the timeline" in done.output


def test_what_is_broken_ends_with_one(tmp_path):
    done = CliRunner().invoke(app, ["scenario", "run", str(short(tmp_path, 5)), "--json"])
    assert done.exit_code == 1
    (one,) = json.loads(done.stdout)
    assert one["scenario"] == "short"
    assert not one["holds"]
    assert one["expectations"][0]["value"] == 3.0


def test_a_folder_without_scenarios_is_one_sentence(tmp_path):
    done = CliRunner().invoke(app, ["scenario", "run", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.strip() == f"scenario: {tmp_path}: there is no scenario (*.yaml) in this folder"
