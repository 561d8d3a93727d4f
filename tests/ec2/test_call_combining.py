"""Starts and stops that wait for the API budget are combined, and no fleet suffers from another one's VM."""

import asyncio

import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.ports import BUDGET_SPENT, Listing, Outcome, OutcomeKind, Vm, VmState
from autoscaler.providers.budget import CallBudget, Priority
from autoscaler.providers.budgeted import WAIT_S, BudgetedProvider
from autoscaler.providers.call_combining import MOST_VMS, CallCombiner, _Request

ACCEPTED, REFUSED, UNKNOWN = OutcomeKind.ACCEPTED, OutcomeKind.REFUSED, OutcomeKind.UNKNOWN


class AllOrNothing:
    """A slow provider that refuses a whole call because of one of its VMs, without naming it. All VMs are in one place."""

    answers_at_once = False

    def __init__(self, clock, bad=(), took_s=0.2, answers=()):
        self.clock, self.bad, self.took_s, self.answers = clock, set(bad), took_s, list(answers)
        self.calls = []

    async def list_vms(self):
        vms = [
            Vm(f"i-{fleet}-{vm}", "", VmState.STOPPED, "m", "a", None, 0.0, "")
            for fleet in range(300)
            for vm in range(3)
        ]
        return Listing(tuple(vms), complete=True, requested_at_s=0.0, received_at_s=0.0)

    async def start(self, vm_ids):
        self.calls.append((self.clock.monotonic(), tuple(vm_ids)))
        await self.clock.sleep_until(self.clock.monotonic() + self.took_s)
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer
        kind, code = (REFUSED, "InvalidParameterValue") if self.bad & set(vm_ids) else (ACCEPTED, "")
        return tuple(Outcome(vm_id, kind, code) for vm_id in vm_ids)

    async def stop(self, vm_ids, **how):
        self.calls.append((self.clock.monotonic(), tuple(vm_ids), how))
        return tuple(Outcome(vm_id, ACCEPTED) for vm_id in vm_ids)


def run(fleets, act=None, **inner):
    """Return the calls, and the outcomes of each fleet's start with the second in which they came."""

    async def main():
        clock = VirtualClock(1e9)
        provider = AllOrNothing(clock, **inner)
        near = BudgetedProvider(provider, CallBudget(clock), clock, seed=1)
        await near.list_vms()

        async def ask(vm_ids):
            try:
                outcomes = await near.start(vm_ids)
            except Exception as error:  # noqa: BLE001  what the actuator sees
                return clock.monotonic(), error
            return clock.monotonic(), {o.vm_id: (o.kind, o.code) for o in outcomes}

        tasks = [asyncio.create_task(ask(vm_ids)) for vm_ids in fleets]
        if act is not None:
            await act(clock, tasks)
        said = await asyncio.gather(*tasks, return_exceptions=True)
        return provider.calls, said

    return run_virtual(main)


FLEETS = [[f"i-{fleet}-{vm}" for vm in range(3)] for fleet in range(300)]


