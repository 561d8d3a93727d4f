"""The installed command as a process, and a cloud for it to act on. Every process that is started here is ended here."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from autoscaler.cli.main import app
from autoscaler.clock import SystemClock
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from tests.cli.forked import Forked, call_forked

COMMAND = str(Path(sys.executable).parent / "autoscaler")
PATIENCE_S = 200.0
"""Longest wait in seconds: a busy machine may take ten times as long as an idle one, but nothing takes this long."""
CLOCK = SystemClock()
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(**settings):
    """The tests' environment without our own and AWS's settings, plus the given ones: names of AWS's begin with AWS_."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AUTOSCALER_", "AWS_", "COLUMNS"))}
    given = {
        name if name.startswith("AWS_") else f"AUTOSCALER_{name.upper()}": str(value)
        for name, value in settings.items()
    }
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
    return {**kept, **nowhere, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1", **given}


CALLED = set()
"""Commands that this test process has already run."""


def as_installed(name):
    """Whether to run the installed command instead of a forked process: the first time that this test process calls it."""
    if name in CALLED:
        return False
    CALLED.add(name)
    return True


def call(*arguments, cwd, **settings):
    """Run a command to its end: the first time the installed one, later in a forked process."""
    if as_installed(arguments[0]):
        return installed(*arguments, cwd=cwd, **settings)
    return call_forked([COMMAND, *map(str, arguments)], cwd, environment(**settings), PATIENCE_S)


def installed(*arguments, cwd, **settings):
    """Run the installed command to its end."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd, env=environment(**settings), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


class Program:
    """A command that runs while a context lasts: the first time the installed one, later forked. Its output goes to files."""

    def __init__(self, *arguments, cwd, **settings):
        self.arguments, self.cwd, self.settings = [COMMAND, *map(str, arguments)], Path(cwd), settings
        number = len(list(self.cwd.glob("said-*.out")))
        self.out, self.err = self.cwd / f"said-{number}.out", self.cwd / f"said-{number}.err"

    def __enter__(self):
        around = environment(**self.settings)
        with self.out.open("w") as out, self.err.open("w") as err, Path(os.devnull).open() as nothing:
            if as_installed(self.arguments[1]):
                self.process = subprocess.Popen(
                    self.arguments, cwd=self.cwd, env=around, stdin=nothing, stdout=out, stderr=err
                )
            else:
                streams = (nothing.fileno(), out.fileno(), err.fileno())
                self.process = Forked(self.arguments, streams, self.cwd, around)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def output(self):
        return self.out.read_text() + self.err.read_text()

    def hears(self, pattern):
        """Wait until its output matches a pattern, and return the match."""
        return wait_for(lambda: re.search(pattern, self.output()), self.output, alive=self.process)

    def listens(self):
        """Wait until a daemon serves, and return its address."""
        return self.hears(r"(http://[\d.]+:\d+) \(/metrics")[1]

    def end(self, number):
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def children(pid):
    """Ids of a process's children that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(found, otherwise=lambda: "", alive=None):
    """Poll until a value is true, and return it."""
    deadline = CLOCK.monotonic() + PATIENCE_S
    while CLOCK.monotonic() < deadline:
        if answer := found():
            return answer
        if alive is not None and alive.poll() is not None:
            if answer := found():
                return answer
            pytest.fail(f"it ended with {alive.returncode}: {otherwise()}")
        select.select([], [], [], 0.05)
    pytest.fail(f"nothing came within {PATIENCE_S:g} s: {otherwise()}")


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def get(url):
    """Status and body of the response."""
    try:
        with OPENER.open(url, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def strict_json(text):
    """Parse JSON as the standard defines it, without NaN."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@contextlib.contextmanager
def cloud_process(*fleets):
    """Run an EC2 endpoint in a process of its own, at the machine's pace; gives its address and the process."""
    its_input, told = os.pipe()
    answers, its_output = os.pipe()
    with os.fdopen(told, "w") as tell, os.fdopen(answers) as hear:
        streams = (its_input, its_output, sys.__stderr__.fileno())
        command = [sys.executable, "-m", "autoscaler.cloud.ec2_api"]
        if as_installed(command[2]):
            process = subprocess.Popen(command, stdin=its_input, stdout=its_output)
        else:
            process = Forked(command, streams, Path.cwd(), os.environ, cloud=True)
        os.close(its_input)
        os.close(its_output)
        try:
            tell.write(CloudSetup(fleets=fleets).dump() + "\n")
            tell.flush()
            yield json.loads(hear.readline())["url"], process
        finally:
            process.send_signal(signal.SIGCONT)
            tell.close()
            process.wait(PATIENCE_S)


@contextlib.contextmanager
def embedded_cloud(*fleets):
    """Run an EC2 endpoint like `cloud_process`; gives only its address."""
    with cloud_process(*fleets) as (url, _):
        yield url


TWO_FLEETS = (
    FleetSetup("web", 2, state=State.RUNNING),
    FleetSetup("web", 4),
    FleetSetup("api", 2, state=State.RUNNING),
)

POLICY = """\
fleet: {fleet}
act: {act}
signal: {{kind: throughput, source: trace, max_age: 150s, trace: {{file: {trace}, kind: gauge, loop: true}}}}
vm: {{capacity: 100/s, start_time: 30s, stop_time: 30s}}
readiness: {{probe: status_checks}}
bounds: {{minimum: {minimum}, maximum: 6}}
reactive: {{}}
prices: {{in_service: 1/h, stopped: 0.1/h}}
"""


def write_policies(folder):
    """Write policies: `web` acts and wants 3 VMs, `api` is in shadow and wants 2 more than it has; both see 120/s."""
    folder.mkdir()
    (folder / "day.csv").write_text("timestamp,value\n2026-01-01T00:00:00Z,120\n2026-01-01T00:01:00Z,130\n")
    (folder / "web.yaml").write_text(POLICY.format(fleet="web", act="true", minimum=3, trace="day.csv"))
    (folder / "api.yaml").write_text(POLICY.format(fleet="api", act="false", minimum=4, trace="day.csv"))
    return folder


def daemon_settings(endpoint, state_dir, **more):
    return {
        "aws_region": "us-east-1", "aws_endpoint_url": endpoint, "aws_access_key_id": "any",
        "aws_secret_access_key": "any", "state_dir": state_dir, "http_port": 0, "tick_s": 1,
        "lease": False, **more,
    }  # fmt: skip


@pytest.fixture(name="invoke")
def _invoke(monkeypatch, tmp_path):
    """Run a command in this process, in an empty folder and without settings: for commands that fail before they begin."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name in environment():
        monkeypatch.setenv(name, environment()[name])
    yield lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
    structlog.reset_defaults()


INTERRUPT, TERMINATE = signal.SIGINT, signal.SIGTERM
