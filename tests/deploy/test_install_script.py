"""deploy/install.sh, run into a folder of its own: first, again, after a change, and when it must refuse."""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import autoscaler
from tests.real import REQUIRE, require_real

ROOT = Path(autoscaler.__file__).parents[1]
SHIPPED = (
    "autoscaler",
    "policies",
    "simulations/demo",
    "deploy",
    "pyproject.toml",
    "requirements.lock",
    "requirements-libvirt.lock",
    "README.md",
    "LICENSE",
)
NOBODY = 65534
OURS = ("--python", sys.executable)
"""What the tests run on is installed on, whichever `python3` is."""

POLICY = """\
fleet: api
signal: {kind: throughput, source: scrape, scrape: {url: "http://{address}:8080/metrics", metric: requests_total, type: counter}}
vm: {capacity: 120/s}
bounds: {minimum: 2, maximum: 40}
reactive: {}
"""

HOSTS = 'libvirt_uris = ["qemu:///system"]\n'


def install(checkout, *arguments, within_s=300, **process):
    return subprocess.run(
        [checkout / "deploy" / "install.sh", *arguments],
        env=environment(), capture_output=True, text=True, timeout=within_s, check=False, **process,
    )  # fmt: skip


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("AUTOSCALER_", "COV_"))}


def run(command, *arguments):
    return subprocess.run(
        [command, *arguments], cwd="/", env=environment(), capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


class Place:
    """A checkout and a root that it is installed into."""

    def __init__(self, folder):
        self.checkout, self.root = folder / "checkout", folder / "root"
        self.command = self.root / "usr/local/bin/autoscaler"
        self.etc = self.root / "etc/autoscaler"
        self.code = self.root / "opt/autoscaler"

    def check_out(self):
        self.checkout.mkdir(parents=True)
        for name in SHIPPED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, self.checkout / name)

    def install(self, *arguments):
        return install(self.checkout, "--root", self.root, *OURS, "--link-venv", sys.prefix, *arguments)

    def files(self):
        """Everything placed, with its content; links by where they point; what Python caches is no change."""
        return {
            str(path.relative_to(self.root)): path.readlink() if path.is_symlink() else path.read_bytes()
            for path in self.root.rglob("*")
            if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts
        }

    def releases(self):
        return sorted(path.name for path in (self.code / "releases").iterdir())


@pytest.fixture(name="place", scope="module")
def _place(tmp_path_factory):
    """A first installation, one for all test processes; tests only look at it."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "installed"
    place, said = Place(folder), folder / "said.txt"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            place.check_out()
            result = place.install()
            assert result.returncode == 0, result.stdout + result.stderr
            said.write_text(result.stdout + result.stderr)
    place.said = said.read_text()
    return place


@pytest.fixture(name="own")
def _own(place, tmp_path):
    """A copy that a test may change. The code's own paths still lead to the first until it is installed again."""
    shutil.copytree(place.checkout, tmp_path / "checkout")
    shutil.copytree(place.root, tmp_path / "root", symlinks=True)
    return Place(tmp_path)


