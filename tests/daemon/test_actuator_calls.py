"""From one intent to calls: batches are split, failures are told apart, nothing is repeated, everything is bounded."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.daemon.acts.actuator import (
    NO_ANSWER,
    NO_ROOM_AS_TYPE,
    NOT_SENT,
    TIMED_OUT,
    CallParameters,
    carry_out,
)
from autoscaler.daemon.vms.tracked import TYPE_TAG
from autoscaler.errors import ProviderError
from autoscaler.ports import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    ActionIntent,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    Verb,
)

SPEC = ProvisionSpec("web", "lt-0")


class Cloud:
    """A provider whose start, stop and provision answer by `answer(ids, number of the call)`. Calls are recorded.

    Tagging and retyping answer by `of_types(id, "tag" or "retype")`.
    """

    def __init__(self, answer, of_types=lambda *_: OutcomeKind.ACCEPTED):
        self.answer = answer
        self.of_types = of_types
        self.calls = []
        self.changes = []

    async def tag(self, vm_ids, tags):
        self.changes.append((*vm_ids, "tag", tags[TYPE_TAG]))
        return tuple(Outcome(i, self.of_types(i, "tag"), "Code") for i in vm_ids)

    async def retype(self, vm_ids, vm_type):
        self.changes.append((*vm_ids, "retype", vm_type))
        return tuple(Outcome(i, self.of_types(i, "retype"), "Code") for i in vm_ids)

    async def start(self, vm_ids):
        self.calls.append(tuple(vm_ids))
        given = self.answer(tuple(vm_ids), len(self.calls))
        return await given if asyncio.iscoroutine(given) else given

    stop = start

    async def provision(self, spec, count, token):
        return await self.start([token] * count)


def act(cloud, ids=("a", "b", "c", "d"), verb=Verb.START, spec=None, count=None, how=None):
    async def main():
        intent = ActionIntent("web", verb, tuple(ids), count or len(ids), "token", "")
        clock = VirtualClock(1000.0)
        return await carry_out(cloud, clock, 5, intent, how=how or CallParameters(spec), timeout_s=30.0)

    return run_virtual(main)


def all_of(kind, code="", ids=None):
    return lambda asked, _: tuple(Outcome(i, kind, code) for i in ids or asked)


def kinds(done):
    return [(o.vm_id, o.kind, o.code) for o in done.outcomes]


def refusing(bad, *, named):
    """A provider whose calls are all or nothing, and which may name the bad VMs."""

    def answer(ids, _):
        found = [i for i in ids if i in bad]
        if not found:
            return tuple(Outcome(i, OutcomeKind.ACCEPTED) for i in ids)
        return tuple(
            Outcome(i, OutcomeKind.REFUSED, "Bad" if i in bad or not named else BATCH_REFUSED) for i in ids
        )

    return answer


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP])
def test_a_good_batch_is_one_call_with_an_outcome_per_vm_in_order(verb):
    cloud = Cloud(all_of(OutcomeKind.ACCEPTED))
    done = act(cloud, verb=verb)
    assert cloud.calls == [("a", "b", "c", "d")]
    assert [o.vm_id for o in done.outcomes] == ["a", "b", "c", "d"]
    assert (done.action_id, done.sent_s, done.received_s) == (5, 1000, 1000)


def test_named_bad_vms_are_left_out_and_the_rest_is_sent_again():
    cloud = Cloud(refusing({"b", "d"}, named=True))
    done = act(cloud)
    assert cloud.calls == [("a", "b", "c", "d"), ("a", "c")]
    assert [k for _, k, _ in kinds(done)] == ["accepted", "refused", "accepted", "refused"]


def budget(size, bad):
    """Most calls: the first one, and two for each batch that has to be split.

    At each level of splitting at most `bad` batches hold a bad VM, and no more than there are batches. Where
    size and bad are powers of two this is at most 2 bad (log2(size / bad) + 1) + 1.
    """
    return 1 + 2 * sum(min(bad, 2**level) for level in range(math.ceil(math.log2(size))))


@pytest.mark.parametrize("bad", [1, 2, 4, 8, 16])
def test_the_budget_is_the_known_bound_at_powers_of_two(bad):
    assert budget(64, bad) <= 2 * bad * (math.log2(64 / bad) + 1) + 1


@given(st.integers(1, 64), st.data(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_good_vm_is_started_exactly_once_within_the_call_budget(size, data, named):
    ids = [f"v{n}" for n in range(size)]
    bad = set(data.draw(st.lists(st.sampled_from(ids), unique=True)))
    cloud = Cloud(refusing(bad, named=named))
    done = act(cloud, ids)
    assert [o.vm_id for o in done.outcomes] == ids
    assert {o.vm_id for o in done.outcomes if o.kind is OutcomeKind.REFUSED} == bad
    started = [i for call in cloud.calls if not bad & set(call) for i in call]
    assert sorted(started) == sorted(set(ids) - bad)
    assert len(cloud.calls) <= (2 if named and 0 < len(bad) < size else budget(size, len(bad)))


def test_no_capacity_is_split_once():
    cloud = Cloud(all_of(OutcomeKind.NO_CAPACITY, "ICE"))
    done = act(cloud)
    assert cloud.calls == [("a", "b", "c", "d"), ("a", "b"), ("c", "d")]
    assert {k for _, k, _ in kinds(done)} == {OutcomeKind.NO_CAPACITY}


def test_half_of_a_batch_may_fit_where_the_whole_does_not():
    def answer(ids, _):
        kind = OutcomeKind.ACCEPTED if ids == ("c", "d") else OutcomeKind.NO_CAPACITY
        return tuple(Outcome(i, kind) for i in ids)

    assert [k for _, k, _ in kinds(act(Cloud(answer)))] == [
        "no_capacity",
        "no_capacity",
        "accepted",
        "accepted",
    ]


def test_a_single_vm_without_capacity_is_not_asked_for_again():
    cloud = Cloud(all_of(OutcomeKind.NO_CAPACITY))
    act(cloud, ("a",))
    assert cloud.calls == [("a",)]


async def forever():
    await asyncio.Event().wait()


async def deaf():
    """Swallows its cancellation, as an adapter should not."""
    while True:
        try:
            await forever()
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling() > 1:
                raise


@pytest.mark.parametrize("hang", [forever, deaf])
def test_a_call_that_does_not_come_back_is_unknown_after_its_time_and_not_repeated(hang):
    cloud = Cloud(lambda *_: hang())
    done = act(cloud)
    assert cloud.calls == [("a", "b", "c", "d")]
    assert {(k, c) for _, k, c in kinds(done)} == {(OutcomeKind.UNKNOWN, TIMED_OUT)}
    assert done.received_s - done.sent_s == 30


def test_after_a_call_that_hangs_the_rest_of_a_split_batch_is_not_sent():
    def answer(ids, number):
        return forever() if number == 2 else all_of(OutcomeKind.REFUSED, "Bad")(ids, 0)

    cloud = Cloud(answer)
    done = act(cloud)
    assert cloud.calls == [("a", "b", "c", "d"), ("a", "b"), ("c", "d")]
    assert kinds(done) == [
        ("a", OutcomeKind.UNKNOWN, TIMED_OUT),
        ("b", OutcomeKind.UNKNOWN, TIMED_OUT),
        ("c", OutcomeKind.THROTTLED, NOT_SENT),
        ("d", OutcomeKind.THROTTLED, NOT_SENT),
    ]
    assert done.outcomes[2].message == "not tried after unknown TimedOut"
    assert done.received_s - done.sent_s == 30


def test_the_halves_of_a_refused_batch_are_sent_at_the_same_time():
    clock = VirtualClock()

    async def slow(ids):
        await clock.sleep_until(clock.monotonic() + 1.0)
        return refusing({"a"}, named=False)(ids, 0)

    done = act(Cloud(lambda ids, _: slow(ids)))
    assert [k for _, k, _ in kinds(done)] == ["refused", "accepted", "accepted", "accepted"]
    assert done.received_s - done.sent_s == 3.0


def test_the_larger_half_is_sent_first():
    cloud = Cloud(all_of(OutcomeKind.REFUSED))
    act(cloud, "abcde")
    assert cloud.calls[:3] == [("a", "b", "c", "d", "e"), ("c", "d", "e"), ("a", "b")]


def test_vms_that_the_budget_left_out_are_asked_for_again_while_others_are_taken():
    def answer(ids, _):
        outcomes = [Outcome(i, OutcomeKind.ACCEPTED) for i in ids[:2]]
        return (*outcomes, *(Outcome(i, OutcomeKind.THROTTLED, BUDGET_SPENT) for i in ids[2:]))

    cloud = Cloud(answer)
    done = act(cloud, ("a", "b", "c", "d", "e"))
    assert cloud.calls == [("a", "b", "c", "d", "e"), ("c", "d", "e"), ("e",)]
    assert {k for _, k, _ in kinds(done)} == {OutcomeKind.ACCEPTED}


def test_a_budget_that_gives_nothing_is_not_asked_again():
    cloud = Cloud(all_of(OutcomeKind.THROTTLED, BUDGET_SPENT))
    done = act(cloud)
    assert len(cloud.calls) == 1
    assert {(k, c) for _, k, c in kinds(done)} == {(OutcomeKind.THROTTLED, BUDGET_SPENT)}


@pytest.mark.parametrize("kind", [OutcomeKind.THROTTLED, OutcomeKind.DENIED])
def test_a_spent_budget_or_a_denial_ends_the_splitting(kind):
    def answer(ids, number):
        return all_of(OutcomeKind.REFUSED if number == 1 else kind, "Code")(ids, 0)

    cloud = Cloud(answer)
    done = act(cloud, [f"v{n}" for n in range(100)])
    assert len(cloud.calls) == 3
    assert len(done.outcomes) == 100


def test_a_provider_error_means_that_nothing_was_sent():
    def answer(ids, _):
        raise ProviderError("no route to host")

    done = act(Cloud(answer))
    assert {(o.kind, o.code, o.message) for o in done.outcomes} == {
        (OutcomeKind.THROTTLED, NOT_SENT, "no route to host")
    }


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), asyncio.CancelledError()])
def test_an_adapter_that_raises_anything_else_leaves_the_outcome_unknown(error):
    def answer(ids, _):
        raise error

    done = act(Cloud(answer))
    assert {(k, c) for _, k, c in kinds(done)} == {(OutcomeKind.UNKNOWN, NO_ANSWER)}
    assert done.outcomes[0].message.startswith("unexpected ")


@pytest.mark.parametrize("answer", [None, 7, [None]])
def test_an_answer_that_is_none_leaves_the_outcome_unknown(answer):
    done = act(Cloud(lambda *_: answer))
    assert {(k, c) for _, k, c in kinds(done)} == {(OutcomeKind.UNKNOWN, NO_ANSWER)}


def test_vms_that_the_answer_leaves_out_are_unknown_and_others_in_it_are_ignored():
    done = act(Cloud(all_of(OutcomeKind.ACCEPTED, ids=["a", "stranger"])), ("a", "b"))
    assert kinds(done) == [("a", OutcomeKind.ACCEPTED, ""), ("b", OutcomeKind.UNKNOWN, NO_ANSWER)]


AS_OTHERS = CallParameters(start_as={"b": "n", "c": "n"}, type_of={"b": "m", "c": "m"})


def test_of_a_batch_those_get_another_type_that_are_to_and_all_start_together():
    cloud = Cloud(all_of(OutcomeKind.ACCEPTED))
    done = act(cloud, how=AS_OTHERS)
    assert kinds(done) == [(i, OutcomeKind.ACCEPTED, "") for i in "abcd"]
    assert cloud.calls == [("a", "b", "c", "d")]
    assert cloud.changes == [("b", "c", "tag", "m"), ("b", "retype", "n"), ("c", "retype", "n")]


@pytest.mark.parametrize("call", ["tag", "retype"])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (OutcomeKind.REFUSED, OutcomeKind.REFUSED),
        (OutcomeKind.THROTTLED, OutcomeKind.THROTTLED),
        (OutcomeKind.UNKNOWN, OutcomeKind.THROTTLED),
    ],
)
def test_a_vm_whose_type_was_not_changed_for_certain_is_not_started(call, kind, told):
    cloud = Cloud(
        all_of(OutcomeKind.ACCEPTED),
        lambda i, what: kind if (i, what) == ("b", call) else OutcomeKind.ACCEPTED,
    )
    done = act(cloud, how=AS_OTHERS)
    assert kinds(done) == [
        ("a", OutcomeKind.ACCEPTED, ""),
        ("b", told, NO_ROOM_AS_TYPE),
        ("c", OutcomeKind.ACCEPTED, ""),
        ("d", OutcomeKind.ACCEPTED, ""),
    ]
    assert cloud.calls == [("a", "c", "d")]
    # A type is not changed if the tag with the old one could not be written.
    assert (("b", "retype", "n") in cloud.changes) == (call == "retype")


def test_a_provision_gives_one_outcome_per_vm_made():
    done = act(Cloud(all_of(OutcomeKind.ACCEPTED, ids=["i-1", "i-2"])), (), Verb.PROVISION, SPEC, 2)
    assert [o.vm_id for o in done.outcomes] == ["i-1", "i-2"]


@pytest.mark.parametrize("answer", [(), None])
def test_a_provision_without_an_answer_is_unknown(answer):
    done = act(Cloud(lambda *_: answer), (), Verb.PROVISION, SPEC, 2)
    assert kinds(done) == [("", OutcomeKind.UNKNOWN, NO_ANSWER)]


def test_a_provision_without_a_template_is_refused_without_a_call():
    cloud = Cloud(all_of(OutcomeKind.ACCEPTED))
    done = act(cloud, (), Verb.PROVISION, None, 2)
    assert kinds(done) == [("", OutcomeKind.REFUSED, "NoTemplate")]
    assert cloud.calls == []
