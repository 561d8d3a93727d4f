"""How the tests are run: their order, their generated examples, their ports."""

import gc
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from autoscaler.clock import already_hidden
from tests.free_ports import Ports

# Properties do not depend on the machine's speed: on a busy machine, an example may take any time.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Two runs of the same code try the same examples, so that results change only with the code. `make explore` tries others.
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("repeatable")

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 * 2**30


def has_room(folder):
    """Whether the tests' folders fit there: they need some hundred MB, and must allow programs to be executed."""
    try:
        about = os.statvfs(folder)
    except OSError:
        return False
    return about.f_bavail * about.f_frsize >= ROOM_BYTES and not about.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)


# A journal waits for the disk at each tick. In memory, `kill -9` leaves the same as on a disk, and no test can try what a
# power cut leaves.
if has_room(MEMORY):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

ROOT = Path(__file__).parents[1]
LONGEST_FIRST = (
    "tests/crash/test_crash_points.py",
    "tests/scenarios/test_shipped_scenarios.py",
    "tests/simulator/test_report_browser.py",
    "tests/cli/test_cli_demo.py",
    "tests/deploy/test_ansible_role.py",
    "tests/soak/test_soak.py",
    "tests/core/test_forecast_together.py",
    "tests/ec2/test_failure_modes_on_the_wire.py",
    "tests/checks/test_guards.py",
    "tests/search/test_dask_executor.py",
    "tests/web/test_status_page.py",
    "tests/simulator/test_lane_segments.py",
    "tests/deploy/test_install_script.py",
    "tests/simulator/test_lane_parity.py",
    "tests/simulator/test_replaying.py",
    "tests/libvirt/test_real_vms.py",
    "tests/cli/test_cli_replay.py",
    "tests/simulator/test_hibernating.py",
    "tests/core/test_forecast.py",
    "tests/core/test_forecast_bad_input.py",
    "tests/daemon/test_first_day.py",
    "tests/cli/test_cli_run.py",
    "tests/cli/test_demo_week.py",
    "tests/search/test_recommending.py",
    "tests/search/test_walkforward.py",
    "tests/cli/test_bad_input.py",
    "tests/simulator/test_standings.py",
    "tests/simulator/test_lane_sweep.py",
    "tests/crash/test_real_kill.py",
    "tests/scenarios/test_policy_results.py",
    "tests/simulator/test_contest.py",
    "tests/simulator/test_peers.py",
    "tests/daemon/test_adapters_isolated.py",
    "tests/search/test_worlds.py",
    "tests/simulator/test_benchmark.py",
    "tests/daemon/test_start_path_laws.py",
    "tests/daemon/test_lease.py",
    "tests/daemon/test_last_good.py",
    "tests/soak/test_scraped_hour.py",
    "tests/deploy/test_unit_sandbox.py",
    "tests/deploy/test_dashboard.py",
    "tests/control/test_control_processes.py",
    "tests/cli/test_cli_lease.py",
)
"""Modules that take ten seconds or more. They come first: a process that began one of them last would delay the end."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collect without garbage collections, which would scan a million objects that stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


LAST = [Path()]
"""Path of the last test's module."""


def pytest_runtest_setup(item):
    """Freeze objects that stay, because scanning them for garbage took a seventh of all time.

    Runs on virtual time are told, because counting the frozen ones took them 50 ms each.
    """
    if item.path != LAST[0]:
        LAST[0] = item.path
        gc.collect()
        gc.freeze()
        already_hidden.set(True)


def pytest_sessionfinish():
    """Let the collector find what was never closed."""
    gc.unfreeze()


def pytest_collection_modifyitems(items):
    if gone := [name for name in LONGEST_FIRST if not (ROOT / name).exists()]:
        raise pytest.UsageError(f"{__file__}: LONGEST_FIRST names {', '.join(gone)}, which is not there")
    places = {ROOT / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the recorded decisions anew from this run; say in CHANGELOG.md why they changed",
    )


@pytest.fixture(name="unused_tcp_port_factory")
def _unused_tcp_port_factory():
    """Return a function that gives ports on which nothing listens. Unlike pytest-asyncio's, they stay reserved until used."""
    with Ports() as ports:
        yield ports.one


@pytest.fixture(name="free_port")
def _free_port(unused_tcp_port_factory):
    """A port on which nothing listens."""
    return unused_tcp_port_factory()


@pytest.fixture(name="unused_tcp_port")
def _unused_tcp_port(free_port):
    """A port on which nothing listens, under the name of pytest-asyncio's fixture."""
    return free_port


@pytest.fixture(name="taken_port")
def _taken_port():
    """A port on which another socket listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]
