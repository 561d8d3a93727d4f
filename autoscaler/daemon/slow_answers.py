"""Questions that a tick asks before it decides, and that can wait: those that take long are not asked again at once.

Why: all fleets are decided on together once everything was observed. A balancer that hangs while VMs drain, or a provider that
does not say whether a VM is ready for the warm pool, would delay every start by seconds, tick after tick. Nothing is lost
if it is asked less often: VMs only leave, or enter the pool, later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

REST_S = 30.0
"""How long an adapter that took long is asked nothing, in seconds of the event loop."""


class SlowAnswers:
    """Whether the adapter of one fleet took long, and rests. Times are seconds of the event loop."""

    def __init__(self) -> None:
        self._rests_until_s = float("-inf")
        self._over_s = float("inf")

    def rests(self) -> bool:
        """Return whether the adapter took long a short while ago, so that it is not asked now."""
        return asyncio.get_running_loop().time() < self._rests_until_s

    def is_over(self) -> bool:
        """Return whether the present questions have taken as long as one may, so that no further one is asked."""
        return asyncio.get_running_loop().time() >= self._over_s

    @contextmanager
    def timed(self, timeout_s: float) -> Iterator[SlowAnswers]:
        """Time the questions of one tick; if they take as long as one of them may, the adapter rests.

        Args:
            timeout_s: Longest time of one question.
        """
        self._over_s = asyncio.get_running_loop().time() + timeout_s
        try:
            yield self
        finally:
            if self.is_over():
                self._rests_until_s = asyncio.get_running_loop().time() + REST_S
