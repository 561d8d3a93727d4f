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
"""A connection is kept for the next round so long; a new one costs more than what is asked."""
BEGUN_PER_TURN = 16
"""Requests that begin in one turn of the loop: 2 to 4 ms of it."""
ADDRESS = "{address}"
"""Stands for a VM's private address in a URL template."""


class UnreadableBodyError(ValueError):
    """The body is not what was asked for; the message is a few words for a person."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came back from one VM.

    Attributes:
        value: What was made of the body of a 2xx answer; None where `error` is set.
        error: A few words, without the address; empty when all is well.
        at_s: When the body had come, by the stamp given to the FanOut; 0 without one.
        late: The round ended before it.
    """

    value: T | None = None
    error: str = ""
    at_s: float = 0.0
    late: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a round.

    Attributes:
        timeout_s: One VM, from sending to the end of the body.
        deadline_s: The whole round.
        at_once: Requests under way at the same time.
        max_bytes: Size of one body, unpacked.
    """

    timeout_s: float = 3.0
    deadline_s: float = 8.0
    at_once: int = 64
    max_bytes: int = 4 << 20


class SharedTurns:
    """What all requests share that are under way in one event loop: its turns. Made within it.

    Why: fifty fleets that are scraped begin thousands of requests at the same moment, and their answers come at the
    same moment too. Each of them takes a tenth of a millisecond, and all of them in one turn would hold the loop for
    half a second. First come, first served. How many are under way is not bounded here, or else a fleet whose VMs hang
    would hold up the others.
    """

    def __init__(self) -> None:
        self._alone = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._left = BEGUN_PER_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renews = False

    async def may_begin(self) -> None:
        """Return when a request may begin."""
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
        """For work on what came, or on what to ask for: one at a time, in a turn of its own."""
        async with self._alone:
            yield
            await next_turn()

    def _renew(self) -> None:
        """Another turn of the loop has begun."""
        self._left = BEGUN_PER_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may have been told to end
                turn.set_result(None)
                self._left -= 1
        self._renews = bool(self._waiting) or self._left < BEGUN_PER_TURN
        if self._renews:
            self._loop.call_soon(self._renew)


async def next_turn() -> None:
    """Let everything else that is ready in the loop go first."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()

    def take() -> None:
        if not turn.done():  # the round may have ended meanwhile
            turn.set_result(None)

    loop.call_soon(take)
    await turn


_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedTurns] = WeakKeyDictionary()


def shared_turns() -> SharedTurns:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _OF.get(loop)
    if found is None:
        found = _OF[loop] = SharedTurns()
    return found


class FanOut:
    """Keeps connections between rounds. Made anywhere, used within one event loop.

    Args:
        limits: Bounds of a round.
        stamp: Time for `Answer.at_s`: answers of one round arrive seconds apart.
    """

    def __init__(self, limits: Limits, stamp: Callable[[], float] | None = None) -> None:
        self._limits = limits
        self._stamp = stamp
        self._session: aiohttp.ClientSession | None = None
        self._keeps = True

    async def get_all(self, urls: Mapping[str, str], make: Callable[[bytes], T]) -> dict[str, Answer[T]]:
        """GET each URL.

        Args:
            urls: What to GET, by a key of the caller's.
            make: Makes a value of a body, or raises UnreadableBodyError.

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

        # A few tasks that go through the URLs, not one for each: ten thousand made at once would hold the loop.
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
        """The session; another one once the number no longer allows to keep connections, or allows it again."""
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
        try:
            async with session.get(url, allow_redirects=False) as response:
                if not 200 <= response.status < 300:
                    return Answer(error=f"HTTP {response.status}")
                body = await self._body(response)
                at_s = self._stamp() if self._stamp else 0.0
            async with turns.alone():  # one body per turn of the loop: dozens arrive in the same turn
                value = make(body)
            return Answer(value, at_s=at_s)
        except UnreadableBodyError as error:
            return Answer(error=str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the others of the round are still to be asked
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
    """Forget where an error came from: its frames know the error, and only the collector could free such a circle."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__, getattr(one, "os_error", None)]


def _most_kept() -> int:
    """Connections that may be kept: half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // 2 if soft > 0 else 1 << 30


def plain_reason(error: OSError) -> str:
    """Why no connection came about, in a few words without the address."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or type(error).__name__).lower()


def url_host(address: str) -> str:
    """An address as a URL wants it: IPv6 in brackets."""
    return f"[{address}]" if address.count(":") > 1 else address


def summary(errors: Mapping[str, str], asked: int) -> str:
    """One line for a person: how many failed, and each reason with its first place.

    Args:
        errors: Place (address, VM id) to reason.
        asked: How many were asked.
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
