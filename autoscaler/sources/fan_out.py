"""One GET to each of many VMs at once, with bounded time, size and concurrency.

Why a separate module: scraping and readiness probing need the same care. A round ends at its deadline whatever the VMs do; each VM has
its own limit; the number of concurrent requests is bounded; an answer that grows too large is cut off. A failure of one VM is a value
in its Answer and affects no other.

Rules of this file: bodies have no meaning here. The caller says how to parse one, and each is parsed as it arrives, so that the bodies
of a round are not all held in memory and parsing does not stall the loop. Redirects are not followed, proxies not used and cookies
not kept: a VM that points elsewhere is not answering for itself, and nothing that one VM sends reaches another.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import aiohttp

T = TypeVar("T")

KEPT_S = 90.0
"""How long a connection is kept for the next round, in seconds. A new connection costs more than the request itself."""
BEGUN_PER_TURN = 16
"""Most requests that begin in one turn of the event loop; they take 2 to 4 ms."""


class UnreadableBodyError(ValueError):
    """The body is not what was expected. The message is a few words for a person."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The result of a request to one VM.

    Attributes:
        value: The value parsed from the body of a 2xx answer; None if `error` is set.
        error: A few words without the address; empty if there was no error.
        at_s: The middle between the request and the complete body, by the FanOut's `stamp`; 0 without one. It halves the error of a
            slow answer, which may be as old as the request.
        late: Whether the round ended before the answer came.
    """

    value: T | None = None
    error: str = ""
    at_s: float = 0.0
    late: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a round.

    Attributes:
        timeout_s: Longest time for one VM, from sending to the end of the body.
        deadline_s: Longest time for the whole round.
        at_once: Most concurrent requests.
        max_bytes: Largest body, uncompressed.
    """

    timeout_s: float = 3.0
    deadline_s: float = 8.0
    at_once: int = 64
    max_bytes: int = 4 << 20


class SharedTurns:
    """Shares the turns of an event loop among all its requests. Must be created in that loop.

    Why: fifty fleets that are scraped begin thousands of requests at the same moment, and the answers come at the same
    moment, too. Each takes a tenth of a millisecond, so handling all in one turn would block the loop for half a second.
    Requests begin in the order in which they ask. The number of concurrent requests is not bounded here, because a fleet
    whose VMs hang would then hold up the others.
    """

    def __init__(self) -> None:
        self._alone = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._left = BEGUN_PER_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renews = False

    async def may_begin(self) -> None:
        """Wait until a request may begin."""
        if not self._renews:
            self._renews = True
            self._loop.call_soon(self._renew)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        await turn

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Context for work on answers or on the list of requests: one at a time, each in a turn of its own."""
        async with self._alone:
            yield
            await next_turn()

    def _renew(self) -> None:
        """Release waiting requests at the beginning of a turn."""
        self._left = BEGUN_PER_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # the waiting task may have been cancelled
                turn.set_result(None)
                self._left -= 1
        self._renews = bool(self._waiting) or self._left < BEGUN_PER_TURN
        if self._renews:
            self._loop.call_soon(self._renew)


async def next_turn() -> None:
    """Wait until everything else that is ready in the loop has run."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()

    def take() -> None:
        if not turn.done():  # the round may have ended meanwhile
            turn.set_result(None)

    loop.call_soon(take)
    await turn


_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedTurns] = WeakKeyDictionary()


