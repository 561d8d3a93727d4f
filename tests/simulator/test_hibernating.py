"""Replays of fleets that hibernate: which engine runs them, and what a memory is worth by daemon and bill."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.matching import as_probed, cloud_of
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.replay.preparing import Wanted, prepare
from autoscaler.simulator.replay.replaying import engine_for, run
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy

MINUTES = 900
PRICE = 60.0
"""Of a VM-hour of unserved work, in prices of one in service."""
SAID = {"start_time": "20s", "save_time": "60s"}


def crowds(seed=3):
    """Three to eight VMs of demand, and a crowd of three to nine more once in about an hour, which nobody can foresee."""
    at, rng = np.arange(MINUTES), np.random.default_rng(seed)
    demand = 500 - 200 * np.cos(2 * np.pi * at / 720)
    for begins in np.cumsum(rng.exponential(60.0, 14)):
        since = at - begins
        demand += np.where(since >= 0, rng.uniform(300, 900) * np.exp(-np.maximum(since, 0) / 15), 0.0)
    values = demand * rng.gamma(200, 1 / 200, MINUTES)
    return Trace.build(BEGIN_S + 60.0 * at, values, kind=TraceKind.GAUGE, name="crowds", interval_s=60.0)


def fleet(hibernate, memory="0/h"):
    return policy(
        signal={"kind": "total", "max_age": "180s"},
        vm={"capacity": "100/s", "start_time": "120s", "stop_time": "60s"},
        bounds={"minimum": 1, "maximum": 40},
        prices={"in_service": "1/h", "stopped": "0.02/h", "start": 0, "start_billed": "3s", "memory": memory},
        objective={"shortage_price": f"{PRICE}/h"},
        warm_pool={} if hibernate is None else {"hibernate": hibernate},
        forecast="off",
        reactive="off",
    )


@dataclass
class Came:
    """Money, VM-hours of work that found no VM, and VM-hours that memories were held."""

    money: float
    unserved: float
    held: float

    @property
    def total(self):
        return self.money + PRICE * self.unserved


@cache
def played(how, memory="0/h"):
    """By the loop engine in the cloud of a fleet whose hibernated VMs start as `SAID`, whatever its policy knows of that."""
    hibernate = {"not": None, "all": {}, "weighed": SAID}[how]
    known = prepare(fleet(SAID, memory), Path("web.yaml"), crowds(), Wanted(vms=24))
    own = prepare(fleet(hibernate, memory), Path("web.yaml"), crowds(), Wanted(vms=24))
    result = run_loop(
        LoopRun(
            policy=as_probed(own.fitted),
            trace=own.trace,
            cloud=cloud_of(as_probed(known.fitted), known.plant, 1),
            start_s=own.begin_s,
            duration_s=own.span_s,
            tick_s=60.0,
            imbalance=0.0,
        )
    )
    short = sum(row.shortage for row in result.rows if row.shortage == row.shortage)
    return Came(result.bill.money, short / 100.0 / 60.0, result.bill.held_s / 3600.0)


def test_lanes_do_not_run_a_fleet_that_hibernates_and_say_who_does():
    replay = prepare(fleet(SAID), Path("web.yaml"), crowds(), Wanted(vms=24))
    engine, why = engine_for(replay)
    assert engine == "loop"
    assert "warm_pool.hibernate" in why
    with pytest.raises(ConfigError, match=r"warm_pool\.hibernate.*the loop engine"):
        engine_for(replay, "lanes")
    assert any("starting a hibernated VM takes 20 s" in note for note in replay.notes)
    unsaid = prepare(fleet({}), Path("web.yaml"), crowds(), Wanted(vms=24))
    assert any("takes as long" in note for note in unsaid.notes)
    assert engine_for(prepare(fleet(None), Path("web.yaml"), crowds(), Wanted(vms=24))) == ("lanes", "")


def test_memories_that_cost_nothing_to_hold_serve_crowds_sooner():
    plain, every, weighed = played("not"), played("all"), played("weighed")
    assert plain.held == 0.0
    assert weighed.held > 0.9 * every.held > 10.0
    assert weighed.unserved < 0.9 * plain.unserved


def test_where_memories_have_a_price_the_few_that_pay_are_cheaper_than_none_and_hardly_dearer_than_all():
    plain, every, weighed = played("not"), played("all"), played("weighed", "0.003/h")
    assert 0.0 < weighed.held < 0.5 * every.held
    assert weighed.unserved < plain.unserved
    assert weighed.total < 0.96 * plain.total
    # What does not weigh it decides alike whatever it costs. In these twelve hours, the first of the fleet, it is not known yet how
    # much of its work a VM has while it starts.
    assert weighed.total < 1.02 * (every.total + 0.003 * every.held)


def test_memories_that_cost_more_than_they_earn_are_not_held():
    plain, every, weighed = played("not"), played("all"), played("weighed", "0.2/h")
    assert weighed.held < 0.2 * every.held
    assert weighed.total < every.total + 0.2 * every.held
    assert weighed.total < 1.02 * plain.total


def test_a_replay_charges_what_the_cloud_does():
    replay = prepare(fleet(SAID, "0.003/h"), Path("web.yaml"), crowds(), Wanted(vms=24))
    ran = run(replay)
    assert ran.engine == "loop"
    assert sum(row.cost for row in ran.rows) == pytest.approx(played("weighed", "0.003/h").money, rel=0.02)
