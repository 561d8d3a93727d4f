"""What models want at future ticks, computed at once when a replay knows demand in advance.

The state derived from demand advances with each tick that is used, and only with those. If a tick turns out differently, or the
state is read (`Trial.settle`), the rest is discarded. So nothing depends on this but the time taken.

Rules of this file: it keeps what `columns` computed, and computes no wishes itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.demand_falls import Falls, calm, doubted, pass_calm
from autoscaler.core.law_grid import LawPage
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.plain_models import DemandAfterPage
from autoscaler.core.objective.shadow_fleets import Shadows
from autoscaler.core.types import Float, Int, SmallInt

AHEAD = "ahead"
"""Name of the ticks ahead in `Trial.owed`."""


class Ahead:
    """T future ticks of n columns that were computed together, from one row of a page on.

    Args:
        page: The page of laws that contains them.
        row: The page's row of the first tick.
        now_s: Times of the T ticks.
        price: float64 (n,), price of shortage, the same at all of them.
        want: int (T, 2, M, n), the models' wishes within bounds; (T, 2, C) by cells if there are shadows.
        work: float64 (T, n), demand in VMs.
        passed: What plain models remember once the ticks are over.
        shadows: Shadows that have gone through the ticks; None if shadows advance tick by tick.

    Attributes:
        want, work, shadows: As given.
        used: How many of the ticks have come.
    """

    def __init__(
        self,
        page: LawPage,
        row: int,
        now_s: Sequence[float],
        price: Float,
        want: SmallInt,
        work: Float,
        demand_after: DemandAfterPage,
        shadows: Shadows | None,
    ) -> None:
        self._page, self._row, self._now_s, self._demand_after = page, row, now_s, demand_after
        self._first_tick = page.first_tick + row
        self._price, self._last_price = price.copy(), price
        self.used, self._valid = 0, True
        self._recorded = self._calm_until = 0
        self.want, self.work, self.shadows = want, work, shadows

    def goes_on(self, page: LawPage, row: int, now_s: float, price: Float) -> bool:
        """Return whether the next tick is the one with this page, row, time and price."""
        at = self.used
        if not (self._valid and page is self._page and row == self._row + at and at < len(self.want)):
            return False
        if price is not self._last_price:
            if not np.array_equal(price, self._price):
                return False
            self._last_price = price
        return now_s == self._now_s[at]

    def next(self) -> int:
        """Use the next tick, and return its index."""
        self.used += 1
        return self.used - 1

    def doubted(self, falls: Falls, tick_s: float, lead_ticks: Float, price: Float) -> Int | None:
        """Return the VMs held for doubted falls (`demand_falls.doubted`) at the last used tick: int64 (n,), or None.

        Most ticks are known to be calm in advance, and then nothing is computed.

        Args:
            falls: Updated in place.
            tick_s: Length of a tick.
            lead_ticks: float64 (n,), ticks from an order until it serves.
            price: float64 (n,), price of shortage.
        """
        at = self.used - 1
        if at < self._calm_until:
            return None
        self._catch_up(falls, at)
        tick = self._first_tick + at
        held = doubted(falls, tick, tick_s, self.work[at], lead_ticks, price)
        self._recorded = self._calm_until = at + 1
        if held is None:
            self._calm_until += calm(falls, tick + 1, tick_s, self.work[at + 1 :])
        return held

    def _catch_up(self, falls: Falls, end: int) -> None:
        """Record the calm ticks before tick `end` in `demand_falls`."""
        pass_calm(falls, self._first_tick + self._recorded, self.work[self._recorded : end])
        self._recorded = max(self._recorded, end)

    def settle(self, trial: Trial) -> None:
        """Record the demand of the ticks that were used in the trial, and discard the others."""
        self._valid = False
        if not self.used:
            return
        self._catch_up(trial.falls, self.used)
        self._demand_after.remember(trial, self._first_tick, self.used)