def shared_turns() -> SharedTurns:
    """The SharedTurns of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _OF.get(loop)
    if found is None:
        found = _OF[loop] = SharedTurns()
    return found


class FanOut:
    """Makes rounds of requests and keeps connections between them. Must be used within one event loop.

    Args:
        limits: Bounds of a round.
        stamp: Clock for `Answer.at_s`: answers of one round arrive seconds apart.
    """

    def __init__(self, limits: Limits, stamp: Callable[[], float] | None = None) -> None:
        self._limits = limits
        self._stamp = stamp
        self._session: aiohttp.ClientSession | None = None
        self._keeps = True

    async def get_all(self, urls: Mapping[str, str], make: Callable[[bytes], T]) -> dict[str, Answer[T]]:
        """GET each URL.

        Args:
            urls: URLs, by any key of the caller's.
            make: Parses a body into a value, or raises UnreadableBodyError.

        Returns:
            One Answer per key, in the given order.
        """
        if not urls:
            return {}
        session, turns = await self._open(len(urls)), shared_turns()
        answers: dict[str, Answer[T]] = {}
        waiting = iter(urls.items())

        async def ask() -> None:
            for key, url in waiting:
                await turns.may_begin()
                answers[key] = await self._get(session, url, make, turns)

        # A few tasks that share the URLs, not one for each: creating ten thousand at once would block the loop.
        tasks = [asyncio.ensure_future(ask()) for _ in range(min(self._limits.at_once, len(urls)))]
        try:
            await asyncio.wait(tasks, timeout=self._limits.deadline_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        late: Answer[T] = Answer(
            error=f"no answer when the round ended after {self._limits.deadline_s:g} s", late=True
        )
        return {key: answers.get(key, late) for key in urls}

    async def close(self) -> None:
        """Release connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _open(self, number: int) -> aiohttp.ClientSession:
        """Return the session. A new one is made when the number of URLs becomes too large to keep connections, or small enough."""
        keeps = number <= _most_kept()
        if self._session is not None and keeps != self._keeps:
            await self.close()
        if self._session is None:
            self._keeps = keeps
            connector = (
                aiohttp.TCPConnector(limit=self._limits.at_once, ttl_dns_cache=60, keepalive_timeout=KEPT_S)
                if keeps
                else aiohttp.TCPConnector(limit=self._limits.at_once, ttl_dns_cache=60, force_close=True)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._limits.timeout_s),
                headers={"Accept": "text/plain;version=0.0.4, */*;q=0.1"},
            )
        return self._session

    async def _get(
        self, session: aiohttp.ClientSession, url: str, make: Callable[[bytes], T], turns: SharedTurns
    ) -> Answer[T]:
        asked_s = self._stamp() if self._stamp else 0.0
        try:
            async with session.get(url, allow_redirects=False) as response:
                if not 200 <= response.status < 300:
                    return Answer(error=f"HTTP {response.status}")
                body = await self._body(response)
                at_s = (asked_s + self._stamp()) / 2.0 if self._stamp else 0.0
            async with turns.alone():  # one body per turn of the loop: dozens arrive at once
                value = make(body)
            return Answer(value, at_s=at_s)
        except UnreadableBodyError as error:
            return Answer(error=str(error))
        except Exception as error:  # noqa: BLE001  whatever happened, the round must go on with the other VMs
            _let_go(error)
            return Answer(error=self._words(error))

    def _words(self, error: Exception) -> str:
        match error:
            case TimeoutError():
                return f"no answer within {self._limits.timeout_s:g} s"
            case aiohttp.ClientConnectorError():
                return plain_reason(error.os_error)
            case aiohttp.InvalidURL():
                return "not a URL"
            case _:
                return f"broken answer ({type(error).__name__})"

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._limits.max_bytes:
                response.close()
                raise UnreadableBodyError(f"answer larger than {self._limits.max_bytes >> 20} MiB")
            parts.append(part)
        return b"".join(parts)


def _let_go(error: BaseException) -> None:
    """Drop the tracebacks of an error: their frames refer to it, and only the garbage collector could free such a cycle."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__, getattr(one, "os_error", None)]


def _most_kept() -> int:
    """Most connections to keep: half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // 2 if soft > 0 else 1 << 30


def plain_reason(error: OSError) -> str:
    """Why a connection failed, in a few words without the address."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or type(error).__name__).lower()


def url_host(address: str) -> str:
    """An address in the form that URLs need: IPv6 in brackets."""
    return f"[{address}]" if address.count(":") > 1 else address


def summary(errors: Mapping[str, str], asked: int) -> str:
    """One line for a person: how many failed, and each reason with the first place where it occurred.

    Args:
        errors: Reason by place (address or VM id).
        asked: How many places were asked.
    """
    if not errors:
        return ""
    counts = Counter(errors.values())
    first: dict[str, str] = {}
    for place, reason in errors.items():
        first.setdefault(reason, place)
    reasons = [
        f"{reason} at {first[reason]}" + (f" and {number - 1} more" if number > 1 else "")
        for reason, number in counts.most_common(4)
    ]
    more = f"; {len(counts) - 4} other reasons" if len(counts) > 4 else ""
    return f"{len(errors)} of {asked} gave no reading: {'; '.join(reasons)}{more}"
