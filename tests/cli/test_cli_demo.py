"""`demo` end to end: the real daemon, the endpoint process, and the files of a run."""

import csv
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from autoscaler.store import JournalReader
from tests.cli.conftest import COMMAND, call, children, environment, exists, get, strict_json, wait_for

COLUMNS = (
    "timestamp,demand,forecast,forecast_hi,desired,in_service,starting,draining,stopped,warm_target,capacity,"
    "shortage,starts,stops,provisions,cost,reason"
)
PACES = (60, 10, 4)
"""Speeds. A machine that is busy with much else is refused the first, or skips ticks at it. At the last, the longest run is within a
call's patience."""


class Run(NamedTuple):
    """What a demo printed, and where it left its files."""

    stdout: str
    folder: Path


def played(folder, *arguments, for_s):
    """What a demo prints after some seconds of its own time, at the first pace that the machine keeps."""
    for pace in PACES:
        out = folder / f"out-{pace}"
        run = ("--speed", pace, "--for", f"{for_s / pace:g}s", "--out", out, "--json")
        result = call("demo", *arguments, *run, cwd=folder)
        if "The highest speed here is" in result.stderr:
            continue
        assert (result.returncode, result.stderr) == (0, "")
        ticks = len((out / "timeline.csv").read_text().splitlines()) - 1
        # Even the first tick may come late.
        if strict_json(result.stdout)["details"]["ticks_skipped"] == 0 and 10 * ticks > 0.9 * for_s:
            return Run(result.stdout, out)
    pytest.fail(f"this machine keeps no pace: {result.stdout}{result.stderr}")


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    """A demo of about eight minutes of its own time, of which three are scored, after the week that it remembers."""
    return played(tmp_path_factory.mktemp("demo"), for_s=480)


@pytest.fixture(name="rows", scope="module")
def _rows(run):
    with (run.folder / "timeline.csv").open() as stream:
        return list(csv.DictReader(stream))


def at(row):
    return datetime.fromisoformat(row["timestamp"]).timestamp()


def numbers(rows, name):
    return [float(row[name]) for row in rows if row[name]]


def test_the_report_is_printed_as_it_is_written(run):
    assert strict_json(run.stdout) == strict_json((run.folder / "report.json").read_text())


def test_the_time_line_has_its_columns_and_agrees_with_the_report(run, rows):
    assert (run.folder / "timeline.csv").read_text().splitlines()[0] == COLUMNS
    totals = strict_json(run.stdout)["totals"]
    begin_s = at(rows[0])
    scored = [row for row in rows if at(row) >= begin_s + 300]
    assert 0 < len(scored) < len(rows)
    assert sum(numbers(scored, "cost")) == pytest.approx(totals["cost"], rel=1e-6)
    assert sum(numbers(scored, "starts")) == totals["starts"]
    assert 10 * sum(numbers(scored, "in_service")) == totals["in_service_vm_s"]
    assert 10 * sum(numbers(scored, "demand")) == pytest.approx(totals["demand_work"], rel=1e-6)
    for row in rows:
        capacity = 120 * float(row["in_service"])
        assert float(row["capacity"]) == capacity
        assert float(row["shortage"]) == pytest.approx(max(float(row["demand"]) - capacity, 0), abs=1e-3)


def test_every_start_of_the_journal_arrived_at_the_endpoint(run, rows):
    details = strict_json(run.stdout)["details"]
    with JournalReader(run.folder) as journal:
        actions = journal.actions("web", 0, 1e12)
    started = sum(o.kind == "accepted" for a in actions if a.intent.verb == "start" for o in a.outcomes)
    assert started >= 10
    assert details["vms_by_call"]["StartInstances"] == started
    assert details["calls"]["DescribeInstances"] >= len(rows)
    assert sum(numbers(rows, "starts")) <= started
    assert details["starts_measured"] > 0
    assert max(numbers(rows, "in_service")) >= 10


def test_the_clouds_bill_is_the_journals(run):
    details = strict_json(run.stdout)["details"]
    # Eight minutes are short and begin with a crowd of starts, whose moments a listing shows late.
    assert details["bill_of_the_journal"] == pytest.approx(details["bill_of_the_cloud"], rel=0.03)


def test_the_baselines_ran_over_the_same_time(run):
    report = strict_json(run.stdout)
    assert set(report["baselines"]) == {"always on at peak", "plain reactive", "same, on virtual time"}
    for name, baseline in report["baselines"].items():
        # As many ticks as `played` allows to come late are not in the run's own.
        assert baseline["span_s"] == pytest.approx(report["totals"]["span_s"], abs=70), name
        assert baseline["demand_work"] == pytest.approx(report["totals"]["demand_work"], rel=0.5), name
        assert baseline["cost"] > 0, name
    assert report["baselines"]["always on at peak"]["starts"] == 0


