"""The tags of many fleets: which VM is marked when, what is reported of tags that cannot be written, and how it ends."""

import asyncio
import math

import numpy as np
import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.vms.lease import AWAY_S, LEASE_TAG, RENEW_S, RETRY_S, SETTLE_S, VALID_S, Mark
from autoscaler.daemon.vms.leasing import AT_ONCE, WRITE_WITHIN_S, Leasing
from autoscaler.errors import ProviderError
from autoscaler.ports import Note, Outcome, OutcomeKind
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, Demand, listing, policy, virtual, vm


class Tagging:
    """A provider for tags only: `answer` decides the outcomes, and listings show accepted tags."""

    def __init__(self):
        self.asked, self.seen = [], {}
        self.answer = lambda vm_ids: [Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids]

    async def tag(self, vm_ids, tags):
        self.asked.append(vm_ids)
        outcomes = self.answer(vm_ids)
        if asyncio.isfuture(outcomes):
            outcomes = await outcomes
        self.seen.update(
            (outcome.vm_id, tags) for outcome in outcomes if outcome.kind is OutcomeKind.ACCEPTED
        )
        return tuple(outcomes)


class Followed:
    """Fleets of two VMs each, whose listings show the tags."""

    def __init__(self, *fleets, name="a"):
        self.clock, self.provider = VirtualClock(ORIGIN_S), Tagging()
        source, probe = Demand(self.clock, 0), StatusCheckProbe(self.provider)
        self.fleets = [Fleet(FleetSetup(each, self.provider, source, probe)) for each in fleets]
        self.leasing = Leasing(self.clock, name, "1")
        self.complete = True

    def follow(self):
        now_s = self.clock.now()
        whole = listing(at=now_s, complete=self.complete)
        for fleet in self.fleets:
            fleet.listing_error = whole.error
        rows = {
            fleet.name: tuple(vm(i, tags=self.provider.seen.get(i)) for i in self.ids(fleet.name))
            for fleet in self.fleets
        }
        return self.leasing.follow(self.fleets, {id(self.provider): whole}, lambda _: rows, now_s)

    @staticmethod
    def ids(name):
        return (f"i-{name}-0", f"i-{name}-1")

    async def moment(self):
        await self.clock.sleep_until(self.clock.monotonic() + 0.001)

    async def lives(self, ticks, tick_s=10.0):
        """The messages of each tick, by second."""
        told = []
        for _ in range(ticks):
            told += [(self.clock.now() - ORIGIN_S, note) for note in self.follow()]
            await self.clock.sleep_until(self.clock.monotonic() + tick_s)
        return told


@virtual
async def test_the_first_marks_of_many_fleets_are_written_a_few_at_a_time_after_one_listing():
    many = Followed(*(policy(f"f{n:02d}") for n in range(AT_ONCE + 5)))
    on_the_way = []

    def later(vm_ids):
        on_the_way.append((asyncio.get_running_loop().create_future(), vm_ids))
        return on_the_way[-1][0]

    many.provider.answer = later
    assert (many.follow(), many.follow()) == ([], [])
    await many.moment()
    assert many.provider.asked == [many.ids(f"f{n:02d}") for n in range(AT_ONCE)]
    for answer, vm_ids in on_the_way[:]:
        answer.set_result([Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids])
    await many.moment()
    assert many.provider.asked == [many.ids(f"f{n:02d}") for n in range(AT_ONCE + 5)]


@virtual
async def test_no_fleet_waits_for_the_first_marks_of_hundreds_of_others():
    many = Followed(*(policy(f"f{n:03d}") for n in range(300)))
    await many.lives(3)
    assert {fleet.held_until_s for fleet in many.fleets} == {-math.inf}
    assert len(many.provider.asked) == 300
    # They are renewed in turn.
    await many.lives(int(RENEW_S / 10.0) - 2)
    assert len(many.provider.asked) == 300 + AT_ONCE


@pytest.mark.parametrize("tick_s", [10.0, 60.0, 150.0])
def test_marks_of_hundreds_of_fleets_are_renewed_before_they_are_out_of_date(tick_s):
    async def life():
        many = Followed(*(policy(f"f{n:03d}") for n in range(300)))
        marked_s = {}

        def noted(vm_ids):
            marked_s.setdefault(vm_ids, []).append(many.clock.now())
            return [Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids]

        many.provider.answer = noted
        await many.lives(int(1800.0 / tick_s), tick_s)
        assert len(marked_s) == 300
        return [float(np.diff([*times, many.clock.now()]).max()) for times in marked_s.values()]

    assert max(run_virtual(life)) < VALID_S


