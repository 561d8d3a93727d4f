"""Replays of known events: a fleet that is certain of one has enough VMs from its first second, and not for much longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoscaler.simulator.replay.preparing import Wanted, prepare
from autoscaler.simulator.replay.replaying import run
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy

BEGINS_S, LASTS_S = BEGIN_S + 12 * 3600.0, 1800.0  # 2026-03-02T12:00:00Z


def crowd(tick_s):
    """400/s, but for half an hour in which it is four times as much; what came in each tick."""
    starts_s = BEGINS_S + np.arange(-3.0 * 3600.0, 1.5 * 3600.0, tick_s)
    during = (starts_s >= BEGINS_S) & (starts_s < BEGINS_S + LASTS_S)
    work = np.where(during, 1590.0, 397.5) * tick_s
    return Trace.build(starts_s, work, kind=TraceKind.COUNT, name="crowd", interval_s=tick_s)


@pytest.mark.parametrize(
    ("tick_s", "start_time"), [(10.0, "40s"), (10.0, "45s"), (60.0, "45s"), (60.0, "150s")]
)
def test_nothing_of_a_certain_event_is_unserved_from_its_first_second_on(tick_s, start_time):
    fleet = policy(
        signal={"kind": "total", "max_age": "150s"},
        vm={"start_time": start_time},
        forecast={"cover": "95%"},
        reactive="off",
        bounds={"maximum": 40},
        events=[
            {
                "name": "final",
                "begins": "2026-03-02T12:00:00Z",
                "lasts": "30m",
                "factor": 4,
                "odds": "100%",
            }
        ],
    )
    ran = run(prepare(fleet, Path("web.yaml"), crowd(tick_s), Wanted(vms=40)))
    rows = {row.timestamp_s - BEGINS_S: row for row in ran.rows}
    assert [at_s for at_s, row in rows.items() if row.shortage and at_s >= -3600.0] == []
    lead_s = np.ceil(float(start_time[:-1]) / tick_s) * tick_s
    # Before it the order that serves from its beginning on, and none before.
    assert max(row.desired for at_s, row in rows.items() if -3600.0 <= at_s < -lead_s) == 4
    assert rows[-lead_s].desired == 16
    assert rows[-tick_s].in_service == 4
    assert rows[0.0].in_service == 16
    assert rows[LASTS_S + 900.0].in_service <= 5


def test_events_are_known_however_long_a_run_is():
    """Every morning of two weeks demand is four times for a quarter of an hour, at which nothing is unserved."""
    days, tick_s = 14, 300.0
    starts_s = BEGIN_S + np.arange(0.0, days * 86400.0, tick_s)
    of_day_s = (starts_s - BEGIN_S) % 86400.0
    during = (of_day_s >= 9 * 3600.0) & (of_day_s < 9.25 * 3600.0)
    trace = Trace.build(
        starts_s,
        np.where(during, 1590.0, 397.5) * tick_s,
        kind=TraceKind.COUNT,
        name="mornings",
        interval_s=tick_s,
    )
    fleet = policy(
        signal={"kind": "total", "max_age": "15m"},
        reactive="off",
        bounds={"maximum": 40},
        events=[{"name": "mail", "at": "09:00", "lasts": "15m", "factor": 4, "odds": "100%"}],
    )
    ran = run(prepare(fleet, Path("web.yaml"), trace, Wanted(vms=40)), engine="lanes")
    begun = [row for row in ran.rows if (row.timestamp_s - BEGIN_S) % 86400.0 == 9 * 3600.0]
    assert len(begun) == days
    assert [row.timestamp_s for row in begun if row.shortage] == []


def test_a_young_fleet_with_an_objective_meets_a_certain_event_though_demand_drives():
    fleet = policy(
        signal={"kind": "total", "max_age": "150s"},
        vm={"start_time": "45s"},
        reactive="off",
        forecast="off",
        objective={"shortage_price": "360/h"},
        bounds={"maximum": 40},
        events=[
            {"name": "final", "begins": "2026-03-02T12:00:00Z", "lasts": "30m", "factor": 4, "odds": "100%"}
        ],
    )
    ran = run(prepare(fleet, Path("web.yaml"), crowd(60.0), Wanted(vms=40)))
    rows = {row.timestamp_s - BEGINS_S: row for row in ran.rows}
    assert [at_s for at_s, row in rows.items() if row.shortage and -3600.0 <= at_s < LASTS_S] == []
    assert rows[-120.0].desired <= 6
    assert rows[-60.0].desired == 16
