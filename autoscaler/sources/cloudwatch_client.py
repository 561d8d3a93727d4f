"""CloudWatch over aiobotocore: one operation with all its pages, and its errors as sentences.

Rules of this file: no botocore type or error leaves it. A call is bounded in time, including the SDK's retries with
back-off after throttling. The client is created at the first call, so that a daemon without CloudWatch does not load
it. Credentials are never part of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from autoscaler.aws_session import CredentialsError, open_aws_session
from autoscaler.errors import SourceError

MOST_PAGES = 50
CLOSE_WITHIN_S = 5.0
MESSAGE_LIMIT = 300


class Operation(StrEnum):
    """The operations that this program can call; the values are their names on the wire."""

    GET_METRIC_DATA = "GetMetricData"


PERMISSIONS = frozenset(f"cloudwatch:{each.value}" for each in Operation)
"""Permissions of a daemon's role if it uses CloudWatch. Their resource is `*`: CloudWatch does not support a narrower one."""


@dataclass(frozen=True, slots=True)
class CloudWatchSettings:
    """Which CloudWatch to use, and how long to wait for it.

    Attributes:
        region: AWS Region.
        endpoint_url: Endpoint to use instead of AWS's own, or None.
        profile: Profile of the AWS configuration files, or None for the default chain.
        access_key_id, secret_access_key: Static key; None for the default chain.
        call_deadline_s: Longest time of one call, including pages and retries.
        attempts: Most requests for one page, including the first; 3 take up to 3 s with back-off.
    """

    region: str
    endpoint_url: str | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    call_deadline_s: float = 20.0
    attempts: int = 3


class RefusedQueryError(SourceError):
    """CloudWatch rejects a query as invalid, so repeating it will not help."""


