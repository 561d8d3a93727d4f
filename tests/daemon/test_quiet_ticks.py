"""What a quiet tick does not recompute is what it would have computed, to the bit, in everything that is recorded."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.core import demand
from autoscaler.core.decide import Chain
from autoscaler.core.types import Signal
from autoscaler.daemon import fleet_rows, observing
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.providers.memory import MemoryProvider
from autoscaler.sources.trace import TraceSource
from autoscaler.store import SqliteJournal, rows
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.wiring import simulated, wire

BEGIN_S = 1_790_000_000.0
TICKS = 400
RATES = {
    # Idle, then a crowd, then idle again: VMs start, serve, and stop.
    "web": [0.0] * 15 + [900.0] * 10 + [880.0] * 10 + [0.0] * 40,
    # Hardly anything changes, except for a gap.
    "api": [250.0] * 30 + [np.nan] * 8 + [250.0] * 37,
    "batch": [0.0] * 75,
}


def _policy(name):
    return {
        "fleet": name,
        "signal": {"kind": "total", "source": "trace", "max_age": "90s", "trace": {}},
        "vm": {"capacity": "100/s", "start_time": "30s", "stop_time": "30s"},
        "readiness": {"probe": "status_checks"},
        "bounds": {"minimum": 1 if name == "api" else 0, "maximum": 12},
        "reactive": {"headroom": "20%"},
        "prices": {"in_service": "0.1/h", "stopped": "0.01/h"},
    }


class _Kept:
    """A logger that keeps its lines."""

    def __init__(self):
        self.said = []

    def info(self, event, **facts):
        assert event not in {"tick_failed", "act_failed", "journal_failed"}, facts
        self.said.append((event, facts))

    debug = warning = error = exception = info


def _trace(name, stamps, rates):
    known = ~np.isnan(rates)
    return Trace.build(stamps[known], rates[known], kind=TraceKind.GAUGE, name=name, interval_s=60.0)


async def _lived(fleets, *, forecasts):
    clock, log = VirtualClock(BEGIN_S), _Kept()
    cloud = CloudSetup(seed=3, fleets=tuple(FleetSetup(name, 12) for name in fleets), api_limits=False)
    stamps = BEGIN_S + 60.0 * np.arange(75)
    sources = {
        name: TraceSource(
            _trace(name, stamps, np.array(RATES[name])),
            clock,
            Signal.TOTAL,
            100.0,
        )
        for name in fleets
    }
    policies = [simulated(policy_from(_policy(name))) for name in fleets]
    wired = wire(policies, MemoryProvider(cloud.world(BEGIN_S), clock), clock, lambda p: sources[p.fleet])
    journal = SqliteJournal(":memory:", inline=True)
    daemon = Daemon(
        clock, wired.setups, journal, Telemetry(log=log), LoopSettings(tick_s=10.0, forecasts=forecasts)
    )
    asyncio.get_running_loop().call_later(TICKS * 10.0, daemon.stop)
    await daemon.run()
    journal.reader()
    blobs = journal._connection.execute("SELECT tick, at_s, body FROM ticks ORDER BY id").fetchall()
    actions = journal._connection.execute("SELECT * FROM actions ORDER BY id").fetchall()
    states = {name: state.dump() for name, state in daemon.fleets.states().items()}
    metrics = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for metric in daemon.telemetry.registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created") and "tick_seconds" not in sample.name
    }
    await journal.close()
    return {"ticks": blobs, "actions": actions, "said": log.said, "states": states, "metrics": metrics}


def _plain(told):
    """Convert arrays to bytes and numbers to texts, so that unknown values are equal to themselves."""
    if isinstance(told, dict):
        return {key: _plain(value) for key, value in told.items()}
    return told.tobytes() if isinstance(told, np.ndarray) else repr(told)


@pytest.fixture(name="everything_anew")
def _everything_anew(monkeypatch):
    """Make every tick compute everything, as if nothing were kept from the one before."""

    read = TraceSource.read

    async def read_anew(source, vms):
        source._told = None
        return await read(source, vms)

    monkeypatch.setattr(demand.Folds, "fold", lambda _, *of: demand.fold(*of))
    monkeypatch.setattr(Chain, "decide", lambda chain, *seen: chain._compute(*seen)[0])
    monkeypatch.setattr(Chain, "later", lambda *_: None)
    monkeypatch.setattr(fleet_rows.LaneValues, "of", lambda _, *of: fleet_rows.lane_values(*of))
    monkeypatch.setattr(fleet_rows.CachedRow, "is_of", lambda *_: False)
    monkeypatch.setattr(
        rows.Encoded, "of", lambda _, fleets: (rows.encode(fleets), tuple(fleet.fleet for fleet in fleets))
    )
    monkeypatch.setattr(SqliteJournal, "_hold_back", lambda *_: False)
    monkeypatch.setattr(VirtualClock, "jumps_to", lambda *_: False)
    monkeypatch.setattr(observing, "is_fixed", lambda _: False)
    monkeypatch.setattr(TraceSource, "read", read_anew)


@pytest.mark.parametrize("forecasts", [False, True])
@pytest.mark.parametrize("fleets", [("batch",), ("web",), ("web", "api", "batch")])
def test_all_that_is_recorded_is_what_full_ticks_record(fleets, forecasts, request):
    quiet = run_virtual(lambda: _lived(fleets, forecasts=forecasts))
    request.getfixturevalue("everything_anew")
    full = run_virtual(lambda: _lived(fleets, forecasts=forecasts))
    assert len(quiet["ticks"]) >= TICKS
    if "web" in fleets:
        assert len(quiet["actions"]) > 1
    for part, told in quiet.items():
        assert _plain(told) == _plain(full[part]), part
