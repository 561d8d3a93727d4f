"""When a start counts as late, what overtaking may cost, and how long a VM is left alone: computed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.daemon.vms.hedging import ENOUGH, PER_HEDGE_S, HedgeBudget, Timer
from autoscaler.daemon.vms.quarantine import LONGEST_S, FailureCause, quarantine_s, verdict_of_state


def test_a_timer_that_knows_too_little_waits_as_long_as_it_may():
    timer = Timer()
    for _ in range(ENOUGH - 1):
        timer.add(10.0)
    assert timer.late_after_s(15.0, 200.0) == 200.0
    timer.add(10.0)
    assert timer.late_after_s(15.0, 200.0) == 1.25 * 10 + 5


@pytest.mark.parametrize(("seconds", "late_s"), [(1.0, 15.0), (40.0, 55.0), (400.0, 200.0)])
def test_the_limit_stays_within_its_bounds(seconds, late_s):
    timer = Timer()
    for _ in range(ENOUGH):
        timer.add(seconds)
    assert timer.late_after_s(15.0, 200.0) == late_s


def test_a_morning_on_which_all_is_slow_moves_the_limit():
    timer = Timer()
    for seconds in [20.0] * 100 + [90.0] * 5:
        timer.add(seconds)
    assert timer.late_after_s(15.0, 500.0) == 1.25 * 90 + 5


def test_overtaking_is_paid_for_by_what_is_served():
    budget = HedgeBudget()
    assert not budget.take()
    budget.serve(100, 0.0)
    budget.serve(100, 60.0)
    assert budget.served_s == 6000.0
    assert budget.saved_s == 60.0
    assert budget.take()
    assert not budget.take()
    budget.give_back()
    assert budget.take()


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 3600), st.floats(0, 120)), max_size=40))
def test_what_runs_for_nothing_stays_within_a_hundredth_of_what_is_served_and_one_vm(steps):
    budget, now_s = HedgeBudget(), 0.0
    budget.serve(0, 0.0)
    for vms, wait_s, idle_s in steps:
        now_s += wait_s
        budget.serve(vms, now_s)
        if budget.take():
            budget.ran_idle(idle_s)
        assert budget.idle_s <= 0.01 * budget.served_s + max(idle_s, PER_HEDGE_S) + 1e-6


def test_a_vm_is_left_alone_for_twice_as_long_each_time_and_a_day_at_most():
    assert [quarantine_s(600, failures) for failures in (1, 2, 3)] == [600, 1200, 2400]
    assert quarantine_s(600, 100) == LONGEST_S
    assert quarantine_s(600, 1, weight=6.0) == 3600


@pytest.mark.parametrize(
    ("reason", "blame"),
    [
        ("Server.InsufficientInstanceCapacity", FailureCause.PLACE),
        ("Server.InsufficientHostCapacity", FailureCause.RESERVED),
        ("Client.InternalError", FailureCause.PERMISSION),
        ("Client.InvalidSnapshot.NotFound", FailureCause.STORAGE),
        ("Client.VolumeLimitExceeded", FailureCause.STORAGE),
        ("Client.UserInitiatedShutdown", FailureCause.PERSON),
        ("Server.InternalError", FailureCause.VM),
        ("", FailureCause.VM),
    ],
)
def test_whose_fault_a_start_that_fell_back_is(reason, blame):
    assert verdict_of_state(reason).blame is blame
