"""Pushed samples: what is kept, what is refused and why, and what a fleet reads."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import Signal
from autoscaler.ports.pushing import Intake, PushedSample, Result
from autoscaler.sources.push import PushedSamples, PushLimits
from tests.sources.doubles import ManualClock, vm

NOW_S = 1_000_000.0


def pushed_to(signal=Signal.TOTAL, limits=None, fleet="web", **intake):
    clock = ManualClock(NOW_S)
    pushed = PushedSamples(clock, limits)
    return clock, pushed, pushed.source(Intake(fleet, signal, 30.0, **intake))


def sample(value=1.0, at_s=NOW_S, vm="", fleet="web", **more):
    return PushedSample(fleet, vm, value, at_s, **more)


def take(pushed, *samples, may=None):
    return pushed.take(samples, {"web", "api", "old"}, may)


def results(taken):
    return {str(result): count for result, count in taken.results.items()}


async def values(source, *vms):
    found = await source.read([vm(each, f"10.0.0.{each[-1]}") for each in vms])
    return dict(zip(found.vm_ids, found.values.tolist(), strict=True))


async def test_the_latest_by_its_own_stamp_holds_in_whatever_order_they_come():
    _, pushed, source = pushed_to()
    assert results(take(pushed, sample(5, NOW_S - 2), sample(7, NOW_S - 1), sample(6, NOW_S - 3))) == {
        "taken": 2, "outdated": 1
    }  # fmt: skip
    found = await source.read([])
    assert (found.vm_ids, found.values.tolist(), found.observed_at_s.tolist()) == (("",), [7.0], [NOW_S - 1])
    assert (found.error, found.received_at_s.tolist()) == ("", [NOW_S])


async def test_samples_from_before_the_clock_was_set_back_are_not_read_and_keep_none_out():
    clock, pushed, source = pushed_to()
    take(pushed, sample(5, series="a"))
    clock.at_s = NOW_S - 3600.0
    assert await values(source) == {}
    assert results(take(pushed, sample(7, clock.now(), series="b"))) == {"taken": 1}
    assert await values(source) == {"": 7.0}
    assert pushed.sum_of("web") == (7.0, 1)


async def test_pushing_again_changes_nothing_and_another_value_of_the_same_time_replaces():
    _, pushed, source = pushed_to()
    take(pushed, sample(5))
    again = take(pushed, sample(5), sample(5))
    assert (results(again), again.fleets) == ({"duplicate": 2}, frozenset())
    other = take(pushed, sample(8))
    assert (results(other), other.fleets) == ({"replaced": 1}, {"web"})
    assert await values(source) == {"": 8.0}


async def test_an_id_that_was_taken_is_a_duplicate_and_one_that_was_refused_is_not():
    _, pushed, source = pushed_to()
    assert results(take(pushed, sample(math.nan, id="a"))) == {"not_a_number": 1}
    assert results(take(pushed, sample(5, id="a"))) == {"taken": 1}
    assert results(take(pushed, sample(9, NOW_S + 1, id="a"))) == {"duplicate": 1}
    assert await values(source) == {"": 5.0}


REFUSED = {
    "not_a_number": [sample(math.nan), sample(math.inf), sample(-math.inf)],
    "out_of_range": [sample(-0.5)],
    "too_old": [sample(1, NOW_S - 31)],
    "in_the_future": [sample(1, NOW_S + 6), sample(1, NOW_S * 1000), sample(1, math.nan)],
    "unknown_fleet": [sample(1, fleet="wbe")],
    "not_on_push": [sample(1, fleet="old")],
    "vm_not_asked": [sample(1, vm="i-1")],
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_cannot_be_taken_is_refused_with_what_to_do_and_leaves_the_rest(reason):
    _, pushed, source = pushed_to()
    bad = REFUSED[reason]
    taken = take(pushed, *bad, sample(3))
    assert results(taken) == {reason: len(bad), "taken": 1}
    assert [(each.at, str(each.result)) for each in taken.refusals] == [
        (at, reason) for at in range(len(bad))
    ]
    assert all(";" in each.text for each in taken.refusals)
    assert await values(source) == {"": 3.0}


def test_a_percentage_is_not_a_share_and_a_fleet_by_vm_needs_vms():
    _, pushed, _ = pushed_to(Signal.UTILISATION)
    taken = take(pushed, sample(85.0, vm="i-1"), sample(0.5), sample(1.0, vm="i-2"))
    assert results(taken) == {"out_of_range": 1, "vm_missing": 1, "taken": 1}
    assert "not a percentage" in taken.refusals[0].text


def test_a_token_for_other_fleets_may_not_push():
    _, pushed, _ = pushed_to()
    taken = take(pushed, sample(1), may={"api"})
    assert results(taken) == {"not_allowed": 1}


async def test_stamps_a_little_ahead_are_taken_as_now():
    _, pushed, source = pushed_to()
    take(pushed, sample(4, NOW_S + 4.5))
    found = await source.read([])
    assert found.observed_at_s.tolist() == [NOW_S]


async def test_vms_are_found_by_id_or_by_address_and_a_mismatch_shows_both_sides():
    _, pushed, source = pushed_to(Signal.THROUGHPUT)
    take(pushed, sample(10, vm="i-1"), sample(20, vm="i-2"), sample(30, vm="i-9"))
    assert await values(source, "i-2", "i-1", "i-3") == {"i-2": 20.0, "i-1": 10.0}
    missing = await source.read([vm("i-7", "10.0.0.7")])
    assert missing.vm_ids == ()
    assert "samples are pushed for i-1, i-2, i-9, and none of them is a VM in service (i-7)" in missing.error
    _, pushed, source = pushed_to(Signal.THROUGHPUT, by_address=True)
    take(pushed, sample(10, vm="10.0.0.1"))
    assert await values(source, "i-1", "i-2") == {"i-1": 10.0}


async def test_silence_is_told_and_is_not_zero():
    clock, pushed, source = pushed_to()
    found = await source.read([])
    assert (found.vm_ids, found.error[:26]) == ((), "nothing has been pushed fo")
    take(pushed, sample(5))
    clock.at_s += 299.0
    # Old samples are returned, and the fold sees their age; much older ones are gone.
    assert (await source.read([])).observed_at_s.tolist() == [NOW_S]
    clock.at_s += 2.0
    assert (await source.read([])).vm_ids == ()


async def test_what_is_kept_is_bounded_and_old_vms_make_room():
    clock, pushed, source = pushed_to(Signal.THROUGHPUT, PushLimits(vms_per_fleet=3, vms=4))
    first = take(pushed, *(sample(1, vm=f"i-{number}") for number in range(5)))
    assert results(first) == {"taken": 3, "full": 2}
    other = pushed.source(Intake("api", Signal.THROUGHPUT, 30.0))
    assert results(take(pushed, sample(1, fleet="api", vm="a"), sample(1, fleet="api", vm="b"))) == {
        "taken": 1, "full": 1
    }  # fmt: skip
    clock.at_s += 31.0
    now = clock.at_s
    assert results(take(pushed, sample(2, now, vm="i-8"))) == {"taken": 1}
    assert await values(source, "i-0", "i-8") == {"i-8": 2.0}
    await other.close()
    assert results(take(pushed, sample(1, now, fleet="api", vm="c"))) == {"not_on_push": 1}


async def test_two_series_for_one_vm_are_refused_until_the_first_has_ended():
    clock, pushed, source = pushed_to()
    one, two = 'rate{instance="a"}', 'rate{instance="b"}'
    taken = take(pushed, sample(5, series=one), sample(6, NOW_S + 1, series=two, id="b"))
    assert results(taken) == {"taken": 1, "several_series": 1}
    assert one in taken.refusals[0].text
    assert two in taken.refusals[0].text
    assert results(take(pushed, sample(math.nan, NOW_S + 2, series=one, ended=True))) == {"ended": 1}
    assert (await source.read([])).vm_ids == ()
    assert results(take(pushed, sample(6, NOW_S + 3, series=two, id="b"))) == {"taken": 1}
    assert await values(source) == {"": 6.0}
    clock.at_s += 40
    assert results(take(pushed, sample(7, clock.at_s, series=one))) == {"taken": 1}


async def test_a_reload_keeps_what_is_known_where_the_measure_stays():
    _, pushed, source = pushed_to()
    take(pushed, sample(5))
    again = pushed.source(Intake("web", Signal.TOTAL, 60.0))
    await source.close()
    assert await values(again) == {"": 5.0}
    per_vm = pushed.source(Intake("web", Signal.THROUGHPUT, 60.0))
    await again.close()
    assert await values(per_vm, "i-1") == {}
    # A set of policies that did not come into use: the previous source continues.
    failed = pushed.source(Intake("web", Signal.THROUGHPUT, 10.0))
    await failed.close()
    assert pushed.intake("web").max_age_s == 60.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["i-1", "i-2", "i-3"]),
            st.floats(0, 1e6),
            st.integers(-40, 10),
            st.sampled_from(["", "x", "y"]),
        ),
        max_size=40,
    )
)
def test_any_order_of_pushes_leaves_the_latest_and_the_sum_of_them(rows):
    _, pushed, _ = pushed_to(Signal.THROUGHPUT)
    kept, ids = {}, set()
    for name, value, offset, mark in rows:
        at_s = NOW_S + offset
        taken = take(pushed, sample(value, at_s, vm=name, id=mark))
        fits = -30 <= offset <= 5 and mark not in ids
        if fits and mark:
            ids.add(mark)
        if fits and at_s >= kept.get(name, (-math.inf, 0))[0]:
            kept[name] = at_s, value
        assert sum(taken.results.values()) == 1
    latest = {name: (each.at_s, each.value) for name, each in pushed.latest("web").items()}
    assert latest == kept
    total, count = pushed.sum_of("web")
    assert (total, count) == (math.fsum(value for _, value in kept.values()), len(kept))


def test_every_reason_has_a_meaning_and_is_fine_or_refused():
    assert {result for result in Result if not result.refused} == {
        Result.TAKEN, Result.REPLACED, Result.DUPLICATE, Result.OUTDATED, Result.ENDED, Result.UNASKED
    }  # fmt: skip


@given(
    st.lists(
        st.builds(
            PushedSample,
            fleet=st.sampled_from(["web", "api", "wbe"]),
            vm=st.sampled_from(["", "i-1", "i-2", "i-3"]),
            value=st.floats(),
            at_s=st.one_of(st.floats(), st.floats(NOW_S - 60, NOW_S + 60)),
            id=st.sampled_from(["", "a", "b"]),
            series=st.sampled_from(["", "s", "t"]),
            ended=st.booleans(),
        ),
        max_size=60,
    )
)
async def test_whatever_is_pushed_each_sample_has_one_result_and_what_is_read_is_possible(samples):
    clock, pushed, source = pushed_to(Signal.THROUGHPUT, PushLimits(vms_per_fleet=2, vms=3))
    pushed.source(Intake("api", Signal.TOTAL, 30.0))
    taken = take(pushed, *samples)
    assert sum(taken.results.values()) == len(samples)
    assert len(taken.refusals) <= 10
    assert taken.fleets <= {"web", "api"}
    for name in ("web", "api"):
        assert len(pushed.latest(name)) <= 2
    found = await source.read([vm(f"i-{number}") for number in (1, 2, 3)])
    assert ((found.values >= 0) & (found.values < math.inf)).all()
    assert ((found.observed_at_s <= clock.at_s) & (found.observed_at_s >= clock.at_s - 30)).all()
