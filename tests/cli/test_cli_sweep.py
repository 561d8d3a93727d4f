"""`sweep` and `recommend` as typed."""

import csv
import re

import pytest

from autoscaler.cli.sweep import run_variants, tell, tried_on
from autoscaler.simulator.replay.preparing import Wanted
from autoscaler.simulator.report.wording import each_unit
from tests.cli.conftest import call, strict_json
from tests.cli.test_cli_replay import write_day, write_policy
from tests.search.builders import Interrupted

VARY = ("--vary", "reactive.headroom=0%..60%/4", "--vary", "guards.stabilisation=0s,10m")


@pytest.fixture(name="here")
def _here(tmp_path):
    write_policy(tmp_path / "web.yaml", headroom="50%")
    write_day(tmp_path / "day.csv", hours=24, every_s=120)
    return tmp_path


def run(here, command, *arguments, code=0):
    result = call(command, "web.yaml", "day.csv", "--kind", "gauge", *arguments, cwd=here)
    assert result.returncode == code, result.stderr
    return result


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_sweep_says_first_what_it_comes_to_and_leaves_its_files(here):
    told = run(here, "sweep", *VARY, "--out", "out").stdout
    assert "variant" in told.splitlines()[0]
    assert "are beaten by no other" in told
    assert "now" in told
    assert {path.name for path in (here / "out").iterdir()} == {"results.csv", "report.json", "report.html"}
    rows = rows_of(here / "out" / "results.csv")
    assert len(rows) == 9
    assert (rows[0]["reactive.headroom"], rows[0]["guards.stabilisation"]) == ("50%", "5m")
    document = strict_json((here / "out" / "report.json").read_text())
    assert len(document["sweep"]["rows"]) == 9
    assert document["sweep"]["rows"][0]["current"]
    again = call("report", "out", cwd=here)
    assert again.returncode == 0, again.stderr
    assert run(here, "sweep", *VARY, "--out", "out", code=1).stderr.count("--force") == 1


def test_the_policy_as_it_is_is_not_tried_twice(here):
    told = run(here, "sweep", "--vary", "reactive.headroom=40%,50%,60%").stdout
    assert " of 3 variants are beaten by no other" in told
    assert len(re.findall(r"^(?:now|\d+) +[456]0% ", told, re.MULTILINE)) <= 3
    assert not re.search(r"^\d+ +50% ", told, re.MULTILINE)


def test_times_of_the_plant_are_headed_by_their_unit(here):
    told = run(here, "sweep", "--vary", "plant.start=20s,5m", "--vary", "forecast.cover=90%,95%").stdout
    assert "start, s" in told
    assert "cover, s" not in told


def test_the_first_row_is_what_replay_finds(here):
    run(here, "sweep", *VARY, "--out", "out", "--no-page")
    replayed = strict_json(run(here, "replay", "--json").stdout)
    own = replayed["card"]["entries"][0]["values"]
    row = rows_of(here / "out" / "results.csv")[0]
    for key in ("cost", "unserved_share", "shortage_s", "starts_per_day", "vm_hours", "instability"):
        assert float(row[key]) == pytest.approx(own[key], rel=1e-9), key


def test_processes_and_random_draws_change_no_figure(here):
    drawn = ("--vary", "reactive.headroom=5%..60%", "--vary", "guards.stabilisation=1m,5m", "--random", "70")
    one = strict_json(run(here, "sweep", *drawn, "--json").stdout)
    two = strict_json(run(here, "sweep", *drawn, "--json", "--processes", "2").stdout)
    assert one == two
    assert len(one["sweep"]["rows"]) == 71


