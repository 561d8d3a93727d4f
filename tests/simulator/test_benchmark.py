"""The benchmark of policies: fair terms, no look-ahead, curves by hand, results that can be read back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.errors import ConfigError, TraceError
from autoscaler.simulator.benchmark.conditions import WORK_PER_S, BenchmarkCourse, Fleet, course_of, finer
from autoscaler.simulator.benchmark.contest_runs import SideBySide, race_peers, raced
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Curve, hull_of, volume
from autoscaler.simulator.benchmark.document import document_of, read_bouts
from autoscaler.simulator.benchmark.entrants import SHORTAGE_PRICES, Entrant, ours
from autoscaler.simulator.benchmark.known_law import LawBooks
from autoscaler.simulator.benchmark.peer_entries import PEERS, RIVALS
from autoscaler.simulator.benchmark.tables import csv_text, markdown_text, pool_sentence, promise_sentence
from autoscaler.simulator.benchmark.trace_run import (
    Bout,
    FleetResult,
    PoolVerdict,
    Promise,
    Yardstick,
    run_bout,
)
from autoscaler.simulator.benchmark.verdict import Match, matches, summary
from autoscaler.simulator.benchmark.warm_pools import Books
from autoscaler.simulator.judging.clairvoyant import Front
from autoscaler.simulator.judging.contest import Contestant, contest
from autoscaler.simulator.judging.contest import ContestCourse as Contested
from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.engine import Lanes
from autoscaler.simulator.lanes.run import LaneRun
from autoscaler.simulator.peers.holding import Google
from autoscaler.simulator.replay.timeline import jsonable, write_document
from autoscaler.traces.trace import Trace, TraceKind

BEGIN_S = 1_772_409_600.0


def trace_of(values: np.ndarray, *, kind: TraceKind = TraceKind.COUNT, tick_s: float = 60.0) -> Trace:
    known = ~np.isnan(values)
    stamps = BEGIN_S + tick_s * np.arange(len(values))
    return Trace.build(stamps[known], values[known], kind=kind, name="t", interval_s=tick_s)


def wavy(seed: int = 3, ticks: int = 480) -> Trace:
    """Demand that rises and falls, with bursts and noise."""
    rng = np.random.default_rng(seed)
    wave = 60.0 + 50.0 * np.sin(np.arange(ticks) / 40.0)
    return trace_of(rng.poisson(wave * np.where(rng.random(ticks) < 0.03, 2.5, 1.0)).astype(float))


REACTIVE = Entrant(
    "plain", "plain", "", {"reactive": {"tolerance": "0%"}},
    tuple({"reactive.headroom": text} for text in ("0%", "20%", "60%", "150%")), "headroom",
)  # fmt: skip


# ---- terms ----------------------------------------------------------------------------------------------------


def test_every_knob_has_one_more_setting_between_each_two() -> None:
    assert finer((1.0, 4.0, 25.0)) == (1.0, 2.0, 4.0, 10.0, 25.0)
    knobs = [rival.values for rival in RIVALS] + [SHORTAGE_PRICES]
    for values in knobs:
        assert len(set(values)) == len(values)
        assert list(values) == sorted(values)
        assert finer(values[::2]) == values


def test_demand_is_scaled_by_its_peak_and_known_when_an_interval_is_over() -> None:
    values = np.arange(1.0, 1001.0)
    for kind in TraceKind:
        course = course_of(trace_of(values, kind=kind))
        assert course.trace.rates[-1] == pytest.approx(WORK_PER_S * 1000.0 / np.quantile(values, 0.999))
        assert (course.learn_ticks, course.scored_ticks, course.long) == (333, 667, False)
        fleet = Fleet.on(course, 40)
        assert fleet.vm_capacity == WORK_PER_S / 40
        seen = demand_seen(course, fleet)
        assert np.isnan(seen[0])
        np.testing.assert_allclose(seen[1:], course.trace.rates[:-1])


def demand_seen(course: BenchmarkCourse, fleet: Fleet) -> list[float]:
    """What a decider is shown, tick by tick."""
    found: list[float] = []
    run = LaneRun((fleet.plain_policy(),), (fleet.plant,), (course.trace,), course.ticks)
    lanes = Lanes(run)
    own = lanes.decider

    class Spy:
        def decide(self, snapshot, outlook):
            found.append(float(snapshot.demand[0]))
            return own.decide(snapshot, outlook)

    lanes.decider = Spy()
    lanes.run(course.ticks.count)
    return found


@pytest.mark.parametrize("tick_s", [1.0, 30.0, 60.0, 300.0, 3600.0])
def test_a_start_costs_what_it_takes(tick_s: float) -> None:
    # Nothing to learn from, then one burst: a VM is ordered when it is seen, and billed for its start.
    values = np.full(450, 1e-9)
    values[250] = 100.0
    course = course_of(trace_of(values, tick_s=tick_s))
    fleet = Fleet.on(course, 1)
    tally = raced(course, [fleet.plain_policy()], [fleet.plant], lambda c: OneAt(c.lanes, tick=251))
    start_s = math.ceil(60.0 / tick_s) * tick_s
    # It serves from there to the end.
    serving_s = (450 - 251) * tick_s - start_s
    assert tally.starts[0] == 1
    assert tally.cost[0] * 3600.0 == pytest.approx(start_s + serving_s)
    assert fleet.terms(course.demand()).start_billed_s == start_s


class OneAt:
    """One VM from a tick of the run on."""

    def __init__(self, params, *, tick: int) -> None:
        self._params, self._tick, self._now = params, tick, -1

    def decide(self, snapshot, outlook):
        from autoscaler.simulator.peers.peer import answered

        del outlook
        self._now += 1
        return answered(self._params, snapshot, np.array([int(self._now >= self._tick)]))


def test_a_gap_is_no_demand_and_no_shortage() -> None:
    values = np.full(300, 50.0)
    values[200:220] = np.nan
    course = course_of(trace_of(values))
    assert np.isnan(course.demand()).sum() == 20
    fleet = Fleet.on(course, 8)
    curves = race_peers(course, [fleet], [rival for rival in RIVALS if rival.key == "google"])[8]
    full = curves[0].values.index("0.5")
    assert curves[0].unserved[full] == 0.0


@pytest.mark.parametrize(
    ("values", "tick_s", "says"),
    [
        (np.zeros(50), 60.0, "zero"),
        (np.ones(6), 60.0, "too few"),
        (np.ones(50), 7200.0, "between 1 s and 1 h"),
    ],
)
def test_a_trace_of_no_use_is_told(values: np.ndarray, tick_s: float, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        course_of(trace_of(values, tick_s=tick_s))


# ---- no look-ahead --------------------------------------------------------------------------------------------


def desired_of(course: BenchmarkCourse, fleet: Fleet, entrant: Entrant | None) -> np.ndarray:
    """(T, L), what everybody wanted, tick by tick: the peers, or a policy."""
    found: list[np.ndarray] = []
    peers = [rival for rival in RIVALS if not rival.hindsight]
    policies = entrant.policies(fleet, entrant.settings[:3]) if entrant else None
    if policies is None:
        policies = [fleet.plain_policy()] * sum(len(rival.values) for rival in peers)
    run = LaneRun(
        tuple(policies), (fleet.plant,) * len(policies), (course.trace,) * len(policies), course.ticks
    )
    lanes = Lanes(run, None if entrant else lambda c: SideBySide(c.lanes, peers, 1, course))
    own = lanes.decider

    class Spy:
        def decide(self, snapshot, outlook):
            decision = own.decide(snapshot, outlook)
            found.append(decision.desired.copy())
            return decision

    lanes.decider = Spy()
    lanes.run(course.ticks.count)
    return np.stack(found)


@pytest.mark.parametrize("entrant", [None, REACTIVE, ours()], ids=["peers", "plain", "ours"])
def test_noise_in_the_future_changes_no_decision_before_it(entrant: Entrant | None) -> None:
    trace, cut = wavy(), 300
    rng = np.random.default_rng(1)
    values = trace.values.copy()
    values[cut:] = rng.permutation(values[cut:]) * rng.uniform(0.2, 1.0, len(values) - cut)
    # The same scale on both sides, which knows the whole trace.
    course, other = course_of(trace), course_of(trace_of(values))
    known = replace(other, trace=trace_like(course.trace, values * course.trace.values[0] / trace.values[0]))
    fleet = Fleet.on(course, 8)
    one, two = desired_of(course, fleet, entrant), desired_of(known, fleet, entrant)
    # The interval `cut` is over, and so known, when tick cut + 1 decides.
    np.testing.assert_array_equal(one[: cut + 1], two[: cut + 1])
    assert (one != two).any()


def trace_like(trace: Trace, values: np.ndarray) -> Trace:
    return Trace.build(
        trace.timestamps, values, kind=trace.kind, name=trace.name, interval_s=trace.interval_s
    )


# ---- against what is known otherwise ------------------------------------------------------------------------------


def test_peers_side_by_side_come_to_what_each_comes_to_alone() -> None:
    course = course_of(wavy())
    fleets = [Fleet.on(course, size) for size in (40, 8)]
    curves = race_peers(course, fleets, RIVALS)
    for fleet in fleets:
        google = next(curve for curve in curves[fleet.size] if curve.key == "google")
        at = google.values.index("0.66")
        alone = contest(
            [Contestant(fleet.plain_policy(), fleet.plant, lambda p: Google(p, utilisation=0.66))],
            Contested(course.trace, course.ticks, course.learn_ticks, seed=0),
            segments=1,
        ).sums
        assert alone is not None
        assert google.cost[at] * 3600.0 == pytest.approx(alone.amount(Amount.BILLED_VM_S)[0], rel=1e-12)
        share = alone.amount(Amount.SHORTAGE)[0] / alone.amount(Amount.DEMAND)[0]
        assert google.unserved[at] == pytest.approx(share, rel=1e-12)
        assert google.starts[at] == alone.count(Count.STARTS)[0]


def test_nobody_is_cheaper_than_hindsight() -> None:
    course = course_of(wavy(7, 600))
    demand = course.demand()
    for fleet in (Fleet.on(course, 40), Fleet.on(course, 8)):
        front = Front(demand, fleet.terms(demand))
        for curve in race_peers(course, [fleet], RIVALS)[fleet.size]:
            for unserved, cost in zip(curve.unserved, curve.cost, strict=True):
                assert cost >= front.cost_serving(1.0 - unserved) * (1.0 - 1e-6), curve.key


def test_the_oracle_is_nearer_to_hindsight_than_any_peer() -> None:
    bout = run_bout(wavy(5, 900), (40,), RIVALS, ())
    (fleet,) = bout.fleets
    for at in range(len(LEVELS)):
        best = min(fleet.regrets[key][at] for key in PEERS)
        assert 0.0 <= fleet.regrets["short_oracle"][at] < best
    assert fleet.volumes["short_oracle"] > max(fleet.volumes[key] for key in PEERS)


def test_promises_are_judged_after_a_week() -> None:
    ticks = 12 * 24 * 9
    rng = np.random.default_rng(2)
    trace = trace_of(rng.poisson(50.0, ticks).astype(float), tick_s=300.0)
    own = ours()
    promising = replace(
        own, settings=own.settings[14:17], promises=({"objective": {"served": "99%"}},), warm_pool={}
    )
    course = course_of(trace)
    assert (course.learn_ticks, course.week_ticks) == (ticks // 3, 7 * 288)
    (fleet,) = run_bout(trace, (8,), (), (promising,)).fleets
    ((promise,),) = fleet.promises.values()
    assert promise.promised == "99%"
    assert 0.0 <= promise.late_unserved <= 0.05
    assert fleet.curves["ours"].values == ("26/h", "32.25/h", "40/h")
    assert not fleet.warm_pools


# ---- curves ---------------------------------------------------------------------------------------------------------


def test_a_hull_mixes_settings_and_reaches_no_further_than_they_do() -> None:
    unserved = np.array([0.001, 0.01, 0.005, 0.02, 0.03, math.nan])
    cost = np.array([100.0, 60.0, 95.0, 55.0, 70.0, 1.0])
    hull = hull_of(unserved, cost)
    assert hull.settings.tolist() == [0, 1, 3]
    assert hull.cost_at(0.0055) == pytest.approx(80.0)
    assert hull.cost_at(0.5) == 55.0
    assert math.isinf(hull.cost_at(0.0009))
    assert hull.mixed_at(0.0055, np.array([10, 20, 0, 0, 0, 0])) == pytest.approx(15.0)
    assert math.isnan(hull.mixed_at(0.0, np.array([10, 20, 0, 0, 0, 0])))


@given(
    points=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(1.0, 100.0)), min_size=1, max_size=20),
    at=st.floats(0.0, 1.0),
)
@settings(max_examples=100, deadline=None)
def test_a_hull_lies_below_all_points_and_bends_one_way(points: list[tuple[float, float]], at: float) -> None:
    unserved, cost = np.array(points).T
    hull = hull_of(unserved, cost)
    for share, paid in points:
        assert hull.cost_at(share) <= paid + 1e-9
    assert (np.diff(hull.cost) < 0).all()
    steps = np.diff(hull.unserved)
    assert (steps > 0).all()
    assert (
        np.diff(np.diff(hull.cost) / np.maximum(steps, 1e-300)) >= -1e-6 * np.abs(hull.cost[2:] + 1)
    ).all() or (steps < 1e-9).any()
    if math.isfinite(hull.cost_at(at)):
        assert hull.cost[-1] <= hull.cost_at(at) <= hull.cost[0]


def test_the_room_is_covered_by_the_clairvoyant_and_not_by_twice_its_cost() -> None:
    shares, least = np.array(VOLUME_SHARES), np.linspace(20.0, 10.0, len(VOLUME_SHARES))
    assert volume(hull_of(shares, least), least.tolist()) == pytest.approx(1.0)
    assert volume(hull_of(shares, 2.0 * least), least.tolist()) == pytest.approx(0.0)
    assert volume(hull_of(shares, 1.5 * least), least.tolist()) == pytest.approx(0.5)
    # Reaching 0.1 % and no further leaves the third of the span below it.
    assert volume(hull_of(shares[2:], least[2:]), least.tolist()) == pytest.approx(2.5 / 3.0, abs=0.1)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def bout_of(name: str, regrets: dict[str, tuple[float, ...]], *, long: bool = True) -> Bout:
    """A bout with these regrets, in which everybody starts 30 VMs where the clairvoyant starts 20."""
    curves = {
        key: Curve(
            key, "knob", ("1", "2"), np.array([0.0005, 0.05]), np.array([9.0, 4.0]), np.array([30, 30]),
            np.array([1, 2]), np.array([0.0, math.nan]),
        )
        for key in regrets
    }  # fmt: skip
    yardstick = Yardstick(
        (3.0, 3.5, 4.0), (20, 20, 20), tuple(np.linspace(5.0, 2.0, len(VOLUME_SHARES)).tolist())
    )
    promises = {"ours": (Promise("99%", 0.01, 0.012, 5.0), Promise("99.9%", 0.001, math.nan, 6.0))}
    books = Books(2.0, 3, 4, 1, 0.5)
    foreseen, day = replace(books, cost=1.25, missed=0), replace(books, cost=6.0, missed=2)
    others = replace(books, cost=8.0), day, books, foreseen, LawBooks(1.5, 1)
    pools = {"ours": PoolVerdict(books, *others, 50, 1.0, 0.001, pays=False)}
    coverage = {"ours": (0.51, 0.9, 0.96, 0.98)}
    fleet = FleetResult(8, yardstick, curves, regrets, dict.fromkeys(regrets, 0.5), promises, pools, coverage)
    return Bout(name, "d", 60.0, 10.0 if long else 1.0, long, (fleet,))


def test_a_ratio_holds_a_regret_against_the_best_peers_with_half_a_point_of_slack() -> None:
    peers = ("google", "react")
    bouts = [
        bout_of(
            "a",
            {"ours": (0.095, 0.2, math.inf), "google": (0.195, 0.3, 0.4), "react": (0.5, 0.195, math.inf)},
        ),
        bout_of("b", {"ours": (0.0, 0.1, 0.1), "google": (math.inf,) * 3, "react": (math.inf,) * 3}),
    ]
    found = matches(bouts, "ours", peers)
    assert [m.best for m in found] == ["google", "react", "google", "", "", ""]
    assert [m.ratio for m in found] == pytest.approx([0.1 / 0.2, 0.205 / 0.2, math.inf, 0.0, 0.0, 0.0])
    told = summary(found)
    assert (told.matches, told.reached, told.won) == (6, 5, 4)
    assert told.ratio == pytest.approx(math.sqrt(0.5 * 1.025))
    assert math.isinf(told.worst)
    assert told.starts == pytest.approx(1.5)
    nobody = Match("c", 8, 0.01, True, math.inf, "", math.inf, 1.0)
    assert math.isnan(nobody.ratio)
    assert summary([nobody]).matches == 0


# ---- results ---------------------------------------------------------------------------------------------------------


def told_by(bouts: Sequence[Bout]) -> str:
    return json.dumps(jsonable(document_of(bouts)), sort_keys=True)


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    bout = bout_of("a", {"ours": (0.1, 0.2, math.inf), "google": (0.2, 0.3, 0.4)})
    write_document(tmp_path / "results.json", document_of([bout]))
    (again,) = read_bouts(tmp_path)
    assert told_by([again]) == told_by([bout])
    assert again.fleets[0].regrets == bout.fleets[0].regrets
    assert again.fleets[0].clairvoyant == bout.fleets[0].clairvoyant
    assert math.isnan(again.fleets[0].promises["ours"][1].late_unserved)
    np.testing.assert_array_equal(again.fleets[0].curves["ours"].cost, bout.fleets[0].curves["ours"].cost)
    assert again.fleets[0].warm_pools == bout.fleets[0].warm_pools
    # A pool that an earlier run judged without who knows the law is judged anew.
    told = json.loads((tmp_path / "results.json").read_text())
    del told["traces"][0]["fleets"][0]["warm_pools"]["ours"]["lawful"]
    (tmp_path / "results.json").write_text(json.dumps(told))
    assert not read_bouts(tmp_path)[0].fleets[0].warm_pools
    (tmp_path / "results.json").write_text('{"version": 0}')
    with pytest.raises(ConfigError, match="not written by this version"):
        read_bouts(tmp_path)


def promising(name: str, *promises: Promise, long: bool = True) -> Bout:
    """A bout with these promises of ours."""
    bout = bout_of(name, {"ours": (0.1, 0.2, 0.3)}, long=long)
    return replace(bout, fleets=(replace(bout.fleets[0], promises={"ours": promises}),))


def test_promises_are_told_in_a_sentence_with_those_that_were_not_kept() -> None:
    """To within twice the permitted unserved work; of long traces, where a week has passed."""
    kept, broken = Promise("99.0%", 0.0, 0.02, 5.0), Promise("99.7%", 0.0, 0.0061, 6.0)
    unknown = Promise("99.9%", 0.0, math.nan, 6.0)
    said = promise_sentence(
        [promising("a", kept, broken, unknown), promising("b", kept), promising("c", broken, long=False)],
        "ours",
    )
    assert said.startswith("Promised shares: 2 of 3 kept to within twice")
    assert said.endswith(": not 99.7% on a/8 (99.39%).")
    assert promise_sentence([promising("a", kept)], "ours").endswith("seven scored days or more.")
    assert promise_sentence([promising("a", unknown)], "ours") == ""


def test_tables_say_what_is_in_the_bouts() -> None:
    bouts = [bout_of("a", {"ours": (0.1, 0.2, math.inf), "google": (0.2, 0.3, 0.4)}, long=False)]
    text = markdown_text(bouts, "ours", "this program", ("google",))
    assert "| a * | 8 | 10.0% : 20.0% google | 20.0% : 30.0% google | - : 40.0% google |" in text
    assert "| a | 8 | 98.800% |" in text
    own = "4 of 50, 1 (2.0%) within what had been wanted"
    assert (
        f"| a | 8 | 0.5 | 2.00 x | {own} | 1.25 x, 0 missed | 1.50 x, 1 missed | 8.00 x, 4 missed |" in text
    )
    said = pool_sentence(bouts, "ours")
    assert (
        "1 of 50 starts (2.0%) missed within what had been wanted before; a rule that knows the next hour pays 1.25 times"
        in said
    )
    assert (
        "fitted in hindsight to the same ticks, 1.50 times with 2.0% missed; holding the peak 8.00 times"
        in said
    )
    rows = csv_text(bouts).splitlines()
    assert len(rows) == 1 + 2 * 2
    assert rows[1] == "a,60,1.000,8,ours,knob,1,0.0005,9.0,30,1"
