"""Two hours of recorded traffic: the largest crowd of the 1998 World Cup, scaled to 50 VMs at its peak."""

import math
import os
from pathlib import Path

import pytest

from autoscaler.config.loading import require_policy
from autoscaler.config.wishes import ReactiveSection
from autoscaler.simulator.judging.recovery import recoveries
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.replay.timeline import totals
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import TraceKind
from tests.simulator.builders import cloud_of

ROOT = Path(__file__).parents[2]
FILE = (
    Path(os.environ.get("AUTOSCALER_TRACES") or ROOT.parent / "shared" / "traces") / "worldcup98_1min.csv.gz"
)
CROWD_S = 898_790_280.0  # 1998-06-25T15:58Z
PEAK_VMS = 50
TICK_S = 10.0
COMES_UP_S = 300.0
"""The fleet begins with nothing in service, which says nothing of the policy."""


def example():
    """The shipped example."""
    return require_policy(ROOT / "policies" / "web.yaml")


def bare():
    """The same fleet behind demand, with nothing to spare: it is short at every rise."""
    reactive = ReactiveSection(headroom="0%", tolerance="0%")
    return example().model_copy(update={"forecast": None, "reactive": reactive})


@pytest.fixture(name="played", scope="module", params=[example, bare])
def _played(request):
    if not FILE.is_file():
        pytest.skip(f"the recording {FILE.name} is not in {FILE.parent} (AUTOSCALER_TRACES names its folder)")
    policy = request.param()
    trace = read_trace(FILE, kind=TraceKind.COUNT).cut(CROWD_S - 3720.0, CROWD_S + 3600.0)
    trace = trace.scaled_to_peak(PEAK_VMS * policy.vm.capacity_per_s)
    ages = []

    def note(record):
        ages.extend(record.at_s - f.observed_at_s for f in record.fleets if math.isfinite(f.observed_at_s))

    result = run_loop(LoopRun(policy, trace, cloud_of(policy, 60), CROWD_S - 3600.0, 7200.0, TICK_S), note)
    scored = [row for row in result.rows if row.timestamp_s >= result.rows[0].timestamp_s + COMES_UP_S]
    return policy, result, scored, max(ages)


def test_every_shortage_ends_as_soon_as_a_start_can_end_it(played):
    policy, result, scored, signal_age_s = played
    times = sorted(result.start_times_s)
    start_p95_s = times[math.ceil(0.95 * len(times)) - 1]
    limit_s = signal_age_s + start_p95_s + 2 * TICK_S
    found = recoveries(scored, policy.vm.capacity_per_s, TICK_S)
    late = [(r.episode, r.took_s) for r in found if r.took_s > limit_s]
    assert found or policy.forecast
    assert late == [], (
        f"limit {limit_s:.0f} s = age {signal_age_s:.0f} + start p95 {start_p95_s:.0f} + 2 ticks"
    )
    assert 0 < signal_age_s < 60  # one value a minute, known when the minute is over
    assert len(times) >= 20


def test_the_crowd_is_served_and_the_bill_is_the_clouds(played):
    policy, result, scored, _ = played
    assert max(row.demand for row in scored) > 0.9 * PEAK_VMS * 120
    assert totals(scored, TICK_S).unserved_share < (0.002 if policy.forecast else 0.05)
    told = sum(row.cost for row in result.rows) + result.rows[-1].cost
    assert told == pytest.approx(result.bill.money, rel=0.01)
