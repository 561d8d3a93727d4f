"""Bounds one call in time, whatever the adapter does.

Why not `asyncio.timeout`: it waits until the cancelled call has ended, so a call that swallows its cancellation would block
every fleet. Here the caller continues, and the call is left to end on its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from autoscaler.at_once import Begun, CompletedCall, begun

T = TypeVar("T")


async def within(call: Callable[[], Awaitable[T]], timeout_s: float, *, at_once: bool = False) -> T:
    """Make a call within a time limit, and return its result.

    Args:
        call: Makes the call.
        timeout_s: Longest wait, in seconds of the event loop.
        at_once: Whether the adapter may be called in this task; see `autoscaler.at_once`.

    Raises:
        TimeoutError: The call did not end in time; it was cancelled and left behind.
        RuntimeError: The call was cancelled from within.
        Exception: Whatever the call itself raises.
    """
    task = begun(call, at_once=at_once)
    if isinstance(task, asyncio.Future) and not task.done():
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
    return ended(task)


def ended(task: Begun[T]) -> T:
    """Return the result of a call that was waited for; cancel the call and leave it behind if it has not ended.

    Raises:
        TimeoutError: The call has not ended.
        RuntimeError: The call was cancelled from within.
        Exception: Whatever the call itself raised.
    """
    if isinstance(task, CompletedCall):
        if task.error is None:
            answer: T = task.answer
            return answer
    elif not task.done():
        task.add_done_callback(_forget)
        task.cancel()
        raise TimeoutError
    if task.cancelled():
        # A cancellation from inside the adapter must not end the loop that waits for the call.
        raise RuntimeError("the call was cancelled from within")
    return task.result()


def _forget(task: asyncio.Future[T]) -> None:
    """Retrieve a late exception, or the event loop logs that it was never retrieved."""
    if not task.cancelled():
        task.exception()


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Make a call in a thread of its own, called `name`, that holds up neither the loop nor the end of the process."""
    answer: Future[T] = Future()

    def run() -> None:
        answer.set_running_or_notify_cancel()
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001  raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
