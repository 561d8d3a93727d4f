"""What is learned of starts: measured part by part, kept over restarts, planned with where the policy says so."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.lead_time import ENOUGH, LeadTimes, Span, StartSource
from autoscaler.daemon.keeping import KEEP_EVERY_S
from autoscaler.daemon.learning import START_TIMES, Learning
from autoscaler.daemon.start_times import MeasuredStart
from autoscaler.ports import Learned
from tests.daemon.builders import Bench, policy, virtual

WEB_API = ("web", "api")


def start(whole_s, source=StartSource.STOPPED, ready_s=5.0):
    return MeasuredStart(source, float("nan"), float("nan"), ready_s, whole_s)


def taught(count=30, whole_s=70.0, fleets=WEB_API):
    learning = Learning(fleets)
    learning.started("web", [start(whole_s)] * count)
    return learning


def asking(fleet="web", **vm):
    return policy(fleet, vm={"start_time": "40s", "learn_start_time": True} | vm)


def test_only_policies_that_ask_for_it_are_planned_with_what_was_learned():
    learning = taught()
    plain = policy()
    web, api = learning.planned([asking(), asking("api")])
    assert web.vm.start_time_s == pytest.approx(70.0, rel=0.11)
    assert api.vm.start_time_s == 40.0
    assert learning.planned([plain, plain])[0] is plain


def test_it_is_applied_at_most_once_an_hour_also_by_a_clock_that_was_set_back():
    learning = taught()
    assert [learning.is_due(at_s) for at_s in (0.0, 10.0, 3599.0, 3600.0, 3700.0)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert learning.is_due(-4000.0)


def test_what_was_kept_is_taken_up_by_other_lanes():
    learning = taught()
    (kept,) = learning.to_keep()
    assert (kept.fleet, kept.name) == ("web", START_TIMES)
    learning.kept()
    assert learning.to_keep() == ()
    other = Learning(("db", "web"))
    assert other.take_up((kept, Learned("gone", START_TIMES, 1, b""), Learned("db", "weather", 1, b""))) == []
    np.testing.assert_array_equal(other.lead_times.of_lane(1), learning.lead_times.of_lane(0))
    assert other.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == 0.0


@pytest.mark.parametrize(
    "row",
    [
        Learned("web", START_TIMES, LeadTimes.version + 1, b""),
        Learned("web", START_TIMES, LeadTimes.version, b"no zlib"),
        Learned("web", START_TIMES, LeadTimes.version, taught().to_keep()[0].body[:-4]),
    ],
    ids=["newer", "damaged", "cut"],
)
def test_what_cannot_be_read_is_said_and_learned_anew(row):
    learning = Learning(("web",))
    (text,) = learning.take_up((row,))
    assert text == "what was learned of the start_times of web cannot be read and is learned anew"
    assert learning.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == 0.0


@virtual
async def test_a_start_is_measured_part_by_part():
    """Runs after 16 s, ready after 19 s: what listings of every ten seconds show of it."""
    bench = Bench(vms=1)
    bench.add(policy(signal={"kind": "total"}), 100.0)
    await bench.run(60)
    times = bench.daemon.fleets.learning.lead_times
    found = [times.quantile(0.5, span, StartSource.STOPPED)[0] for span in Span]
    # Pending between 0 and 10 s, running between 10 and 20 s, in service at 20 s.
    assert found == pytest.approx([5.0, 10.0, 5.0, 20.0], rel=0.11)
    assert np.isnan(times.quantile(0.5, Span.WHOLE, StartSource.FRESH)[0])


def swinging(second):
    """A VM more and a VM less, every two minutes."""
    return 200.0 if int(second) // 120 % 2 else 100.0


@virtual
async def test_a_daemon_plans_with_what_it_learned_and_a_restarted_one_at_once():
    bench = Bench(vms=3, running=1)
    bench.add(policy(signal={"kind": "total"}, vm={"start_time": "90s", "learn_start_time": True}), swinging)
    await bench.run(2.6 * 3600)
    fleets = bench.daemon.fleets
    assert fleets.learning.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] > ENOUGH
    # Half of the guess is the least.
    assert fleets.planned[0].vm.start_time_s == 45.0
    assert fleets.all[0].policy.vm.start_time_s == 90.0
    assert fleets._compiled.series.lead_ticks.tolist() == [5]
    before = fleets.learning.lead_times.of_lane(0)
    await bench.run(20)
    assert bench.daemon.fleets is not fleets
    assert bench.daemon.fleets.planned[0].vm.start_time_s == 45.0
    np.testing.assert_array_equal(bench.daemon.fleets.learning.lead_times.of_lane(0), before)


@virtual
async def test_what_was_learned_is_kept_every_ten_minutes_and_changes_nothing_unasked():
    bench = Bench(vms=3, running=1)
    bench.add(policy(signal={"kind": "total"}), swinging)
    writes = []
    record = bench.journal.record_learned

    async def record_learned(at_s, learned):
        writes.append((at_s - bench.world_start_s, len(learned)))
        await record(at_s, learned)

    bench.world_start_s = bench.clock.now()
    bench.journal.record_learned = record_learned
    await bench.run(1500)
    assert writes == [(KEEP_EVERY_S, 1), (2 * KEEP_EVERY_S, 1), (1500.5, 1)]
    assert bench.daemon.fleets.planned == [bench.daemon.fleets.all[0].policy]
