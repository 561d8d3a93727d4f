"""Troubles stay within a fleet: whatever its adapters do, the other fleet's record is the same to the bit."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.errors import ProviderError, SourceError
from autoscaler.ports import FleetReadings, Outcome, OutcomeKind
from tests.daemon.builders import Bench, policy, steady, virtual


class Source:
    """A source whose answers come from a function."""

    def __init__(self, answer):
        self.answer = answer

    async def read(self, vms):
        given = self.answer(vms)
        return await given if asyncio.iscoroutine(given) else given

    async def close(self):
        pass


def raising(error):
    def answer(_):
        raise error

    return answer


async def hang():
    await asyncio.Event().wait()


async def deaf():
    while True:
        try:
            await hang()
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling() > 1:
                raise


def readings(vms, values, at=1e9):
    return FleetReadings(tuple(v.id for v in vms), values, np.full(len(vms), at))


QUICK = {
    "says no": (raising(SourceError("the exporter is gone")), "the exporter is gone"),
    "raises": (raising(KeyError("cpu")), "unexpected KeyError: 'cpu'; please report"),
    "raises without words": (raising(SourceError("")), "SourceError"),
    "is cancelled": (raising(asyncio.CancelledError()), "cancelled from within"),
    "none": (lambda _: None, "unexpected AttributeError"),
    "a number": (lambda _: 7, "unexpected AttributeError"),
    "words for numbers": (lambda vms: readings(vms, np.array(["x"] * len(vms))), "unexpected ValueError"),
    "no arrays": (lambda vms: readings(vms, None), "different lengths"),
    "too few": (lambda vms: readings(vms, np.zeros(len(vms) + 1)), "different lengths"),
    "nan": (lambda vms: readings(vms, np.full(len(vms), np.nan)), ""),
    "infinite": (lambda vms: readings(vms, np.full(len(vms), np.inf)), ""),
    "negative": (lambda vms: readings(vms, np.full(len(vms), -1e300)), ""),
    "from the future": (lambda vms: readings(vms, np.ones(len(vms)), at=9e9), ""),
    "no time": (lambda vms: readings(vms, np.ones(len(vms)), at=np.nan), ""),
}
DEMAND = steady((0, 200), (60, 500), (120, 100))


class Healing:
    """A source whose first answers take the given seconds, and all others no time."""

    def __init__(self, takes_s):
        self.left_s = list(takes_s)

    def __call__(self, vms):
        return self.answer(vms, self.left_s.pop(0) if self.left_s else 1.0)

    async def answer(self, vms, takes_s):
        with suppress(TimeoutError):
            async with asyncio.timeout(takes_s):
                await hang()
        return readings(vms, np.full(len(vms), 100.0))


def at_s_of(web_source):
    """Time at which each tick was decided."""
    return api_rows(web_source)["at_s"]


def api_rows(web_source):
    """The other fleet's rows, the fleet's own rows, when each was decided, and the log."""
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=4, running=2)
        bench.place("api", 8, running=1)
        bench.add(policy("web"), Source(web_source) if web_source else 200)
        bench.add(policy("api"), DEMAND)
        await bench.run(240)
        found.update(api=bench.rows("api"), web=bench.rows("web"), log=bench.log, ids=bench.ids)
        found["at_s"] = [record.at_s for record in bench.records]
        found["failed"] = bench.telemetry.registry.get_sample_value("autoscaler_ticks_failed_total")

    run()
    return found


@pytest.fixture(scope="module")
def healthy():
    return api_rows(None)["api"]


@pytest.mark.parametrize("name", QUICK)
def test_a_bad_source_leaves_the_other_fleet_as_it_was_and_its_own_vms_too(name, healthy):
    source, words = QUICK[name]
    found = api_rows(source)
    assert found["failed"] == 0
    assert repr(found["api"]) == repr(healthy)
    assert max(row.in_service for row in found["api"]) == 5
    assert {row.in_service for row in found["web"][1:]} == {2}
    assert {(row.start, row.stop) for row in found["web"]} == {(0, 0)}
    assert all(words in row.source_error for row in found["web"][1:])
    if words:
        told = [facts["fleet"] for _, event, facts in found["log"].lines if event == "source_failed"]
        assert told.count("web") == 1


@pytest.mark.parametrize("never", [hang, deaf])
def test_a_source_that_hangs_costs_its_deadline_and_nothing_else(never, healthy):
    found = api_rows(lambda _: never())
    assert found["failed"] == 0
    (told,) = {row.source_error for row in found["web"]}
    assert told.startswith(
        "no answer within 5 s, the longest that a tick may read; check that what the source queries is running"
    )
    assert {row.in_service for row in found["web"][1:]} == {2}
    # The tick in which it began to hang was decided on 5 s later; all others were what they are without it, to the bit.
    for name in ("demand", "observed_at_s", "desired", "start", "stop", "warm_target", "sentence"):
        assert repr([getattr(r, name) for r in found["api"]]) == repr([getattr(r, name) for r in healthy])
    assert [now - then for now, then in zip(found["at_s"], at_s_of(None), strict=True)] == [5.0] + [0.0] * 24


def test_a_source_that_answers_in_time_again_is_waited_for_again():
    found = api_rows(Healing((1.0, 9.0, 9.0, 1.0, 1.0)))
    hangs = [row.source_error.startswith("no answer within 5 s") for row in found["web"]]
    # It hangs in the second tick; the third asks it in vain; in the fourth it answers, too late for that tick.
    assert hangs == [False, True, True, True] + [False] * 21
    late = [now - then for now, then in zip(found["at_s"], at_s_of(None), strict=True)]
    assert late[:7] == [1.0, 5.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_a_question_that_does_not_even_end_when_told_to_is_asked_anew_once_a_minute():
    asked = []

    def answer(vms):
        asked.append(vms)
        return deaf()

    assert all("no answer" in row.source_error for row in api_rows(answer)["web"])
    assert len(asked) == 5  # of 25 ticks of 10 s


class BadListing:
    """A separate provider whose listings come from a function."""

    def __init__(self, provider, answer):
        self.provider, self.answer = provider, answer

    def __getattr__(self, name):
        return getattr(self.provider, name)

    async def list_vms(self):
        given = self.answer(self.provider)
        return await given if asyncio.iscoroutine(given) else given


async def not_vms(provider):
    return replace(await provider.list_vms(), vms=("i-1",))


@pytest.mark.parametrize(
    "answer", [lambda _: None, raising(OSError("broken pipe")), not_vms], ids=["none", "raises", "not VMs"]
)
def test_a_bad_listing_of_one_account_is_a_failed_listing_of_its_fleets_only(answer, healthy):
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=4, running=2)
        bench.place("api", 8, running=1)
        bench.add(policy("web"), 200, provider=BadListing(bench.provider, answer))
        bench.add(policy("api"), DEMAND)
        await bench.run(240)
        found.update(api=bench.rows("api"), web=bench.rows("web"), log=bench.log, metrics=bench.telemetry)

    run()
    assert repr(found["api"]) == repr(healthy)
    assert {(r.in_service, r.stop) for r in found["web"]} == {(0, 0)}
    assert found["log"].events().count("listing_failed") == 1
    assert found["metrics"].registry.get_sample_value("autoscaler_listing_errors_total") == 25
    assert "tick_failed" not in found["log"].events()


class BadProbe:
    def __init__(self, answer):
        self.answer = answer

    async def ready(self, vms):
        given = self.answer(vms)
        return await given if asyncio.iscoroutine(given) else given


@pytest.mark.parametrize(
    "answer", [lambda _: None, raising(OSError("x")), lambda _: hang()], ids=["none", "raises", "hangs"]
)
def test_a_bad_probe_means_not_ready_for_its_own_fleet(answer):
    @virtual
    async def run():
        bench = Bench(vms=2, running=1)
        bench.place("api", 2, running=1)
        bench.add(policy("web"), 100, probe=BadProbe(answer))
        bench.add(policy("api"), 100)
        await bench.run(60)
        assert set(bench.column("in_service", "web")) == {0}
        assert set(bench.column("starting", "web")) == {1}
        assert set(bench.column("in_service", "api")) == {1}
        assert "tick_failed" not in bench.log.events()

    run()


DECIDED = ("demand", "observed_at_s", "desired", "wish", "start", "stop", "stages", "reasons", "sentence")


@pytest.mark.parametrize("never", [hang, deaf])
def test_a_listing_that_hangs_costs_its_deadline_and_nothing_else(never, healthy):
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=4, running=2)
        bench.place("api", 8, running=1)
        bench.add(policy("web"), 200, provider=BadListing(bench.provider, lambda _: never()))
        bench.add(policy("api"), DEMAND)
        await bench.run(240)
        found.update(api=bench.rows("api"), web=bench.rows("web"), log=bench.log)

    run()
    for name in DECIDED:
        assert repr([getattr(r, name) for r in found["api"]]) == repr([getattr(r, name) for r in healthy])
    assert {(r.in_service, r.start, r.stop) for r in found["web"]} == {(0, 0, 0)}
    assert "tick_failed" not in found["log"].events()


class BadCalls:
    """A provider whose starts and stops are answered by a function."""

    def __init__(self, provider, answer):
        self.provider, self.answer = provider, answer

    def __getattr__(self, name):
        return getattr(self.provider, name)

    async def start(self, vm_ids):
        given = self.answer(vm_ids)
        return await given if asyncio.iscoroutine(given) else given

    stop = start


CALLS = {
    "raises": raising(KeyError("Instances")),
    "raises words of ours": raising(ProviderError("no route", code="Unreachable")),
    "none": lambda _: None,
    "a number": lambda _: 7,
    "nothing": lambda _: (),
    "no outcomes": lambda ids: ids,
    "about others": lambda _: (Outcome("i-somebody", OutcomeKind.ACCEPTED),),
    "hangs": lambda _: hang(),
    "deaf": lambda _: deaf(),
}


def both_with_calls(answer):
    """Run both fleets with the same crowd. The calls of `web` may be answered by a function instead of the world."""
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=8, running=1, zones="a")
        bench.place("api", 8, running=1)
        bad = BadCalls(bench.provider, answer) if answer else None
        bench.add(policy("web"), DEMAND, provider=bad)
        bench.add(policy("api"), DEMAND)
        await bench.run(240)
        found.update(api=bench.rows("api"), web=bench.rows("web"), log=bench.log)

    run()
    return found


@pytest.fixture(scope="module")
def well_called():
    return both_with_calls(None)["api"]


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_of_one_fleet_change_no_decision_of_another(name, well_called):
    found = both_with_calls(CALLS[name])
    for column in DECIDED:
        told = [getattr(row, column) for row in found["api"]]
        assert repr(told) == repr([getattr(row, column) for row in well_called]), column
    assert max(row.in_service for row in found["api"]) == 5
    assert max(row.in_service for row in found["web"]) == 1
    assert "tick_failed" not in found["log"].events()
    assert "act_failed" not in found["log"].events()
