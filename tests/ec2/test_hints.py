"""Events from EventBridge through SQS: read from a real protocol queue, never trusted, never received twice."""

import json

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from autoscaler.errors import ProviderError
from autoscaler.ports.hints import Hint, HintKind
from autoscaler.providers.ec2.hints import HintQueue, hint_of
from autoscaler.providers.ec2.settings import Ec2Settings

STOPPED = {
    "version": "0", "id": "7bf73129", "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2",
    "account": "123456789012", "time": "2026-11-25T13:00:00Z", "region": "us-east-1",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-0a"],
    "detail": {"instance-id": "i-0a", "state": "stopped"},
}  # fmt: skip
RETIRED = STOPPED | {
    "detail-type": "AWS Health Event", "source": "aws.health",
    "detail": {
        "service": "EC2", "eventTypeCode": "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
        "startTime": "Thu, 26 Nov 2026 09:00:00 GMT", "affectedEntities": [{"entityValue": "i-0b"}],
    },
}  # fmt: skip
WARNED = STOPPED | {
    "detail-type": "EC2 Spot Instance Interruption Warning",
    "detail": {"instance-id": "i-0c", "instance-action": "stop"},
}
AT_S = 1_795_611_600.0


def test_a_change_of_state_names_its_vm_its_state_and_its_time():
    assert hint_of(json.dumps(STOPPED)) == Hint(HintKind.STATE, "i-0a", "now stopped", AT_S)


def test_a_planned_retirement_names_its_vm_and_when():
    hint = hint_of(json.dumps(RETIRED))
    assert (hint.kind, hint.vm_id) == (HintKind.SCHEDULED, "i-0b")
    assert "RETIREMENT_SCHEDULED" in hint.text
    assert "26 Nov 2026" in hint.text


def test_an_interruption_is_told_apart():
    assert hint_of(json.dumps(WARNED)).kind is HintKind.INTERRUPTION


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*STOPPED, "x"]), inner),
        ).map(json.dumps),
        st.dictionaries(st.sampled_from(list(STOPPED)), st.integers() | st.none() | st.just({})).map(
            lambda changed: json.dumps(STOPPED | changed)
        ),
    )
)
def test_whatever_else_lies_in_the_queue_is_no_hint_and_no_error(body):
    hint = hint_of(body)
    assert hint is None or isinstance(hint.vm_id, str)


@pytest_asyncio.fixture(name="queue")
async def _queue():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    settings = Ec2Settings("us-east-1", url, access_key_id="any", secret_access_key="any")
    client = {"region_name": "us-east-1", "endpoint_url": url}
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    async with get_session().create_client("sqs", **client, **keys) as sqs:
        address = (await sqs.create_queue(QueueName="hints"))["QueueUrl"]

        async def put(*bodies):
            for body in bodies:
                await sqs.send_message(QueueUrl=address, MessageBody=body)

        async with await HintQueue.open(settings, address) as queue:
            yield queue, put, settings
    server.stop()


async def test_news_is_read_once_and_what_is_none_is_gone(queue):
    source, put, _ = queue
    await put(json.dumps(STOPPED), "no event at all", json.dumps(RETIRED))
    found = []
    while len(found) < 2:
        found += await source.next()
    assert {hint.vm_id for hint in found} == {"i-0a", "i-0b"}
    await put(json.dumps(WARNED))
    assert [hint.vm_id for hint in await source.next()] == ["i-0c"]


async def test_a_queue_that_is_not_there_says_what_to_check(queue):
    _, _, settings = queue
    async with await HintQueue.open(settings, f"{settings.endpoint_url}/123456789012/none") as source:
        with pytest.raises(ProviderError, match=r"cannot be read.*sqs:ReceiveMessage"):
            await source.next()
