"""Computes a policy's comparisons in a separate process while the policy runs.

Over a month of ticks the rivals take at least as long as the policy, and neither needs the other.

If the policy's own run is most of the work, it is not repeated in the other process. That process then computes only the
rest, which is judged together with the policy's run.

Rules of this file: the result equals that of `rivals_of`, to the bit. The other process ignores Ctrl-C, which is meant for
the main process, and does not outlive it. With one processor, no other process is started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType, TracebackType
from typing import Self, TypeAlias

from autoscaler.errors import AutoscalerError, InvariantError
from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.judging.standings import OwnRun
from autoscaler.simulator.replay.preparing import Replay
from autoscaler.simulator.replay.replaying import Progress, others_of, rivals_beside, rivals_of
from autoscaler.simulator.report.card import Entry

_Found: TypeAlias = "tuple[Entry, ...] | Sums | None"

_LOOK_S = 0.1
"""Seconds between two checks of whether to stop."""
_STEP = 0.01


class RivalsApart:
    """Runs `rivals_of`, or `others_of`, from the moment its context is entered.

    Args:
        replay: The replay of the policy.
        processors: Number of processors; None to ask the machine.
        beside: Whether `result` will be given the results of the policy's own run.
    """

    def __init__(self, replay: Replay, processors: int | None = None, *, beside: bool = False) -> None:
        self._replay = replay
        self._beside = beside
        self._apart = (processors or os.cpu_count() or 1) > 1
        # Forking costs nothing here, while spawning would import everything once more.
        self._context = multiprocessing.get_context("fork")
        self._here, self._there = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=_tell,
            args=(self._replay, self._here, self._there, os.getpid(), beside),
            name="rivals",
            daemon=True,
        )

    def __enter__(self) -> Self:
        if self._apart:
            self._process.start()
        self._there.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._apart:
            self._process.terminate()
            self._process.join()
            self._process.close()
        self._here.close()

    def result(
        self,
        progress: Progress | None = None,
        enough: Callable[[], bool] | None = None,
        own: OwnRun | None = None,
    ) -> tuple[Entry, ...]:
        """Wait for the rivals; empty if either run was stopped before its end.

        Args:
            progress: Called with the share that is done.
            enough: Called now and then; if it returns True, waiting stops.
            own: Results of the policy's own run, if they were announced by `beside`; None if that run was stopped.

        Raises:
            ConfigError: Lanes cannot express the run.
            InvariantError: The process ended without a result.
        """
        found = (
            self._waited(progress, enough)
            if self._apart
            else _work(self._replay, self._beside, progress, enough)
        )
        if not isinstance(found, Sums):
            return found or ()
        return () if own is None else rivals_beside(self._replay, own, found)

    def _waited(self, progress: Progress | None, enough: Callable[[], bool] | None) -> _Found:
        """Wait for the other process's result, passing on its progress; None if waiting is to stop."""
        while not (enough is not None and enough()):
            if not self._here.poll(_LOOK_S):
                continue
            try:
                told = self._here.recv()
            except EOFError:
                self._process.join()
                raise InvariantError(
                    f"the process that computes the baselines ended with exit code {self._process.exitcode} and no result; "
                    "perhaps it was killed for lack of memory"
                ) from None
            if isinstance(told, AutoscalerError):
                raise told
            if isinstance(told, (tuple, Sums)):
                return told
            if progress is not None:
                progress(told)
        return None


def _work(
    replay: Replay,
    beside: bool,
    progress: Progress | None,
    enough: Callable[[], bool] | None,
) -> _Found:
    return others_of(replay, progress, enough) if beside else rivals_of(replay, progress, enough)


def _tell(replay: Replay, here: Connection, there: Connection, parent: int, beside: bool) -> None:
    """Run in the other process: compute, and send progress and the result."""
    _end_with(parent)
    # If this process kept the reader's end open, writes would not fail after the reader was killed.
    here.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    told = -1.0

    def progress(share: float) -> None:
        # Progress is sent rarely, so that the pipe never fills up and this process never waits for the reader.
        nonlocal told
        if share >= told + _STEP or share == 1.0:
            told = share
            there.send(share)

    try:
        there.send(_work(replay, beside, progress, None))
    except AutoscalerError as error:
        there.send(error)
    except BrokenPipeError:
        # The reader is gone.
        return


def _end_with(parent: int) -> None:
    """End this process within a second of its parent, even if the parent is killed before this function runs."""

    def look(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
