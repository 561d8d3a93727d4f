"""The systemd unit: systemd itself finds it valid and tight, and it suits the daemon."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import autoscaler
from autoscaler.settings import CONFIG_VARIABLE
from tests.cli.conftest import COMMAND
from tests.real import require_real

ROOT = Path(autoscaler.__file__).parents[1]
UNIT = ROOT / "deploy" / "autoscaler.service"
MOST_EXPOSURE = 2.5


def analyze(*arguments):
    require_real("systemd-analyze", shutil.which("systemd-analyze") is not None)
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(name="unit_here")
def _unit_here(tmp_path):
    """The unit as it would be, but with this command in place of the one under /opt."""

    def write(change=lambda text: text):
        copy = tmp_path / UNIT.name
        text = UNIT.read_text().replace("/opt/autoscaler/current/bin/autoscaler", COMMAND)
        copy.write_text(change(text))
        return copy

    return write


def settings(section="Service"):
    """Keys of a section with all values that it is given."""
    parser = configparser.RawConfigParser(strict=False, dict_type=_Collected)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return {key: value.split("\n") for key, value in parser[section].items()}


class _Collected(dict):
    """A key that comes again adds a value."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def test_systemd_finds_it_valid(unit_here):
    result = analyze("verify", "--man=no", unit_here())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_would_say_so_of_an_unknown_key(unit_here):
    result = analyze("verify", "--man=no", unit_here(lambda text: text.replace("PrivateTmp", "PrivateTemp")))
    assert "Unknown key" in result.stderr


def test_systemd_finds_it_tight():
    result = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", UNIT)
    exposure = float(re.search(r"exposure level for autoscaler\.service: ([\d.]+)", result.stdout)[1])
    assert exposure <= MOST_EXPOSURE
    assert result.returncode == 0


def test_a_loose_unit_would_fail(unit_here):
    loose = unit_here(
        lambda text: re.sub(r"(?m)^(Protect|Private|Restrict|System|Capab|User)\w+=.*$", "", text)
    )
    assert (
        analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", loose).returncode != 0
    )


def test_it_speaks_with_the_daemon_as_the_daemon_does():
    service = settings()
    assert service["Type"] == ["notify"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["ExecStart"] == ["/opt/autoscaler/current/bin/autoscaler run"]
    assert f"{CONFIG_VARIABLE}=/etc/autoscaler/autoscaler.toml" in service["Environment"]
    assert int(service["WatchdogSec"][0]) >= 10
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} == set(service["RestrictAddressFamilies"][0].split())


def test_it_may_write_where_the_settings_file_says():
    installed = (ROOT / "deploy" / "autoscaler.toml").read_text()
    state = re.search(r'(?m)^state_dir = "/var/lib/(.+)"$', installed)[1]
    assert settings()["StateDirectory"] == [state]
    assert settings()["ProtectSystem"] == ["strict"]


def test_the_control_socket_is_in_the_units_own_folder_and_sees_who_operators_are():
    installed = (ROOT / "deploy" / "autoscaler.toml").read_text()
    folder = re.search(r'(?m)^control_socket = "/run/(.+)/control\.sock"$', installed)[1]
    assert settings()["RuntimeDirectory"] == [folder]
    assert settings()["RuntimeDirectoryMode"] == ["0750"], "its group may come in, others may not"
    # With it the kernel shows every other user as `nobody`.
    assert "PrivateUsers" not in settings()
