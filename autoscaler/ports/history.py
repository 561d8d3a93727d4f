"""Recent history of fleets, for people who are looking now."""

from __future__ import annotations

from typing import Any, Protocol


class History(Protocol):
    """Reads the past beside the loop, within a few seconds or not at all."""

    async def ticks(self, fleet: str, until_s: float, hours: float) -> dict[str, Any]:
        """The last hours of a fleet as columns of equal length, thinned where they are long; unknown numbers are None.

        Args:
            fleet: Its name.
            until_s: Epoch seconds.
            hours: How far back.

        Raises:
            JournalError: It cannot be read, or not now.
        """
        ...

    async def events(self, fleet: str | None) -> list[dict[str, Any]]:
        """The newest events, newest first: of one fleet and those that concern no single one, or all.

        Raises:
            JournalError: It cannot be read, or not now.
        """
        ...
