"""`replay`, `compare`, `report` and `explain` as typed, and the files that they write and read."""

import contextlib
import csv
import json
import math
import os
import re
import select
import subprocess

import numpy as np
import pytest

from autoscaler.store import JournalReader
from tests.cli.conftest import COMMAND, INTERRUPT, PATIENCE_S, call, environment, installed, strict_json

POLICY = """\
fleet: web
signal: {{kind: throughput, source: {source}, max_age: {max_age}}}
vm: {{capacity: 100/s, start_time: 30s, stop_time: 30s}}
readiness: {{probe: status_checks}}
bounds: {{minimum: 1, maximum: {maximum}}}
reactive: {{headroom: {headroom}}}
prices: {{in_service: 3.6/h, stopped: 0.036/h}}
"""
FILES = {"report.html", "report.json", "timeline.csv"}


def write_policy(path, *, headroom="20%", source="trace, trace: {}", maximum=20, max_age="150s", more=""):
    path.write_text(POLICY.format(headroom=headroom, source=source, maximum=maximum, max_age=max_age) + more)
    return path


def write_day(path, *, hours=8, every_s=60, scale=1.0, missing=()):
    """A rising and falling demand of 200/s to 900/s with one sudden crowd, as a gauge."""
    lines = ["timestamp,value"]
    noise = np.random.default_rng(7).normal(0, 10, hours * 3600 // every_s)
    for number in range(hours * 3600 // every_s):
        if number in missing:
            continue
        at_s = 1_772_409_600 + every_s * number
        level = 550 - 350 * math.cos(2 * math.pi * number * every_s / (hours * 3600)) + noise[number]
        crowd = 500 if 200 <= number * every_s / 60 < 215 else 0
        lines.append(f"{at_s},{scale * (level + crowd):.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(name="here")
def _here(tmp_path):
    write_policy(tmp_path / "web.yaml")
    write_day(tmp_path / "day.csv")
    return tmp_path


def replay(here, *arguments, policy="web.yaml", trace="day.csv", code=0, by=call):
    result = by("replay", policy, trace, "--kind", "gauge", *arguments, cwd=here)
    assert result.returncode == code, result.stderr
    return result


def rows_of(folder):
    with (folder / "timeline.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("noted", "told"), [("count", True), ("gauge", False)])
def test_a_kind_that_the_manifest_contradicts_is_told(here, noted, told):
    (here / "manifest.csv").write_text(f"file,kind,interval_s\nday.csv,{noted},60\n")
    said = replay(here).stderr
    assert ("taken as gauge (--kind), and the manifest.csv beside it says count" in said) is told


def test_a_narrow_terminal_of_another_encoding_cuts_no_number(here):
    wide = replay(here).stdout
    narrow = subprocess.run(
        [COMMAND, "replay", "web.yaml", "day.csv", "--kind", "gauge"],
        cwd=here, env=environment() | {"COLUMNS": "40", "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (narrow.returncode, narrow.stderr) == (0, "")
    assert narrow.stdout == wide
    helped = subprocess.run(
        [COMMAND, "trace", "import", "--help"],
        cwd=here, env=environment() | {"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert "SOURCE? OUT" in helped.stdout


def test_a_share_of_failing_starts_may_be_written_as_one(here):
    told = [json.loads(replay(here, "--json", "--start-failure", share).stdout) for share in ("20%", "0.2")]
    assert told[0]["card"] == told[1]["card"]
    assert told[0]["card"]["entries"][0]["values"]["failed_starts"] > 0
    result = replay(here, "--start-failure", "120%", code=2)
    assert "is not a share" in result.stderr


def test_a_replay_says_its_conclusion_first_and_fits_80_columns(here):
    said = replay(here).stdout
    lines = said.splitlines()
    assert re.match(r"This policy costs \d+% less than always on at peak and leaves .*\.$", lines[0])
    begin = next(number for number, line in enumerate(lines) if line.lstrip().startswith("cost  "))
    table = lines[begin : begin + 11]
    assert table[1].startswith("this policy ")
    assert table[-1].startswith("clairvoyant optimum ")
    assert max(map(len, table)) <= 80
    assert not any("…" in line for line in table)
    for name in (
        "this policy",
        "always on at peak",
        "target tracking",
        "step scaling",
        "Kubernetes",
        "clairvoyant",
    ):
        assert name in said
    assert "a plant of 17 VMs: peak demand needs 14" in said
    assert "ticks of 60 s, the trace's interval" in said


def test_what_it_leaves_agrees_with_what_it_prints(here):
    result = replay(here, "--out", "out", "--json")
    printed = strict_json(result.stdout)
    assert printed == strict_json((here / "out" / "report.json").read_text())
    assert {file.name for file in (here / "out").iterdir()} == FILES
    rows = rows_of(here / "out")
    assert len(rows) == 8 * 60
    unscored = round(printed["details"]["not_scored_s"] / 60)
    scored = rows[unscored:]
    own = printed["card"]["entries"][0]["values"]
    assert sum(float(row["cost"]) for row in scored) == pytest.approx(own["cost"], rel=1e-6)
    assert sum(int(float(row["starts"])) for row in scored) * 86_400 / (len(scored) * 60) == pytest.approx(
        own["starts_per_day"]
    )
    short = [float(row["shortage"]) > 0 for row in scored]
    assert 60 * sum(short) == own["shortage_s"]
    assert printed["conclusion"]["headline"] in (here / "out" / "report.html").read_text()


def test_both_engines_decide_the_same(here):
    lanes = strict_json(replay(here, "--engine", "lanes", "--json").stdout)
    loop = strict_json(replay(here, "--engine", "loop", "--json").stdout)
    assert (lanes["details"]["engine"], loop["details"]["engine"]) == ("lanes", "loop")
    assert lanes["details"]["decisions"] == loop["details"]["decisions"]
    assert lanes["identity"] == loop["identity"]
    mine, theirs = (document["card"]["entries"][0]["values"] for document in (lanes, loop))
    for figure in ("unserved_share", "shortage_s", "episodes", "vm_hours", "starts_per_day"):
        assert mine[figure] == pytest.approx(theirs[figure], rel=1e-9), figure
    # The daemon learns of a VM's billing from listings, once a tick.
    assert mine["cost"] == pytest.approx(theirs["cost"], rel=0.02)


def test_the_same_seed_gives_the_same_and_a_stuttering_plant_another(here):
    # Two programs hash strings differently, and must not decide by that.
    first, second = (strict_json(replay(here, "--json", by=installed).stdout) for _ in range(2))
    other = strict_json(replay(here, "--json", "--start-time", "90s", "--start-p95", "200s").stdout)
    assert first == second
    assert other["details"]["decisions"] != first["details"]["decisions"]
    assert other["identity"]["plant"] != first["identity"]["plant"]


def test_the_loop_engine_leaves_a_journal_that_explains(here):
    replay(here, "--engine", "loop", "--out", "out")
    busy = next(row for row in rows_of(here / "out")[20:] if float(row["starts"]) > 0)
    with JournalReader(here / "out") as journal:
        assert journal.fleets() == ("web",)
    said = call("explain", "web", "--state-dir", "out", "--at", busy["timestamp"], cwd=here)
    assert said.returncode == 0, said.stderr
    assert busy["reason"] in said.stdout
    assert "reactive" in said.stdout


def test_a_replay_by_lanes_is_explained_by_its_time_line(here):
    replay(here, "--out", "out", "--timeline", "parquet")
    assert (here / "out" / "timeline.parquet").exists()
    said = call("explain", "web", "--state-dir", "out", "--at", "2026-03-02T03:22:30Z", cwd=here)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("web at Mon 02 Mar 2026 03:22 UTC (replayed)\n")
    assert "demand" in said.stdout
    assert "  forecast  none: no policy uses one" in said.stdout
    found = call("explain", "web", "--state-dir", "out", "--json", cwd=here)
    assert strict_json(found.stdout)["at_s"] == 1_772_409_600 + 8 * 3600 - 60
    for arguments, words in (
        (("api",), "is of fleet web, not api"),
        (("web", "--at", "2030-01-01"), "covers Mon 02"),
    ):
        wrong = call("explain", *arguments, "--state-dir", "out", cwd=here)
        assert wrong.returncode == 1
        assert words in wrong.stderr


def test_report_makes_the_page_again(here):
    replay(here, "--out", "out")
    page = here / "out" / "report.html"
    first = page.read_text()
    page.unlink()
    result = call("report", "out", cwd=here)
    assert (result.returncode, result.stdout) == (0, "out/report.html\n")
    assert page.read_text() == first


def test_a_demo_of_before_gets_a_page_too(here):
    folder = here / "out"
    replay(here, "--engine", "loop", "--out", "out")
    document = json.loads((folder / "report.json").read_text())
    del document["card"]
    document["baselines"] = {"always on at peak": document["totals"]}
    (folder / "report.json").write_text(json.dumps(document))
    assert call("report", "out", cwd=here).returncode == 0
    assert "always on at peak" in (folder / "report.html").read_text()


def test_policies_are_compared_on_the_same_luck(here):
    write_policy(here / "lean.yaml", headroom="0%")
    result = call("compare", "web.yaml", "lean.yaml", "day.csv", "--kind", "gauge", "--out", "out", cwd=here)
    assert result.returncode == 0, result.stderr
    assert re.match(r"Policy lean costs \d+% less than web and leaves ", result.stdout)
    assert "How much of the difference is luck cannot be said: that takes at least 16 h" in result.stdout
    assert re.search(
        r"Decisions first differ at Mon 02 Mar 2026 \d\d:\d\d UTC: web wants \d+ VMs?, lean \d+",
        result.stdout,
    )
    document = strict_json((here / "out" / "report.json").read_text())
    rows = {name: rows_of(here / "out" / name) for name in ("web", "lean")}
    different = sum(a["desired"] != b["desired"] for a, b in zip(rows["web"], rows["lean"], strict=True))
    assert document["differences"]["differing"]["desired"] == different > 0
    first = next(
        a["timestamp"] for a, b in zip(*rows.values(), strict=True) if a != b and a["desired"] != b["desired"]
    )
    assert document["differences"]["rows"][0]["at"] == first
    assert [entry["key"] for entry in document["card"]["entries"][:3]] == ["web", "lean", "static_peak"]
    for entry in document["card"]["entries"][:2]:
        assert entry["values"]["captured"] is not None
        assert entry["values"]["pool_cost"] is not None
        assert "pool_cost" not in entry["does_not_apply"]
    assert "pool_cost" in document["card"]["entries"][2]["does_not_apply"]
    assert re.search(r"its own level of service, web achieves \d+% and lean \d+%\.", result.stdout)
    assert "worked out for web only" not in result.stdout
    hint = re.search(r"`autoscaler (explain web --state-dir out/lean) --at TIME`", result.stdout)[1]
    explained = call(*hint.split(), "--at", first, cwd=here)
    assert explained.returncode == 0, explained.stderr
    assert document["differences"]["rows"][0]["reasons"][1] in explained.stdout
    page = (here / "out" / "report.html").read_text()
    assert call("report", "out", cwd=here).returncode == 0
    assert (here / "out" / "report.html").read_text() == page


def test_a_comparison_that_is_ended_before_it_began_says_so(here):
    from autoscaler.cli.replay import begun

    with pytest.raises(KeyboardInterrupt):
        begun({})


def test_policies_with_different_capacities_meet_the_same_demand(here):
    from autoscaler.cli.replay import _prepare
    from autoscaler.simulator.replay.preparing import Wanted

    weak = write_policy(here / "weak.yaml")
    weak.write_text(weak.read_text().replace("capacity: 100/s", "capacity: 50/s"))
    strong, other = _prepare((here / "web.yaml", weak), here / "day.csv", "gauge", Wanted(scale_to_vms=8))
    assert strong.trace.peak_per_s == other.trace.peak_per_s == pytest.approx(800.0)


def test_equal_policies_decide_alike(here):
    (here / "other").mkdir()
    write_policy(here / "other" / "web.yaml")
    result = call("compare", "web.yaml", "other/web.yaml", "day.csv", "--kind", "gauge", "--json", cwd=here)
    assert result.returncode == 0, result.stderr
    document = strict_json(result.stdout)
    assert document["differences"]["first_at"] is None
    assert "decide the same in all 480 ticks" in document["differences"]["sentences"][0]
    names = [entry["name"] for entry in document["card"]["entries"] if entry["judged"]]
    assert names == [f"{here.name}-web", "other-web"]


def test_a_trace_in_another_unit_is_scaled_or_said_to_be(here):
    write_day(here / "small.csv", scale=1e-4)
    assert "can serve the whole trace" in replay(here, trace="small.csv").stdout
    said = replay(here, "--scale-to-vms", "9", trace="small.csv").stdout
    assert "peak demand needs 9" in said
    write_day(here / "large.csv", scale=10)
    assert "bounds.maximum is 20, which causes part of the shortage" in re.sub(
        r"\s+", " ", replay(here, trace="large.csv").stdout
    )


def test_a_coarse_trace_and_a_fine_tick_are_handled_and_said(here):
    write_day(here / "coarse.csv", every_s=600)
    said = replay(here, trace="coarse.csv").stdout
    assert "ticks of 10 min, the trace's interval" in said
    assert "signal.max_age is raised from 2.5 min to 25 min" in said
    fine = strict_json(replay(here, "--tick", "10s", "--to", "2026-03-02T01:00Z", "--json").stdout)
    assert (fine["details"]["tick_s"], fine["details"]["span_s"]) == (10.0, 3600.0)
    assert any("one value per 60 s" in note for note in fine["details"]["notes"])


def test_gaps_are_unknown_and_said(here):
    write_day(here / "gappy.csv", missing=range(300, 330))
    document = strict_json(replay(here, "--json", trace="gappy.csv").stdout)
    assert document["card"]["entries"][0]["values"]["unknown_s"] == 1800
    assert any("no values for 30 min" in text for text in document["details"]["cautions"])


def test_a_policy_that_scrapes_is_simulated_and_said(here):
    write_policy(here / "live.yaml", source="scrape, scrape: {metric: requests_total, type: counter}")
    assert "signal.source scrape is replaced by the trace" in replay(here, policy="live.yaml").stdout


def test_bad_days_take_the_loop_engine_and_lanes_are_refused(here):
    (here / "faults.yaml").write_text("- {kind: no_capacity, start_s: 3600, end_s: 18000}\n")
    document = strict_json(replay(here, "--faults", "faults.yaml", "--json").stdout)
    assert document["details"]["engine"] == "loop"
    assert any("only the loop engine simulates" in note for note in document["details"]["notes"])
    assert "the compared rules ran without the faults" in document["details"]["notes"]
    fair = strict_json(replay(here, "--json").stdout)
    key = ("card", "entries", 0, "values", "shortage_s")
    assert get(document, key) > get(fair, key)
    refused = replay(here, "--faults", "faults.yaml", "--engine", "lanes", code=1)
    assert refused.stderr.startswith("replay: --engine lanes cannot run this: --faults")


def get(document, path):
    for step in path:
        document = document[step]
    return document


def test_an_earlier_run_is_not_overwritten_unless_asked(here):
    replay(here, "--out", "out")
    again = replay(here, "--out", "out", code=1)
    assert (
        again.stderr == "replay: out holds an earlier run; name another --out, or replace it with --force\n"
    )
    before = (here / "out" / "report.json").read_bytes()
    replay(here, "--out", "out", "--force", "--warm-up", "7d", code=1)
    assert (here / "out" / "report.json").read_bytes() == before, "what failed replaces nothing"
    replay(here, "--out", "out", "--force", "--no-page")
    assert {file.name for file in (here / "out").iterdir()} == FILES - {"report.html"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.yaml", "day.csv", "--kind", "gauge"), "none.yaml"),
        (("web.yaml", "none.csv"), "none.csv"),
        (
            ("web.yaml", "day.csv", "--kind", "gauge", "--from", "2020-01-01"),
            "--from 2020-01-01T00:00:00Z and --to",
        ),
        (("web.yaml", "day.csv", "--kind", "gauge", "--tick", "3h"), "must be from 1 s to 1 h"),
        (("web.yaml", "day.csv", "--kind", "gauge", "--from", "2026-03-02T07:59Z"), "fewer than 3 ticks"),
        (("web.yaml", "day.csv", "--kind", "gauge", "--warm-up", "9h"), "leaves nothing of 8 h to score"),
        (("web.yaml", "day.csv", "--kind", "gauge", "--out", "web.yaml"), "web.yaml is a file"),
        (
            ("web.yaml", "day.csv", "--kind", "gauge", "--start-p95", "10s"),
            "--start-p95: a 95 % quantile of 10 s does not go with a mean of",
        ),
        (("bad.yaml", "day.csv", "--kind", "gauge"), "bad.yaml:2:1: error: unknown key"),
        (("web.yaml", "bad.csv", "--kind", "gauge"), "bad.csv"),
    ],
    ids=lambda value: " ".join(value[:6]) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_run_is_said_in_words(here, arguments, words):
    (here / "bad.yaml").write_text("fleet: web\nzone: a\n")
    (here / "bad.csv").write_text("timestamp,value\n2026-03-02T00:00:00Z,1\n2026-03-02T00:00:00Z,1\n")
    result = call("replay", *arguments, cwd=here)
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_compare_without_two_policies_is_wrong_usage(here):
    result = call("compare", "web.yaml", "day.csv", cwd=here)
    assert result.returncode == 2
    assert "at least two policy files" in result.stderr


def test_a_report_of_nothing_is_one_sentence(here):
    result = call("report", "nowhere", cwd=here)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("report: nowhere/report.json: cannot be read: No such file")


@contextlib.contextmanager
def in_terminal(*arguments, cwd, out=subprocess.DEVNULL):
    """A command whose messages go to a terminal: its process, and a function that reads until a pattern is in them."""
    ours, theirs = os.openpty()
    shown = b""

    def reads(pattern):
        nonlocal shown
        while not re.search(pattern, shown):
            ready, _, _ = select.select([ours], [], [], PATIENCE_S)
            assert ready, shown
            shown += os.read(ours, 65536)

    try:
        with subprocess.Popen(
            [COMMAND, *arguments], cwd=cwd, env={**environment(), "TERM": "xterm"}, stdout=out, stderr=theirs
        ) as process:
            try:
                yield process, reads
            finally:
                process.kill()
    finally:
        os.close(theirs)
        os.close(ours)


def test_ctrl_c_keeps_what_was_run(here):
    """The loop engine at a second per tick runs for long; what it has done by then is shown and written."""
    arguments = (
        "web.yaml",
        "day.csv",
        "--kind",
        "gauge",
        "--engine",
        "loop",
        "--tick",
        "1s",
        "--warm-up",
        "1s",
    )
    with (
        (here / "said").open("w") as out,
        in_terminal("replay", *arguments, "--out", "out", cwd=here, out=out) as (process, reads),
    ):
        # Before the first hundredth nothing was run that could be kept.
        reads(rb"replaying .*[1-9]\d?%")
        process.send_signal(INTERRUPT)
        reads(b"interrupted: the figures cover the part that was run")
        assert process.wait(PATIENCE_S) == 130
    assert "The run was interrupted: it covers" in (here / "said").read_text()
    document = strict_json((here / "out" / "report.json").read_text())
    assert document["details"]["partial"] is True
    rows = rows_of(here / "out")
    assert 2 <= len(rows) < 8 * 3600
    assert document["details"]["span_s"] == len(rows)
    assert {file.name for file in (here / "out").iterdir()} == FILES | {"journal.sqlite"}


@pytest.mark.parametrize("engine", ["loop", "lanes"])
def test_what_takes_over_two_seconds_shows_a_bar_in_a_terminal_and_nowhere_else(here, engine):
    write_day(here / "long.csv", hours=24 * 120)
    arguments = ("replay", "web.yaml", "long.csv", "--kind", "gauge", "--engine", engine)
    with in_terminal(*arguments, cwd=here) as (_, reads):
        reads(b"replaying")
    quiet = replay(here)
    assert quiet.stderr == ""
