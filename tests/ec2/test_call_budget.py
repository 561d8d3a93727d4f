"""The budget on our side: bucket arithmetic, priorities, cut and recovery, against EC2's own buckets on virtual time."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.buckets import Limit
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import FleetSetup, place_fleet
from autoscaler.cloud.world import World
from autoscaler.ports import BUDGET_SPENT, OutcomeKind, ProvisionSpec
from autoscaler.providers.budget import Bucket, CallBudget, Priority
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.memory import MemoryProvider

ORIGIN_S = 1_795_514_400.0


def test_a_bucket_by_hand():
    bucket = Bucket(Limit(100, 20), 0.0)
    assert (bucket.size, bucket.refill_per_s) == (99.0, 19.0)
    bucket.take(99, 0.0)
    assert bucket.wait_s(19, 0.0) == pytest.approx(1.0)
    assert bucket.left(2.0) == pytest.approx(38.0)
    assert bucket.left(1000.0) == 99.0


def test_a_refusal_halves_the_refill_and_two_minutes_restore_it():
    bucket = Bucket(Limit(100, 20), 0.0)
    bucket.refused(0.0, 0.0)
    assert (bucket.left(0.0), bucket.refill_per_s) == (0.0, 9.5)
    bucket.refused(0.0, 0.0)
    assert bucket.refill_per_s == 4.75
    bucket.left(45.0)
    assert bucket.refill_per_s == pytest.approx(19.0 * (0.25 + 45 / 120))
    bucket.left(120.0)
    assert bucket.refill_per_s == 19.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), max_size=30))
@settings(deadline=None)
def test_a_bucket_never_gives_more_than_it_holds_and_what_flows_in(steps):
    bucket, now_s, taken = Bucket(Limit(50, 5), 0.0), 0.0, 0.0
    for wait_s, count in steps:
        now_s += wait_s
        if bucket.wait_s(count, now_s) == 0.0:
            bucket.take(count, now_s)
            taken += count
        assert taken <= bucket.size + 5 * now_s + 1e-6


class Account:
    """A world with EC2's buckets, a budgeted provider, and other programs that make calls, too."""

    def __init__(self, vms=0, zones="a", **world):
        self.clock = VirtualClock(ORIGIN_S)
        self.world = World(start_s=ORIGIN_S, zones=zones, **world)
        self.ids = place_fleet(self.world, ORIGIN_S, FleetSetup("web", vms)) if vms else ()
        self.budget = CallBudget(self.clock)
        self.provider = BudgetedProvider(
            MemoryProvider(self.world, self.clock), self.budget, self.clock, seed=1
        )

    def calls(self, action):
        return [(c.at_s - ORIGIN_S, c.vms, c.code) for c in self.world.api.calls if c.action == action]


def run(test, *arguments, **options):
    async def main():
        return await test(Account(*arguments, **options))

    return run_virtual(main)


def test_calls_within_the_budget_do_not_wait_and_those_beyond_wait_their_turn():
    async def test(account):
        await account.provider.list_vms()
        await asyncio.gather(*(account.provider.start([i]) for i in account.ids))
        return [(at, vms) for at, vms, code in account.calls("StartInstances") if not code]

    calls = run(test, 8)
    assert calls[:4] == [(0.0, 1)] * 4
    # The fifth of the five calls that EC2 allows at once is our margin; then 1.9 a second flow back. Waiting calls are combined.
    assert [vms for _, vms in calls[4:]] == [4]
    assert calls[4][0] == pytest.approx((5 - 4.95) / 1.9, abs=2e-3)


def test_what_is_worth_more_goes_first_and_then_what_brings_most():
    async def test(account):
        budget, order = account.budget, []
        for _ in range(4):
            await budget.admit("StartInstances", 1, Priority.DEMAND, 0.0)

        async def ask(name, priority, vms):
            assert await budget.admit("StartInstances", vms, priority, 30.0)
            order.append(name)

        asked = [("refill", Priority.REFILL, 50), ("one", Priority.DEMAND, 1), ("many", Priority.DEMAND, 9)]
        await asyncio.gather(*(ask(*each) for each in asked))
        return order

    assert run(test) == ["many", "one", "refill"]


def test_of_equals_who_came_first_goes_first():
    async def test(account):
        order = []
        for _ in range(4):
            await account.budget.admit("StartInstances", 1, Priority.DEMAND, 0.0)

        async def ask(name):
            assert await account.budget.admit("StartInstances", 2, Priority.DEMAND, 30.0)
            order.append(name)

        await asyncio.gather(*map(ask, "abcde"))
        return "".join(order)

    assert run(test) == "abcde"


@pytest.mark.parametrize(
    ("action", "vms"), [("DescribeInstances", 0), ("DescribeInstances", 5), ("StartInstances", 0)]
)
def test_a_refusal_that_cannot_be_for_vms_is_for_calls(action, vms):
    async def test(account):
        await account.budget.admit(action, max(vms, 1), Priority.DESCRIBE, 0.0)
        before = {state.name: state for state in account.budget.state()}
        account.budget.heard(action, refused=True, vms=vms)
        return before, {state.name: state for state in account.budget.state()}

    before, after = run(test)
    assert before.keys() <= after.keys()
    for name, state in before.items():
        cut = name.endswith(" calls")
        assert after[name].refill_per_s == state.refill_per_s * (0.5 if cut else 1.0)
        assert after[name].left == (0.0 if cut else state.left)


