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


class CompletedCall(Generic[T]):
    """A result that is already known, or an error, with the part of a future's interface that callers use."""

    __slots__ = ("answer", "error")

    def __init__(self, answer: T | None = None, error: BaseException | None = None) -> None:
        self.answer: Any = answer
        """The result, if there is no error."""
        self.error = error

    def done(self) -> bool:
        """Always true."""
        return True

    def cancelled(self) -> bool:
        """Whether the call ended with a CancelledError of its own."""
        return isinstance(self.error, asyncio.CancelledError)

    def result(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        answer: T = self.answer
        return answer


Begun: TypeAlias = "asyncio.Future[T] | CompletedCall[T]"
"""A started call: a future, or its result if it is already known."""


def answers_at_once(adapter: object) -> bool:
    """Whether an adapter declares that its calls may be started in the caller's task."""
    return getattr(adapter, "answers_at_once", False) is True


def begun(call: Callable[[], Awaitable[T]], *, at_once: bool) -> Begun[T]:
    """Start a call; return a future, or the result if it completed without waiting.

    Args:
        call: Function that makes the awaitable.
        at_once: Whether to run it here up to its first wait; otherwise it runs in a task of its own.

    Raises:
        Exception: Whatever `call` itself raises; errors of the awaitable are in the result.
    """
    coroutine = call()
    if not (at_once and isinstance(coroutine, CoroutineType)):
        return asyncio.ensure_future(coroutine)
    try:
        waits_for = coroutine.send(None)
    except StopIteration as ended:
        return CompletedCall(ended.value)
    except asyncio.CancelledError as cancelled:
        return CompletedCall(error=cancelled)
    except Exception as error:  # noqa: BLE001  it is the caller's, who fetches it from the answer
        return CompletedCall(error=error)
    return asyncio.ensure_future(_Begun(coroutine, waits_for))


class _Begun(Coroutine[Any, Any, T]):
    """Wraps a coroutine that has already run up to its first wait, so that a task can continue it."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._passed_on = False

    def send(self, value: Any) -> Any:
        """On the first step, pass on what the coroutine already waits for; later, resume the coroutine."""
        if not self._passed_on:
            self._passed_on = True
            return self._waits_for
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error in the coroutine, such as a cancellation, possibly before the first step."""
        self._passed_on = True
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        """Not supported: tasks step this object directly."""
        raise NotImplementedError