def test_work_that_found_no_vm_has_its_price_in_the_totals(run):
    report = strict_json(run.stdout)
    total = report["details"]["total_cost"]
    assert total.keys() == {"this policy", *report["baselines"]}
    for name, each in {"this policy": report["totals"], **report["baselines"]}.items():
        lost = 9.6 * each["unserved_work"] / 120 / 3600
        assert total[name] == pytest.approx(each["cost"] + lost), name


def test_it_goes_on_from_the_week_before(run, rows):
    assert strict_json(run.stdout)["details"]["remembers"] is True
    first = next(row for row in rows if float(row["starts"]) > 2)
    assert "at these prices" in first["reason"]
    assert numbers(rows, "forecast"), "forecasts are there from the beginning"


def test_people_read_what_it_is_and_what_came_of_it(tmp_path):
    for pace in PACES:
        shown = call("demo", "--cold", "--speed", pace, "--for", f"{420 / pace:g}s", cwd=tmp_path)
        if "The highest speed here is" not in shown.stderr:
            break
    assert (shown.returncode, shown.stderr) == (0, "replaying the baselines on the same traffic …\n")
    said = shown.stdout
    assert said.startswith("A real daemon starts and stops the VMs of the fleet web through the EC2 protocol")
    assert "It remembers nothing, as on its first day." in said
    assert re.search(
        r"60 VMs wait stopped behind an EC2 endpoint on http://[\d.:]+ at Mon 09:30:00; \d+ times", said
    )
    for row in ("this policy", "always on at peak", "plain reactive", "same, on virtual time"):
        assert re.search(
            rf"^{row} +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +(?:0|< 0\.001|\d+\.\d+)% +\d+ s +\d+$",
            said,
            re.MULTILINE,
        ), row
    words = " ".join(said.split())
    assert re.search(
        r"lost work included, this policy costs \d+% (less|more) than plain reactive \(demand \+ 30%\)", words
    )
    assert re.search(r"and \d+% (less|more) than always on at the peak, which had to know it", words)
    assert "by the policy: an hour of unserved work of one VM costs as much as 100 VM-hours." in words


def test_a_policy_without_a_price_is_compared_in_both_numbers(tmp_path):
    policy = Path(__file__).parents[2] / "policies" / "web.yaml"
    for pace in PACES:
        shown = call("demo", "--policy", policy, "--speed", pace, "--for", f"{420 / pace:g}s", cwd=tmp_path)
        if "The highest speed here is" not in shown.stderr:
            break
    assert shown.returncode == 0, shown.stderr
    assert re.search(
        r"this policy \(demand \+ 20%, forecast 95%\) costs \d+% (less|more) than plain reactive, leaving [\d.]+% of the work unserved "
        r"instead of [\d.]+%; and \d+% (less|more) than always on at the peak",
        " ".join(shown.stdout.split()),
    )
    assert "It remembers nothing" in shown.stdout


def test_the_journal_it_leaves_says_why(run, rows):
    explained = call("explain", "web", "--state-dir", run.folder, "--json", cwd=run.folder)
    assert explained.returncode == 0
    last = strict_json(explained.stdout)
    assert "economic" in [stage["stage"] for stage in last["decision"]["stages"]]
    busy = next(row for row in rows if float(row["starts"]) > 0)
    then = call(
        "explain",
        "web",
        "--state-dir",
        run.folder,
        "--at",
        busy["timestamp"].replace("Z", "999Z"),
        cwd=run.folder,
    )
    assert busy["reason"] in then.stdout
    assert re.search(r"^  start \d+: \d+ accepted$", then.stdout, re.MULTILINE)


def test_a_page_can_be_made_of_it(run, tmp_path):
    for name in ("timeline.csv", "report.json"):
        (tmp_path / name).write_bytes((run.folder / name).read_bytes())
    made = call("report", tmp_path, cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, f"{tmp_path}/report.html\n"), made.stderr
    page = (tmp_path / "report.html").read_text()
    for name in ("always on at peak", "plain reactive", "same, on virtual time"):
        assert name in page


def test_a_used_output_folder_is_refused(run):
    result = call("demo", "--out", run.folder, "--for", "1s", cwd=run.folder)
    assert result.returncode == 1
    assert (
        result.stderr
        == f"demo: {run.folder} holds the journal of an earlier run; name another --out, or remove it\n"
    )


