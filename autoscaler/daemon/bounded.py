"""Bounds one adapter call in time, whatever the adapter does.

Why not `asyncio.timeout`: it waits until the cancelled call has ended, so a call that swallows its cancellation would block
every fleet. Here the caller continues, and the call is left to end on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from autoscaler.at_once import Answered, Begun, begun

T = TypeVar("T")


async def within(call: Callable[[], Awaitable[T]], timeout_s: float, *, at_once: bool = False) -> T:
    """What the call returns.

    Args:
        call: Makes the call.
        timeout_s: Longest wait, in seconds of the event loop.
        at_once: The adapter may be asked in this task; see `autoscaler.at_once`.

    Raises:
        TimeoutError: It did not end in time; it has been told to.
        RuntimeError: It was cancelled from within.
        Exception: What the call itself raises.
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
    """What a call that was waited for returned; one that has not ended is told to, and left behind.

    Raises:
        TimeoutError: It has not ended.
        RuntimeError: It was cancelled from within.
        Exception: What the call itself raised.
    """
    if isinstance(task, Answered):
        if task.error is None:
            answer: T = task.answer
            return answer
    elif not task.done():
        task.add_done_callback(_forget)
        task.cancel()
        raise TimeoutError
    if task.cancelled():
        # A cancellation that nobody here asked for must not end the loop that waits for the call.
        raise RuntimeError("the call was cancelled from within")
    return task.result()


def _forget(task: asyncio.Future[T]) -> None:
    """Fetch the late result, or else the event loop complains that nobody did."""
    if not task.cancelled():
        task.exception()
