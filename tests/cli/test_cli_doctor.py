"""`doctor` as a person runs it, against the embedded EC2, with sound and with broken surroundings."""

import asyncio
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoscaler.cli.doctor import full_journal, print_findings, room
from autoscaler.cli.main import app
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.ports import Note, TickRecord
from autoscaler.ports.findings import Finding, Level
from autoscaler.settings import Settings
from autoscaler.store import SqliteJournal
from tests.real import require_real
from tests.store.test_journal_on_disk import fleet_tick

POLICY = """
fleet: {fleet}
signal: {{kind: total, source: scrape, scrape: {{url: "http://127.0.0.1:9/metrics", metric: requests}}}}
vm: {{capacity: 10/s}}
bounds: {{maximum: 4}}
reactive: {{}}
"""


@pytest.fixture(name="examined")
def _examined(tmp_path, monkeypatch):
    """Runs the command; returns its exit code, its findings by check, and the text that people see where it is wanted."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "web.yaml").write_text(POLICY.format(fleet="web"), encoding="utf-8")

    def run(*more, url, shown=False):
        base = ["doctor", "--policies", str(folder), "--state-dir", str(tmp_path / "state")]
        base += ["--region", "eu-central-1", "--endpoint-url", url, *more]
        told = CliRunner().invoke(app, [*base, "--json"])
        text = ""
        if shown:
            seen = CliRunner().invoke(app, base, env={"COLUMNS": "200"})
            assert seen.exit_code == told.exit_code
            text = seen.stdout
        return told.exit_code, json.loads(told.stdout), text

    return run


@pytest.fixture(name="cloud", scope="module")
def _cloud():
    setup = CloudSetup(fleets=(FleetSetup("web", vms=3),))
    with asyncio.Runner() as runner:
        process = EndpointProcess(setup)
        runner.run(process.__aenter__())
        yield process.url
        runner.run(process.__aexit__(None, None, None))


def test_a_metric_that_cannot_be_read_is_the_problem_that_is_named(examined, cloud):
    code, findings, shown = examined(url=cloud, shown=True)
    problems = [each for each in findings if each["level"] == "problem"]
    assert code == 1
    assert [(each["check"], each["fleet"]) for each in problems] == [("metrics", "web")]
    assert "127.0.0.1:9" in problems[0]["text"]
    assert "problem" in shown
    assert "questions" in shown


def test_an_account_that_cannot_be_reached_is_told_without_a_traceback(examined):
    code, findings, _ = examined(url="http://127.0.0.1:9", shown=True)
    assert code == 1
    assert "reach" in {each["check"] for each in findings if each["level"] == "problem"}


def test_programs_and_balancers_of_a_policy_are_looked_at(examined, cloud, tmp_path):
    more = f"""
