"""The rows of a listing by owner: unchanged rows stay the same objects as in the previous listing.

Why: a provider builds all its rows anew each time, and examining 20,000 of them in one go would hold the event loop for too
long. Here they are compared in slices, once; everything after that recognises unchanged rows by identity.

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
"""Rows that are looked at in one turn of the event loop: 2 to 5 ms of it."""

MANY_FLEETS = 50
"""From so many on, what is done for each of them is done in turns of its own."""
FLEET_ROWS = 40
"""As many rows take as long as what a tick does for each fleet where nothing has changed."""


class Turns:
    """Gives way to others while much is done in a row."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def spent(self, rows: int) -> bool:
        """So many rows more were looked at; whether to `give_way` now."""
        self._done += rows
        if self._done < SLICE_ROWS:
            return False
        self._done = 0
        return True

    async def through(self, work: Generator[int | None, None, T], rows: int = 0) -> T:
        """What work returns that is done part by part.

        Args:
            work: Yields after each part how many rows it looked at.
            rows: Instead, for work that does not say.
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
        vms: As the provider gave them; None where it makes all its rows anew, so that those of the last listing are
            not kept beside their equals of the one before.
        by_fleet: The same by owner; the same tuple as before for a fleet none of whose rows has changed.
    """

    vms: tuple[Vm, ...] | None = ()
    by_fleet: dict[str, tuple[Vm, ...]] = field(default_factory=dict)

    async def followed_by(self, vms: tuple[Vm, ...]) -> Rows:
        """The rows of the next listing, worked out in slices."""
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
    """The rows with those of the last listing in the place of their equals."""
    kept: list[Vm] = []
    known: dict[str, Vm] = {}
    for at, new in enumerate(rows):
        if at < len(last) and ((row := last[at]) is new or row == new):
            kept.append(row)
        else:
            # Changed, or not where it was.
            known = known or {vm.id: vm for vm in last}
            row = known.get(new.id, new)
            kept.append(row if row == new else new)
        if turns.spent(1):
            await give_way()
    same = len(kept) == len(last) and all(map(is_, kept, last))
    return last if same else tuple(kept)
