"""`trace info|import|cut|merge|synth`: files, output and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import TraceKind
from tests.cli.conftest import (
    COMMAND,
    TWO_FLEETS,
    call,
    daemon_settings,
    embedded_cloud,
    environment,
    strict_json,
    wait_for,
    write_policies,
)

SERIES = "timestamp,value\n2026-03-01T00:00:00Z,60\n2026-03-01T00:01:00Z,0\n2026-03-01T00:03:00Z,30\n"


@pytest.fixture(name="trace")
def _trace(invoke):
    """Run a trace command; its result, which must have ended as told."""

    def run(*arguments, ends=0):
        result = invoke("trace", *arguments)
        assert result.exit_code == ends, result.output
        return result

    return run


@pytest.fixture(name="here")
def _here(tmp_path):
    (tmp_path / "t.csv").write_text(SERIES)
    return tmp_path


def test_info_for_people(trace, here):
    told = trace("info", here / "t.csv", "--kind", "count").stdout
    assert "t.csv: count\n" in told
    assert "2026-03-01T00:00:00Z to 2026-03-01T00:04:00Z" in told
    assert "1 with 1 intervals; the longest 1 from 2026-03-01T00:02:00Z" in told
    assert "mean 30, peak 60, peak to mean 2" in told
    assert "CV 0.816, IDC 20, r24 -" in told
    assert read_trace(here / "t.csv", kind=TraceKind.COUNT).digest in told
    assert "beware: It is shorter than two days" in told


def test_info_for_programs(trace, here):
    (one,) = strict_json(trace("info", here / "t.csv", "--json", "--kind", "count").stdout)
    assert (one["kind"], one["rows"], one["missing"], one["dispersion"]) == (
        "count",
        3,
        1,
        pytest.approx(20.0),
    )
    assert one["longest_gap"] == {"start": "2026-03-01T00:02:00Z", "intervals": 1}
    assert one["daily_correlation"] is None
    assert one["digest"] == read_trace(here / "t.csv", kind=TraceKind.COUNT).digest


def test_what_was_generated_tells_its_kind(trace, here):
    told = trace("synth", here / "level.csv", "--kind", "gauge", "--length", "1d").stdout
    assert "--kind" not in told
    (one,) = strict_json(trace("info", here / "level.csv", "--json").stdout)
    assert one["kind"] == "gauge"
    told = trace(
        "synth", here / "alone" / "level.csv", "--kind", "gauge", "--length", "1d", "--no-manifest"
    ).stdout
    assert "give `--kind gauge` when reading" in told
    assert not (here / "alone" / "manifest.csv").exists()


def test_what_is_written_over_a_noted_file_is_noted_as_what_it_is_now(trace, here):
    trace("synth", here / "x.csv", "--length", "1d")
    trace("import", here / "t.csv", here / "x.csv", "--kind", "gauge", "--force")
    (one,) = strict_json(trace("info", here / "x.csv", "--json").stdout)
    assert (one["kind"], one["rows"]) == ("gauge", 3)


def test_what_is_made_of_a_trace_needs_no_kind_any_more(trace, here):
    trace("cut", here / "t.csv", here / "a.csv", "--kind", "count", "--to", "2026-03-01T00:02:00Z")
    trace("cut", here / "t.csv", here / "b.csv", "--kind", "count", "--from", "2026-03-01T00:01:00Z")
    trace("merge", here / "a.csv", here / "b.csv", here / "both.csv")
    assert read_trace(here / "both.csv").kind is TraceKind.COUNT


@pytest.mark.parametrize(
    "command",
    [
        ("synth", "new.csv", "--length", "1d"),
        ("cut", "t.csv", "new.csv", "--kind", "count"),
        ("import", "t.csv", "new.csv", "--kind", "count"),
        ("merge", "t.csv", "u.csv", "new.csv", "--kind", "count"),
    ],
    ids=lambda command: command[0],
)
def test_where_something_else_is_called_manifest_nothing_is_written(trace, here, command):
    (here / "u.csv").write_bytes((here / "t.csv").read_bytes())
    (here / "manifest.csv").write_text("part,price\nscrew,3\n")
    arguments = [here / each if each.endswith(".csv") else each for each in command]
    told = " ".join(trace(*arguments, ends=1).stderr.split())
    assert "this is not a manifest" in told
    assert "--no-manifest" in told
    assert not (here / "new.csv").exists()
    assert (here / "manifest.csv").read_text() == "part,price\nscrew,3\n"
    trace(*arguments, "--no-manifest")
    assert (here / "new.csv").exists()


def test_info_of_an_unknown_kind_says_so_and_claims_no_digest(trace, here):
    (one,) = strict_json(trace("info", here / "t.csv", "--json").stdout)
    assert (one["kind"], one["digest"], one["dispersion"]) == (None, None, None)
    assert "Nothing says whether" in one["warnings"][0]


def test_info_says_whose_options_help(trace, here):
    (here / "two.csv").write_text("timestamp,a,b\n0,1,2\n60,1,2\n")
    told = trace("info", "two.csv", ends=1)
    assert "name it with `--value`" in told.stderr
    assert told.stderr.rstrip().endswith("; these are options of `autoscaler trace import`")


def test_info_of_several_files_is_a_table(trace, here):
    (here / "vms.csv").write_text("timestamp,vm,cpu_percent\n0,a,50\n0,b,100\n60,a,95\n60,b,95\n")
    lines = trace("info", here / "t.csv", here / "vms.csv", "--kind", "count").stdout.splitlines()
    assert lines[0].split() == ["file", "kind", "every", "span", "gaps", "mean", "p/m", "CV", "r24"]
    assert lines[1].split()[:5] == ["t", "count", "1m", "4m", "1"]
    assert lines[2].split()[:6] == ["vms", "gauge", "1m", "2m", "0", "1.70"]
    assert any("1 intervals (50.0%) are censored" in line for line in lines)


def test_cut_by_time_and_to_longer_intervals(trace, here):
    trace("cut", here / "t.csv", here / "a.csv", "--kind", "count", "--from", "2026-03-01T00:01:00Z")
    assert read_trace(here / "a.csv", kind=TraceKind.COUNT, interval_s=60.0).values.tolist() == [0.0, 30.0]
    told = trace("cut", here / "t.csv", here / "b.csv", "--kind", "count", "--every", "2m", ends=1).stderr
    assert "has one row only" in told
    assert not (here / "b.csv").exists()


def test_a_cut_that_leaves_nothing_says_what_there_is(trace, here):
    told = trace(
        "cut", here / "t.csv", here / "a.csv", "--kind", "count", "--from", "2027-01-01", ends=1
    ).stderr
    assert "it covers 2026-03-01T00:00:00Z to" in told


def test_merge_gives_back_what_cut_took_apart(trace, here):
    trace("synth", here / "day.csv", "--manifest", "--outages-per-day", "3")
    for name, times in (("one", ("--to", "2026-03-02T15:00Z")), ("two", ("--from", "2026-03-02T12:00Z"))):
        trace("cut", here / "day.csv", here / f"{name}.parquet", *times, "--manifest")
    joined = trace(
        "merge", here / "two.parquet", here / "one.parquet", here / "whole.csv.gz", "--manifest", "--json"
    )
    assert strict_json(joined.stdout)["digest"] == read_trace(here / "day.csv").digest
    assert read_trace(here / "whole.csv.gz").digest == read_trace(here / "day.csv").digest


def test_merge_wants_two_and_a_place(trace, here):
    assert "at least two traces" in trace("merge", here / "t.csv", here / "u.csv", ends=2).stderr.replace(
        "\n", " "
    )


def test_import_of_vms_says_what_is_censored(trace, here):
    (here / "vms.csv").write_text("timestamp,vm,cpu_percent\n0,a,50\n0,b,100\n60,a,95\n60,b,95\n")
    told = trace(
        "import", here / "vms.csv", here / "o.csv", "--capacity", "10", "--json", "--interval", "1m"
    ).stdout
    facts = strict_json(told)
    assert (facts["kind"], facts["rows"], facts["censored"]) == ("gauge", 2, 1)
    assert any("1 of 2 intervals (50.0%) are censored" in text for text in facts["notes"])
    assert (here / "o.csv").read_text() == (
        "timestamp,value,censored\n1970-01-01T00:00:00Z,15,0\n1970-01-01T00:01:00Z,19,1\n"
    )


def test_import_of_a_table_as_spreadsheets_of_some_countries_write_it(trace, here):
    (here / "excel.csv").write_bytes(
        "\ufeffZeit;Wert\r\n01.03.2026 00:00;1000,5\r\n01.03.2026 00:01;998,9\r\n".encode()
    )
    how = ("--separator", ";", "--decimal", ",", "--time-format", "%d.%m.%Y %H:%M", "--time", "Zeit")
    trace("import", here / "excel.csv", here / "o.csv", "--kind", "gauge", "--value", "Wert", *how)
    assert (here / "o.csv").read_text().endswith(":00:00Z,1000.5\n2026-03-01T00:01:00Z,998.9\n")
    assert "mean 1,000, peak 1,000," in trace("info", here / "o.csv").stdout
    assert "1k" in trace("info", here / "o.csv", here / "o.csv").stdout


def test_import_of_a_saved_answer_of_prometheus(trace, here):
    series = '{"metric": {}, "values": [[60, "1"], [120, "2"], [180, "3"]]}'
    (here / "a.json").write_text(
        f'{{"status": "success", "data": {{"resultType": "matrix", "result": [{series}]}}}}'
    )
    told = trace("info", here / "a.json", "--kind", "gauge").stdout
    assert "a.json: gauge made from prometheus" in told
    trace("import", here / "a.json", here / "o.csv", "--kind", "gauge", "--describes", "before")
    assert (here / "o.csv").read_text().splitlines()[1] == "1970-01-01T00:00:00Z,1"
    trace("import", here / "a.json", here / "p.csv", "--kind", "gauge", "--describes", "during", ends=2)


def test_import_of_an_export_with_a_column_for_each_service(trace, here):
    (here / "grafana.csv").write_text(
        "sep=,\nTime,api read,api write,cpu\n2026-03-01 00:00:00,5,1,99\n2026-03-01 00:01:00,6,,99\n"
        "2026-03-01 00:02:00,7,2,99\n"
    )
    wanted = (
        "grafana.csv",
        "o.csv",
        "--shape",
        "wide",
        "--skip",
        "1",
        "--columns",
        "api *",
        "--kind",
        "count",
    )
    made = trace("import", *wanted)
    assert made.exit_code == 0, made.output
    assert "o.csv: count, 2 rows every 1m" in made.stdout
    assert "the sum of 2 columns (api read, api write)" in made.stdout
    assert "1 interval stays unknown, since 1 cell is empty" in made.stdout
    made = trace("import", *wanted, "--empty", "zero", "--force", "--json")
    assert '"missing": 0' in made.stdout


def test_a_source_is_never_written_over(trace, here):
    result = trace("import", here / "t.csv", here / "t.csv", "--kind", "count", "--force", ends=1)
    assert "an input of the trace" in result.stderr
    assert (here / "t.csv").read_text() == SERIES


def test_import_of_several_logs(trace, here):
    for name, minute in (("a.log", 0), ("b.log", 1)):
        (here / name).write_text(
            f'1.2.3.4 - - [01/Mar/2026:00:0{minute}:07 +0000] "GET / HTTP/1.1" 200 5\n'
            f'1.2.3.4 - - [01/Mar/2026:00:0{minute}:08 +0000] "GET / HTTP/1.1" 200 5\n'
        )
    told = trace("import", here / "b.log", here / "a.log", here / "o.csv", "--no-manifest").stdout
    assert "4 requests in common format" in told
    assert "--kind count" in told
    assert read_trace(here / "o.csv", kind=TraceKind.COUNT).values.tolist() == [2.0, 2.0]


def test_what_is_there_already_is_replaced_only_by_force(trace, here):
    (here / "o.csv").write_text("precious")
    arguments = ("import", here / "t.csv", here / "o.csv", "--kind", "count")
    assert "--force" in trace(*arguments, ends=1).stderr
    assert (here / "o.csv").read_text() == "precious"
    trace(*arguments, "--force")
    assert read_trace(here / "o.csv", kind=TraceKind.COUNT).values.tolist() == [60.0, 0.0, 30.0]


@pytest.mark.parametrize(
    ("arguments", "ends", "message"),
    [
        (("info", "none.csv"), 1, "there is no such file"),
        (("info", "t.csv", "--kind", "sum"), 2, "write count or gauge"),
        (("import", "t.csv"), 2, "name the source and the file to write"),
        (("import", "t.csv", "o.txt", "--kind", "count"), 1, "must end in"),
        (("import", "t.csv", "o.csv", "--shape", "sheet"), 2, "none of series"),
        (("import", "t.csv", "o.csv", "--coverage", "2"), 2, "not a share"),
        (("import", "t.csv", "o.csv", "--zone", "Moon"), 1, "not a time zone"),
        (("import", "t.csv", "o.csv", "--prometheus", "http://127.0.0.1:9"), 2, "name the source"),
        (("import", "o.csv", "--prometheus", "http://127.0.0.1:9"), 2, "needs --query and --start"),
        (
            (
                "import",
                "o.csv",
                "--prometheus",
                "http://127.0.0.1:9",
                "--query",
                "x",
                "--start",
                "0",
                "--end",
                "9999",
            ),
            1,
            "say what the query gives",
        ),
        (("synth", "o.csv", "--recipe", "none.yaml"), 1, "none.yaml"),
        (("synth", "o.csv", "--length", "1s"), 1, "are not 2 to"),
        (("synth", "o.csv", "--dispersion", "0.5"), 2, "it must be at least 1"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_how_it_ends_when_it_cannot(trace, here, arguments, ends, message):
    result = trace(*arguments, ends=ends)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert not (here / "o.csv").exists()


def test_synth_is_the_same_for_a_seed_and_says_that_it_is_no_recording(trace, here):
    first, again, other = (
        strict_json(trace("synth", here / f"{at}.csv", "--json", "--seed", seed, "--weekend", "40%").stdout)
        for at, seed in enumerate((5, 5, 6))
    )
    assert first["digest"] == again["digest"] != other["digest"]
    assert "this is no recording" in first["notes"][0]
    assert (here / "0.csv").read_bytes() == (here / "1.csv").read_bytes()


def test_synth_from_a_recipe_with_another_seed(trace, here):
    (here / "r.yaml").write_text(
        "seed: 3\nlength: 2h\nkind: gauge\nvariation: 5%\nparts:\n  - level: {work: 600}\n"
    )
    three = strict_json(trace("synth", here / "a.csv", "--recipe", here / "r.yaml", "--json").stdout)
    four = strict_json(
        trace("synth", here / "b.csv", "--recipe", here / "r.yaml", "--json", "--seed", "4").stdout
    )
    assert (three["kind"], three["rows"]) == ("gauge", 120)
    assert three["digest"] != four["digest"]


@pytest.fixture(name="long_log", scope="module")
def _long_log(tmp_path_factory):
    """A log of twenty million lines, which take some seconds to read."""
    line = b'1.2.3.4 - - [01/Mar/2026:00:00:07 +0000] "GET / HTTP/1.1" 200 5\n'
    path = tmp_path_factory.mktemp("log") / "long.log.gz"
    path.write_bytes(gzip.compress(line * 10_000) * 2000)
    return path


def reads(process, path):
    opened = set()
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in between
            opened.add(fd.readlink())
    return path in opened


def test_ctrl_c_while_reading_leaves_no_half_file(here, long_log):
    command = [COMMAND, "trace", "import", long_log, "o.csv"]
    with subprocess.Popen(command, cwd=here, env=environment(), stderr=subprocess.PIPE) as process:
        wait_for(lambda: reads(process, long_log), lambda: "it never opened the file", process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (130, b"trace import: interrupted\n")
    assert [path.name for path in here.iterdir()] == ["t.csv"]


def test_what_takes_longer_shows_a_bar_on_a_terminal(here, long_log):
    ours, theirs = pty.openpty()
    command = [COMMAND, "trace", "import", long_log, "o.csv"]
    with subprocess.Popen(
        command, cwd=here, env={**environment(), "TERM": "xterm"}, stderr=theirs
    ) as process:
        os.close(theirs)
        told = b""
        while b"reading long.log.gz" not in told:
            told += os.read(ours, 1000)  # an OSError once the command has ended without a word
        process.send_signal(signal.SIGINT)
        process.wait(300)
    os.close(ours)
    assert process.returncode == 130


# ── From running things ─────────────────────────────────────────────────────────────────────────────────


async def test_import_from_a_prometheus(here):
    async def answer(request):
        form = await request.post()
        start, end, step = (float(form[name]) for name in ("start", "end", "step"))
        values = [[start + at * step, str(at)] for at in range(int((end - start) / step) + 1)]
        result = [{"metric": {}, "values": values}]
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})

    app = web.Application()
    app.router.add_post("/api/v1/query_range", answer)
    async with TestServer(app, host="127.0.0.1") as there:
        arguments = (
            "--query",
            "sum(rate(x[1m]))",
            "--start",
            "2h",
            "--kind",
            "gauge",
            "--manifest",
            "--json",
        )
        url = str(there.make_url("/"))
        result = await asyncio.to_thread(
            call, "trace", "import", "o.csv", "--prometheus", url, *arguments, cwd=here
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert strict_json(result.stdout)["rows"] in {119, 120}
    assert read_trace(here / "o.csv").interval_s == 60.0


def scraped(folder, port):
    """A policy whose VMs show a gauge; its file."""
    path = folder / "web.yaml"
    path.write_text(
        "fleet: web\nact: false\n"
        "signal:\n  kind: throughput\n  source: scrape\n  max_age: 10s\n"
        f"  scrape: {{url: 'http://{{address}}:{port}/metrics', metric: load, type: gauge}}\n"
        "vm: {capacity: 100/s, start_time: 30s}\nbounds: {minimum: 1, maximum: 6}\nreactive: {}\n"
        "prices: {in_service: 1/h, stopped: 0.1/h}\n"
    )
    return path


async def test_record_of_vms_by_address_and_ctrl_c_keeps_it(here):
    app = web.Application()
    seen = []

    async def metrics(_request):
        seen.append(1)
        return web.Response(text="load 40\n")

    app.router.add_get("/metrics", metrics)
    async with TestServer(app, host="127.0.0.1") as there:
        policy = scraped(here, there.port)
        arguments = ("--every", "1s", "--vm", "127.0.0.1", "--vm", "localhost", "--manifest")
        command = [COMMAND, "trace", "record", policy, "o.csv", "--for", "1h", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        await asyncio.to_thread(wait_for, lambda: len(seen) >= 8, lambda: f"{len(seen)} scrapes came")
        process.send_signal(signal.SIGINT)
        _, told = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode == 130
    assert b"what was recorded until then is kept" in told
    trace = read_trace(here / "o.csv")
    assert set(trace.values.tolist()) == {80.0}
    assert len(trace.values) >= 3


def test_record_of_vms_that_ec2_lists_and_nothing_is_changed(here):
    policies = write_policies(here / "policies")
    with embedded_cloud(*TWO_FLEETS) as endpoint:
        settings = daemon_settings(endpoint, here / "state")
        told = call(
            "trace", "record", policies / "web.yaml", "o.csv", "--for", "4s", "--every", "2s", "--json",
            cwd=here, **settings,
        )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")
    facts = strict_json(told.stdout)
    assert (facts["kind"], facts["interval_s"], facts["rows"]) == ("gauge", 2.0, 2)
    assert read_trace(here / "o.csv", kind=TraceKind.GAUGE).values.tolist() == pytest.approx([120.0, 120.0])
    assert not (here / "state").exists()


def test_record_without_a_region_or_readings_is_one_sentence(here, free_port):
    policy = scraped(here, free_port)
    told = call("trace", "record", policy, "o.csv", "--for", "2s", "--every", "1s", cwd=here)
    assert (told.returncode, told.stdout) == (1, "")
    assert "no AWS Region is set" in told.stderr
    told = call(
        "trace", "record", policy, "o.csv", "--for", "2s", "--every", "1s", "--vm", "127.0.0.1", cwd=here
    )
    assert told.returncode == 1
    assert "0 of 2 readings gave a value, but a trace needs two" in told.stderr
    assert "refused" in told.stderr
    assert not (here / "o.csv").exists()