@virtual
async def test_fleets_in_shadow_are_neither_marked_nor_held_and_without_a_name_none_is():
    shadow = Followed(policy("web"), policy("tried", act=False))
    shadow.provider.seen["i-tried-0"] = {LEASE_TAG: str(Mark("b", "1", 1, ORIGIN_S))}
    assert await shadow.lives(3) == []
    assert shadow.provider.asked == [shadow.ids("web")]
    assert [(fleet.held_until_s, fleet.leased_to) for fleet in shadow.fleets] == [(-math.inf, "")] * 2
    nameless = Followed(policy("web"), name="")
    nameless.provider.seen["i-web-0"] = {LEASE_TAG: str(Mark("b", "1", 1, ORIGIN_S))}
    assert await nameless.lives(3) == []
    assert (nameless.provider.asked, nameless.fleets[0].held_until_s) == ([], -math.inf)


@virtual
async def test_a_fleet_is_acted_on_once_the_tag_that_was_written_is_seen():
    one = Followed(policy())
    held = []
    for _ in range(3):
        await one.lives(1)
        held.append(one.fleets[0].held_until_s)
    # Not yet at 10 s, which is sooner than another daemon that began at once would be seen.
    assert SETTLE_S > 10.0
    assert held == [math.inf, math.inf, -math.inf]
    assert one.provider.asked == [one.ids("web")]
    await one.lives(int(RENEW_S / 10.0))
    assert one.provider.asked == [one.ids("web")] * 2


@virtual
async def test_it_is_told_once_that_another_daemon_acts_and_once_that_it_is_over():
    one = Followed(policy())
    one.provider.seen["i-web-0"] = {LEASE_TAG: str(Mark("b", "7", 1, ORIGIN_S - 5.0))}
    told = await one.lives(45)
    text = f"the daemon b acts on it: nothing is done here until that one has been silent for {VALID_S:g} s"
    over = "the daemon b has not renewed its lease: the fleet is taken over"
    assert told == [
        (0.0, Note("lease_of_another", "web", text)),
        (VALID_S, Note("lease_free", "web", over)),
    ]
    assert one.fleets[0].leased_to == ""


@virtual
async def test_a_listing_that_is_not_whole_changes_nothing():
    one = Followed(policy())
    await one.lives(3)
    one.complete = False
    one.provider.seen["i-web-0"] = {LEASE_TAG: str(Mark("b", "7", 1, ORIGIN_S + 30.0))}
    assert await one.lives(2) == []
    assert (one.fleets[0].leased_to, one.fleets[0].held_until_s) == ("", -math.inf)
    one.complete = True
    await one.lives(1)
    assert (one.fleets[0].leased_to, one.fleets[0].held_until_s) == ("b", math.inf)


@pytest.mark.parametrize("is_taken_over", [False, True])
@pytest.mark.parametrize("away_s", [AWAY_S - 20.0, VALID_S])
def test_a_daemon_that_was_frozen_looks_before_it_acts(away_s, is_taken_over):
    async def life():
        one = Followed(policy())
        await one.lives(3)
        held = [one.fleets[0].held_until_s]
        if is_taken_over:
            one.provider.seen["i-web-0"] = {LEASE_TAG: str(Mark("b", "7", 1, ORIGIN_S + away_s))}
        # The listing during which it was frozen has no answer.
        for gap_s, one.complete in ((away_s, False), (0.0, False), (0.0, True)):
            await one.clock.sleep_until(one.clock.monotonic() + gap_s)
            await one.lives(1)
            held.append(one.fleets[0].held_until_s)
        return held, one.fleets[0].leased_to

    acts, waits = -math.inf, math.inf
    if away_s < AWAY_S:
        # So soon no other daemon can have taken over; a tag of one would be overwritten.
        assert run_virtual(life) == ([acts] * 4, "")
    else:
        after = (waits, "b") if is_taken_over else (acts, "")
        assert run_virtual(life) == ([acts, waits, waits, after[0]], after[1])


