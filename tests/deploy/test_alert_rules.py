"""deploy/alerts.yml: promtool finds the rules valid, a healthy daemon fires none, and each fires on its trouble."""

import json
import math
import re
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from autoscaler.daemon.telemetry import Telemetry
from tests.daemon.builders import Bench, policy, virtual
from tests.deploy.test_settings_file import FILE
from tests.real import require_real

RULES = FILE.with_name("alerts.yml")
WHERE = 'instance="m:9412",job="autoscaler"'
MINUTES = 40

TROUBLES = {
    "AutoscalerAbsent": {"up": "0x{n}"},
    "AutoscalerFleetNotDecidedOn": {'autoscaler_last_evaluation_timestamp_seconds{fleet="web"}': "0x{n}"},
    "AutoscalerFleetGone": {'autoscaler_acts{fleet="web"}': "1x20 stale"},
    "AutoscalerJournalFails": {"autoscaler_journal_errors_total": "0+1x{n}"},
    "AutoscalerCloudDoesNotAnswer": {"autoscaler_listing_errors_total": "0+6x{n}"},
    "AutoscalerPlaceNotListed": {
        'autoscaler_last_whole_listing_timestamp_seconds{provider="far"}': "0+60x20 1200x{n}"
    },
    "AutoscalerShort": {'autoscaler_shortage_work_per_second{fleet="web"}': "7x{n}"},
    "AutoscalerVmsNotAvailable": {'autoscaler_missing_vms{fleet="web"}': "2x{n}"},
    "AutoscalerWithoutMetrics": {'autoscaler_metrics_coverage_ratio{fleet="web"}': "0.2x{n}"},
    "AutoscalerActionsFail": {
        'autoscaler_actions_total{fleet="web",outcome="no_capacity",verb="start"}': "0+1x{n}"
    },
    "AutoscalerPoliciesRejected": {"autoscaler_policy_reload_failed": "1x{n}"},
    "AutoscalerTaskDies": {'autoscaler_task_restarts_total{task="site"}': "0+1x{n}"},
    "AutoscalerSlowVms": {'autoscaler_condition{fleet="web"}': "3x{n}"},
    "AutoscalerPoolMissed": {'autoscaler_missed_warm_starts_total{fleet="web"}': "0+1x{n}"},
    "AutoscalerPausedForLong": {'autoscaler_paused{fleet="web",verb="stop"}': "1x{n}"},
}
"""What each is about, as Prometheus would have seen it, minute by minute."""


def rules():
    return [rule for group in YAML(typ="safe").load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(name="healthy", scope="module")
def _healthy():
    """The metrics of a daemon that is well, as series with their values."""
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=4, running=2)
        bench.add(policy("web"), 150.0)
        await bench.run(300)
        for family in bench.telemetry.registry.collect():
            for sample in family.samples:
                labels = ",".join(
                    f"{name}={json.dumps(value)}" for name, value in sorted(sample.labels.items())
                )
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value

    run()
    return found


NO_VMS = {
    'autoscaler_metrics_coverage_ratio{fleet="web"}': "0x{n}",
    'autoscaler_vms{fleet="web",phase="in_service"}': "0x{n}",
}


def promtool(*arguments):
    require_real("promtool", shutil.which("promtool") is not None)
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def fired(healthy, trouble, folder, minutes=MINUTES):
    """Names of the alerts that fire in the end."""
    series = {name: f"{value:g}x{minutes}" for name, value in healthy.items() if not math.isnan(value)}
    series["up"] = f"1x{minutes}"
    # Evaluated and listed at the time of each scrape.
    series['autoscaler_last_evaluation_timestamp_seconds{fleet="web"}'] = f"0+60x{minutes}"
    series['autoscaler_last_whole_listing_timestamp_seconds{provider=""}'] = f"0+60x{minutes}"
    series |= {name: values.format(n=minutes) for name, values in trouble.items()}
    given = [
        {
            "series": name[:-1] + f",{WHERE}}}" if name.endswith("}") else f"{name}{{{WHERE}}}",
            "values": values,
        }
        for name, values in series.items()
    ]
    # It tells of an alert what it did not expect; so one is expected that never fires.
    never = [{"exp_labels": {"never": "so"}, "exp_annotations": {}}]
    asked = [
        {"eval_time": f"{minutes}m", "alertname": rule["alert"], "exp_alerts": never} for rule in rules()
    ]
    tests = [{"interval": "1m", "input_series": given, "alert_rule_test": asked}]
    file = folder / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    result = promtool("test", "rules", file)
    found = re.findall(
        r"alertname: ?(\w+), .*?got:\s*\[(.*?)\n?\s*(?=\n\s*alertname|\Z)",
        result.stdout + result.stderr,
        re.DOTALL,
    )
    assert len(found) == len(asked), result.stdout + result.stderr
    return [name for name, got in found if got.strip() != "]"]


