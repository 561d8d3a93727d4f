"""The standing of a policy: one plant and the same luck for all, with hindsight as the bound."""

from __future__ import annotations

import math
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.simulator.judging.baselines import always_on
from autoscaler.simulator.judging.clairvoyant import Terms, cheapest
from autoscaler.simulator.judging.score import FIGURES, score
from autoscaler.simulator.judging.standings import (
    RIVALS,
    Comparison,
    Standings,
    schedule_sums,
    terms_of,
    without_pool,
)
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.measuring import Ticks, wanted
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.replay.timeline import TimelineRow, totals
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy

TRACES = Path(os.environ.get("AUTOSCALER_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
TICK_S, DAY_TICKS = 60.0, 1440
PLANT = PlantSettings(vms=25, in_service=6, start=Duration(50.0), provision=Duration(300.0))


def a_policy(**changes):
    base = {
        "signal": {"kind": "total", "max_age": "120s"},
        "vm": {"start_time": "60s"},
        "bounds": {"minimum": 1, "maximum": 25},
    }
    return policy(**(base | changes))


def bursty(days: int = 2) -> Trace:
    """A daily cycle with a burst of half the peak thrice a day, and one hour unknown."""
    rng = np.random.default_rng(11)
    minute = np.arange(days * DAY_TICKS)
    level = np.maximum(
        600 + 450 * np.sin(minute / DAY_TICKS * 2 * np.pi) + rng.gamma(1.0, 40.0, len(minute)), 0.0
    )
    for begin in rng.integers(0, len(minute) - 30, 3 * days):
        level[begin : begin + 20] += 500
    known = (minute < 700) | (minute >= 760)
    return Trace.build(
        BEGIN_S + TICK_S * minute[known], level[known], kind=TraceKind.GAUGE, name="bursty", interval_s=TICK_S
    )


TICKS = Ticks.over(BEGIN_S, 2 * DAY_TICKS * TICK_S, TICK_S)


def standings(*run, progress=None, enough=None, **more) -> Standings:
    return Comparison(*run, **more).standings(progress, enough)


@pytest.fixture(name="table", scope="module")
def _table() -> Standings:
    return standings(a_policy(), PLANT, bursty(), TICKS, warm_up_ticks=60)


def by_key(table: Standings, key: str) -> dict[str, float]:
    return dict(next(entry for entry in table.entries if entry.key == key).values)


def test_everybody_is_in_the_table_the_policy_first(table: Standings) -> None:
    keys = [entry.key for entry in table.entries]
    assert keys == ["policy", *(r.key for r in RIVALS), "without_pool", "static_peak", "clairvoyant"]
    assert [entry.judged for entry in table.entries] == [True] + [False] * (len(keys) - 1)
    assert all(list(entry.values) == [figure.key for figure in FIGURES] for entry in table.entries)
    assert table.whole


def test_the_policy_has_the_figures_of_its_own_run(table: Standings) -> None:
    lanes = Lanes(LaneRun((a_policy(),), (PLANT,), (bursty(),), TICKS))
    lanes.run(60)
    sums = lanes.sums()
    lanes.run(TICKS.count - 60, sums)
    alone = score(sums).of_lane(0)
    found = by_key(table, "policy")
    for key, value in alone.items():
        if not math.isnan(value):
            assert found[key] == value, key


def test_a_rival_has_the_figures_of_its_own_run(table: Standings) -> None:
    lanes = Lanes(LaneRun((a_policy(),), (PLANT,), (bursty(),), TICKS), lambda c: Kubernetes(c.lanes))
    lanes.run(60)
    sums = lanes.sums()
    lanes.run(TICKS.count - 60, sums)
    assert by_key(table, "kubernetes")["cost"] == score(sums)["cost"][0]
    assert by_key(table, "kubernetes")["shortage_s"] == score(sums)["shortage_s"][0]


def test_nobody_beats_the_clairvoyant_at_his_own_service(table: Standings) -> None:
    for entry in table.entries:
        if entry.key not in ("without_pool", "static_peak", "clairvoyant"):
            assert entry.values["regret"] >= -1e-3, entry.key
            assert entry.values["captured"] <= 1 + 1e-3, entry.key
    best, own = by_key(table, "clairvoyant"), by_key(table, "policy")
    assert best["unserved_share"] <= own["unserved_share"] + 1e-9
    assert own["regret"] > 0.05
    assert by_key(table, "static_peak")["shortage_s"] == 0.0


def test_the_pool_is_judged_against_having_none(table: Standings) -> None:
    own, without = by_key(table, "policy"), by_key(table, "without_pool")
    assert own["pool_cost"] == pytest.approx(own["cost"] - without["cost"])
    assert own["shortage_avoided_s"] == without["shortage_s"] - own["shortage_s"]
    assert own["shortage_avoided_s"] > 0
    assert own["cost_per_avoided_s"] == pytest.approx(own["pool_cost"] / own["shortage_avoided_s"])
    assert math.isnan(by_key(table, "kubernetes")["pool_cost"])


def test_without_a_pool_every_start_takes_as_long_and_costs_as_a_new_vm() -> None:
    changed, plant = without_pool(a_policy(prices={"provision": 0.5}), PLANT)
    assert plant.start == PLANT.provision
    assert changed.vm.start_time_s == 300.0
    assert (changed.prices.stopped_per_h, changed.prices.start) == (0.0, 0.51)
    assert changed.prices.in_service_per_h == pytest.approx(3.96)


def test_the_terms_of_the_optimum_are_those_of_the_plant() -> None:
    terms = terms_of(a_policy(), PLANT, TICK_S)
    assert (terms.lead_ticks, terms.ceiling, terms.provisioned, terms.initial) == (1, 25, 25, 6)
    # 50 s until it serves, of which 3 s run; found in service 10 s later.
    assert terms.start_billed_s == pytest.approx(13.0)
    assert terms_of(a_policy(bounds={"maximum": 9}), PLANT, 20.0).ceiling == 9
    assert terms_of(a_policy(), PLANT, 20.0).lead_ticks == 3
    few = replace(PLANT, vms=2, in_service=1)
    assert terms_of(a_policy(bounds={"minimum": 3, "maximum": 9}), few, 20.0).minimum == 2


def test_hindsight_and_a_fleet_for_the_peak_may_have_the_vms_that_the_policy_may_make() -> None:
    few = replace(PLANT, vms=4, in_service=2)
    makes = a_policy(
        provision={"launch_template": "t", "maximum": 20}, prices={"in_service": "1/h", "stopped": "0.1/h"}
    )
    table = standings(makes, few, bursty(), TICKS, warm_up_ticks=60)
    own, best = by_key(table, "policy"), by_key(table, "clairvoyant")
    assert by_key(table, "static_peak")["unserved_share"] == 0.0
    assert best["unserved_share"] <= own["unserved_share"] + 1e-9 < 0.1
    assert own["regret"] > 0
    assert table.optimum is not None
    assert best["cost"] == pytest.approx(table.optimum.cost)


@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_costs_the_same_to_the_ledger_and_to_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    demand = np.maximum(np.cumsum(rng.normal(0, 90, 300)) + 400, 0.0)
    demand[50:60] = np.nan
    terms = Terms(60.0, 100.0, 3.6, 0.36, 0.01, 13.0, 60.0, 2, 4, 1, 12, 12)
    (found,) = cheapest(demand, terms, (2e-5,))
    card = score(schedule_sums(found.vms, demand, terms)).of_lane(0)
    assert card["cost"] == pytest.approx(found.cost, rel=1e-12)
    assert card["unserved_work"] == pytest.approx(found.unserved_work, rel=1e-9)
    assert card["starts_per_day"] * 300 * 60 / 86400 == pytest.approx(found.starts)


def test_the_fleet_sized_for_the_peak_costs_what_the_time_line_baseline_costs(table: Standings) -> None:
    demand = wanted(bursty(), TICKS)[60:]
    rows = [
        TimelineRow(
            **{field.name: None for field in fields(TimelineRow)} | {"demand": float(d), "reason": ""}
        )
        for d in demand
    ]
    baseline = totals(always_on(rows, a_policy(), TICK_S), TICK_S)
    assert by_key(table, "static_peak")["cost"] == pytest.approx(baseline.cost, rel=1e-9)
    assert by_key(table, "static_peak")["vm_hours"] == pytest.approx(baseline.in_service_vm_s / 3600)


def test_an_interrupted_run_is_not_judged() -> None:
    told: list[float] = []
    for enough in (lambda: True, lambda: bool(told)):
        table = standings(a_policy(), PLANT, bursty(), TICKS, progress=told.append, enough=enough)
        assert (table.entries, table.optimum, table.whole) == ((), None, False)
    assert 0 < told[0] < 1


def test_where_nothing_is_wanted_there_is_no_optimum() -> None:
    flat = Trace.build(
        BEGIN_S + TICK_S * np.arange(50), np.zeros(50), kind=TraceKind.GAUGE, name="none", interval_s=TICK_S
    )
    table = standings(a_policy(), PLANT, flat, Ticks.over(BEGIN_S, 3000.0, TICK_S))
    assert table.optimum is None
    assert math.isnan(by_key(table, "policy")["regret"])


def test_the_same_run_gives_the_same_table(table: Standings) -> None:
    again = standings(a_policy(), PLANT, bursty(), TICKS, warm_up_ticks=60)
    for one, other in zip(table.entries, again.entries, strict=True):
        np.testing.assert_equal(dict(one.values), dict(other.values))


def test_luck_is_the_same_for_all_and_changes_with_the_seed() -> None:
    shaky, half = replace(PLANT, start_failure=0.2), Ticks.over(BEGIN_S, DAY_TICKS / 2 * TICK_S, TICK_S)
    one, other = (standings(a_policy(), shaky, bursty(), half, seed=seed) for seed in (1, 2))
    assert by_key(one, "policy")["failed_starts"] > 0.05
    assert by_key(one, "policy")["cost"] != by_key(other, "policy")["cost"]


@pytest.mark.parametrize(
    ("file", "day"),
    [("worldcup98_1min", 55), ("prod_service_a_1min", 2), ("genai_image_requests_1min", 3)],
)
def test_on_recorded_days_nobody_beats_the_clairvoyant(file: str, day: int) -> None:
    path = TRACES / f"{file}.csv.gz"
    if not path.is_file():
        pytest.skip(f"the recording {path.name} is not in {TRACES} (AUTOSCALER_TRACES names its folder)")
    trace = read_trace(path, kind=TraceKind.COUNT)
    begin_s = math.ceil(trace.start_s / 86_400) * 86_400.0 + day * 86_400.0
    trace = trace.cut(begin_s, begin_s + 86_400).scaled_to_peak(20 * 100.0)
    ticks = Ticks.over(begin_s, DAY_TICKS * TICK_S, TICK_S)
    changed = a_policy(signal={"kind": "total", "max_age": "300s"})
    table = standings(changed, PLANT, trace, ticks, warm_up_ticks=60)
    for entry in table.entries:
        if entry.key not in ("without_pool", "static_peak", "clairvoyant"):
            assert entry.values["regret"] >= -1e-3, entry.key
            assert entry.values["captured"] <= 1 + 1e-3, entry.key
    assert by_key(table, "clairvoyant")["cost"] < by_key(table, "policy")["cost"]
    assert by_key(table, "policy")["cost"] < by_key(table, "static_peak")["cost"]
