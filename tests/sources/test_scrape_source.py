"""Scraping over HTTP: good bodies, bad bodies, silence, counter resets."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from autoscaler.clock import SystemClock
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.exposition import Metric
from autoscaler.sources.fan_out import FanOut, Limits, summary
from autoscaler.sources.rate_window import RateWindow
from autoscaler.sources.scrape import MOST_LABELS, MetricType, ScrapeSource
from tests.sources.doubles import ManualClock, on, vm

LIMITS = Limits(timeout_s=1.0, deadline_s=10.0, at_once=8)
REQUESTS = Metric("requests_total", {"code": "200"})


@pytest.fixture(name="make")
async def _make(web, clock):
    made = []

    def make(metric, kind, signal=Signal.THROUGHPUT, url=None, limits=LIMITS, **more):
        made.append(ScrapeSource(url or web.url, metric, kind, signal, clock, limits, **more))
        return made[-1]

    yield make
    for source in made:
        await source.close()


async def test_a_gauge_is_read_as_it_is_and_matching_series_are_summed(web, clock, make):
    web.texts = {
        "a": '# HELP requests_total x\n# TYPE requests_total gauge\nrequests_total{code="200",zone="x"} 5\nrequests_total{code="200",zone="y"} 2.5\nrequests_total{code="500"} 100\n',
        "b": 'requests_total_other{code="200"} 9\nrequests_total{code="200"} 0\n',
    }
    found = await make(REQUESTS, MetricType.GAUGE).read(on("a", "b"))
    assert (found.vm_ids, found.values.tolist(), found.error) == (("i-a", "i-b"), [7.5, 0.0], "")
    assert found.observed_at_s.tolist() == [clock.at_s, clock.at_s]


async def test_the_exporters_own_stamp_counts_unless_it_is_in_the_future(web, clock, make):
    old, future = clock.at_s - 30.0, clock.at_s + 30.0
    web.texts = {"a": f"load 1 {old * 1000:.0f}\n", "b": f"load 1 {future * 1000:.0f}\n"}
    found = await make(Metric("load"), MetricType.GAUGE).read(on("a", "b"))
    assert found.observed_at_s.tolist() == [old, clock.at_s]


async def test_a_gauge_that_is_not_a_number_is_passed_on_as_such(web, make):
    web.texts = {"a": "load NaN\n", "b": "load +Inf\n"}
    found = await make(Metric("load"), MetricType.GAUGE).read(on("a", "b"))
    assert math.isnan(found.values[0])
    assert math.isinf(found.values[1])


@pytest.mark.parametrize("kind", [MetricType.GAUGE, MetricType.COUNTER])
async def test_a_vm_that_makes_up_labels_fails_alone_and_keeps_nothing(web, make, kind, clock):
    lines = [f'load{{path="/{at}",code="200"}} 1\n' for at in range(MOST_LABELS // 2 + 1)]
    web.texts = {"a": "".join(lines), "b": "".join(lines[1:])}
    source = make(Metric("load"), kind)
    for _ in range(2):
        clock.at_s += 10.0
        found = await source.read(on("a", "b"))
    assert found.vm_ids == ("i-b",)
    assert "has series with more than 20,000 labels in all" in found.error
    assert "select fewer by labels in `signal.scrape.metric`" in found.error
    assert "i-a" not in source._seen
    narrow = make(Metric("load", {"path": "/7"}), MetricType.GAUGE)
    assert (await narrow.read(on("a"))).values.tolist() == [1.0]


# ── Counters ────────────────────────────────────────────────────────────────────────────────────────────


class SetClock(ManualClock):
    """A clock that is set: its time of day is ahead of its monotonic time."""

    ahead_s = 0.0

    def now(self):
        return self.at_s + self.ahead_s


def counts(**by_vm):
    return {address: f'requests_total{{code="200"}} {value}\n' for address, value in by_vm.items()}


async def test_a_rate_takes_two_scrapes(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    web.texts = counts(a=1000, b=50)
    first = await source.read(on("a", "b"))
    assert (first.vm_ids, first.error) == ((), "")  # nothing has failed
    clock.at_s += 10.0
    web.texts = counts(a=1200, b=50)
    second = await source.read(on("a", "b"))
    assert (second.vm_ids, second.values.tolist(), second.error) == (("i-a", "i-b"), [20.0, 0.0], "")
    assert second.observed_at_s.tolist() == [clock.at_s, clock.at_s]


async def test_a_scrape_that_comes_at_once_repeats_the_rate_of_before(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER, window=RateWindow(5.0))
    web.texts = counts(a=1000)
    await source.read(on("a"))
    clock.at_s += 10.0
    web.texts = counts(a=1200)
    assert (await source.read(on("a"))).values.tolist() == [20.0]
    at_s = clock.at_s
    clock.at_s += 0.1
    web.texts = counts(a=1205)
    found = await source.read(on("a"))
    assert (found.values.tolist(), found.observed_at_s.tolist()) == ([20.0], [at_s])
    clock.at_s += 9.9
    web.texts = counts(a=1400)
    found = await source.read(on("a"))
    assert (found.values.tolist(), found.observed_at_s.tolist()) == ([20.0], [clock.at_s])


async def test_a_vm_whose_counters_began_anew_is_absent_once_because_a_rate_of_the_rest_would_be_near_zero(
    web, clock, make
):
    source = make(REQUESTS, MetricType.COUNTER)
    told = []
    for value in (1_000_000, 1_000_200, 30, 230, 0):
        web.texts = {"a": f'requests_total{{code="200"}} {value}\nrequests_total{{code="500"}} 3\n'}
        found = await source.read(on("a"))
        told.append((found.values.tolist(), found.error))
        clock.at_s += 10.0
    assert told == [([], ""), ([20.0], ""), ([], ""), ([20.0], ""), ([], "")]


async def test_a_counter_that_falls_again_and_again_is_told_of(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    for value in (50, 40):
        web.texts = counts(a=value)
        await source.read(on("a"))
        clock.at_s += 10.0
    web.texts = counts(a=30)
    found = await source.read(on("a"))
    assert found.error == (
        "1 of 1 gave no reading: its counters began anew (a rate takes two scrapes) at a; if that repeats, see why the exporter "
        "restarts; a value that may fall takes `type: gauge`"
    )


async def test_a_slow_answer_does_not_look_like_a_burst(web, clock, make):
    class Slow(dict):
        def __getitem__(self, address):
            clock.at_s += 4.0
            return super().__getitem__(address)

    source = make(REQUESTS, MetricType.COUNTER)
    web.texts = counts(a=0)
    await source.read(on("a"))
    clock.at_s += 10.0
    web.texts = Slow(counts(a=120))
    found = await source.read(on("a"))
    assert (found.values.tolist(), found.observed_at_s.tolist()) == ([10.0], [clock.at_s - 2.0])
    clock.at_s += 6.0
    web.texts = counts(a=200)
    assert (await source.read(on("a"))).values.tolist() == [10.0]


async def test_a_clock_that_is_set_changes_no_rate(web):
    clock = SetClock()
    source = ScrapeSource(web.url, REQUESTS, MetricType.COUNTER, Signal.THROUGHPUT, clock, LIMITS)
    told = []
    for value, ahead_s in ((0, 0.0), (100, 90.0), (200, 86.0), (300, -3600.0)):
        clock.ahead_s = ahead_s
        web.texts = counts(a=value)
        found = await source.read(on("a"))
        told += [*zip(found.values.tolist(), (found.observed_at_s - clock.now()).tolist(), strict=True)]
        clock.at_s += 10.0
    await source.close()
    assert told == [(10.0, 0.0)] * 3


async def test_a_reset_of_one_series_is_seen_although_the_sum_grows(web, clock, make):
    source = make(Metric("n"), MetricType.COUNTER)
    web.texts = {"a": 'n{x="1"} 100\nn{x="2"} 100\n'}
    await source.read(on("a"))
    clock.at_s += 10.0
    web.texts = {"a": 'n{x="1"} 1000\nn{x="2"} 10\nn{x="3"} 7777\n'}
    assert (await source.read(on("a"))).values.tolist() == [91.0]


async def test_a_new_vm_a_vm_that_left_and_one_that_failed(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    web.texts = counts(a=0, b=0)
    await source.read(on("a", "b"))
    clock.at_s += 10.0
    web.texts = counts(a=100, b=100, c=100)
    found = await source.read(on("a", "c"))
    assert (found.vm_ids, found.values.tolist(), found.error) == (("i-a",), [10.0], "")
    clock.at_s += 10.0
    web.texts = counts(b=500, c=300)
    found = await source.read(on("a", "b", "c"))
    assert (found.vm_ids, found.values.tolist()) == (("i-c",), [20.0])
    assert found.error.startswith("1 of 3 gave no reading: HTTP 500 at a; ")
    clock.at_s += 10.0
    web.texts = counts(a=700, b=500, c=300)
    found = await source.read(on("a", "b", "c"))
    assert (found.vm_ids, found.values.tolist()) == (("i-a", "i-b", "i-c"), [30.0, 0.0, 0.0])


async def test_a_vm_whose_counter_never_comes_to_a_rate_is_told_of_from_its_second_scrape_on(
    web, clock, make
):
    source = make(REQUESTS, MetricType.COUNTER)
    stamp_ms = clock.at_s * 1000
    web.texts = {"a": f'requests_total{{code="200"}} 5 {stamp_ms:.0f}\n'}
    told = []
    for _ in range(3):
        found = await source.read(on("a"))
        assert found.vm_ids == ()
        told.append(found.error)
        clock.at_s += 10.0
    assert told == ["", *["1 of 1 gave no reading: first scrape (a rate takes two) at a"] * 2]


async def test_where_all_others_fail_a_vm_that_begins_keeps_the_round_from_failing(web, make):
    web.texts = counts(b=5)
    found = await make(REQUESTS, MetricType.COUNTER).read(on("a", "b"))
    assert found.vm_ids == ()
    assert "HTTP 500 at a" in found.error


async def test_a_counter_seen_long_ago_is_forgotten(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    for value, expected in ((1000, ()), (50, ())):
        web.texts = counts(a=value)
        assert (await source.read(on("a"))).vm_ids == expected
        clock.at_s += RateWindow().longest_s + 1.0


def test_a_rate_takes_half_a_tick_at_least_and_survives_a_lost_reading():
    assert RateWindow.of_ticks(10.0) == RateWindow(5.0, RateWindow().longest_s)
    long = RateWindow.of_ticks(300.0)
    assert long.shortest_s == 150.0
    assert 2 * 300.0 < long.longest_s < 3 * 300.0


async def test_a_clock_set_back_starts_again_and_a_clock_that_stands_waits(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    web.texts = counts(a=100)
    await source.read(on("a"))
    with pytest.raises(SourceError, match="scraped twice at the same time"):
        await source.read(on("a"))
    clock.at_s -= 1000.0
    assert (await source.read(on("a"))).vm_ids == ()
    clock.at_s += 10.0
    web.texts = counts(a=200)
    assert (await source.read(on("a"))).values.tolist() == [10.0]


async def test_a_counter_that_is_not_a_number_is_invalid_and_then_starts_again(web, clock, make):
    source = make(REQUESTS, MetricType.COUNTER)
    for value in (100, "NaN", 200, 300):
        web.texts = counts(a=value)
        found = await source.read(on("a"))
        clock.at_s += 10.0
        if value == "NaN":
            assert np.isnan(found.values).tolist() == [True]
        else:
            assert found.values.tolist() == ([10.0] if value == 300 else [])


# ── CPU ─────────────────────────────────────────────────────────────────────────────────────────────────


def cpu(*idle_and_busy):
    return "".join(
        f'node_cpu_seconds_total{{cpu="{at}",mode="idle"}} {idle}\nnode_cpu_seconds_total{{cpu="{at}",mode="user"}} {busy}\n'
        for at, (idle, busy) in enumerate(idle_and_busy)
    )


async def test_cpu_is_the_share_of_time_not_idle_over_all_cpus(web, clock, make):
    source = make(None, MetricType.CPU, Signal.UTILISATION)
    web.texts = {"a": cpu((100, 10), (200, 20))}
    await source.read(on("a"))
    clock.at_s += 10.0
    web.texts = {"a": cpu((102, 18), (209, 21))}
    assert (await source.read(on("a"))).values.tolist() == pytest.approx([9 / 20])


async def test_cpu_counters_that_begin_again_or_stand_still_give_nothing(web, clock, make):
    source = make(None, MetricType.CPU, Signal.UTILISATION)
    web.texts = {"a": cpu((100, 10))}
    await source.read(on("a"))
    clock.at_s += 10.0
    web.texts = {"a": cpu((1, 1))}
    assert (await source.read(on("a"))).vm_ids == ()
    clock.at_s += 10.0
    with pytest.raises(SourceError, match="CPU counters stand still"):
        await source.read(on("a"))


async def test_counters_under_other_labels_are_read_for_the_first_time(web, clock, make):
    """An exporter of another version; a rate of zero would take the VM for idle."""
    for kind, signal, before, now in (
        (MetricType.CPU, Signal.UTILISATION, cpu((9, 9)), cpu((9, 9)).replace("cpu=", "core=")),
        (
            MetricType.COUNTER,
            Signal.THROUGHPUT,
            'requests_total{code="200"} 0\n',
            'requests_total{code="200",zone="x"} 50\n',
        ),
    ):
        source = make(None if kind is MetricType.CPU else REQUESTS, kind, signal)
        for text in (before, now):
            web.texts = {"a": text}
            found = await source.read(on("a"))
            assert found.vm_ids == ()
            clock.at_s += 10.0


# ── Bad days ────────────────────────────────────────────────────────────────────────────────────────────

BAD = {
    "html": ("no metric requests_total (a web page came)", "not a page of metrics"),
    "garbage": ("no metric requests_total", "fix `signal.scrape.metric`"),
    "huge": ("answer larger than 4 MiB", "ask for less"),
    "bomb": ("answer larger than 4 MiB", "ask for less"),
    "broken-gzip": ("broken answer", "check with curl: the answer"),
    "cut": ("broken answer", "check with curl: the answer"),
    "hang": ("no answer within 1 s", "allow more by `signal.scrape.timeout`"),
    "moved": ("HTTP 302", "write the final address"),
    "error": ("HTTP 500", "its own log"),
}


@pytest.mark.parametrize("address", BAD)
async def test_a_bad_vm_is_absent_and_named_and_the_others_are_read(web, make, address):
    web.texts = {"ok": 'requests_total{code="200"} 3\n'}
    found = await make(REQUESTS, MetricType.GAUGE).read(on(address, "ok"))
    assert (found.vm_ids, found.values.tolist()) == (("i-ok",), [3.0])
    trouble, remedy = BAD[address]
    assert found.error.startswith(f"1 of 2 gave no reading: {trouble}")
    said, _, advice = found.error.partition("; ")
    assert said.endswith(f" at {address}")
    assert remedy in advice


@pytest.mark.parametrize("address", BAD)
async def test_nothing_at_all_is_an_error_that_may_heal(make, address):
    with pytest.raises(SourceError, match="1 of 1 gave no reading") as failed:
        await make(REQUESTS, MetricType.GAUGE).read(on(address))
    assert failed.value.retryable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no metric load at a; .* renamed"),
        ("# TYPE load gauge\n", "no metric load at a; .* renamed"),
        ("load_average 1\n", "no metric load at a; .* renamed"),
        ("load\n", "no metric load at a; .* renamed"),
        ("load one\n", "metric load cannot be read at a; .* not Prometheus text"),
        ('load{a="b} 1\n', "metric load cannot be read at a; .* not Prometheus text"),
        ('load{x="other"} 1\n', "metric load has no series with these labels at a; .* fix the labels"),
        ("load 1_000\n", "metric load cannot be read at a; .* not Prometheus text"),
    ],
)
async def test_bodies_without_a_readable_value(web, make, text, message):
    web.texts = {"a": text}
    with pytest.raises(SourceError, match=message):
        await make(Metric("load", {"x": "y"} if "other" in text else {}), MetricType.GAUGE).read(on("a"))


async def test_refused_connections_and_vms_without_an_address(web, make, unused_tcp_port):
    source = make(Metric("load"), MetricType.GAUGE, url="http://{address}/metrics")
    with pytest.raises(SourceError) as failed:
        await source.read(
            [
                vm("i-1", f"127.0.0.1:{unused_tcp_port}"),
                vm("i-2", None),
                vm("i-3", "::bad::"),
                vm("i-4", "a b"),
            ]
        )
    text = str(failed.value)
    assert text.startswith("4 of 4 gave no reading")
    assert f"connection refused at 127.0.0.1:{unused_tcp_port}" in text
    assert "no address at i-2" in text
    assert text.endswith("`signal.scrape.url` says where")


async def test_a_round_ends_at_its_deadline_whatever_hangs(web, make):
    web.texts = {"ok": "load 1\n"}
    limits = Limits(timeout_s=20.0, deadline_s=1.0, at_once=2)
    started_s = SystemClock().monotonic()
    found = await make(Metric("load"), MetricType.GAUGE, limits=limits).read(
        on("ok", *(f"hang{n}" for n in range(20)))
    )
    assert SystemClock().monotonic() - started_s < 15.0
    assert found.vm_ids == ("i-ok",)
    assert "20 of 21 gave no reading: no answer when the round ended after 1 s" in found.error
    assert len(web.seen) <= 4


async def test_so_many_at_once_and_no_more(web, make):
    web.texts = {f"vm{n}": "load 1\n" for n in range(60)}
    found = await make(Metric("load"), MetricType.GAUGE).read(on(*web.texts))
    assert len(found.vm_ids) == 60
    assert 2 <= web.most_under_way <= LIMITS.at_once


async def test_a_total_is_one_reading_from_one_place(web, make):
    web.texts = {"balancer": "load 77\n"}
    source = make(
        Metric("load"), MetricType.GAUGE, Signal.TOTAL, url=web.url.replace("{address}", "balancer")
    )
    for vms in ([], on("a", "b")):
        found = await source.read(vms)
        assert (found.vm_ids, found.values.tolist()) == (("",), [77.0])
    assert web.seen == ["balancer", "balancer"]


async def test_what_follows_the_path_may_be_a_key_and_is_not_told(web, make):
    url = web.url.replace("{address}", "error")
    source = make(Metric("load"), MetricType.GAUGE, Signal.TOTAL, url=f"{url}?key=s3cret")
    with pytest.raises(SourceError, match="HTTP 500 at http") as failed:
        await source.read([])
    assert "s3cret" not in str(failed.value)


async def test_a_metric_must_be_named(web, clock):
    with pytest.raises(SourceError, match="needs the name of a metric"):
        ScrapeSource(web.url, None, MetricType.GAUGE, Signal.THROUGHPUT, clock)


async def test_a_cancelled_round_leaves_nothing_behind(web):
    fan_out = FanOut(Limits(timeout_s=20.0, deadline_s=20.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await fan_out.get_all({"a": web.url.replace("{address}", "hang")}, len)
    await fan_out.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "_get" in repr(task.get_coro())]


def test_a_summary_names_each_reason_once():
    assert summary({}, 3) == ""
    assert summary({"a": "x", "b": "y", "c": "y"}, 20) == "3 of 20 gave no reading: y at b and 1 more; x at a"
    many = {f"vm{n}": f"reason {n}" for n in range(9)}
    assert summary(many, 9).endswith("; 5 other reasons")
