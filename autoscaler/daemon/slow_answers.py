"""Lets adapters that answer slowly rest, if what they are asked can wait.

Why: all fleets are decided on together, once everything has been observed. A balancer that hangs while VMs drain, or a provider
that does not say whether a VM is ready for the warm pool, would delay every start by seconds, tick after tick. Asking less
often loses nothing: VMs only leave, or enter the pool, later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

REST_S = 30.0
"""How long an adapter rests after slow answers, in seconds of the event loop."""


class SlowAnswers:
    """Tracks how long the adapter of one fleet takes to answer. Times are in seconds of the event loop."""

    def __init__(self) -> None:
        self._rests_until_s = float("-inf")
        self._over_s = float("inf")

    def rests(self) -> bool:
        """Return whether the adapter rests, so that it is not asked now."""
        return asyncio.get_running_loop().time() < self._rests_until_s

    def is_over(self) -> bool:
        """Return whether the questions of this tick have used up the time of one question, so that no more are asked."""
        return asyncio.get_running_loop().time() >= self._over_s

    @contextmanager
    def timed(self, timeout_s: float) -> Iterator[SlowAnswers]:
        """Time the questions of one tick; if they use up the time of one question, the adapter rests.

        Args:
            timeout_s: Longest time of one question.
        """
        self._over_s = asyncio.get_running_loop().time() + timeout_s
        try:
            yield self
        finally:
            if self.is_over():
                self._rests_until_s = asyncio.get_running_loop().time() + REST_S