class ThrottledError(SourceError):
    """CloudWatch throttles the requests."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """CloudWatch's answer to one query.

    Attributes:
        points: Pairs of the start of a window (epoch seconds) and its value, in any order.
        problem: What CloudWatch reports about the query; empty if there is no problem.
    """

    points: tuple[tuple[float, float], ...]
    problem: str = ""


Called = Callable[[int, str], object]
"""Called for every request with the number of metrics and the result: answered, throttled, denied, refused or failed."""


class CloudWatchClient:
    """Calls GetMetricData.

    Args:
        settings: Which CloudWatch to use.
        called: Called for every request, to count its cost.
    """

    def __init__(self, settings: CloudWatchSettings, called: Called | None = None) -> None:
        self._settings = settings
        self._called = called or (lambda *_: None)
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def get(
        self, queries: Sequence[Mapping[str, Any]], start_s: float, end_s: float
    ) -> dict[str, QueryResult]:
        """Get the datapoints for up to 500 queries, by their `Id`.

        Args:
            queries: MetricDataQueries in the form of the API.
            start_s: Start of the first window, included.
            end_s: End of the last window.

        Raises:
            SourceError: There was no answer; its type says whether repeating the call may help.
        """
        metrics = sum("MetricStat" in query for query in queries)
        try:
            async with asyncio.timeout(self._settings.call_deadline_s):
                return await self._pages(queries, start_s, end_s, metrics)
        except TimeoutError:
            self._called(metrics, "failed")
            raise SourceError(
                f"{self._where} did not answer within {self._settings.call_deadline_s:g} s; check the network"
            ) from None
        except aws.ClientError as error:
            raise self._answered(error, metrics) from None
        except (aws.BotoCoreError, ResponseParserError, ValueError) as error:
            self._called(metrics, "failed")
            raise SourceError(self._unanswered(error)) from None

    async def close(self) -> None:
        """Release connections, within CLOSE_WITHIN_S. A later call opens new ones."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await client.close()
        except TimeoutError:
            return

    @property
    def _where(self) -> str:
        return self._settings.endpoint_url or f"CloudWatch in {self._settings.region}"

    async def _pages(
        self, queries: Sequence[Mapping[str, Any]], start_s: float, end_s: float, metrics: int
    ) -> dict[str, QueryResult]:
        client = await self._opened()
        points: dict[str, list[tuple[float, float]]] = {}
        problems: dict[str, str] = {}
        token: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            reply = await client.get_metric_data(
                MetricDataQueries=list(queries),
                StartTime=start_s,
                EndTime=end_s,
                ScanBy="TimestampDescending",
                **token,
            )
            if "RequestId" not in reply.get("ResponseMetadata", {}):
                raise ResponseParserError("the reply has no request id")
            self._called(metrics, "answered")
            general = "; ".join(str(each.get("Value", "")) for each in reply.get("Messages", ()))
            for result in reply.get("MetricDataResults", ()):
                name = result["Id"]
                pairs = zip(result.get("Timestamps", ()), result.get("Values", ()), strict=False)
                points.setdefault(name, []).extend((at.timestamp(), float(value)) for at, value in pairs)
                problems[name] = _problem(result) or general[:MESSAGE_LIMIT]
            if not reply.get("NextToken"):
                return {name: QueryResult(tuple(found), problems[name]) for name, found in points.items()}
            token = {"NextToken": reply["NextToken"]}
        raise SourceError(
            f"{self._where} has more than {MOST_PAGES} pages for one call; ask for fewer metrics"
        )

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                s = self._settings
                host = urlsplit(s.endpoint_url or "").hostname or ""
                config = AioConfig(
                    connect_timeout=3.0,
                    read_timeout=10.0,
                    retries={"mode": "standard", "total_max_attempts": s.attempts},
                    proxies={} if host in {"localhost", "::1"} or host.startswith("127.") else None,
                )
                self._client = await (
                    open_aws_session(s.profile)
                    .create_client(
                        "cloudwatch",
                        region_name=s.region,
                        endpoint_url=s.endpoint_url,
                        aws_access_key_id=s.access_key_id,
                        aws_secret_access_key=s.secret_access_key,
                        config=config,
                    )
                    .__aenter__()
                )
        return self._client

    def _answered(self, error: aws.ClientError, metrics: int) -> SourceError:
        said = error.response.get("Error", {})
        code, message = str(said.get("Code", "")), _short(str(said.get("Message", "")))
        if code in _THROTTLED:
            self._called(metrics, "throttled")
            return ThrottledError(
                f"{self._where} throttles the daemon ({code}); fewer metrics or a longer signal.cloudwatch.period helps, or a raised quota"
            )
        if code in _DENIED:
            self._called(metrics, "denied")
            return SourceError(
                f"{self._where} denies access: {code} {message}; allow cloudwatch:GetMetricData (deploy/iam-policy.json) and check the credentials"
            )
        if code in _REFUSED:
            self._called(metrics, "refused")
            return RefusedQueryError(
                f"{self._where} refuses what signal.cloudwatch asks for: {code} {message}", retryable=False
            )
        self._called(metrics, "failed")
        return SourceError(f"{self._where} failed: {code} {message}; it is asked again")

    def _unanswered(self, error: Exception) -> str:
        if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
            return f"no AWS credentials for CloudWatch: {_short(str(error))}; give the machine an instance profile, or set aws_profile"
        if isinstance(error, CredentialsError):
            return f"CloudWatch: {_short(str(error))}; check what supplies them: the role of this machine, or the profile"
        if isinstance(error, ResponseParserError):
            return f"the answer of {self._where} cannot be read; does something else answer in its place (a proxy)?"
        return f"cannot reach {self._where}: {_short(str(error))}; check the network, the Region and the endpoint"


_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
)
_DENIED = frozenset(
    {
        "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "ExpiredToken",
        "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId", "UnrecognizedClientException",
        "SignatureDoesNotMatch", "IncompleteSignature", "MissingAuthenticationToken", "OptInRequired", "NotAuthorized",
    }
)  # fmt: skip
_REFUSED = frozenset(
    {
        "ValidationError", "ValidationException", "InvalidParameterValue", "InvalidParameterCombination",
        "MissingParameter", "InvalidParameterValueException", "InvalidParameterCombinationException",
        "MissingRequiredParameterException",
    }
)  # fmt: skip


def _problem(result: Mapping[str, Any]) -> str:
    """What CloudWatch reports about one query on its last page; empty if there is no problem."""
    told = "; ".join(str(each.get("Value", "")) for each in result.get("Messages", ()))[:MESSAGE_LIMIT]
    status = result.get("StatusCode", "Complete")
    if status == "Complete":
        return told
    words = {
        "PartialData": "CloudWatch returned a part of the data only",
        "InternalError": "CloudWatch failed on this metric",
        "Forbidden": "CloudWatch denies access to this metric",
    }
    return f"{words.get(status, f'CloudWatch answered {status}')}{f': {told}' if told else ''}"


def _short(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_LIMIT]
