"""The times over which the rate of a counter means something: neither an instant nor a long pause.

Over an instant, one request more looks like a burst. That happens after a restart, whose first tick comes at any moment between two
points of the grid, and in an early turn. Over a long pause, a reset of the counter looks like a rate near zero.
"""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class RateWindow:
    """Bounds of the time between the two readings that a rate is computed from.

    Attributes:
        shortest_s: A reading that comes sooner repeats the rate before, in seconds.
        longest_s: A counter seen longer ago is forgotten, in seconds.
    """

    shortest_s: float = 0.0
    longest_s: float = _LONGEST_S

    @classmethod
    def of_ticks(cls, tick_s: float) -> RateWindow:
        """Return the bounds for a daemon that reads every `tick_s` seconds: half a tick, and time for one lost reading."""
        return cls(tick_s / 2.0, max(_LONGEST_S, 2.5 * tick_s))
