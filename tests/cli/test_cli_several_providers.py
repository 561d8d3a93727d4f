"""`run` and `doctor` with two clouds in processes of their own, one of which has a bad day."""

import json
import signal
import urllib.request

import pytest

from autoscaler.cloud.setup import FleetSetup
from autoscaler.cloud.vms import State
from tests.cli.conftest import (
    OPENER,
    PATIENCE_S,
    POLICY,
    TERMINATE,
    Program,
    call,
    cloud_process,
    get,
    strict_json,
    wait_for,
)

PLACES = {"web": "near", "api": "far"}
SETTINGS = """\
tick_s = 1
observe_timeout_s = 0.5
http_port = 0
lease = false
[providers.near]
aws_region = "us-east-1"
aws_endpoint_url = "{near}"
aws_access_key_id = "any"
aws_secret_access_key = "any"
[providers.far]
aws_region = "eu-west-3"
aws_endpoint_url = "{far}"
aws_access_key_id = "any"
aws_secret_access_key = "any"
"""


class Two:
    """A folder with a daemon's settings and policies, and the clouds that they name."""

    def __init__(self, folder, near, far):
        self.folder, (self.near, _), (self.far, self.process) = folder, near, far
        (folder / "policies").mkdir()
        (folder / "autoscaler.toml").write_text(SETTINGS.format(near=self.near, far=self.far))
        (folder / "policies" / "day.csv").write_text(
            "timestamp,value\n2026-01-01T00:00:00Z,120\n2026-01-01T00:01:00Z,130\n"
        )
        for fleet, place in PLACES.items():
            text = POLICY.format(fleet=fleet, act="true", minimum=1, trace="day.csv")
            (folder / "policies" / f"{fleet}.yaml").write_text(f"{text}provider: {place}\n")

    def fleet(self, url, name):
        return next(f for f in strict_json(get(f"{url}/api/v1/status")[1])["fleets"] if f["fleet"] == name)

    def calls(self, cloud):
        return strict_json(get(f"{cloud}/_world/calls")[1])["vms"]

    def override(self, fleet, *bounds):
        told = call("override", fleet, *bounds, "--for", "1h", "-m", "test", cwd=self.folder)
        assert told.returncode == 0, told.stderr

    def fault(self, **fault):
        request = urllib.request.Request(
            f"{self.far}/_world/faults", json.dumps(fault).encode(), {"Content-Type": "application/json"}
        )
        with OPENER.open(request, timeout=PATIENCE_S) as answer:
            assert answer.status == 200


@pytest.fixture(name="two")
def _two(tmp_path):
    def vms(fleet):
        return FleetSetup(fleet, 3, state=State.RUNNING), FleetSetup(fleet, 3)

    with cloud_process(*vms("web")) as near, cloud_process(*vms("api")) as far:
        yield Two(tmp_path, near, far)


