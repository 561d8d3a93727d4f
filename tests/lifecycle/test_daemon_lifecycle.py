"""How a daemon's process ends, keeps its journal small, and is wired, on virtual time."""

import asyncio
import os
import signal

import pytest

from autoscaler.clock import SystemClock
from autoscaler.daemon.closing import Closable, close
from autoscaler.daemon.lifecycle import (
    PRUNE_EVERY_S,
    PRUNE_FIRST_S,
    Retention,
    run_to_the_end,
    signal_handling,
)
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ConfigError, JournalError, TraceError
from autoscaler.providers.coalescing import SharedProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.providers.shadow import ShadowProvider
from autoscaler.sources.probes import HttpProbe, RunningProbe
from autoscaler.sources.scrape import ScrapeSource
from autoscaler.sources.trace import TraceSource
from autoscaler.wiring import simulated, wire
from autoscaler.wiring_sources import source_for
from tests.daemon.builders import ORIGIN_S, Bench, Log, policy, virtual


def daemon_of(bench):
    return Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )


@virtual
async def test_it_ends_after_the_given_time_and_leaves_the_vms():
    bench = Bench(vms=4, running=2)
    bench.add(policy(), 200.0)
    await run_to_the_end(daemon_of(bench), for_s=35.0)
    assert [record.at_s - ORIGIN_S for record in bench.records] == [0, 10, 20, 30]
    assert bench.calls("StopInstances") == []
    assert bench.log.events()[-1] == "daemon_stopping"


@virtual
async def test_it_ends_on_a_signal_and_then_handles_signals_no_more():
    bench = Bench(vms=4, running=2)
    bench.add(policy(), 200.0)
    asyncio.get_running_loop().call_later(15.0, os.kill, os.getpid(), signal.SIGTERM)
    await run_to_the_end(daemon_of(bench), for_s=1000.0)
    assert len(bench.records) == 2
    assert asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM) is False


@virtual
async def test_a_signal_that_comes_between_the_daemon_being_there_and_its_first_tick_ends_it_in_order():
    bench = Bench(vms=4, running=2)
    bench.add(policy(), 200.0)
    daemon = daemon_of(bench)
    with signal_handling(daemon, None):
        os.kill(os.getpid(), signal.SIGTERM)
        await bench.clock.sleep_until(bench.clock.monotonic() + 1.0)
        await run_to_the_end(daemon, for_s=1000.0)
    assert bench.records == []
    assert bench.log.events().count("daemon_stopping") == 1
    assert asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM) is False


@virtual
async def test_the_journal_is_kept_small_from_the_first_minute_on():
    bench = Bench(vms=4, running=2)
    bench.add(policy(), 200.0)
    kept = []

    def look():
        with bench.journal.reader() as reader:
            kept.append(reader.ticks("web", 0, 1e12)[0].at_s - ORIGIN_S)

    for at_s in (PRUNE_FIRST_S - 2, PRUNE_FIRST_S + 2, PRUNE_FIRST_S + PRUNE_EVERY_S + 2):
        asyncio.get_running_loop().call_later(at_s, look)
    await run_to_the_end(
        daemon_of(bench), retention=Retention(30.0, 10**9), for_s=PRUNE_FIRST_S + PRUNE_EVERY_S + 3
    )
    assert kept == [0, 30, 3630]


class Stuck:
    """Closes when somebody sets it free."""

    async def close(self):
        await asyncio.Event().wait()


class Broken:
    """Cannot close."""

    async def close(self):
        raise JournalError("the disk is full")


@virtual
async def test_what_does_not_close_is_said_and_does_not_hold_the_end():
    log = Log()
    telemetry = Telemetry(log=log)
    before_s = asyncio.get_running_loop().time()
    await close(Stuck(), telemetry)
    await close(Broken(), telemetry)
    assert asyncio.get_running_loop().time() - before_s == 5.0
    assert log.texts("close_failed") == ["Stuck did not close within 5 s", "Broken: the disk is full"]


# ── wiring ──────────────────────────────────────────────────────────────────────────────────────────────

SCRAPED = {"kind": "utilisation", "source": "scrape", "scrape": {"type": "cpu"}, "trace": "off"}


@virtual
async def test_a_fleet_in_shadow_is_given_a_provider_that_cannot_change_anything():
    bench = Bench(vms=2)
    fleets = [policy("web"), policy("api", act=False)]
    wired = wire(fleets, bench.provider, bench.clock, lambda p: source_for(scraped(p), bench.clock, None))
    acting, shadow = wired.setups
    assert isinstance(acting.provider, SharedProvider)
    assert isinstance(shadow.provider, ShadowProvider)
    assert wired.closables == (acting.source, shadow.source)


def scraped(one):
    return policy(one.fleet, signal=SCRAPED)


@virtual
async def test_each_readiness_is_given_its_probe_and_those_with_connections_are_closed():
    bench = Bench(vms=2)
    fleets = [
        policy("a", readiness={"probe": "running"}),
        policy("b", readiness={"probe": "status_checks"}),
        policy("c", readiness={"probe": "http", "url": "http://{address}/"}),
        policy("d", act=False, readiness={"probe": "http", "url": "http://{address}/"}),
    ]
    wired = wire(fleets, bench.provider, bench.clock, lambda p: source_for(scraped(p), bench.clock, None))
    assert [type(setup.probe) for setup in wired.setups] == [
        RunningProbe,
        StatusCheckProbe,
        HttpProbe,
        StatusCheckProbe,
    ]
    assert wired.setups[2].probe in wired.closables
    assert all(isinstance(adapter, Closable) for adapter in wired.closables)


def test_a_policy_names_its_source(tmp_path):
    (tmp_path / "day.csv").write_text("timestamp,value\n2026-03-02T12:00:00Z,1\n2026-03-02T12:01:00Z,5\n")
    clock = SystemClock()
    played = {"file": "day.csv", "kind": "gauge", "scale_to_vms": 4, "start_at": "2026-03-02T12:01:00Z"}
    assert isinstance(source_for(policy(signal={"trace": played}), clock, tmp_path), TraceSource)
    assert isinstance(source_for(policy(signal=SCRAPED), clock, tmp_path), ScrapeSource)
    with pytest.raises(
        ConfigError, match=r"fleet web: signal.source is trace, and signal.trace.file is missing"
    ):
        source_for(policy(), clock, tmp_path)
    with pytest.raises(TraceError, match=r"none\.csv"):
        source_for(policy(signal={"trace": {"file": "none.csv"}}), clock, tmp_path)


def test_a_simulated_policy_acts_and_keeps_all_else():
    one = policy(act=False, readiness={"probe": "running", "after": "7s"})
    changed = simulated(one)
    assert changed.act
    assert changed.model_copy(update={"act": False}) == one
