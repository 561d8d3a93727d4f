"""The plant of counts: a run computed by hand, every knob, and the laws that hold whatever is decided."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.types import Decision, Freshness, Stage
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.lane_timeline import Witness, timeline
from autoscaler.simulator.lanes.measuring import Pipeline, Ticks, seen, wanted
from autoscaler.simulator.lanes.plant_settings import Budget, Duration, PlantSettings, Shortage
from autoscaler.simulator.lanes.refusals import refusals
from autoscaler.simulator.lanes.start_luck import has_luck
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, lane_of, levels, policy

TICK_S = 10.0


class Script:
    """Decides what it was told: starts, provisions and stops per tick, as far as there are VMs for it."""

    def __init__(self, lanes, starts=None, stops=None, provisions=None):
        self.lanes, self.starts, self.stops = lanes, starts or {}, stops or {}
        self.provisions = provisions or {}
        self.first = None

    def decide(self, snapshot, outlook):
        self.first = snapshot.tick if self.first is None else self.first
        tick = snapshot.tick - self.first

        def at(script):
            return np.broadcast_to(np.int64(script.get(tick, 0)), (self.lanes,))

        start = np.minimum(at(self.starts), snapshot.stopped)
        stop = np.minimum(at(self.stops), snapshot.stoppable)
        desired = snapshot.in_service + snapshot.starting + start - stop
        unknown = np.full(self.lanes, np.nan)
        none = np.zeros((len(Stage), self.lanes), np.int64)
        return Decision(
            desired,
            desired,
            start,
            at(self.provisions),
            stop,
            snapshot.stopped * 0,
            unknown,
            unknown,
            none,
            none,
        )


def played(plant, trace, ticks, *, starts=None, stops=None, provisions=None, fleet=None, seed=0):
    """Rows of one lane under a script, and its sums."""
    fleet = fleet or policy(guards={"minimum_on_time": "0s"})
    run = lane_of(
        fleet, plant, trace, start_s=trace.start_s, duration_s=ticks * TICK_S, tick_s=TICK_S, seed=seed
    )
    witness = Witness([0])
    lanes = Lanes(run, lambda _: Script(1, starts, stops, provisions), witness=witness)
    sums = lanes.sums()
    lanes.run(ticks, sums)
    return timeline(witness.of(0), "web", TICK_S), sums, lanes


def column(rows, name):
    return [getattr(row, name) for row in rows]


def flat(level, ticks):
    return levels(level, each_s=ticks * TICK_S)


# ── by hand ────────────────────────────────────────────────────────────────────────────────────────────────


def test_eight_ticks_by_hand():
    """Four VMs of 100/s, one serving. A start takes 14 s (2 ticks), its last 4 s billed; a stop 15 s (2 ticks).

    The first VM serves 40 s and is billed 60; the second runs from second 10 to 50 and is billed 60; the third runs
    from second 20 to the end at 80.
    """
    values = [50, 150, 150, 250, 250, 50, 50, 50]
    stamps = BEGIN_S + TICK_S * np.arange(8)
    trace = Trace.build(stamps, values, kind=TraceKind.GAUGE, interval_s=TICK_S)
    plant = PlantSettings(vms=4, in_service=1, start=Duration(14.0), boot_s=4.0, stop_s=15.0)
    rows, sums, lanes = played(plant, trace, 8, starts={0: 1, 1: 1}, stops={4: 1, 5: 1})
    assert column(rows, "in_service") == [1, 1, 2, 3, 3, 2, 1, 1]
    assert column(rows, "starting") == [0, 1, 1, 0, 0, 0, 0, 0]
    assert column(rows, "stopped") == [3, 2, 1, 1, 1, 1, 2, 3]
    assert column(rows, "starts") == [1, 1, 0, 0, 0, 0, 0, 0]
    assert column(rows, "stops") == [0, 0, 0, 0, 1, 1, 0, 0]
    assert column(rows, "capacity") == [100, 100, 200, 300, 200, 100, 100, 100]
    assert column(rows, "shortage") == [0, 50, 0, 0, 50, 0, 0, 0]
    # Seconds billed, storage of four VMs, and the price of a start that came into service.
    billed_s = [10, 10, 30, 40, 40, 30, 10, 10]
    starts = [0, 0, 0.01, 0.01, 0, 0, 0, 0]
    cost = [0.001 * b + 0.0001 * 4 * 10 + s for b, s in zip(billed_s, starts, strict=True)]
    assert column(rows, "cost") == pytest.approx(cost, abs=1e-12)
    assert sums.amount(Amount.BILLED_VM_S)[0] == pytest.approx(180.0)
    assert sums.amount(Amount.COST)[0] == pytest.approx(0.232)
    assert sums.count(Count.STARTS)[0] == 2
    assert lanes.plant.stopping[0] == 0


def test_draining_vms_are_billed_and_do_not_serve():
    plant = PlantSettings(vms=2, in_service=2, drain_s=25.0, stop_s=8.0, minimum_billed_s=0.0)
    rows, _, lanes = played(plant, flat(150, 8), 8, stops={2: 1})
    assert column(rows, "draining") == [0, 0, 0, 1, 1, 0, 0, 0]
    assert column(rows, "in_service") == [2, 2, 2, 1, 1, 1, 1, 1]
    # Draining from second 20 to 50, then one tick of stopping.
    assert column(rows, "stopped") == [0, 0, 0, 0, 0, 0, 1, 1]
    assert column(rows, "shortage") == [0, 0, 50, 50, 50, 50, 50, 50]
    billed = [round((row.cost - 0.0001 * 2 * 10) / 0.001) for row in rows]
    assert billed == [20, 20, 20, 20, 20, 10, 10, 10]
    assert lanes.plant.stopping[0] == 0


def test_a_queue_is_worked_off():
    plant = PlantSettings(vms=1, in_service=1, shortage=Shortage.QUEUED)
    trace = Trace.build(
        BEGIN_S + TICK_S * np.arange(6), [150, 130, 90, 40, 60, 0], kind=TraceKind.GAUGE, interval_s=TICK_S
    )
    rows, _, _ = played(plant, trace, 6)
    assert column(rows, "shortage") == pytest.approx([50, 80, 70, 10, 0, 0])


@pytest.mark.parametrize(
    ("slowdown", "lacking"), [(1.0, 100.0), (0.0, 0.0), (0.5, 200 - 200 / 1.5), (3.0, 150.0)]
)
def test_overload_slows(slowdown, lacking):
    plant = PlantSettings(vms=1, in_service=1, shortage=Shortage.SLOWS, slowdown=slowdown)
    rows, _, _ = played(plant, flat(200, 2), 2)
    assert column(rows, "shortage") == pytest.approx([lacking, lacking])


def test_starts_that_fail_come_back_and_are_left_alone_for_a_while():
    plant = PlantSettings(vms=3, start_failure=1.0, failure_s=12.0, quarantine_s=40.0)
    rows, sums, _ = played(plant, flat(50, 12), 12, starts=dict.fromkeys(range(12), 5))
    assert column(rows, "starts") == [3, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0]
    assert column(rows, "stopped") == [3, 0, 3, 3, 3, 3, 3, 0, 3, 3, 3, 3]
    assert sums.count(Count.FAILED_STARTS)[0] == 6
    assert sums.amount(Amount.BILLED_VM_S)[0] == 0


def test_the_api_budget_refuses_calls_as_a_whole():
    plant = PlantSettings(vms=20, start_budget=Budget(4.0, 0.2), stop_s=1.0)
    rows, _, _ = played(plant, flat(50, 5), 5, starts={0: 3, 1: 4, 2: 4, 3: 1})
    # Tokens: 4, 1 + 2, 3 + 2 cut to 4, 0 + 2.
    assert column(rows, "starts") == [3, 0, 4, 1, 0]


def test_without_capacity_nothing_is_tried_for_a_while():
    plant = PlantSettings(vms=9, dry=((10.0, 25.0),), dry_hold_s=30.0)
    rows, _, _ = played(
        plant, flat(50, 8), 8, starts=dict.fromkeys(range(8), 1), provisions=dict.fromkeys(range(8), 1),
        fleet=policy(provision={"launch_template": "web", "maximum": 100}),
    )  # fmt: skip
    assert column(rows, "starts") == [1, 0, 0, 0, 1, 1, 1, 1]
    assert column(rows, "provisions") == [1, 0, 0, 0, 1, 1, 1, 1]


# ── luck ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_start_times_are_as_stated():
    duration = Duration(40.0, 90.0)
    drawn = duration.draw(Luck(1, "web"), Purpose.START, 7, 200_000)
    assert drawn.mean() == pytest.approx(40.0, rel=0.01)
    assert np.quantile(drawn, 0.95) == pytest.approx(90.0, rel=0.01)
    assert drawn.max() <= duration.longest_s


def test_luck_is_addressed():
    luck = Luck(3, "web")
    assert luck.uniforms(Purpose.START, 5, 9)[:4].tolist() == luck.uniforms(Purpose.START, 5, 4).tolist()
    assert luck.normals(Purpose.START, 5, 9)[:4].tolist() == luck.normals(Purpose.START, 5, 4).tolist()
    one = luck.uniforms(Purpose.START, 5, 4).tolist()
    for other in (
        luck.uniforms(Purpose.START, 6, 4),
        luck.uniforms(Purpose.PROVISION, 5, 4),
        Luck(4, "web").uniforms(Purpose.START, 5, 4),
        Luck(3, "api").uniforms(Purpose.START, 5, 4),
    ):
        assert not set(one) & set(other.tolist())


def test_a_knob_shifts_no_other_stream_and_variants_share_their_luck():
    drawn = PlantSettings(vms=40, start=Duration(30.0, 60.0))
    failing = replace(drawn, start_failure=1e-9, dry_per_day=1e-9, metric_loss=1e-9, stuck=1e-9)
    script = {"starts": {0: 12, 3: 5}}
    rows, _, _ = played(drawn, flat(50, 20), 20, **script)
    assert column(rows, "in_service") == column(played(failing, flat(50, 20), 20, **script)[0], "in_service")
    # One that starts more VMs has the other's luck first: never fewer in service.
    more, _, _ = played(drawn, flat(50, 20), 20, starts={0: 14, 3: 5})
    assert all(a.in_service >= b.in_service for a, b in zip(more, rows, strict=True))
    assert len(set(column(rows, "in_service"))) > 4
    assert rows != played(drawn, flat(50, 20), 20, **script, seed=1)[0]


def test_random_dry_spells_are_as_many_as_stated():
    plant = PlantSettings(vms=1, dry_per_day=4.0, dry_mean_s=1800.0)
    run = lane_of(
        policy(),
        plant,
        levels(50, each_s=200 * 86400.0),
        start_s=BEGIN_S,
        duration_s=200 * 86400.0,
        tick_s=300.0,
    )
    spells = Lanes(run).plant._spells
    dry = np.array([spells.at(tick) is not None for tick in range(run.ticks.count)])
    begins = np.count_nonzero(dry[1:] & ~dry[:-1])
    assert begins / 200 == pytest.approx(4 * 6 / 6.5, rel=0.15)
    assert dry.mean() == pytest.approx(0.5 / 6.5, rel=0.15)


# ── metrics ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_window_is_known_when_it_is_over_and_published():
    trace = Trace.build(
        BEGIN_S + 10.0 * np.arange(12), np.arange(12.0), kind=TraceKind.GAUGE, interval_s=10.0
    )
    ticks = Ticks.over(BEGIN_S, 120.0, 10.0)
    shown = seen(
        trace, ticks, Pipeline(lag_s=20.0, max_age_s=60.0, interval_s=30.0, inside=False), Luck(0, "web")
    )
    # Windows of 30 s have means 1, 4, 7; each is known 20 s after its end.
    assert shown.demand[:5].tolist() == pytest.approx([np.nan] * 5, nan_ok=True)
    assert shown.demand[5:].tolist() == [1, 1, 1, 4, 4, 4, 7]
    assert (shown.observed_at_s[5:] - BEGIN_S).tolist() == [30, 30, 30, 60, 60, 60, 90]
    assert wanted(trace, ticks).tolist() == list(range(12))


def test_lost_windows_leave_the_one_before_until_it_is_stale():
    trace = levels(70, each_s=40_000.0)
    ticks = Ticks.over(BEGIN_S, 40_000.0, 10.0)
    shown = seen(trace, ticks, Pipeline(lag_s=0.0, max_age_s=25.0, loss=0.4, inside=False), Luck(0, "web"))
    counts = np.bincount(shown.freshness, minlength=4)
    # Stale where the last three windows are lost: 0.4 ^ 3 of the ticks.
    assert counts[Freshness.STALE] / 4000 == pytest.approx(0.064, abs=0.02)
    assert np.isnan(shown.demand[shown.freshness != Freshness.FRESH]).all()
    gap = seen(
        trace, ticks, Pipeline(lag_s=0.0, max_age_s=25.0, gaps=((50.0, 80.0),), inside=False), Luck(0, "web")
    )
    assert np.flatnonzero(gap.freshness == Freshness.ABSENT).tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(lag_s=15.0, max_age_s=40.0),
        Pipeline(lag_s=0.0, max_age_s=35.0, loss=0.5, gaps=((310.0, 420.0),)),
        Pipeline(lag_s=20.0, max_age_s=90.0, interval_s=40.0, loss=0.5),
    ],
)
def test_a_part_of_a_run_shows_what_the_whole_shows_there(pipeline):
    trace, luck = levels(70, 400, 20, each_s=1000.0), Luck(6, "web")
    whole_ticks = Ticks.over(BEGIN_S, 3000.0, 10.0)
    whole = seen(trace, whole_ticks, pipeline, luck)
    for first in range(0, 300, 37):
        count = min(37, 300 - first)
        part = seen(trace, Ticks(whole_ticks.first + first, count, 10.0), pipeline, luck, BEGIN_S)
        for name in ("demand", "observed_at_s", "freshness"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[first : first + count])
    assert len(set(whole.freshness.tolist())) >= 2


def test_what_is_wanted_is_the_mean_of_the_interval_and_unknown_in_gaps():
    minutes = Trace.build(
        BEGIN_S + 60.0 * np.array([0, 1, 3]), [600, 1200, 60], kind=TraceKind.COUNT, interval_s=60.0
    )
    ten = wanted(minutes, Ticks.over(BEGIN_S, 240.0, 10.0))
    assert ten[:6].tolist() == [10.0] * 6
    assert ten[6:12].tolist() == [20.0] * 6
    assert np.isnan(ten[12:18]).all()
    two = wanted(minutes, Ticks.over(BEGIN_S, 240.0, 120.0))
    assert two.tolist() == pytest.approx([15.0, np.nan], nan_ok=True)
    odd = wanted(minutes, Ticks.over(BEGIN_S, 120.0, 40.0))
    assert odd.tolist() == pytest.approx([10.0, (20 * 10 + 20 * 20) / 40, 20.0])


# ── laws ───────────────────────────────────────────────────────────────────────────────────────────────────

WILD = PlantSettings(
    vms=14, in_service=2, start=Duration(30.0, 80.0), provision=Duration(50.0, 100.0), start_failure=0.2, stuck=0.1,
    stuck_s=300.0, dry_per_day=60.0, dry_mean_s=200.0, start_budget=Budget(6.0, 0.1), stop_budget=Budget(5.0, 0.1),
    drain_s=20.0, metric_loss=0.2, metric_lag_s=10.0, shortage=Shortage.QUEUED,
)  # fmt: skip
MAKES = {"launch_template": "web", "maximum": 22}


def crowd():
    """Lanes as different as they can be."""
    fleets, plants = [], []
    for number in range(12):
        fleets.append(
            policy(
                reactive={"headroom": f"{10 * number}%"},
                forecast={} if number % 3 else "off",
                guards={"minimum_on_time": f"{20 * (number % 4)}s", "stabilisation": f"{30 * number}s"},
                bounds={"maximum": 22},
                provision=MAKES if number % 2 else "off",
            )
        )
        plants.append(
            replace(
                WILD,
                stop_s=5.0 + 9 * (number % 3),
                drain_s=15.0 * (number % 2),
                start=Duration(12.0) if number % 4 == 0 else WILD.start,
                shortage=list(Shortage)[number % 3],
            )
        )
    return fleets, plants


DEMAND = levels(150, 900, 400, 1600, 300, 100, 1100, each_s=200)


def ran(fleets, plants, *, pieces=(140,)):
    run = LaneRun(
        tuple(fleets),
        tuple(plants),
        (DEMAND,) * len(fleets),
        Ticks.over(DEMAND.start_s, 1400.0, TICK_S),
        seed=5,
    )
    lanes = Lanes(run)
    sums, digests = lanes.sums(), Fingerprints(len(fleets))
    for piece in pieces:
        lanes.run(piece, sums, digests)
    figures = [sums.amount(which).tolist() for which in Amount] + [
        sums.count(which).tolist() for which in Count
    ]
    return digests.digests(), np.array(figures).T.tolist(), lanes


def test_a_lane_alone_in_a_crowd_or_in_another_place_has_the_same_bits():
    fleets, plants = crowd()
    digests, figures, _ = ran(fleets, plants)
    assert len(set(digests)) > 8
    order = np.random.default_rng(0).permutation(12)
    mixed = ran([fleets[i] for i in order], [plants[i] for i in order])
    assert [mixed[0][list(order).index(i)] for i in range(12)] == list(digests)
    assert [mixed[1][list(order).index(i)] for i in range(12)] == figures
    for number in (0, 1, 5, 10):
        alone = ran([fleets[number]], [plants[number]])
        assert alone[0] == (digests[number],)
        assert alone[1] == [figures[number]]


def test_how_a_run_is_cut_changes_nothing():
    fleets, plants = crowd()
    whole = ran(fleets, plants)
    assert ran(fleets, plants, pieces=(1, 63, 2, 64, 10))[:2] == whole[:2]
    assert ran(fleets, plants)[:2] == whole[:2]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    starts=st.dictionaries(st.integers(0, 59), st.integers(0, 9), max_size=20),
    stops=st.dictionaries(st.integers(0, 59), st.integers(0, 9), max_size=20),
    provisions=st.dictionaries(st.integers(0, 59), st.integers(0, 3), max_size=6),
    plant=st.sampled_from(
        [WILD, PlantSettings(vms=6, in_service=3), replace(WILD, start=Duration(12.0), stuck=0.0)]
    ),
)
def test_no_vm_is_lost_or_made_up(seed, starts, stops, provisions, plant):
    fleet = policy(guards={"minimum_on_time": "20s"}, provision=MAKES)
    run = lane_of(fleet, plant, flat(50, 60), start_s=BEGIN_S, duration_s=600.0, tick_s=TICK_S, seed=seed)
    lanes = Lanes(run, lambda _: Script(1, starts, stops, provisions))
    for _ in range(60):
        lanes.run(1)
        p = lanes.plant
        states = [p.in_service, p.starting, p.draining, p.stopping, p.stopped]
        if p.given_up is not None:
            states.append(p.given_up)
        assert sum(int(each[0]) for each in states) == p.provisioned[0]
        assert min(int(each[0]) for each in states) >= 0
        assert p.stoppable[0] >= 0
        assert 0 <= p.startable[0] <= p.stopped[0] + p.starts[0]


# ── bad input ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PlantSettings(vms=-1), "vms must be within 0 and 100000, not -1"),
        (lambda: PlantSettings(vms=3, in_service=4), "in_service must be within 0 and 3, not 4"),
        (lambda: PlantSettings(start_failure=1.5), "start_failure must be within 0 and 1"),
        (lambda: PlantSettings(dry=((5.0, 5.0),)), "dry: a span must end after it starts"),
        (lambda: PlantSettings(stop_s=math.nan), "stop_s must be within"),
        (
            lambda: Duration(20.0, 10.0),
            "a 95 % quantile of 10 s does not go with a mean of 20 s: it must be from 20 s to 77",
        ),
        (lambda: Duration(20.0, 90.0), "a 95 % quantile of 90 s does not go with"),
        (lambda: Budget(0.0, 1.0), "a budget needs vms above 0"),
    ],
)
def test_a_wrong_knob_is_named(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_what_lanes_cannot_express_is_refused_with_the_engine_that_can():
    looping = policy(signal={"trace": {"loop": True}})
    kept = policy(guards={"minimum_on_time": "20d"})
    queued = policy(signal={"kind": "utilisation"})
    assert "the loop engine" in refusals(looping, PlantSettings(), 10.0)[0]
    assert "172800 ticks" in refusals(kept, PlantSettings(), 10.0)[0]
    assert "neither engine" in refusals(queued, PlantSettings(shortage=Shortage.QUEUED), 10.0)[0]
    assert refusals(policy(), PlantSettings(), 10.0) == []
    with pytest.raises(ConfigError, match=r"cannot run this\. web: signal\.trace\.loop"):
        Lanes(lane_of(looping, PlantSettings(), DEMAND, start_s=BEGIN_S, duration_s=100.0, tick_s=10.0))


def test_a_run_off_the_grid_or_without_a_tick_is_refused():
    with pytest.raises(ValueError, match="whole number of ticks"):
        Ticks.over(BEGIN_S + 3.0, 100.0, 10.0)
    with pytest.raises(ValueError, match="holds no tick"):
        Ticks.over(BEGIN_S, 5.0, 10.0)


def test_what_is_done_vm_by_vm_is_refused_with_the_engine_that_can():
    haproxy = {"haproxy": {"sockets": ["/run/h.sock"], "backend": "web"}}
    provision = {"launch_template": "web", "maximum": 5}
    for changes, said in (
        ({"balancer": haproxy}, "balancer"),
        ({"provision": provision, "refill": {}}, "refill"),
        ({"freshness": {"exercise": {}}}, "freshness"),
        ({"guards": {"stop_share": "10%"}}, "stop_share"),
    ):
        (told,) = refusals(policy(**changes), PlantSettings(), 10.0)
        assert said in told
        assert "the loop engine" in told


@pytest.mark.parametrize(
    ("makes", "start_s", "made_s", "lucky"),
    [(True, 150, 600, False), (True, 150, 610, True), (True, 160, 600, True), (False, 150, 9000, False)],
)
def test_vms_have_luck_of_their_own_where_they_take_longer_than_they_are_waited_for(
    makes, start_s, made_s, lucky
):
    fleet = policy(provision={"launch_template": "web", "maximum": 9} if makes else "off")
    plant = PlantSettings(start=Duration(start_s), provision=Duration(made_s))
    assert has_luck((plant,), (fleet,)) == lucky