def test_what_is_installed_runs_and_is_its_own(place):
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    result = run(place.command, "version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == f"autoscaler {version}"
    where = run(place.code / "current/bin/python", "-c", "import autoscaler; print(autoscaler.__file__)")
    assert where.stdout.startswith(str(place.code / "current"))


def test_a_new_installation_says_what_comes_next(place):
    assert "next: write a policy to /etc/autoscaler/policies" in place.said


def test_the_command_takes_the_settings_of_the_machine(place):
    result = run(place.command, "explain", "api")
    assert result.stderr.startswith("explain: There is no journal at /var/lib/autoscaler.")


def test_units_settings_schema_and_completion_are_in_their_places(place):
    unit = place.root / "etc/systemd/system/autoscaler.service"
    assert unit.read_text() == (ROOT / "deploy/autoscaler.service").read_text()
    assert (place.etc / "autoscaler.toml").read_text() == (ROOT / "deploy/autoscaler.toml").read_text()
    assert '"title": "Autoscaler policy"' in (place.etc / "policy.schema.json").read_text()
    completion = place.root / "usr/local/share/bash-completion/completions/autoscaler"
    assert "_AUTOSCALER_COMPLETE=complete_bash" in completion.read_text()
    assert (place.etc / "autoscaler.toml").stat().st_mode & 0o007 == 0


def test_again_with_nothing_new_changes_nothing(place):
    before = place.files()
    again = place.install()
    assert again.returncode == 0, again.stderr
    assert "is already there" in again.stdout
    assert place.files() == before


def test_no_module_is_taken_from_where_it_is_called(place, tmp_path):
    """It runs as root, and anybody may write to /tmp."""
    trap = "import pathlib\n\npathlib.Path(__file__ + '.run').touch()\nraise ImportError\n"
    for name in ("venv", "ensurepip", "pip", "sysconfig"):
        (tmp_path / f"{name}.py").write_text(trap)
    again = install(place.checkout, "--root", place.root, *OURS, "--link-venv", sys.prefix, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".py"] * 4


def test_an_upgrade_keeps_what_operators_wrote_and_the_last_version(own):
    place = own
    first = (place.code / "current").readlink()
    (place.etc / "policies/api.yaml").write_text(POLICY)
    (place.etc / "autoscaler.toml").write_text('aws_region = "eu-central-1"\n')
    defaults = place.etc / "policies/defaults.yaml"
    defaults.write_text(defaults.read_text().replace("cooldown_in: 2m", "cooldown_in: 4m"))
    written = {path: path.read_text() for path in (*place.etc.glob("*.toml"), *place.etc.glob("policies/*"))}
    shipped = place.checkout / "policies/defaults.yaml"
    shipped.write_text(shipped.read_text() + "# new in this version\n")

    result = place.install()

    assert result.returncode == 0, result.stderr
    assert {path: path.read_text() for path in written} == written
    assert (place.etc / "shipped/defaults.yaml").read_text() == shipped.read_text()
    second = (place.code / "current").readlink()
    assert second != first
    assert place.releases() == sorted(link.name for link in (first, second))
    assert f"install.sh: switched from {first.name}, which stays installed" in result.stdout
    assert "next:" not in result.stdout

    # A version that does not understand what they wrote is not switched to, and says why.
    (place.etc / "policies/api.yaml").write_text(POLICY.replace("reactive", "reactve"))
    refused = place.install()
    assert refused.returncode == 1
    assert "reactve" in refused.stdout
    assert "does not accept the policies above; nothing was switched" in refused.stderr
    (place.etc / "policies/api.yaml").write_text(POLICY)
    (place.etc / "autoscaler.toml").write_text("tik_s = 1\n")
    refused = place.install()
    assert refused.returncode == 1
    assert "tik_s is not a setting" in refused.stderr
    assert "does not accept the settings above; nothing was switched" in refused.stderr
    assert (place.code / "current").readlink() == second


def test_settings_that_name_hosts_with_libvirt_want_its_library(own):
    (own.etc / "autoscaler.toml").write_text(HOSTS)
    if importlib.util.find_spec("libvirt") is not None:
        result = own.install()
        assert result.returncode == 0, result.stderr
        return
    (own.checkout / "README.md").write_text("another version\n")
    before = (own.code / "current").readlink()
    result = own.install()
    assert result.returncode == 1
    assert "pip install 'vm-autoscaler[libvirt]'" in result.stderr
    assert (own.code / "current").readlink() == before


def test_a_release_that_was_cut_off_is_built_again(own):
    """Where the settings name hosts with libvirt, too: its library is one of those that are linked."""
    place = own
    if importlib.util.find_spec("libvirt") is not None:
        (place.etc / "autoscaler.toml").write_text(HOSTS)
    current = place.code / "current"
    (current / ".complete").unlink()
    (current / "bin/autoscaler").unlink()
    result = place.install()
    assert result.returncode == 0, result.stderr
    assert run(place.command, "version").returncode == 0
    assert run(place.code / "current/bin/python", "-c", "import libvirt").returncode == 0


def test_what_a_step_that_fails_would_have_written_stays_as_it_was(own):
    place = own
    schema = place.etc / "policy.schema.json"
    before = schema.read_bytes()
    program = place.code / "current/bin/autoscaler"
    program.unlink()
    program.write_text("#!/bin/sh\necho '{\"half\": '\necho 'no space left' >&2\nexit 1\n")
    program.chmod(0o755)

    result = place.install()

    assert result.returncode == 1
    assert "no space left" in result.stderr
    said = (
        "/etc/autoscaler/policy.schema.json could not be written, as said above; mend that and run this again"
    )
    assert said in result.stderr
    assert schema.read_bytes() == before
    assert not list(place.etc.rglob("*.new"))


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--prefix", "/x"], "--prefix is not an option; see --help", 2),
        (["--root"], "--root needs a value; see --help", 2),
        (["--root", "/nowhere", "--python", "python-of-nobody"], "there is no python-of-nobody; install Python 3.11", 1),
        (["--root", "/nowhere", "--wheel", "none.whl"], "there is no wheel none.whl", 1),
        (["--root", "/nowhere", "--link-venv", "/tmp"], "/tmp is not a virtual environment", 1),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_in_words(arguments, words, code):
    result = install(ROOT, *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith(f"install.sh: {words}")
    assert not Path("/nowhere").exists()


def test_an_old_python_is_refused(tmp_path):
    """A program stands for one: it answers the two questions as an old Python would."""
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    result = install(ROOT, "--root", tmp_path / "root", "--python", old)
    assert result.returncode == 1
    assert result.stderr.startswith("install.sh: Python 3.9.2 is too old: 3.11 or later is needed; ")
    assert not (tmp_path / "root").exists()


def test_packages_of_another_python_are_not_linked(tmp_path):
    """A program stands for the other one: it says its version."""
    other = tmp_path / "venv/bin/python"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 3.99\n")
    other.chmod(0o755)
    result = install(ROOT, "--root", tmp_path / "root", *OURS, "--link-venv", tmp_path / "venv")
    assert (result.returncode, result.stdout) == (1, "")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert result.stderr == (
        f"install.sh: the packages of {tmp_path}/venv are for Python 3.99, and {sys.executable} is {ours}; "
        f"use --python {tmp_path}/venv/bin/python\n"
    )
    assert not (tmp_path / "root").exists()


def test_a_python_without_venv_is_refused_with_the_package_to_install(tmp_path):
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexit 0\n')
    bare.chmod(0o755)
    result = install(ROOT, "--root", tmp_path / "root", "--python", bare)
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr


def test_a_python_that_the_unit_could_not_see_is_refused(tmp_path):
    """A program stands for one: it says where it is, and can do nothing else."""
    hidden = tmp_path / "python3"
    hidden.write_text(
        '#!/bin/sh\necho /home/me/.pyenv/bin/python3.12\ncase "$2" in *realpath*) exit 0 ;; esac\nexit 1\n'
    )
    hidden.chmod(0o755)
    result = install(ROOT, "--no-systemd", "--python", hidden)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "install.sh: /home/me/.pyenv/bin/python3.12 is in a home directory, which the unit hides from the daemon; "
        "use --python /usr/bin/python3\n"
    )


def test_a_part_of_a_checkout_is_refused(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/install.sh", tmp_path / "deploy")
    result = install(tmp_path, "--root", tmp_path / "root")
    assert result.returncode == 1
    assert result.stderr == f"install.sh: {tmp_path} is not a whole checkout: pyproject.toml is missing\n"


def test_without_root_it_is_refused():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "deploy").mkdir()
        shutil.copy(ROOT / "deploy/install.sh", folder / "deploy")
        as_whom = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        result = install(folder, "--no-systemd", cwd="/", **as_whom)
    assert result.returncode == 1
    assert result.stderr.startswith("install.sh: this needs root")
    assert "--root DIR to try it out" in result.stderr


def test_the_script_is_clean_for_shellcheck():
    require_real("shellcheck", shutil.which("shellcheck") is not None)
    result = run("shellcheck", ROOT / "deploy/install.sh")
    assert (result.returncode, result.stdout) == (0, "")


def test_libvirt_is_not_compiled_without_its_headers(tmp_path):
    place = Place(tmp_path)
    place.check_out()
    nothing = tmp_path / "bin"
    nothing.mkdir()
    (nothing / "pkg-config").write_text("#!/bin/sh\nexit 1\n")
    (nothing / "pkg-config").chmod(0o755)
    path = f"{nothing}:{os.environ['PATH']}"
    result = subprocess.run(
        [place.checkout / "deploy/install.sh", "--libvirt", "--root", place.root],
        env={**environment(), "PATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "first apt-get install libvirt-dev pkg-config gcc python3-dev" in result.stderr
    assert not place.code.exists()


@pytest.mark.timeout(600)
def test_locked_packages_are_downloaded_and_installed(tmp_path):
    """As on a new VM, with nothing linked; needs a package index, so only where everything is there."""
    require_real(f"a package index ({REQUIRE}=1 says that there is one)", os.environ.get(REQUIRE) == "1")
    place = Place(tmp_path)
    place.check_out()
    result = install(place.checkout, "--libvirt", "--root", place.root, *OURS, within_s=560)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not list(place.code.glob("current/lib/python*/site-packages/linked.pth"))
    assert run(place.command, "version").returncode == 0
    assert run(place.code / "current/bin/python", "-c", "import libvirt").returncode == 0