def test_prometheus_finds_them_valid():
    result = promtool("check", "rules", RULES)
    assert (result.returncode, result.stderr) == (0, "")


def test_they_ask_for_metrics_that_there_are():
    families = Telemetry().registry.collect()
    there = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    for rule in rules():
        for name in re.findall(r"\bautoscaler_\w+", rule["expr"]):
            assert name in there, f"{rule['alert']}: {name}"


def test_what_an_alert_counts_is_there_before_it_happens(healthy):
    """Prometheus sees no increase in a series that begins with its first event."""
    there = {re.match(r"\w+", series)[0] for series in healthy}
    # Outcomes of actions are many, and come again; nothing here starts tasks.
    there |= {"autoscaler_actions_total", "autoscaler_task_restarts_total"}
    for rule in rules():
        assert set(re.findall(r"increase\((\w+)", rule["expr"])) <= there, rule["alert"]


def test_each_says_how_bad_what_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["do"]


def test_there_is_a_trouble_for_each():
    assert set(TROUBLES) == {rule["alert"] for rule in rules()}


def test_a_daemon_that_is_well_is_silent(healthy, tmp_path):
    assert fired(healthy, {}, tmp_path) == []


def test_a_fleet_without_vms_lacks_metrics_only_if_its_source_says_so(healthy, tmp_path):
    assert fired(healthy, NO_VMS, tmp_path) == []
    failing = {'autoscaler_source_errors_total{fleet="web"}': "0+6x{n}"}
    assert fired(healthy, NO_VMS | failing, tmp_path) == ["AutoscalerWithoutMetrics"]


def test_a_fleet_that_gets_no_vms_and_has_none_that_could_tell_of_demand_is_short(healthy, tmp_path):
    unknown = {'autoscaler_missing_vms{fleet="web"}': "2x{n}"}
    assert fired(healthy, NO_VMS | unknown, tmp_path) == ["AutoscalerShort", "AutoscalerVmsNotAvailable"]


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_fires_its_alert_and_no_other(healthy, tmp_path, name):
    minutes = 1500 if name == "AutoscalerPausedForLong" else MINUTES
    assert fired(healthy, TROUBLES[name], tmp_path, minutes) == [name]


ACTS = 'autoscaler_acts{fleet="web"}'


def test_a_daemon_that_is_away_takes_its_fleets_along_and_is_one_trouble(healthy, tmp_path):
    away = {ACTS: "1x20 stale", "up": "1x20 0x{n}"}
    assert fired(healthy, away, tmp_path) == ["AutoscalerAbsent"]


@pytest.mark.parametrize("values", ["0x20 stale", "1x20 0x20", "1x20 stale stale 1x20"])
def test_a_fleet_is_not_gone_that_never_acted_or_acts_no_longer_or_is_back(healthy, tmp_path, values):
    assert fired(healthy, {ACTS: values}, tmp_path) == []


@pytest.mark.parametrize(("minutes", "fires"), [(4, []), (7, ["AutoscalerPlaceNotListed"])])
def test_a_place_that_is_away_for_less_than_its_time_is_no_alert_and_the_others_do_not_hide_it(
    healthy, tmp_path, minutes, fires
):
    listed = "autoscaler_last_whole_listing_timestamp_seconds"
    until = MINUTES - minutes
    away = {
        f'{listed}{{provider="near"}}': "0+60x{n}",
        f'{listed}{{provider="far"}}': f"0+60x{until} {60 * until}x{minutes}",
    }
    assert fired(healthy, away, tmp_path) == fires
