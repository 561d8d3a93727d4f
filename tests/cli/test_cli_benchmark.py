"""The `benchmark` command as typed."""

import csv
import math
import signal
import subprocess

import pytest

from autoscaler.cli.progress import APART_S, Lines
from tests.cli.conftest import COMMAND, PATIENCE_S, call, environment, strict_json


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


def test_what_is_no_folder_of_traces_is_told_with_the_way_out(here):
    (here / "empty").mkdir()
    assert "there is no folder none; a manifest.csv names" in run(here, "none", code=1).stderr
    assert "empty/manifest.csv is not there; a manifest.csv names" in run(here, "empty", code=1).stderr
    assert "shop.yaml is a file; name the folder" in run(here, "shop.yaml", code=1).stderr
    for wrong in ("none.json", "shop.yaml"):
        told = run(here, "traces", "--against", wrong, code=1).stderr
        assert "name the results.json that `autoscaler benchmark --out` has left" in told
        assert "Errno" not in told


def test_where_there_is_no_terminal_a_line_says_that_it_runs_and_ctrl_c_does_not_wait(here):
    rows = "".join(f"{1_772_409_600 + 10 * at},{100 + at % 97}\n" for at in range(200_000))
    (here / "traces" / "calm.csv").write_text("timestamp,value\n" + rows)
    (here / "traces" / "manifest.csv").write_text("file,kind,interval_s\ncalm.csv,count,10\n")
    with subprocess.Popen(
        [COMMAND, "benchmark", "traces", "--vms", "8"],
        cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr.readline().startswith("1 trace, ")
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=PATIENCE_S / 4)
    assert (process.returncode, shown, said) == (130, "", "benchmark: interrupted\n")


class Watch:
    """Seconds that a test sets."""

    at_s = 0.0

    def monotonic(self):
        return self.at_s


def test_lines_are_sparse_and_say_how_far_it_is(capsys):
    watch = Watch()
    lines = Lines("9 traces", watch)
    for watch.at_s, share in (
        (APART_S - 1, 0.1),
        (APART_S + 1, 0.2),
        (APART_S + 2, 0.3),
        (190.0, 0.9),
        (900.0, 1.0),
    ):
        lines(share)
    Lines("nothing", watch, quiet=True)(0.5)
    assert capsys.readouterr().err.splitlines() == [
        "9 traces …", "9 traces: 20% done after 21 s", "9 traces: 90% done after 3.2 min",
    ]  # fmt: skip


def test_each_vm_of_a_table_takes_part(here):
    rows = [
        f"{600 * at},{vm},{value}" for at in range(120) for vm, value in (("web", 20 + at % 9), ("idle", 0))
    ]
    (here / "traces" / "vms.csv").write_text("\n".join(["timestamp,vm,cpu_percent", *rows, ""]))
    (here / "traces" / "manifest.csv").write_text("file,kind,interval_s\nvms.csv,per-vm,600\n")
    result = run(here, "traces", *VARIED, "--each-vm", "--no-page", "--out", "out")
    assert "1 VM that did almost nothing, or not for long, left out: vms/idle" in result.stderr
    assert [row["trace"] for row in strict_json((here / "out" / "results.json").read_text())["traces"]] == [
        "vms/web"
    ]
    assert "--each-vm" in run(here, "--generated", "--each-vm", code=2).stderr
