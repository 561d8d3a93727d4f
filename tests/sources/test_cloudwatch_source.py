"""CloudWatch as a source, against a stub of the protocol: when it asks, what it makes of answers, and the cost."""

import asyncio

import numpy as np
import pytest

from autoscaler.config.cloudwatch import CloudWatchInput
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.cloudwatch import CloudWatchSource
from autoscaler.sources.cloudwatch_reader import CloudWatchReader, MetricQuery
from autoscaler.wiring_sources import metric_of
from tests.sources.cloudwatch_stub import CPU, CloudWatchStub
from tests.sources.doubles import ManualClock, vm

NOW_S = 1_000_020.0 + 125.0
"""Two minutes and a bit after a full minute: with a delay of 2 min, the window before that minute is complete."""
LAST_S = 1_000_020.0 - 60.0
"""Start of that window, in epoch seconds."""
VMS = [vm(f"i-{number}", f"vm{number}") for number in range(3)]
REQUESTS = ("AWS/ApplicationELB", "RequestCount")


class Asking:
    """A stub, a reader that uses it, and the clock of both."""

    def __init__(self, **limits):
        self.clock = ManualClock(NOW_S)
        self.limits = {"attempts": 1} | limits
        self.called = []

    async def __aenter__(self):
        self.stub = CloudWatchStub()
        await self.stub.__aenter__()
        client = self.stub.client(lambda *told: self.called.append(told), **self.limits)
        self.reader = CloudWatchReader(client, self.clock)
        self.sources = []
        return self

    async def __aexit__(self, *_):
        for source in self.sources:
            await source.close()
        await self.stub.__aexit__()

    def source(self, signal=Signal.UTILISATION, **given):
        section = CloudWatchInput.model_validate({"metric": "cpu"} | given)
        made = CloudWatchSource(metric_of(section), signal, self.reader, self.clock)
        self.sources.append(made)
        return made

    def cpu(self, start_s, **values):
        for name, value in values.items():
            self.stub.put(CPU, {start_s: value}, f"i-{name[1:]}")


@pytest.fixture(name="asking")
async def _asking():
    async with Asking() as asking:
        yield asking


async def read(source, vms=VMS):
    found = await source.read(vms)
    return dict(zip(found.vm_ids, found.values.tolist(), strict=True)), found


async def test_cpu_of_each_vm_is_a_share_stamped_with_the_end_of_its_window(asking):
    asking.cpu(LAST_S, v0=50.0, v2=100.0)
    asking.cpu(LAST_S - 60, v0=10.0, v1=20.0)
    values, found = await read(asking.source())
    # A VM without a value in the last window keeps its earlier value, with its own age.
    assert values == {"i-0": 0.5, "i-1": 0.2, "i-2": 1.0}
    assert found.observed_at_s.tolist() == [LAST_S + 60, LAST_S, LAST_S + 60]
    assert found.error == ""


async def test_only_whole_windows_are_asked_for_once_per_period(asking):
    source = asking.source()
    # The current window has a value already, but it is not complete.
    asking.cpu(LAST_S, v0=50.0)
    asking.cpu(LAST_S + 60, v0=1.0)
    for _ in range(6):
        assert (await read(source))[0] == {"i-0": 0.5}
        asking.clock.at_s += 9.0
    (asked,) = asking.stub.requests
    assert (asked["StartTime"], asked["EndTime"]) == (LAST_S - 240, LAST_S + 60)
    asking.clock.at_s = NOW_S + 60
    asking.cpu(LAST_S + 60, v0=80.0)
    assert (await read(source))[0] == {"i-0": 0.8}
    assert len(asking.stub.requests) == 2


async def test_values_that_come_later_than_declared_are_asked_for_later(asking):
    source = asking.source()
    seen = []
    for minute in range(30):
        for second in range(0, 60, 10):
            asking.clock.at_s = NOW_S + 60 * minute + second
            # Complete and known 150 s after the end of the window, instead of 120 s.
            for number in range(40):
                start_s = LAST_S + 60 * (number - 5)
                if start_s + 60 + 150 <= asking.clock.at_s:
                    asking.cpu(start_s, v0=float(number))
            _, found = await read(source, VMS[:1])
            seen += found.observed_at_s.tolist()
    assert len(asking.stub.requests) <= 31
    ends = np.unique(seen)
    # A window that is late occasionally is read together with the next one.
    assert np.diff(ends).max() == 120
    assert np.mean(np.diff(ends) == 60) > 0.85
    assert 120 < source.delay_s <= 120 + 60
    late = asking.clock.at_s - ends[-1]
    assert late < 150 + 60 + 30


