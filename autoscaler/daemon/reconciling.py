"""Applies a tick's listings to all fleets, in slices if there are many VMs.

Rules of this file: `vms.inventory` decides what a row means. Between two slices anything may happen that may happen between
two listings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoscaler.clock import give_way
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.observing import Observer
from autoscaler.daemon.vms.inventory import Note
from autoscaler.daemon.vms.listing_rows import FLEET_ROWS, Turns
from autoscaler.ports import Listing

_BY_OTHERS = frozenset({"started_outside", "stopped_outside"})
"""Kinds of news about VMs that somebody else started or stopped."""


async def reconcile(
    fleets: Sequence[Fleet], listings: Mapping[int, Listing], observer: Observer, now_s: float
) -> list[Note]:
    """Apply every fleet's part of its listing, and return what deserves an event.

    Args:
        fleets: All fleets.
        listings: The listing of each provider, by `id(provider)`.
        observer: Provides the rows of each listing by fleet.
        now_s: The current time.
    """
    notes: list[Note] = []
    turns = Turns()
    for fleet in fleets:
        key = id(fleet.provider)
        listing = listings[key]
        for rows in _parts(fleet, listing, observer, now_s, notes):
            if turns.spent(rows):
                await give_way()
        fleet.listing_error = fleet.inventory.unlisted
    return notes


def _parts(
    fleet: Fleet, listing: Listing, observer: Observer, now_s: float, notes: list[Note]
) -> Iterator[int]:
    own = observer.rows_by_fleet(id(fleet.provider)).get(fleet.name, ())
    told: list[Note] = []
    yield from fleet.inventory.reconciling(listing, own, now_s, told)
    # What the daemon does that acts on the fleet is news in that daemon's log only.
    notes += [note for note in told if not (fleet.leased_to and note.kind in _BY_OTHERS)]
    if fleet.real is not None:
        yield from fleet.real.taking_in(
            listing, observer.real_by_fleet(id(fleet.provider)).get(fleet.name, ()), now_s
        )
    yield FLEET_ROWS
