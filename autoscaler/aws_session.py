"""Sessions of the AWS SDK whose credentials fail in words, in time, and no earlier than they must.

Why: the SDK waits for ever for a program that supplies credentials and leaves it behind when the caller gives up; it raises whatever went
wrong as it is (an error of the operating system, of JSON, of another service, which look like errors of the service that is called) and
prints its traceback each time; it stops using credentials ten minutes before they end if they cannot be renewed; and it renews
credentials that live for less than a quarter of an hour before each request.

Rules of this file: credentials are never part of a message. No fetch outlives its time. Whatever fails is a CredentialsError.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from aiobotocore import credentials as sdk
from aiobotocore.session import AioSession
from botocore import exceptions as aws

FETCH_WITHIN_S: Final = 15.0
"""Longest time to fetch credentials. A call that has to wait for them still says why within its own time."""
AGAIN_WITHIN_S: Final = 1.0
"""How long a call waits for another attempt to fetch credentials after one that failed."""
REAP_WITHIN_S: Final = 1.0
"""How long to wait for a program that was killed to be gone."""
LEAST_S: Final = 10.0
"""Credentials that end sooner than this are not used: they could end before the request arrives."""
RENEWED_PAUSE_S, FAILED_PAUSE_S = 30.0, 5.0
"""Shortest time from one renewal to the next, if it succeeded (with credentials that last so long) and if it failed."""

_MESSAGE_LIMIT: Final = 300

Told: TypeAlias = Callable[[str], object]
"""Called with why credentials in use cannot be renewed, and with an empty text once they could."""

# Without a handler of its own, each of the SDK's warnings would go to standard error, with a traceback.
for _name in ("botocore", "aiobotocore"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class CredentialsError(aws.CredentialRetrievalError):
    """There are no valid credentials; the message says why."""

    fmt = "{error_msg}"


def open_aws_session(profile: str | None, told: Told | None = None) -> AioSession:
    """Return a session for a profile of the AWS configuration files, or for the default chain.

    Args:
        profile: Name of the profile, or None.
        told: Called when credentials cannot be renewed, once for each reason, although those in use have not ended.

    Raises:
        botocore.exceptions.BotoCoreError: The profile is unknown, or the files cannot be read.
    """
    session = AioSession(profile=profile)
    resolver = session.get_component("credential_provider")
    _end_programs_in_time(session, resolver)
    where = f"profile {session.profile}" if session.profile else "no profile is set"
    session.register_component("credential_provider", _Resolver(resolver, where, told or (lambda _: None)))
    return session


class _Resolver:
    """The SDK's search for credentials, bounded in time."""

    def __init__(self, resolver: Any, where: str, told: Told) -> None:
        self._resolver, self._where, self._told = resolver, where, told

    async def load_credentials(self) -> Any:
        """Return credentials, or None if nothing supplies any."""
        found = await _fetched(self._resolver.load_credentials, self._where)
        return KeptCredentials(found, self._where, self._told) if hasattr(found, "refresh_needed") else found


class KeptCredentials:
    """Temporary credentials that are renewed in the background, and used until they end.

    Args:
        inner: Refreshable credentials of the SDK.
        where: Where they come from, for messages.
        told: See `open_aws_session`.
    """

    def __init__(self, inner: Any, where: str, told: Told) -> None:
        self._inner, self._where, self._told = inner, f"{where}, {inner.method}", told
        self._kept: Any = None
        self._renewing: asyncio.Task[None] | None = None
        self._not_before_s = 0.0
        self._why = self._said = ""

    def __getattr__(self, name: str) -> Any:
        """Whatever else the SDK wants to know of credentials."""
        return getattr(self._inner, name)

    async def get_frozen_credentials(self) -> Any:
        """Return credentials that have not ended.

        Raises:
            CredentialsError: There are none.
        """
        if self._kept is None or self._inner.refresh_needed():
            self._begin()
        if self._kept is not None and not self._inner.refresh_needed(LEAST_S):
            return self._kept
        if self._renewing is not None and self._why:
            # The last attempt failed, and the caller should hear why before its own time is over.
            await asyncio.wait({self._renewing}, timeout=AGAIN_WITHIN_S)
        elif self._renewing is not None:
            # Others may wait for it too, so it goes on if this call is given up.
            await asyncio.shield(self._renewing)
        if self._why:
            raise CredentialsError(error_msg=self._why)
        return self._kept

    def _begin(self) -> None:
        """Begin to renew them, unless that is under way or was tried just now."""
        loop = asyncio.get_running_loop()
        if self._renewing is None and loop.time() >= self._not_before_s:
            self._renewing = loop.create_task(self._renew())
            self._renewing.add_done_callback(self._ended)

    async def _renew(self) -> None:
        self._kept = await _fetched(self._inner.get_frozen_credentials, self._where)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._renewing = None
        error = None if task.cancelled() else task.exception()
        self._why = "" if error is None else str(error)
        pause_s = FAILED_PAUSE_S
        if error is None:
            lasts = not self._inner.refresh_needed(RENEWED_PAUSE_S + LEAST_S)
            pause_s = RENEWED_PAUSE_S if lasts else 0.0
        self._not_before_s = task.get_loop().time() + pause_s
        still = self._kept is not None and not self._inner.refresh_needed(LEAST_S)
        if still and self._why != self._said:
            self._said = self._why
            self._told(self._why)