async def test_presets_ask_as_aws_names_things_and_count_per_second(asking):
    stub = asking.stub
    stub.put(REQUESTS, {LAST_S: 6000.0}, "app/web/1", stat="Sum")
    source = asking.source(Signal.TOTAL, metric="alb_requests", load_balancer="app/web/1")
    assert (await read(source))[0] == {"": 100.0}
    per_target = ("AWS/ApplicationELB", "RequestCountPerTarget")
    stub.put(per_target, {LAST_S: 600.0}, "targetgroup/web/2", stat="Sum")
    mean = asking.source(
        Signal.THROUGHPUT, metric="alb_requests_per_target", target_group="targetgroup/web/2"
    )
    assert (await read(mean))[0] == {"i-0": 10.0, "i-1": 10.0, "i-2": 10.0}
    waiting = ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    stub.put(waiting, {LAST_S: 900.0}, "orders")
    queue = asking.source(Signal.TOTAL, metric="sqs_visible", queue="orders", clear_within="5m")
    assert (await read(queue))[0] == {"": 3.0}
    oldest = ("AWS/SQS", "ApproximateAgeOfOldestMessage")
    stub.put(oldest, {LAST_S: 42.0}, "orders", stat="Maximum")
    age = asking.source(Signal.TOTAL, metric="sqs_oldest_age", queue="orders")
    assert (await read(age))[0] == {"": 42.0}
    stub.put(("Shop", "Latency"), {LAST_S: 0.25}, "web", stat="p99")
    own = asking.source(
        Signal.TOTAL, metric="custom", namespace="Shop", name="Latency", dimensions=("Service=web",), statistic="p99"
    )  # fmt: skip
    assert (await read(own))[0] == {"": 0.25}


async def test_metric_maths_is_computed_there_and_names_the_metric(asking):
    asking.cpu(LAST_S, v0=20.0, v1=30.0)
    values, _ = await read(asking.source(expression="2 * {m}"))
    assert values == {"i-0": 0.4, "i-1": 0.6}
    (asked,) = asking.stub.requests
    assert [query["ReturnData"] for query in asked["MetricDataQueries"]] == [False, True] * 3


async def test_all_fleets_share_a_batch_and_twins_are_paid_for_once(asking):
    stub = asking.stub
    asking.cpu(LAST_S, v0=50.0)
    stub.put(REQUESTS, {LAST_S: 60.0}, "app/web/1", stat="Sum")
    twins = [asking.source(Signal.TOTAL, metric="alb_requests", load_balancer="app/web/1") for _ in range(20)]
    found = await asyncio.gather(*(read(source) for source in [*twins, asking.source()]))
    assert [values for values, _ in found] == [{"": 1.0}] * 20 + [{"i-0": 0.5}]
    assert stub.metrics_asked == [4]
    assert asking.called == [(4, "answered")]


async def test_more_than_500_queries_are_cut_and_an_expression_stays_with_its_metric(asking):
    many = [vm(f"i-{number}", None) for number in range(700)]
    for each in many:
        asking.stub.put(CPU, {LAST_S: 10.0}, each.id)
    values, _ = await read(asking.source(expression="2 * {m}"), many)
    assert values == dict.fromkeys((each.id for each in many), 0.2)
    assert sorted(asking.stub.metrics_asked) == [200, 250, 250]


async def test_pages_are_read_to_the_end(asking):
    asking.stub.per_page = 4
    for number in range(3):
        asking.cpu(LAST_S - 60 * number, v0=50.0 - number, v1=60.0 - number, v2=70.0 - number)
    values, found = await read(asking.source())
    assert (values, found.error) == ({"i-0": 0.5, "i-1": 0.6, "i-2": 0.7}, "")
    assert len(asking.stub.requests) == 3


async def test_pages_without_end_are_given_up(asking):
    asking.stub.per_page = 0
    asking.cpu(LAST_S, v0=50.0)
    with pytest.raises(SourceError, match="more than 50 pages"):
        await asking.source().read(VMS)


async def test_partial_and_forbidden_metrics_are_told_and_the_others_count(asking):
    asking.cpu(LAST_S, v0=50.0, v1=60.0)
    asking.stub.status = {"i-1": "PartialData", "i-2": "Forbidden"}
    values, found = await read(asking.source())
    assert values == {"i-0": 0.5, "i-1": 0.6}
    assert found.error == (
        "AWS/EC2 CPUUtilization (InstanceId=i-1): CloudWatch returned a part of the data only (and 1 more)"
    )


