"""One host: its connections, and calls on them with time limits.

libvirt's calls block, and a host that hangs never answers. So each call runs in a thread of its own, which is abandoned when
its time is over. If a read is late, the host is not asked anything else until that read returns, and other calls fail at once.
Threads are daemonic, so a hanging one does not keep the program from ending.

Rules: a function passed to `ask` runs in a thread. It may touch only its connection and objects with a lock of their own.
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
"""Most changes at the same time on one host. libvirtd takes five calls of a connection at once, and listings must not wait."""
SAVES_AT_ONCE: Final = 2
"""Most memories saved at the same time on one host, which is as many as its disk can take."""
CLOSING_S: Final = 2.0


class Kind(StrEnum):
    """Kind of a call, which decides its connection, and how many of the kind may run at once."""

    READ = "read"
    """A healthy host answers at once, so if one is late, the host is left alone until it returns."""
    CHANGE = "change"
    """May wait within libvirtd for other work on the VM. Several run at once."""
    GUEST = "guest"
    """Asks a guest, which may never answer. One runs at a time, on the connection for saves."""
    SAVE = "save"
    """Writes a memory to disk. A few run at once, on a connection of their own."""


class UnreachedError(Exception):
    """The host could not be asked; nothing was done.

    Args:
        message: Message for a person.
        denied: Whether the host refused us access.
    """

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


class UnansweredError(Exception):
    """The host was asked and did not answer in time; the request may have been carried out."""


class FailedError(Exception):
    """The host reported a failure, or the connection ended during the call."""

    def __init__(self, failed: Failure) -> None:
        super().__init__(str(failed))
        self.failure = failed


class _Job(Generic[T]):
    """A call that is either begun or given up, never both."""

    def __init__(self, call: Callable[[Any], T]) -> None:
        self.call = call
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lock = threading.Lock()
        self._begun = self._over = False

    @property
    def begun(self) -> bool:
        return self._begun

    def begin(self) -> bool:
        """Mark the call as begun, and return whether it may be made: it may not if it was given up."""
        with self._lock:
            self._begun = not self._over
            return self._begun

    def give_up(self) -> bool:
        """Make sure that the call does not begin from now on, and return whether it has begun already."""
        with self._lock:
            self._over = True
            return self._begun


Greet = Callable[[Any], Callable[[], None]]
"""Function that prepares a new connection, in its thread. The function that it returns runs before the connection is closed."""


def _no_farewell() -> None:
    pass


def _nothing(_connection: Any) -> Callable[[], None]:
    return _no_farewell


class _Line:
    """A connection that is opened when it is first needed, and again after it has ended."""

    def __init__(self, uri: str, connect: Callable[[str], Any], greet: Greet = _nothing) -> None:
        self._uri, self._connect, self._greet = uri, connect, greet
        self._lock = threading.Lock()
        self._connection: Any = None
        self._farewell: Callable[[], None] = _no_farewell

    def connection(self) -> Any:
        """Return the open connection. Blocks for as long as the host takes."""
        with self._lock:
            if self._connection is not None and not _alive(self._connection):
                self.drop(self._connection)
            if self._connection is None:
                self._connection = self._connect(self._uri)
                self._farewell = self._greet(self._connection)
            return self._connection

    def drop(self, connection: Any) -> None:
        """Close the connection if it is still the current one."""
        if self._connection is connection:
            self.close()

    def close(self) -> None:
        """Close the connection. Blocks for as long as the host takes."""
        connection, self._connection = self._connection, None
        farewell, self._farewell = self._farewell, _no_farewell
        if connection is not None:
            # Registered callbacks keep a connection from closing.
            farewell()
            _close(connection)


class Host:
    """One hypervisor host, and bounded calls on it.

    Args:
        name: Name of the host, which is the zone of its VMs.
        uri: libvirt URI of the host.
        connect: Opens a connection, in a thread.
        clock: Clock that tells for how long the host has not answered.
        greet: Prepares each new connection for calls.
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
        """Lock that is held while tags are read, changed and written back."""

    async def ask(
        self, call: Callable[[Any], T], limit_s: float, kind: Kind = Kind.READ, *, turn_s: float = 0.0
    ) -> T:
        """Run a function with a connection to this host, in a thread, and return its result.

        Args:
            call: Blocking function that gets the connection.
            limit_s: Longest wait for its result, in seconds.
            kind: Kind of the call.
            turn_s: Longest wait for its turn, in seconds, if the kind is limited in number.

        Raises:
            UnreachedError: The call was not made.
            UnansweredError: The call was made and has not returned yet.
            FailedError: The call was made and failed. If the connection has ended, the outcome is UNKNOWN.
            RefusedError: Raised by the call itself.
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
            # A turn ends when the call returns, not when the wait for it ends.
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
        """Abandon a call. Only a late read marks the host as hanging; a change may wait for other work on its VM."""
        if kind is Kind.READ:
            self._late[job] = begun_s
        job.answer.add_done_callback(lambda answer: self._back(job, answer))

    def _back(self, job: _Job[Any], answer: asyncio.Future[Any]) -> None:
        self._late.pop(job, None)
        if not answer.cancelled():
            # Retrieve the exception, so that the event loop does not report a failure that is no longer waited for.
            answer.exception()

    async def close(self) -> None:
        """Close the connections, within CLOSING_S; one that hangs is abandoned."""

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
    """Make a call in its thread, and report its result in the event loop."""
    result: Any = None
    problem: BaseException | None = None
    connection: Any = None
    try:
        connection = connection_of()
        if job.begin():
            result = job.call(connection)
    except Exception as error:  # noqa: BLE001 - every failure must reach the waiting caller
        problem, ended = _told(error, begun=job.begun)
        if ended and connection is not None:
            drop(connection)
    # The loop may be closed by the time an abandoned call returns.
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
    """The exception to raise for an error in the thread, and whether the error has ended the connection."""
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
