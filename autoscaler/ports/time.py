"""Time as an argument."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Source of time, passed as an argument. Implementations: system, scaled, virtual (`autoscaler.clock`)."""

    def now(self) -> float:
        """Epoch seconds; may differ from the machine's time (scaled, virtual) and may jump (system)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards, at the clock's own speed."""
        ...

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return when `monotonic()` reaches `monotonic_s`, at once if it already has."""
        ...
