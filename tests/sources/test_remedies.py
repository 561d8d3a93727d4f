"""Each reason for a missing reading has its remedy, and reasons that pass by themselves have none.

The reasons come from real scrapes of VMs that misbehave.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.exposition import Metric
from autoscaler.sources.fan_out import Limits
from autoscaler.sources.remedies import REMEDIES, remedy
from autoscaler.sources.scrape import MetricType, ScrapeSource
from tests.sources.doubles import ManualClock, VmsOverHttp, vm

LOAD, CODED, CPU = Metric("load"), Metric("load", {"code": "200"}), None
LIMITS = Limits(timeout_s=1.0, deadline_s=10.0)
GONE = "127.0.0.1:1"
"""An address at which nothing listens."""


@dataclass(frozen=True)
class Scrape:
    """A VM that is scraped in rounds, and the advice after the last one.

    Attributes:
        advice: The remedy; empty if there is none.
        address: Address of the VM, whose name decides its behaviour; see `VmsOverHttp`.
        texts: Bodies to answer with instead, round by round.
        metric: The metric to read; None for CPU use.
        direct: Whether the address is a host of its own.
        limits: Bounds of a round.
        seconds: Time between two rounds.
    """

    advice: str
    address: str | None = "a"
    texts: tuple[str, ...] = ()
    metric: Metric | None = field(default_factory=lambda: LOAD)
    counter: bool = False
    direct: bool = False
    limits: Limits = LIMITS
    seconds: float = 10.0


def cpu(idle, user):
    return f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {idle}\nnode_cpu_seconds_total{{cpu="0",mode="user"}} {user}\n'


BUSY = 'node_cpu_seconds_total{{cpu="0",mode="user"}} {}\n'
REASONS = {
    "first scrape (a rate takes two)": Scrape("", texts=("load 1 1000\n",) * 2, counter=True),
    "its counters began anew (a rate takes two scrapes)": Scrape(
        "why the exporter restarts", texts=(cpu(500, 100), cpu(100, 10), cpu(1, 1)), metric=CPU
    ),
    "scraped twice at the same time": Scrape("", texts=("load 1\n",) * 2, counter=True, seconds=0.0),
    "no answer when the round ended after 0.2 s": Scrape(
        "", "hang", limits=Limits(timeout_s=5.0, deadline_s=0.2)
    ),
    "no address": Scrape("once it runs", None),
    "no answer within 0.2 s": Scrape("`signal.scrape.timeout`", "hang", limits=Limits(timeout_s=0.2)),
    "HTTP 401": Scrape("no credentials", "status401"),
    "HTTP 403": Scrape("no credentials", "status403"),
    "HTTP 407": Scrape("no credentials", "status407"),
    "HTTP 404": Scrape("the path of `signal.scrape.url`", "status404"),
    "HTTP 302": Scrape("write the final address", "moved"),
    "HTTP 503": Scrape("its own log", "status503"),
    "not a URL": Scrape("fix `signal.scrape.url`", "[::1", direct=True),
    "broken answer": Scrape("check with curl: the answer ends", "cut"),
    "answer larger than 1 MiB": Scrape(
        "ask for less", "huge", limits=Limits(timeout_s=9.0, deadline_s=10.0, max_bytes=1 << 20)
    ),
    "no metric load (a web page came)": Scrape("not a page of metrics", "html"),
    "no metric load": Scrape("renamed", texts=("other 1\n",)),
    "metric load has no series with these labels": Scrape(
        "fix the labels", texts=("load 1\n",), metric=CODED
    ),
    "metric load has series with more than 20,000 labels in all": Scrape(
        "select fewer", texts=('load{a="1",b="2"} 1\n' * 10_001,)
    ),
    "metric load cannot be read": Scrape("not Prometheus text", texts=("load one\n",)),
    "numbers too large to add up": Scrape(
        "not counts of work", texts=('load{x="1"} 1e308\nload{x="2"} 1e308\n',)
    ),
    "CPU counters stand still": Scrape("node_exporter", texts=(cpu(5, 1),) * 2, metric=CPU),
    "CPU counters without idle time": Scrape(
        "node_exporter", texts=(BUSY.format(1), BUSY.format(2)), metric=CPU
    ),
    "connection refused": Scrape("does an exporter listen there", GONE, direct=True),
}


async def complaint(case: Scrape) -> str:
    clock = ManualClock()
    async with VmsOverHttp() as web:
        kind = (
            MetricType.CPU if case.metric is CPU else MetricType.COUNTER if case.counter else MetricType.GAUGE
        )
        url = "http://{address}/metrics" if case.direct else web.url
        source = ScrapeSource(url, case.metric, kind, Signal.THROUGHPUT, clock, case.limits)
        said = ""
        for text in case.texts or (None,):
            if text is not None:
                web.texts = {"a": text}
            try:
                said = (await source.read([vm("i-1", case.address)])).error
            except SourceError as error:
                said = str(error)
            clock.at_s += case.seconds
        await source.close()
    return said


@pytest.mark.parametrize("reason", REASONS)
async def test_what_is_said_and_what_to_do(reason):
    case = REASONS[reason]
    said = await complaint(case)
    assert f"1 of 1 gave no reading: {reason}" in said
    assert case.advice == remedy({"a": reason}) == "" or said.endswith(f"; {remedy({'a': reason})}")
    assert case.advice in remedy({"a": reason})


def test_each_remedy_is_for_a_reason_that_is_really_told():
    used = [next(fits for fits, _ in REMEDIES if fits.match(reason)) for reason in REASONS]
    assert set(used) == {fits for fits, _ in REMEDIES}


def test_most_vms_come_first_and_what_heals_is_passed_over():
    errors = {"a": "HTTP 404", "b": "connection refused", "c": "connection refused", "d": "first scrape"}
    assert "listen there" in remedy(errors)
    assert "its own log" in remedy({"a": "first scrape", "b": "first scrape", "c": "HTTP 500"})
    assert remedy({}) == ""
