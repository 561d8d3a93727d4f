"""The daemon on a real libvirtd with real VMs (QEMU, emulated): they boot, answer, shut down, and keep their memory."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request

import pytest

from autoscaler.ports import FLEET_TAG, OutcomeKind, ProvisionSpec, VmState
from autoscaler.providers.libvirt.domains import ADDRESS_TAG
from autoscaler.providers.libvirt.provider import LibvirtProvider
from autoscaler.providers.libvirt.settings import LibvirtSettings
from tests.cli.conftest import CLOCK, OPENER, Program, call, get, strict_json, wait_for
from tests.free_ports import Ports
from tests.libvirt.real_host import RealHost

OFF, SHUTDOWN, SAVED = 5, 1, 5

POLICY = """fleet: {fleet}
act: true
signal: {{kind: total, source: trace, trace: {{file: {trace}.csv, kind: gauge, loop: true}}}}
vm: {{capacity: 10/s, start_time: 10s, stop_time: 10s}}
readiness: {{probe: http, url: "http://{{address}}:{port}/", timeout: 1s}}
bounds: {{minimum: 0, maximum: 2}}
reactive: {{headroom: 0%}}
guards: {{stabilisation: 0s, cooldown_in: 10s, minimum_on_time: 60s}}
{more}
"""
HIBERNATE = "warm_pool: {hibernate: {save_time: 10s}}"


@pytest.fixture(name="host", scope="module")
def _host():
    host = RealHost()
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture(name="port", scope="module")
def _port():
    with Ports() as ports:
        yield ports.one()


class Site:
    """Policies with a scripted demand, and the settings of a daemon that uses them."""

    def __init__(self, folder, host, port):
        self.policies, self._port = folder / "policies", port
        self.policies.mkdir()
        for name, value in (("two", 19), ("one", 9), ("none", 0)):
            rows = f"2026-01-01T00:00:00Z,{value}\n2026-01-01T00:01:00Z,{value}\n"
            (self.policies / f"{name}.csv").write_text(f"timestamp,value\n{rows}")
        self.settings = {
            "libvirt_uris": host.uri, "state_dir": folder / "state", "http_port": 0, "tick_s": 1,
            "lease": False,
        }  # fmt: skip

    def demand(self, fleet, vms, more="", program=None):
        """Set the demand to what this many VMs can serve."""
        text = POLICY.format(fleet=fleet, trace=vms, port=self._port, more=more)
        (self.policies / f"{fleet}.yaml").write_text(text)
        if program is not None:
            program.process.send_signal(signal.SIGHUP)

    def boot_of(self, number):
        """The boot id of the VM at an address; empty if it does not answer."""
        try:
            with OPENER.open(f"http://127.0.0.{number}:{self._port}/", timeout=1) as answer:
                return answer.read().decode().strip()
        except (urllib.error.URLError, OSError):
            return ""


def in_service(url):
    """Number of VMs in service by fleet, as the daemon reports it."""
    fleets = strict_json(get(f"{url}/api/v1/status")[1])["fleets"]
    return {each["fleet"]: each["decision"]["in_service"] for each in fleets if each["decision"]}


def test_vms_boot_for_demand_shut_down_after_it_and_keep_their_memory(host, port, tmp_path):
    site = Site(tmp_path, host, port)
    web = [host.define(number, {FLEET_TAG: "web"}, port) for number in (11, 12)]
    kept = host.define(13, {FLEET_TAG: "kept"}, port)
    stranger = host.define(14, {}, port)
    host.domain(kept).create()
    host.mark_started_long_ago(kept)
    site.demand("web", "two")
    site.demand("kept", "one", HIBERNATE)
    with Program("run", cwd=tmp_path, **site.settings) as program:
        url = program.listens()
        wait_for(lambda: site.boot_of(11) and site.boot_of(12) and site.boot_of(13), alive=program.process)
        wait_for(lambda: in_service(url) == {"web": 2, "kept": 1}, program.output, alive=program.process)

        boot = site.boot_of(13)
        site.demand("kept", "none", HIBERNATE, program)
        wait_for(lambda: not host.domain(kept).isActive(), program.output, alive=program.process)
        assert host.domain(kept).state() == [OFF, SAVED]
        assert host.domain(kept).hasManagedSaveImage()

        host.stop()
        host.start()
        host.tag(kept, {FLEET_TAG: "kept", ADDRESS_TAG: "127.0.0.13", "written": "meanwhile"})
        site.demand("kept", "one", HIBERNATE, program)
        wait_for(lambda: site.boot_of(13), program.output, alive=program.process)
        assert site.boot_of(13) == boot
        # The restored memory has the tags from the time when it was saved.
        wait_for(lambda: "meanwhile" in host.domain(kept).XMLDesc(0), program.output, alive=program.process)
    assert "Traceback" not in program.output()

    # Another daemon, as on a new machine, relies on the marks of the VMs: here, that they have run for long.
    for each in web:
        host.mark_started_long_ago(each)
    site.demand("web", "none")
    site.settings["state_dir"] = tmp_path / "another"
    with Program("run", cwd=tmp_path, **site.settings) as program:
        wait_for(
            lambda: not any(host.domain(i).isActive() for i in web), program.output, alive=program.process
        )
        assert [host.domain(i).state() for i in web] == [[OFF, SHUTDOWN]] * 2
    assert "Traceback" not in program.output()
    assert host.domain(kept).isActive()
    assert not host.domain(stranger).isActive()


async def test_a_new_vm_is_a_clone_on_an_overlay_and_goes_with_it(host, port):
    golden = host.define(16, {}, port, disk=host.make_pool())
    provider = LibvirtProvider(LibvirtSettings((host.uri,)), CLOCK)
    spec = ProvisionSpec(
        "shop", host.domain(golden).name(), vm_type="1x112", tags={ADDRESS_TAG: "127.0.0.16"}
    )
    try:
        (made,) = await provider.provision(spec, 1, "token")
        assert made.kind is OutcomeKind.ACCEPTED, made
        assert await provider.provision(spec, 1, "token") == (made,)
        overlay = f"autoscaler-{made.vm_id}-vda.qcow2"
        assert host.volumes() == {"golden.qcow2", overlay}
        (vm,) = [each for each in (await provider.list_vms()).vms if each.id == made.vm_id]
        assert (vm.state, vm.vm_type, vm.address) == (VmState.RUNNING, "1x112", "127.0.0.16")
        (stopped,) = await provider.stop([vm.id], force=True)
        assert stopped.kind is OutcomeKind.ACCEPTED
        (outcome,) = await provider.terminate([vm.id])
        assert outcome.kind is OutcomeKind.ACCEPTED, outcome
        assert host.volumes() == {"golden.qcow2"}
    finally:
        await provider.close()
    assert not host.domain(golden).isActive()


def test_doctor_finds_the_host_well(host, port, tmp_path):
    host.define(15, {FLEET_TAG: "shop"}, port)
    site = Site(tmp_path, host, port)
    site.demand("shop", "one")
    said = call("doctor", "--json", "--all", cwd=tmp_path, **site.settings)
    levels = {each["check"]: each["level"] for each in strict_json(said.stdout)}
    assert (levels["reach"], levels["memory"]) == ("ok", "ok")
    assert said.returncode == 0
