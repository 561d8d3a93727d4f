"""EC2 events over EventBridge and SQS: state changes, planned maintenance, interruptions, capacity.

A rule of EventBridge puts the events into a queue (deploy/README.md has it); this reads the queue. What is no event
that we know is taken off the queue too and counted, or it would come back for ever.

Rules: `hint_of` is pure. The client of the queue is made here, since no other module may meet botocore. An event
is deleted before it is handed on: losing one costs a few seconds, seeing one for ever costs much more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from aiobotocore.config import AioConfig
from botocore import exceptions as aws

from autoscaler.errors import ConfigError, ProviderError
from autoscaler.ports.hints import Hint, HintKind
from autoscaler.providers.ec2.client import open_session, service_client
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.failing import shorten

PERMISSIONS: Final = frozenset({"sqs:ReceiveMessage", "sqs:DeleteMessage"})
"""What reading the queue needs."""

WAIT_S: Final = 20
"""How long one request waits for news; the longest that SQS allows."""
_BATCH: Final = 10
"""Messages of one request; the most that SQS gives."""
_TEXT_LIMIT: Final = 200

_KINDS: Final = {
    "EC2 Instance State-change Notification": HintKind.STATE,
    "EC2 Spot Instance Interruption Warning": HintKind.INTERRUPTION,
    "EC2 Instance Rebalance Recommendation": HintKind.INTERRUPTION,
    "AWS Health Event": HintKind.SCHEDULED,
    "EC2 Capacity Reservation Instance Interruption Warning": HintKind.CAPACITY,
    "EC2 Capacity Reservation Underutilized": HintKind.CAPACITY,
}


class HintQueue:
    """A `HintSource` over one SQS queue.

    Args:
        client: An SQS client of aiobotocore; closed with this object.
        url: Of the queue.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @classmethod
    async def open(cls, settings: Ec2Settings, url: str) -> Self:
        """Open the queue; nothing is sent yet.

        Raises:
            ConfigError: There are no credentials, or the settings are wrong.
        """
        session = await open_session(settings)
        config = AioConfig(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=WAIT_S + settings.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        try:
            client = await service_client(session, settings, "sqs", config).__aenter__()
        except (aws.BotoCoreError, ValueError) as error:
            raise ConfigError(f"SQS: cannot set up the client: {shorten(str(error))}") from error
        return cls(client, url)

    async def next(self) -> tuple[Hint, ...]:
        """As of `HintSource`; waits at most about WAIT_S."""
        try:
            answer = await self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=WAIT_S
            )
            messages = answer.get("Messages", ())
            if messages:
                entries = [
                    {"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]}
                    for at, each in enumerate(messages)
                ]
                await self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        except aws.ClientError as error:
            said = error.response.get("Error", {})
            text = shorten(f"{said.get('Code', '')} {said.get('Message', '')}")
            raise ProviderError(
                f"the queue of hints {self._url} cannot be read: {text}; check its address and the permissions "
                f"{', '.join(sorted(PERMISSIONS))}. Without hints, listings alone show what happens",
                code=str(said.get("Code", "")),
            ) from error
        except aws.BotoCoreError as error:
            raise ProviderError(
                f"the queue of hints {self._url} does not answer: {shorten(str(error))}; without hints, "
                "listings alone show what happens",
                code=type(error).__name__,
            ) from error
        hints = (hint_of(each.get("Body", "")) for each in messages)
        return tuple(hint for hint in hints if hint is not None)

    async def close(self) -> None:
        """Release connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def hint_of(body: str) -> Hint | None:
    """The hint in an event of EventBridge as JSON; None where it is none that we know."""
    try:
        event = json.loads(body)
        kind = _KINDS.get(event["detail-type"])
        if kind is None:
            return None
        at_s = datetime.fromisoformat(event["time"]).timestamp()
        detail = event["detail"]
        vm_id, text = _told(kind, event, detail)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    if not isinstance(vm_id, str):
        return None
    return Hint(kind, vm_id, text[:_TEXT_LIMIT], at_s)


def _told(kind: HintKind, event: Mapping[str, Any], detail: Mapping[str, Any]) -> tuple[object, str]:
    """The VM, and what is said of it."""
    if kind is HintKind.STATE:
        return detail["instance-id"], f"now {detail['state']}"
    if kind is HintKind.SCHEDULED:
        entities = detail.get("affectedEntities") or [{"entityValue": ""}]
        code, start = detail.get("eventTypeCode", "event"), detail.get("startTime", "an unknown time")
        return entities[0].get("entityValue", ""), f"{code} at {start}"
    return detail.get("instance-id", ""), str(event["detail-type"])
