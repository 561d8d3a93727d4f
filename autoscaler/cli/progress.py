"""What long commands share: a bar on anything over two seconds, and Ctrl-C that keeps what is finished.

Rules of this file: a bar goes to standard error and only where that is a terminal; programs see nothing of it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

SILENT_S = 2.0
"""What is done sooner shows no bar."""


class Bar:
    """A bar that appears once something has taken two seconds, whether it tells how far it is or not.

    Args:
        text: What is being done.
        quiet: Never show it.
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
        """Tell the share that is done, from 0 to 1."""
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
            # Without a total the bar moves to and fro: something is done, and nobody knows how far it is.
            total = None if self._share is None else 1.0
            task = self._shown.add_task(self._text, total=total)
            self._shown.update(task, completed=self._share or 0.0)
            self._shown.start()


class Interruption:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.pressed


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """The first Ctrl-C asks to end with what is finished, the second ends at once."""
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
