"""Garbage collection in steps that are short enough for the event loop.

Why: Python's collector examines young objects when allocations outrun deallocations, and now and then all objects. With
20,000 VMs a full collection holds the loop for 80 to 180 ms, and the rows of one listing alone for 15 to 30 ms. While 10,000
VMs are scraped, allocations and deallocations balance, so the collector waits until everything held by the connections has
been renewed, and then needs 60 ms. So young objects are collected every few milliseconds during a tick, the collector never
does a full collection by itself, and whatever exists between two ticks is hidden from it (`gc.freeze`). Objects are freed
without the collector unless they form a cycle; most cycles are found while they are young. The others, for example those of
abandoned calls, are collected a few times a day, between two ticks, and sooner if they may be many: that holds the loop for
as long as a full collection takes.

Rules of this file: nothing waits here; `daemon.lifecycle` says when.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

_NEVER = 1_000_000_000
_THRESHOLDS = (700, 10, _NEVER)
"""The usual ones of Python 3.11 for the young generations. Those before `begin` may be others: starting a program has its own."""
_OLDER = 1
"""The oldest generation that is collected during ticks and between them: some thousand objects."""
_YOUNGEST_LOOKS = 4
"""Of this many collections during ticks, one includes the next generation."""
_LOOKED_AT_EVERY_S = 600.0
"""Time between two counts of the hidden objects, in seconds; a count takes some milliseconds."""
_FULLY_EVERY_S = 6 * 3600.0
"""Time between two full collections, in seconds, so that cycles do not pile up from day to day."""
_MANY_MORE = 300_000
"""A full collection is due when the hidden objects exceed twice those after the last one by this many: about 50 MB."""


@dataclass(slots=True)
class GarbageCollection:
    """Controls the garbage collector of this process, from `begin` to `end`."""

    _thresholds: tuple[int, int, int] = field(default_factory=gc.get_threshold)
    _hidden: int = 0
    """Number of objects hidden from the collector after the last full collection."""
    _counted_at_s: float = float("-inf")
    _fully_at_s: float | None = None
    _looks: int = 0

    def begin(self) -> None:
        """Hide all present objects, and let the collector do full collections only when told to.

        The first full collection is left to `between_ticks`, because it would delay the first tick by about 100 ms.
        """
        gc.set_threshold(*_THRESHOLDS)
        gc.freeze()

    def within_a_tick(self) -> None:
        """Collect the youngest generation, and every few times the next one too."""
        self._looks += 1
        gc.collect(_OLDER if self._looks % _YOUNGEST_LOOKS == 0 else 0)

    def between_ticks(self, now_s: float) -> None:
        """Collect the young generations, and hide the objects that remain.

        The first time, and now and then, a full collection follows.

        Args:
            now_s: The time of any clock that does not jump.
        """
        gc.collect(_OLDER)
        gc.freeze()
        if now_s - self._counted_at_s < _LOOKED_AT_EVERY_S:
            return
        self._counted_at_s = now_s
        is_due = self._fully_at_s is None or now_s - self._fully_at_s >= _FULLY_EVERY_S
        if is_due or gc.get_freeze_count() > 2 * self._hidden + _MANY_MORE:
            self._fully_at_s = now_s
            self._fully()

    def end(self) -> None:
        """Restore the collector's state from before `begin`."""
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _fully(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._hidden = gc.get_freeze_count()
