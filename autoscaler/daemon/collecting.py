"""Garbage of the process, collected in parts that are short enough for the event loop.

Why: Python's collector looks at everything that is young, and now and then at everything. With 20,000 VMs that holds
the loop for 80 to 180 ms, and for 15 to 30 ms even where all that was there at the start is out of its sight, since
listings make tens of thousands of rows that are gone a moment later. So what has outlived a tick is taken out of the
collector's sight (`gc.freeze`), between two ticks, when the rows of the last listing are gone; the collector never
looks at everything by itself, and each look of ours is at what has come since the last one. What goes is freed without
the collector, unless it refers to itself in a circle; such circles are found while they are young. Those that are not
are looked for once they may be many, which holds the loop for long, once in days if ever.

Rules of this file: nothing is collected while a tick may be under way, as far as the grid tells.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

_NEVER = 1_000_000_000
_LOOKED_AT_EVERY_S = 3600.0
"""How often the hidden objects are counted, which takes some milliseconds."""
_MANY_MORE = 300_000
"""So many more hidden objects than twice those of the last full look are worth another one: about 50 MB."""


@dataclass(slots=True)
class Collecting:
    """The collector of this process, from `begin` to `end`."""

    _thresholds: tuple[int, int, int] = field(default_factory=gc.get_threshold)
    _hidden: int = 0
    """Objects out of the collector's sight after the last full look."""
    _counted_at_s: float = float("-inf")

    def begin(self) -> None:
        """Hide what is there for good, and let the collector look at everything only when told to."""
        young, older, _ = self._thresholds
        gc.set_threshold(young, older, _NEVER)
        self._fully()

    def between_ticks(self, now_s: float) -> None:
        """Collect what has come since the last time, and hide what stays.

        Args:
            now_s: Of any clock that does not jump.
        """
        gc.collect()
        gc.freeze()
        if now_s - self._counted_at_s < _LOOKED_AT_EVERY_S:
            return
        self._counted_at_s = now_s
        if gc.get_freeze_count() > 2 * self._hidden + _MANY_MORE:
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