balancer: {{haproxy: {{sockets: ["{tmp_path}/none.sock"], backend: web}}}}
freshness: {{exercise: {{command: {{run: ["{tmp_path}/patch"]}}}}}}
"""
    path = tmp_path / "policies" / "web.yaml"
    path.write_text(POLICY.format(fleet="web") + more, encoding="utf-8")
    _, findings, _ = examined(url=cloud)
    found = {each["check"]: each for each in findings if each["level"] == "problem"}
    assert "none.sock cannot be reached" in found["balancer"]["text"]
    assert f"{tmp_path}/patch" in found["program"]["text"]
    program = tmp_path / "patch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    _, findings, _ = examined("--all", url=cloud)
    assert [each["level"] for each in findings if each["check"] == "program"] == ["ok"]


class Shows(BaseHTTPRequestHandler):
    """An exporter that shows what it is told to."""

    text = ""

    def do_GET(self):
        """Answer."""
        body = type(self).text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(name="exporter")
def _exporter():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shows)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize(
    ("value", "level", "said"),
    [
        ("NaN", "problem", "0 of 1 readings came and count; the reading is impossible: not a number"),
        ("-3", "problem", "the reading is impossible: negative"),
        ("3 1000", "problem", "the reading is older than 60 s"),
        ("3", "ok", "1 of 1 readings came and count"),
    ],
)
def test_readings_that_come_and_do_not_count_are_a_problem(
    examined, cloud, exporter, tmp_path, value, level, said
):
    Shows.text = f"requests {value}\n"
    path = tmp_path / "policies" / "web.yaml"
    text = POLICY.format(fleet="web").replace("http://127.0.0.1:9/metrics", exporter)
    path.write_text(text.replace("metric: requests", "metric: requests, type: gauge"), encoding="utf-8")
    _, findings, _ = examined("--all", url=cloud, shown=level == "ok")
    (found,) = [each for each in findings if each["check"] == "metrics"]
    assert found["level"] == level
    assert said in found["text"]


def test_a_recording_whose_first_value_is_not_known_yet_is_no_problem(examined, cloud, tmp_path):
    folder = tmp_path / "policies"
    (folder / "day.csv").write_text("timestamp,value\n0,5\n60,6\n")
    signal = "{kind: total, source: trace, trace: {file: day.csv, kind: count, loop: true}}"
    text = POLICY.format(fleet="web")
    (folder / "web.yaml").write_text(f"fleet: web\nsignal: {signal}\n" + text.split("\n", 3)[3])
    _, findings, _ = examined("--all", url=cloud)
    (found,) = [each for each in findings if each["check"] == "metrics"]
    assert (found["level"], "first count is known at" in found["text"]) == ("unknown", True)


@pytest.mark.parametrize(
    ("free", "level", "said"),
    [
        (0, "problem", "0 MB are free for the journal in /var/lib/autoscaler"),
        (10_000_000, "problem", "10 MB are free"),
        (500_000_000, "warning", "500 MB are free"),
        (20_000_000_000, "ok", "20.0 GB are free"),
    ],
)
def test_a_disk_where_nothing_can_be_written_is_a_problem_and_little_room_is_to_be_looked_at(
    free, level, said
):
    found = room(Path("/var/lib/autoscaler"), free)
    assert (str(found.level), found.text.startswith(said)) == (level, True)
    assert bool(found.fix) is (level != "ok")


async def test_a_journal_that_is_full_before_its_time_is_told(tmp_path):
    journal = SqliteJournal(tmp_path, inline=True)
    await journal.record_tick(TickRecord(1, 1e9, (fleet_tick(),)), ())
    await journal.record_events(1e9, [Note("hint", "web", "x" * 2_000_000)])
    await journal.close()

    def found(days, **limits):
        return full_journal(Settings(state_dir=tmp_path, **limits), 1e9 + days * 86_400.0)

    (finding,) = found(18, retention_mb=2.1)
    assert finding.level is Level.WARNING
    assert finding.text == "the journal is full (2.1 MB) and goes back 18.0 days, not 30 (retention_days)"
    assert found(18) == found(29, retention_mb=2.1) == found(18, retention_mb=2.1, retention_days=18) == []
    assert full_journal(Settings(state_dir=tmp_path / "none"), 1e9) == []


def test_a_state_directory_that_is_not_there_is_named(examined, tmp_path):
    _, findings, _ = examined(url="http://127.0.0.1:9")
    found = [(each["level"], each["text"]) for each in findings if each["check"] == "state_dir"]
    assert (
        "unknown",
        f"the state directory {tmp_path}/state is not there; a daemon makes it when it starts",
    ) in found
    (tmp_path / "state").mkdir()
    _, findings, _ = examined(url="http://127.0.0.1:9")
    assert not [each for each in findings if each["check"] == "state_dir" and "not there" in each["text"]]


def test_a_running_daemon_that_cannot_write_its_journal_is_a_problem(examined, exporter, monkeypatch):
    monkeypatch.setenv("AUTOSCALER_HTTP_PORT", exporter.split(":")[2].split("/")[0])
    answer = {"healthy": True, "problems": [], "fleets": [], "journal": {"error": "the disk is full"}}
    Shows.text = json.dumps(answer)
    _, findings, _ = examined(url="http://127.0.0.1:9")
    (found,) = [each for each in findings if each["check"] == "journal"]
    assert (found["level"], found["text"].endswith("cannot write its journal: the disk is full")) == (
        "problem",
        True,
    )
    Shows.text = json.dumps({**answer, "journal": {"error": ""}})
    _, findings, _ = examined(url="http://127.0.0.1:9")
    assert "journal" not in {each["check"] for each in findings}


def test_a_state_directory_on_a_disk_mounted_read_only_is_a_problem(examined, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    require_real("a mounted file system (needs root)", mounted.returncode == 0)
    try:
        _, findings, _ = examined(url="http://127.0.0.1:9")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    (found,) = [each for each in findings if each["check"] == "state_dir"]
    assert (found["level"], "(read-only file system)" in found["text"]) == ("problem", True)


def test_what_is_wrong_in_the_same_way_with_many_fleets_is_told_once(capsys):
    same = [
        Finding(
            "volumes", Level.UNKNOWN, "whether volumes are encrypted could not be seen", fleet=f"fleet-{at}"
        )
        for at in range(5)
    ]
    print_findings(
        [*same, Finding("metrics", Level.PROBLEM, "nothing came", "look there", "web")], everything=False
    )
    said = capsys.readouterr().out
    assert said.count("not seen") == 1
    assert "fleet-0," in said
    assert "fleet-4" not in said
    assert "more" in said
    assert "6 questions: " in said
