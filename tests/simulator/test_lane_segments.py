"""A cut run equals the uncut run: same sums, digest and timeline, to the bit, even after a bad seam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes import metrics
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.lane_timeline import Witness, timeline
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import Budget, Duration, PlantSettings
from autoscaler.simulator.lanes.segments import Cut, Segmented, alike, run_segmented
from autoscaler.simulator.traffic.synth import synth_day
from tests.simulator.builders import policy

TRACE = synth_day(4, days=5.0, interval_s=60.0)
PLANT = PlantSettings(vms=60, in_service=6, start=Duration(45.0))
BASE = {
    "vm": {"capacity": "120/s"},
    "bounds": {"minimum": 2, "maximum": 60},
    "signal": {"max_age": "150s"},
    "warm_pool": {"memory": "1h"},
}
QUICK = policy(**BASE, forecast="off")
RUNS = {
    "behind demand": (QUICK, PLANT, 60.0),
    "by forecast": (policy(**BASE), PLANT, 60.0),
    "at half-minute ticks": (QUICK, PLANT, 30.0),
    "a schedule across midnights": (
        policy(
            **BASE, forecast="off", schedule=[{"name": "night", "from": "22:30", "to": "03:00", "at_least": 30}]
        ),
        PLANT, 60.0,
    ),
    "cooldowns and slow rates": (
        policy(**BASE, forecast="off", guards={"cooldown_in": "20m", "rate_in": {"vms": 1, "per": "7m"}}), PLANT, 60.0
    ),
    "a pool that only ever grows": (
        policy(**BASE, forecast="off", provision={"launch_template": "web", "maximum": 60}),
        replace(PLANT, vms=8), 60.0,
    ),
    "drawn start times, failures, dry spells": (
        QUICK,
        replace(PLANT, start=Duration(70.0, 150.0), start_failure=0.1, dry_per_day=5.0, stuck=0.05, stuck_s=900.0),
        60.0,
    ),
    "windows that are lost": (
        QUICK, replace(PLANT, metric_loss=0.3, metric_interval_s=120.0, metric_lag_s=30.0), 60.0
    ),
    "a provider's budget": (QUICK, replace(PLANT, start_budget=Budget(8.0, 0.01)), 60.0),
}  # fmt: skip


def run_of(fleets, plants, tick_s=60.0, days=5.0):
    lanes = len(fleets)
    ticks = Ticks.over(TRACE.start_s, days * 86400.0, tick_s)
    return LaneRun(tuple(fleets), tuple(plants), (TRACE,) * lanes, ticks, seed=2)


def figures(result):
    return [
        *(result.sums.amount(which).tolist() for which in Amount),
        *(result.sums.count(which).tolist() for which in Count),
        result.sums.worst_shortage.tolist(),
        result.sums.ticks,
        result.fingerprints.digests(),
    ]


@pytest.fixture(scope="module", name="uncut", params=RUNS)
def _uncut(request):
    """A run, its forecasts, and what comes of it in one piece: made once for all cuts."""
    fleet, plant, tick_s = RUNS[request.param]
    run, cache = run_of([fleet], [plant], tick_s, days=3.5), OutlookCache()
    return run, cache, figures(run_segmented(run, segments=1, cache=cache))


@pytest.mark.parametrize("segments", [None, 3])
def test_a_cut_run_is_the_uncut_run(uncut, segments):
    run, cache, whole = uncut
    cut = run_segmented(run, segments=segments, cache=cache)
    assert cut.cut is not None
    assert cut.cut.segments >= 3
    assert figures(cut) == whole


def test_small_fleets_are_counted_narrowly_to_the_same_bits():
    """Who is watched is counted in 32 bits: then all else must be the same."""
    slow = policy(**BASE, forecast="off", guards={"rate_in": {"vms": 1, "per": "30m"}})
    fleets, plants = [QUICK, RUNS["by forecast"][0], slow], [PLANT, PLANT, replace(PLANT, drain_s=90.0)]
    fleets.append(RUNS["a pool that only ever grows"][0])
    plants.append(replace(PLANT, vms=8, stop_budget=Budget(3.0, 0.01)))
    run, cache, found = run_of(fleets, plants, days=1.0), OutlookCache(), []
    for witness in (None, Witness([0])):
        lanes = Lanes(run, cache=cache, witness=witness)
        sums, prints = lanes.sums(), Fingerprints(4)
        lanes.run(run.ticks.count, sums, prints)
        found.append((lanes, figures(Segmented(sums, prints, {}, None, 0))))
    (narrow, one), (wide, other) = found
    assert (narrow.plant.in_service.dtype, wide.plant.in_service.dtype) == (np.int16, np.int32)
    assert one == other
    for mine, theirs in zip(narrow.state(), wide.state(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("fleet", "plant"),
    [
        (policy(**{**BASE, "bounds": {"minimum": 2, "maximum": 600}}, forecast="off"), PLANT),
        (QUICK, replace(PLANT, vms=600)),
        (policy(**BASE, objective={"shortage_price": "0.2/h"}), PLANT),
        (QUICK, replace(PLANT, start_failure=0.1)),
    ],
)
def test_what_may_not_fit_is_counted_widely(fleet, plant):
    lanes = Lanes(run_of([QUICK, fleet], [PLANT, plant], days=0.1))
    assert lanes.plant.in_service.dtype == np.int32


def test_seams_that_do_not_hold_are_mended():
    """A pool that grows cannot be known at a seam: every later segment begins with another one."""
    fleet, plant, tick_s = RUNS["a pool that only ever grows"]
    run = run_of([QUICK, fleet, QUICK], [PLANT, plant, PLANT], tick_s)
    whole, cut = run_segmented(run, segments=1), run_segmented(run, segments=4)
    assert cut.reruns >= 3
    assert figures(cut) == figures(whole)


def test_lanes_of_every_kind_are_cut_side_by_side():
    """Whatever their plants keep, for however many ticks, and where single lanes of a kind must be mended."""
    slow = policy(
        **BASE, forecast="off", guards={"rate_in": {"vms": 1, "per": "30m"}, "stabilisation": "40m"}
    )
    grown, small, _ = RUNS["a pool that only ever grows"]
    fleets = [QUICK, grown, slow, QUICK, slow, grown, QUICK, slow]
    plants = [
        PLANT,
        small,
        PLANT,
        replace(PLANT, stop_s=200.0),
        RUNS["drawn start times, failures, dry spells"][1],
        replace(small, start=Duration(130.0)),
        replace(PLANT, drain_s=90.0, stop_budget=Budget(3.0, 0.01)),
        replace(PLANT, stop_s=200.0),
    ]
    run = run_of(fleets, plants, days=3.0)
    assert len(alike(run)) == 6
    whole, cut = (run_segmented(run, segments=count, witnessed=[1, 3]) for count in (1, 4))
    assert cut.reruns >= 3
    assert figures(cut) == figures(whole)
    for lane in (1, 3):
        assert str(timeline(cut.pages[lane], "web", 60.0)) == str(timeline(whole.pages[lane], "web", 60.0))


def test_policies_that_do_not_forget_are_mended():
    """A wide tolerance keeps two numbers of VMs apart for days: warm-up does not help, going on does."""
    lazy = policy(**BASE, forecast="off", reactive={"headroom": "60%", "tolerance": "25%"})
    grown, small, _ = RUNS["a pool that only ever grows"]
    kinds = [(lazy, PLANT)] * 2 + [
        (policy(**BASE, forecast="off", reactive={"headroom": "60%", "tolerance": f"{n}%"}), PLANT)
        for n in range(18, 30)
    ]
    # As many seams do not hold as in five days: a tolerance is left at the next swing of a day.
    run = run_of(
        [fleet for fleet, _ in kinds] + [grown], [plant for _, plant in kinds] + [small], 60.0, days=2.5
    )
    whole, cut = (run_segmented(run, segments=count, witnessed=[1, 14]) for count in (1, 3))
    assert cut.reruns > len(kinds)
    assert figures(cut) == figures(whole)
    for lane in (1, 14):
        assert str(timeline(cut.pages[lane], "web", 60.0)) == str(timeline(whole.pages[lane], "web", 60.0))


def test_the_time_line_of_a_cut_run_is_that_of_the_uncut_one():
    fleet, plant, tick_s = RUNS["a pool that only ever grows"]
    run = replace(run_of([QUICK, fleet], [PLANT, plant], tick_s, days=2.5), forecasts=False)
    whole, cut = (run_segmented(run, segments=count, witnessed=[0, 1]) for count in (1, 3))
    assert cut.cut.segments == 3
    for lane in (0, 1):
        expected = timeline(whole.pages[lane], "web", tick_s)
        assert len(expected) == run.ticks.count
        assert str(timeline(cut.pages[lane], "web", tick_s)) == str(expected)


@settings(max_examples=3, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(
            st.integers(0, 80), st.integers(0, 40), st.integers(1, 90), st.integers(0, 20), st.floats(5, 300)
        ),
        min_size=3,
        max_size=3,
    ),
    seed=st.integers(0, 99),
    segments=st.integers(2, 9),
)
def test_any_policies_join(kinds, seed, segments):
    """Side by side, since a lane is what it is alone (`test_a_shifted_lane_is_the_run_that_begins_later`)."""
    fleets = [
        policy(
            **{**BASE, "warm_pool": {"memory": f"{memory}m"}},
            forecast="off",
            reactive={"headroom": f"{headroom}%"},
            guards={"stabilisation": f"{stabilisation}m", "minimum_on_time": f"{on}m"},
        )
        for headroom, stabilisation, memory, on, _ in kinds
    ]
    plants = [replace(PLANT, start=Duration(start_s)) for *_, start_s in kinds]
    run = replace(run_of(fleets, plants, days=2.0), seed=seed)
    assert figures(run_segmented(run, segments=segments)) == figures(run_segmented(run, segments=1))


def test_a_shifted_lane_is_the_run_that_begins_later(monkeypatch):
    """With the same luck, also where what is measured fills several pages."""
    monkeypatch.setattr(metrics, "_PAGE_CELLS", 240 * 140)
    fleet = policy(
        **{**BASE, "signal": {"kind": "total", "max_age": "150s"}},
        forecast="off",
        guards={"stabilisation": "5m", "minimum_on_time": "5m"},
    )
    plant = replace(PLANT, start=Duration(70.0, 150.0), start_failure=0.1, stuck=0.05, metric_loss=0.2)
    # Multiples of every bucket on the absolute grid.
    shifts = tuple(6 * number for number in range(240))
    ticks = Ticks.over(TRACE.start_s, 600 * 60.0, 60.0)
    many = (fleet,) * 240, (plant,) * 240, (TRACE,) * 240
    lanes = Lanes(LaneRun(*many, ticks, seed=2, shifts=shifts))
    assert 3 * lanes._metrics._page_ticks < ticks.count
    prints = Fingerprints(240)
    lanes.run(ticks.count, None, prints)
    for number in (0, 1, 113, 239):
        later = Ticks(ticks.first + shifts[number], ticks.count, 60.0)
        alone = Lanes(LaneRun((fleet,), (plant,), (TRACE,), later, seed=2))
        one = Fingerprints(1)
        alone.run(ticks.count, None, one)
        assert one.digests()[0] == prints.digests()[number]
    assert len(set(prints.digests())) > 200


def test_cuts_lie_on_every_grid():
    run = run_of([QUICK, policy(**{**BASE, "warm_pool": {"memory": "6h"}})], [PLANT] * 2)
    cut = Cut.of(run)
    assert cut.stride % 64 == 0
    assert cut.stride % 12 == 0
    assert cut.warm % 64 == 0
    assert cut.warm >= 6 * 60
    assert cut.warm + (cut.segments - 1) * cut.stride + cut.rest == run.ticks.count


def test_a_short_run_is_not_cut():
    assert run_segmented(run_of([QUICK], [PLANT], days=0.1)).cut is None


def test_a_forecast_that_depends_on_the_plant_is_not_cut():
    fleet = policy(**{**BASE, "signal": {"kind": "utilisation", "max_age": "150s"}})
    with pytest.raises(ValueError, match="cannot be cut into segments"):
        run_segmented(run_of([fleet], [PLANT]), segments=4)
