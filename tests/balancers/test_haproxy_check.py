"""What a real HAProxy lacks for a fleet is found before a VM needs it, with advice."""

from __future__ import annotations

import pytest

from autoscaler.balancers.haproxy_check import examine_haproxy
from autoscaler.ports.findings import Level
from tests.balancers.haproxy_process import BACKEND, Haproxy, Vms
from tests.sources.doubles import vm

CHECK = " check inter 200ms"


def known(vms):
    return [vm(f"i-{number}", address) for number, address in enumerate(vms.addresses)]


async def asked(place, vms, *, backend=BACKEND, by="address"):
    found = await examine_haproxy("web", [place], backend, by, 5.0, vms)
    return [(each.level, each.text, each.fix) for each in found]


@pytest.mark.parametrize("by", ["address", "id"])
async def test_a_backend_that_knows_and_checks_all_is_one_finding(tmp_path, by):
    async with Vms(2) as vms, Haproxy(tmp_path, vms, check=CHECK) as haproxy:
        ((level, text, _),) = await asked(haproxy.place, known(vms), by=by)
    assert level is Level.OK
    assert "knows and checks all 2 VMs in backend web" in text


async def test_a_vm_without_an_entry_is_a_problem_that_names_it(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms, check=CHECK) as haproxy:
        found = await asked(haproxy.place, [*known(vms), vm("i-9", "10.9.9.9"), vm("i-8", None)])
    ((level, text, fix),) = found
    assert level is Level.PROBLEM
    assert "2 VMs have no entry" in text
    assert "i-9 (10.9.9.9), i-8 (without address)" in text
    assert "balancer.haproxy.join" in fix


async def test_entries_without_a_check_are_told_of(tmp_path):
    async with Vms(2) as vms, Haproxy(tmp_path, vms) as haproxy:
        ((level, text, fix),) = await asked(haproxy.place, known(vms))
    assert level is Level.WARNING
    assert "2 entries of backend web" in text
    assert "`check`" in fix


async def test_a_socket_that_cannot_be_reached_and_a_backend_that_is_not_there(tmp_path):
    ((level, text, fix),) = await asked(str(tmp_path / "gone.sock"), [])
    assert level is Level.PROBLEM
    assert "cannot be reached" in text
    assert "stats socket" in fix
    async with Vms(1) as vms, Haproxy(tmp_path, vms) as haproxy:
        ((level, text, _),) = await asked(haproxy.place, known(vms), backend="nowhere")
    assert level is Level.PROBLEM
    assert "nowhere" in text