async def _fetched(fetch: Callable[[], Awaitable[Any]], where: str) -> Any:
    """What a function of the SDK fetches; whatever it raises becomes a CredentialsError."""
    try:
        async with asyncio.timeout(FETCH_WITHIN_S):
            return await fetch()
    except Exception as error:
        said = " ".join(_reason(error).split())[:_MESSAGE_LIMIT]
        raise CredentialsError(error_msg=f"no valid credentials ({where}): {said}") from error


def _reason(error: Exception) -> str:
    """Say why credentials could not be fetched."""
    if isinstance(error, TimeoutError):
        return f"what supplies them did not end within {FETCH_WITHIN_S:g} s"
    if isinstance(error, aws.ClientError):
        said = error.response.get("Error", {})
        return f"{error.operation_name} was refused: {said.get('Code', '')} {said.get('Message', '')}"
    if isinstance(error, aws.CredentialRetrievalError):
        if "did not contain" in str(error):
            return "what supplies them does not answer, or gives none"
        told = dict(error.kwargs).get("error_msg", "")
        return str(told) or "the program that supplies them failed and said nothing"
    if isinstance(error, aws.BotoCoreError):
        return str(error)
    if isinstance(error, OSError):
        return f"{(error.strerror or str(error)).lower()}: {error.filename or 'what supplies them'}"
    if isinstance(error, ValueError):
        return "what the program that supplies them printed is not the JSON that AWS describes"
    if isinstance(error, RuntimeError) and "still expired" in str(error):
        return "those that were issued are over already; check this machine's clock, and what issues them"
    return f"{type(error).__name__}: {error}"


# ── programs that supply credentials (credential_process) ──────────────────────────────────────────────────


class _Program:
    """A program that supplies credentials; it is ended if nobody waits for it any more."""

    def __init__(self, process: asyncio.subprocess.Process, *, own_group: bool) -> None:
        self._process, self._own_group = process, own_group

    @property
    def returncode(self) -> int | None:
        """Its exit status."""
        return self._process.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Return what it prints to standard output and standard error, once it has ended."""
        try:
            return await self._process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                if self._own_group:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REAP_WITHIN_S):
                    await self._process.wait()
            raise


async def _begun(*command: str, stdout: int, stderr: int) -> _Program:
    # Often it is a script, which must not leave its own children behind. At a terminal it may have a question, which only works
    # within the terminal's session.
    own_group = not os.isatty(0)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=stdout, stderr=stderr, start_new_session=own_group
    )
    return _Program(process, own_group=own_group)


class _ProfileProviders(sdk.AioProfileProviderBuilder):
    """Ways to get credentials for a profile that another one names."""

    def _create_process_provider(self, profile_name: str) -> Any:
        config = self._session  # type: ignore[attr-defined]  # the stubs lack it
        return sdk.AioProcessProvider(
            profile_name=profile_name, load_config=lambda: config.full_config, popen=_begun
        )


def _end_programs_in_time(session: AioSession, resolver: Any) -> None:
    """Have all programs that supply credentials to this session ended when their time is over."""
    builder = _ProfileProviders(session)
    for each in list(resolver.providers):
        if isinstance(each, sdk.AioProcessProvider):
            name = session.get_config_variable("profile") or "default"
            resolver.insert_before(each.METHOD, builder._create_process_provider(name))  # noqa: SLF001  our own
            resolver.providers.remove(each)
        elif isinstance(each, sdk.AioAssumeRoleProvider):
            # The SDK has no public way to hand it over.
            each._profile_provider_builder = builder  # type: ignore[attr-defined]  # noqa: SLF001
