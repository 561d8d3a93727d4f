"""Recent history of fleets, for people who are looking now."""

from __future__ import annotations

from typing import Any, Protocol


class History(Protocol):
    """Reads the recorded past outside the loop. Each call is bounded to a few seconds."""

    async def ticks(self, fleet: str, until_s: float, hours: float) -> dict[str, Any]:
        """Return the last hours of a fleet as columns of equal length; long ranges are thinned, unknown numbers are None.

        Args:
            fleet: Name of the fleet.
            until_s: End of the range, epoch seconds.
            hours: Length of the range.

        Raises:
            JournalError: The journal cannot be read, or not now.
        """
        ...

    async def events(self, fleet: str | None) -> list[dict[str, Any]]:
        """Return the newest events, newest first: of `fleet` and of no single fleet, or all if `fleet` is None.

        Raises:
            JournalError: The journal cannot be read, or not now.
        """
        ...
