"""What every MetricSource promises, tested on each of them.

One harness per source: it makes a source for a fleet of any VMs, can let time pass so that a reading exists, and can
make whatever the source reads fail.
"""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import FleetReadings
from autoscaler.ports.pushing import Intake, PushedSample
from autoscaler.sources.cloudwatch import CloudWatchSource, Unit
from autoscaler.sources.cloudwatch import Metric as CloudWatchMetric
from autoscaler.sources.cloudwatch_reader import CloudWatchReader, MetricQuery
from autoscaler.sources.exposition import Metric
from autoscaler.sources.fan_out import Limits
from autoscaler.sources.prometheus import PrometheusPool, PrometheusSource
from autoscaler.sources.prometheus_access import Address
from autoscaler.sources.prometheus_history import Past
from autoscaler.sources.push import PushedSamples
from autoscaler.sources.scrape import MetricType, ScrapeSource
from autoscaler.sources.trace import TraceSource
from autoscaler.traces.trace import Trace, TraceKind
from tests.sources.cloudwatch_stub import CloudWatchStub
from tests.sources.doubles import ManualClock, VmsOverHttp, vm
from tests.sources.prometheus_double import PrometheusOverHttp

SIGNALS = [Signal.THROUGHPUT, Signal.UTILISATION, Signal.TOTAL]


class TraceHarness:
    """A minute of work, a minute of silence, then a gap."""

    def __init__(self, signal):
        self.clock = ManualClock(1_000_000.0)
        stamps = 1_000_000.0 + np.array([0.0, 60.0, 600.0])
        trace = Trace.build(stamps, [600.0, 0.0, 600.0], kind=TraceKind.COUNT, interval_s=60.0)
        self.source = TraceSource(trace, self.clock, signal, 100.0)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.source.close()

    async def work(self, vms):
        self.clock.at_s = 1_000_060.0

    async def idle(self, vms):
        self.clock.at_s = 1_000_120.0

    async def fail(self):
        self.clock.at_s = 1_000_400.0


class ScrapeHarness:
    """VMs over HTTP that expose a gauge or a counter."""

    def __init__(self, signal, metric_type):
        self.clock = ManualClock()
        self.web = VmsOverHttp()
        self.signal = signal
        self.metric_type = metric_type
        self.count = 0

    async def __aenter__(self):
        await self.web.__aenter__()
        url = self.web.url.replace("{address}", "balancer") if self.signal is Signal.TOTAL else self.web.url
        limits = Limits(timeout_s=2.0, deadline_s=4.0)
        self.source = ScrapeSource(url, Metric("work"), self.metric_type, self.signal, self.clock, limits)
        return self

    async def __aexit__(self, *_):
        await self.source.close()
        await self.web.__aexit__()

    async def work(self, vms):
        await self._show(vms, 10)

    async def idle(self, vms):
        await self._show(vms, 0)

    async def fail(self):
        self.web.texts = {}

    async def _show(self, vms, rate):
        addresses = [*(one.address for one in vms), "balancer"]
        self.web.texts = dict.fromkeys(
            addresses, f"work {rate if self.metric_type is MetricType.GAUGE else self.count}\n"
        )
        if self.metric_type is MetricType.COUNTER:
            self.clock.at_s += 10.0
            await self.source.read(vms)
            self.clock.at_s += 10.0
            self.count += 10 * rate
            self.web.texts = dict.fromkeys(addresses, f"work {self.count}\n")


class PrometheusHarness:
    """A Prometheus over HTTP, one series per VM or one for the fleet."""

    QUERY = "rate(work[1m])"

    def __init__(self, signal):
        self.clock = ManualClock()
        self.web = PrometheusOverHttp(self.clock)
        self.signal = signal

    async def __aenter__(self):
        await self.web.__aenter__()
        queries = PrometheusPool(self.clock).at(Address(self.web.url, timeout_s=2.0))
        self.source = PrometheusSource(queries, Past(self.QUERY, self.signal), self.clock)
        return self

    async def __aexit__(self, *_):
        await self.source.close()
        await self.web.__aexit__()

    async def work(self, vms):
        self._show(vms, 10)

    async def idle(self, vms):
        self._show(vms, 0)

    async def fail(self):
        self.clock.at_s += 10.0
        self.web.vectors = {}

    def _show(self, vms, rate):
        self.clock.at_s += 10.0
        by_vm = [({"instance": f"{one.address}:9100"}, rate) for one in vms]
        self.web.vectors = {self.QUERY: [({}, rate)] if self.signal is Signal.TOTAL else by_vm}


class PushHarness:
    """A sender that pushes for every VM, or for the fleet."""

    def __init__(self, signal):
        self.clock = ManualClock()
        self.pushed = PushedSamples(self.clock)
        self.total = signal is Signal.TOTAL
        self.source = self.pushed.source(Intake("web", signal, 30.0))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.source.close()

    async def work(self, vms):
        self._push(vms, 0.5)

    async def idle(self, vms):
        self._push(vms, 0.0)

    async def fail(self):
        self.clock.at_s += 400.0

    def _push(self, vms, value):
        self.clock.at_s += 1.0
        names = ("",) if self.total else [one.id for one in vms]
        self.pushed.take([PushedSample("web", name, value, self.clock.at_s) for name in names], {"web"})