TROUBLES = {
    "hangs": "no answer within 0.5 s",
    "denies": "UnauthorizedOperation",
    "throttles": "RequestLimitExceeded",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_has_a_bad_day_and_the_fleet_on_the_other_goes_on(two, trouble):
    with Program("run", cwd=two.folder) as program:
        url = program.listens()
        for fleet in PLACES:
            wait_for(lambda fleet=fleet: two.fleet(url, fleet)["vms"]["in_service"] == 3, program.output)
        if trouble == "hangs":
            two.process.send_signal(signal.SIGSTOP)
        elif trouble == "denies":
            two.fault(kind="api_error", code=TROUBLES[trouble])
        else:
            two.fault(kind="throttle")
        lacking = wait_for(lambda: two.fleet(url, "api")["listing_error"], program.output)
        assert lacking.startswith("far: ")
        wait_for(lambda: TROUBLES[trouble] in two.fleet(url, "api")["listing_error"], program.output)
        two.override("web", "--floor", 5)
        wait_for(lambda: two.calls(two.near).get("StartInstances") == 2, program.output)
        web, api = (two.fleet(url, fleet) for fleet in PLACES)
        assert web["listing_error"] == ""
        assert (api["vms"]["in_service"], api["decision"]["stop"]) == (3, 0)
        assert "the list of VMs is incomplete, so 3 VMs stay" in api["decision"]["sentence"]
        if trouble == "hangs":
            two.process.send_signal(signal.SIGCONT)
            wait_for(lambda: two.fleet(url, "api")["listing_error"] == "", program.output)
            program.hears("far: the list of VMs is complete again")
        assert "StopInstances" not in two.calls(two.far)
        assert program.end(TERMINATE) == 0
        assert "Traceback" not in program.output()


def test_a_place_that_cannot_be_used_at_the_start_comes_in_once_it_can_be(two):
    """The account of the place far away is not in the AWS configuration files yet."""
    settings, keys = two.folder / "autoscaler.toml", two.folder / "credentials"
    text = settings.read_text()
    far = text.index("[providers.far]")
    given = 'aws_access_key_id = "any"\naws_secret_access_key = "any"'
    settings.write_text(text[:far] + text[far:].replace(given, 'aws_profile = "late"'))
    keys.touch()
    aws = {"AWS_SHARED_CREDENTIALS_FILE": keys}
    why = "EC2: cannot set up credentials: The config profile (late) could not be found"
    told = json.loads(call("doctor", "--json", cwd=two.folder, **aws).stdout)
    assert [each["text"] for each in told if each["check"] == "credentials"] == [f"far: {why}"]
    assert any(each["text"].startswith("near: ") and each["level"] == "ok" for each in told)
    with Program("run", cwd=two.folder, **aws) as program:
        url = program.listens()
        program.hears("provider_failed +text='far cannot be used, so its fleets are held")
        wait_for(lambda: two.fleet(url, "web")["vms"]["in_service"] == 3, program.output)
        api = wait_for(lambda: (found := two.fleet(url, "api"))["decision"] and found, program.output)
        assert api["listing_error"] == f"far: the place cannot be used: {why} (it is tried again)"
        assert api["decision"]["sentence"].startswith("held until its VMs have been listed")
        assert 'autoscaler_provider_usable{provider="far"} 0.0' in get(f"{url}/metrics")[1]
        keys.write_text("[late]\naws_access_key_id = any\naws_secret_access_key = any\n")
        wait_for(lambda: two.fleet(url, "api")["vms"]["in_service"] == 3, program.output)
        program.hears("provider_recovered +text='far can be used now'")
        assert 'autoscaler_provider_usable{provider="far"} 1.0' in get(f"{url}/metrics")[1]
        assert program.end(TERMINATE) == 0
        assert "Traceback" not in program.output()
    events = call("events", cwd=two.folder).stdout
    assert "provider_failed" in events
    assert "provider_recovered" in events


def test_where_no_place_can_be_used_the_daemon_does_not_start(two):
    settings = two.folder / "autoscaler.toml"
    text = settings.read_text().replace('aws_secret_access_key = "any"', "")
    settings.write_text(text.replace('aws_access_key_id = "any"', 'aws_profile = "none"'))
    told = call("run", cwd=two.folder)
    assert told.returncode == 1
    assert told.stderr.startswith(
        "run: none of the places in the settings can be used: [providers.near]: EC2: "
    )
    assert "; [providers.far]: EC2: " in told.stderr


def test_doctor_tells_that_two_places_are_one_account_and_region(two):
    begin, far = SETTINGS.format(near=two.near, far=two.near).split("[providers.far]")
    far = far.replace("eu-west-3", "us-east-1").replace('"any"', '"other"')
    (two.folder / "autoscaler.toml").write_text(f"{begin}[providers.far]{far}")
    told = json.loads(call("doctor", "--json", cwd=two.folder).stdout)
    (twins,) = [each for each in told if each["check"] == "places"]
    assert twins["level"] == "warning"
    assert twins["text"].startswith("far and near show the same VMs, so they are one account and Region: ")
    assert not any("no fleet here manages them" in each["text"] for each in told)


def test_a_fleet_that_names_no_place_is_left_out_and_doctor_asks_each(two):
    (two.folder / "policies" / "db.yaml").write_text(
        POLICY.format(fleet="db", act="true", minimum=1, trace="day.csv")
    )
    words = "fleet db: the settings have several providers; write `provider: NAME` in its policy, one of far, near"
    with Program("run", cwd=two.folder) as program:
        program.hears(f"fleet db is left out: {words}")
        program.hears("web: holding")
        assert program.end(TERMINATE) == 0
    request = urllib.request.Request(
        f"{two.near}/_world/provision",
        json.dumps({"fleet": "api", "count": 2}).encode(),
        {"Content-Type": "application/json"},
    )
    OPENER.open(request, timeout=PATIENCE_S).close()
    told = json.loads(call("doctor", "--json", cwd=two.folder).stdout)
    texts = {(each["level"], each["fleet"], each["text"]) for each in told}
    assert ("problem", "db", words) in texts
    assert (
        "warning",
        "api",
        "near: 2 VMs of the fleet, whose policy names far: no fleet here manages them",
    ) in texts
    assert not any("for which there is no policy" in text for *_, text in texts)
    account = [text for _, fleet, text in texts if not fleet]
    assert {place for place in PLACES.values() if any(text.startswith(f"{place}: ") for text in account)} == {
        "near",
        "far",
    }
