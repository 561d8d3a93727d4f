"""Dry spells: when a simulated provider has no capacity, in given windows and at random moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autoscaler.core.types import Bool
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.plant_settings import PlantSettings, Span

_DAY_S = 86400.0
_PAGE = 64


class DrySpells:
    """Knows for each lane and tick whether the provider has capacity.

    Args:
        plants: One per lane.
        fleets: Names of the lanes' fleets, which address the random draws.
        shifts: int (L,), ticks that a lane is ahead of the first tick of the run.
        ticks: Number of ticks of the run.
        tick_s: Length of a tick.
        seed: Seed of the random spells.
    """

    def __init__(
        self,
        plants: Sequence[PlantSettings],
        fleets: Sequence[str],
        shifts: Sequence[int],
        *,
        ticks: int,
        tick_s: float,
        seed: int,
    ) -> None:
        kinds: dict[tuple[PlantSettings, str, int], int] = {}
        keys = zip(plants, fleets, shifts, strict=True)
        self._kind = np.array([kinds.setdefault(key, len(kinds)) for key in keys])
        self._dry: Bool = np.zeros((ticks, len(kinds)), np.bool_)
        for (plant, fleet, shift), kind in kinds.items():
            end_s = (ticks + shift) * tick_s
            for start, end in (*plant.dry, *_random(plant, Luck(seed, fleet), end_s)):
                first = max(int(np.ceil(start / tick_s - 1e-9)) - shift, 0)
                last = max(int(np.ceil(min(end, end_s) / tick_s - 1e-9)) - shift, 0)
                self._dry[first:last, kind] = True
        self._any: Bool = np.asarray(self._dry.any(axis=1))

    def at(self, tick: int) -> Bool | None:
        """Return bool (L,), the lanes without capacity at this tick; None if there are none."""
        return self._dry[tick][self._kind] if self._any[tick] else None


def _random(plant: PlantSettings, luck: Luck, until_s: float) -> Iterator[Span]:
    """Yield the random spells that begin before `until_s`, in seconds from the start of the run."""
    if not plant.dry_per_day:
        return
    at_s, page = 0.0, 0
    while at_s < until_s:
        drawn = luck.exponentials(Purpose.DRY_SPELL, page, 2 * _PAGE)
        for gap, length in drawn.reshape(_PAGE, 2):
            at_s += float(gap) * _DAY_S / plant.dry_per_day
            if at_s >= until_s:
                return
            end_s = at_s + float(length) * plant.dry_mean_s
            yield at_s, end_s
            at_s = end_s
        page += 1