@virtual
async def test_a_daemon_whose_clock_was_set_far_ahead_may_have_slept():
    one = Followed(policy())
    await one.lives(3)
    one.complete = False
    one.leasing.set_ahead_by(3600.0)
    await one.lives(1)
    assert one.fleets[0].held_until_s == math.inf
    one.complete = True
    await one.lives(1)
    assert one.fleets[0].held_until_s == -math.inf


@virtual
async def test_long_ticks_are_no_absence():
    one = Followed(policy())
    await one.lives(4, 300.0)
    one.complete = False
    await one.lives(1, 300.0)
    assert one.fleets[0].held_until_s == -math.inf


def of_each(*outcomes):
    return lambda vm_ids: [Outcome(vm_id, *outcome) for vm_id, outcome in zip(vm_ids, outcomes, strict=True)]


def never(_):
    return asyncio.get_running_loop().create_future()


def fails(_):
    raise ProviderError("CreateTags: cannot reach the endpoint")


def breaks(_):
    raise KeyError("x")


ALLOW = "we may not write their tags; allow ec2:CreateTags on them, or set AUTOSCALER_LEASE=false"
ACCEPTED = (OutcomeKind.ACCEPTED,)
TROUBLES = {
    "denied": (
        of_each(ACCEPTED, (OutcomeKind.DENIED, "UnauthorizedOperation", "no")),
        f"{ALLOW} (UnauthorizedOperation no)",
    ),
    "denied at last": (
        of_each((OutcomeKind.THROTTLED, "RequestLimitExceeded", "slow"), (OutcomeKind.DENIED, "X", "no")),
        f"{ALLOW} (X no)",
    ),
    "refused": (
        of_each((OutcomeKind.REFUSED, "TagLimitExceeded", ""), (OutcomeKind.REFUSED, "Other", "")),
        "the provider refuses these tags (TagLimitExceeded)",
    ),
    "throttled": (
        of_each((OutcomeKind.THROTTLED, "RequestLimitExceeded", "slow"), ACCEPTED),
        "the account's API budget had no room for the call (RequestLimitExceeded slow)",
    ),
    "a library's words": (
        of_each((OutcomeKind.UNKNOWN, "ReadTimeoutError", 'Read timeout on endpoint URL: "x"'), ACCEPTED),
        'it is not known whether the call was carried out (ReadTimeoutError Read timeout on endpoint URL: "x")',
    ),
    "without a word": (
        of_each((OutcomeKind.UNKNOWN,), ACCEPTED),
        "it is not known whether the call was carried out",
    ),
    "no sense": (of_each((OutcomeKind.NO_CAPACITY,), ACCEPTED), "the provider did not write their tags"),
    "an error": (fails, "the call could not be made (CreateTags: cannot reach the endpoint)"),
    "a bug": (breaks, "the call failed unexpectedly; please report (KeyError: 'x')"),
    "no answer": (never, f"the call had no answer within {WRITE_WITHIN_S:g} s"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_tags_that_cannot_be_written_are_told_once_and_again_after_they_could(trouble):
    answer, words = TROUBLES[trouble]
    text = f"its VMs could not be tagged as ours, so another daemon may act on them too: {words}"
    note = Note("lease_not_written", "web", text)

    async def life():
        one = Followed(policy())
        well, one.provider.answer = one.provider.answer, answer
        told = [note for _, note in await one.lives(18)]
        tried = len(one.provider.asked)
        one.provider.answer = well
        await one.lives(10)
        one.provider.answer = answer
        return told, tried, [note for _, note in await one.lives(30)]

    told, tried, again = run_virtual(life)
    assert (told, again) == ([note], [note])
    within_s = WRITE_WITHIN_S if trouble == "no answer" else 0.0
    assert tried == math.ceil(180.0 / (RETRY_S + within_s))


@virtual
async def test_the_end_does_not_wait_for_tags_that_nobody_answers():
    one = Followed(policy())
    await one.leasing.finish()
    one.provider.answer = never
    one.follow()
    await one.moment()
    began_s = one.clock.now()
    await one.leasing.finish()
    assert one.clock.now() == began_s
    assert len(asyncio.all_tasks()) == 1
    assert one.follow() == []
