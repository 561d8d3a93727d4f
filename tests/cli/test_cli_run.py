"""`run`, `status` and `explain` as processes, against an embedded cloud behind its EC2 endpoint."""

import gzip
import re
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoscaler.cli.run import _journal
from autoscaler.clock import SystemClock
from autoscaler.settings import Settings
from tests.cli.conftest import (
    COMMAND,
    INTERRUPT,
    TERMINATE,
    TWO_FLEETS,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    environment,
    get,
    strict_json,
    wait_for,
    write_policies,
)


@pytest.fixture(name="cloud", scope="module")
def _cloud():
    with embedded_cloud(*TWO_FLEETS) as url:
        yield url


@pytest.fixture(name="daemon", scope="module")
def _daemon(cloud, tmp_path_factory):
    """A daemon of four policy files, two of them good; some ticks old."""
    folder = tmp_path_factory.mktemp("running")
    policies = write_policies(folder / "policies")
    web = (policies / "web.yaml").read_text()
    (policies / "broken.yaml").write_text(web.replace("fleet: web", "fleet: broken\nzone: a"))
    (policies / "silent.yaml").write_text(
        web.replace("fleet: web", "fleet: silent").replace("day.csv", "gone.csv")
    )
    with Program("run", cwd=folder, **daemon_settings(cloud, folder / "state")) as program:
        program.url = program.listens()
        program.state_dir = folder / "state"
        program.hears(r"web: starting 1 \(2 to 3\)")
        program.hears(r"web: holding 3")
        wait_for(
            lambda: all(f["decision"] for f in strict_json(get(f"{program.url}/api/v1/status")[1])["fleets"])
        )
        yield program


def test_a_broken_policy_and_one_without_its_trace_do_not_stop_the_others(daemon):
    said = daemon.err.read_text()
    left_out = "policies_rejected  text=.fleets whose policies cannot be used are left out: "
    assert re.search(f"{left_out}.*broken.yaml:2:1: error: unknown key `zone`", said)
    assert re.search(f"{left_out}fleet silent is left out: ", said)
    shown = call("status", "--url", daemon.url, cwd=daemon.state_dir.parent)
    assert "policies: fleets whose policies cannot be used are left out in the folder: " in shown.stdout
    asked = ("--kind", "policies_rejected", "--state-dir", daemon.state_dir)
    event = call("events", *asked, cwd=daemon.state_dir.parent).stdout
    assert "broken.yaml:2:1" in event
    assert "(and 1 more; see `autoscaler validate`)" in event
    assert "gone.csv" in said
    assert "Traceback" not in said
    fleets = strict_json(get(f"{daemon.url}/api/v1/status")[1])["fleets"]
    assert [(fleet["fleet"], fleet["act"]) for fleet in fleets] == [("api", False), ("web", True)]


def test_health_metrics_and_an_index_are_served(daemon):
    assert get(f"{daemon.url}/healthz") == (200, "ok\n")
    code, metrics = get(f"{daemon.url}/metrics")
    assert code == 200
    for line in (
        'autoscaler_desired_vms{fleet="web"} 3.0',
        'autoscaler_acts{fleet="web"} 1.0',
        'autoscaler_acts{fleet="api"} 0.0',
        'autoscaler_actions_total{fleet="web",outcome="accepted",verb="start"} 1.0',
    ):
        assert line in metrics, line
    assert "/metrics" in get(f"{daemon.url}/")[1]
    assert get(f"{daemon.url}/nothing")[0] == 404


def test_the_acting_fleet_starts_and_the_one_in_shadow_touches_nothing(daemon, cloud):
    calls = strict_json(get(f"{cloud}/_world/calls")[1])
    assert calls["vms"]["StartInstances"] == 1
    assert "StopInstances" not in calls["accepted"]
    assert strict_json(get(f"{cloud}/_world/state?fleet=api")[1])["counts"]["running"] == 2
    fleets = {f["fleet"]: f for f in strict_json(get(f"{daemon.url}/api/v1/status")[1])["fleets"]}
    assert fleets["web"]["decision"]["desired"] == 3
    assert fleets["api"]["decision"]["desired"] == 4


