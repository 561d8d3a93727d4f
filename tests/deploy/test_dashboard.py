"""deploy/dashboard.json: it shows every metric, and a real Prometheus answers its queries about a real daemon."""

import json
import re
import urllib.parse
from importlib.resources import files
from itertools import combinations

import pytest
from prometheus_client.metrics import MetricWrapperBase

from autoscaler.daemon.telemetry import Telemetry
from tests.cli.conftest import Program, call, daemon_settings, get, strict_json, wait_for, write_policies
from tests.deploy.test_alert_rules import RULES, rules
from tests.free_ports import Ports
from tests.sources.real_prometheus import running

DASHBOARD = RULES.with_name("dashboard.json")
WORDS = {"__rate_interval": "1m", "__value": "", "__url_time_range": ""}
"""Variables of Grafana's own, and what stands for them in a query here."""
UNTIL_IT_HAPPENS = (
    "ALERTS", 'outcome!="accepted"', "autoscaler_cloudwatch_metrics_requested_total", "autoscaler_condition",
    "autoscaler_early_turns_total", "autoscaler_hibernated_target_vms", "autoscaler_hints_total",
    "autoscaler_learned_start_seconds", "autoscaler_override_ceiling_vms",
    "autoscaler_push_requests_refused_total", "autoscaler_push_samples_total", "autoscaler_slow_vms",
    "autoscaler_source_errors_total",
)  # fmt: skip
"""What a daemon shows only once there was something of it, or after half a minute: these may give nothing."""


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    """Every expression with its legend."""
    shown = [
        (target["expr"], target.get("legendFormat", "")) for panel in panels() for target in panel["targets"]
    ]
    return shown + [(note["expr"], note["titleFormat"]) for note in dashboard()["annotations"]["list"]]


def labels_of_metrics():
    """Names as Prometheus has them, each with the labels that it may carry."""
    found = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
    for metric in vars(Telemetry()).values():
        if isinstance(metric, MetricWrapperBase):
            (told,) = metric.describe()
            labels = set(metric._labelnames)
            if told.type == "histogram":
                found |= {f"{told.name}_{part}": labels for part in ("count", "sum")}
                found[f"{told.name}_bucket"] = labels | {"le"}
            else:
                found[f"{told.name}_total" if told.type == "counter" else told.name] = labels
    return found


def metrics_in(text):
    return set(re.findall(r"\b(?:autoscaler_\w+|up\b|ALERTS)", text))


def test_each_metric_and_label_that_it_asks_for_exists():
    there = labels_of_metrics()
    for expression, legend in expressions():
        names = metrics_in(expression)
        assert names
        assert names <= set(there), expression
        known = set.union(*(there[name] for name in names)) | {"instance", "job"}
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", matchers))
            assert asked <= there[name] | {"instance", "job"}, expression
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(group.split(", ")) <= known, expression
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= known, legend


def test_places_are_told_apart_also_where_the_only_one_has_no_name():
    """A legend of a label that is empty would be none, and two places must not have the same."""
    there = labels_of_metrics()
    for expression, legend in expressions():
        if any("provider" in there[name] for name in metrics_in(expression)):
            named = re.search(r'label_(?:replace|join)\(.*, "(\w+)", .*"provider"', expression)
            assert named, expression
            assert f"{{{{{named[1]}}}}}" in legend, expression


def test_every_metric_of_the_daemon_is_on_it():
    """One that is added has to be given a place, so that somebody sees it."""
    shown = metrics_in(" ".join(expression for expression, _ in expressions()))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in labels_of_metrics()}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


def test_whoever_is_alerted_sees_there_what_the_alert_is_about():
    shown = metrics_in(" ".join(expression for expression, _ in expressions()))
    for rule in rules():
        assert metrics_in(rule["expr"]) <= shown, rule["alert"]
    filters = re.findall(r"autoscaler_vms\{[^}]*phase=\"(\w+)\"", " ".join(rule["expr"] for rule in rules()))
    assert all(f'phase="{phase}"' in DASHBOARD.read_text().replace("\\", "") for phase in filters)


def test_variables_that_it_uses_are_defined_and_those_that_are_defined_are_used():
    text = DASHBOARD.read_text()
    used = set(re.findall(r"\$\{?(\w+)", text))
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert used - set(WORDS) == defined


