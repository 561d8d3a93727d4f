"""CloudWatch as moto implements it: as much of our requests as its server supports."""

from datetime import UTC, datetime

import pytest
from aiobotocore.session import AioSession
from moto.server import ThreadedMotoServer

from autoscaler.config.cloudwatch import CloudWatchInput
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.sources.cloudwatch import CloudWatchSource
from autoscaler.sources.cloudwatch_client import CloudWatchClient, CloudWatchSettings
from autoscaler.sources.cloudwatch_reader import CloudWatchReader
from autoscaler.wiring_sources import metric_of
from tests.sources.cloudwatch_stub import KEYS
from tests.sources.doubles import ManualClock, vm

MINUTE_S = 1_795_514_400.0
VMS = [vm(f"i-{number}", None) for number in range(3)]


@pytest.fixture(name="url", scope="module")
def _url():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


async def put(url, *rows):
    """Write datapoints, each as (namespace, name, {dimension: value}, seconds, value)."""
    secrets = {"aws_access_key_id": KEYS["access_key_id"], "aws_secret_access_key": KEYS["secret_access_key"]}
    made = AioSession().create_client("cloudwatch", "us-east-1", endpoint_url=url, **secrets)
    async with made as client:
        for namespace, name, dimensions, at_s, value in rows:
            datum = {
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": of} for key, of in dimensions.items()],
                "Timestamp": datetime.fromtimestamp(at_s, UTC),
                "Value": value,
            }
            await client.put_metric_data(Namespace=namespace, MetricData=[datum])


def source(url, signal, clock, **given):
    reader = CloudWatchReader(CloudWatchClient(CloudWatchSettings("us-east-1", url, **KEYS)), clock)
    return CloudWatchSource(metric_of(CloudWatchInput.model_validate(given)), signal, reader, clock)


async def test_cpu_and_requests_as_they_were_put(url):
    clock = ManualClock(MINUTE_S + 130.0)
    await put(
        url,
        ("AWS/EC2", "CPUUtilization", {"InstanceId": "i-0"}, MINUTE_S - 40, 40.0),
        ("AWS/EC2", "CPUUtilization", {"InstanceId": "i-0"}, MINUTE_S - 20, 60.0),
        ("AWS/EC2", "CPUUtilization", {"InstanceId": "i-1"}, MINUTE_S - 100, 30.0),
        ("AWS/EC2", "CPUUtilization", {"InstanceId": "i-1"}, MINUTE_S + 10, 90.0),
        ("AWS/ApplicationELB", "RequestCount", {"LoadBalancer": "app/web/1"}, MINUTE_S - 50, 600.0),
        ("AWS/ApplicationELB", "RequestCount", {"LoadBalancer": "app/web/1"}, MINUTE_S - 10, 300.0),
    )
    cpu = source(url, Signal.UTILISATION, clock, metric="cpu")
    found = await cpu.read(VMS)
    # Windows end at MINUTE_S: later data is not complete yet, and the third VM has none.
    assert dict(zip(found.vm_ids, found.values.tolist(), strict=True)) == {"i-0": 0.5, "i-1": 0.3}
    assert found.observed_at_s.tolist() == [MINUTE_S, MINUTE_S - 60]
    total = source(url, Signal.TOTAL, clock, metric="alb_requests", load_balancer="app/web/1")
    found = await total.read([])
    assert (found.vm_ids, found.values.tolist()) == (("",), [15.0])
    await cpu.close()
    await total.close()


async def test_nothing_was_put_for_it(url):
    clock = ManualClock(MINUTE_S + 130.0)
    queue = source(url, Signal.TOTAL, clock, metric="sqs_visible", queue="none")
    with pytest.raises(SourceError, match="no datapoint of AWS/SQS ApproximateNumberOfMessagesVisible"):
        await queue.read([])
    await queue.close()
