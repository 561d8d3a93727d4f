"""Combines writes that wait for an earlier one into one write.

Why: each write waits for the disk. On a bad day the calls of hundreds of fleets return at once, and their outcomes, one
after the other, would keep a slow disk busy beyond the tick: the next tick could not be recorded, and its starts would be
held.

Rules of this file: if no write is in progress, a write begins at once. Otherwise items are collected, and written together in
the order in which they came once it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Batch(Generic[T, R]):
    """The items of the next write, and their results once it is done."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self.results: Sequence[R] = ()


class CombinedWrites(Generic[T, R]):
    """Writes each item together with those that came while an earlier write was in progress.

    Args:
        write: Writes items in one transaction and returns one result per item, or none if that failed, which it has
            reported.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._next: _Batch[T, R] = _Batch()

    async def add(self, item: T) -> R | None:
        """Write an item and return its result; None if that failed."""
        batch, place = self._next, len(self._next.items)
        batch.items.append(item)
        async with self._turn:
            if batch is self._next:
                self._next = _Batch()
                batch.results = await self._write(batch.items)
        return batch.results[place] if batch.results else None