def test_a_variant_that_is_drawn_twice_is_run_once(here):
    drawn = run(here, "sweep", "--vary", "reactive.headroom=5%,35%", "--random", "20").stdout
    assert "2 of the 20 variants differ; each was run once" in drawn
    listed = run(here, "sweep", "--vary", "reactive.headroom=5%,35%,5%").stdout
    assert "2 of the 3 variants differ" in listed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "say what to vary"),
        (("--vary", "reactive.headrom=5%"), 1, "did you mean `reactive.headroom`?"),
        (("--vary", "reactive.headroom=2000%"), 1, "out of range; it must be 0% to 1000%"),
        (("--vary", "reactive.headroom=5%..9%"), 1, "how many values?"),
        (("--vary", "bounds.minimum=1,90"), 1, "bounds.minimum = 90"),
        (("--vary", "plant.vms=-4"), 1, "vms must be within 0"),
        (("--vary", "forecast.cover=91%"), 1, "forecast.cover = 91%"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said(here, arguments, code, words):
    result = run(here, "sweep", *arguments, code=code)
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_wider_bounds_get_the_vms_to_use_them(here):
    write_policy(here / "web.yaml", maximum=6)
    told = strict_json(run(here, "sweep", "--vary", "bounds.maximum=6,12", "--json").stdout)
    unserved = [row["values"]["unserved_share"] for row in told["sweep"]["rows"]]
    assert unserved[1] < unserved[0]
    assert any("widest bounds.maximum" in note for note in told["details"]["notes"])


# ── recommend ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recommendation_says_the_verdict_first_and_why_each_other_is_not_taken(here):
    told = run(here, "recommend", *VARY, "--out", "out").stdout
    document = strict_json((here / "out" / "report.json").read_text())
    advice = document["recommendation"]
    assert told.split("\n")[0].startswith(advice["headline"][:40])
    assert advice["verdict"] in {"change", "not distinguishable", "keep"}
    assert advice["tried"] == 8
    assert [world["world"] for world in advice["worlds"]][:2] == ["as recorded", "demand x 1.5"]
    paid = advice["worlds"][0]["unserved_price"]
    assert (
        f"Regret is money: what a variant costs, unserved work at {each_unit(paid)} included (--unserved-price"
        in told
    )
    rows = rows_of(here / "out" / "results.csv")
    assert rows[0]["why_not"].startswith("the policy as it is")
    taken = [row for row in rows if not row["why_not"]]
    assert len(taken) == (0 if advice["verdict"] == "keep" else 1)
    assert advice["headline"].rstrip(".")[:30] in (here / "out" / "report.html").read_text()
    assert "embargo" in advice["folded"] or "too few" in advice["folded"]


def test_traffic_without_work_recommends_nothing(here):
    (here / "day.csv").write_text("timestamp,value\n" + "".join(f"{at * 120},0\n" for at in range(200)))
    told = run(here, "recommend", *VARY, "--no-worlds").stdout
    assert told.startswith(
        "Keep the policy as it is: there was no work to serve, which says nothing about any variant."
    )


def test_limits_are_named_where_they_are_broken(here):
    told = strict_json(run(here, "recommend", *VARY, "--at-most", "starts_per_day=0", "--json").stdout)
    advice = told["recommendation"]
    assert advice["verdict"] == "keep"
    assert "no variant keeps VMs started per day at most 0" in advice["headline"]
    assert all("breaks VMs started per day at most 0" in each["why"] for each in advice["not_taken"])


def test_processes_change_no_figure_of_a_recommendation(here):
    one = strict_json(run(here, "recommend", *VARY, "--json", "--no-worlds").stdout)
    two = strict_json(run(here, "recommend", *VARY, "--json", "--no-worlds", "--processes", "2").stdout)
    assert one == two


def test_candidates_are_chosen_where_nobody_says_any(here):
    told = strict_json(run(here, "recommend", "--json", "--no-worlds").stdout)
    assert told["sweep"]["parameters"] == ["reactive.headroom", "guards.stabilisation", "guards.cooldown_in"]
    assert told["recommendation"]["tried"] > 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--vary", "plant.start=5s,50s"), "rather than a choice of yours"),
        (("--vary", "prices.in_service=0.01/h,0.02/h"), "rather than a choice of yours"),
        (("--at-most", "unservd=1%"), "did you mean unserved?"),
        (("--at-most", "unserved=0.1"), "write a number with a percent sign"),
    ],
)
def test_what_is_wrong_with_a_recommendation_is_said(here, arguments, words):
    result = run(here, "recommend", *arguments, code=1)
    assert words in " ".join(result.stderr.split())


def test_what_was_finished_before_ctrl_c_is_written_and_said_to_be_a_part(here, capsys):
    vary = ["reactive.headroom=0%..100%/200"]
    tried = tried_on(here / "web.yaml", here / "day.csv", "gauge", Wanted(), vary, None)
    found = run_variants(tried, Interrupted(), 1, quiet=True)
    assert found.interrupted
    tell(tried, found, here / "out", "csv", with_page=False, as_json=False)
    rows = rows_of(here / "out" / "results.csv")
    assert len(rows) == len(found.variants) == 128
    document = strict_json((here / "out" / "report.json").read_text())
    assert len(document["sweep"]["rows"]) == 128
    assert "variants 128 to 191 have no result: the sweep was interrupted" in document["details"]["cautions"]
    assert "variants 128 to 191" in " ".join(capsys.readouterr().out.split())


def test_advice_at_the_edge_of_what_was_tried_says_that_more_may_lie_beyond(here):
    edge = "reactive.headroom 20% is the lowest value that was tried; values beyond it may cost even less: give them with --vary."
    lax = ("--at-most", "unserved=50%", "--no-worlds")
    told = run(here, "recommend", "--vary", "reactive.headroom=20%,35%,50%", *lax).stdout
    assert edge in " ".join(told.split())
    for others in ("20%,50%", "0%,20%,50%"):
        assert (
            "was tried, and"
            not in run(here, "recommend", "--vary", f"reactive.headroom={others}", *lax).stdout
        )
