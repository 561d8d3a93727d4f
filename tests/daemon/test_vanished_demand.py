"""After a sudden fall that is rare for the fleet, VMs are kept for a while, and people are told."""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Reason, Stage
from tests.daemon.builders import Bench, policy, steady, virtual

AT_S = 30 * 3600.0
"""The second noon, when demand is highest."""


def demand(seconds):
    """Demand with a daily swing and an outage."""
    if AT_S + 600.0 <= seconds < AT_S + 3000.0:
        return 9.0
    swing = np.sin(2.0 * np.pi * seconds / 86_400.0)
    return float(round(1100.0 + 900.0 * swing + 40.0 * (int(seconds // 60.0) * 7919 % 5)))


def demand_events(bench):
    return [(at_s, kind) for at_s, kind, _ in bench.events() if kind.startswith("demand_")]


@virtual
async def test_an_outage_in_front_of_a_fleet_with_an_objective_stops_nothing_and_is_told():
    """An outage of forty minutes, with shortage at 50 times the price of a VM: when demand returns, the VMs are still there."""
    bench = Bench(vms=30, running=6, tick_s=60.0)
    bench.add(
        policy(
            signal={"kind": "total", "max_age": "120s"},
            reactive=None,
            objective={"shortage_price": "50/h"},
            prices={"in_service": "1/h"},
            bounds={"minimum": 0, "maximum": 30},
        ),
        demand,
    )
    await bench.run(AT_S + 3300.0)
    rows = bench.rows()[int(AT_S // 60.0) :]
    low = [row for row in rows if row.demand < 100.0]
    assert len(low) == 40
    assert {row.reasons[Stage.ECONOMIC] for row in low[20:]} == {int(Reason.FALL_DOUBTED)}
    assert {row.earnings.doubted for row in low} == {20}
    assert low[-1].in_service == 20
    assert low[-1].sentence == (
        "holding 20: demand fell suddenly to 9/s, which is rare and may be an outage, so 20 VMs stay for a while"
    )
    assert demand_events(bench) == [(AT_S + 600.0, "demand_fell"), (AT_S + 3000.0, "demand_believed")]
    text = next(text for _, kind, text in bench.events() if kind == "demand_fell")
    assert text == (
        "demand fell suddenly to 9/s; that may be an outage in front of the fleet, so up to 20 of its VMs stay for a while: check whether requests reach it"
    )


@virtual
async def test_zero_at_all_vms_at_once_is_told_while_it_is_doubted():
    bench = Bench(vms=6, running=6)
    bench.add(policy(signal={"zero_hold": "120s"}), steady((0, 600.0), (60, 0.0)))
    await bench.run(300)
    assert demand_events(bench) == [(60.0, "demand_fell"), (180.0, "demand_believed")]