TERMINAL = """
import os, pty, struct, fcntl, termios, sys

def read(fd):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    return os.read(fd, 65536)

sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))
"""
"""Runs a command in a terminal of its own; what is written to its standard input is typed there."""


def test_ctrl_c_in_a_terminal_leaves_the_picture_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", TERMINAL, COMMAND, "demo", "--speed", "5"]
    with (
        (tmp_path / "screen").open("wb") as screen,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment(), "TERM": "xterm"},
            stdin=subprocess.PIPE,
            stdout=screen,
        ) as terminal,
    ):

        def shown():
            return (tmp_path / "screen").read_text(errors="replace")

        try:
            endpoint = wait_for(
                lambda: re.search(r"EC2 endpoint on (http://[\d.:]+)", shown()), shown, terminal
            )[1]
            wait_for(
                lambda: re.search(r"starting \d+ \(.*capacity", shown(), re.DOTALL) or None, shown, terminal
            )
            (demo,) = children(terminal.pid)
            endpoints = children(demo)
            assert endpoints
            terminal.stdin.write(b"\x03")
            terminal.stdin.flush()
            assert terminal.wait(300) == 0, shown()
        finally:
            # Ends the terminal where it still runs, and with it, by a hangup, what runs in it.
            terminal.kill()
    said = shown()
    assert "Traceback" not in said
    assert "Unclosed" not in said
    assert "Ctrl-C ends" in said
    assert re.search(r"nothing to compare|not scored", said)
    assert not any(exists(pid) for pid in endpoints)
    with pytest.raises(OSError, match="refused"):
        get(endpoint)


def test_a_speed_that_the_machine_cannot_keep_names_the_highest_and_leaves_the_folder_usable(tmp_path):
    result = call("demo", "--speed", "90000", "--for", "2s", "--out", "out", "--json", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(r"The highest speed here is about \d+, or more with a longer --tick\.\n$", result.stderr)
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_recording_plays_with_faults_in_a_cloud_of_its_own(tmp_path):
    (tmp_path / "day.csv").write_text(
        "timestamp,value\n" + "".join(f"2026-03-02T12:{m:02}:00Z,{600 + 60 * m}\n" for m in range(60))
    )
    (tmp_path / "faults.yaml").write_text(
        "faults:\n- {kind: api_error, actions: [DescribeInstanceStatus]}\n"
        "- {kind: api_error, actions: [StartInstances], end_s: 12}\n"
    )
    shown = played(
        tmp_path, "--trace", "day.csv", "--kind", "count", "--scale-to-vms", "5", "--vms", "6",
        "--faults", "faults.yaml", "--begin", "2026-03-02T12:30Z", for_s=180,
    )  # fmt: skip
    details = strict_json(shown.stdout)["details"]
    assert details["begin"] == "2026-03-02T12:30:00Z"
    assert 2 <= details["vms_by_call"]["StartInstances"] <= 6
    # Times of faults count from the daemon's start, however long the cloud took to set up: the first start is refused.
    assert set(details["calls_refused"]) == {"DescribeInstanceStatus", "StartInstances"}
    assert details["starts_measured"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trace", "none.csv"), "none.csv"),
        (("--trace", "day.csv"), "kind"),
        (
            ("--trace", "day.csv", "--kind", "count", "--begin", "2020-01-01T00:00Z"),
            "begin 2020-01-01T00:00:00Z and end",
        ),
        (("--begin", "2026-03-02T10:00Z", "--end", "2026-03-02T09:00Z"), "in this order"),
        (("--policy", "bad.yaml"), "bad.yaml:2:1: error: unknown key `zone`"),
        (("--policy", "none.yaml"), "none.yaml"),
        (("--faults", "faults.yaml"), "faults.yaml:1: unknown key 'knid'; did you mean 'kind'?"),
        (("--tick", "2h"), "--tick 7200s must be from 1 s to 1 h"),
        (("--out", "day.csv"), "day.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_run_is_said_in_one_message(tmp_path, invoke, arguments, words):
    (tmp_path / "day.csv").write_text("timestamp,value\n2026-03-02T12:00:00Z,1\n2026-03-02T12:01:00Z,2\n")
    (tmp_path / "bad.yaml").write_text("fleet: bad\nzone: a\nsignal: {kind: total, source: trace}\n")
    (tmp_path / "faults.yaml").write_text("- {knid: outage}\n")
    result = invoke("demo", *arguments, "--for", "1s")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("demo: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
