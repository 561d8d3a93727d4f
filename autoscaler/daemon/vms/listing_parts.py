"""Which parts of a listing matter to a fleet: the zones in which it has or may have VMs.

Why: hosts are listed one by one, and one that is down must not hold fleets that have nothing there. Where a fleet had VMs is
known from this run's listings, from its own orders, and from what an earlier run remembered.

Rules of this file: in doubt a part concerns the fleet. Providers that list everything in one call have no parts, and none of
this applies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from autoscaler.ports import Listing

MANY_ABSENT = 3
"""If at least so many VMs, and most of a fleet, are missing from a complete listing at once, it is doubted that they are gone."""


class Parts:
    """Which zones concern one fleet, as far as listings tell."""

    def __init__(self) -> None:
        self.missing_zones: tuple[str, ...] = ()
        """Zones that concern the fleet and that the last listing lacked."""
        self.exist = False
        """Whether listings have parts."""
        self._seen: set[str] = set()
        self._had: frozenset[str] | None = None

    def recall(self, zones: Sequence[str]) -> None:
        """Restore the zones in which an earlier run had VMs; an empty name means that the zone of a VM was not known.

        Raises:
            TypeError: The zones are not strings.
        """
        if not all(isinstance(zone, str) for zone in zones):
            raise TypeError("these are no zones")
        self._had = None if "" in zones else frozenset(zones)

    def follow(self, listing: Listing, zones: Callable[[], Sequence[str]], *, awaits: bool) -> str:
        """Note which parts of a listing arrived, and return, for people, what the fleet lacks of it; empty if nothing.

        Args:
            listing: The whole listing.
            zones: Returns the zones of the fleet's VMs, with an empty name for an unknown zone. Called only if a part
                is missing.
            awaits: Whether VMs were requested that may be in any zone.
        """
        parts = listing.parts
        if parts:
            self.exist = True
            self._seen.update(zone for zone, trouble in parts.items() if not trouble)
        self.missing_zones = ()
        if listing.complete:
            return ""
        away = [zone for zone, trouble in parts.items() if trouble]
        if not away:
            return listing.error or "the list of VMs is not whole"
        held = zones()
        if self._had is not None and not self._had <= parts.keys():
            # A host that had VMs of the fleet was renamed or is no longer asked, so the remembered zones prove
            # nothing.
            self._had = None
        self.missing_zones = tuple(zone for zone in away if awaits or self._concerns(zone, held))
        return "; ".join(parts[zone] for zone in self.missing_zones)

    def _concerns(self, zone: str, held: Collection[str]) -> bool:
        if zone in held or "" in held:
            return True
        return zone not in self._seen and (self._had is None or zone in self._had)


def unlisted_words(lacking: int, known: int, for_s: float) -> str:
    """Say that all or most of a fleet's VMs are missing from complete listings, and what to check."""
    if lacking < known:
        which = f"{lacking} of its {known} VMs are not"
    else:
        which = "its only VM is not" if known == 1 else f"none of its {known} VMs is"
    return (
        f"{which} in the list any more; counted as unchanged for {for_s / 60.0:.0f} min. Check the account, the region "
        "and the tags by which its VMs are found"
    )
