"""What passes the budget and what does not, call by call, with a provider whose answers are scripted."""

from dataclasses import replace
from itertools import pairwise

import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.buckets import PUBLISHED, Limit
from autoscaler.ports import (
    BUDGET_SPENT,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    UnreadableTemplate,
    Vm,
    VmState,
)
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import (
    FIRST_PAUSE_S,
    LISTING_WAIT_S,
    LONGEST_PAUSE_S,
    WAIT_S,
    BudgetedProvider,
)

ORIGIN_S = 1_795_514_400.0
SPEC = ProvisionSpec("web", "web")
ACCEPTED, THROTTLED = OutcomeKind.ACCEPTED, OutcomeKind.THROTTLED
REFUSED = (THROTTLED, "RequestLimitExceeded")


class Scripted:
    """A provider that records its calls and their times. `answers` gives kind and code of the next outcomes; later ones are accepted."""

    answers_at_once = True

    def __init__(self, clock):
        self.clock, self.calls, self.answers, self.closed = clock, [], [], False
        self.listing = Listing((), complete=True, requested_at_s=0.0, received_at_s=0.0)

    def note(self, *call):
        self.calls.append((self.clock.now() - ORIGIN_S, *call))

    def outcomes(self, vm_ids):
        answers = self.answers.pop(0) if self.answers else [(ACCEPTED, "")] * len(vm_ids)
        return tuple(Outcome(vm_id, *answer) for vm_id, answer in zip(vm_ids, answers, strict=True))

    async def list_vms(self):
        self.note("list")
        return self.listing

    async def checked(self, vm_ids):
        self.note("checked", *vm_ids)
        return frozenset(vm_ids)

    async def start(self, vm_ids):
        self.note("start", *vm_ids)
        return self.outcomes(vm_ids)

    async def stop(self, vm_ids, **how):
        self.note("stop", *vm_ids, how)
        return self.outcomes(vm_ids)

    async def retype(self, vm_ids, vm_type):
        self.note("retype", *vm_ids, vm_type)
        return self.outcomes(vm_ids)

    async def provision(self, spec, count, token):
        self.note("provision", count, token)
        return self.outcomes([f"i-{n}" for n in range(count)])

    async def close(self):
        self.closed = True


class Reading(Scripted):
    """A scripted provider that can read launch templates, too."""

    async def launch_spec(self, spec):
        self.note("launch_spec", spec.launch_template)


class Account:
    """A provider with a budget; `limits` are those of EC2."""

    def __init__(self, kind=Scripted, limits=PUBLISHED):
        self.clock = VirtualClock(ORIGIN_S)
        self.inner = kind(self.clock)
        self.budget = CallBudget(self.clock, limits)
        self.provider = BudgetedProvider(self.inner, self.budget, self.clock, seed=1)

    def spent(self, calls):
        """Number of calls that are missing from a bucket."""
        left = {state.name: state.left for state in self.budget.state()}
        if calls not in left:
            return 0.0
        return round(self.budget._requests[calls.removesuffix(" calls")].size - left[calls], 6)

    @property
    def seconds(self):
        return self.clock.now() - ORIGIN_S


def run(test, *arguments):
    async def main():
        return await test(Account(*arguments))

    return run_virtual(main)


def test_a_listing_for_which_there_is_no_room_says_so_and_is_not_whole():
    async def test(account):
        account.budget.spent("DescribeInstances", 1000)
        return await account.provider.list_vms(), account.inner.calls

    listing, calls = run(test)
    assert (listing.vms, listing.complete, calls) == ((), False, [])
    assert (listing.requested_at_s, listing.received_at_s) == (ORIGIN_S, ORIGIN_S + LISTING_WAIT_S)
    assert listing.error == "the API budget left no room for a listing within 2 s"


@pytest.mark.parametrize(
    ("error", "refusals"), [("", 0), ("RequestLimitExceeded: slower", 1), ("InternalError: no", 0)]
)
def test_a_listing_that_is_refused_for_the_budget_is_heard(error, refusals):
    async def test(account):
        account.inner.listing = Listing((), not error, 0.0, 0.0, error)
        assert await account.provider.list_vms() is account.inner.listing
        return account.budget.refusals

    assert run(test) == refusals


@pytest.mark.parametrize(("vms", "calls"), [(0, 1), (999, 1), (1000, 2), (2500, 3)])
def test_a_listing_spends_a_call_for_each_of_its_pages(vms, calls):
    async def test(account):
        one = Vm("i-1", "web", VmState.STOPPED, "m", "a", None, 0.0, "ami", {}, "")
        account.inner.listing = Listing((one,) * vms, True, 0.0, 0.0)
        await account.provider.list_vms()
        return account.spent("describes calls")

    assert run(test) == calls


@pytest.mark.parametrize(("vms", "calls"), [(0, 1), (1, 1), (100, 1), (101, 2), (250, 3)])
def test_readiness_of_many_spends_a_call_for_each_of_its_batches(vms, calls):
    async def test(account):
        await account.provider.checked([f"i-{number}" for number in range(vms)])
        return account.spent("describes calls")

    assert run(test) == calls


def test_readiness_is_asked_for_within_the_budget_only():
    async def test(account):
        first = await account.provider.checked(["i-1"])
        spent = account.spent("describes calls")
        account.budget.spent("DescribeInstanceStatus", 1000)
        return first, spent, await account.provider.checked(["i-1"]), account.inner.calls, account.seconds

    assert run(test) == ({"i-1"}, 1.0, frozenset(), [(0.0, "checked", "i-1")], LISTING_WAIT_S)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, {}),
        ({"force": True}, {"force": True, "hibernate": False}),
        ({"hibernate": True}, {"force": False, "hibernate": True}),
    ],
)
def test_how_a_vm_is_stopped_is_passed_on(how, said):
    async def test(account):
        await account.provider.stop(["i-1"], **how)
        return account.inner.calls

    assert run(test) == [(0.0, "stop", "i-1", said)]


