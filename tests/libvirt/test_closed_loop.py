"""The closed loop on real parts: requests through a real HAProxy to real VMs, whose number follows the load.

Load is measured where it arrives (HAProxy), VMs boot for it on a real libvirtd, enter the balancer once they answer, leave
it before they are shut down, and the daemon is killed while a VM boots. No request may fail meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoscaler.ports import FLEET_TAG
from tests.cli.conftest import OPENER, Program, wait_for
from tests.free_ports import Ports
from tests.libvirt.real_host import RealHost
from tests.real import require_real

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
NUMBERS = (21, 22, 23)
PER_VM, QUIET, CROWD = 10, 5, 11
"""Requests per second: the capacity of a VM, and the load at quiet times and in a crowd. The crowd needs two VMs, and still does
if a slow machine sends what it held back for a second all at once."""

POLICY = """fleet: web
act: true
signal:
  kind: total
  source: haproxy
  haproxy: {{sockets: ["{socket}"], backend: web, join: address, queue_within: 1m}}
vm: {{capacity: {per_vm}/s, start_time: 10s, stop_time: 10s}}
readiness: {{probe: http, url: "http://{{address}}:{port}/", timeout: 1s}}
balancer: {{haproxy: {{sockets: ["{socket}"], backend: web, join: address}}}}
bounds: {{minimum: 1, maximum: 3}}
reactive: {{headroom: 10%}}
guards: {{stabilisation: 3s, cooldown_in: 10s, minimum_on_time: 60s}}
"""
CONFIG = """global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  option redispatch
frontend front
  bind 127.0.0.1:{front}
  default_backend web
backend web
  balance roundrobin
{servers}
"""


class Load:
    """Requests at a steady rate for as long as a context lasts, each on a connection of its own."""

    def __init__(self, url):
        self._url = url
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._callers = ThreadPoolExecutor(16)
        self._pace = threading.Thread(target=self._run)
        self.per_s = QUIET
        self.boots: dict[str, int] = {}
        self.failed: list[str] = []

    def __enter__(self):
        self._pace.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._pace.join()
        self._callers.shutdown()

    def _run(self):
        while not self._over.wait(1.0 / self.per_s):
            self._callers.submit(self._ask)

    def _ask(self):
        try:
            with OPENER.open(self._url, timeout=20) as answer:
                boot = answer.read().decode().strip()
        except OSError as error:
            with self._lock:
                self.failed.append(repr(error))
            return
        with self._lock:
            self.boots[boot] = self.boots.get(boot, 0) + 1

    def forget(self):
        """Reset the counts of answers."""
        with self._lock:
            self.boots = {}


@pytest.fixture(name="ports")
def _ports():
    with Ports() as ports:
        yield ports


@pytest.fixture(name="host")
def _host():
    host = RealHost()
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture(name="front")
def _front(tmp_path, ports, host):
    """Run HAProxy with an entry for each VM, all out of rotation; gives its port, its socket, and the port of the VMs."""
    require_real("haproxy", Path(HAPROXY).exists())
    front, vm_port, socket = ports.one(), ports.one(), host.folder / "haproxy.sock"
    servers = "\n".join(f"  server vm-{n} 127.0.0.{n}:{vm_port} disabled" for n in NUMBERS)
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(socket=socket, front=front, servers=servers))
    process = subprocess.Popen([HAPROXY, "-f", str(config), "-db"], stdin=subprocess.DEVNULL)
    try:
        wait_for(socket.exists, alive=process)
        yield front, socket, vm_port
    finally:
        process.terminate()
        process.wait(20)


def test_vms_follow_the_requests_and_none_is_lost(host, front, tmp_path):
    port, socket, vm_port = front
    first, *others = [host.define(n, {FLEET_TAG: "web"}, vm_port) for n in NUMBERS]
    host.domain(first).create()
    host.mark_started_long_ago(first)
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "web.yaml").write_text(POLICY.format(socket=socket, port=vm_port, per_vm=PER_VM))
    settings = {
        "libvirt_uris": host.uri, "state_dir": tmp_path / "state", "http_port": 0, "tick_s": 2, "lease": False,
    }  # fmt: skip

    def running():
        return {vm for vm in (first, *others) if host.domain(vm).isActive()}

    with Load(f"http://127.0.0.1:{port}/") as load, Program("run", cwd=tmp_path, **settings) as program:
        # HAProxy has no VM to send requests to before the daemon has admitted one.
        wait_for(lambda: sum(load.boots.values()) > QUIET, program.output, alive=program.process)
        (before,) = load.boots
        load.failed.clear()
        load.per_s = CROWD
        wait_for(lambda: len(running()) > 1, program.output, alive=program.process)
        ordered = running()
        program.process.kill()
        program.process.wait()
        with Program("run", cwd=tmp_path, **settings) as again:
            # The VM that was booting when the daemon died is in service, and no other was started in its place.
            wait_for(
                lambda: sum(n for boot, n in load.boots.items() if boot != before) > CROWD,
                again.output,
                alive=again.process,
            )
            assert running() == ordered, again.output()
            assert len(load.boots) == len(ordered) == 2
            for vm in ordered:
                host.mark_started_long_ago(vm)
            load.per_s = QUIET
            wait_for(lambda: len(running()) == 1, again.output, alive=again.process)
            load.forget()
            wait_for(lambda: sum(load.boots.values()) > 2 * QUIET, again.output, alive=again.process)
            assert len(load.boots) == 1
    assert load.failed == []
    assert "Traceback" not in program.output() + again.output()