def test_status_prints_a_row_and_a_sentence_per_fleet(daemon, tmp_path):
    result = call("status", "--url", f"{daemon.url}/", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("fleet "))
    assert max(map(len, lines[head : head + 3])) <= 80
    assert any(line.split()[:2] == ["web", "yes"] for line in lines)
    assert any(line.split()[:2] == ["api", "shadow"] for line in lines)
    assert any(line.startswith("web: holding 3") for line in lines)
    as_json = call("status", "--json", cwd=tmp_path, http_port=daemon.url.rpartition(":")[2])
    assert strict_json(as_json.stdout)["healthy"] is True


def test_explain_tells_of_the_start_while_the_daemon_runs(daemon, tmp_path):
    last = call("explain", "web", "--state-dir", daemon.state_dir, "--json", cwd=tmp_path)
    assert strict_json(last.stdout)["decision"]["desired"] == 3
    # The first listing may not have come in time.
    first = daemon.hears(r"(\S+)Z \[info     \] tick [^\n]*web: starting 1")[1]
    result = call("explain", "web", "--at", f"{first}Z", cwd=tmp_path, state_dir=daemon.state_dir)
    assert result.returncode == 0, result.stderr
    assert "start 1: 1 accepted" in result.stdout
    assert "minimum: the policy's minimum is 3" in result.stdout
    early = call("explain", "web", "--at", "2020-01-01T00:00Z", cwd=tmp_path, state_dir=daemon.state_dir)
    assert early.returncode == 1
    assert "has no decision for web at or before 2020-01-01T00:00:00Z; its first is of 20" in early.stderr
    unknown = call("explain", "wbe", cwd=tmp_path, state_dir=daemon.state_dir)
    assert unknown.returncode == 1
    assert unknown.stderr.endswith("has no fleet wbe; did you mean web?\n")


def test_a_second_daemon_on_the_same_state_directory_names_the_first(daemon, cloud, tmp_path):
    write_policies(tmp_path / "policies")
    result = call("run", cwd=tmp_path, **daemon_settings(cloud, daemon.state_dir))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"in use by process {daemon.process.pid}" in result.stderr


