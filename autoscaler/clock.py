"""Implementations of the Clock port: system, scaled and virtual time.

This is the only module that reads the machine's clock or sleeps; everything else is given a Clock, so that
the same daemon runs live, accelerated, or on a clock that jumps. The virtual clock exists only inside
`run_virtual`, whose event loop has no real waiting at all: timeouts, sleeps and deadlines of asyncio all see
virtual time. It cannot wait for sockets or threads, which is why it must not meet a real cloud.
"""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from autoscaler.errors import InvariantError

T = TypeVar("T")

_THREAD_GRACE_S = 5.0


async def give_way() -> None:
    """Yield to the event loop in the middle of long work, so that everything else that is ready runs first."""
    await asyncio.sleep(0)


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Epoch seconds; jumps when the machine's clock is set."""
        return time.time()

    def monotonic(self) -> float:
        """The machine's monotonic seconds."""
        return time.monotonic()

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once `monotonic()` has reached `monotonic_s`."""
        await asyncio.sleep(max(0.0, monotonic_s - time.monotonic()))


class ScaledClock:
    """A clock that runs `speed` times as fast as the machine's, from a chosen moment.

    Processes on one machine agree on the time if they are given the same three arguments, because they share the
    machine's monotonic clock.

    Args:
        origin_s: Epoch seconds that this clock shows at the start.
        speed: Seconds of this clock per second of the machine; positive.
        origin_monotonic_s: The machine's monotonic clock at the start; None means now.
    """

    def __init__(self, origin_s: float, speed: float, origin_monotonic_s: float | None = None) -> None:
        if not speed > 0:
            msg = f"the speed of a clock must be positive, not {speed}"
            raise ValueError(msg)
        self.origin_s = origin_s
        self.speed = speed
        self.origin_monotonic_s = time.monotonic() if origin_monotonic_s is None else origin_monotonic_s

    def now(self) -> float:
        """Epoch seconds of the scaled time."""
        return self.origin_s + self.monotonic()

    def monotonic(self) -> float:
        """Scaled seconds since the origin."""
        return (time.monotonic() - self.origin_monotonic_s) * self.speed

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once `monotonic()` has reached `monotonic_s`."""
        await asyncio.sleep(max(0.0, (monotonic_s - self.monotonic()) / self.speed))