def test_types_are_changed_one_by_one_and_each_outcome_is_returned():
    async def test(account):
        account.inner.answers = [[(OutcomeKind.REFUSED, "Unsupported")]]
        return await account.provider.retype(["i-1", "i-2"], "big"), account.inner.calls

    outcomes, calls = run(test)
    assert [(o.vm_id, o.kind) for o in outcomes] == [("i-1", OutcomeKind.REFUSED), ("i-2", ACCEPTED)]
    assert calls == [(0.0, "retype", "i-1", "big"), (0.0, "retype", "i-2", "big")]


def test_templates_are_read_by_who_can_and_within_the_budget():
    async def test(account):
        first = await account.provider.launch_spec(SPEC)
        spent = account.spent("describes calls")
        account.budget.spent("DescribeLaunchTemplateVersions", 1000)
        second = await account.provider.launch_spec(SPEC)
        return first, spent, isinstance(second, UnreadableTemplate), account.inner.calls, account.seconds

    assert run(test, Reading) == (None, 1.0, True, [(0.0, "launch_spec", "web")], LISTING_WAIT_S)
    assert run(test) == (None, 0.0, False, [], 0.0)


def test_it_is_closed_with_what_it_wraps_and_answers_as_that_does():
    async def test(account):
        for provider in (account.provider, account.provider.for_refills()):
            assert provider.answers_at_once
        await account.provider.close()
        return account.inner.closed

    assert run(test)


def test_nothing_asked_for_is_no_call():
    async def test(account):
        account.budget.spent("StartInstances", 1000)
        return await account.provider.start([]), account.inner.calls, account.seconds

    assert run(test) == ((), [], 0.0)


HEARD = {
    "refused": ([REFUSED, REFUSED], 1),
    "in part": ([REFUSED, (ACCEPTED, "")], 0),
    "not by the provider": ([(THROTTLED, ""), (THROTTLED, "")], 0),
    "for something else": ([(OutcomeKind.NO_CAPACITY, "X"), (OutcomeKind.NO_CAPACITY, "X")], 0),
}


@pytest.mark.parametrize("answer", HEARD)
def test_only_a_call_that_was_refused_as_a_whole_cuts_what_is_believed(answer):
    first, refusals = HEARD[answer]

    async def test(account):
        account.inner.answers = [first]
        await account.provider.start(["i-1", "i-2"])
        return account.budget.refusals

    assert run(test) == refusals


@pytest.mark.parametrize(("count", "suspected"), [(150, "calls"), (400, "VMs")])
def test_a_refused_launch_counts_with_all_vms_that_it_would_have_made(count, suspected):
    """With 150 VMs each, the buckets hold 6.6 such calls by VMs and 4.95 by calls; with 400 VMs, 2.5 by VMs."""

    async def test(account):
        account.inner.answers = [[REFUSED] * count]
        await account.provider.provision(SPEC, count, "t")
        (slowest,) = (state for state in account.budget.state() if state.refill_per_s < 1.9)
        return slowest.name, account.budget.refusals

    assert run(test) == (f"RunInstances {suspected}", 1)


AMPLE = replace(PUBLISHED, other_changes=Limit(1e9, 1e9))
"""Limits with room for any number of retypes, even after refusals, so that only the pauses between retries count."""


def test_pauses_are_drawn_up_to_a_limit_that_doubles_and_end_before_the_time_of_the_call_is_over():
    async def test(account):
        account.inner.answers = [[REFUSED]] * 100
        outcomes = await account.provider.retype(["i-1"], "big")
        return outcomes, [at for at, *_ in account.inner.calls], account.seconds

    outcomes, times, ended_s = run(test, Scripted, AMPLE)
    assert [o.kind for o in outcomes] == [THROTTLED]
    pauses = [after - before for before, after in pairwise(times)]
    limits = [min(FIRST_PAUSE_S * 2.0**n, LONGEST_PAUSE_S) for n in range(len(pauses) + 1)]
    assert len(pauses) >= 4
    # Waiting for room takes a thousandth of a second.
    assert all(0.0 < pause < limit + 0.002 for pause, limit in zip(pauses, limits, strict=False))
    # A pause that could end after the time of the call is not begun.
    assert times[-1] == ended_s
    assert ended_s + limits[-1] >= WAIT_S > ended_s


def test_what_there_was_no_room_for_is_not_asked_for_again():
    async def test(account):
        account.budget.spent("StartInstances", 1000)
        outcomes = await account.provider.start(["i-1", "i-2"])
        return [(o.vm_id, o.kind, o.code) for o in outcomes], account.inner.calls, account.seconds

    outcomes, calls, seconds = run(test)
    assert outcomes == [("i-1", THROTTLED, BUDGET_SPENT), ("i-2", THROTTLED, BUDGET_SPENT)]
    assert (calls, seconds) == ([], WAIT_S)


def test_vms_that_there_is_no_room_for_are_not_made():
    async def test(account):
        account.budget.spent("RunInstances", 1000)
        outcomes = await account.provider.provision(SPEC, 3, "t")
        return [(o.kind, o.code) for o in outcomes], account.inner.calls

    assert run(test) == ([(THROTTLED, BUDGET_SPENT)], [])


def test_a_part_that_is_refused_is_asked_for_again_with_the_rest():
    async def test(account):
        vm_ids = [f"i-{n}" for n in range(992)]
        account.inner.answers = [[REFUSED] * 990]
        await account.provider.start(vm_ids)
        return [len(vms) for _, _, *vms in account.inner.calls]

    first, *more = run(test)
    assert first == 990
    assert more
