"""Calls that may be answered without waiting: begun where they are made, so that an answer at hand costs no task.

Why it exists: on virtual time nothing waits for a socket, and a task for every listing, reading and write was a
third of a tick.

Rules of this file: only calls of an adapter that says so are begun this way. What such an adapter does before
its first wait is done as the caller's task, so it must not ask which task it is in, as timeouts of asyncio and
aiohttp do. A call that waits after all goes on in a task of its own, like any other.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import iscoroutine
from typing import Any, TypeVar

T = TypeVar("T")


def answers_at_once(adapter: object) -> bool:
    """Whether the calls of an adapter may be begun in the caller's task: its `answers_at_once` says so."""
    return getattr(adapter, "answers_at_once", False) is True


def begun(call: Callable[[], Awaitable[T]], *, at_once: bool) -> asyncio.Future[T]:
    """The call under way, or its answer.

    Args:
        call: Makes the call.
        at_once: Begin it here; otherwise it begins in a task of its own when the caller waits.

    Raises:
        Exception: What `call` raises before there is anything to wait for.
    """
    coroutine = call()
    if not (at_once and iscoroutine(coroutine)):
        return asyncio.ensure_future(coroutine)
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    try:
        waits_for = coroutine.send(None)
    except StopIteration as ended:
        answer.set_result(ended.value)
    except asyncio.CancelledError:
        answer.cancel()
    except Exception as error:  # noqa: BLE001  it is the caller's, who fetches it from the future
        answer.set_exception(error)
    else:
        return asyncio.ensure_future(_go_on(coroutine, waits_for))
    return answer


async def _go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> T:
    return await _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """The rest of a coroutine that was begun elsewhere and waits for this."""
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001  a cancellation above all
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(sent)
    except StopIteration as ended:
        result: T = ended.value
        return result
