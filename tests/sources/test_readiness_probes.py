"""Readiness: which VMs count as in service, and that silence means not ready."""

from __future__ import annotations

import pytest

from autoscaler.sources.fan_out import Limits
from autoscaler.sources.probes import PENDING_AT_MOST_S, HttpProbe, RunningProbe
from tests.sources.doubles import ManualClock, VmsOverHttp, vm


async def test_http_only_2xx_is_ready(unused_tcp_port):
    async with VmsOverHttp() as web:
        web.texts = {"ok": "fine", "empty": ""}
        probe = HttpProbe(web.url, Limits(timeout_s=2.0, deadline_s=10.0))
        vms = [vm(name, name) for name in ("ok", "empty", "error", "moved", "hang", "cut", "huge")]
        try:
            assert await probe.ready([*vms, vm("nowhere", None)]) == {"ok", "empty"}
            assert await probe.ready([]) == frozenset()
        finally:
            await probe.close()
    refused = HttpProbe(f"http://{{address}}:{unused_tcp_port}/")
    assert await refused.ready([vm("i-1", "127.0.0.1"), vm("i-2", "::1")]) == frozenset()
    await refused.close()


@pytest.mark.parametrize("after_s", [0.0, 10.0])
async def test_running_for_a_while(after_s):
    clock = ManualClock()
    probe = RunningProbe(after_s, clock)
    fresh = vm("i-1", launched_at_s=clock.at_s - 5)
    assert await probe.ready([fresh]) == (frozenset() if after_s else {"i-1"})
    clock.at_s += after_s - 0.1 if after_s else 0.0
    assert await probe.ready([fresh]) == (frozenset() if after_s else {"i-1"})
    clock.at_s += 0.1
    assert await probe.ready([fresh]) == {"i-1"}


@pytest.mark.parametrize("set_by_s", [-3600.0, 60.0])
async def test_a_clock_that_is_set_changes_nothing_about_how_long_a_vm_runs(set_by_s):
    clock, passed_s = ManualClock(), [0.0]
    clock.monotonic = lambda: passed_s[0]
    probe = RunningProbe(10.0, clock)
    new = vm("i-1", launched_at_s=clock.at_s)
    await probe.ready([new])
    clock.at_s += set_by_s
    passed_s[0] = 9.9
    assert await probe.ready([new]) == frozenset()
    passed_s[0] = 10.0
    assert await probe.ready([new]) == {"i-1"}


async def test_a_vm_that_went_away_waits_again():
    clock = ManualClock()
    probe = RunningProbe(10.0, clock)
    await probe.ready([vm("i-1", launched_at_s=clock.at_s)])
    await probe.ready([])
    clock.at_s += 20.0
    assert await probe.ready([vm("i-1", launched_at_s=clock.at_s)]) == frozenset()


async def test_after_a_restart_vms_launched_long_ago_are_ready_at_once():
    clock = ManualClock()
    probe = RunningProbe(10.0, clock)
    old, young = (
        vm(name, launched_at_s=clock.at_s - PENDING_AT_MOST_S - age)
        for name, age in (("old", 10), ("young", 9))
    )
    assert await probe.ready([old, young]) == {"old"}
