"""Setting up: contradictory settings, clients that cannot be opened, and the listing process's first message."""

import json
import subprocess
import sys

import pytest

from autoscaler.clock import SystemClock
from autoscaler.errors import ConfigError
from autoscaler.providers.ec2.client import open_session
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings


def lister(settings):
    """Run the listing process with a standard input that ends after the settings, as if its parent had died."""
    command = [sys.executable, "-m", "autoscaler.providers.ec2.lister"]
    line = json.dumps(settings).encode() + b"\n"
    return subprocess.run(command, input=line, capture_output=True, timeout=300, check=False)


def test_the_listing_process_ends_with_its_parent():
    ended = lister({"region": "eu-central-1", "access_key_id": "a", "secret_access_key": "b"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b'{"ready":true}\n', b"")


def test_the_listing_process_says_why_it_cannot_start():
    ended = lister({"region": "eu-central-1", "profile": "no-such-profile"})
    assert ended.returncode == 1
    assert "no-such-profile" in json.loads(ended.stdout)["error"]
    assert ended.stderr == b""


async def test_an_unknown_profile_is_a_sentence():
    with pytest.raises(ConfigError, match="no-such-profile"):
        await Ec2Provider.open(Ec2Settings("eu-central-1", profile="no-such-profile"), SystemClock())


async def test_places_of_one_process_read_the_service_model_once():
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    one, other = [await open_session(Ec2Settings(region, **keys)) for region in ("eu-central-1", "us-east-1")]
    assert one is not other
    assert one.get_component("data_loader") is other.get_component("data_loader")


async def test_a_malformed_endpoint_is_a_sentence():
    settings = Ec2Settings("eu-central-1", "not a url", access_key_id="a", secret_access_key="b")
    with pytest.raises(ConfigError, match="not a url"):
        await Ec2Provider.open(settings, SystemClock())


async def test_a_machine_without_credentials_is_told_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no credentials found"):
        await Ec2Provider.open(Ec2Settings("eu-central-1"), SystemClock())


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": ""},
        {"access_key_id": "a"},
        {"access_key_id": "a", "secret_access_key": "b", "profile": "p"},
        {"call_deadline_s": 0},
        {"read_timeout_s": float("nan")},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"EC2( settings)?: .*(settings? |_s is)"):
        Ec2Settings(**{"region": "eu-central-1", **wrong})


def test_secrets_do_not_show():
    settings = Ec2Settings("eu-central-1", access_key_id="AKIDEXAMPLE", secret_access_key="hush")
    assert "hush" not in repr(settings)
