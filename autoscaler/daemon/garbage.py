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
_OLDER = 1
"""The generation that is looked at at last before everything is: some thousand objects."""
_YOUNGEST_LOOKS = 4
"""So often one generation is looked at before the next one is, too."""
_LOOKED_AT_EVERY_S = 600.0
"""How often the hidden objects are counted, which takes some milliseconds."""
_FULLY_EVERY_S = 6 * 3600.0
"""How often everything is looked at, so that what is held in circles does not grow from day to day."""
_MANY_MORE = 300_000
"""So many more hidden objects than twice those of the last full look are worth another one: about 50 MB."""


@dataclass(slots=True)
class Collecting:
    """The collector of this process, from `begin` to `end`."""

    _thresholds: tuple[int, int, int] = field(default_factory=gc.get_threshold)
    _hidden: int = 0
    """Objects out of the collector's sight after the last full look."""
    _counted_at_s: float = float("-inf")
    _fully_at_s: float | None = None
    _looks: int = 0

    def begin(self) -> None:
        """Hide what is there for good, and let the collector look at everything only when told to."""
        young, older, _ = self._thresholds
        gc.set_threshold(young, older, _NEVER)
        self._fully()

    def within_a_tick(self) -> None:
        """Look at what has come since the last time, and at what was young then."""
        self._looks += 1
        gc.collect(_OLDER if self._looks % _YOUNGEST_LOOKS == 0 else 0)

    def between_ticks(self, now_s: float) -> None:
        """Collect what is young, and hide what stays.

        Args:
            now_s: Of any clock that does not jump.
        """
        gc.collect(_OLDER)
        gc.freeze()
        if now_s - self._counted_at_s < _LOOKED_AT_EVERY_S:
            return
        self._counted_at_s = now_s
        if self._fully_at_s is None:
            self._fully_at_s = now_s
        is_due = now_s - self._fully_at_s >= _FULLY_EVERY_S
        if is_due or gc.get_freeze_count() > 2 * self._hidden + _MANY_MORE:
            self._fully_at_s = now_s
            self._fully()

    def end(self) -> None:
        """Leave the collector as it was found."""
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _fully(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._hidden = gc.get_freeze_count()