async def test_a_metric_without_datapoints_is_absent_and_never_zero(asking):
    source = asking.source()
    with pytest.raises(SourceError, match=r"no datapoint of .*InstanceId=i-0.* check names and dimensions"):
        await source.read(VMS)
    found = await source.read([])
    assert (found.vm_ids, found.error) == ((), "")


THROTTLED = (400, "Throttling", "Rate exceeded")
FAILURES = {
    "throttled": ([THROTTLED], "throttles the daemon (Throttling)"),
    "denied": ([(400, "AccessDenied", "User is not authorized")], "allow cloudwatch:GetMetricData"),
    "expired": ([(400, "ExpiredToken", "The token has expired")], "check the credentials"),
    "broken": ([(500, "InternalFailure", "oops")], "failed: InternalFailure oops; it is asked again"),
    "garbage": (["html"], "cannot be read; does something else answer in its place"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_is_told_held_and_heals_within_the_period(asking, failure):
    asking.stub.script, said = [list(FAILURES[failure][0]), FAILURES[failure][1]]
    asking.cpu(LAST_S, v0=50.0)
    source = asking.source()
    with pytest.raises(SourceError) as error:
        await source.read(VMS)
    assert said in str(error.value)
    assert "not-a-secret" not in str(error.value)
    count = len(asking.stub.requests)
    with pytest.raises(SourceError):
        await source.read(VMS)
    assert len(asking.stub.requests) == count
    asking.clock.at_s += 5.0
    assert (await read(source))[0] == {"i-0": 0.5}


async def test_a_throttled_call_is_repeated_within_its_deadline():
    async with Asking(attempts=2) as asking:
        asking.stub.script = [THROTTLED]
        asking.cpu(LAST_S, v0=50.0)
        assert (await read(asking.source()))[0] == {"i-0": 0.5}
        assert len(asking.stub.requests) == 2


async def test_one_fleets_broken_expression_costs_no_other_fleet_its_values(asking):
    asking.cpu(LAST_S, v0=50.0)
    broken = asking.source(Signal.TOTAL, metric="sqs_visible", queue="orders", expression="BROKEN {m}")
    good = asking.source()
    (values, _), error = await asyncio.gather(read(good), broken.read([]), return_exceptions=True)
    assert values == {"i-0": 0.5}
    assert "refuses what signal.cloudwatch asks for: ValidationError" in str(error)
    before = len(asking.stub.requests)
    asking.clock.at_s += 60.0
    asking.cpu(LAST_S + 60, v0=60.0)
    (values, _), error = await asyncio.gather(read(good), broken.read([]), return_exceptions=True)
    assert (values, type(error)) == ({"i-0": 0.6}, SourceError)
    # It rests: a refused query is not repeated every period.
    assert len(asking.stub.requests) == before + 1


async def test_an_answer_that_takes_too_long_is_bounded_and_told():
    async with Asking(call_deadline_s=0.3) as asking:
        asking.stub.script = ["hang"]
        with pytest.raises(SourceError, match=r"did not answer within 0\.3 s"):
            await asking.source().read(VMS)


async def test_nobody_there_is_one_sentence():
    async with Asking() as asking:
        await asking.stub.__aexit__()
        with pytest.raises(SourceError, match=r"cannot reach http://127\.0\.0\.1:\d+: "):
            await asking.source().read(VMS)


async def test_old_values_go_when_nothing_follows(asking):
    asking.cpu(LAST_S, v0=50.0)
    source = asking.source()
    await read(source)
    asking.clock.at_s += 8 * 60.0
    with pytest.raises(SourceError, match="no datapoint"):
        await source.read(VMS)


async def test_the_connection_goes_with_the_last_source_and_comes_again(asking):
    asking.cpu(LAST_S, v0=50.0)
    first, second = asking.source(), asking.source()
    await read(first)
    await first.close()
    await first.close()
    assert (await read(second))[0] == {"i-0": 0.5}
    await second.close()
    assert (await read(asking.source()))[0] == {"i-0": 0.5}


def test_a_query_with_an_expression_is_two_of_the_api():
    query = MetricQuery("N", "M", (), "Sum", 60, "{m} / PERIOD({m})")
    assert [each["Id"] for each in query.wire(7)] == ["m7", "r7"]
    assert query.wire(7)[1]["Expression"] == "m7 / PERIOD(m7)"
