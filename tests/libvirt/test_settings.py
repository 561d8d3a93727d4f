"""Which hosts a daemon may be set to, and which settings go together."""

import platform
import sys

import pytest

from autoscaler.cli.doctor import fields_only_on_aws
from autoscaler.clock import SystemClock
from autoscaler.config.loading import require_policy
from autoscaler.errors import ConfigError
from autoscaler.providers.libvirt.binding import binding
from autoscaler.providers.libvirt.settings import LibvirtSettings
from autoscaler.settings import Settings, load_settings
from autoscaler.wiring_balancers import real_balancer, real_hook
from autoscaler.wiring_providers import clouds_of


def test_hosts_are_named_by_their_uris():
    here = platform.node()
    uris = ("qemu:///system", "qemu+ssh://a@hv1/system", "qemu+ssh://a@hv2:2222/system?keyfile=/k")
    assert LibvirtSettings(uris).hosts == {
        here: "qemu:///system",
        "hv1": "qemu+ssh://a@hv1/system?no_tty=1",
        "hv2": "qemu+ssh://a@hv2:2222/system?keyfile=/k&no_tty=1",
    }
    two = ("qemu:///system", "qemu:///session")
    assert set(LibvirtSettings(two).hosts) == set(two)


@pytest.mark.parametrize(
    ("uris", "words"),
    [
        ((), "names no host"),
        (("hv1",), "'hv1' is not a libvirt URI; write for example qemu:///system"),
        (("qemu:/system",), "not a libvirt URI"),
        (("qemu:///system", "qemu:///system"), "names qemu:///system twice"),
        (("qemu+ssh://me:secret@hv1/system",), "with a password in it would be logged"),
    ],
)
def test_what_is_no_host_is_refused(uris, words):
    with pytest.raises(ConfigError, match=words) as told:
        LibvirtSettings(uris)
    assert "secret" not in str(told.value)


def only(settings):
    """The only place of the settings."""
    return clouds_of(settings).by_name[""]


@pytest.mark.parametrize(
    "given", ["qemu:///system, qemu+ssh://hv1/system", "qemu:///system qemu+ssh://hv1/system"]
)
def test_hosts_in_the_environment_are_words(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOSCALER_LIBVIRT_URIS", given)
    assert load_settings().libvirt_uris == ("qemu:///system", "qemu+ssh://hv1/system")
    assert only(load_settings()).ec2 is None


def test_hosts_in_the_file_are_a_list(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "autoscaler.toml").write_text('libvirt_uris = ["qemu:///system"]\ntick_s = 2\n')
    assert only(load_settings()).libvirt.uris == ("qemu:///system",)


def test_one_provider_is_aws_or_hosts():
    with pytest.raises(
        ConfigError,
        match="libvirt_uris and aws_region, aws_profile are set, but a provider is either one or the other",
    ):
        only(Settings(libvirt_uris=("qemu:///system",), aws_region="eu-central-1", aws_profile="p"))
    with pytest.raises(ConfigError, match="or name hosts with libvirt by libvirt_uris"):
        only(Settings())
    assert only(Settings(aws_region="eu-central-1")).libvirt is None


def test_hosts_are_not_waited_for_longer_than_the_tick_waits():
    limits = only(Settings(libvirt_uris=("qemu:///system",))).libvirt
    settings = Settings()
    assert limits.listing_s < settings.observe_timeout_s
    assert limits.batch_s + limits.call_s < settings.act_timeout_s


def test_without_libvirt_python_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    # Bypass the cache, because the module must not be prepared twice.
    with pytest.raises(ConfigError, match=r"pip install 'vm-autoscaler\[libvirt\]'") as told:
        binding.__wrapped__()
    assert "apt-get install libvirt-dev pkg-config gcc python3-dev" in str(told.value)


POLICY = """fleet: web
act: true
signal: {kind: total, source: trace, trace: {file: day.csv, kind: count}}
vm: {capacity: 10/s, start_time: 40s}
bounds: {maximum: 5}
reactive: {}
"""


@pytest.mark.parametrize(
    ("more", "make", "words"),
    [
        (
            "balancer: {target_group: {arn: 'arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/w/0123456789abcdef'}}",
            real_balancer,
            "balancer.target_group is AWS's",
        ),
        ("freshness: {exercise: {ssm: {}}}", real_hook, "freshness.exercise.ssm is AWS's"),
    ],
)
def test_what_only_aws_has_is_refused_elsewhere(more, make, words, tmp_path):
    (tmp_path / "web.yaml").write_text(POLICY + more + "\n")
    (tmp_path / "day.csv").write_text("timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,1\n")
    policy = require_policy(tmp_path / "web.yaml")
    assert fields_only_on_aws(policy) == (words.removesuffix(" is AWS's"),)
    with pytest.raises(ConfigError, match=words):
        make(SystemClock(), lambda _: None)(policy)
