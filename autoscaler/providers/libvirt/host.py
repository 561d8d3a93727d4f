"""One host: its connections, and calls on them with time limits.

libvirt's calls block, and a host that hangs never answers. So each call runs in a thread of its own, which is left behind
when its time is over; until it comes back the host is not asked anything else, and whoever asks is told so at once. Threads
are daemonic: one that hangs does not keep the program from ending.

Rules: what is given to `ask` runs in a thread and may touch nothing but its connection and what has a lock of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from autoscaler.ports import Clock, OutcomeKind
from autoscaler.providers.failing import Failure, shorten
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.classify import advice, failure, lost

T = TypeVar("T")

CHANGES_AT_ONCE: Final = 3
"""libvirtd takes five calls of one connection at a time; the listing must not wait behind changes."""
SAVES_AT_ONCE: Final = 2
"""Memories that are saved at the same time on one host, which is as fast as its disk."""
CLOSING_S: Final = 2.0


class Kind(StrEnum):
    """What a call is."""

    READ = "read"
    """It is answered at once by a host that lives: one that is late makes the host be left alone."""
    CHANGE = "change"
    """It may wait within libvirtd for what else is done to the VM; some at a time."""
    GUEST = "guest"
    """It asks within a guest, which may never answer; one at a time, on the connection of saves."""
    SAVE = "save"
    """It writes a memory to a disk, on a connection of its own; few at a time."""


class UnreachedError(Exception):
    """The host could not be asked; nothing was done.

    Args:
        message: For a person.
        denied: The host does not let us in.
    """

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


class UnansweredError(Exception):
    """The host was asked and did not answer in time; what was asked for may be done."""


class FailedError(Exception):
    """The host answered that it failed, or the connection ended meanwhile."""

    def __init__(self, failed: Failure) -> None:
        super().__init__(str(failed))
        self.failure = failed


class _Job(Generic[T]):
    """One call, which is either begun or given up, never both."""

    def __init__(self, call: Callable[[Any], T]) -> None:
        self.call = call
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lock = threading.Lock()
        self._begun = self._over = False

    @property
    def begun(self) -> bool:
        return self._begun

    def begin(self) -> bool:
        """Whether the call may be made: nobody has given it up."""
        with self._lock:
            self._begun = not self._over
            return self._begun

    def give_up(self) -> bool:
        """Whether the call was made, and will not be if it was not."""
        with self._lock:
            self._over = True
            return self._begun


Greet = Callable[[Any], Callable[[], None]]
"""What is done with a new connection, in its thread; gives back what is done before it is closed."""


def _no_farewell() -> None:
    pass


def _nothing(_connection: Any) -> Callable[[], None]:
    return _no_farewell


class _Line:
    """One connection, opened when it is first needed and again after it has ended."""

    def __init__(self, uri: str, connect: Callable[[str], Any], greet: Greet = _nothing) -> None:
        self._uri, self._connect, self._greet = uri, connect, greet
        self._lock = threading.Lock()
        self._connection: Any = None
        self._farewell: Callable[[], None] = _no_farewell

    def connection(self) -> Any:
        """The open connection; blocks for as long as the host takes."""
        with self._lock:
            if self._connection is not None and not _alive(self._connection):
                self.drop(self._connection)
            if self._connection is None:
                self._connection = self._connect(self._uri)
                self._farewell = self._greet(self._connection)
            return self._connection

    def drop(self, connection: Any) -> None:
        """Forget a connection that has ended."""
        if self._connection is connection:
            self.close()

    def close(self) -> None:
        """Close it; blocks for as long as the host takes."""
        connection, self._connection = self._connection, None
        farewell, self._farewell = self._farewell, _no_farewell
        if connection is not None:
            # What is registered with a connection keeps it from closing.
            farewell()
            _close(connection)


class Host:
    """Calls on one host.

    Args:
        name: What it is called: the zone of its VMs.
        uri: Where it is.
        connect: Opens a connection, in a thread.
        clock: Says since when the host has not answered.
        greet: What is done with each connection for calls.
    """

    def __init__(
        self, name: str, uri: str, connect: Callable[[str], Any], clock: Clock, greet: Greet = _nothing
    ) -> None:
        self.name = name
        self._clock = clock
        self._calls, self._saves = _Line(uri, connect, greet), _Line(uri, connect)
        self._late: dict[_Job[Any], float] = {}
        self._turns = {
            Kind.CHANGE: asyncio.Semaphore(CHANGES_AT_ONCE),
            Kind.GUEST: asyncio.Semaphore(1),
            Kind.SAVE: asyncio.Semaphore(SAVES_AT_ONCE),
        }
        self.tagging = threading.Lock()
        """Held while tags are read, changed and written back."""

    async def ask(
        self, call: Callable[[Any], T], limit_s: float, kind: Kind = Kind.READ, *, turn_s: float = 0.0
    ) -> T:
        """Make a call with a connection of this host, in a thread.

        Args:
            call: Blocks; gets the connection.
            limit_s: Longest wait for its answer.
            kind: What it is.
            turn_s: Longest wait for its turn, where there are turns.

        Raises:
            UnreachedError: The call was not made.
            UnansweredError: It was made, and there is no answer yet.
            FailedError: It was made and failed; where the connection has ended, that is UNKNOWN.
            RefusedError: As the call itself has raised it.
        """
        self._heed()
        turns = self._turns.get(kind)
        if turns is not None:
            try:
                async with asyncio.timeout(turn_s):
                    await turns.acquire()
            except TimeoutError:
                raise UnreachedError(
                    f"{self.name} has been busy with other {kind}s for {turn_s:g} s"
                ) from None
        job = _Job(call)
        if turns is not None:
            # A turn ends when the call comes back, not when the wait for it does.
            job.answer.add_done_callback(lambda _: turns.release())
        try:
            self._heed()
        except UnreachedError:
            job.answer.cancel()
            raise
        line = self._saves if kind in (Kind.SAVE, Kind.GUEST) else self._calls
        loop = asyncio.get_running_loop()
        begun_s = self._clock.now()
        threading.Thread(
            target=_settle,
            args=(job, line.connection, loop, line.drop),
            name=f"libvirt-{self.name}",
            daemon=True,
        ).start()
        try:
            done, _ = await asyncio.wait((job.answer,), timeout=limit_s)
        except asyncio.CancelledError:
            job.give_up()
            self._leave(job, begun_s, kind)
            raise
        if done:
            return job.answer.result()
        made = job.give_up()
        self._leave(job, begun_s, kind)
        text = f"{self.name} has not answered within {limit_s:g} s"
        raise UnansweredError(text) if made else UnreachedError(text)

    def _heed(self) -> None:
        if self._late:
            since_s = self._clock.now() - min(self._late.values())
            raise UnreachedError(
                f"{self.name} has not answered for {since_s:.0f} s, and is not asked until it does"
            )

    def _leave(self, job: _Job[Any], begun_s: float, kind: Kind) -> None:
        """Leave a call behind. A read is answered at once by a host that lives; a change may wait for others of its VM."""
        if kind is Kind.READ:
            self._late[job] = begun_s
        job.answer.add_done_callback(lambda answer: self._back(job, answer))

    def _back(self, job: _Job[Any], answer: asyncio.Future[Any]) -> None:
        self._late.pop(job, None)
        if not answer.cancelled():
            # Asked for, so that the event loop does not complain of a failure that nobody waits for any more.
            answer.exception()

    async def close(self) -> None:
        """Close the connections, within a moment; what hangs is left behind."""

        def work(_: object) -> None:
            self._calls.close()
            self._saves.close()

        with suppress(UnreachedError, UnansweredError, FailedError):
            await self._closing(work)

    async def _closing(self, work: Callable[[Any], None]) -> None:
        job = _Job(work)
        loop = asyncio.get_running_loop()
        threading.Thread(target=_settle, args=(job, lambda: None, loop), daemon=True).start()
        await asyncio.wait((job.answer,), timeout=CLOSING_S)


def _settle(
    job: _Job[Any],
    connection_of: Callable[[], Any],
    loop: asyncio.AbstractEventLoop,
    drop: Callable[[Any], None] = lambda _: None,
) -> None:
    """Make a call, in its thread, and say in the event loop what came of it."""
    result: Any = None
    problem: BaseException | None = None
    connection: Any = None
    try:
        connection = connection_of()
        if job.begin():
            result = job.call(connection)
    except Exception as error:  # noqa: BLE001 - whatever happens here must reach the one who waits
        problem, ended = _told(error, begun=job.begun)
        if ended and connection is not None:
            drop(connection)
    # The loop may be closed by the time a call that was left behind comes back.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_answer, job.answer, result, problem)


def _answer(answer: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if answer.done():
        return
    if problem is None:
        answer.set_result(result)
    else:
        answer.set_exception(problem)


def _told(error: Exception, *, begun: bool) -> tuple[BaseException, bool]:
    """What is raised for an error in the thread, and whether it ends the connection."""
    found = error_of(error)
    if found is None:
        return error, False
    failed = failure(*found)
    if not begun:
        denied = failed.kind is OutcomeKind.DENIED
        return UnreachedError(shorten(f"{failed.message}{advice(failed)}"), denied=denied), False
    return FailedError(failed), lost(*found)


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except Exception as error:
        if error_of(error) is None:
            raise
        return False


def _close(connection: Any) -> None:
    try:
        connection.close()
    except Exception as error:
        if error_of(error) is None:
            raise