def test_panels_have_a_number_of_their_own_and_do_not_overlap():
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] >= 0, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(everything, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one['title']} and {other['title']}"


def test_each_panel_says_what_it_is_and_its_colours_are_of_what_it_shows():
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets), panel["title"]
        shown = [re.sub(r"\{\{\w+\}\}", "x", target.get("legendFormat", "")) for target in targets]
        for change in panel.get("transformations", ()):
            renamed = change["options"].get("renameByName", {})
            assert set(renamed) <= {f"Value #{target['refId']}" for target in targets}
            shown += [*renamed.values(), "fleet"]
        for override in panel["fieldConfig"]["overrides"]:
            kind, wanted = override["matcher"]["id"], override["matcher"]["options"]
            pattern = wanted if kind == "byRegexp" else re.escape(wanted)
            assert any(re.fullmatch(pattern, name) for name in shown), f"{panel['title']}: {wanted}"


def test_its_link_leads_to_the_fleet_on_the_status_page():
    (link,) = (link["url"] for link in dashboard()["links"] if link["title"] == "Status page")
    assert link == "http://${instance}/#fleet=${fleet:percentencode}"
    script = (files("autoscaler.web") / "page/status.js").read_text()
    assert 'decodeURIComponent(location.hash.replace(/^#fleet=/, ""))' in script


class Asking:
    """What Prometheus answers."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, **parameters):
        code, text = get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}")
        assert code == 200, f"{parameters}: {text}"
        return strict_json(text)["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def values(self, query):
        """What a variable's `label_values(SELECTOR, LABEL)` offers."""
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        return sorted({series[label] for series in self.ask("series", **{"match[]": selector})})


@pytest.mark.real
async def test_a_real_prometheus_answers_all_of_it_of_a_real_daemon(tmp_path):
    """Two fleets: `web` really starts VMs of an embedded cloud that is quick; `api` is in shadow and has none."""
    write_policies(tmp_path / "policies")
    cloud = ("cloud", "--port", 0, "--vms", 6, "--speed", 60)
    with Ports() as ports, Program(*cloud, cwd=tmp_path) as endpoint:
        url, port = endpoint.hears(r"(http://127\.0\.0\.1:\d+)")[1], ports.one()
        settings = daemon_settings(url, tmp_path / "state", http_port=port)
        scraped = f"{{job_name: autoscaler, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}"
        config = f"rule_files: ['{RULES}']\nscrape_configs: [{scraped}]\n"
        with Program("run", cwd=tmp_path, **settings) as daemon:
            daemon.listens()
            for operator in (("override", "web", "--floor", 3), ("pause", "stop", "--fleet", "web")):
                done = call(*operator, "--for", "1h", "--reason", "tests", cwd=tmp_path, **settings)
                assert done.returncode == 0, done.stderr
            (tmp_path / "policies/api.yaml").touch()
            async with running(tmp_path, ports.one(), config=config) as prometheus:
                answers = Asking(prometheus)
                wait_for(lambda: answers.query("autoscaler_acts"), daemon.output, alive=daemon.process)
                answered = {**WORDS, "datasource": "any"}
                for variable in dashboard()["templating"]["list"][1:]:
                    offered = answers.values(filled(variable["query"]["query"], answered))
                    answered[variable["name"]] = offered[-1]
                assert (answered["instance"], answered["fleet"]) == (f"127.0.0.1:{port}", "web")
                waited_for = [(filled(expression, answered), legend) for expression, legend in expressions()]

                def all_answered():
                    """Whether each has given something by now; what they give carries what their legends name."""
                    for query, legend in waited_for.copy():
                        found = answers.query(query)
                        for series in found:
                            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= set(series["metric"]), legend
                        if found or any(name in query for name in UNTIL_IT_HAPPENS):
                            waited_for.remove((query, legend))
                    return not waited_for

                wait_for(
                    all_answered, lambda: "\n".join(query for query, _ in waited_for), alive=daemon.process
                )


def filled(text, answered):
    return re.sub(r"\$\{?(\w+)\}?", lambda found: answered[found[1]], text)
