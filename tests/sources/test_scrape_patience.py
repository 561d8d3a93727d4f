"""Scraping over time: VMs that fail repeatedly, timestamps that stand still, counters that go back a little."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources import fan_out
from autoscaler.sources.exposition import Metric, Series, parse
from autoscaler.sources.fan_out import FanOut, Limits, UnreadableBodyError
from autoscaler.sources.scrape import MetricType, ScrapeSource
from tests.sources.doubles import on

LIMITS = Limits(timeout_s=1.0, deadline_s=10.0, at_once=8)


@pytest.fixture(name="make")
async def _make(web, clock):
    made = []

    def make(metric, kind, signal=Signal.THROUGHPUT):
        url = web.url if signal is not Signal.TOTAL else web.url.replace("{address}", "balancer")
        made.append(ScrapeSource(url, metric, kind, signal, clock, LIMITS))
        return made[-1]

    yield make
    for source in made:
        await source.close()


async def rounds(source, clock, vms, number, every_s=10.0):
    found = []
    for _ in range(number):
        clock.at_s += every_s
        found.append(await source.read(vms))
    return found


# ── Back-off ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_vm_that_fails_again_and_again_is_asked_less_often_and_says_why_all_the_same(
    web, clock, make
):
    web.texts = {"a": "load 1\n", "b": "load 1\n"}
    source = make(Metric("load"), MetricType.GAUGE)
    found = await rounds(source, clock, on("a", "b", "bad"), 30)
    assert {one.error for one in found} == {"1 of 3 gave no reading: HTTP 500 at bad; its own log says why"}
    assert web.seen.count("a") == 30
    # Three failures in a row, then pauses of 15, 30, 60, 60, … s, each until the next round after it.
    assert 8 <= web.seen.count("bad") <= 9

    web.texts["bad"] = "load 5\n"
    found = await rounds(source, clock, on("a", "b", "bad"), 7)
    assert [one.values.tolist() for one in found][-1] == [1.0, 1.0, 5.0]
    del web.texts["bad"]
    web.seen.clear()
    await rounds(source, clock, on("a", "b", "bad"), 3)
    assert web.seen.count("bad") == 3  # a success resets the count of failures


async def test_where_most_fail_nobody_is_left_alone(web, clock, make):
    web.texts = {"a": "load 1\n"}
    source = make(Metric("load"), MetricType.GAUGE)
    await rounds(source, clock, on("a", "bad1", "bad2"), 12)
    assert web.seen.count("bad1") == web.seen.count("bad2") == 12
    total = make(Metric("load"), MetricType.GAUGE, Signal.TOTAL)
    for _ in range(6):
        clock.at_s += 10.0
        with pytest.raises(SourceError):
            await total.read(())
    assert web.seen.count("balancer") == 6


async def test_a_vm_that_left_and_came_back_is_asked_at_once(web, clock, make):
    web.texts = {"a": "load 1\n", "b": "load 1\n"}
    source = make(Metric("load"), MetricType.GAUGE)
    await rounds(source, clock, on("a", "b", "bad"), 4)
    await rounds(source, clock, on("a", "b"), 1)
    before = web.seen.count("bad")
    await rounds(source, clock, on("a", "b", "bad"), 1)
    assert web.seen.count("bad") == before + 1


# ── Stamps and counters ─────────────────────────────────────────────────────────────────────────────────


async def test_a_counter_whose_stamp_stands_still_keeps_its_rate_at_its_time_and_is_no_zero(web, clock, make):
    source = make(Metric("n"), MetricType.COUNTER)
    begin_s, found = clock.at_s, []
    for stamp_s, count in ((0, 0), (60, 600), (60, 600), (60, 600), (120, 1800)):
        clock.at_s += 30.0
        web.texts = {"a": f"n {count} {(begin_s + stamp_s - 60) * 1000:.0f}\n"}
        found.append(await source.read(on("a")))
    assert (found[0].vm_ids, found[0].error) == ((), "")
    assert [(one.values.tolist(), (one.observed_at_s - begin_s).tolist()) for one in found[1:]] == [
        ([10.0], [0.0]), ([10.0], [0.0]), ([10.0], [0.0]), ([20.0], [60.0]),
    ]  # fmt: skip


async def test_time_waited_for_io_may_go_back_a_little(web, clock, make):
    def cpu(idle, iowait, user):
        modes = {"idle": idle, "iowait": iowait, "user": user}
        return "".join(f'node_cpu_seconds_total{{cpu="0",mode="{m}"}} {v}\n' for m, v in modes.items())

    source = make(None, MetricType.CPU, Signal.UTILISATION)
    shown = [(100, 10.0, 50), (106, 9.9, 54), (1, 0, 1), (7, 0, 5)]
    found = []
    for values in shown:
        clock.at_s += 10.0
        web.texts = {"a": cpu(*values)}
        found.append(await source.read(on("a")))
    assert found[1].values.tolist() == [pytest.approx(0.4)]
    assert (found[2].vm_ids, found[2].error) == ((), "")
    assert found[3].values.tolist() == [pytest.approx(0.4)]


# ── Connections ─────────────────────────────────────────────────────────────────────────────────────────


async def test_connections_are_kept_unless_there_are_more_than_files(web, monkeypatch):
    made = FanOut(LIMITS)
    web.texts = {f"v{n}": "load 1\n" for n in range(4)}
    urls = {address: web.url.replace("{address}", address) for address in web.texts}
    try:
        for most, keeps in ((4, True), (3, False), (4, True)):
            monkeypatch.setattr(fan_out, "_most_kept", lambda most=most: most)
            answers = await made.get_all(urls, len)
            assert all(not answer.error for answer in answers.values())
            assert made._session.connector.force_close is not keeps
    finally:
        await made.close()


# ── Text ────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True), st.text(max_size=6), max_size=3
)


def escaped(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@given(
    lines=st.lists(
        st.tuples(NAMES, LABELS, st.floats(), st.none() | st.integers(0, 2**43)), min_size=1, max_size=8
    ),
    spaces=st.sampled_from([" ", "  ", "\t"]),
)
def test_every_line_is_read_as_it_was_written(lines, spaces):
    text, expected = "# HELP x y\n", {}
    for name, labels, value, stamp in lines:
        inner = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
        shown = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else repr(value))
        text += f"{name}{{{inner}}}{spaces}{shown}" + (f" {stamp}" if stamp is not None else "") + "\n"
        stamp_s = None if stamp is None else stamp / 1000
        expected.setdefault(name, []).append(Series(frozenset(labels.items()), value, stamp_s))
    for name, series in expected.items():
        found = parse(text.encode("utf-8", "surrogatepass"), Metric(name))
        assert [repr(one) for one in found] == [repr(one) for one in series]
    with pytest.raises(UnreadableBodyError):
        parse(text.encode("utf-8", "surrogatepass"), Metric("absent_from_all_of_it"))


# ── Rounds that are too short ───────────────────────────────────────────────────────────────────────────


async def test_vms_that_a_round_did_not_come_to_keep_their_reading_and_come_first_in_the_next(web, clock):
    limits = Limits(timeout_s=15.0, deadline_s=3.0, at_once=1)
    source = ScrapeSource(web.url, Metric("load"), MetricType.GAUGE, Signal.THROUGHPUT, clock, limits)
    first = [f"a{n}" for n in range(10)]
    web.texts = dict.fromkeys(first, "load 1\n")
    try:
        (found,) = await rounds(source, clock, on(*first), 1)
        assert (len(found.vm_ids), found.error) == (10, "")
        then_s = clock.at_s
        del web.texts["a3"]
        (found,) = await rounds(source, clock, on("a0", "a1", "a2", "hang", *first[4:]), 1)
        assert found.error.startswith("the round ended before all VMs were reached")
        assert found.error.endswith(
            "1 of 10 gave no reading: no answer when the round ended after 3 s at hang"
        )
        ages = dict(zip(found.vm_ids, (clock.at_s - found.observed_at_s).tolist(), strict=True))
        assert {ages[f"i-a{n}"] for n in (0, 1, 2)} == {0.0}
        assert {ages[f"i-a{n}"] for n in range(4, 10)} == {clock.at_s - then_s}
        web.seen.clear()
        await rounds(source, clock, on("a0", "a1", "a2", *first[4:]), 1)
        assert web.seen == [*first[4:], "a0", "a1", "a2"]
    finally:
        await source.close()
