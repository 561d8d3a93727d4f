"""The loop engine, the real daemon on virtual time: equal runs are equal, and the cloud's bill is the timeline's."""

import itertools
import math

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.errors import InvariantError
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from tests.simulator.builders import cloud_of, levels, policy, run_of

DAY = levels(150, 900, 400, 1200, 300, 100)


@pytest.fixture(name="result", scope="module")
def _result():
    return run_loop(run_of(policy(), DAY))


def test_equal_runs_are_equal_to_the_last_bit(result):
    again = run_loop(run_of(policy(), DAY))
    # NaN, which is unknown, is not equal to itself; its text is.
    assert str(again.rows) == str(result.rows)
    assert (again.bill, again.calls, again.start_times_s) == (result.bill, result.calls, result.start_times_s)


def test_the_run_ticks_on_the_grid_to_its_end(result):
    stamps = [row.timestamp_s for row in result.rows]
    assert stamps[0] == DAY.start_s
    assert len(stamps) == 179
    assert all(later - before == pytest.approx(10.0) for before, later in itertools.pairwise(stamps))


def test_demand_is_the_recordings_and_is_met_soon_after_each_step(result):
    by_time = {row.timestamp_s - DAY.start_s: row for row in result.rows}
    assert [by_time[s].demand for s in (0, 290, 300, 600, 900)] == [150.0, 150.0, 900.0, 400.0, 1200.0]
    assert by_time[310].shortage > 0
    assert by_time[390].shortage == 0
    assert by_time[990].in_service >= 12
    assert max(row.desired for row in result.rows) <= 20


def test_the_clouds_bill_is_the_time_lines_cost(result):
    assert result.bill.starts == sum(row.starts for row in result.rows) > 10
    told = sum(row.cost for row in result.rows)
    # The last tick's interval is still open, so one row is missing in the time line.
    assert told + result.rows[-1].cost == pytest.approx(result.bill.money, rel=0.01)


def test_calls_are_counted_by_action(result):
    assert result.calls["DescribeInstances"] >= 179
    assert result.calls["StartInstances"] > 0
    assert result.calls["StopInstances"] > 0
    assert set(result.calls) <= {
        "DescribeInstances",
        "DescribeInstanceStatus",
        "StartInstances",
        "StopInstances",
    }


def test_start_times_are_measured(result):
    assert len(result.start_times_s) > 10
    assert all(5 < seconds < 120 for seconds in result.start_times_s)


def test_a_failed_tick_fails_the_run():
    def fail(record):
        if record.at_s >= DAY.start_s + 50:
            raise RuntimeError("a display broke")

    with pytest.raises(
        InvariantError, match=r"failures in a virtual run; the first: tick_failed: RuntimeError: a display"
    ):
        run_loop(run_of(policy(), DAY, duration_s=100), fail)


def test_faults_of_the_cloud_are_no_failures_of_the_run():
    fleet = policy()
    cloud = cloud_of(fleet, 20)
    faults = (Fault(FaultKind.NO_CAPACITY, 0, 200), Fault(FaultKind.API_ERROR, 100, 160))
    cloud = type(cloud)(seed=3, fleets=cloud.fleets, prices=cloud.prices, faults=faults)
    # A place that had no room is asked again after three minutes, and where it has none then after six more.
    result = run_loop(LoopRun(fleet, DAY, cloud, DAY.start_s, 700.0))
    early = [row for row in result.rows if row.timestamp_s < DAY.start_s + 190]
    assert sum(row.starts for row in early) == 0
    assert result.rows[-1].in_service > 0


def test_vms_are_made_from_the_template_that_the_cloud_names_like_the_fleet():
    """And readiness over HTTP, which no simulated VM can answer, becomes status checks."""
    fleet = policy(
        provision={"launch_template": "lt-0123456789abcdef0", "subnet": "subnet-1", "maximum": 12},
        readiness={"probe": "http", "url": "http://{address}/health"},
        bounds={"maximum": 12},
    )
    result = run_loop(run_of(fleet, levels(1000, each_s=600), vms=3))
    made = sum(row.provisions for row in result.rows)
    assert 7 <= made <= 9
    assert result.rows[-1].in_service >= 10
    assert result.calls["RunInstances"] >= 1


def test_a_policy_in_shadow_acts_in_a_simulated_cloud():
    fleet = policy()
    assert fleet.act is False
    assert run_loop(run_of(fleet, DAY, duration_s=60)).rows[0].starts > 0


def test_before_the_first_reading_nothing_is_known(result):
    first = result.rows[0]
    assert math.isnan(first.forecast)
    assert (first.in_service, first.capacity, first.shortage) == (0, 0.0, 150.0)