def test_three_hundred_fleets_that_open_in_the_same_minute_have_ordered_within_seconds():
    calls, said = run(FLEETS)
    sent = [vm_id for _, vm_ids in calls for vm_id in vm_ids]
    assert sorted(sent) == sorted(vm_id for vm_ids in FLEETS for vm_id in vm_ids)
    assert max(len(vm_ids) for _, vm_ids in calls) <= MOST_VMS
    assert len(calls) <= 4 + -(-len(sent) // (MOST_VMS - 3))
    assert max(at_s for at_s, _ in said) < 4.0
    for vm_ids, (_, outcomes) in zip(FLEETS, said, strict=True):
        assert outcomes == dict.fromkeys(vm_ids, (ACCEPTED, ""))


def test_what_is_refused_because_of_one_of_them_is_said_of_none_of_the_others():
    fleets = FLEETS[:12]
    calls, said = run(fleets, bad=[fleets[7][0]])
    for number, (vm_ids, (_, outcomes)) in enumerate(zip(fleets, said, strict=True)):
        expected = (REFUSED, "InvalidParameterValue") if number == 7 else (ACCEPTED, "")
        assert outcomes == dict.fromkeys(vm_ids, expected)
    # Four at once, one combined for the other eight, and then halves until the one is found.
    assert [len(vm_ids) for _, vm_ids in calls] == [3] * 4 + [24, 12, 12, 6, 6, 3, 3]


def test_who_cannot_be_had_in_time_is_told_so_by_the_budget():
    async def busy(clock, tasks):
        for task in tasks:
            task.add_done_callback(lambda _: None)

    calls, said = run(FLEETS[:40], busy, bad=[vm_ids[0] for vm_ids in FLEETS])
    spent = [outcomes for _, outcomes in said if {code for _, code in outcomes.values()} == {BUDGET_SPENT}]
    assert spent
    assert max(at_s for at_s, _ in said) <= WAIT_S + 1.0
    assert len(calls) <= 5 + 2 * WAIT_S


def test_an_unknown_outcome_is_one_for_all_who_went_together():
    lost = ConnectionError("reset")
    calls, said = run(FLEETS[:8], answers=[None, None, None, None, lost])
    assert [len(vm_ids) for _, vm_ids in calls] == [3] * 4 + [12]
    assert [said[n][1] for n in range(4, 8)] == [lost] * 4


@pytest.mark.parametrize("leader", [True, False])
def test_who_gives_up_leaves_the_others_to_know_what_they_can(leader):
    async def give_up(clock, tasks):
        await clock.sleep_until(0.1)  # the call of four to seven is under way
        tasks[4 if leader else 6].cancel()

    calls, said = run(FLEETS[:8], give_up, took_s=5.0)
    assert len(calls) == 5
    others = [said[n] for n in range(4, 8) if n != (4 if leader else 6)]
    if leader:
        assert [type(error) for _, error in others] == [TimeoutError] * 3
    else:
        assert [set(outcomes.values()) for _, outcomes in others] == [{(ACCEPTED, "")}] * 3


def test_who_gives_up_while_waiting_is_not_sent():
    async def give_up(clock, tasks):
        await clock.sleep_until(0.01)  # the fifth call goes at 0.026
        tasks[6].cancel()

    calls, _ = run(FLEETS[:8], give_up)
    assert [len(vm_ids) for _, vm_ids in calls] == [3] * 4 + [9]
    assert not {vm_id for _, vm_ids in calls for vm_id in vm_ids} & set(FLEETS[6])


def test_stops_that_are_done_in_another_way_go_apart():
    async def main():
        clock = VirtualClock(1e9)
        provider = AllOrNothing(clock)
        near = BudgetedProvider(provider, CallBudget(clock), clock, seed=1)
        ways = [{}, {"force": True}, {"hibernate": True}]
        asked = [near.stop([f"i-{n}-{at}"], **how) for n in range(60) for at, how in enumerate(ways)]
        await asyncio.gather(*asked)
        return provider.calls

    calls = run_virtual(main)
    assert sum(len(vm_ids) for _, vm_ids, _ in calls) == 180
    assert max(len(vm_ids) for _, vm_ids, _ in calls) > 1
    for _, vm_ids, how in calls:
        assert len({vm_id.rpartition("-")[2] for vm_id in vm_ids}) == 1, how


class SetBack(VirtualClock):
    """A clock that is set back by an hour after 10 s."""

    def now(self):
        return super().now() - (3600.0 if self.monotonic() >= 10.0 else 0.0)


@pytest.mark.parametrize(("clock", "until_s"), [(VirtualClock, 20.0), (SetBack, 10.0)])
def test_a_place_without_room_is_called_for_separately_for_a_while_whatever_the_clock_does(clock, until_s):
    async def main():
        time = clock(1e9)
        queue = CallCombiner("StartInstances", Priority.DEMAND, CallBudget(time), time, whole=False)
        dry = Outcome("i-1", OutcomeKind.NO_CAPACITY, "InsufficientInstanceCapacity")
        queue._without_room([_Request(["i-1"], 1, ("m", "a"))], 1, dry)
        apart = []
        for second in range(30):
            await time.sleep_until(float(second))
            apart.append(queue._scarce_in(("m", "a")) is not None)
        return apart.index(False), any(apart[apart.index(False) :])

    assert run_virtual(main) == (until_s, False)
