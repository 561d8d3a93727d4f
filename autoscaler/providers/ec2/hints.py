"""EC2 events over EventBridge and SQS: state changes, planned maintenance, interruptions, capacity.

An EventBridge rule puts the events into a queue (see deploy/README.md), and this module reads the queue. Messages that are
not a known event are deleted too, because they would come back for ever otherwise.

Rules: `hint_of` is pure. The queue's client is created here, because only this package may use botocore. An event is
deleted before it is passed on: losing an event costs a few seconds, while receiving one for ever costs much more.
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
"""Permissions needed to read the queue."""

WAIT_S: Final = 20
"""Seconds that one request waits for messages; the most that SQS allows."""
_BATCH: Final = 10
"""Most messages per request; the most that SQS returns."""
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
    """A `HintSource` that reads an SQS queue.

    Args:
        client: An SQS client of aiobotocore. Closed together with this object.
        url: URL of the queue.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @classmethod
    async def open(cls, settings: Ec2Settings, url: str) -> Self:
        """Set up a client for the queue, without sending anything.

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
        """See `HintSource.next`; waits for about WAIT_S at most."""
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
        """Return this object."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()


def hint_of(body: str) -> Hint | None:
    """Parse an EventBridge event in JSON; None if it is not a known event."""
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
    """The id of the VM, and a description of the event."""
    if kind is HintKind.STATE:
        return detail["instance-id"], f"now {detail['state']}"
    if kind is HintKind.SCHEDULED:
        entities = detail.get("affectedEntities") or [{"entityValue": ""}]
        code, start = detail.get("eventTypeCode", "event"), detail.get("startTime", "an unknown time")
        return entities[0].get("entityValue", ""), f"{code} at {start}"
    return detail.get("instance-id", ""), str(event["detail-type"])