class VirtualClock:
    """A clock that stands still while code runs and jumps to the next deadline when all tasks wait.

    It works only inside `run_virtual`.

    Args:
        origin_s: Epoch seconds at the start of the run.
    """

    def __init__(self, origin_s: float = 0.0) -> None:
        self.origin_s = origin_s
        self._jump: _JumpSelector | None = None

    def now(self) -> float:
        """Epoch seconds of the virtual time."""
        jump = self._jump
        if jump is None or jump.is_over:
            jump = self._of_the_run()
        return self.origin_s + jump.time_s

    def monotonic(self) -> float:
        """Virtual seconds since the start of the run."""
        jump = self._jump
        if jump is None or jump.is_over:
            jump = self._of_the_run()
        return jump.time_s

    def _of_the_run(self) -> _JumpSelector:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, _VirtualLoop):
            raise InvariantError("a VirtualClock works only inside run_virtual")
        self._jump = loop.jump
        return loop.jump

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once `monotonic()` has reached `monotonic_s`; takes no real time."""
        if monotonic_s <= self.monotonic():
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        # Like `asyncio.sleep`, but it does not cancel a timer that has already run.
        timer = loop.call_at(monotonic_s, _end, over)
        try:
            await over
        except BaseException:
            timer.cancel()
            raise

    def jumps_to(self, monotonic_s: float) -> bool:
        """Advance time to `monotonic_s` at once, if nothing else would happen before then.

        For a task that would sleep until then. A task started by one that keeps running must not call this.

        Returns:
            Whether time was advanced; if not, nothing has changed, and the task has to sleep.
        """
        loop = asyncio.get_running_loop()
        return (
            monotonic_s > self.monotonic() and isinstance(loop, _VirtualLoop) and loop.jumps_to(monotonic_s)
        )


def _end(sleep: asyncio.Future[None]) -> None:
    if not sleep.done():
        sleep.set_result(None)


_RESOLUTION_S = 1e-9
"""Timers that are at most this far apart are due together."""


class _JumpSelector(selectors.DefaultSelector):
    """A selector that never waits: if the loop would wait for its next timer, it advances time to it instead."""

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 0.0
        self.resolution_s = _RESOLUTION_S
        self.is_over = False

    def close(self) -> None:
        self.is_over = True
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            # Callbacks are ready, including those from other threads; nothing else may be waited for.
            return []
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            # No timer is set: only another thread (a closing executor) can wake the loop now.
            ready = super().select(_THREAD_GRACE_S)
            if not ready:
                raise InvariantError(
                    "virtual time stands still: every task waits for something without a timer"
                )
            return ready
        self.move(max(timeout, 0.0))
        return ready

    def move(self, by_s: float) -> None:
        """Advance time by `by_s` seconds."""
        self.time_s += by_s
        # After half a year the fixed resolution is below rounding error, and no timer would ever be due.
        self.resolution_s = max(_RESOLUTION_S, math.ulp(self.time_s))


_JUMPS_IN_A_ROW = 32
"""Most jumps without a turn of the event loop, which checks for signals and sockets."""
_LONGEST_JUMP_S = 24 * 3600.0
"""The longest that asyncio waits in one turn."""


class _VirtualLoop(asyncio.SelectorEventLoop):
    # asyncio's own attributes: callbacks to run in this turn, the heap of timers, and whether the loop shall stop.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        self.jump = _JumpSelector()
        self._jumps = 0
        super().__init__(self.jump)

    @property
    def _clock_resolution(self) -> float:
        return self.jump.resolution_s

    @_clock_resolution.setter
    def _clock_resolution(self, of_the_machine_s: float) -> None:
        """Ignored: virtual time has its own resolution."""

    def jumps_to(self, time_s: float) -> bool:
        """See `VirtualClock.jumps_to`. Suspending a task only for its own timer took a tenth of a quiet tick."""
        jump, scheduled = self.jump, self._scheduled
        self._jumps += 1
        task = asyncio.current_task(self)
        if (
            self._jumps > _JUMPS_IN_A_ROW
            or self._ready
            or self._stopping
            or (scheduled and scheduled[0].when() <= time_s + _RESOLUTION_S)
            or time_s - jump.time_s > _LONGEST_JUMP_S
            # A cancelled task gets the error only when it waits.
            or task is None
            or task.cancelling()
        ):
            self._jumps = 0
            return False
        # Advance exactly as turns of the loop would, to the bit.
        jump.move(time_s - jump.time_s)
        while time_s >= jump.time_s + jump.resolution_s:
            jump.move(time_s - jump.time_s)
        return True

    def time(self) -> float:
        return self.jump.time_s


already_hidden: ContextVar[bool] = ContextVar("already_hidden", default=False)
"""Whether the caller of `run_virtual` says that it has hidden its objects from the collector (`gc.freeze`) and keeps them so."""


def run_virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function to completion on virtual time.

    Args:
        main: Called inside the virtual loop; create the VirtualClock and tasks in it.

    Returns:
        The result of `main`.

    Raises:
        InvariantError: Every task waits for something that no timer will bring.
    """

    async def call() -> T:
        return await main()

    # Objects that exist before a run also outlive it; scanning them for garbage again and again took a twentieth of a
    # quiet run. If the caller has frozen them already, they stay frozen; finding that out visits each of them, which takes
    # longer than a short run where they are many, so that callers with many runs should say so.
    hides = not already_hidden.get() and gc.get_freeze_count() == 0
    if hides:
        gc.freeze()
    try:
        with virtual_runner() as runner:
            return runner.run(call())
    finally:
        if hides:
            gc.unfreeze()


def virtual_runner() -> asyncio.Runner:
    """Return a runner for coroutines on virtual time; between two of them, time and all tasks stand still."""
    return asyncio.Runner(loop_factory=_VirtualLoop)
