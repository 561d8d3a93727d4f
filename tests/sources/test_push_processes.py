"""A real daemon on the embedded cloud, with samples pushed by hand and by a real Prometheus with deploy/remote-write.yml."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from autoscaler.cloud.setup import FleetSetup
from autoscaler.store import JournalReader
from tests.cli.conftest import (
    OPENER,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    get,
    strict_json,
    wait_for,
)
from tests.real import require_real
from tests.sources.real_prometheus import running

SNIPPET = Path(__file__).parents[2] / "deploy" / "remote-write.yml"
TOKEN = "0123456789abcdef0123456789abcdef"
POLICY = """\
fleet: web
act: true
signal: {kind: total, source: push, push: {metric: "up"}}
vm: {capacity: 0.5/s, start_time: 30s, stop_time: 30s}
readiness: {probe: status_checks}
bounds: {minimum: 0, maximum: 6}
reactive: {headroom: 0%}
prices: {in_service: 1/h, stopped: 0.1/h}
"""


@pytest.fixture(name="settings")
def _settings(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "web.yaml").write_text(POLICY)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    with embedded_cloud(FleetSetup("web", 6)) as url:
        yield daemon_settings(url, tmp_path / "state", tick_s=120, push_token_file=tokens)


def started(state):
    """Number of VMs in the recorded actions that have an outcome."""
    with JournalReader(state) as reader:
        return sum(action.intent.count for action in reader.actions("web", 0, 1e12) if action.outcomes)


def push(url, value, at_s, token=TOKEN):
    body = json.dumps([{"fleet": "web", "value": value, "timestamp": at_s}]).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with OPENER.open(urllib.request.Request(f"{url}/v1/samples", body, headers), timeout=300) as answer:
        return strict_json(answer.read().decode())


def test_a_burst_that_is_pushed_starts_vms_long_before_the_next_tick(tmp_path, settings):
    with Program("run", cwd=tmp_path, **settings) as program:
        url = program.listens()
        program.hears("/v1/samples")
        wait_for(lambda: strict_json(get(f"{url}/api/v1/status")[1])["tick"], alive=program.process)
        now_s = strict_json(get(f"{url}/api/v1/status")[1])["at_s"]
        assert push(url, 1.6, now_s) == {"taken": 1}
        wait_for(lambda: started(tmp_path / "state") == 4, program.output, alive=program.process)
        status = strict_json(get(f"{url}/api/v1/status")[1])
        assert status["push"]["samples"] == {"taken": 1}
        assert 'autoscaler_early_turns_total{cause="push"} 1.0' in get(f"{url}/metrics")[1]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            push(url, -5.0, now_s)
        shown = " ".join(call("status", "--url", url, cwd=tmp_path, **settings).stdout.split())
        assert "push: the value -5 is below 0; send the level or the rate, not a change" in shown
        assert TOKEN not in program.output()


@pytest.mark.real
async def test_a_real_prometheus_pushes_what_it_scrapes(tmp_path, settings, unused_tcp_port):
    require_real("prometheus", shutil.which("prometheus") is not None)
    credentials = tmp_path / "credentials"
    credentials.write_text(TOKEN)
    config = YAML(typ="safe").load(SNIPPET)
    (write,) = config["remote_write"]
    write["authorization"]["credentials_file"] = str(credentials)
    write["write_relabel_configs"][0]["regex"] = "up"
    target = {"targets": [f"127.0.0.1:{unused_tcp_port}"], "labels": {"fleet": "web"}}
    config["scrape_configs"] = [{"job_name": "itself", "static_configs": [target]}]
    prometheus = tmp_path / "prometheus"
    prometheus.mkdir()
    with Program("run", cwd=tmp_path, **settings) as program:
        url = program.listens()
        write["url"] = f"{url}/v1/samples"
        config_text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())
        async with running(prometheus, unused_tcp_port, config=config_text):
            wait_for(lambda: started(tmp_path / "state") == 2, program.output, alive=program.process)
            push_status = strict_json(get(f"{url}/api/v1/status")[1])["push"]
        assert push_status["refused"] == []
        assert push_status["samples"]["taken"] >= 1
        # When it stops, it marks its series as ended.
        assert "push_refused" not in program.output()
