"""The rows of a listing by owner: unchanged rows stay the same objects as in the previous listing.

Why: a provider builds all its rows again for each listing, and examining 20,000 of them in one go would hold the event
loop for too long. Here they are compared in slices, once; everything after that recognises unchanged rows by identity.

Rules of this file: a listing is applied completely or not at all. Slices are counted in rows, not timed, so that runs on
virtual time are reproducible.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TypeVar

from autoscaler.clock import give_way
from autoscaler.ports import Vm

T = TypeVar("T")

SLICE_ROWS = 2000
"""Rows that are looked at in one turn of the event loop: 2 to 5 ms."""

MANY_FLEETS = 50
"""Number of fleets from which the steps of a tick give way to others in between."""
FLEET_ROWS = 40
"""Rows that take as long to look at as one fleet without changes takes in a tick."""


class Turns:
    """Gives way to other tasks during long stretches of work."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def spent(self, rows: int) -> bool:
        """Count rows that were looked at, and return whether to `give_way` now."""
        self._done += rows
        if self._done < SLICE_ROWS:
            return False
        self._done = 0
        return True

    async def through(self, work: Generator[int | None, None, T], rows: int = 0) -> T:
        """Run work that is done part by part, giving way in between, and return its result.

        Args:
            work: Yields after each part how many rows it looked at.
            rows: How many rows a part counts as if the work yields None.
        """
        while True:
            try:
                looked_at = next(work)
            except StopIteration as ended:
                result: T = ended.value
                return result
            if self.spent(rows if looked_at is None else looked_at):
                await give_way()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one listing.

    Attributes:
        vms: The rows as the provider gave them. None if the provider builds all rows anew, so that these equal copies
            are not kept in memory.
        by_fleet: The rows by owner. A fleet none of whose rows has changed has the same tuple as before.
    """

    vms: tuple[Vm, ...] | None = ()
    by_fleet: dict[str, tuple[Vm, ...]] = field(default_factory=dict)

    async def followed_by(self, vms: tuple[Vm, ...]) -> Rows:
        """Return the rows of the next listing, compared in slices."""
        turns = Turns()
        found: dict[str, list[Vm]] = {}
        for begin in range(0, len(vms), SLICE_ROWS):
            part = vms[begin : begin + SLICE_ROWS]
            for vm in part:
                own = found.get(vm.fleet)
                if own is None:
                    own = found[vm.fleet] = []
                own.append(vm)
            if turns.spent(len(part)):
                await give_way()
        by_fleet, as_they_came = {}, True
        for fleet, own in found.items():
            last = self.by_fleet.get(fleet, ())
            by_fleet[fleet] = kept = await _kept(last, own, turns)
            as_they_came = as_they_came and all(map(is_, kept, own))
        return Rows(vms if as_they_came else None, by_fleet)


async def _kept(last: tuple[Vm, ...], rows: Sequence[Vm], turns: Turns) -> tuple[Vm, ...]:
    """Return the rows, with equal rows of the last listing in their place."""
    kept: list[Vm] = []
    known: dict[str, Vm] = {}
    for at, new in enumerate(rows):
        if at < len(last) and ((row := last[at]) is new or row == new):
            kept.append(row)
        else:
            # The row has changed or moved.
            known = known or {vm.id: vm for vm in last}
            row = known.get(new.id, new)
            kept.append(row if row == new else new)
        if turns.spent(1):
            await give_way()
    same = len(kept) == len(last) and all(map(is_, kept, last))
    return last if same else tuple(kept)