class CloudWatchHarness:
    """A metric per VM, or for the fleet, that is known two minutes late."""

    def __init__(self, signal):
        self.clock = ManualClock(1_000_020.0)
        self.stub = CloudWatchStub()
        self.signal = signal
        dimensions = (("Fleet", "web"),) if signal is Signal.TOTAL else (("InstanceId", "{vm}"),)
        self.metric = CloudWatchMetric(
            MetricQuery("Own", "work", dimensions, "Average", 60), Unit.GAUGE, 120.0
        )

    async def __aenter__(self):
        await self.stub.__aenter__()
        reader = CloudWatchReader(self.stub.client(attempts=1), self.clock)
        self.source = CloudWatchSource(self.metric, self.signal, reader, self.clock)
        return self

    async def __aexit__(self, *_):
        await self.source.close()
        await self.stub.__aexit__()

    async def work(self, vms):
        self._show(vms, 0.5)

    async def idle(self, vms):
        self._show(vms, 0.0)

    async def fail(self):
        self.clock.at_s += 600.0
        self.stub.script = [(400, "Throttling", "Rate exceeded")]

    def _show(self, vms, value):
        self.clock.at_s += 60.0
        self.stub.script = []
        for each in ["web", *(one.id for one in vms)]:
            self.stub.put(("Own", "work"), {self.clock.at_s - 180.0: value}, each)


HARNESSES = {
    "push": PushHarness,
    "cloudwatch": CloudWatchHarness,
    "prometheus": PrometheusHarness,
    "trace": TraceHarness,
    "scrape-gauge": lambda signal: ScrapeHarness(signal, MetricType.GAUGE),
    "scrape-counter": lambda signal: ScrapeHarness(signal, MetricType.COUNTER),
}


@pytest.fixture(
    name="harness",
    params=[(name, signal) for name in HARNESSES for signal in SIGNALS],
    ids=lambda p: f"{p[0]}-{p[1].name.lower()}",
)
async def _harness(request):
    name, signal = request.param
    async with HARNESSES[name](signal) as harness:
        harness.signal = signal
        yield harness


VMS = [vm(f"i-{number}", f"vm{number}") for number in range(5)]


def check_shape(found: FleetReadings, vms, now_s):
    assert isinstance(found, FleetReadings)
    assert found.values.dtype == found.observed_at_s.dtype == np.float64
    assert found.values.shape == found.observed_at_s.shape == (len(found.vm_ids),)
    assert len(set(found.vm_ids)) == len(found.vm_ids)
    assert set(found.vm_ids) <= {one.id for one in vms} | {""}
    assert (found.observed_at_s <= now_s).all()


async def test_one_reading_per_vm_or_one_for_the_fleet(harness):
    await harness.work(VMS)
    found = await harness.source.read(VMS)
    check_shape(found, VMS, harness.clock.at_s)
    expected = ("",) if harness.signal is Signal.TOTAL else tuple(one.id for one in VMS)
    assert (found.vm_ids, found.error) == (expected, "")
    assert (found.values > 0).all()


async def test_a_measured_zero_is_a_reading(harness):
    await harness.idle(VMS)
    found = await harness.source.read(VMS)
    check_shape(found, VMS, harness.clock.at_s)
    assert found.values.tolist() == [0.0] * len(found.vm_ids)
    assert found.vm_ids


async def read_failing(source) -> tuple[FleetReadings | None, SourceError | None]:
    try:
        return await source.read(VMS), None
    except SourceError as error:
        return None, error


async def test_a_failure_is_never_a_zero_and_always_told(harness):
    await harness.work(VMS)
    await harness.source.read(VMS)
    await harness.fail()
    found, error = await read_failing(harness.source)
    assert str(error) if found is None else found.error
    if found is not None:
        check_shape(found, VMS, harness.clock.at_s)
        assert found.vm_ids == ()


async def test_it_heals(harness):
    await harness.fail()
    _, error = await read_failing(harness.source)
    assert error is None or error.retryable
    await harness.work(VMS)
    assert (await harness.source.read(VMS)).vm_ids


async def test_no_vms_are_no_failure(harness):
    await harness.work(VMS)
    found = await harness.source.read([])
    check_shape(found, [], harness.clock.at_s)
    assert found.vm_ids == (("",) if harness.signal is Signal.TOTAL else ())
    assert found.error == ""


async def test_the_vms_may_change_from_read_to_read(harness):
    for vms in (VMS, VMS[2:3], VMS[1:]):
        await harness.work(vms)
        found = await harness.source.read(vms)
        check_shape(found, vms, harness.clock.at_s)
        assert len(found.vm_ids) == (1 if harness.signal is Signal.TOTAL else len(vms))


async def test_closing_twice_is_fine(harness):
    await harness.work(VMS)
    await harness.source.read(VMS)
    await harness.source.close()
    await harness.source.close()
