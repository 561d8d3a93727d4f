"""Two guarded aiobotocore clients: one for reads, one for changes.

Why two: kept-alive connections, which speed up reads, would make the outcome of a change unknown. The SDK repeats
nothing: it would repeat EC2's lack of capacity (HTTP 500) as if it were a fault, and it knows neither our budget nor
our deadlines. Reads are repeated here, within their own time. A change is one request on the wire, whatever the answer.

Rules: botocore's exceptions end here, except in modules with clients of other services (`elb`, `ssm`, `hints`,
`examining`). A call returns a reply, or a `Failure` that says what is known. It raises ProviderError only if nothing
was sent. Every call is bounded in time. Credentials are never part of a message.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as aws
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    wait_random_exponential,
)

from autoscaler.aws_session import Told, open_aws_session
from autoscaler.errors import ConfigError, InvariantError, ProviderError
from autoscaler.ports import OutcomeKind
from autoscaler.providers.ec2.classify import NO_CREDENTIALS, UNREADABLE, failure, may_be_read_again
from autoscaler.providers.ec2.operations import CHANGES, READS, Operation
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.wire import UnreadableError, read_launched, read_page, request_id
from autoscaler.providers.failing import Failure, shorten

Reply: TypeAlias = Mapping[str, Any]

READ_ATTEMPTS: Final = 3
"""Most requests for one read, including the first."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
"""The pause before a read is repeated is drawn between zero and the first value, doubled each time up to the second."""

PAGE: Final = "Page"
"""Key in a DescribeInstances reply; the value is a `wire.ReplyPage`."""

LAUNCHED: Final = "Launched"
"""Key in a RunInstances reply; the value holds the ids of the new VMs."""

CLOSE_DEADLINE_S: Final = 5.0

_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.TokenRetrievalError,
    aws.SSOError,
)
_NOT_CONNECTED = (aws.ConnectTimeoutError, aws.ProxyConnectionError, aws.SSLError)


class Ec2Client:
    """An EC2 client that is limited to a fixed set of operations.

    Args:
        client: An aiobotocore EC2 client. Closed together with this object.
        allowed: The operations that may be called.
        settings: Endpoint and timeouts.
    """

    def __init__(self, client: Any, allowed: frozenset[Operation], settings: Ec2Settings) -> None:
        self._client = client
        self._allowed = allowed
        self._deadline_s = settings.call_deadline_s
        self._where = settings.endpoint_url or f"EC2 in {settings.region}"
        methods: Mapping[str, str] = client.meta.method_to_api_mapping
        self._methods = {operation: method for method, operation in methods.items()}
        client.meta.events.register("before-parse.ec2.DescribeInstances", _keep_page)
        client.meta.events.register("before-parse.ec2.RunInstances", _keep_launched)

    async def call(self, operation: Operation, **parameters: Any) -> Reply | Failure:
        """Call an operation, and return the reply or what is known of the failure.

        Raises:
            ProviderError: Nothing was sent.
            InvariantError: This client may not call the operation.
        """
        if operation not in self._allowed:
            raise InvariantError(f"{operation} may not be called by this EC2 client")
        try:
            async with asyncio.timeout(self._deadline_s):
                if operation in READS:
                    return await self._read(operation, parameters)
                return await self._once(operation, parameters)
        except TimeoutError:
            return Failure(OutcomeKind.UNKNOWN, "NoAnswer", f"no answer within {self._deadline_s:g} s")

    async def _read(self, operation: Operation, parameters: dict[str, Any]) -> Reply | Failure:
        """Make a read. Repeat it with full jitter if another try may succeed."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(READ_ATTEMPTS),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_result(_worth_another),
            retry_error_callback=_last,
        )
        result: Reply | Failure = await retrying(self._once, operation, parameters)
        return result

    async def _once(self, operation: Operation, parameters: dict[str, Any]) -> Reply | Failure:
        try:
            reply: Reply = await getattr(self._client, self._methods[operation])(**parameters)
        except aws.ClientError as error:
            return _answered(error)
        except ResponseParserError as error:
            # Leave out the position and the text of the answer: they differ each time, and so would be reported each time.
            return _unreadable(operation, str(error).partition(" (")[0])
        except aws.BotoCoreError as error:
            return self._unanswered(operation, error)
        if "RequestId" not in reply.get("ResponseMetadata", {}):
            return _unreadable(operation, "the reply has no request id, so it is not from EC2")
        return reply

    async def close(self) -> None:
        """Release connections, within CLOSE_DEADLINE_S."""
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._client.close()
        except TimeoutError:
            return

    def _unanswered(self, operation: Operation, error: aws.BotoCoreError) -> Failure:
        if isinstance(error, _NO_CREDENTIALS):
            return Failure(OutcomeKind.DENIED, NO_CREDENTIALS, shorten(str(error)))
        if _never_sent(error):
            raise ProviderError(
                f"{operation}: cannot reach {self._where}: {shorten(str(error) + _cause(error))}. Nothing was sent; "
                "check the network, the Region and the endpoint",
                code=type(error).__name__,
            ) from error
        return Failure(OutcomeKind.UNKNOWN, type(error).__name__, shorten(str(error)))


async def open_session(settings: Ec2Settings, told: Told | None = None) -> AioSession:
    """Find the credentials, and return a session that all clients of the process share.

    Args:
        settings: Profile or keys.
        told: See `open_aws_session`.

    Raises:
        ConfigError: The profile is unknown, or no credentials were found.
    """
    try:
        session = _session(settings, told)
        found = settings.access_key_id is not None or await session.get_credentials() is not None
    except aws.BotoCoreError as error:
        raise ConfigError(f"EC2: cannot set up credentials: {shorten(str(error))}") from error
    if not found:
        raise ConfigError(
            "EC2: no credentials found, and the metadata service of this machine gives none. Give the machine an instance profile, or set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return session


def _session(settings: Ec2Settings, told: Told | None = None) -> AioSession:
    """Return a session that shares loaded service models with the others of this process: EC2's is 100,000 objects."""
    session = open_aws_session(settings.profile, told)
    session.register_component("data_loader", _models_in(session.get_config_variable("data_path")))
    return session


