"""Which parts of a listing matter to a fleet: the zones in which it has or may have VMs.

Why: hosts are listed one by one, and one that is down must not hold fleets that have nothing there. Where a fleet had VMs is
known from this run's listings, from its own orders, and from what an earlier run remembered.

Rules of this file: in doubt a part concerns the fleet. Providers that list everything in one call have no parts, and none of
this applies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from autoscaler.ports import Listing


class Parts:
    """Where one fleet's VMs are, as far as listings tell."""

    def __init__(self) -> None:
        self.lacking: tuple[str, ...] = ()
        """Zones that the last listing did not tell of, and that concern the fleet."""
        self.exist = False
        """Whether listings have parts."""
        self._seen: set[str] = set()
        self._had: frozenset[str] | None = None

    def recall(self, zones: Sequence[str]) -> None:
        """What an earlier run remembered: it had VMs in these zones and in no others; an empty name is one unknown.

        Raises:
            TypeError: These are no zones.
        """
        if not all(isinstance(zone, str) for zone in zones):
            raise TypeError("these are no zones")
        self._had = None if "" in zones else frozenset(zones)

    def follow(self, listing: Listing, zones: Callable[[], Sequence[str]], *, awaits: bool) -> str:
        """Take in which parts of a listing came; for a person, what the fleet misses of it, empty where that is nothing.

        Args:
            listing: The whole view.
            zones: Those of the fleet's VMs; an empty name is one that is not known yet. Asked only where a part is away.
            awaits: Whether VMs were asked for that may be anywhere.
        """
        parts = listing.parts
        if parts:
            self.exist = True
            self._seen.update(zone for zone, trouble in parts.items() if not trouble)
        self.lacking = ()
        if listing.complete:
            return ""
        away = [zone for zone, trouble in parts.items() if trouble]
        if not away:
            return listing.error or "the list of VMs is not whole"
        held = zones()
        if self._had is not None and not self._had <= parts.keys():
            # A host that had VMs of it has another name now, or is not asked any more: which, nobody knows.
            self._had = None
        self.lacking = tuple(zone for zone in away if awaits or self._concerns(zone, held))
        return "; ".join(parts[zone] for zone in self.lacking)

    def _concerns(self, zone: str, held: Collection[str]) -> bool:
        if zone in held or "" in held:
            return True
        return zone not in self._seen and (self._had is None or zone in self._had)
