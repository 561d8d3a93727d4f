"""Time as an argument."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Time as an argument. Implementations: system, scaled, virtual (`autoscaler.clock`)."""

    def now(self) -> float:
        """Epoch seconds; may be far from the machine's (scaled, virtual); may jump (system)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards, at the clock's own speed."""
        ...

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once `monotonic()` has reached the argument; at once if it has."""
        ...
