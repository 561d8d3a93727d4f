"""The notification protocol on a real datagram socket."""

import os
import socket

import pytest

from autoscaler.clock import SystemClock
from autoscaler.daemon.notify import Notifier


@pytest.fixture(name="manager", params=["path", "abstract"])
def _manager(request, tmp_path):
    """The socket of a service manager, and its address as given in the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@autoscaler-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(5)
        yield listening, name


def heard(manager):
    return manager[0].recv(4096).decode().split("\n")


def test_what_is_told_arrives_line_by_line(manager):
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager[1]})
    notifier.ticked(lambda: "2 fleets\n(1 acting)")
    assert heard(manager) == ["STATUS=2 fleets (1 acting)", "READY=1"]
    notifier.ticked(lambda: "well")
    assert heard(manager) == ["STATUS=well"]
    notifier.alive()
    assert heard(manager) == ["WATCHDOG=1"]
    notifier.stopping()
    assert heard(manager) == ["STOPPING=1"]


async def test_a_reload_is_stamped_with_the_machines_monotonic_clock(manager):
    notifier = Notifier(manager[1])
    before_s = SystemClock().monotonic()
    notifier.reloading()
    first, stamp = heard(manager)
    assert first == "RELOADING=1"
    assert stamp.startswith("MONOTONIC_USEC=")
    assert before_s - 1e-5 <= int(stamp.partition("=")[2]) / 1e6 <= SystemClock().monotonic()
    notifier.reloaded()
    assert heard(manager) == ["READY=1"]


def test_a_manager_that_does_not_listen_or_is_full_never_blocks_nor_raises(manager, tmp_path):
    Notifier(str(tmp_path / "nobody")).alive()
    Notifier("@").stopping()
    full = Notifier(manager[1])
    for _ in range(5000):  # far more than a queue of datagrams holds
        full.alive()
    assert heard(manager) == ["WATCHDOG=1"]


def test_readiness_is_told_again_until_it_went_out(tmp_path):
    path = str(tmp_path / "late")
    notifier = Notifier(path)
    notifier.ticked(lambda: "first")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(5)
        notifier.ticked(lambda: "second")
        notifier.ticked(lambda: "third")
        assert heard((listening,)) == ["STATUS=second", "READY=1"]
        assert heard((listening,)) == ["STATUS=third"]


def test_without_a_socket_nothing_is_even_worded():
    def never():
        raise AssertionError

    Notifier.from_environment({}).ticked(never)


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_meant_for_this_process(environment, watchdog_s):
    assert Notifier.from_environment(environment).watchdog_s == watchdog_s