@pytest.mark.parametrize(
    ("vms", "suspected", "left"),
    [
        (10, "calls", {"calls": 0.0, "VMs": 990.0}),
        (150, "calls", {"calls": 0.0, "VMs": 990.0}),  # room for 6.6 such calls by VMs, for 4.95 by calls
        (900, "VMs", {"calls": 3.95, "VMs": 450.0}),
    ],
)
def test_of_two_buckets_that_is_suspected_which_had_less_to_spare_before_the_call(vms, suspected, left):
    async def test(account):
        assert await account.budget.admit("StartInstances", vms, Priority.DEMAND, 0.0) == vms
        before = {state.name: state.refill_per_s for state in account.budget.state()}
        account.budget.heard("StartInstances", refused=True, vms=vms)
        return before, account.budget.state()

    before, after = run(test)
    for state in after:
        what = state.name.removeprefix("StartInstances ")
        assert state.left == pytest.approx(left[what])
        assert state.refill_per_s == before[state.name] * (0.5 if what == suspected else 1.0)


def test_a_call_for_which_there_is_no_room_in_time_is_not_made():
    async def test(account):
        account.budget.spent("StartInstances", 40)
        outcomes = await account.provider.start(account.ids)
        return outcomes, account.calls("StartInstances"), account.clock.monotonic()

    outcomes, calls, now_s = run(test, 2)
    assert {(o.kind, o.code) for o in outcomes} == {(OutcomeKind.THROTTLED, BUDGET_SPENT)}
    assert (calls, now_s) == ([], 9.0)


def test_more_vms_than_there_is_room_for_are_asked_for_in_part():
    async def test(account):
        outcomes = await account.provider.start(account.ids)
        return outcomes, account.calls("StartInstances")

    outcomes, calls = run(test, 995)
    assert calls == [(0.0, 990, "")]
    assert [o.kind for o in outcomes] == [OutcomeKind.ACCEPTED] * 990 + [OutcomeKind.THROTTLED] * 5
    assert {o.code for o in outcomes[990:]} == {BUDGET_SPENT}


def test_a_refusal_is_tried_again_more_slowly_within_the_time_of_the_call_and_no_longer():
    async def test(account):
        account.world.add_fault(Fault(FaultKind.THROTTLE, actions=("StartInstances",), end_s=60))
        outcomes = await account.provider.start(account.ids)
        return outcomes, account.calls("StartInstances"), account.clock.monotonic(), account.budget.refusals

    outcomes, calls, now_s, refusals = run(test, 2)
    assert {o.kind for o in outcomes} == {OutcomeKind.THROTTLED}
    assert 2 <= len(calls) == refusals <= 6
    assert now_s <= 9.01


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "InternalError", "UnauthorizedOperation"])
def test_nothing_but_a_refusal_for_the_budget_is_sent_again(code):
    async def test(account):
        account.world.add_fault(
            Fault(FaultKind.API_ERROR, actions=("StartInstances", "RunInstances"), code=code)
        )
        await account.provider.start(account.ids)
        await account.provider.provision(ProvisionSpec("web", "web"), 2, "token")
        return len(account.calls("StartInstances")), len(account.calls("RunInstances"))

    assert run(test, 2) == (1, 1)


def test_a_steady_state_beside_others_who_use_half_of_every_refill_is_hardly_ever_refused():
    async def others(account, until_s):
        mine = MemoryProvider(account.world, account.clock)
        while account.clock.monotonic() < until_s:
            await mine.start(account.ids[:1])
            await account.clock.sleep_until(account.clock.monotonic() + 1.0)

    async def test(account):
        beside = asyncio.create_task(others(account, 300.0))
        while account.clock.monotonic() < 300.0:
            # Two calls a second flow back: the others use one, and one start is made every second and a half.
            await account.provider.start(account.ids[1:2])
            await account.clock.sleep_until(account.clock.monotonic() + 1.5)
        await beside
        return account.budget.refusals

    assert run(test, 2) == 0


def test_how_long_a_burst_would_take():
    async def test(account):
        budget = account.budget
        first = budget.burst_s(990), budget.burst_s(1085), budget.burst_s(10, calls=10)
        await account.provider.start(account.ids)
        return first, budget.burst_s(100), {s.name: round(s.left, 2) for s in budget.state()}

    first, after, left = run(test, 950)
    assert first == pytest.approx((0.0, 95 / 1.9, 5.05 / 1.9))
    assert after == pytest.approx(60 / 1.9)
    assert left == {"StartInstances VMs": 40.0, "StartInstances calls": 3.95}


def test_refills_stand_behind_demand():
    async def test(account):
        account.budget.spent("RunInstances", 4)
        spec, made = ProvisionSpec("web", "web"), []

        async def make(provider, name):
            outcomes = await provider.provision(spec, 1, name)
            made.append((name, outcomes[0].kind))

        refill = account.provider.for_refills()
        await asyncio.gather(make(refill, "refill"), make(account.provider, "demand"))
        return made

    assert run(test, 1) == [("demand", OutcomeKind.ACCEPTED), ("refill", OutcomeKind.ACCEPTED)]


class SetBack(VirtualClock):
    """A clock that is set back by an hour after 100 s."""

    def now(self):
        return super().now() - (3600.0 if self.monotonic() >= 100.0 else 0.0)


def test_calls_are_admitted_as_before_after_the_clock_was_set_back():
    async def main():
        clock = SetBack(ORIGIN_S)
        budget = CallBudget(clock)
        admitted = []
        for second in (*range(0, 20, 2), *range(100, 140, 2)):
            await clock.sleep_until(float(second))
            if budget.admit_now("StartInstances", 1) is not None:
                admitted.append(second)
        return admitted

    admitted = run_virtual(main)
    assert len([second for second in admitted if second >= 110]) == 15
