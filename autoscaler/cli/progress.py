"""Progress of long commands: a bar after two seconds, and Ctrl-C keeps what is finished.

Rules of this file: a bar goes to standard error, and only to a terminal. Elsewhere, a command that may take an hour prints
a line now and then (`Lines`). Nothing is written to standard output.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self

import typer

from autoscaler.simulator.report.wording import span

if TYPE_CHECKING:
    from rich.progress import Progress

    from autoscaler.ports.time import Clock

SILENT_S = 2.0
"""Seconds before a bar appears; shorter work shows none."""
APART_S = 20.0
"""Shortest time between two lines of `Lines`, seconds."""


class Bar:
    """Context with a progress bar, which appears after two seconds even if no progress has been reported.

    Args:
        text: The work in progress.
        quiet: Never show the bar.
    """

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        self._text = text
        self._silent = quiet or not sys.stderr.isatty()
        self._share: float | None = None
        self._shown: Progress | None = None
        self._turn = threading.Lock()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if not self._silent:
            self._timer = threading.Timer(SILENT_S, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._turn:
            self._silent = True
            if self._shown is not None:
                self._shown.stop()
                self._shown = None

    def __call__(self, share: float) -> None:
        """Report the finished share of the work, from 0 to 1."""
        if self._silent:
            return
        with self._turn:
            self._share = share
            if self._shown is not None:
                self._shown.update(self._shown.task_ids[0], completed=share, total=1.0)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        with self._turn:
            if self._silent:
                return
            self._shown = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            # Without a total the bar moves to and fro: work is in progress, but its share is unknown.
            total = None if self._share is None else 1.0
            task = self._shown.add_task(self._text, total=total)
            self._shown.update(task, completed=self._share or 0.0)
            self._shown.start()


class Lines:
    """Reports progress in a line now and then, for a log or a pipe, where a bar cannot be shown.

    Args:
        text: The work in progress; printed at once.
        clock: Measures the elapsed time.
        quiet: Print nothing.
    """

    def __init__(self, text: str, clock: Clock, *, quiet: bool = False) -> None:
        self._text = text
        self._clock = clock
        self._silent = quiet or sys.stderr.isatty()
        self._began_s = self._told_s = clock.monotonic()
        if not self._silent:
            typer.echo(f"{text} …", err=True)

    def __call__(self, share: float) -> None:
        """Report the finished share of the work, from 0 to 1."""
        now_s = self._clock.monotonic()
        if self._silent or share >= 1.0 or now_s - self._told_s < APART_S:
            return
        self._told_s = now_s
        typer.echo(f"{self._text}: {share:.0%} done after {span(now_s - self._began_s)}", err=True)


class Interruption:
    """Records whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self) -> bool:
        """Return whether the work should end now."""
        return self.pressed


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Context in which the first Ctrl-C asks to end with the finished part, and the second ends at once."""
    asked = Interruption()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        if asked.pressed:
            raise KeyboardInterrupt
        asked.pressed = True

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