@lru_cache
def _models_in(folders: str | None) -> Loader:
    return create_loader(folders)


def service_client(session: AioSession, settings: Ec2Settings, service: str, config: AioConfig) -> Any:
    """Create a client of an AWS service, as a context manager that is not yet entered."""
    # The stubs type each service by its literal name, but here the name is an argument.
    create: Any = session.create_client
    return create(
        service,
        region_name=settings.region,
        endpoint_url=settings.endpoint_url,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        config=config,
    )


class LateClient:
    """A client of an AWS service that is opened on first use."""

    def __init__(self, settings: Ec2Settings, service: str, config: AioConfig) -> None:
        self._settings, self._service, self._config = settings, service, config
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def opened(self) -> Any:
        """Return the client, and open it if necessary."""
        async with self._opening:
            if self._client is None:
                session = _session(self._settings)
                context = service_client(session, self._settings, self._service, self._config)
                self._client = await self._stack.enter_async_context(context)
            return self._client

    async def close(self) -> None:
        """Release connections."""
        await self._stack.aclose()
        self._client = None


async def open_client(session: AioSession, settings: Ec2Settings, *, changes: bool) -> Ec2Client:
    """Open the client for reads or the one for changes.

    Loading EC2's service model blocks the event loop for about a quarter of a second, once per process. So open the
    clients before the loop has deadlines to keep.

    Raises:
        ConfigError: The profile is unknown, or the endpoint is malformed.
    """
    try:
        config = _config(settings, changes=changes)
        client = await service_client(session, settings, "ec2", config).__aenter__()
    except (aws.BotoCoreError, ValueError) as error:
        raise ConfigError(f"EC2: cannot set up the client: {shorten(str(error))}") from error
    return Ec2Client(client, CHANGES if changes else READS, settings)


def _config(settings: Ec2Settings, *, changes: bool) -> AioConfig:
    """Build the client's configuration. Retries are set here, so that no environment variable, file or SDK default does.

    Each change opens a new connection: if the other side had dropped a kept one, a start that never left this machine
    would have an unknown outcome. A loopback endpoint is reached without the proxy that the environment may set.
    """
    return AioConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": 1},
        connector_args={"force_close": True, "keepalive_timeout": None} if changes else {},
        proxies={} if _on_loopback(settings.endpoint_url) else None,
    )


def _worth_another(result: Reply | Failure) -> bool:
    return isinstance(result, Failure) and may_be_read_again(result) and result.code != UNREADABLE


def _last(state: RetryCallState) -> Reply | Failure:
    assert state.outcome is not None
    result: Reply | Failure = state.outcome.result()
    return result


def _on_loopback(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _answered(error: aws.ClientError) -> Failure:
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(said.get("Code", ""))
    if code.isdigit() or code == "Unknown":  # what botocore makes of an answer that is not EC2's
        code = ""
    return failure(code, str(said.get("Message", "")), status)


def _unreadable(operation: Operation, detail: str) -> Failure:
    message = f"the answer to {operation} cannot be read: {detail}"
    return Failure(OutcomeKind.UNKNOWN, UNREADABLE, shorten(message))


def _never_sent(error: aws.BotoCoreError) -> bool:
    if isinstance(error, aws.EndpointConnectionError):
        # botocore uses this error for every broken connection; only its cause tells a refused connection from a reset one.
        return isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorError | socket.gaierror)
    return isinstance(error, (*_NOT_CONNECTED, aws.ParamValidationError))


def _cause(error: aws.BotoCoreError) -> str:
    """What the operating system says, which botocore leaves out; empty if it says nothing."""
    inner = error.kwargs.get("error")
    inner = getattr(inner, "os_error", inner)
    if not isinstance(inner, OSError) or not inner.errno:
        return ""
    # Errors of name resolution have negative numbers, which only they can explain.
    said = os.strerror(inner.errno) if inner.errno > 0 else str(inner.strerror)
    return f" ({said.lower()})"


def _keep_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    _keep(response_dict, customized_response_dict, PAGE, read_page)


def _keep_launched(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    _keep(response_dict, customized_response_dict, LAUNCHED, read_launched)


def _keep(response: dict[str, Any], parsed: dict[str, Any], key: str, read: Any) -> None:
    """Parse the body ourselves and leave botocore an empty one.

    A body that is not the expected reply is left as it is, so that botocore reports it.
    """
    if response["status_code"] != 200:
        return
    body: bytes = response["body"]
    try:
        parsed[key] = read(body)
    except UnreadableError:
        return
    response["body"] = f"<Reply><requestId>{request_id(body)}</requestId></Reply>".encode()
