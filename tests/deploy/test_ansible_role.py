"""deploy/ansible: a real ansible-playbook installs with the installer into a folder of its own, and changes it later."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
from typing import NamedTuple

import pytest

from tests.deploy.module_server import CLIENT
from tests.deploy.test_install_script import OURS, POLICY, ROOT, SHIPPED, environment
from tests.real import require_real

ANSIBLE = ROOT / "deploy/ansible"
SERVER = ROOT / "tests/deploy/module_server.py"
SECRET = 's3cr$t"\\'
PLAY = """\
- hosts: localhost
  gather_facts: false
  roles: [autoscaler]
"""
SYSTEMCTL = """\
#!/bin/sh
# Stands for systemd's: an enabled unit that runs. It notes what it is told to do.
case "$*" in
*show*) printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n' ;;
*is-enabled*) echo enabled ;;
*) echo "$1" >> "$(dirname "$0")/told" ;;
esac
"""

PYTHON = f"""\
#!/bin/sh
# A module of Ansible comes by standard input, and would import a library that takes longer than most modules do.
[ $# -eq 0 ] || exec {sys.executable} "$@"
exec {sys.executable} -SE -c '{CLIENT}' "$(dirname "$0")/modules"
"""


class Run(NamedTuple):
    """One run of the playbook."""

    code: int
    said: str
    changed: int
    told: list
    """What the daemon's unit was told."""


def require_ansible():
    require_real("ansible-core", importlib.util.find_spec("ansible") is not None)


@pytest.fixture(name="place")
def _place(tmp_path):
    """A machine whose modules of Ansible are forked from one process."""
    require_ansible()
    place = Managed(tmp_path)
    server = [sys.executable, SERVER, tmp_path / "bin/modules"]
    with subprocess.Popen(server, env=environment(), stdout=subprocess.PIPE) as modules:
        assert modules.stdout.readline() == b"ready\n"
        yield place
        modules.terminate()


class Managed:
    """A machine's root below a folder, and the controller's files beside it."""

    def __init__(self, folder):
        self.folder, self.root, self.policies = folder, folder / "root", folder / "policies"
        self.etc = self.root / "etc/autoscaler"
        self.policies.mkdir()
        (folder / "play.yml").write_text(PLAY)
        (folder / "bin").mkdir()
        for name, program in (("systemctl", SYSTEMCTL), ("python-for-modules", PYTHON)):
            (folder / "bin" / name).write_text(program)
            (folder / "bin" / name).chmod(0o755)
        with tarfile.open(folder / "autoscaler.tar.gz", "w:gz", compresslevel=1) as archive:
            for name in SHIPPED:
                archive.add(
                    ROOT / name, f"autoscaler/{name}",
                    filter=lambda item: None if "__pycache__" in item.name else item,
                )  # fmt: skip
        self.variables = {
            "ansible_python_interpreter": str(folder / "bin/python-for-modules"),
            "autoscaler_archive": str(folder / "autoscaler.tar.gz"),
            "autoscaler_root": str(self.root),
            "autoscaler_systemd": True,
            "autoscaler_install_arguments": [*OURS, "--link-venv", sys.prefix],
            "autoscaler_policies": str(self.policies),
            "autoscaler_settings": {"aws_region": "eu-central-1", "tick_s": 20, "lease": False},
            "autoscaler_environment": {"AUTOSCALER_AWS_SECRET_ACCESS_KEY": SECRET},
            "autoscaler_alert_rules": str(folder / "alerts.yml"),
        }

    def play(self, *arguments):
        told = self.folder / "bin/told"
        told.unlink(missing_ok=True)
        (self.folder / "variables.json").write_text(json.dumps(self.variables))
        result = playbook(
            self.folder, "play.yml", "--connection", "local", "--extra-vars", "@variables.json", *arguments
        )
        changed = re.search(r"changed=(\d+)", result.stdout)
        return Run(
            result.returncode,
            result.stdout + result.stderr,
            int(changed[1]) if changed else -1,
            told.read_text().split() if told.exists() else [],
        )

    def files(self):
        return {path: path.read_bytes() for path in self.etc.rglob("*") if path.is_file()}


def playbook(folder, *arguments):
    require_ansible()
    env = environment() | {
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "LC_ALL": "C.UTF-8",
    }
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", *arguments],
        cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_the_example_playbook_is_one(tmp_path):
    (tmp_path / "hosts").write_text("[autoscaler]\nlocalhost\n[prometheus]\nlocalhost\n")
    result = playbook(tmp_path, "--syntax-check", "--inventory", "hosts", ANSIBLE / "site.yml")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.timeout(600)
def test_an_installation_and_what_is_changed_on_it(place, tmp_path):
    (place.policies / "api.yaml").write_text(POLICY)
    (place.policies / "traces").mkdir()
    (place.policies / "traces/day.csv").write_text("timestamp,value\n")

    untouched = place.play("--check")
    assert untouched.code == 0, untouched.said
    assert "would be run" in untouched.said
    assert not place.root.exists()

    first = place.play()
    assert first.code == 0, first.said
    command = place.root / "usr/local/bin/autoscaler"
    assert subprocess.run([command, "version"], env=environment(), check=False, timeout=60).returncode == 0
    settings = (place.etc / "autoscaler.toml").read_text().splitlines()
    assert {'aws_region = "eu-central-1"', "tick_s = 20", "lease = false"} <= set(settings)
    assert 'control_socket = "/run/autoscaler/control.sock"' in settings
    escaped = '"s3cr$t\\"\\\\"'
    assert f"AUTOSCALER_AWS_SECRET_ACCESS_KEY={escaped}" in (place.etc / "environment").read_text()
    assert (place.etc / "environment").stat().st_mode & 0o777 == 0o600
    assert (place.etc / "policies/api.yaml").read_text() == POLICY
    assert (place.etc / "policies/traces/day.csv").exists()
    assert (place.etc / "policies").stat().st_mode & 0o7777 == 0o2750
    assert (place.etc / "policies/api.yaml").stat().st_mode & 0o777 == 0o640
    assert (place.etc / "policies/defaults.yaml").read_text() == (ROOT / "policies/defaults.yaml").read_text()
    assert (tmp_path / "alerts.yml").read_text() == (ROOT / "deploy/alerts.yml").read_text()

    again = place.play()
    assert (again.code, again.changed, again.told) == (0, 0, []), again.said

    # What was placed stays, and later runs, which are of settings and policies, need not look at it file by file.
    place.variables["autoscaler_alert_rules"] = ""
    shutil.rmtree(place.policies / "traces")
    better = POLICY.replace("120/s", "130/s")
    (place.policies / "api.yaml").write_text(better)
    place.variables["autoscaler_settings"]["tick_s"] = 30
    before = place.files()
    looked = place.play("--check", "--diff")
    assert (looked.code, looked.told) == (0, []), looked.said
    assert "+vm: {capacity: 130/s}" in looked.said
    assert "+tick_s = 30" in looked.said
    assert place.files() == before

    # A changed policy alone is reloaded. One that the folder has no more is removed where that is asked for.
    place.variables["autoscaler_settings"]["tick_s"] = 20
    place.variables["autoscaler_policies_prune"] = True
    (place.policies / "api.yaml").rename(place.policies / "web.yaml")
    (place.policies / "web.yaml").write_text(better.replace("fleet: api", "fleet: web"))
    renamed = place.play()
    assert (renamed.code, renamed.told) == (0, ["reload"]), renamed.said
    assert sorted(path.name for path in place.etc.glob("policies/*.yaml")) == ["defaults.yaml", "web.yaml"]
    assert (place.etc / "policies/traces/day.csv").exists()
    in_use = (place.etc / "policies/web.yaml").read_text()
    assert "130/s" in in_use

    # A bad one stays out, and does not keep from the daemon the good setting that was written before.
    (place.policies / "web.yaml").write_text(in_use.replace("130/s", "many"))
    place.variables["autoscaler_settings"]["tick_s"] = 15
    bad_policy = place.play("--diff")
    assert bad_policy.code == 2
    assert f"Nothing was changed: {place.policies}/web.yaml:3:16: error: `vm.capacity`" in bad_policy.said
    assert (place.etc / "policies/web.yaml").read_text() == in_use
    assert "tick_s = 15" in (place.etc / "autoscaler.toml").read_text()
    assert bad_policy.told == ["restart"]

    (place.policies / "web.yaml").write_text(in_use)
    place.variables["autoscaler_settings"]["tik_s"] = 15
    written = place.files()
    bad_setting = place.play("--diff")
    assert bad_setting.code == 2
    assert "tik_s is not a setting" in bad_setting.said
    assert (place.files(), bad_setting.told) == (written, [])

    runs = (untouched, first, again, looked, renamed, bad_policy, bad_setting)
    assert not [run.said for run in runs if "s3cr" in run.said]
