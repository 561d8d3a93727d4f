"""`benchmark` as it is typed."""

import csv
import math

import pytest

from tests.cli.conftest import call, strict_json


@pytest.fixture(name="here")
def _here(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    for name, height in (("calm", 20.0), ("busy", 60.0)):
        rows = (
            f"{1_772_409_600 + 600 * at},{round(100 + height * math.sin(at / 12) + at % 7)}\n"
            for at in range(120)
        )
        (folder / f"{name}.csv").write_text("timestamp,value\n" + "".join(rows))
    (folder / "manifest.csv").write_text("file,kind,interval_s\ncalm.csv,count,600\nbusy.csv,gauge,600\n")
    (tmp_path / "shop.yaml").write_text(
        "fleet: shop\nsignal: {kind: total, source: trace, trace: {}}\nvm: {capacity: 7/s}\n"
        "bounds: {minimum: 0, maximum: 5}\nreactive: {headroom: 50%}\n"
    )
    return tmp_path


def run(here, *arguments, code=0):
    result = call("benchmark", *arguments, cwd=here)
    assert result.returncode == code, result.stderr
    return result


VARIED = ("--policy", "shop.yaml", "--vary", "reactive.headroom=0%,25%,100%", "--vms", "8")


def test_a_benchmark_shows_a_table_and_leaves_its_files(here):
    told = run(here, "traces", *VARIED, "--processes", "1", "--out", "out").stdout
    assert told.startswith("shop: cost over the least possible")
    assert "Shorter traces: of 6 comparisons" in told
    assert "short_oracle" in told
    assert "…" not in told
    names = {path.name for path in (here / "out").iterdir()}
    assert names == {"results.json", "results.csv", "results.md", "results.html", "fronts.svg", "regret.svg"}
    with (here / "out" / "results.csv").open(newline="") as stream:
        rules = {row["rule"] for row in csv.DictReader(stream)}
    assert {"shop", "kubernetes", "short_oracle"} <= rules
    page = (here / "out" / "results.html").read_text()
    assert "http:" not in page.split('id="plotly"')[0]
    assert "<td>calm *</td>" in page
    assert run(here, "traces", *VARIED, "--out", "out", code=1).stderr.count("--force") == 1


def test_a_policy_that_forecasts_is_told_and_drawn_with_its_coverage(here):
    (here / "shop.yaml").write_text(
        "fleet: shop\nsignal: {kind: total, source: trace, trace: {}}\nvm: {capacity: 7/s}\n"
        "bounds: {minimum: 0, maximum: 5}\nobjective: {shortage_price: 2/h}\nprices: {in_service: 1/h}\n"
    )
    varied = ("--policy", "shop.yaml", "--vary", "objective.shortage_price=2/h,20/h", "--vms", "8")
    run(here, "traces", *varied, "--processes", "1", "--out", "out")
    traces = strict_json((here / "out" / "results.json").read_text())["traces"]
    shares = [trace["fleets"][0]["coverage"]["shop"] for trace in traces]
    assert all(0.0 < each[0] < each[1] < each[2] <= each[3] <= 1.0 for each in shares)
    assert "below the 95% quantile" in (here / "out" / "results.md").read_text()
    assert "<h2>Coverage</h2>" in (here / "out" / "results.html").read_text()
    assert "busy, 8" in (here / "out" / "coverage.svg").read_text()


def test_an_earlier_run_lends_the_peers_and_two_processes_find_the_same(here):
    run(here, "traces", "--peers-only", "--vms", "8", "--no-page", "--out", "peers")
    lent = strict_json(run(here, "traces", *VARIED, "--against", "peers", "--json").stdout)
    whole = strict_json(run(here, "traces", *VARIED, "--processes", "1", "--json").stdout)
    assert lent == whole
    assert [trace["trace"] for trace in lent["traces"]] == ["calm", "busy"]


def test_wrong_usage_is_told_in_a_sentence(here):
    assert "--generated" in run(here, code=2).stderr
    assert "--vms" in run(here, "traces", "--vms", "0", code=2).stderr
    assert "--policy" in run(here, "traces", "--policy", "shop.yaml", code=2).stderr
    assert "no series called quiet" in run(here, "traces", "--only", "quiet", code=1).stderr
    told = run(here, "--generated", "--only", "generated-mix,lattice", code=2).stderr
    told = " ".join(told.replace("│", " ").split())
    assert "no generated trace is called lattice; there are generated-" in told
    assert "generated-lattice" in told
    wrong = run(
        here, "traces", "--policy", "shop.yaml", "--vary", "reactive.headrom=1%", "--processes", "1", code=1
    )
    assert "did you mean `reactive.headroom`?" in wrong.stderr
