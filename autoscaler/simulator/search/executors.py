"""Where the parts of a sweep run: in this process, or in several processes on this machine.

An executor has one method: `run(work, shared, parts)` yields the outcome of each part, in any order. A part is a value that
can be sent to another process, and its result depends on nothing else, so it is the same to the bit wherever it is computed.

A process that dies loses only the part it was computing. The part is named in the result, and a new process takes its place.
Processes are spawned, never forked. They end when their pipe closes, so a killed parent leaves none behind.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from autoscaler.errors import AutoscalerError, ConfigError

Work = Callable[[Any, Any], Any]
"""A function at the top level of a module; its arguments are the value shared by all parts, and one part."""


@dataclass(frozen=True, slots=True)
class LostPart:
    """The outcome of a part that has no result.

    Attributes:
        why: The reason, in words.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome of a part.

    Attributes:
        number: Number of the part, from 0.
        result: Its result, or `Lost`.
    """

    number: int
    result: Any


class Executor(Protocol):
    """Computes the parts of a sweep."""

    def run(self, work: Work, shared: Any, parts: Sequence[Any]) -> Iterator[Finished]:
        """Yield the outcome of every part as soon as it is known. Closing the iterator ends what is running."""
        ...


class SameProcess:
    """Computes parts in this process, one after the other."""

    def run(self, work: Work, shared: Any, parts: Sequence[Any]) -> Iterator[Finished]:
        """Compute each part in order (see `Executor.run`); exceptions of a part are raised unchanged."""
        for number, part in enumerate(parts):
            yield Finished(number, work(shared, part))


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    part: int | None = None


class Processes:
    """Computes parts in several processes on this machine.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ConfigError(f"a sweep needs at least one process, not {count}")
        self._count = count
        self._context = multiprocessing.get_context("spawn")

    def run(self, work: Work, shared: Any, parts: Sequence[Any]) -> Iterator[Finished]:
        """Compute all parts (see `Executor.run`).

        Raises:
            AutoscalerError: A part raised it; results of other parts may have been yielded before.
        """
        waiting = list(range(len(parts)))[::-1]
        workers = [self._start(work, shared) for _ in range(min(self._count, len(parts)))]
        try:
            for worker in workers:
                self._give(worker, waiting, parts)
            while any(worker.part is not None for worker in workers):
                busy = {worker.pipe: worker for worker in workers if worker.part is not None}
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    yield self._heard(worker)
                    if not worker.process.is_alive() and waiting:
                        workers.remove(worker)
                        worker = self._start(work, shared)
                        workers.append(worker)
                    self._give(worker, waiting, parts)
        finally:
            for worker in workers:
                worker.pipe.close()
            for worker in workers:
                worker.process.terminate()
                worker.process.join()

    def _start(self, work: Work, shared: Any) -> _Worker:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, mine)
        _send(worker, shared)
        return worker

    @staticmethod
    def _give(worker: _Worker, waiting: list[int], parts: Sequence[Any]) -> None:
        worker.part = waiting.pop() if waiting else None
        if worker.part is not None:
            _send(worker, parts[worker.part])

    @staticmethod
    def _heard(worker: _Worker) -> Finished:
        assert worker.part is not None
        try:
            result = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            return Finished(worker.part, LostPart(f"its process ended {how}"))
        if isinstance(result, BaseException):
            raise result
        return Finished(worker.part, result)


def _send(worker: _Worker, what: Any) -> None:
    """Send a value. If the other end is gone, this is noticed when its answer is awaited."""
    try:
        worker.pipe.send(what)
    except (BrokenPipeError, ConnectionResetError):
        return


def _serve(pipe: Connection, work: Work) -> None:
    """Run in a process: receive the shared value, then compute parts until the pipe closes."""
    try:
        shared = pipe.recv()
        while True:
            part = pipe.recv()
            try:
                result: Any = work(shared, part)
            except AutoscalerError as error:
                result = error
            pipe.send(result)
    except (EOFError, OSError, KeyboardInterrupt):
        return
