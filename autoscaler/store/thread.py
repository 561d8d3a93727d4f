"""The journal's own thread: runs one call after another, and shutdown does not wait for it.

Why not a thread pool: its threads are joined when the interpreter exits, so a disk that hangs would block a process that has
written everything and has nothing left to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeAlias, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class OneThread(Executor):
    """An executor with one daemon thread, which does not keep the process alive.

    Args:
        name: Name of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Schedule a call, to run after all earlier ones."""
        future: Future[_T] = Future()
        self._calls.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the thread end after the calls it was given; never waits."""
        del wait, cancel_futures
        self._calls.put(None)


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (given := calls.get()) is not None:
        future, call = given
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  it belongs to whoever waits for the call
            future.set_exception(error)