def test_a_taken_port_is_one_sentence(cloud, taken_port, tmp_path):
    write_policies(tmp_path / "policies")
    result = call("run", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "state", http_port=taken_port))
    assert result.returncode == 1
    assert result.stderr.startswith(f"run: cannot listen on 127.0.0.1:{taken_port}: address already in use; ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [TERMINATE, INTERRUPT])
def test_a_signal_ends_the_daemon_and_leaves_the_vms(number, tmp_path):
    policies = write_policies(tmp_path / "policies")
    (policies / "api.yaml").unlink()
    with (
        embedded_cloud(*TWO_FLEETS) as url,
        Program(
            "run", "--log-format", "json", cwd=tmp_path, **daemon_settings(url, tmp_path / "state")
        ) as program,
    ):
        program.hears(r"web: starting 1 \(2 to 3\)")
        assert program.end(number) == 0
        events = [strict_json(line)["event"] for line in program.err.read_text().splitlines()]
        counts = strict_json(get(f"{url}/_world/state?fleet=web")[1])["counts"]
        calls = strict_json(get(f"{url}/_world/calls")[1])
    assert events[0] == "daemon_started" or "listening" in events[:2]
    # The tick under way, if there is one, is finished; no other follows.
    assert events[events.index("daemon_stopping") :].count("tick") <= 1
    assert counts["running"] + counts["pending"] == 3
    assert "StopInstances" not in calls["accepted"]


def test_an_endpoint_that_is_down_is_said_and_the_daemon_ticks_on(free_port, tmp_path, invoke):
    write_policies(tmp_path / "policies")
    settings = daemon_settings(f"http://127.0.0.1:{free_port}", tmp_path / "state")
    with Program("run", cwd=tmp_path, **settings) as program:
        url = program.listens()
        program.hears(r"listing_failed +text='DescribeInstances: cannot reach http://127\.0\.0\.1")

        def ticks():
            return strict_json(get(f"{url}/api/v1/status")[1])["tick"] or 0

        first = wait_for(ticks)
        wait_for(lambda: ticks() > first)
        status = strict_json(get(f"{url}/api/v1/status")[1])
        metrics = get(f"{url}/metrics")[1]
        shown = invoke("status", "--url", url)
        assert program.end(TERMINATE) == 0
    # Where the tick is shorter than the client's own patience, it says that no answer came in time.
    assert all(re.search("cannot reach|no answer", fleet["listing_error"]) for fleet in status["fleets"])
    assert re.search("api, web: list of VMs: .*(cannot reach|no answer)", shown.stdout)
    assert {fleet["decision"]["start"] for fleet in status["fleets"]} == {0}
    assert float(metrics.partition("\nautoscaler_listing_errors_total ")[2].split()[0]) >= 2


def refused(invoke, *arguments, policies=True):
    """The one message of a `run` that cannot start."""
    if policies:
        write_policies(Path("policies"))
    result = invoke("run", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    return result.stderr.removesuffix("\n")


def test_without_a_region_it_says_where_to_name_one(tmp_path, invoke):
    message = refused(invoke)
    assert message.startswith("run: no AWS Region is set; name it with --region, ")
    assert "\n" not in message


def test_without_credentials_it_says_how_to_give_them(tmp_path, invoke):
    message = refused(invoke, "--region", "us-east-1")
    assert message.startswith("run: EC2: no credentials found, ")
    assert "\n" not in message


def test_an_unknown_setting_is_refused_with_the_known_ones(tmp_path, invoke):
    (tmp_path / "autoscaler.toml").write_text('aws_regoin = "us-east-1"\n')
    message = refused(invoke)
    assert message.startswith(
        "run: autoscaler.toml: aws_regoin is not a setting; did you mean aws_region? Known are: act_timeout_s, aws_"
    )


def test_a_folder_without_policies_is_said(tmp_path, invoke):
    (tmp_path / "policies").mkdir()
    message = refused(invoke, "--region", "us-east-1", policies=False)
    assert "there is no policy in this folder" in message
    assert message.endswith("run: no usable policy in policies; see `autoscaler validate`")


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path, invoke):
    (tmp_path / "file").write_text("")
    message = refused(invoke, "--state-dir", tmp_path / "file" / "state", "--region", "us-east-1")
    assert str(tmp_path / "file" / "state") in message
    assert "\n" not in message


def test_a_run_may_be_given_its_length(cloud, tmp_path):
    policies = write_policies(tmp_path / "policies")
    (policies / "web.yaml").unlink()
    with Program("run", "--for", "2s", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "state")) as program:
        assert program.process.wait(300) == 0
        assert "Traceback" not in program.output()


def test_a_log_that_nothing_takes_keeps_no_daemon_from_deciding(cloud, tmp_path):
    policies = write_policies(tmp_path / "policies")
    (policies / "web.yaml").unlink()
    given = environment(**daemon_settings(cloud, tmp_path / "state"))
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [COMMAND, "run", "--for", "2s"], cwd=tmp_path, env=given, stderr=full, timeout=300, check=False
        )
    assert ended.returncode == 0
    told = call("explain", "api", "--since", "1h", "--state-dir", tmp_path / "state", cwd=tmp_path)
    assert "api, " in told.stdout
    assert "decisions: " in told.stdout


async def test_a_journal_that_is_brought_to_this_version_is_told_once(tmp_path):
    older = Path(__file__).parents[1] / "store" / "data" / "journal-v2.sqlite.gz"
    (tmp_path / "journal.sqlite").write_bytes(gzip.decompress(older.read_bytes()))
    said = []
    telemetry = SimpleNamespace(log=SimpleNamespace(info=lambda event, text: said.append((event, text))))
    for _ in range(2):
        async with AsyncExitStack() as stack:
            _journal(Settings(state_dir=tmp_path), SystemClock(), telemetry, stack)
    text = "from version 2 to 3; the program that wrote version 2 refuses it from now on"
    assert said == [("journal_migrated", text)]
