"""Runs calls that may complete without waiting inline, so that an immediate answer costs no task.

Why: on virtual time nothing waits for a socket, and a task for every listing, reading and write took a third of a tick.

Rules of this file: only calls of an adapter that declares this are begun this way. Whatever such an adapter does before its first wait
runs in the caller's task, so it must not ask which task it is in, as the timeouts of asyncio and aiohttp do. A call that waits after all
continues in a task of its own, like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


class Answered(Generic[T]):
    """An answer at hand, or why there is none: what callers ask of a future, without an event loop behind it."""

    __slots__ = ("answer", "error")

    def __init__(self, answer: T | None = None, error: BaseException | None = None) -> None:
        self.answer: Any = answer
        """The answer, where there is no error."""
        self.error = error

    def done(self) -> bool:
        """It is."""
        return True

    def cancelled(self) -> bool:
        """Whether the call was cancelled from within."""
        return isinstance(self.error, asyncio.CancelledError)

    def result(self) -> T:
        """The answer; raises where there is none."""
        if self.error is not None:
            raise self.error
        answer: T = self.answer
        return answer


Begun: TypeAlias = "asyncio.Future[T] | Answered[T]"
"""A call that was begun."""


def answers_at_once(adapter: object) -> bool:
    """Whether the calls of an adapter may be begun in the caller's task: its `answers_at_once` says so."""
    return getattr(adapter, "answers_at_once", False) is True


def begun(call: Callable[[], Awaitable[T]], *, at_once: bool) -> Begun[T]:
    """The call under way, or its answer.

    Args:
        call: Makes the call.
        at_once: Begin it here; otherwise it begins in a task of its own when the caller waits.

    Raises:
        Exception: What `call` raises before there is anything to wait for.
    """
    coroutine = call()
    if not (at_once and isinstance(coroutine, CoroutineType)):
        return asyncio.ensure_future(coroutine)
    try:
        waits_for = coroutine.send(None)
    except StopIteration as ended:
        return Answered(ended.value)
    except asyncio.CancelledError as cancelled:
        return Answered(error=cancelled)
    except Exception as error:  # noqa: BLE001  it is the caller's, who fetches it from the answer
        return Answered(error=error)
    return asyncio.ensure_future(_Begun(coroutine, waits_for))


class _Begun(Coroutine[Any, Any, T]):
    """A coroutine that was begun elsewhere, for a task to go on with; it waits for something already."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._told = False

    def send(self, value: Any) -> Any:
        """The first time tell the task what is waited for; then go on."""
        if not self._told:
            self._told = True
            return self._waits_for
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """A cancellation, which may come before the task has taken its first step."""
        self._told = True
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it where it waits."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        """Not awaited: tasks step it."""
        raise NotImplementedError
