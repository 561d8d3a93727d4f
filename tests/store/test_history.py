"""The past as the status page gets it: thinned out, complete if short, with a bounded wait."""

import asyncio
import math
import threading

import pytest

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import JournalError
from autoscaler.ports import Note
from autoscaler.store.history import MOST_ASKED, MOST_EVENTS, NUMBERS, JournalHistory
from autoscaler.store.journal import SqliteJournal
from autoscaler.web.pages import hours_in
from autoscaler.web.site import Site
from tests.cli.conftest import strict_json
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy
from tests.web.test_web_site import SetClock, asked


@pytest.fixture(name="bench")
def _bench(tmp_path):
    bench = Bench(vms=4, running=2, clock=SetClock())
    bench.journal = SqliteJournal(tmp_path)
    bench.add(policy("web"), 150.0)
    bench.add(policy("api"), 50.0)
    return bench


@pytest.fixture(name="lived")
async def _lived(bench, tmp_path):
    """Twenty ticks of ten seconds."""
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    for tick in range(20):
        bench.clock.at_s = 10.0 * tick
        await daemon.tick(TICK_0 + tick)
    await bench.journal.record_events(ORIGIN_S + 1.0, [Note("first", "web", "of web")])
    await bench.journal.record_events(ORIGIN_S + 2.0, [Note("second", "", "of all")])
    await bench.journal.record_events(ORIGIN_S + 3.0, [Note("third", "api", "of api")])
    yield daemon
    await bench.journal.close()


@pytest.fixture(name="history")
def _history(tmp_path):
    history = JournalHistory(tmp_path)
    yield history
    history.close()


async def test_a_short_past_is_told_whole(lived, history):
    told = await history.ticks("web", ORIGIN_S + 190.0, 1.0)
    assert (told["fleet"], told["every"]) == ("web", 1)
    assert told["at_s"] == [ORIGIN_S + 10.0 * tick for tick in range(20)]
    assert {len(told[name]) for name in NUMBERS} == {20}
    assert told["demand"][-1] == pytest.approx(150.0)
    assert (await history.ticks("web", ORIGIN_S + 190.0, 100.0 / 3600.0))["at_s"][0] == ORIGIN_S + 90.0


async def test_a_long_past_is_thinned_back_from_now(lived, history, monkeypatch):
    monkeypatch.setattr("autoscaler.store.history.MOST_TICKS", 7)
    told = await history.ticks("web", ORIGIN_S + 190.0, 1.0)
    assert told["every"] == 3
    assert told["at_s"] == [ORIGIN_S + 10.0 * tick for tick in range(1, 20, 3)]


async def test_what_is_not_known_is_null(bench, lived, history):
    bench.setups[0].source.demand = math.nan
    bench.clock.at_s = 200.0
    await lived.tick(TICK_0 + 20)
    told = await history.ticks("web", ORIGIN_S + 200.0, 1.0)
    assert told["demand"][-1] is None
    assert told["in_service"][-1] == 2


async def test_events_are_of_the_fleet_and_of_no_single_one_newest_first(lived, history):
    told = [
        each["kind"] for each in await history.events("web") if each["kind"] in ("first", "second", "third")
    ]
    assert told == ["second", "first"]
    everything = await history.events(None)
    assert [each["kind"] for each in everything][:3] == ["third", "second", "first"]
    assert everything[1]["fleet"] is None
    for number in range(MOST_EVENTS):
        await lived.recorder.event("more", f"event {number}", ORIGIN_S + 300.0)
    assert len(await history.events("web")) == MOST_EVENTS


async def test_where_a_reading_hangs_others_are_sent_away(lived, tmp_path):
    history, gate = JournalHistory(tmp_path, within_s=0.05), threading.Event()
    try:
        history._thread.submit(gate.wait)
        for _ in range(MOST_ASKED):
            with pytest.raises(JournalError, match="ask again later"):
                await history.events(None)
        # These are refused at once: nobody waits for those that wait.
        await asyncio.wait_for(_refused(history), 5.0)
        gate.set()
        await asyncio.wrap_future(history._thread.submit(lambda: None))
        assert await history.events(None)
    finally:
        gate.set()
        history.close()


async def _refused(history):
    with pytest.raises(JournalError, match="ask again later"):
        await history.events(None)


async def test_the_site_answers_in_json_whatever_is_asked(lived, tmp_path):
    async with Site(lived, "127.0.0.1", 0, history=JournalHistory(tmp_path)) as site:
        code, text = await asked(f"{site.url}/api/v1/history?fleet=web&hours=1")
        assert (code, len(strict_json(text)["at_s"])) == (200, 20)
        code, text = await asked(f"{site.url}/api/v1/history?fleet=nobody")
        assert (code, strict_json(text)["error"]) == (
            404,
            "there is no fleet 'nobody'; name one as fleet=NAME",
        )
        for hours in ("0", "-1", "nan", "inf", "169", "x", ""):
            code, text = await asked(f"{site.url}/api/v1/history?fleet=web&hours={hours}")
            assert (code, "hours=6" in strict_json(text)["error"]) == (400, True), hours
        code, text = await asked(f"{site.url}/api/v1/events")
        assert (code, strict_json(text)["events"][0]["kind"]) == (200, "third")
    async with Site(lived, "127.0.0.1", 0) as site:
        assert (await asked(f"{site.url}/api/v1/events"))[0] == 404
    async with Site(lived, "127.0.0.1", 0, history=JournalHistory(tmp_path / "nothing")) as site:
        code, text = await asked(f"{site.url}/api/v1/events")
        assert (code, "journal" in strict_json(text)["error"]) == (503, True)


@pytest.mark.parametrize(("text", "hours"), [("6", 6.0), ("0.5", 0.5), ("168", 168.0), ("1e999", None)])
def test_hours_are_read(text, hours):
    assert hours_in(text) == hours
